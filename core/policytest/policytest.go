// Package policytest runs *_test.hcl files: each step of a test is a rehearsal
// (package rehearse) in a world that the test describes, with its own clock,
// DNS, counters and state, and ends in what the step expects, or does not.
//
//	report, err := policytest.Run(ctx, rules, tests, policytest.Options{})
//	report.Text(os.Stdout, true)
//
// Nothing of it touches the network, the clock or a server's state, so a test
// says the same everywhere and always.
//
// # BUGS
//
// Tests run one after the other. Modules are loaded once for all of them: a
// plugin that keeps something from one call to the next, which none may rely on,
// could carry it from test to test.
package policytest

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/wafermail/wafer/core"
	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/dns"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/rehearse"
)

// Options of a run.
type Options struct {
	Run *regexp.Regexp // names of tests; nil: all
}

// Report is how the tests of a run went.
type Report struct {
	Results  []Result
	Took     time.Duration
	Coverage Coverage
}

// Result is how one test went.
type Result struct {
	Test  config.Test
	Steps []StepResult
	Took  time.Duration
}

// StepResult is how one step went.
type StepResult struct {
	Step     config.Step
	Outcome  rehearse.Outcome
	Records  []policy.Record // of the last time it was done
	Failures []string        // what was not as expected; none: good
}

// Failed reports whether something was not as expected.
func (r *Result) Failed() bool {
	for _, s := range r.Steps {
		if len(s.Failures) > 0 {
			return true
		}
	}
	return false
}

// Failed is how many tests failed.
func (r *Report) Failed() (n int) {
	for i := range r.Results {
		if r.Results[i].Failed() {
			n++
		}
	}
	return n
}

// Run runs tests against rules. An error means that a test could not be run,
// because it names what is not there; ErrNoTests that there was none to run.
func Run(ctx context.Context, rules *core.Rules, tests []config.Test, o Options) (*Report, error) {
	report := &Report{Coverage: newCoverage(rules)}
	began := time.Now()
	for _, t := range tests {
		if o.Run != nil && !o.Run.MatchString(t.Name) {
			continue
		}
		r, err := run(ctx, rules, t, report.Coverage.add)
		if err != nil {
			return nil, fmt.Errorf("%s: test %q: %w", t.Where, t.Name, err)
		}
		report.Results = append(report.Results, r)
	}
	report.Took = time.Since(began)
	if len(report.Results) == 0 {
		return nil, fmt.Errorf("%w: of %d, none has a name that matches %s", config.ErrNoTests, len(tests), o.Run)
	}
	return report, nil
}

// world is what one test's steps share.
type world struct {
	rules    *core.Rules
	clock    time.Time
	counters *policy.Counters
	state    *policy.Memory
	given    map[string]string // what has been put into state, so that a step does not undo what came of it
	drawn    uint64
	log      rehearse.Records
	each     func([]policy.Record)
	labels   map[string][]string // checks by their names, with and without the policy's
	session  *rehearse.Session
	resolver dns.Resolver // of the step
}

func newWorld(rules *core.Rules) *world {
	w := &world{rules: rules, counters: policy.NewCounters(policy.CounterOptions{}), state: policy.NewMemory(), given: map[string]string{}, labels: map[string][]string{}}
	for _, p := range rules.Policies() {
		for _, c := range p.Checks {
			label := p.Name + "/" + c.Name
			w.labels[label] = []string{label}
			w.labels[c.Name] = append(w.labels[c.Name], label)
		}
	}
	return w
}

// label is the whole name of a check.
func (w *world) label(name string) (string, error) {
	switch l := w.labels[name]; len(l) {
	case 0:
		return "", fmt.Errorf("no check %q", name)
	case 1:
		return l[0], nil
	default:
		return "", fmt.Errorf("check %q is one of %s: write the policy's name too", name, strings.Join(l, ", "))
	}
}

