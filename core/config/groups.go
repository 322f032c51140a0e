package config

import (
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// group is a named list of checks that policies include.
type group struct {
	body *hclsyntax.Body
	dir  string // that its paths are relative to
	at   hcl.Range
	used bool
}

// maxChecks bounds the checks of one policy: groups that include groups multiply.
const maxChecks = 1_000

// groups registers the group blocks of a file.
func (r *reader) groups(n *node) {
	dir := r.dir
	n.named("group", func(n *node, name string, at hcl.Range) {
		if first, ok := r.grouped[name]; ok {
			r.fault(at, "a second group "+strconv.Quote(name), "The first is at "+place(first.at)+"; give this one another name.")
			return
		}
		if !isWord(name) {
			r.fault(at, strconv.Quote(name)+" cannot name a group", "Write letters, digits, - and _ only.")
		}
		r.grouped[name] = &group{body: n.body, dir: dir, at: at}
	})
}

// checks reads the check and include blocks of n in the order in which they
// stand. within are the groups that n is part of.
func (r *reader) checks(n *node, p *Policy, within []string) {
	n.blocks = append(n.blocks, "check", "include")
	for _, b := range n.body.Blocks {
		switch b.Type {
		case "check":
			if name, ok := r.label(b); ok {
				r.add(p, r.check(r.node(b.Body, "check "+strconv.Quote(name)), name, b.DefRange(), p.On), b.LabelRanges[0])
			}
		case "include":
			name, ok := r.label(b)
			if !ok {
				continue
			}
			if len(b.Body.Attributes)+len(b.Body.Blocks) > 0 {
				r.fault(b.DefRange(), "an include says nothing of its own", "Write include "+strconv.Quote(name)+" {}.")
			}
			r.include(p, name, b.LabelRanges[0], within)
		}
	}
}

// label is the name of a block that needs one.
func (r *reader) label(b *hclsyntax.Block) (string, bool) {
	if len(b.Labels) == 1 && b.Labels[0] != "" {
		return b.Labels[0], true
	}
	r.fault(b.DefRange(), b.Type+" needs one name", "Write "+b.Type+` "NAME" { … }.`)
	return "", false
}

// add adds a check, whose name must be its own in the policy.
func (r *reader) add(p *Policy, c Check, at hcl.Range) {
	for _, other := range p.Checks {
		if other.Name == c.Name {
			r.fault(at, "a second check "+strconv.Quote(c.Name), "Policy "+strconv.Quote(p.Name)+" has the first at "+other.Where+"; give this one another name.")
			return
		}
	}
	if len(p.Checks) >= maxChecks {
		r.fault(at, "too many checks", "A policy has at most "+strconv.Itoa(maxChecks)+".")
		return
	}
	p.Checks = append(p.Checks, c)
}

// include adds the checks of a group.
func (r *reader) include(p *Policy, name string, at hcl.Range, within []string) {
	g := r.grouped[name]
	if g == nil {
		var names []string
		for n := range r.grouped {
			names = append(names, n)
		}
		help := `Write group "` + name + `" { … } in a file of the policies folder.`
		if len(names) > 0 {
			help = "Write " + oneOf(sorted(names)) + "." + meant(name, names)
		}
		r.fault(at, "no group "+strconv.Quote(name), help)
		return
	}
	g.used = true
	for i, w := range within {
		if w == name {
			r.fault(at, "group "+strconv.Quote(name)+" includes itself", "It does so by "+strings.Join(append(within[i:], name), " → ")+"; take one of these out.")
			return
		}
	}
	r.group(p, g, append(within[:len(within):len(within)], name))
}

// group reads a group's checks into p.
func (r *reader) group(p *Policy, g *group, within []string) {
	dir := r.dir
	r.dir = g.dir
	defer func() { r.dir = dir }()
	n := r.node(g.body, "group "+strconv.Quote(within[len(within)-1]))
	r.checks(n, p, within)
	n.done()
}

// unused looks at groups that nobody includes, so that their faults are told too.
func (r *reader) unused() {
	for name, g := range r.grouped {
		if !g.used {
			r.group(&Policy{Name: name}, g, []string{name})
		}
	}
}
