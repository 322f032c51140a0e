package config

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/wafermail/wafer/core/mail"
)

// Sending says how mail leaves for other hosts.
type Sending struct {
	Queue        Queue
	Relay        Relay
	Transports   []Transport
	Routes       []Route
	Destinations []Destination
	SRS          SRS
	Submission   Submission
}

// Queue says how long mail waits and how it is tried again.
type Queue struct {
	Lifetime       time.Duration
	BounceLifetime time.Duration // of mail with the null reverse-path
	DelayNotice    time.Duration // 0: the sender is not told
	RetryMin       time.Duration
	RetryMax       time.Duration
	Deliveries     int    // at once
	DoubleBounces  string // address that is told of notices which cannot be delivered, "" for nobody
	BounceExcerpt  int64  // octets of a message that a notice returns
}

// Relay says how the built-in transport "smtp" works, and others where they do not
// say otherwise.
type Relay struct {
	Source  []netip.Addr // at most one IPv4 and one IPv6
	TLS     string       // "none", "may", "encrypt", "verify", "dane", "dane-only"
	MTASTS  bool
	CAFile  string   // PEM, "" for the system's
	Port    int      // of mail exchangers; 25
	Timeout Timeouts //
	Limits  RouteLimits
	Where   string
}

// Timeouts of the relay; 0: its defaults.
type Timeouts struct{ Connect, Command, Data time.Duration }

// RouteLimits bound what a destination is burdened with; 0: the defaults.
type RouteLimits struct {
	Concurrency int           // deliveries at once to one destination
	Start       int           // to begin with
	Recipients  int           // of one delivery
	Interval    time.Duration // between the starts of two deliveries
	Deliveries  int           // of the transport, at once
}

// Transport is a way for mail that has a name.
type Transport struct {
	Name     string
	Protocol string // "smtp", "lmtp", "discard" or "hold"
	Host     string // "host:port", "[192.0.2.1]:25", "unix:/path"; "": the MX of the recipient's domain
	Username string
	Password string `json:"-"`
	TLS      string // as Relay's, "" for Relay's
	Implicit bool   // TLS from the first octet
	Source   []netip.Addr
	Limits   RouteLimits
	Where    string
}

// Route gives recipients' domains a transport.
type Route struct {
	Domain    string // "example.net", "*.example.net", or "*" for all that is not ours
	Transport string
	Host      string // instead of the transport's, "" for that
	Where     string
}

// Destination is what is special about a domain or host that mail goes to.
type Destination struct {
	Domain string // "example.net" or "*.example.net"
	TLS    string // "" for the transport's
	Names  []string
	Limits RouteLimits
	Where  string
}

// SRS says how the envelopes of forwarded mail are rewritten.
type SRS struct {
	On     bool
	Domain string // of rewritten senders, one of ours
	Secret string `json:"-"` // "": one that the server makes for itself
}

// Submission says what users may do.
type Submission struct {
	OwnSender  string // "both", "envelope" or "off"
	HideClient bool   // leave the client's address out of Received
}

// tlsLevels are the values of tls towards other hosts, the weakest first.
var tlsLevels = []string{"none", "may", "encrypt", "verify", "dane", "dane-only"}

// sending reads the blocks about mail for other hosts.
func (r *reader) sending(c *Config, n *node) {
	s := &c.Sending
	s.Queue = r.queue(n.only("queue"))
	s.Relay = r.relay(n.only("relay"))
	s.SRS = r.srs(c, n.only("srs"))
	s.Submission = r.submission(n.only("submission"))
	names := []string{"smtp"}
	n.named("transport", func(n *node, name string, at hcl.Range) {
		if slices.Contains([]string{"smtp", "local", "error", "discard", "hold"}, name) {
			r.fault(at, "transport "+strconv.Quote(name)+" is built in", "Choose another name; what the built-in one does is in the block relay.")
		}
		t := r.transport(n, name, at)
		s.Transports, names = append(s.Transports, t), append(names, t.Name)
	})
	n.named("route", func(n *node, name string, at hcl.Range) {
		s.Routes = append(s.Routes, r.route(n, name, at, names))
	})
	n.named("destination", func(n *node, name string, at hcl.Range) {
		s.Destinations = append(s.Destinations, r.destination(n, name, at))
	})
}

