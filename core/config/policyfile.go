package config

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/wafermail/wafer/core/policy"
)

var (
	stageWords = []string{"connect", "helo", "starttls", "auth", "mail", "rcpt", "data", "message", "queued", "route", "bounce"}
	guarded    = append(slices.Clone(profiles), "queue") // what policies are for
	replyWords = []string{"connect", "helo", "mail", "rcpt"}
	grants     = []string{"dns", "count", "state", "list", "message"}
)

// policy reads one policy block.
func (r *reader) policy(n *node, name string, at hcl.Range) Policy {
	p := Policy{Name: name, Where: place(at)}
	if !isWord(name) {
		r.fault(at, strconv.Quote(name)+" cannot name a policy", "Write letters, digits, - and _ only: names become parts of log lines and keys.")
	}
	on, places := n.elements("on")
	p.On = on
	if len(p.On) == 0 {
		r.fault(n.body.MissingItemRange(), n.what+" guards no door", `Write on = ["mx"], or more of `+strings.Join(guarded, ", ")+".")
	}
	for i, door := range p.On {
		switch {
		case !slices.Contains(guarded, door):
			r.fault(places[i], "no door "+strconv.Quote(door), "Write "+oneOf(guarded)+"."+meant(door, guarded))
		case slices.Contains(p.On[:i], door):
			r.fault(places[i], "door "+door+" is there twice", "Write it once.")
		}
	}
	p.ReplyAt = r.replyAt(n)
	p.SoftBounce = n.flag("soft_bounce", false)
	if x := n.only("exempt"); x != nil {
		p.Exempt = policy.Exempt{Networks: x.networks("networks"), Authenticated: x.flag("authenticated", false)}
		x.done()
	}
	r.checks(n, &p, nil)
	n.done()
	return p
}

// comes reports whether one of doors asks at stage. IMAP and POP3 ask at connect
// and auth only, another server's policy client has no message to show, and the queue
// has stages of its own.
func comes(stage policy.Stage, doors []string) bool {
	if stage >= policy.Queued {
		return len(doors) == 0 || slices.Contains(doors, "queue")
	}
	if len(doors) == 1 && doors[0] == "queue" {
		return false
	}
	doors = slices.DeleteFunc(slices.Clone(doors), func(d string) bool { return d == "queue" })
	if stage == policy.Connect || stage == policy.Auth || len(doors) == 0 {
		return true
	}
	return slices.ContainsFunc(doors, func(door string) bool {
		switch door {
		case "imap", "imaps", "pop3", "pop3s":
			return false
		case "policy":
			return stage != policy.Message
		}
		return true
	})
}

