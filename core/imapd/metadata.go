package imapd

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/maildir"
)

// Bounds of annotations (RFC 5464).
const (
	maxAnnotation     = 64 << 10 // octets of a value
	maxAnnotationName = 256
	maxAnnotations    = 100 // that one command names
)

// metadataQuery is what GETMETADATA asks for.
type metadataQuery struct {
	maxSize uint64
	depth   int // levels below each entry; -1: all
	entries []string
}

// cmdGetMetadata is RFC 5464 §4.2.
func (s *session) cmdGetMetadata(p *parser) (done, error) {
	q := metadataQuery{maxSize: math.MaxUint64}
	if err := p.space(); err != nil {
		return done{}, err
	}
	if p.peek() == '(' {
		if err := p.list(func() error { return p.metadataOption(&q) }); err != nil {
			return done{}, err
		}
		if err := p.space(); err != nil {
			return done{}, err
		}
	}
	name, err := p.mailbox()
	if err != nil {
		return done{}, err
	}
	if err := p.space(); err != nil {
		return done{}, err
	}
	if q.entries, err = p.entries(); err != nil {
		return done{}, err
	}
	if err := p.end(); err != nil {
		return done{}, err
	}
	longest, err := s.sendMetadata(name, &q)
	if err != nil {
		return done{}, s.storeError("read annotations", name, err)
	}
	if longest > 0 {
		return done{code: fmt.Sprintf("METADATA LONGENTRIES %d", longest)}, nil
	}
	return done{}, nil
}

func (p *parser) metadataOption(q *metadataQuery) error {
	word, err := p.keyword()
	if err != nil {
		return err
	}
	if err := p.space(); err != nil {
		return err
	}
	switch word {
	case "MAXSIZE":
		q.maxSize, err = p.number64()
		return err
	case "DEPTH":
		depth, err := p.keyword()
		switch depth {
		case "0":
			q.depth = 0
		case "1":
			q.depth = 1
		case "INFINITY":
			q.depth = -1
		default:
			err = errors.Join(err, bad("DEPTH is 0, 1 or infinity"))
		}
		return err
	}
	return bad("Unknown option %s", clip(word, 40))
}

// entries reads one name of an annotation, or several in parentheses.
func (p *parser) entries() (names []string, err error) {
	if p.peek() != '(' {
		name, err := p.entry()
		return []string{name}, err
	}
	err = p.list(func() error {
		name, err := p.entry()
		if err == nil && len(names) == maxAnnotations {
			err = bad("Too many annotations")
		}
		names = append(names, name)
		return err
	})
	if err == nil && len(names) == 0 {
		err = bad("No annotation is named")
	}
	return names, err
}

// entry reads the name of an annotation; case does not matter (RFC 5464 §3.2).
func (p *parser) entry() (string, error) {
	name, err := p.astring()
	if err != nil {
		return "", err
	}
	name = strings.ToLower(name)
	if !strings.HasPrefix(name, "/private/") && !strings.HasPrefix(name, "/shared/") {
		return "", bad("Annotations begin with /private/ or /shared/")
	}
	wrong := func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '*' || r == '%' }
	if len(name) > maxAnnotationName || strings.ContainsFunc(name, wrong) || strings.Contains(name, "//") || strings.HasSuffix(name, "/") {
		return "", bad("Malformed name of an annotation")
	}
	return name, nil
}

// below reports whether an entry is asked for by name.
func (q *metadataQuery) below(name, entry string) bool {
	rest, ok := strings.CutPrefix(entry, name)
	switch {
	case !ok || rest != "" && rest[0] != '/':
		return false
	case rest == "" || q.depth < 0:
		return true
	}
	return strings.Count(rest, "/") <= q.depth
}

// sendMetadata sends the annotations of a mailbox, or with "" for a name the
// server's. It returns the length of the longest that was too long, 0 if none was.
func (s *session) sendMetadata(name string, q *metadataQuery) (longest int, err error) {
	all, err := s.store.Metadata(name)
	if err != nil {
		return 0, err
	}
	type pair struct {
		name  string
		value *string
	}
	var found []pair
	names := make([]string, 0, len(all))
	for entry := range all {
		names = append(names, entry)
	}
	slices.Sort(names)
	for _, want := range q.entries {
		if _, ok := all[want]; !ok && q.depth == 0 {
			found = append(found, pair{want, nil})
		}
		for _, entry := range names {
			if !q.below(want, entry) {
				continue
			}
			value := all[entry]
			if uint64(len(value)) > q.maxSize {
				longest = max(longest, len(value))
				continue
			}
			found = append(found, pair{entry, &value})
		}
	}
	if len(found) == 0 {
		return longest, nil
	}
	s.out.str("* METADATA ")
	s.out.mailbox(name, s.utf8Names())
	s.out.str(" (")
	for i, f := range found {
		if i > 0 {
			s.out.byte(' ')
		}
		s.out.str(f.name)
		s.out.byte(' ')
		if f.value == nil {
			s.out.str("NIL")
		} else {
			s.out.text(*f.value)
		}
	}
	s.out.line(")")
	return longest, nil
}

// cmdSetMetadata is RFC 5464 §4.3.
func (s *session) cmdSetMetadata(p *parser) (done, error) {
	if err := p.space(); err != nil {
		return done{}, err
	}
	name, err := p.mailbox()
	if err != nil {
		return done{}, err
	}
	if err := p.space(); err != nil {
		return done{}, err
	}
	changes := map[string]*string{}
	tooLong := false
	err = p.list(func() error {
		entry, err := p.entry()
		if err != nil {
			return err
		}
		if err := p.space(); err != nil {
			return err
		}
		if len(changes) == maxAnnotations {
			return bad("Too many annotations")
		}
		if isNIL(p) {
			changes[entry] = nil
			return nil
		}
		value, err := p.astring()
		if err != nil {
			return err
		}
		tooLong = tooLong || len(value) > maxAnnotation
		if entry == maildir.SpecialUseEntry && maildir.SpecialUse(value) == "" {
			return no("USEATTR", "There is no such special use")
		}
		changes[entry] = &value
		return nil
	})
	if err != nil {
		return done{}, err
	}
	if err := p.end(); err != nil {
		return done{}, err
	}
	switch {
	case len(changes) == 0:
		return done{}, bad("No annotation is named")
	case tooLong:
		return done{}, no(fmt.Sprintf("METADATA MAXSIZE %d", maxAnnotation), "Annotation is too long")
	}
	err = s.store.SetMetadata(name, changes)
	if errors.Is(err, maildir.ErrMetadataFull) {
		return done{}, no("METADATA TOOMANY", "Too many annotations")
	}
	if err != nil {
		return done{}, s.storeError("store annotations", name, err)
	}
	s.did(name)
	return done{}, nil
}

// isNIL reads the atom NIL.
func isNIL(p *parser) bool {
	rest := p.rest()
	if len(rest) < 3 || !strings.EqualFold(string(rest[:3]), "NIL") || len(rest) > 3 && isAstringChar(rest[3]) {
		return false
	}
	p.pos += 3
	return true
}
