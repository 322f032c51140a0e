package main

import (
	"strings"

	"github.com/wafermail/wafer/plugins/internal/address"
	"github.com/wafermail/wafer/sdk"
)

// maxParts bounds the lookups of one key.
const maxParts = 40

// parts are what is looked up for key, the most specific first, with what a
// refusal says of it. There are none where the fact is not known yet.
func (s settings) parts(e *sdk.Event, key string) (kind address.Kind, value string, parts []string) {
	switch key {
	case client:
		value, kind = clientOf(e), address.Client
		parts = s.network(e.Client())
	case clientName:
		value, kind = clientOf(e), address.Client
		parts = s.domain(e.ClientName())
	case reverseName:
		value, kind = clientOf(e), address.Client
		parts = s.domain(e.Fact(sdk.FactReverseName))
	case helo:
		value, kind = e.Helo(), address.Helo
		parts = s.domain(address.WithoutDot(value))
	case sender:
		if !e.HasSender() {
			return
		}
		value, kind = e.Sender(), address.Sender
		parts = s.mailbox(value)
	case recipient:
		if e.Recipient() == "" {
			return
		}
		value, kind = e.Recipient(), address.Recipient
		parts = s.mailbox(value)
	case user:
		if e.User() == "" {
			return
		}
		value, kind = e.User(), "SASL login name"
		parts = []string{strings.ToLower(value)}
	}
	return kind, value, parts[:min(len(parts), maxParts)]
}

// clientOf is how Postfix names a client: "name[address]".
func clientOf(e *sdk.Event) string {
	name := e.ClientName()
	if name == "" {
		name = "unknown"
	}
	return name + "[" + e.Client() + "]"
}

// network is an address and what remains of it when its last groups are cut off:
// "192.0.2.1", "192.0.2", "192.0", "192".
func (s settings) network(addr string) []string {
	if addr == "" {
		return nil
	}
	by := "."
	if strings.Contains(addr, ":") {
		by = ":"
	}
	parts := []string{addr}
	for !s.whole {
		i := strings.LastIndex(addr, by)
		if i < 0 {
			break
		}
		if addr = strings.TrimSuffix(addr[:i], by); addr == "" { // "::1"
			break
		}
		parts = append(parts, addr)
	}
	return parts
}

// domain is a name and its parents: "mail.example.com", ".example.com",
// "example.com", ".com", "com".
func (s settings) domain(name string) []string {
	if name == "" {
		return nil
	}
	name = strings.ToLower(name)
	parts := []string{name}
	if s.whole || name[0] == '[' {
		return parts
	}
	for len(parts) < maxParts {
		_, parent, ok := strings.Cut(name, ".")
		if !ok || parent == "" {
			break
		}
		parts = append(parts, "."+parent, parent)
		name = parent
	}
	return parts
}

// mailbox is an address in the order of access(5): with and without the detail,
// the domain and its parents, the user. The null reverse-path is "<>".
func (s settings) mailbox(path string) []string {
	if path == "" {
		return []string{"<>"}
	}
	path = strings.ToLower(path)
	parts := []string{path}
	if s.whole {
		return parts
	}
	local, domain := address.Split(path)
	plain, detailed := local, false
	if s.separator != "" {
		if plain, _, detailed = strings.Cut(local, s.separator); plain == "" {
			plain, detailed = local, false
		}
	}
	if detailed {
		parts = append(parts, plain+"@"+domain)
	}
	parts = append(parts, s.domain(address.WithoutDot(domain))...)
	parts = append(parts, local+"@")
	if detailed {
		parts = append(parts, plain+"@")
	}
	return parts
}
