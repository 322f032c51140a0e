package policytest

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core"
	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/rehearse"
)

const policies = `
policy "in" {
  on = ["mx"]
  exempt {
    networks = ["127.0.0.0/8"]
  }
  check "rate" {
    plugin   = "ratelimit"
    at       = "connect"
    reply_at = "connect"
    allow    = ["count"]
    with     = { limit = 2, per = "1m" }
  }
  check "helo" {
    at   = "helo"
    when = helo != "friend"
    with = { reject = ["invalid", "not-fqdn"] }
  }
  check "grey" {
    plugin = "greylist"
    at     = "rcpt"
    allow  = ["state"]
    when   = endswith(sender, "@grey.example")
    with   = { action = "defer" }
  }
}
`

const tests = `
given { domains = ["example.test"] }

test "good" {
  expect {
    verdict = "accept"
    checks  = { helo = "next", grey = "skipped" }
  }
}

test "bad" {
  given { helo = "laptop" }
  expect {
    verdict = "accept"
    code    = 250
  }
}

test "rows" {
  each = {
    "a" = { helo = "laptop", code = 504 }
    "b" = { helo = "friend", code = 250 }
  }
  given { helo = each.helo }
  expect { code = each.code }
}

test "too many" {
  step "two" {
    times = 2
    expect { code = 250 }
  }
  step "a third" {
    expect {
      code   = 421
      counts = { rate = { "192.0.2.1" = 3 } }
    }
  }
  step "later" {
    after = "2m"
    expect { code = 250 }
  }
}

test "greylisting" {
  given { sender = "ann@grey.example" }
  step "a stranger" {
    expect {
      verdict = "defer"
      by      = "grey"
      reason  = "greylist-new"
    }
  }
  step "comes back" {
    after = "6m"
    expect {
      verdict = "accept"
      header  = { "X-Greylist" = "~ ^delayed 360 seconds" }
    }
  }
}

test "two mails of one session" {
  step "one" {
    expect { code = 250 }
  }
  step "another" {
    same_session = true
    given { rcpt = "x@elsewhere.example" }
    expect {
      code   = 554
      by     = "core"
      counts = { rate = { "192.0.2.1" = 1 } }
    }
  }
}
`

// load writes policies and tests into a folder and loads them.
func load(t testing.TB, policies, text string) (*core.Rules, []config.Test) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "p_test.hcl")
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "p.hcl"), []byte(policies), 0o600), os.WriteFile(file, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	c, err := config.LoadPolicies(dir)
	if err != nil {
		t.Fatal(err)
	}
	rules, err := core.LoadRules(t.Context(), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rules.Close(); err != nil {
			t.Error(err)
		}
	})
	all, err := config.LoadTests([]string{file})
	if err != nil {
		t.Fatal(err)
	}
	return rules, all
}

// times are what may differ from one run to the next: times, the folder, and the
// fuel of plugins whose maps Go seeds anew in every instance.
var times = regexp.MustCompile(`fuel [0-9]+|[0-9.]+(s|ms|µs|ns)\b|"(seconds|us)": [0-9.e-]+|time="[0-9.]+"|"/[^"]*/p_test.hcl"`)

// TestRun goes through a whole run: which tests fail, what the reports say, and
// that a second run says the same.
func TestRun(t *testing.T) {
	var before string
	for range 2 {
		rules, all := load(t, policies, tests)
		r, err := Run(t.Context(), rules, all, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Results) != 7 || r.Failed() != 1 || !r.Results[1].Failed() {
			var b strings.Builder
			r.Text(&b, true)
			t.Fatalf("%d results, %d failed:\n%s", len(r.Results), r.Failed(), &b)
		}
		var text, js, junit bytes.Buffer
		r.Text(&text, false)
		r.Text(&text, true)
		r.Coverage.Text(&text)
		if err := errors.Join(r.JSON(&js, true), r.JUnit(&junit)); err != nil {
			t.Fatal(err)
		}
		checkReports(t, text.String(), js.Bytes(), junit.Bytes())
		checkCoverage(t, &r.Coverage)
		now := times.ReplaceAllString(text.String()+js.String()+junit.String(), "TIME")
		for i, line := range strings.Split(before, "\n") {
			if got := strings.Split(now, "\n"); before != "" && (i >= len(got) || got[i] != line) {
				t.Fatalf("two runs differ in line %d: %s\n%s", i, line, got[min(i, len(got)-1)])
			}
		}
		before = now
	}
}

