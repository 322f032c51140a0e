package imapd

import (
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/maildir"
)

// listed is one line of a LIST response.
type listed struct {
	name       string
	attrs      []string
	childInfo  bool // has subscribed children that the pattern hides (RFC 5258 §3.5)
	selectable bool
}

// list answers a LIST command.
func (s *session) list(q listQuery) error {
	folders, err := s.store.Folders(s.ctx)
	if err != nil {
		return s.storeError("list mailboxes", "", err)
	}
	var subs []string
	if q.subscribed || q.returnSubscribed {
		if subs, err = s.store.Subscriptions(); err != nil {
			return s.storeError("read subscriptions", "", err)
		}
	}
	patterns := make([]pattern, len(q.patterns))
	for i, p := range q.patterns {
		patterns[i] = compilePattern(q.pattern(p))
	}
	for _, l := range q.choose(folders, subs, patterns) {
		s.out.str("* LIST (")
		s.out.str(strings.Join(l.attrs, " "))
		s.out.str(`) "." `)
		s.out.mailbox(l.name, s.utf8Names())
		if l.childInfo {
			s.out.str(` ("CHILDINFO" ("SUBSCRIBED"))`)
		}
		s.out.crlf()
		if q.metadata != nil && l.selectable {
			if _, err := s.sendMetadata(l.name, &metadataQuery{maxSize: maxAnnotation, entries: q.metadata}); err != nil && !isNoFolder(err) {
				return s.storeError("read annotations", l.name, err)
			}
		}
		if q.status != nil && l.selectable {
			if err := s.sendStatus(l.name, q.status); err != nil && !isNoFolder(err) {
				return s.storeError("read mailbox", l.name, err)
			}
		}
	}
	return nil
}

// choose picks the mailboxes that a query names, in the order of folders.
func (q *listQuery) choose(folders []maildir.FolderInfo, subs []string, patterns []pattern) []listed {
	subscribed := make(map[string]bool, len(subs))
	for _, name := range subs {
		subscribed[name] = true
	}
	known := make(map[string]bool, len(folders))
	for _, f := range folders {
		known[f.Name] = true
	}
	all := folders
	if q.subscribed { // also names that are subscribed to and gone
		all = slices.Clip(all)
		for _, name := range subs {
			if !known[name] {
				all = append(all, maildir.FolderInfo{Name: name, NoSelect: true})
			}
		}
	}
	var out []listed
	for _, f := range all {
		if !matchesAny(patterns, f.Name) {
			continue
		}
		hidden := q.recursive && hasSubscribedChild(f.Name, subs, patterns)
		if q.subscribed && !subscribed[f.Name] && !hidden || q.special && f.SpecialUse == "" {
			continue
		}
		l := listed{name: f.Name, childInfo: hidden, selectable: !f.NoSelect}
		switch {
		case !known[f.Name]:
			l.attrs = append(l.attrs, `\NonExistent`)
		case f.NoSelect && q.extended: // RFC 9051 §6.3.9.5
			l.attrs = append(l.attrs, `\NonExistent`)
		case f.NoSelect:
			l.attrs = append(l.attrs, `\Noselect`)
		}
		if q.returnSubscribed && subscribed[f.Name] {
			l.attrs = append(l.attrs, `\Subscribed`)
		}
		if !q.extended || q.returnChildren {
			if f.Children {
				l.attrs = append(l.attrs, `\HasChildren`)
			} else {
				l.attrs = append(l.attrs, `\HasNoChildren`)
			}
		}
		if f.SpecialUse != "" && (!q.extended || q.returnSpecial) {
			l.attrs = append(l.attrs, f.SpecialUse)
		}
		out = append(out, l)
	}
	return out
}

// hasSubscribedChild reports whether something below name is subscribed to and
// is not listed itself.
func hasSubscribedChild(name string, subs []string, patterns []pattern) bool {
	for _, sub := range subs {
		if strings.HasPrefix(sub, name+".") && !matchesAny(patterns, sub) {
			return true
		}
	}
	return false
}

// cmdLsub is RFC 3501 §6.3.9. A name that "%" stops at and that has subscribed
// names below it is listed as \Noselect.
func (s *session) cmdLsub(p *parser) (done, error) {
	q, err := p.listQuery()
	if err != nil {
		return done{}, err
	}
	if q.extended {
		return done{}, bad("LSUB takes a reference and a pattern")
	}
	subs, err := s.store.Subscriptions()
	if err != nil {
		return done{}, s.storeError("read subscriptions", "", err)
	}
	pat := compilePattern(q.pattern(q.patterns[0]))
	told := map[string]bool{}
	send := func(attrs, name string) {
		if told[name] {
			return
		}
		told[name] = true
		s.out.str("* LSUB (" + attrs + `) "." `)
		s.out.mailbox(name, s.utf8Names())
		s.out.crlf()
	}
	for _, name := range subs {
		if pat.match(name) {
			send("", name)
		}
	}
	if !pat.levels {
		return done{}, nil
	}
	for _, name := range subs {
		for i := range len(name) {
			if name[i] == '.' && pat.match(name[:i]) {
				send(`\Noselect`, name[:i])
			}
		}
	}
	return done{}, nil
}

func matchesAny(patterns []pattern, name string) bool {
	for i := range patterns {
		if patterns[i].match(name) {
			return true
		}
	}
	return false
}