// run runs a test; each is told what the checks said, each time that a step is done.
func run(ctx context.Context, rules *core.Rules, t config.Test, each func([]policy.Record)) (Result, error) {
	began := time.Now()
	w := newWorld(rules)
	w.each = each
	r := Result{Test: t}
	for _, s := range t.Steps {
		step, err := w.step(ctx, s)
		if err != nil {
			if s.Name != "" {
				err = fmt.Errorf("step %q: %w", s.Name, err)
			}
			return r, err
		}
		r.Steps = append(r.Steps, step)
	}
	r.Took = time.Since(began)
	return r, nil
}

// step does a step as often as it says; each time has to end as expected.
func (w *world) step(ctx context.Context, s config.Step) (StepResult, error) {
	if w.clock.IsZero() {
		w.clock = s.Given.Clock
	}
	w.clock = w.clock.Add(s.After)
	sc, err := w.scenario(&s.Given)
	if err != nil {
		return StepResult{}, err
	}
	if err := w.prepare(ctx, &s.Given); err != nil {
		return StepResult{}, err
	}
	r := StepResult{Step: s}
	for i := range s.Times {
		w.log.List = nil
		if !s.SameSession || i > 0 && w.session == nil {
			set, err := w.rules.Set(policy.SetOptions{
				Resolver: w, Counters: w.counters, State: w.state, Log: &w.log, Explain: true,
				Now: w.now, Random: w.random,
			}, s.Given.Policies)
			if err != nil {
				return r, err
			}
			w.session = rehearse.Begin(set, sc)
		}
		r.Outcome = w.session.Walk(ctx, sc)
		r.Records = w.log.List
		w.each(r.Records)
		failures, err := w.compare(&s.Expect, &r)
		if err != nil {
			return r, err
		}
		if len(failures) > 0 {
			if s.Times > 1 {
				failures[0] = fmt.Sprintf("time %d of %d: %s", i+1, s.Times, failures[0])
			}
			r.Failures = failures
			break
		}
	}
	return r, nil
}

func (w *world) now() time.Time { return w.clock }

// random is a sequence that is the same in every run.
func (w *world) random(p []byte) {
	for i := range p {
		w.drawn = w.drawn*6364136223846793005 + 1442695040888963407
		p[i] = byte(w.drawn >> 56)
	}
}

// scenario is what a step gives.
func (w *world) scenario(g *config.Given) (*rehearse.Scenario, error) {
	zone, err := zoneOf(g)
	if err != nil {
		return nil, err
	}
	w.resolver = zone
	return &rehearse.Scenario{
		Door: w.door(g), Hostname: g.Hostname, Now: w.now,
		Client: netip.AddrPortFrom(g.Client, g.Port), ClientName: g.ClientName, ReverseName: g.ReverseName,
		Trusted: g.Trusted, EarlyTalker: g.EarlyTalker, TLS: g.TLS, Helo: g.Helo, Extended: g.Extended,
		User: g.User, Mechanism: g.Mechanism, AuthOK: g.AuthOK,
		Sender: g.Sender, Rcpts: g.Rcpts, Size: g.Size, Message: g.Message,
		Directory: directory{g}, Resolver: zone,
	}, nil
}

// door is where the step comes in: as it says, else the first door of the first
// policy that counts.
func (w *world) door(g *config.Given) string {
	if g.Door != "" {
		return g.Door
	}
	for _, p := range w.rules.Policies() {
		if len(p.On) > 0 && (len(g.Policies) == 0 || g.Policies[0] == p.Name) {
			return p.On[0]
		}
	}
	return "mx"
}

// kept is how long what a test puts into state is kept.
const kept = 90 * 24 * time.Hour

