package config

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/wafermail/wafer/core/mail"
)

// server reads config.hcl.
func (r *reader) server(c *Config, n *node) {
	c.Hostname = n.need("hostname", `the server's full name: hostname = "mail.example.org"`)
	if c.Hostname != "" && (!mail.ValidDomain(c.Hostname) || !strings.Contains(c.Hostname, ".") || c.Hostname[0] == '[') {
		r.fault(n.at("hostname"), strconv.Quote(c.Hostname)+" is not a full host name", `Write the name that the PTR record of the server's address gives, such as "mail.example.org".`)
	}
	c.State = n.path("state", defaultState)
	c.Policies, r.policiesAt = n.path("policies", ""), n.at("policies")
	r.policyKeys, _ = n.elements("policy_keys")
	for i, key := range r.policyKeys {
		if !filepath.IsAbs(key) {
			r.policyKeys[i] = filepath.Join(r.dir, key)
		}
	}
	c.Sync = n.choice("sync", "auto", "auto", "syncfs", "fsync")
	c.Trusted = n.fewNetworks("trusted_networks", "could relay without logging in, and would be limited by nothing")
	c.Proxy = n.fewNetworks("proxy_networks", "could say that it is another")
	c.XClient = n.fewNetworks("xclient_networks", "could say that it is another")
	r.tls(c, n.only("tls"))
	n.named("domain", func(n *node, name string, at hcl.Range) {
		d, places := r.domain(n, name, at)
		c.Domains, r.domains = append(c.Domains, d), append(r.domains, places)
	})
	n.named("listener", func(n *node, name string, at hcl.Range) {
		l, places := r.listener(n, name, at, c.TLS != nil)
		c.Listeners, r.listeners = append(c.Listeners, l), append(r.listeners, places)
	})
	c.Resolvers = r.resolvers(n)
	c.DNSSEC = n.flag("dnssec", onLoopback(c.Resolvers))
	r.dnssec = c.DNSSEC
	r.sending(c, n)
	c.Limits = r.limits(n.only("limits"))
	c.Log = r.log(n.only("log"))
	c.Tape = r.tape(n.only("tape"))
	c.RunAs = r.runAs(n.only("run_as"))
	if c.Metrics = n.text("metrics", ""); c.Metrics != "" {
		if instead := checkAddress(c.Metrics, "metrics"); instead != "" {
			r.fault(n.at("metrics"), strconv.Quote(c.Metrics)+" is not an address to listen on", instead)
		}
	}
	r.judging(c, n)
	r.rollouts(c, n)
	r.shadow(c, n)
	n.done()
	r.together(c, n)
}

// keywords are the EHLO keywords that a listener can do without.
var keywords = []string{"8BITMIME", "BINARYMIME", "CHUNKING", "DSN", "PIPELINING", "SIZE", "SMTPUTF8"}

// imapWords are the words of IMAP's CAPABILITY that a listener can do without.
var imapWords = strings.Fields(`IDLE NAMESPACE UNSELECT UIDPLUS MOVE CHILDREN LIST-EXTENDED LIST-STATUS SPECIAL-USE CREATE-SPECIAL-USE
	STATUS=SIZE ESEARCH SEARCHRES WITHIN SORT SORT=DISPLAY ESORT THREAD=REFERENCES THREAD=ORDEREDSUBJECT PARTIAL INPROGRESS BINARY
	CONDSTORE QRESYNC NOTIFY UNAUTHENTICATE UTF8=ACCEPT MULTIAPPEND REPLACE OBJECTID SAVEDATE PREVIEW METADATA LIST-METADATA QUOTA
	QUOTA=RES-STORAGE QUOTA=RES-MESSAGE COMPRESS=DEFLATE`)

// IMAPExtensions are the words that an IMAP listener's without may hold.
func IMAPExtensions() []string { return slices.Clone(imapWords) }