func checkReports(t *testing.T, text string, js, junit []byte) {
	t.Helper()
	for _, want := range []string{
		"--- FAIL: bad (", "p_test.hcl:11: verdict: got reject, want accept", "p_test.hcl:11: code: got 504, want 250",
		"reject at rcpt by in/helo: 504 5.5.2 <laptop>: Helo command rejected: need fully-qualified hostname\n",
		"FAIL: 6 of 7 tests good, ", `step "comes back"`, "--- PASS: rows/b (", "not asked: its when is false",
		"coverage: 3 of 3 checks asked, ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	var j struct {
		Tests []struct {
			Name  string
			Pass  bool
			Steps []struct {
				Verdict, By, At string
				Code            int
				Failures        []string
			}
		}
		Failed   int
		Coverage *Coverage
	}
	if err := json.Unmarshal(js, &j); err != nil || j.Failed != 1 || len(j.Tests) != 7 || j.Tests[1].Pass || j.Coverage == nil || len(j.Coverage.Checks) != 3 {
		t.Errorf("%v, %s", err, js)
	}
	if s := j.Tests[1].Steps[0]; s.Verdict != "reject" || s.Code != 504 || s.By != "in/helo" || s.At != "rcpt" || len(s.Failures) != 2 {
		t.Errorf("step %+v", s)
	}
	var suites junitSuites
	if err := xml.Unmarshal(junit, &suites); err != nil || suites.Tests != 7 || suites.Failures != 1 || len(suites.Suites) != 1 {
		t.Fatalf("%v, %s", err, junit)
	}
	s := suites.Suites[0]
	if s.Name != "p_test.hcl" || s.Tests != 7 || s.Failures != 1 || len(s.Cases) != 7 || s.Cases[0].Failure != nil || s.Cases[1].Failure == nil {
		t.Errorf("suite %+v", s)
	}
	if f := s.Cases[1].Failure; f.Message != "verdict: got reject, want accept" || !strings.Contains(f.Text, "code: got 504") || s.Cases[1].Class != "policy.p_test" {
		t.Errorf("case %+v, %+v", s.Cases[1], f)
	}
}

func checkCoverage(t *testing.T, c *Coverage) {
	t.Helper()
	want := []struct {
		check    string
		asked    int
		verdicts string
		missed   string
	}{
		{"in/rate", 11, "disconnect 1, next 10", "exempt"},
		{"in/helo", 9, "next 7, reject 2", `exempt, reject = "invalid"`},
		{"in/grey", 2, "defer 1, next 1", "exempt"},
	}
	for i, w := range want {
		got := c.Checks[i]
		var verdicts, missed []string
		for _, v := range sortedKeys(got.Verdicts) {
			verdicts = append(verdicts, fmt.Sprint(v, " ", got.Verdicts[v]))
		}
		for _, b := range got.Branches {
			if !b.Hit {
				missed = append(missed, b.Name)
			}
		}
		if got.Check != w.check || got.Asked != w.asked || strings.Join(missed, ", ") != w.missed || strings.Join(verdicts, ", ") != w.verdicts || !strings.HasPrefix(got.Where, "p.hcl:") {
			t.Errorf("%+v; want %+v", got, w)
		}
	}
	hit, of := c.Hit()
	missed := 0
	for _, check := range c.Checks {
		for _, b := range check.Branches {
			if !b.Hit {
				missed++
			}
		}
	}
	if hit+missed != of || missed != 4 {
		t.Errorf("%d of %d branches, %d missed", hit, of, missed)
	}
}

// TestRunChooses: by name, and nothing chosen is an error.
func TestRunChooses(t *testing.T) {
	rules, all := load(t, policies, tests)
	r, err := Run(t.Context(), rules, all, Options{Run: regexp.MustCompile("^rows/")})
	if err != nil || len(r.Results) != 2 || r.Failed() != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := Run(t.Context(), rules, all, Options{Run: regexp.MustCompile("none")}); !errors.Is(err, config.ErrNoTests) || !strings.Contains(err.Error(), "of 7, none has a name that matches none") {
		t.Errorf("%v", err)
	}
	if _, err := Run(t.Context(), rules, nil, Options{}); !errors.Is(err, config.ErrNoTests) {
		t.Errorf("%v", err)
	}
	if err := Bench(t.Context(), &strings.Builder{}, rules, all, Options{Run: regexp.MustCompile("none")}, 1); !errors.Is(err, config.ErrNoTests) {
		t.Errorf("%v", err)
	}
}