// isWord reports whether s may be a name in logs and keys.
func isWord(s string) bool {
	for _, c := range s {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// replyAt reads when refusals are given; 0 if that is not said.
func (r *reader) replyAt(n *node) policy.Stage {
	s := n.choice("reply_at", "", replyWords...)
	stage, _ := policy.ParseStage(s)
	return stage
}

// check reads one check block.
func (r *reader) check(n *node, name string, at hcl.Range, doors []string) Check {
	c := Check{Name: name, Where: place(at)}
	if !isWord(name) {
		r.fault(at, strconv.Quote(name)+" cannot name a check", "Write letters, digits, - and _ only: names become parts of log lines and keys.")
	}
	r.asked(n, &c)
	words, places := n.elements("at")
	if len(words) == 0 {
		r.fault(n.body.MissingItemRange(), n.what+" is asked at no stage", "Write at = "+oneOf(stageWords)+", or a list of them.")
	}
	for i, w := range words {
		stage, ok := policy.ParseStage(w)
		if !ok {
			r.fault(places[i], "no stage "+strconv.Quote(w), "Write "+oneOf(stageWords)+"."+meant(w, stageWords))
			continue
		}
		if slices.Contains(c.At, stage) {
			r.fault(places[i], "stage "+w+" is there twice", "Write it once.")
			continue
		}
		if !comes(stage, doors) {
			r.fault(places[i], "stage "+w+" never comes", "The doors of this policy are "+strings.Join(doors, ", ")+": IMAP and POP3 ask at connect and auth only, door policy never at message, and queued, route and bounce are of door queue alone.")
			continue
		}
		if (c.Delegate != "" || c.Milter != "") && (stage == policy.StartTLS || stage == policy.Auth || stage > policy.Message) {
			r.fault(places[i], "a policy daemon cannot be asked at "+w, "Its protocol has connect, helo, mail, rcpt, data and message.")
			continue
		}
		c.At = append(c.At, stage)
	}
	c.Allow, places = n.elements("allow")
	for i, g := range c.Allow {
		if !slices.Contains(grants, g) {
			r.fault(places[i], "nothing called "+strconv.Quote(g)+" can be allowed", "Write "+oneOf(grants)+"."+meant(g, grants))
		}
	}
	c.Lists = r.listsOf(n, c.Allow)
	switch n.choice("on_error", "defer", "defer", "reject", "accept") {
	case "reject":
		c.OnError = policy.Reject
	case "accept":
		c.OnError = policy.Accept
	default:
		c.OnError = policy.Defer
	}
	c.Observe = n.choice("mode", "enforce", "enforce", "observe") == "observe"
	c.ReplyAt = r.replyAt(n)
	r.with(n, &c)
	n.attrs = append(n.attrs, "when")
	if a := n.body.Attributes["when"]; a != nil {
		c.When = r.when(a.Expr)
		c.WhenText = r.text(a.Expr.Range())
	}
	n.done()
	return c
}

// asked reads who is asked: a plugin, or a policy daemon.
func (r *reader) asked(n *node, c *Check) {
	c.Delegate, c.Milter = n.text("delegate", ""), n.text("milter", "")
	c.Timeout = n.duration("timeout", 0, 100*time.Millisecond, 2*time.Minute)
	key, address, what, help := "delegate", c.Delegate, "policy daemon", `Write "unix:/run/policyd-spf" or "inet:127.0.0.1:10031".`
	if a := n.body.Attributes["milter"]; a != nil {
		if n.body.Attributes["delegate"] != nil {
			r.fault(a.NameRange, n.what+" asks both a policy daemon and a milter", "Write a check for each.")
		}
		key, address, what, help = "milter", c.Milter, "milter", `Write "unix:/run/rspamd/milter.sock" or "inet:127.0.0.1:11332".`
	}
	if n.body.Attributes[key] == nil {
		r.plugin(n, c)
		return
	}
	for _, other := range []string{"plugin", "allow", "lists", "with"} {
		if a := n.body.Attributes[other]; a != nil {
			r.fault(a.NameRange, n.what+" asks a "+what+", which has no "+other, "Take out "+other+", or "+key+".")
		}
	}
	if instead := daemonFault(address, help); instead != "" {
		r.fault(n.at(key), strconv.Quote(address)+" is no "+what, instead)
	}
	n.attrs = append(n.attrs, "plugin")
}

// daemonFault says what to write instead of a daemon's address, or "".
func daemonFault(s, help string) string {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if !filepath.IsAbs(path) {
			return "The path of a socket is absolute. " + help
		}
		return ""
	}
	hostport, ok := strings.CutPrefix(s, "inet:")
	if !ok {
		return help
	}
	host, port, err := net.SplitHostPort(hostport)
	if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 || host == "" {
		return help
	}
	return ""
}

// plugin reads which plugin is asked.
func (r *reader) plugin(n *node, c *Check) {
	c.Plugin = n.text("plugin", c.Name)
	if !strings.ContainsRune(c.Plugin, '/') && !strings.HasSuffix(c.Plugin, ".wasm") {
		return
	}
	c.Path = true
	if !filepath.IsAbs(c.Plugin) {
		c.Plugin = filepath.Join(r.dir, c.Plugin)
	}
	if err := readable(c.Plugin); err != nil {
		r.fault(n.at("plugin"), "plugin cannot be read", cause(c.Plugin, err)+" Write the path of a .wasm module, or the name of a plugin that is built in.")
	}
}

// with reads the plugin's own configuration and flattens it: a value is one
// text, a list one text an element, and what lies in an inner map gets the
// path's names joined by dots.
func (r *reader) with(n *node, c *Check) {
	v, at, ok := n.value("with")
	if !ok {
		return
	}
	if t := v.Type(); !t.IsObjectType() && !t.IsMapType() {
		n.wrong(at, "with", `a map, such as { limit = 30 }`)
		return
	}
	places := n.keys("with", func(key string) string { return key })
	c.With, c.WithWhere = map[string][]string{}, map[string]string{}
	r.flatten(c, "", v, at, places)
	for name, at := range places {
		c.WithWhere[name] = place(at)
	}
}

func (r *reader) flatten(c *Check, prefix string, v cty.Value, at hcl.Range, places map[string]hcl.Range) {
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		name := prefix + k.AsString()
		at := at
		if own, ok := places[name]; ok {
			at = own
		}
		switch t := e.Type(); {
		case e.IsNull():
			r.fault(at, "with."+name+" has no value", "Write a value, or leave it out.")
		case t.IsObjectType(), t.IsMapType():
			r.flatten(c, name+".", e, at, places)
		case t.IsTupleType(), t.IsListType(), t.IsSetType():
			list := []string{}
			for et := e.ElementIterator(); et.Next(); {
				_, x := et.Element()
				s, err := scalar(x)
				if err != nil {
					r.fault(at, "with."+name+" has an element that is "+err.Error(), "Lists hold texts, numbers, true and false.")
					continue
				}
				list = append(list, s)
			}
			c.With[name] = list
		default:
			s, err := scalar(e)
			if err != nil {
				r.fault(at, "with."+name+" is "+err.Error(), "Write a text, a number, true, false, a list or a map.")
				continue
			}
			c.With[name] = []string{s}
		}
	}
}

// maxExponent bounds numbers to those that float64 has room for; without it, a
// few digits in a file would be gigabytes of text.
const maxExponent = 1024

func scalar(v cty.Value) (string, error) {
	switch {
	case v.IsNull():
		return "", fmt.Errorf("empty")
	case v.Type() == cty.String:
		return v.AsString(), nil
	case v.Type() == cty.Bool:
		return strconv.FormatBool(v.True()), nil
	case v.Type() == cty.Number:
		f := v.AsBigFloat()
		if exp := f.MantExp(nil); f.IsInf() || exp > maxExponent || exp < -maxExponent {
			return "", fmt.Errorf("a number beyond all measure")
		}
		return f.Text('f', -1), nil
	}
	return "", fmt.Errorf("%s", v.Type().FriendlyName())
}

// text is what stands at a place.
func (r *reader) text(at hcl.Range) string {
	f := r.parser.Files()[at.Filename]
	if f == nil || at.End.Byte > len(f.Bytes) || at.Start.Byte > at.End.Byte {
		return ""
	}
	return string(f.Bytes[at.Start.Byte:at.End.Byte])
}