// without reads which extensions a listener does not offer.
func (r *reader) without(n *node, profile string) []string {
	words, places := n.elements("without")
	known := keywords
	if profile == "imap" || profile == "imaps" {
		known = imapWords
	}
	for i, w := range words {
		words[i] = strings.ToUpper(w)
		switch {
		case !slices.Contains([]string{"mx", "submission", "submissions", "lmtp", "imap", "imaps"}, profile):
			r.fault(places[i], "profile "+profile+" has no extensions that can be left out", "Leave the line out.")
		case !slices.Contains(known, words[i]):
			r.fault(places[i], "no extension "+strconv.Quote(w)+" that can be left out", "Write "+oneOf(known)+"."+meant(words[i], known))
		}
	}
	return words
}

// resolvers reads the addresses of name servers; port 53 goes without saying.
func (r *reader) resolvers(n *node) (servers []netip.AddrPort) {
	list, places := n.elements("resolvers")
	for i, s := range list {
		server, err := netip.ParseAddrPort(s)
		if a, aerr := netip.ParseAddr(s); aerr == nil {
			server, err = netip.AddrPortFrom(a, 53), nil
		}
		if err != nil || server.Port() == 0 {
			r.fault(places[i], strconv.Quote(s)+" is no name server", `Write an IP address, or one with a port: "127.0.0.1", "[::1]:5353".`)
			continue
		}
		servers = append(servers, server)
	}
	return servers
}

// onLoopback reports whether there are servers, and all of them on this machine.
func onLoopback(servers []netip.AddrPort) bool {
	return len(servers) > 0 && !slices.ContainsFunc(servers, func(s netip.AddrPort) bool { return !s.Addr().IsLoopback() })
}

// together checks what no block can know alone.
func (r *reader) together(c *Config, n *node) {
	if len(c.Domains) == 0 {
		r.fault(n.body.MissingItemRange(), "no domain", `Write domain "example.org" { maildir = "…", users = "…" } for each domain that mail is delivered for.`)
	}
	if len(c.Listeners) == 0 {
		r.fault(n.body.MissingItemRange(), "no listener", `Write at least listener "mx" { profile = "mx", address = ":25" }.`)
	}
	keys := map[string]string{}
	for i, d := range c.Domains {
		key := mail.DomainKey(d.Name)
		if first, ok := keys[key]; ok {
			r.fault(r.domains[i].block, "domain "+d.Name+" is there already", "It is the same as "+first+".")
		}
		keys[key] = d.Name
	}
	var taken []claim
	for i, l := range c.Listeners {
		for j, a := range l.Addresses {
			mine, ok := claimOf(a)
			if !ok {
				continue
			}
			for _, other := range taken {
				if mine.clashes(other) {
					r.fault(r.listeners[i][j], "address "+a+" is taken", "Listener "+strconv.Quote(other.listener)+" has it with "+strconv.Quote(other.text)+".")
					break
				}
			}
			mine.listener = l.Name
			taken = append(taken, mine)
		}
	}
	for i, d := range c.Domains {
		check := func(to, where string, at hcl.Range) {
			if _, err := mail.ParsePath(to, true); err != nil {
				r.fault(at, where+" leads to "+strconv.Quote(to), "That is no address: "+err.Error()+".")
			}
		}
		for _, local := range slices.Sorted(maps.Keys(d.Aliases)) {
			for _, t := range d.Aliases[local] {
				check(t, "alias "+strconv.Quote(local), r.domains[i].aliases[local])
			}
		}
		if d.CatchAll != "" {
			check(d.CatchAll, "catch_all", r.domains[i].catchAll)
		}
	}
}