func (r *reader) queue(n *node) Queue {
	if n == nil {
		n = r.node(emptyBody(), "queue")
	}
	day := 24 * time.Hour
	q := Queue{
		Lifetime:       n.duration("lifetime", 5*day, 0, 100*day),
		BounceLifetime: n.duration("bounce_lifetime", 5*day, 0, 100*day),
		DelayNotice:    n.duration("delay_notice", 4*time.Hour, 0, 100*day),
		RetryMin:       n.duration("retry_min", 300*time.Second, time.Second, day),
		RetryMax:       n.duration("retry_max", 4000*time.Second, time.Second, 10*day),
		Deliveries:     int(n.count("deliveries", 500, 1, 100000)),
		DoubleBounces:  n.text("double_bounces", "postmaster"),
		BounceExcerpt:  n.size("bounce_excerpt", 50000, 0, 100<<20),
	}
	if q.RetryMax < q.RetryMin {
		r.fault(n.at("retry_max"), "retry_max is less than retry_min", "The time between attempts grows from retry_min to retry_max.")
	}
	if d := q.DoubleBounces; strings.Contains(d, "@") {
		if _, err := mail.ParsePath(d, true); err != nil {
			r.fault(n.at("double_bounces"), strconv.Quote(d)+" is no address", "Write an address, a local part of the first domain, or \"\" for nobody: "+err.Error()+".")
		}
	}
	n.done()
	return q
}

func (r *reader) relay(n *node) Relay {
	where := ""
	if n == nil {
		n = r.node(emptyBody(), "relay")
	} else {
		where = place(n.body.SrcRange)
	}
	l := Relay{
		Source: r.source(n), TLS: n.level(), MTASTS: n.flag("mta_sts", true),
		CAFile: r.file(n, "ca", n.path("ca", "")), Port: int(n.count("port", 25, 1, 65535)), Limits: r.routeLimits(n), Where: where,
		Timeout: Timeouts{
			Connect: n.duration("connect_timeout", 30*time.Second, time.Second, time.Hour),
			Command: n.duration("command_timeout", 300*time.Second, time.Second, time.Hour),
			Data:    n.duration("data_timeout", 600*time.Second, time.Second, 2*time.Hour),
		},
	}
	n.done()
	return l
}

// source reads the addresses that connections come from.
func (r *reader) source(n *node) (from []netip.Addr) {
	list, places := n.elements("source")
	var four, six bool
	for i, s := range list {
		a, err := netip.ParseAddr(s)
		if err != nil {
			r.fault(places[i], strconv.Quote(s)+" is no IP address", `Write an address of this host: source = ["192.0.2.1", "2001:db8::1"].`)
			continue
		}
		a = a.Unmap()
		if a.Is4() && four || a.Is6() && six {
			r.fault(places[i], "two sources of one address family", "Write one IPv4 address and one IPv6 address at most.")
		}
		four, six = four || a.Is4(), six || a.Is6()
		from = append(from, a)
	}
	return from
}

func (r *reader) routeLimits(n *node) RouteLimits {
	l := RouteLimits{
		Concurrency: int(n.count("concurrency", 0, 1, 10000)),
		Start:       int(n.count("concurrency_start", 0, 1, 10000)),
		Recipients:  int(n.count("recipients", 0, 1, 10000)),
		Interval:    n.duration("interval", 0, 0, time.Hour),
		Deliveries:  int(n.count("deliveries", 0, 1, 100000)),
	}
	if l.Concurrency > 0 && l.Start > l.Concurrency {
		r.fault(n.at("concurrency_start"), "concurrency_start is more than concurrency", "It is where concurrency begins.")
	}
	return l
}

func (r *reader) transport(n *node, name string, at hcl.Range) Transport {
	t := Transport{
		Name: name, Where: place(at), Protocol: n.choice("protocol", "smtp", "smtp", "lmtp", "discard", "hold"),
		Username: n.text("username", ""), Password: n.text("password", ""), Implicit: n.flag("implicit_tls", false),
		TLS: n.tlsLevel(), Source: r.source(n), Limits: r.routeLimits(n), Host: r.host(n),
	}
	switch {
	case t.Protocol == "lmtp" && t.Host == "":
		r.fault(at, "transport "+strconv.Quote(name)+" has no host", `LMTP needs one: host = "unix:/run/lmtp" or host = "127.0.0.1:24".`)
	case strings.HasPrefix(t.Host, "unix:") && t.Protocol != "lmtp":
		r.fault(n.at("host"), "only lmtp goes over a Unix socket", `Write protocol = "lmtp", or a host with a port.`)
	case (t.Username == "") != (t.Password == ""):
		r.fault(at, "a user name needs a password, and the other way round", `Write both: username = "…" and password = file("/etc/wafer/hub.password").`)
	case t.Username != "" && (t.TLS == "none" || t.TLS == "may") && !loopbackHost(t.Host):
		r.fault(n.at("tls"), "a password would be sent in the clear", `Write tls = "verify" or "encrypt".`)
	}
	n.done()
	return t
}

// tlsLevel is the attribute tls, "" if it is not there.
func (n *node) tlsLevel() string {
	if n.body.Attributes["tls"] == nil {
		n.attrs = append(n.attrs, "tls")
		return ""
	}
	return n.level()
}