// prepare puts what the step gives into the state.
func (w *world) prepare(ctx context.Context, g *config.Given) error {
	for check, values := range g.State {
		label, err := w.label(check)
		if err != nil {
			return fmt.Errorf("given state: %w", err)
		}
		for key, value := range values {
			full := label + "\x00" + key
			if had, ok := w.given[full]; ok && had == value {
				continue // of the test or of the file, and there already
			}
			w.given[full] = value
			if err := w.state.Put(ctx, full, []byte(value), kept, w.clock); err != nil {
				return fmt.Errorf("given state of %s: %w", check, err)
			}
		}
	}
	return nil
}

// LookupDNS answers checks from the step's names (policy.Resolver).
func (w *world) LookupDNS(ctx context.Context, q policy.Question) policy.Answer {
	return core.Resolver(w.resolver).LookupDNS(ctx, q)
}

// KnownDNS answers everything (policy.KnownResolver).
func (w *world) KnownDNS(q policy.Question) (policy.Answer, bool) {
	return w.LookupDNS(context.Background(), q), true
}

// zoneOf is the step's DNS: its table, and behind it its zone file.
func zoneOf(g *config.Given) (dns.Resolver, error) {
	names := map[string]map[string][]string{}
	for question, records := range g.DNS {
		kind, name, _ := strings.Cut(question, " ")
		if a, err := netip.ParseAddr(name); err == nil {
			name = dns.ReverseName(a)
		}
		types := names[name]
		if types == nil {
			types = map[string][]string{}
			names[name] = types
		}
		for _, r := range records {
			rcode := ""
			switch r {
			case "NXDOMAIN", "SERVFAIL", "REFUSED":
				rcode = r
			case "TIMEOUT":
				rcode = "DROP"
			}
			switch {
			case rcode == "":
				types[kind] = append(types[kind], r)
			case kind == "*":
				types["RCODE"] = []string{rcode}
			default:
				types["RCODE:"+kind] = []string{rcode}
			}
		}
		if len(records) == 0 { // the name is there, without such records
			types["NAME"] = []string{"there"}
		}
	}
	table := dns.NewZone(names)
	if g.Zone == "" {
		return table, nil
	}
	file, err := dns.LoadZone(g.Zone)
	if err != nil {
		return nil, err
	}
	return both{table, file}, nil
}

// both asks the second what the first does not know.
type both struct{ first, second dns.Resolver }

func (b both) Lookup(ctx context.Context, q dns.Question) dns.Answer {
	if a := b.first.Lookup(ctx, q); a.Status != dns.NXDomain {
		return a
	}
	return b.second.Lookup(ctx, q)
}

// directory is the addresses that a step gives.
type directory struct{ g *config.Given }

func (d directory) Class(p mail.Path) string {
	if p.IsNull() {
		return ""
	}
	listed := func(list []string, want string) bool {
		for _, s := range list {
			if strings.EqualFold(s, want) {
				return true
			}
		}
		return false
	}
	switch {
	case p.Domain() == "" && strings.EqualFold(p.Local(), "postmaster"): // of the first domain
	case len(d.g.Domains) > 0 && p.Domain() != "" && !listed(d.g.Domains, p.Domain()):
		return policy.ClassRelay
	case len(d.g.Mailboxes) > 0 && !listed(d.g.Mailboxes, p.String()):
		if len(d.g.Domains) == 0 && !d.sameDomain(p) {
			return policy.ClassRelay
		}
		return policy.ClassUnknown
	}
	return policy.ClassLocal
}

// sameDomain reports whether one of the mailboxes is in p's domain.
func (d directory) sameDomain(p mail.Path) bool {
	for _, m := range d.g.Mailboxes {
		if at := strings.LastIndexByte(m, '@'); strings.EqualFold(m[at+1:], p.Domain()) {
			return true
		}
	}
	return false
}

// Owners are who the step says; else every local address is its own user's.
func (d directory) Owners(p mail.Path) []string {
	for address, owners := range d.g.Owners {
		if strings.EqualFold(address, p.String()) {
			return owners
		}
	}
	if d.Class(p) == policy.ClassLocal {
		return []string{p.String()}
	}
	return nil
}
