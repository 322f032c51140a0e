package imapd

import "strings"

// cmdList is LIST, also in its extended form (RFC 9051 §6.3.9).
func (s *session) cmdList(p *parser) (done, error) {
	q, err := p.listQuery()
	if err != nil {
		return done{}, err
	}
	if len(q.patterns) == 1 && q.patterns[0] == "" && !q.extended {
		s.out.line(`* LIST (\Noselect) "." ""`)
		return done{}, nil
	}
	return done{}, s.list(q)
}

// listQuery is what LIST asks for.
type listQuery struct {
	extended  bool
	reference string
	patterns  []string

	subscribed, recursive, special bool // selection options

	returnSubscribed, returnChildren, returnSpecial bool
	status                                          []string // items, nil: no STATUS
	metadata                                        []string // annotations (RFC 9590), nil: none
}

// listQuery reads LIST's arguments.
func (p *parser) listQuery() (q listQuery, err error) {
	if err = p.space(); err != nil {
		return q, err
	}
	if p.peek() == '(' {
		q.extended = true
		if err = p.list(func() error { return p.listSelection(&q) }); err != nil {
			return q, err
		}
		if q.recursive && !q.subscribed {
			return q, bad("RECURSIVEMATCH needs SUBSCRIBED")
		}
		if err = p.space(); err != nil {
			return q, err
		}
	}
	ref, err := p.astring()
	if err != nil {
		return q, err
	}
	if q.reference, err = p.mailboxName(ref); err != nil {
		return q, err
	}
	if err = p.space(); err != nil {
		return q, err
	}
	one := func() error {
		s, err := p.listMailbox()
		q.patterns = append(q.patterns, s)
		return err
	}
	if p.peek() == '(' {
		q.extended = true
		err = p.list(one)
	} else {
		err = one()
	}
	if err != nil || p.atEnd() {
		return q, err
	}
	if err = p.space(); err != nil {
		return q, err
	}
	if p.atEnd() {
		return q, nil
	}
	q.extended = true
	if word, err := p.keyword(); err != nil || word != "RETURN" {
		return q, bad("Expected RETURN")
	}
	if err = p.space(); err != nil {
		return q, err
	}
	if err = p.list(func() error { return p.listReturn(&q) }); err != nil {
		return q, err
	}
	return q, p.end()
}

func (p *parser) listSelection(q *listQuery) error {
	word, err := p.keyword()
	if err != nil {
		return err
	}
	switch word {
	case "SUBSCRIBED":
		q.subscribed, q.returnSubscribed = true, true
	case "RECURSIVEMATCH":
		q.recursive = true
	case "SPECIAL-USE":
		q.special, q.returnSpecial = true, true
	case "REMOTE": // there are none
	default:
		return bad("Unknown selection option %s", clip(word, 40))
	}
	return nil
}

func (p *parser) listReturn(q *listQuery) error {
	word, err := p.keyword()
	if err != nil {
		return err
	}
	switch word {
	case "SUBSCRIBED":
		q.returnSubscribed = true
	case "CHILDREN":
		q.returnChildren = true
	case "SPECIAL-USE":
		q.returnSpecial = true
	case "STATUS":
		if err := p.space(); err != nil {
			return err
		}
		q.status, err = p.statusItems()
		return err
	case "METADATA":
		if err := p.space(); err != nil {
			return err
		}
		q.metadata, err = p.entries()
		return err
	default:
		return bad("Unknown return option %s", clip(word, 40))
	}
	return nil
}

// listMailbox reads a pattern, in which "%" and "*" are allowed in an atom.
func (p *parser) listMailbox() (string, error) {
	var s string
	var err error
	if c := p.peek(); c == '"' || c == '{' {
		s, err = p.string()
	} else if s = p.run(func(c byte) bool { return isAstringChar(c) || c == '%' || c == '*' }); s == "" {
		err = bad("Expected a mailbox pattern at octet %d", p.pos+1)
	}
	if err != nil || p.utf8 {
		return s, err
	}
	// A pattern that is not modified UTF-7 matches nothing, or itself.
	if name, err := decodeMailbox(s); err == nil {
		return name, nil
	}
	return s, nil
}

// pattern puts a reference before a pattern.
func (q *listQuery) pattern(s string) string {
	return strings.TrimSuffix(q.reference, ".") + sep(q.reference) + s
}

func sep(reference string) string {
	if reference == "" {
		return ""
	}
	return "."
}
