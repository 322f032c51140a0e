package smtpd

import "iter"

// mailbox is one address in a field of addresses (RFC 5322 §3.4).
type mailbox struct {
	address string // without comments, blanks and route; "" for "<>"; with a blank in it what is no address
	end     int    // octet of the field's body behind it
	at      bool   // it has a domain
}

// mailboxes finds the addresses in the body of a field, also in one that breaks
// the grammar: it takes what any program might take for them, such as each of
// two addresses in brackets. Display names, comments and the names of groups are
// passed over.
func mailboxes(body []byte) iter.Seq[mailbox] {
	return func(yield func(mailbox) bool) { findMailboxes(body, yield) }
}

func findMailboxes(body []byte, yield func(mailbox) bool) {
	var outer, inner spelling
	angle, inside := false, false // an angle bracket was opened; and not closed
	finish := func() (more bool) {
		more = true
		switch {
		case angle:
			more = yield(inner.mailbox())
		case len(outer.text) > 0:
			more = yield(outer.mailbox())
		}
		outer, inner, angle, inside = spelling{}, spelling{}, false, false
		return more
	}
	for i := 0; i < len(body); {
		word := &outer
		if inside {
			word = &inner
		}
		switch c := body[i]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			word.blank = true
			i++
		case c == '(':
			word.blank = true
			i = closing(body, i, '(', ')')
		case c == '"':
			n := closing(body, i, 0, '"')
			word.add(body[i:n], n)
			i = n
		case c == '[':
			n := closing(body, i, 0, ']')
			word.add(body[i:n], n)
			i = n
		case c == '\\':
			n := min(i+2, len(body))
			word.add(body[i:n], n)
			i = n
		case c == '<' && !inside:
			if angle && !yield(inner.mailbox()) {
				return
			}
			inner, angle, inside = spelling{}, true, true
			i++
		case c == '>' && inside:
			inside = false
			i++
		case c == ':' && inside: // behind a route
			inner = spelling{}
			i++
		case c == ':': // behind the name of a group
			outer = spelling{}
			i++
		case (c == ',' || c == ';') && !inside:
			if !finish() {
				return
			}
			i++
		default:
			word.add(body[i:i+1], i+1)
			i++
		}
	}
	finish()
}

// closing returns the octet behind what body[from] opens: a comment, which
// nests, a quoted string or a literal. What never ends goes to the end.
func closing(body []byte, from int, opens, closes byte) int {
	depth := 1
	for i := from + 1; i < len(body); i++ {
		switch c := body[i]; {
		case c == '\\':
			i++
		case c == closes:
			if depth--; depth == 0 {
				return i + 1
			}
		case c == opens && opens != 0:
			depth++
		}
	}
	return len(body)
}

// spelling gathers an address from its pieces.
type spelling struct {
	text  []byte
	end   int
	at    bool
	blank bool // there was one since the last piece
}

func (s *spelling) add(piece []byte, end int) {
	joint := func(c byte) bool { return c == '@' || c == '.' }
	if s.blank && len(s.text) > 0 && !joint(piece[0]) && !joint(s.text[len(s.text)-1]) {
		s.text = append(s.text, ' ') // two words are no address
	}
	s.text = append(s.text, piece...)
	s.end, s.blank = end, false
	s.at = s.at || piece[0] == '@'
}

func (s *spelling) mailbox() mailbox { return mailbox{string(s.text), s.end, s.at} }