func (r *reader) tls(c *Config, n *node) {
	if n == nil {
		return
	}
	c.TLS = &TLS{
		Cert:       r.file(n, "cert", n.path("cert", "")),
		Key:        r.file(n, "key", n.path("key", "")),
		MinVersion: n.choice("min_version", "1.2", "1.2", "1.3"),
		Where:      place(n.body.SrcRange),
	}
	n.need("cert", `the certificate's file: cert = "/etc/letsencrypt/live/mail.example.org/fullchain.pem"`)
	n.need("key", `the key's file: key = "/etc/letsencrypt/live/mail.example.org/privkey.pem"`)
	n.named("certificate", func(n *node, name string, at hcl.Range) {
		if !mail.ValidDomain(strings.TrimPrefix(name, "*.")) {
			r.fault(at, strconv.Quote(name)+" is not a host name", `Write a name that clients ask for, such as "mail.example.com" or "*.example.com".`)
		}
		cert := Certificate{Name: name, Cert: r.file(n, "cert", n.path("cert", "")), Key: r.file(n, "key", n.path("key", "")), Where: place(at)}
		n.need("cert", "the certificate's file")
		n.need("key", "the key's file")
		n.done()
		c.TLS.Names = append(c.TLS.Names, cert)
	})
	n.done()
}

// file reports a file that is not there.
func (r *reader) file(n *node, key, name string) string {
	if name == "" {
		return ""
	}
	if err := readable(name); err != nil {
		r.fault(n.at(key), key+" cannot be read", cause(name, err)+" Write the path of a file that the server may read.")
	}
	return name
}

func (r *reader) domain(n *node, name string, at hcl.Range) (Domain, domainPlaces) {
	if !mail.ValidDomain(name) {
		r.fault(at, strconv.Quote(name)+" is not a domain name", `Write the part of addresses after the @: domain "example.org" { … }.`)
	}
	d := Domain{Name: name, Where: place(at), Aliases: map[string][]string{}}
	d.Maildir = n.path("maildir", "")
	n.need("maildir", `where its mail lies: maildir = "/var/mail/vhosts/%d/%n" (%d domain, %n user, %u both)`)
	if d.Maildir != "" {
		rest := strings.NewReplacer("%d", "", "%n", "", "%u", "", "%%", "").Replace(d.Maildir)
		switch {
		case strings.Contains(rest, "%"):
			r.fault(n.at("maildir"), "maildir has a % that means nothing", "Write %d for the domain, %n for the user, %u for user@domain, %% for a percent sign.")
		case !strings.Contains(d.Maildir, "%n") && !strings.Contains(d.Maildir, "%u"):
			r.fault(n.at("maildir"), "every user would share one Maildir", `Write %n or %u where the user's name belongs, such as "/var/mail/vhosts/%d/%n".`)
		}
	}
	d.Users = r.file(n, "users", n.path("users", ""))
	n.need("users", `its users: users = "/etc/wafer/users" (wafer user add makes the file's lines)`)
	d.Separator = n.text("separator", "")
	if len(d.Separator) > 1 || strings.ContainsAny(d.Separator, "@./ ") || d.Separator != "" && d.Separator[0] >= 0x80 {
		r.fault(n.at("separator"), "separator must be one character", `Write separator = "+", or leave the line out.`)
		d.Separator = ""
	}
	d.Folders = n.flag("detail_folders", false)
	if d.Folders && d.Separator == "" {
		r.fault(n.at("detail_folders"), "detail_folders needs a separator", `Write separator = "+" too: mail for ann+work goes to Ann's folder "work", if she has one.`)
	}
	d.Quota = r.quota(n.only("quota"))
	places := domainPlaces{block: at, catchAll: n.at("catch_all"), aliases: n.keys("aliases", strings.ToLower)}
	d.CatchAll = n.text("catch_all", "")
	if d.CatchAll != "" && !strings.Contains(d.CatchAll, "@") {
		d.CatchAll += "@" + name
	}
	if v, vat, ok := n.value("aliases"); ok {
		if t := v.Type(); !t.IsObjectType() && !t.IsMapType() {
			n.wrong(vat, "aliases", `a map, such as { postmaster = ["ann"], sales = ["ann", "bob@example.com"] }`)
		} else {
			for it := v.ElementIterator(); it.Next(); {
				k, e := it.Element()
				local := strings.ToLower(k.AsString())
				if _, ok := places.aliases[local]; !ok { // the map was computed
					places.aliases[local] = vat
				}
				vat := places.aliases[local]
				to, ok := stringsOf(e)
				if !ok || len(to) == 0 {
					r.fault(vat, "alias "+strconv.Quote(local)+" is not a list of addresses", `Write a list, such as `+local+` = ["ann", "bob@example.com"].`)
					continue
				}
				if err := aliasFault(local, name); err != nil {
					r.fault(vat, strconv.Quote(local)+" cannot be an alias", "It is no local part: "+err.Error()+".")
				}
				for i, t := range to {
					if !strings.Contains(t, "@") {
						to[i] = t + "@" + name
					}
				}
				d.Aliases[local] = to
			}
		}
	}
	n.done()
	return d, places
}

