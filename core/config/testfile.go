package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/zclconf/go-cty/cty"

	"github.com/wafermail/wafer/core/mail"
)

// Test is one test block of a *_test.hcl file, or one row of its each.
type Test struct {
	Name  string // with the row's: "forged names/localhost"
	Where string
	File  string
	Steps []Step
}

// Step is one message, login or connection of a test. A test without step
// blocks is one step.
type Step struct {
	Name        string
	Where       string
	After       time.Duration // that the clock goes on before it
	Times       int           // how often it is done, at least 1
	SameSession bool          // in the connection of the step before it
	Given       Given
	Expect      Expect
}

// Given is the world of a step: who comes, with what, and what it finds.
type Given struct {
	Policies []string // only these; nil: all that guard the door
	Door     string
	Hostname string
	Clock    time.Time

	Client                  netip.Addr
	Port                    uint16
	ClientName, ReverseName *string // nil: what DNS says
	Trusted, EarlyTalker    bool
	TLS                     string // "" or "TLSv1.3"
	Helo                    string // "": none was sent
	Extended                bool   // EHLO
	User, Mechanism         string // User "": no login
	AuthOK                  bool

	Sender  mail.Path
	Rcpts   []mail.Path
	Size    int64
	Message []byte // nil: the session ends before DATA's text

	DNS  map[string][]string // "TXT example.org" to records; a record that is NXDOMAIN, SERVFAIL or TIMEOUT stands for that outcome
	Zone string              // file; "" none

	Domains   []string                     // of ours; nil: every address is local
	Mailboxes []string                     // addresses in Domains; nil: all
	Owners    map[string][]string          // addresses to the logins that may use them
	State     map[string]map[string]string // by check
}

// Expect is what a step has to end in. What is nil or "" does not matter.
type Expect struct {
	Verdict  string
	Code     int
	Enhanced string
	Text     *Pattern
	Reason   string
	By       string // "check", "policy/check" or "core"
	At       string // stage

	Header   map[string]Pattern // by name, of what is added
	NoHeader []string
	Tags     []string
	Score    *float64
	Redirect []string
	BCC      []string
	Rcpt     map[string]int                // reply codes by recipient
	Checks   map[string]string             // verdicts by check
	State    map[string]map[string]Pattern // values by check and key; of "" the key must be missing
	Counts   map[string]map[string]int64
	Asked    []string // DNS questions
}

// Pattern is a text, or behind "~" a regular expression.
type Pattern struct {
	text string
	re   *regexp.Regexp
}

// Match reports whether s is what p stands for.
func (p Pattern) Match(s string) bool {
	if p.re != nil {
		return p.re.MatchString(s)
	}
	return s == p.text
}

// String is p as it was written.
func (p Pattern) String() string { return p.text }

// ErrNoTests says that there is nothing to run.
var ErrNoTests = errors.New("no tests")

// LoadTests reads *_test.hcl files. Every fault in them is in the error, an
// *Error; that there is no test at all is ErrNoTests.
func LoadTests(files []string) ([]Test, error) {
	r := &reader{parser: hclparse.NewParser(), seen: map[string]string{}, grouped: map[string]*group{}}
	r.eval = &hcl.EvalContext{Functions: functions(r.outside)}
	var all []Test
	for _, name := range files {
		name, err := filepath.Abs(name)
		if err != nil {
			return nil, err
		}
		src, err := readRegular(name)
		if err != nil {
			return nil, fmt.Errorf("read tests: %s", cause(name, err))
		}
		r.dir = filepath.Dir(name)
		if body := r.parse(name, src); body != nil {
			all = append(all, r.tests(name, r.node(body, filepath.Base(name)))...)
		}
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w in %s: write test \"NAME\" { given { … } expect { … } } in a file whose name ends in _test.hcl", ErrNoTests, strings.Join(files, ", "))
	}
	return all, nil
}

