package main

import (
	"net/netip"
	"strings"

	"github.com/wafermail/wafer/plugins/internal/address"
	"github.com/wafermail/wafer/sdk"
)

// network is a client's network, with so many bits for IPv4 and IPv6.
func network(client string, bits4, bits6 int) (string, bool) {
	a, err := netip.ParseAddr(client)
	if err != nil {
		return "", false
	}
	a, bits := a.Unmap().WithZone(""), bits6
	if a.Is4() {
		bits = bits4
	}
	p, err := a.Prefix(bits)
	return p.String(), err == nil
}

// clip keeps what a peer chose within what a key may be.
func clip(s string) string { return s[:min(len(s), sdk.MaxKey/2-64)] }

// sender is a reverse-path as it is remembered: what list servers and BATV
// change from message to message is taken out of the local part, so that one
// writer is one key. The null reverse-path is "<>".
func sender(path string) string {
	if path == "" {
		return "<>"
	}
	local, domain := address.Split(path)
	if domain == "" {
		return strings.ToLower(path)
	}
	local = withoutBATV(local)
	local, _, _ = strings.Cut(local, "+")
	return strings.ToLower(numbers(local) + "@" + domain)
}

// withoutBATV is the local part behind a BATV tag, which is "prvs=TAG=local", or
// from some the other way round, "prvs=local=TAG".
func withoutBATV(local string) string {
	rest, ok := strings.CutPrefix(local, "prvs=")
	if !ok {
		return local
	}
	a, b, ok := strings.Cut(rest, "=")
	if !ok || b == "" || strings.Contains(b, "=") {
		return local
	}
	if isTag(b) && !isTag(a) {
		return a
	}
	return b
}

// isTag reports whether s begins with ten lower-case letters and digits.
func isTag(s string) bool {
	return len(s) >= 10 && strings.Trim(s[:10], "0123456789abcdefghijklmnopqrstuvwxyz") == ""
}

// numbers makes each number that stands alone "#": "list-123-45" is "list-#-#",
// "user7" stays.
func numbers(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		j, digits := i, true
		for j < len(s) && isWord(s[j]) {
			digits = digits && s[j] >= '0' && s[j] <= '9'
			j++
		}
		switch {
		case j == i:
			b.WriteByte(s[i])
			j++
		case digits:
			b.WriteByte('#')
		default:
			b.WriteString(s[i:j])
		}
		i = j
	}
	return b.String()
}

func isWord(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
}

// clients are networks and domains of clients.
type clients struct {
	networks []netip.Prefix
	domains  []string
}

// parseClients reads values; bad is the first that is none.
func parseClients(values []string) (c clients, bad string) {
	for _, v := range values {
		if p, err := netip.ParsePrefix(v); err == nil {
			c.networks = append(c.networks, p.Masked())
		} else if a, err := netip.ParseAddr(v); err == nil {
			a = a.Unmap()
			c.networks = append(c.networks, netip.PrefixFrom(a, a.BitLen()))
		} else if d := strings.TrimPrefix(strings.ToLower(v), "."); address.IsHostname(d) {
			c.domains = append(c.domains, d)
		} else {
			return c, v
		}
	}
	return c, ""
}

func (c clients) has(client, name string) bool {
	if a, err := netip.ParseAddr(client); err == nil {
		for _, n := range c.networks {
			if n.Contains(a.Unmap()) {
				return true
			}
		}
	}
	name = strings.ToLower(name)
	for _, d := range c.domains {
		if within(name, d) {
			return true
		}
	}
	return false
}

// within reports whether name is domain or below it.
func within(name, domain string) bool {
	above, ok := strings.CutSuffix(name, domain)
	return ok && (above == "" || above[len(above)-1] == '.')
}

// mailbox is a pattern: with local "" any local part, with domain "" any domain.
type mailbox struct{ local, domain string }

type mailboxes []mailbox

// parseMailboxes reads values; bad is the first that is none.
func parseMailboxes(values []string) (m mailboxes, bad string) {
	for _, v := range values {
		s := strings.ToLower(v)
		local, domain := address.Split(s)
		switch {
		case s == "<>":
			local = "<>"
		case !strings.Contains(s, "@"):
			local, domain = "", strings.TrimPrefix(s, ".")
			if !address.IsHostname(domain) {
				return nil, v
			}
		case local == "" || domain != "" && !address.IsHostname(domain):
			return nil, v
		}
		m = append(m, mailbox{local, domain})
	}
	return m, ""
}

// has reports whether path is one of m: with its extension or without, and for a
// domain alone also in those below it.
func (m mailboxes) has(path string) bool {
	if len(m) == 0 {
		return false
	}
	if path == "" {
		path = "<>"
	}
	local, domain := address.Split(strings.ToLower(path))
	plain, _, _ := strings.Cut(local, "+")
	for _, p := range m {
		switch {
		case p.local == "":
			if within(domain, p.domain) {
				return true
			}
		case p.local != local && p.local != plain:
		case p.domain == "" || p.domain == domain:
			return true
		}
	}
	return false
}
