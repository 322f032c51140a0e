package core

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/policy"
)

// difference is what changes from one generation to another, as people call it.
func difference(old, now *generation) (all []admin.Change) {
	was, is := describe(old), describe(now)
	for _, name := range slices.Sorted(maps.Keys(was)) {
		switch text, there := is[name]; {
		case !there:
			all = append(all, admin.Change{Kind: "removed", What: name, Before: was[name]})
		case text != was[name]:
			all = append(all, admin.Change{Kind: "changed", What: name, Before: was[name], After: text})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(is)) {
		if _, there := was[name]; !there {
			all = append(all, admin.Change{Kind: "added", What: name, After: is[name]})
		}
	}
	return all
}

// describe says what a generation is made of: for each thing that has a name, what
// there is to know about it on one line.
func describe(g *generation) map[string]string {
	c := g.config
	d := map[string]string{}
	for _, l := range c.Listeners {
		d["listener "+l.Name] = text(l.Profile, "on", l.Addresses, "tls", l.TLS, "without", l.Without, "plain on loopback", l.Loopback)
	}
	for _, x := range c.Domains {
		d["domain "+x.Name] = text("maildir", x.Maildir, "users", x.Users, "aliases", len(x.Aliases), "catch_all", x.CatchAll, "separator", x.Separator, "detail_folders", x.Folders, "quota", quotaText(&x.Quota))
		for local, to := range x.Aliases {
			d["alias "+local+"@"+x.Name] = strings.Join(to, " ")
		}
	}
	for _, l := range c.Lists {
		d["list "+l.Name] = text(l.Type, l.File, "entries", len(l.Entries))
	}
	digests := g.policy.Digests()
	for _, p := range c.Policy {
		d["policy "+p.Name] = text("on", p.On, "reply_at", p.ReplyAt, "exempt", p.Exempt.Networks, p.Exempt.Authenticated, "soft_bounce", p.SoftBounce)
		for i, k := range p.Checks {
			mode := "enforce"
			if k.Observe {
				mode = "observe"
			}
			d["check "+p.Name+"/"+k.Name] = text("place", i+1, "plugin", k.Plugin+k.Delegate+k.Milter, "digest", fmt.Sprintf("%.12s", digests[p.Name+"/"+k.Name]), "at", k.At,
				"grants", k.Allow, "lists", k.Lists, "mode", mode, "on_error", k.OnError, "reply_at", k.ReplyAt, "timeout", k.Timeout, "when", k.WhenText, "with", withText(k.With))
		}
	}
	for _, x := range c.Sending.Routes {
		d["route "+x.Domain] = text(x.Transport, x.Host)
	}
	for _, x := range c.Sending.Destinations {
		x.Where = ""
		d["destination "+x.Domain] = fmt.Sprintf("%+v", x)
	}
	limits(d, c)
	if c.TLS != nil {
		d["tls"] = text("cert", c.TLS.Cert, "key", c.TLS.Key, "min_version", c.TLS.MinVersion, "names", len(c.TLS.Names), "serial", g.certs.serials())
	}
	if x := c.Rollout; x != nil {
		d["rollout "+x.Name] = text("policies", x.Policies, x.Digest, "percent", x.Percent, "sticky", x.Sticky, "reject_rate", x.Guard.RejectRate, "error_rate", x.Guard.ErrorRate, "p99", x.Guard.P99, "sessions", x.Guard.Sessions)
	}
	if x := c.Shadow; x != nil {
		d["shadow "+x.Name] = text("policies", x.Policies, x.Digest)
	}
	d["trusted_networks"] = text(c.Trusted)
	return d
}

func quotaText(q *config.Quota) string {
	return text("storage", q.Storage, "messages", q.Messages, "grace", q.Grace, "grace_percent", q.GracePercent, "rules", q.Rules, "warn", q.Warn, "permanent", q.Permanent)
}

// limits are told one by one.
func limits(d map[string]string, c *config.Config) {
	l := &c.Limits
	for key, value := range map[string]any{
		"message_size": l.MessageSize, "recipients": l.Recipients, "connections_per_client": l.PerClient, "connection_rate": l.Rate, "connection_rate_per": l.RatePer,
		"connections": l.Connections, "errors_soft": l.SoftErrors, "errors_hard": l.HardErrors, "idle": l.Idle, "data": l.Data, "min_rate": l.MinRate, "session": l.Session,
		"greet_delay": l.GreetDelay, "connections_per_user": l.PerUser, "shutdown": l.ShutdownPatience, "reload_grace": l.ReloadGrace,
	} {
		d["limits { "+key+" }"] = fmt.Sprint(value)
	}
}

// text joins what is not empty: a word is left out with the empty value behind it.
func text(words ...any) string {
	var b []string
	for i := 0; i < len(words); i++ {
		key, isText := words[i].(string)
		if isText && i+1 < len(words) {
			if empty(words[i+1]) {
				i++
				continue
			}
		}
		if isText && key == "" || empty(words[i]) {
			continue
		}
		b = append(b, shown(words[i]))
	}
	return strings.Join(b, " ")
}

func empty(v any) bool {
	if a, ok := v.(policy.Action); ok {
		return a == 0
	}
	if st, ok := v.(policy.Stage); ok {
		return st == 0
	}
	switch s := fmt.Sprint(v); s {
	case "", "[]", "false", "0", "0s", "map[]":
		return true
	}
	return false
}

func shown(v any) string { return strings.Trim(fmt.Sprint(v), "[]") }

func withText(with map[string][]string) string {
	var b []string
	for _, key := range slices.Sorted(maps.Keys(with)) {
		b = append(b, key+"="+strings.Join(with[key], ","))
	}
	return strings.Join(b, " ")
}