// LoadPolicies reads the policies of a folder without the rest of a
// configuration.
func LoadPolicies(dir string) (*Config, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.ReadDir(dir); err != nil {
		return nil, fmt.Errorf("read policies: %s", cause(dir, err))
	}
	r := &reader{parser: hclparse.NewParser(), dir: dir, seen: map[string]string{}, grouped: map[string]*group{}}
	r.eval = &hcl.EvalContext{Functions: functions(r.outside)}
	c := &Config{Policies: dir}
	r.judge(c)
	if err := r.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// tests reads the test blocks of a file.
func (r *reader) tests(file string, n *node) (all []Test) {
	n.blocks = append(n.blocks, "given")
	n.named("test", func(t *node, name string, at hcl.Range) {
		rows, good := r.rows(t)
		if !good {
			return
		}
		for _, row := range rows {
			test := Test{Name: name, Where: place(at), File: file}
			outer := r.eval
			if row.name != "" {
				test.Name += "/" + row.name
				r.eval = outer.NewChild()
				r.eval.Variables = map[string]cty.Value{"each": row.value}
			}
			test.Steps = r.steps(n, r.node(t.body, t.what))
			r.eval = outer
			all = append(all, test)
		}
	})
	n.done()
	return all
}

// row is one of a test's each.
type row struct {
	name  string
	value cty.Value
}

// maxRows bounds the rows of a test, and how often a step is done.
const maxRows = 10_000

func (r *reader) rows(n *node) ([]row, bool) {
	if n.body.Attributes["each"] == nil {
		return []row{{}}, true
	}
	v, at, ok := n.value("each")
	if !ok {
		return nil, false
	}
	if t := v.Type(); !t.IsObjectType() && !t.IsMapType() {
		n.wrong(at, "each", `a map of named rows, such as { "no dot" = { helo = "laptop", code = 504 } }`)
		return nil, false
	}
	var rows []row
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		if t := e.Type(); !t.IsObjectType() && !t.IsMapType() {
			r.fault(at, "row "+strconv.Quote(k.AsString())+" is no map", `Write { helo = "laptop", code = 504 }, and each.helo where it is needed.`)
			return nil, false
		}
		rows = append(rows, row{k.AsString(), e})
	}
	if len(rows) == 0 || len(rows) > maxRows {
		r.fault(at, "each has no rows, or too many", fmt.Sprintf("Write between 1 and %d.", maxRows))
		return nil, false
	}
	return rows, true
}

// steps reads what a test does. file is the file's body, whose given is the
// ground on which those of the test and the steps build.
func (r *reader) steps(file, t *node) []Step {
	t.attrs = append(t.attrs, "each")
	given := r.defaults()
	if g := r.node(file.body, file.what).only("given"); g != nil {
		r.given(g, &given)
	}
	if g := t.only("given"); g != nil {
		r.given(g, &given)
	}
	var steps []Step
	expect := t.only("expect")
	t.named("step", func(n *node, name string, at hcl.Range) {
		s := Step{Name: name, Where: place(at), Given: given.clone(), Times: 1}
		s.After = n.duration("after", 0, 0, 10*365*24*time.Hour)
		s.Times = int(n.count("times", 1, 1, maxRows))
		s.SameSession = n.flag("same_session", false)
		if s.SameSession && len(steps) == 0 {
			r.fault(n.at("same_session"), "the first step has no session to go on with", "Leave the line out.")
		}
		if g := n.only("given"); g != nil {
			if s.SameSession {
				r.settled(g)
			}
			r.given(g, &s.Given)
		}
		s.Expect = r.expect(n.only("expect"), at, n.what)
		n.done()
		steps = append(steps, s)
	})
	at := t.body.MissingItemRange()
	switch {
	case len(steps) == 0:
		steps = []Step{{Where: place(at), Given: given, Times: 1, Expect: r.expect(expect, at, t.what)}}
	case expect != nil:
		r.fault(expect.body.MissingItemRange(), "what is expected of a test with steps stands in its steps", "Move this expect into the step that it is about.")
	}
	t.done()
	return steps
}

// settled reports what a step of a session that has begun cannot give any more.
func (r *reader) settled(n *node) {
	for _, key := range []string{
		"policy", "door", "hostname", "client", "port", "client_name", "reverse_name", "trusted", "early_talker",
		"tls", "helo", "extended", "user", "mechanism", "auth_ok", "clock",
	} {
		if a := n.body.Attributes[key]; a != nil {
			r.fault(a.NameRange, key+" was settled when the session began", "A step with same_session is another mail: give sender, rcpt, size and message, or leave same_session out.")
		}
	}
}
