package imapd

import "strings"

// maxAddresses is how many addresses of one header field are looked at.
const maxAddresses = 10000

// maxAddressPart is where a part of an address, made of many tokens, is cut.
const maxAddressPart = 2048

// joined is a+b. It stops growing at maxAddressPart, so that building a part
// token by token stays linear.
func joined(a, b string) string {
	if len(a) > maxAddressPart {
		return a
	}
	return a + b
}

// address is an element of an ENVELOPE's address lists (RFC 9051 §7.5.2). A
// group begins with one that has only a mailbox, and ends with an empty one.
type address struct{ name, route, mailbox, host string }

// What stands in for the parts that an address lacks. NIL there would mean a
// group; Dovecot uses the same words, so that clients see no change.
const (
	missingMailbox = "MISSING_MAILBOX"
	missingDomain  = "MISSING_DOMAIN"
)

// addressScanner reads address lists (RFC 5322 §3.4, with §4.4) and whatever
// else mail has in their place. It goes over the text once; nothing is an error.
type addressScanner struct {
	s string
	i int
}

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenWord
	tokenComment
	tokenSpecial // one of <>,:;@
)

type token struct {
	kind tokenKind
	text string // without quotes or parentheses
}

func isAddressSpecial(c byte) bool { return strings.IndexByte(`<>,:;@`, c) >= 0 }

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func (a *addressScanner) next() token {
	for a.i < len(a.s) && isBlank(a.s[a.i]) {
		a.i++
	}
	if a.i == len(a.s) {
		return token{}
	}
	switch c := a.s[a.i]; {
	case isAddressSpecial(c):
		a.i++
		return token{tokenSpecial, a.s[a.i-1 : a.i]}
	case c == '(':
		return token{tokenComment, a.comment()}
	case c == '"':
		return token{tokenWord, a.quoted()}
	case c == '[':
		start := a.i
		if end := strings.IndexByte(a.s[start:min(len(a.s), start+maxAddressPart)], ']'); end >= 0 {
			a.i = start + end + 1
			return token{tokenWord, a.s[start:a.i]}
		}
	}
	start := a.i
	for a.i++; a.i < len(a.s); a.i++ {
		if c := a.s[a.i]; isBlank(c) || isAddressSpecial(c) || c == '(' || c == '"' {
			break
		}
	}
	return token{tokenWord, a.s[start:a.i]}
}

func (a *addressScanner) comment() string {
	var b strings.Builder
	depth := 0
	for ; a.i < len(a.s); a.i++ {
		c := a.s[a.i]
		switch {
		case c == '\\' && a.i+1 < len(a.s):
			a.i++
			c = a.s[a.i]
		case c == '(':
			if depth++; depth == 1 {
				continue
			}
		case c == ')':
			if depth--; depth == 0 {
				a.i++
				return b.String()
			}
		}
		b.WriteByte(c)
	}
	return b.String()
}

func (a *addressScanner) quoted() string {
	var b strings.Builder
	for a.i++; a.i < len(a.s); a.i++ {
		c := a.s[a.i]
		switch {
		case c == '"':
			a.i++
			return b.String()
		case c == '\\' && a.i+1 < len(a.s):
			a.i++
			c = a.s[a.i]
		}
		b.WriteByte(c)
	}
	return b.String()
}

// addresses calls yield for every address of a field's body, unfolded.
func addresses(field string, yield func(address)) {
	a := &addressScanner{s: field}
	group, n := false, 0
	for n < maxAddresses {
		addr, stop, found := a.mailbox()
		if stop == ':' {
			if group {
				yield(address{})
			}
			group = true
			yield(address{mailbox: addr.name})
			n++
			continue
		}
		if found {
			yield(addr)
			n++
		}
		if (stop == ';' || stop == 0) && group {
			group = false
			yield(address{})
		}
		if stop == 0 {
			return
		}
	}
	if group {
		yield(address{})
	}
}

// mailbox reads one address up to the "," or ";" after it, or a group's name up
// to its ":". stop is that character, 0 at the end.
func (a *addressScanner) mailbox() (addr address, stop byte, found bool) {
	var words []string // before any "@" or "<"
	var comment, local, host string
	at, angle := false, false
	for {
		t := a.next()
		switch t.kind {
		case tokenComment:
			if len(words) > 0 || at || angle { // before the address it names nobody
				comment = t.text
			}
			continue
		case tokenWord:
			switch {
			case at:
				host = joined(host, t.text)
			case !angle:
				words = append(words, t.text)
			}
			continue
		case tokenSpecial:
			switch c := t.text[0]; {
			case c == '@':
				if at { // the last one counts
					local = joined(local, "@"+host)
				} else {
					local = strings.Join(words, "")
				}
				at, host = true, ""
				continue
			case c == '<' && !angle:
				angle, at = true, false
				addr.name = strings.Join(words, " ")
				addr.route, local, host = a.angle()
				continue
			case c == '>', c == '<', c == ':' && (at || angle):
				continue
			default:
				stop = c
			}
		}
		break
	}
	switch {
	case stop == ':':
		return address{name: strings.Join(words, " ")}, stop, true
	case !angle && !at:
		if len(words) == 0 {
			return addr, stop, false
		}
		local = strings.Join(words, " ")
	}
	if addr.name == "" {
		addr.name = comment
	}
	addr.mailbox, addr.host = local, host
	if addr.mailbox == "" {
		addr.mailbox = missingMailbox
	}
	if addr.host == "" {
		addr.host = missingDomain
	}
	return addr, stop, true
}

// angle reads what stands between "<" and ">", with a route (RFC 5322 §4.4).
func (a *addressScanner) angle() (route, local, host string) {
	at, routed := false, false
	for {
		save := a.i
		t := a.next()
		switch t.kind {
		case tokenEnd:
			return route, local, host
		case tokenWord:
			if at {
				host = joined(host, t.text)
			} else {
				local = joined(local, t.text)
			}
		case tokenSpecial:
			switch t.text {
			case ">":
				return route, local, host
			case "@":
				if at && local != "" {
					local = joined(local, "@"+host)
				} else if at { // a further hop of a route
					route = joined(route, "@"+host)
				}
				at, host = true, ""
			case ",":
				if local != "" || !at {
					a.i = save // the ">" is missing
					return route, local, host
				}
				route, host, at = joined(route, "@"+host+","), "", false
			case ":":
				if local == "" && at && !routed {
					route, host, at, routed = joined(route, "@"+host), "", false, true
				}
			case ";", "<":
				a.i = save
				return route, local, host
			}
		}
	}
}