func (r *reader) listener(n *node, name string, at hcl.Range, haveTLS bool) (Listener, listenerPlaces) {
	l := Listener{Name: name, Where: place(at)}
	l.Profile = n.need("profile", "one of "+strings.Join(profiles, ", "))
	if l.Profile != "" && !slices.Contains(profiles, l.Profile) {
		r.fault(n.at("profile"), "no profile "+strconv.Quote(l.Profile), "Write "+oneOf(profiles)+"."+meant(l.Profile, profiles))
	}
	var places, more []hcl.Range
	var list []string
	l.Addresses, places = n.elements("address")
	list, more = n.elements("addresses")
	l.Addresses, places = append(l.Addresses, list...), append(places, more...)
	if len(l.Addresses) == 0 {
		r.fault(n.body.MissingItemRange(), n.what+" has no address", `Write address = ":25", address = "127.0.0.1:2525", or addresses = [ … ].`)
	}
	for i, a := range l.Addresses {
		if instead := checkAddress(a, l.Profile); instead != "" {
			r.fault(places[i], strconv.Quote(a)+" is not an address to listen on", instead)
		}
	}
	fallback := "none"
	switch {
	case l.Profile == "policy":
	case Implicit(l.Profile), l.Profile == "submission":
		fallback = "required"
	case haveTLS:
		fallback = "starttls"
	}
	l.TLS = n.choice("tls", fallback, "starttls", "required", "none")
	l.Loopback = n.flag("allow_plaintext_auth_on_loopback", false)
	l.Without = r.without(n, l.Profile)
	switch {
	case l.Profile == "policy" && l.TLS != "none":
		r.fault(n.at("tls"), "profile policy has no TLS", "Postfix's policy delegation protocol knows none: leave the line out, and use a Unix socket or a loopback address.")
	case !haveTLS && l.TLS != "none":
		r.fault(at, n.what+" needs TLS", "Write a tls block with cert and key"+map[bool]string{true: ".", false: `, or tls = "none" in the listener.`}[l.TLS == "required" && fallback == "required"])
	case fallback == "required" && l.TLS == "none" && !l.Loopback:
		r.fault(n.at("tls"), "profile "+l.Profile+" is for logging in, which needs TLS", "Leave the line out.")
	case Implicit(l.Profile) && l.TLS != "required":
		r.fault(n.at("tls"), "profile "+l.Profile+" is TLS from the first octet", "Leave the line out.")
	}
	n.done()
	return l, places
}

// aliasFault is why local cannot be an alias in domain. It is a local part without
// quotes, so it may hold blanks.
func aliasFault(local, domain string) error {
	address := local + "@" + domain
	if strings.ContainsRune(local, ' ') {
		address = mail.Path{}.WithLocal(local).WithDomain(domain).String()
	}
	_, err := mail.ParsePath(address, true)
	return err
}

