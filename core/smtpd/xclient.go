package smtpd

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// attributes are the facts that XCLIENT overrides. A nil field was not given.
type attributes struct {
	name, reverse, helo, login *string
	addr, destAddr             *netip.Addr
	port, destPort             *uint16
	proto                      *string
}

// xclient is Postfix's XCLIENT command: a proxy that is allowed to says for
// whom it speaks. The session starts again.
func (s *session) xclient(arg []byte) {
	switch {
	case !within(s.origin, s.srv.c.XClientFrom):
		s.say(replyXClientNo)
		return
	case s.tx != nil:
		s.say(replyXClientTurn)
		return
	}
	a, ok := parseXClient(arg)
	if !ok {
		s.say(replyXClientBad)
		return
	}
	s.resetHelo()
	set(&s.client.Name, a.name)
	set(&s.reverse, a.reverse)
	set(&s.user, a.login)
	s.client.Addr = override(s.client.Addr, a.addr, a.port)
	s.server = override(s.server, a.destAddr, a.destPort)
	s.trusted = within(s.client.Addr.Addr(), s.srv.c.Trusted)
	s.kept, s.held, s.early = nil, policy.Decision{}, false
	s.judged()
	// HELO and PROTO are facts for the policy at connect; the client says
	// HELO or EHLO again after the greeting.
	set(&s.client.Helo, a.helo)
	s.extended = a.proto != nil && *a.proto == "ESMTP"
	s.welcome()
}

func set(field *string, value *string) {
	if value != nil {
		*field = *value
	}
}

func override(ap netip.AddrPort, addr *netip.Addr, port *uint16) netip.AddrPort {
	a, p := ap.Addr(), ap.Port()
	if addr != nil {
		a = *addr
	}
	if port != nil {
		p = *port
	}
	return netip.AddrPortFrom(a, p)
}

// parseXClient parses "NAME=value …". Values are xtext; [UNAVAILABLE] and
// [TEMPUNAVAIL] stand for nothing.
func parseXClient(arg []byte) (attributes, bool) {
	var a attributes
	words := bytes.Fields(arg)
	for _, word := range words {
		key, raw, ok := bytes.Cut(word, []byte("="))
		if !ok || !a.attribute(strings.ToUpper(string(key)), string(raw)) {
			return attributes{}, false
		}
	}
	return a, len(words) > 0
}

// attribute takes one attribute; each may come once.
func (a *attributes) attribute(key, raw string) bool {
	value, ok := decodeXtext(raw, 255)
	if !ok || value == "" {
		return false
	}
	if strings.EqualFold(value, "[UNAVAILABLE]") || strings.EqualFold(value, "[TEMPUNAVAIL]") {
		value = ""
	}
	switch key {
	case "NAME":
		return once(&a.name, value, value == "" || mail.ValidDomain(value))
	case "REVERSE_NAME":
		return once(&a.reverse, value, value == "" || mail.ValidDomain(value))
	case "HELO":
		return once(&a.helo, value, true)
	case "LOGIN":
		return once(&a.login, value, true)
	case "PROTO":
		value = strings.ToUpper(value)
		return once(&a.proto, value, value == "SMTP" || value == "ESMTP" || value == "LMTP")
	case "ADDR", "DESTADDR":
		field := &a.addr
		if key == "DESTADDR" {
			field = &a.destAddr
		}
		if value == "" {
			return once(field, netip.Addr{}, true)
		}
		if len(value) > 5 && strings.EqualFold(value[:5], "IPV6:") {
			value = value[5:]
		}
		addr, err := netip.ParseAddr(value)
		return once(field, addr.Unmap(), err == nil && addr.Zone() == "")
	case "PORT", "DESTPORT":
		field := &a.port
		if key == "DESTPORT" {
			field = &a.destPort
		}
		if value == "" {
			return once(field, 0, true)
		}
		n, err := strconv.ParseUint(value, 10, 16)
		return once(field, uint16(n), err == nil)
	}
	return false
}

func once[T any](field **T, value T, valid bool) bool {
	if *field != nil || !valid {
		return false
	}
	*field = &value
	return true
}