// TestSenselessTests: what names nobody cannot be run.
func TestSenselessTests(t *testing.T) {
	rows := map[string]string{
		`test "x" { 
 given { policy = "none" }
 expect { code = 250 }
}`: `p_test.hcl:1: test "x": no policy "none"; there are ["in"]`,
		`test "x" {
 given { state = { nobody = { "k" = "v" } } }
 expect { code = 250 }
}`: `given state: no check "nobody"`,
		`test "x" {
 step "y" {
  expect { by = "nobody" }
 }
}`: `test "x": step "y": expect by: no check "nobody"`,
	}
	for text, want := range rows {
		rules, all := load(t, policies, text)
		if _, err := Run(t.Context(), rules, all, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestGivenStateIsGivenOnce: what came of it in a step is not undone in the next.
func TestGivenStateIsGivenOnce(t *testing.T) {
	w := worldOf(t)
	give := func(value string) string {
		g := config.Given{State: map[string]map[string]string{"grey": {"given": value}}}
		if err := w.prepare(t.Context(), &g); err != nil {
			t.Fatal(err)
		}
		return w.state.List("in/grey", w.clock)["given"]
	}
	if got := give("a"); got != "a" {
		t.Errorf("given %q", got)
	}
	if err := w.state.Put(t.Context(), "in/grey\x00given", []byte("changed"), time.Hour, w.clock); err != nil {
		t.Fatal(err)
	}
	if got := give("a"); got != "changed" {
		t.Errorf("the next step has %q", got)
	}
	if got := give("b"); got != "b" {
		t.Errorf("given anew: %q", got)
	}
}

// TestJUnitOfHostileTexts: whatever a test is called or a check says, the report
// is XML.
func TestJUnitOfHostileTexts(t *testing.T) {
	const hostile = "a<b>&\"'\x00\x01\x1b[2J]]>\xff\ufffe\U0010ffff\u2028\r\n\tz"
	r := Report{Results: []Result{{
		Test: config.Test{Name: hostile, Where: hostile, File: "dir/" + hostile},
		Steps: []StepResult{{
			Step: config.Step{Name: hostile, Where: hostile}, Failures: []string{hostile},
			Outcome: rehearse.Outcome{Verdict: hostile, Decisive: rehearse.Reply{By: hostile, Reason: hostile}},
			Records: []policy.Record{{Check: hostile, Text: hostile, Error: hostile, Action: hostile}},
		}},
	}}}
	var b bytes.Buffer
	if err := r.JUnit(&b); err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(b.Bytes())); ; {
		if _, err := d.Token(); err != nil {
			if err.Error() != "EOF" {
				t.Fatalf("%v in %q", err, b.String())
			}
			break
		}
	}
	var suites junitSuites
	if err := xml.Unmarshal(b.Bytes(), &suites); err != nil || suites.Tests != 1 {
		t.Fatalf("%v, %q", err, b.String())
	}
	c := suites.Suites[0].Cases[0]
	if !strings.HasPrefix(c.Name, "a<b>&\"'[2J]]>\ufffd") || c.Failure == nil || !strings.Contains(c.Failure.Text, "]]>") {
		t.Errorf("case %+v", c)
	}
	var j bytes.Buffer
	if err := r.JSON(&j, true); err != nil || !json.Valid(j.Bytes()) {
		t.Errorf("%v, %s", err, &j)
	}
}

// TestSuites: one for each file.
func TestSuites(t *testing.T) {
	r := Report{Results: []Result{{Test: config.Test{Name: "1", File: "/x/a_test.hcl"}}, {Test: config.Test{Name: "2", File: "/x/a_test.hcl"}}, {Test: config.Test{Name: "1", File: "/x/b_test.hcl"}}}}
	var b bytes.Buffer
	if err := r.JUnit(&b); err != nil {
		t.Fatal(err)
	}
	var suites junitSuites
	if err := xml.Unmarshal(b.Bytes(), &suites); err != nil || suites.Tests != 3 || len(suites.Suites) != 2 || suites.Suites[0].Tests != 2 || suites.Suites[1].Name != "b_test.hcl" {
		t.Errorf("%v, %s", err, &b)
	}
}

// TestBench: a line of go test's form for each test; one that fails is not measured.
func TestBench(t *testing.T) {
	rules, all := load(t, policies, tests)
	var b strings.Builder
	if err := Bench(t.Context(), &b, rules, all, Options{Run: regexp.MustCompile("^good$|two mails")}, time.Microsecond); err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(`^Benchmark/good\t +[0-9]+\t +[0-9]+ ns/op\t +2\.0 checks/op\t +[0-9]{5,} fuel/op\nBenchmark/two_mails_of_one_session\t.*\n$`)
	if !form.MatchString(b.String()) {
		t.Errorf("%q", b.String())
	}
	if err := Bench(t.Context(), &b, rules, all, Options{Run: regexp.MustCompile("^bad$")}, time.Microsecond); err == nil || !strings.Contains(err.Error(), "mend it before measuring it") {
		t.Errorf("%v", err)
	}
}