// level is the attribute tls towards other hosts. DANE without validated answers
// would be no DANE (RFC 7672 §2.1).
func (n *node) level() string {
	l := n.choice("tls", "may", tlsLevels...)
	if strings.HasPrefix(l, "dane") && !n.r.dnssec {
		n.r.fault(n.at("tls"), "tls = "+strconv.Quote(l)+" needs name servers that validate", `Write resolvers = ["127.0.0.1"] with a validating resolver there, such as unbound; or dnssec = true, if the servers validate and the way to them is safe.`)
	}
	return l
}

func loopbackHost(host string) bool {
	h, _, err := net.SplitHostPort(host)
	if err != nil {
		h = strings.Trim(host, "[]")
	}
	a, err := netip.ParseAddr(h)
	return h == "localhost" || err == nil && a.IsLoopback()
}

// host reads a next hop.
func (r *reader) host(n *node) string {
	h := n.text("host", "")
	if h == "" {
		return ""
	}
	if path, ok := strings.CutPrefix(h, "unix:"); ok {
		if !strings.HasPrefix(path, "/") {
			r.fault(n.at("host"), strconv.Quote(h)+" is not the path of a socket", `Write a path from the root: host = "unix:/run/lmtp".`)
		}
		return h
	}
	name, port := h, ""
	if i := strings.LastIndexByte(h, ':'); i >= 0 && !strings.HasSuffix(h, "]") {
		name, port = h[:i], h[i+1:]
	}
	p, err := strconv.ParseUint(port, 10, 16)
	bad := port != "" && (err != nil || p == 0)
	if inner, ok := strings.CutPrefix(name, "["); ok {
		inner, closed := strings.CutSuffix(inner, "]")
		_, err := netip.ParseAddr(strings.TrimPrefix(inner, "IPv6:"))
		bad = bad || !closed || err != nil && !mail.ValidDomain(inner)
	} else if _, err := netip.ParseAddr(name); err != nil {
		bad = bad || !mail.ValidDomain(name)
	}
	if bad {
		r.fault(n.at("host"), strconv.Quote(h)+" is no host", `Write "relay.example.net", "relay.example.net:587", "[192.0.2.1]:25" or "unix:/run/lmtp". Brackets around a name mean that no MX is looked up.`)
	}
	return h
}

func (r *reader) route(n *node, name string, at hcl.Range, transports []string) Route {
	w := Route{Domain: name, Where: place(at), Host: r.host(n)}
	r.domainPattern(name, at, true)
	w.Transport = n.text("transport", "smtp")
	if !slices.Contains(transports, w.Transport) {
		r.fault(n.at("transport"), "no transport "+strconv.Quote(w.Transport), "Write "+oneOf(transports)+", or a block transport "+strconv.Quote(w.Transport)+" { … }."+meant(w.Transport, transports))
	}
	n.done()
	return w
}

// domainPattern checks a domain that may begin with "*.".
func (r *reader) domainPattern(name string, at hcl.Range, all bool) {
	if all && name == "*" || mail.ValidDomain(strings.TrimPrefix(name, "*.")) {
		return
	}
	r.fault(at, strconv.Quote(name)+" is not a domain", `Write "example.net", "*.example.net" for what lies under it`+map[bool]string{true: `, or "*" for everything that is not ours.`, false: "."}[all])
}

func (r *reader) destination(n *node, name string, at hcl.Range) Destination {
	r.domainPattern(name, at, false)
	d := Destination{Domain: name, Where: place(at), TLS: n.tlsLevel(), Limits: r.routeLimits(n)}
	d.Names, _ = n.elements("tls_names")
	n.done()
	return d
}

func (r *reader) srs(c *Config, n *node) SRS {
	if n == nil {
		n = r.node(emptyBody(), "srs")
	}
	s := SRS{On: n.flag("enabled", true), Domain: n.text("domain", ""), Secret: n.text("secret", "")}
	if s.Domain != "" && !slices.ContainsFunc(c.Domains, func(d Domain) bool { return mail.DomainKey(d.Name) == mail.DomainKey(s.Domain) }) {
		r.fault(n.at("domain"), strconv.Quote(s.Domain)+" is not a domain of ours", "Answers to forwarded mail come to it: write one of the domain blocks' names.")
	}
	if s.Domain == "" && len(c.Domains) > 0 {
		s.Domain = c.Domains[0].Name
	}
	if s.Secret != "" && len(s.Secret) < 16 {
		r.fault(n.at("secret"), "the secret is too short", "Write at least 16 characters, or leave the line out: the server makes one and keeps it in its state directory.")
	}
	n.done()
	return s
}

func (r *reader) submission(n *node) Submission {
	if n == nil {
		n = r.node(emptyBody(), "submission")
	}
	s := Submission{OwnSender: n.choice("own_sender", "both", "both", "envelope", "off"), HideClient: n.flag("hide_client", false)}
	n.done()
	return s
}
