package config

import (
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/wafermail/wafer/core/mail"
	"github.com/zclconf/go-cty/cty"
)

// defaults is a mail that nobody has anything against.
func (r *reader) defaults() Given {
	sender, _ := mail.ParsePath("sender@example.net", true)
	rcpt, _ := mail.ParsePath("recipient@example.test", true)
	return Given{
		Hostname: "mail.example.test", Clock: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC),
		Client: netip.MustParseAddr("192.0.2.1"), Port: 40000, Helo: "client.example.net", Extended: true,
		Mechanism: "PLAIN", AuthOK: true, Sender: sender, Rcpts: []mail.Path{rcpt},
	}
}

func (g Given) clone() Given {
	g.DNS = cloneMap(g.DNS)
	g.Owners = cloneMap(g.Owners)
	g.State = cloneMap(g.State)
	return g
}

func cloneMap[V any](m map[string]V) map[string]V {
	out := make(map[string]V, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// given reads a given block onto g: what it does not say stays. A map adds to
// the one that is there.
func (r *reader) given(n *node, g *Given) {
	for _, list := range []struct {
		key string
		to  *[]string
	}{{"policy", &g.Policies}, {"domains", &g.Domains}, {"mailboxes", &g.Mailboxes}} {
		if l, _ := n.elements(list.key); n.body.Attributes[list.key] != nil {
			*list.to = l // with none it is as if nothing were said
		}
	}
	g.Door = n.choice("door", g.Door, profiles...)
	g.Hostname = n.text("hostname", g.Hostname)
	if s := n.text("clock", ""); s != "" {
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			n.wrong(n.at("clock"), "clock", `a time such as "2026-01-01T12:00:00Z"`)
		}
		g.Clock = t
	}
	if s := n.text("client", ""); s != "" {
		a, err := netip.ParseAddr(s)
		if err != nil {
			n.wrong(n.at("client"), "client", `an IP address, such as "192.0.2.1"`)
		}
		g.Client = a
	}
	g.Port = uint16(n.count("port", int64(g.Port), 1, math.MaxUint16))
	for _, name := range []struct {
		key string
		to  **string
	}{{"client_name", &g.ClientName}, {"reverse_name", &g.ReverseName}} {
		if s := n.text(name.key, ""); n.body.Attributes[name.key] != nil {
			*name.to = &s
		}
	}
	g.Trusted, g.EarlyTalker = n.flag("trusted", g.Trusted), n.flag("early_talker", g.EarlyTalker)
	g.TLS = n.tlsVersion("tls", g.TLS)
	g.Helo, g.Extended = n.text("helo", g.Helo), n.flag("extended", g.Extended)
	g.User, g.Mechanism, g.AuthOK = n.text("user", g.User), n.text("mechanism", g.Mechanism), n.flag("auth_ok", g.AuthOK)
	if n.body.Attributes["sender"] != nil {
		g.Sender = r.path(n.text("sender", ""), n.at("sender"), true)
	} else {
		n.attrs = append(n.attrs, "sender")
	}
	if rcpts, places := n.elements("rcpt"); n.body.Attributes["rcpt"] != nil {
		g.Rcpts = nil
		for i, s := range rcpts {
			g.Rcpts = append(g.Rcpts, r.path(s, places[i], false))
		}
	}
	g.Size = n.size("size", g.Size, 0, math.MaxInt64/2)
	if s := n.text("message", ""); s != "" {
		g.Message = lines(s)
	}
	if file := n.path("message_file", ""); file != "" {
		b, err := readRegular(file)
		if err != nil {
			r.fault(n.at("message_file"), "message cannot be read", cause(file, err)+" Write the path of a message (RFC 5322), relative to this file.")
		}
		g.Message = lines(string(b))
	}
	if file := n.path("zone", ""); file != "" {
		if err := readable(file); err != nil {
			r.fault(n.at("zone"), "zone cannot be read", cause(file, err)+" Write the path of a zone file, relative to this file.")
		}
		g.Zone = file
	}
	r.dnsTable(n, g)
	g.Owners = merge(g.Owners, n.lists("owners", `{ "info@example.test" = ["ann@example.test"] }`))
	for check, keys := range n.tables("state") {
		for k, v := range keys {
			if g.State == nil {
				g.State = map[string]map[string]string{}
			}
			g.State[check] = merge(g.State[check], map[string]string{k: v})
		}
	}
	n.done()
}

// tlsVersion reads true, false or a version.
func (n *node) tlsVersion(name, fallback string) string {
	if v, _, ok := n.value(name); ok && v.Type() == cty.Bool {
		if v.True() {
			return "TLSv1.3"
		}
		return ""
	}
	return n.choice(name, fallback, "", "TLSv1.2", "TLSv1.3")
}

// lines gives text the line ends of mail.
func lines(s string) []byte {
	return []byte(strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\n", "\r\n"))
}

func merge[V any](old, more map[string]V) map[string]V {
	if len(more) == 0 {
		return old
	}
	out := cloneMap(old)
	for k, v := range more {
		out[k] = v
	}
	return out
}

// path reads an address.
func (r *reader) path(s string, at hcl.Range, null bool) mail.Path {
	s = strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">")
	if s == "" && null {
		return mail.Path{}
	}
	p, err := mail.ParsePath(s, true)
	if err != nil {
		remedy := `; write "ann@example.org".`
		if null {
			remedy = `; write "ann@example.org", or "" for the null sender.`
		}
		r.fault(at, strconv.Quote(s)+" is no address", err.Error()+remedy)
	}
	return p
}

// dnsTypes are the types that a question may have.
var dnsTypes = []string{"A", "AAAA", "MX", "TXT", "PTR", "NS", "CNAME"}

// dnsTable reads dns.
func (r *reader) dnsTable(n *node, g *Given) {
	places := n.keys("dns", func(key string) string { return key })
	table := n.lists("dns", `{ "A mail.example.org" = "192.0.2.1", "TXT example.org" = ["v=spf1 -all"], "MX slow.example" = "TIMEOUT" }`)
	for _, question := range slices.Sorted(maps.Keys(table)) {
		kind, name, ok := strings.Cut(question, " ")
		if !ok || name == "" || !slices.Contains(dnsTypes, kind) && kind != "*" {
			at, found := places[question]
			if !found {
				at = n.at("dns")
			}
			r.fault(at, strconv.Quote(question)+" is no question", `Write a type and a name, such as "MX example.org" or "PTR 192.0.2.1". The types are `+strings.Join(dnsTypes, ", ")+`, and "*" for all of them.`)
		}
	}
	g.DNS = merge(g.DNS, table)
}
