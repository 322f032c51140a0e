package policytest

import (
	"fmt"
	"io"
	"strings"

	"github.com/wafermail/wafer/core"
	"github.com/wafermail/wafer/core/policy"
)

// Coverage is which checks were asked, and which of the branches that their
// configuration has were taken.
type Coverage struct {
	Checks []CheckCoverage `json:"checks"`
	byName map[string]int
}

// CheckCoverage is the coverage of one check.
type CheckCoverage struct {
	Check    string         `json:"check"` // "policy/check"
	Where    string         `json:"where"`
	Asked    int            `json:"asked"`
	Verdicts map[string]int `json:"verdicts"`
	Branches []Branch       `json:"branches"`
}

// Branch is one way that a check can go.
type Branch struct {
	Name string `json:"name"` // `reject = "not-fqdn"`, "when is false", "asked"
	Hit  bool   `json:"hit"`

	taken func(*policy.Record) bool
}

func newCoverage(rules *core.Rules) Coverage {
	c := Coverage{byName: map[string]int{}}
	for _, b := range rules.Branches() {
		cc := CheckCoverage{Check: b.Check, Where: b.Where, Verdicts: map[string]int{}}
		add := func(name string, taken func(*policy.Record) bool) {
			cc.Branches = append(cc.Branches, Branch{Name: name, taken: taken})
		}
		add("asked", func(r *policy.Record) bool { return r.Skipped == "" })
		if b.When {
			add("when is true", func(r *policy.Record) bool { return r.Skipped == "" })
			add("when is false", func(r *policy.Record) bool { return r.Skipped == "when" })
		}
		if b.Exempt {
			add("exempt", func(r *policy.Record) bool { return r.Skipped == "exempt" })
		}
		for _, setting := range b.Settings {
			add(setting.Name, func(r *policy.Record) bool {
				if setting.Reason == "" {
					return r.Action != policy.Next.String() && r.Error == "" && r.Skipped == ""
				}
				return r.Reason == setting.Reason || strings.HasSuffix(r.Reason, "-"+setting.Reason)
			})
		}
		c.byName[b.Check] = len(c.Checks)
		c.Checks = append(c.Checks, cc)
	}
	return c
}

// add counts what a step's checks did.
func (c *Coverage) add(records []policy.Record) {
	for i := range records {
		r := &records[i]
		at, ok := c.byName[r.Check]
		if !ok {
			continue
		}
		check := &c.Checks[at]
		if r.Skipped == "" {
			check.Asked++
			verdict := r.Action
			if r.Error != "" {
				verdict = "error"
			}
			check.Verdicts[verdict]++
		}
		for j := range check.Branches {
			b := &check.Branches[j]
			b.Hit = b.Hit || b.taken(r)
		}
	}
}

// Hit is how many branches there are, and how many were taken.
func (c *Coverage) Hit() (hit, all int) {
	for _, check := range c.Checks {
		for _, b := range check.Branches {
			if all++; b.Hit {
				hit++
			}
		}
	}
	return hit, all
}

// Text writes the coverage for people: each check, and what no test has reached.
func (c *Coverage) Text(w io.Writer) {
	asked := 0
	for _, check := range c.Checks {
		if check.Asked > 0 {
			asked++
		}
	}
	hit, all := c.Hit()
	fmt.Fprintf(w, "coverage: %d of %d checks asked, %d of %d branches taken (%s)\n", asked, len(c.Checks), hit, all, percent(hit, all))
	for _, check := range c.Checks {
		var verdicts, missed []string
		for _, v := range sortedKeys(check.Verdicts) {
			verdicts = append(verdicts, fmt.Sprintf("%s %d", v, check.Verdicts[v]))
		}
		for _, b := range check.Branches {
			if !b.Hit {
				missed = append(missed, b.Name)
			}
		}
		fmt.Fprintf(w, "  %-28s %-24s asked %d: %s\n", check.Check, check.Where, check.Asked, orNone(verdicts))
		for _, m := range missed {
			fmt.Fprintf(w, "  %-28s never: %s\n", "", m)
		}
	}
}

func percent(n, of int) string {
	if of == 0 {
		return "100 %"
	}
	return fmt.Sprintf("%.0f %%", 100*float64(n)/float64(of))
}
