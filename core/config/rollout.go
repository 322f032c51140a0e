package config

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// rollouts reads the block of another version of the policies.
func (r *reader) rollouts(c *Config, n *node) {
	n.named("rollout", func(n *node, name string, at hcl.Range) {
		if c.Rollout != nil {
			r.fault(at, "a second rollout", "The first is at "+c.Rollout.Where+". Try one version at a time.")
			return
		}
		x := &Rollout{Name: name, Where: place(at)}
		x.Policies = n.path("policies", "")
		if x.Policies == "" {
			r.fault(at, "rollout has no policies", `Write policies = "next", a folder or a file that wafer policy pack has made.`)
		}
		x.Percent = n.share("percent", 5, 100)
		x.Sticky = n.choice("sticky", "client-prefix", "client-prefix", "session")
		g := n.only("guard")
		if g == nil {
			g = r.node(emptyBody(), "guard")
		}
		x.Guard = Guard{
			RejectRate: g.share("reject_rate", 0, 1), ErrorRate: g.share("error_rate", 0, 1),
			P99: g.duration("p99", 0, time.Microsecond, time.Minute), Sessions: int(g.count("sessions", 50, 1, 1_000_000)),
		}
		g.done()
		n.done()
		if !r.candidate { // a version does not name another one
			c.Rollout = x
		}
	})
}

// shadow reads the block of a version that watches.
func (r *reader) shadow(c *Config, n *node) {
	n.named("shadow", func(n *node, name string, at hcl.Range) {
		if c.Shadow != nil {
			r.fault(at, "a second shadow", "The first is at "+c.Shadow.Where+". Watch with one version at a time.")
			return
		}
		x := &Rollout{Name: name, Where: place(at), Policies: n.path("policies", "")}
		if x.Policies == "" {
			r.fault(at, "shadow has no policies", `Write policies = "next", a folder or a file that wafer policy pack has made.`)
		}
		n.done()
		if !r.candidate {
			c.Shadow = x
		}
	})
}

// tried reads the policies of the rollout and of the shadow: the whole configuration with
// these in place of the others.
func (r *reader) tried(c *Config, file string) error {
	for _, x := range []*Rollout{c.Rollout, c.Shadow} {
		if x == nil {
			continue
		}
		cc, err := load(file, r.from, x.Policies, true)
		if err != nil {
			return err
		}
		x.Policy, x.Lists = cc.Policy, cc.Lists
		sum := sha256.New()
		for _, name := range slices.Sorted(maps.Keys(cc.Files)) {
			fmt.Fprintf(sum, "%s\x00%d\x00%s", name, len(cc.Files[name]), cc.Files[name])
			c.Files[name] = cc.Files[name]
		}
		x.Digest = fmt.Sprintf("%x", sum.Sum(nil))[:12]
	}
	return nil
}