func (r *reader) limits(n *node) Limits {
	if n == nil {
		n = r.node(emptyBody(), "limits")
	}
	l := Limits{
		MessageSize:      n.size("message_size", 52428800, 1024, 1<<40),
		Recipients:       int(n.count("recipients", 1000, 1, 100000)),
		PerClient:        int(n.count("connections_per_client", 10, 1, 100000)),
		Rate:             int(n.count("connection_rate", 30, 1, 1000000)),
		RatePer:          n.duration("connection_rate_per", time.Minute, time.Second, 24*time.Hour),
		Connections:      int(n.count("connections", 10000, 1, 1000000)),
		SoftErrors:       int(n.count("errors_soft", 10, 1, 1000)),
		HardErrors:       int(n.count("errors_hard", 20, 1, 1000)),
		Idle:             n.duration("idle", 5*time.Minute, time.Second, time.Hour),
		Data:             n.duration("data", time.Hour, time.Second, 24*time.Hour),
		MinRate:          n.size("min_rate", 500, 1, 1<<20),
		Session:          n.duration("session", 2*time.Hour, time.Second, 48*time.Hour),
		GreetDelay:       n.duration("greet_delay", 0, 0, time.Minute),
		PerUser:          int(n.count("connections_per_user", 50, 1, 100000)),
		ShutdownPatience: n.duration("shutdown", 30*time.Second, 0, time.Hour),
		ReloadGrace:      n.duration("reload_grace", 15*time.Minute, 0, 24*time.Hour),
	}
	if l.HardErrors < l.SoftErrors {
		r.fault(n.at("errors_hard"), "errors_hard is less than errors_soft", "Sessions slow down at errors_soft and end at errors_hard.")
	}
	n.done()
	return l
}

func (r *reader) log(n *node) Log {
	if n == nil {
		n = r.node(emptyBody(), "log")
	}
	l := Log{
		Format:    n.choice("format", "text", "text", "json"),
		Level:     n.choice("level", "info", "debug", "info", "warn", "error"),
		Decisions: n.flag("decisions", true),

		DecisionsMask: n.choice("decisions_mask", "none", "none", "hash", "drop"),
		DecisionsKeep: n.duration("decisions_keep", 30*24*time.Hour, time.Hour, 3650*24*time.Hour),
		DecisionsSize: n.size("decisions_size", 1<<30, 1<<20, 1<<44),
	}
	n.done()
	return l
}

// minTapeKey is how long the key of a tape must be, in octets.
const minTapeKey = 16

func (r *reader) tape(n *node) *Tape {
	if n == nil {
		return nil
	}
	t := &Tape{
		Size: n.size("size", 1<<30, 16<<20, 1<<44), Keep: n.duration("keep", 48*time.Hour, time.Hour, 3650*24*time.Hour),
		Bodies: n.choice("bodies", "digests", "digests", "contents") == "contents", Mask: n.choice("mask", "none", "none", "hash", "drop"),
		Key: n.text("key", ""),
	}
	if t.Key != "" && len(t.Key) < minTapeKey {
		r.fault(n.at("key"), "key of the tape is too short", fmt.Sprintf(`Write at least %d characters, best key = file("tape.key") with what openssl rand -base64 32 prints.`, minTapeKey))
	}
	if t.Bodies && t.Mask != "none" {
		r.fault(n.at("bodies"), "a tape with a mask cannot hold contents of bodies", `Addresses in them would not be masked: write bodies = "digests", or mask = "none".`)
	}
	n.done()
	return t
}

func (r *reader) runAs(n *node) RunAs {
	if n == nil {
		n = r.node(emptyBody(), "run_as")
	}
	a := RunAs{User: n.text("user", ""), Group: n.text("group", ""), AllowRoot: n.flag("allow_root", false)}
	if a.Group != "" && a.User == "" {
		r.fault(n.at("group"), "run_as has a group but no user", `Write user = "wafer" too.`)
	}
	if a.User == "root" && !a.AllowRoot {
		r.fault(n.at("user"), "the server should not serve as root", `Write another user, or allow_root = true if you must.`)
	}
	n.done()
	return a
}
