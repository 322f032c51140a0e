package main

import (
	"errors"
	"fmt"
	"strings"
)

// address is one of a list.
type address struct {
	spec string // without blanks and comments, with its quotes: `"a b"@example.net`
	bare bool   // a local part without a domain, which is a name of this site
	end  int    // offset behind a bare local part in the list
}

// whole is the address, with the domain home if it has none.
func (a address) whole(home string) string {
	if a.bare {
		return a.spec + "@" + home
	}
	return a.spec
}

// token is a piece of a list of addresses: 'a' an atom, 'q' a quoted string, 'l' a
// domain literal, or the special character itself.
type token struct {
	kind byte
	text string
	end  int
}

// parseAddresses reads a list of addresses (RFC 5322 §3.4 and §4.4): mailboxes with
// and without names, groups, comments, routes, folded lines. A semicolon does as
// a comma. Empty places are passed over, and so is "<>". An error says what cannot
// be read; then nothing of the list counts, because a recipient left out unseen is
// worse than a message that is not sent.
func parseAddresses(list string) (found []address, err error) {
	var words []token
	take := func() error {
		a, err := readAddress(words)
		if err != nil {
			return fmt.Errorf("%w in %.100q", err, strings.TrimSpace(list))
		}
		if words = words[:0]; a.spec != "" {
			found = append(found, a)
		}
		return nil
	}
	angle, named := false, false // between < and >; there was a <
	for rest := list; ; {
		t, left, err := nextToken(rest)
		if err != nil {
			return nil, fmt.Errorf("%w in %.100q", err, strings.TrimSpace(list))
		}
		t.end = len(list) - len(left)
		rest = left
		switch {
		case t.kind == '<' && !angle, t.kind == '>' && angle:
			angle, named = t.kind == '<', true
		case t.kind == 0, !angle && (t.kind == ',' || t.kind == ';'):
			if err := take(); err != nil {
				return nil, err
			}
			if t.kind == 0 {
				return found, nil
			}
			angle, named = false, false
			continue
		case !named && t.kind == ':': // the name of a group ends
			words = words[:0]
			continue
		}
		words = append(words, t)
	}
}

// nextToken reads one token behind blanks and comments; its kind is 0 at the end.
func nextToken(s string) (t token, rest string, err error) {
	const specials = "()<>[]:;@\\,.\""
	for s != "" {
		switch c := s[0]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			s = s[1:]
		case c == '(':
			n := closing(s, ')')
			if n < 0 {
				return t, "", errors.New("a comment without end")
			}
			s = s[n:]
		case c == '"':
			n := closing(s, '"')
			if n < 0 {
				return t, "", errors.New("quotes without end")
			}
			return token{kind: 'q', text: unfold(s[:n])}, s[n:], nil
		case c == '[' && literalLength(s) > 0:
			n := literalLength(s)
			return token{kind: 'l', text: unfold(s[:n])}, s[n:], nil
		case strings.IndexByte(specials, c) >= 0:
			return token{kind: c, text: s[:1]}, s[1:], nil
		case c < ' ' || c == 0x7f:
			return t, "", fmt.Errorf("control character %#x", c)
		default:
			n := encodedWord(s)
			if n == 0 {
				n = strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(specials, r) })
			}
			if n < 0 {
				n = len(s)
			}
			return token{kind: 'a', text: s[:n]}, s[n:], nil
		}
	}
	return t, "", nil
}

// closing is the offset behind the end of what begins s: a comment, quotes or a
// domain literal; -1 if it does not end. Comments may hold comments.
func closing(s string, end byte) int {
	depth := 1
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			i++
		case c == end:
			if depth--; depth == 0 {
				return i + 1
			}
		case c == '(' && end == ')':
			depth++
		}
	}
	return -1
}

// literalLength is the length of a domain literal that begins s, or not above 0 if there
// is none. The longest address of a host is much shorter than what is looked at.
func literalLength(s string) int { return closing(s[:min(len(s), 1000)], ']') }

// encodedWord is the length of an encoded word (RFC 2047) that begins s, which in
// the hands of careless programs holds specials; 0 if there is none.
func encodedWord(s string) int {
	if !strings.HasPrefix(s, "=?") {
		return 0
	}
	word := s[:min(len(s), 1000)]
	if i := strings.IndexAny(word, " \t\r\n"); i >= 0 {
		word = word[:i]
	}
	parts := strings.SplitN(word, "?", 5) // "=", charset, encoding, text, "=…"
	if len(parts) < 5 || len(parts[2]) != 1 || !strings.HasPrefix(parts[4], "=") {
		return 0
	}
	return len(word) - len(parts[4]) + 1
}

// unfold takes the line ends out of a folded text.
func unfold(s string) string { return strings.NewReplacer("\r", "", "\n", "").Replace(s) }

// readAddress is the address among the words of one place in a list: what is in
// angle brackets, or all. It is "" if there is none.
func readAddress(words []token) (address, error) {
	for i, t := range words {
		switch t.kind {
		case '<':
			inner := words[i+1:]
			last := len(inner) - 1
			if last < 0 || inner[last].kind != '>' {
				return address{}, errors.New("no > behind an address, or something behind it,")
			}
			return readSpec(withoutRoute(inner[:last]))
		case '>':
			return address{}, errors.New("a > without a <")
		}
	}
	return readSpec(words)
}

// withoutRoute takes "@a,@b:" away (RFC 5322 §4.4).
func withoutRoute(words []token) []token {
	if len(words) > 0 && (words[0].kind == '@' || words[0].kind == ',') {
		for i, t := range words {
			if t.kind == ':' {
				return words[i+1:]
			}
		}
	}
	return words
}

// readSpec puts an address together. What its parts may be is for the server to say;
// here it matters that it is one.
func readSpec(words []token) (a address, err error) {
	var b strings.Builder
	at, joined := false, true // joined: a word may follow
	for _, t := range words {
		switch t.kind {
		case 'a', 'q', 'l':
			switch {
			case !joined:
				return address{}, fmt.Errorf("no address, but words: %.60q and %.60q,", b.String(), t.text)
			case (t.kind == 'l') != at && t.kind != 'a':
				return address{}, fmt.Errorf("a misplaced %.60s", t.text)
			case strings.HasPrefix(t.text, "=?") && encodedWord(t.text) > 0:
				return address{}, errors.New("a name without an address")
			}
			joined = false
		case '.':
			joined = true
		case '@':
			switch {
			case at:
				return address{}, errors.New("an @ too many")
			case b.Len() == 0:
				return address{}, errors.New("an address without a local part")
			}
			at, joined = true, true
		default:
			return address{}, fmt.Errorf("a misplaced %s", t.text)
		}
		b.WriteString(t.text)
		a.end = t.end
	}
	if at && strings.HasSuffix(b.String(), "@") {
		return address{}, errors.New("an address without a domain")
	}
	a.spec, a.bare = b.String(), !at
	return a, nil
}
