package policytest

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core"
	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/rehearse"
)

func path(t testing.TB, s string) mail.Path {
	t.Helper()
	p, err := mail.ParsePath(s, true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// expect reads the inside of an expect block.
func expect(t testing.TB, text string) config.Expect {
	t.Helper()
	name := filepath.Join(t.TempDir(), "x_test.hcl")
	if err := os.WriteFile(name, []byte("test \"t\" {\n expect {\n"+text+"\n}\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests, err := config.LoadTests([]string{name})
	if err != nil {
		t.Fatal(err)
	}
	return tests[0].Steps[0].Expect
}

// worldOf is a world with two policies, of which both have a check "rate".
func worldOf(t testing.TB) *world {
	t.Helper()
	w := newWorld(&core.Rules{})
	w.clock = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	w.labels = map[string][]string{
		"in/spf": {"in/spf"}, "spf": {"in/spf"}, "in/grey": {"in/grey"}, "grey": {"in/grey"},
		"in/rate": {"in/rate"}, "out/rate": {"out/rate"}, "rate": {"in/rate", "out/rate"},
	}
	if err := w.state.Put(context.Background(), "in/grey\x00k", []byte("value"), time.Hour, w.clock); err != nil {
		t.Fatal(err)
	}
	if _, err := w.counters.Add("in/rate\x00192.0.2.1", 3, time.Hour, w.clock); err != nil {
		t.Fatal(err)
	}
	return w
}

// ended is how a step ended: refused for one of two recipients' sake.
func ended(t testing.TB) *StepResult {
	bob, carl := path(t, "bob@example.test"), path(t, `"c d"@example.test`)
	refused := rehearse.Reply{
		Stage: policy.Rcpt, Rcpt: carl, By: "in/spf", Action: policy.Reject, Reason: "spf-fail", ID: "ID1",
		Status: mail.Status{Code: 550, Enhanced: "5.7.23", Text: "Not yours (ID1)"},
	}
	return &StepResult{
		Outcome: rehearse.Outcome{
			Verdict: "reject", Decisive: refused, Replies: []rehearse.Reply{{Stage: policy.Rcpt, Rcpt: bob}, refused},
			Effects: policy.Effects{
				Prepend: []policy.Field{{Name: "Received-SPF", Value: "Fail"}, {Name: "received-spf", Value: "None"}, {Name: "X-Once", Value: "1"}},
				Tags:    []string{"bulk", "odd"}, Score: 0.3, Redirect: []mail.Path{bob}, BCC: []mail.Path{carl},
			},
		},
		Records: []policy.Record{
			{Check: "in/rate", Action: "next"},
			{Check: "in/grey", Action: "defer", Error: "trap"},
			{Check: "in/spf", Action: "reject", Calls: []policy.HostCall{{Call: "dns", Ask: "TXT example.net"}, {Call: "get", Ask: "tags"}, {Call: "dns", Ask: "MX example.net"}}},
			{Check: "out/rate", Action: "next", Skipped: "refused"},
		},
	}
}

// TestCompare: each field of an expectation can hold, and can fail.
func TestCompare(t *testing.T) {
	rows := []struct{ field, good, bad, says string }{
		{"Verdict", `verdict = "reject"`, `verdict = "accept"`, "verdict: got reject, want accept"},
		{"Code", `code = 550`, `code = 250`, "code: got 550, want 250"},
		{"Enhanced", `enhanced = "5.7.23"`, `enhanced = "5.7.1"`, `enhanced: got "5.7.23", want "5.7.1"`},
		{"Text", `text = "Not yours"`, `text = "Not yours (ID1)"`, `text: got "Not yours", want "Not yours (ID1)"`},
		{"Text", `text = "~ ^Not"`, `text = "~ ^not"`, `text: got "Not yours", want "~ ^not"`},
		{"Reason", `reason = "spf-fail"`, `reason = "fail"`, `reason: got "spf-fail", want "fail"`},
		{"By", `by = "spf"`, `by = "grey"`, `by: got "in/spf", want "grey"`},
		{"By", `by = "in/spf"`, `by = "core"`, `by: got "in/spf", want "core"`},
		{"At", `at = "rcpt"`, `at = "data"`, "at: got rcpt, want data"},
		{"Header", `header = { "Received-SPF" = "None" }`, `header = { "Received-SPF" = "Pass" }`, `header Received-SPF: got "Fail", "None", want "Pass"`},
		{"Header", `header = { "RECEIVED-SPF" = "~ ^Fa" }`, `header = { "X-A" = "~ ." }`, `header X-A: got none, want "~ ."`},
		{"NoHeader", `no_header = ["X-A"]`, `no_header = ["X-A", "X-once"]`, `header X-once: got "1", want none`},
		{"Tags", `tags = ["odd"]`, `tags = ["odd", "even"]`, `tag "even": got bulk, odd, want it among them`},
		{"Score", `score = 0.1 + 0.2`, `score = 0.31`, "score: got 0.3, want 0.31"},
		{"Redirect", `redirect = ["BOB@example.test"]`, `redirect = ["ann@example.test"]`, "redirect: got bob@example.test, want ann@example.test"},
		{"BCC", `bcc = ["\"c d\"@example.test"]`, `bcc = ["bob@example.test"]`, `bcc: got "c d"@example.test, want bob@example.test`},
		{"Rcpt", `rcpt = { "bob@example.test" = 250, "\"C d\"@example.test" = 550 }`, `rcpt = { "bob@example.test" = 550 }`, "rcpt bob@example.test: got 250, want 550"},
		{"Rcpt", `rcpt = {}`, `rcpt = { "ann@example.test" = 250 }`, "rcpt ann@example.test: got no reply, want 250"},
		{"Checks", `checks = { spf = "reject", grey = "error", "out/rate" = "skipped", "in/rate" = "next" }`, `checks = { spf = "next" }`, "check spf: got reject, want next"},
		{"Checks", `checks = { grey = "error" }`, `checks = { grey = "not asked" }`, "check grey: got error, want not asked"},
		{"State", `state = { grey = { "k" = "~ ^val", "other" = "" } }`, `state = { grey = { "k" = "" } }`, `state of grey, key "k": got "value", want ""`},
		{"State", `state = { "in/rate" = {} }`, `state = { grey = { "j" = "x" } }`, `state of grey: got no key "j" among ["k"], want "x"`},
		{"Counts", `counts = { "in/rate" = { "192.0.2.1" = 3, "192.0.2.2" = 0 } }`, `counts = { "in/rate" = { "192.0.2.1" = 4 } }`, `count of in/rate, key "192.0.2.1": got 3 (the keys are ["192.0.2.1"]), want 4`},
		{"Counts", `counts = {}`, `counts = { grey = { "x" = 1 } }`, `count of grey, key "x": got 0 (the keys are []), want 1`},
		{"Asked", `asked = ["mx EXAMPLE.net", "TXT example.net"]`, `asked = ["A example.net"]`, "asked: got [TXT example.net, MX example.net], want A example.net"},
	}
	tried := map[string]bool{}
	for _, row := range rows {
		tried[row.field] = true
		good, bad := expect(t, row.good), expect(t, row.bad)
		if f, err := worldOf(t).compare(&good, ended(t)); err != nil || len(f) > 0 {
			t.Errorf("%s: %q, %v; want it to hold", row.good, f, err)
		}
		if f, err := worldOf(t).compare(&bad, ended(t)); err != nil || len(f) != 1 || f[0] != row.says {
			t.Errorf("%s: %q, %v; want %q", row.bad, f, err, row.says)
		}
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[config.Expect]()) {
		if !tried[f.Name] {
			t.Errorf("nothing tries field %s", f.Name)
		}
	}
	// All that is wrong is told, not the first.
	all := expect(t, "verdict = \"accept\"\ncode = 250\nat = \"data\"")
	if f, err := worldOf(t).compare(&all, ended(t)); err != nil || len(f) != 3 {
		t.Errorf("%q, %v; want three findings", f, err)
	}
}

// TestCompareOfNothingRefused: 250, and the server's own name.
func TestCompareOfNothingRefused(t *testing.T) {
	x := expect(t, "verdict = \"accept\"\ncode = 250\ntext = \"\"\nenhanced = \"\"\nchecks = { spf = \"not asked\" }")
	if f, err := worldOf(t).compare(&x, &StepResult{Outcome: rehearse.Outcome{Verdict: "accept"}}); err != nil || len(f) > 0 {
		t.Errorf("%q, %v", f, err)
	}
	x = expect(t, `by = "core"`)
	own := &StepResult{Outcome: rehearse.Outcome{Verdict: "reject", Decisive: rehearse.Reply{By: rehearse.Core}}}
	if f, err := worldOf(t).compare(&x, own); err != nil || len(f) > 0 {
		t.Errorf("%q, %v", f, err)
	}
}

// TestSenselessExpectations: a name that is nobody's is no finding but a fault of
// the test.
func TestSenselessExpectations(t *testing.T) {
	rows := map[string]string{
		`by = "nobody"`:                          `expect by: no check "nobody"`,
		`by = "rate"`:                            "expect by: check \"rate\" is one of in/rate, out/rate: write the policy's name too",
		`checks = { nobody = "next" }`:           `expect checks: no check "nobody"`,
		`checks = { rate = "next" }`:             "write the policy's name too",
		`state = { nobody = { "k" = "v" } }`:     `expect state: no check "nobody"`,
		`counts = { "x/spf" = { "k" = 1 } }`:     `expect counts: no check "x/spf"`,
		`counts = { rate = { "192.0.2.1" = 3 }}`: "expect counts: check \"rate\" is one of",
	}
	for text, want := range rows {
		x := expect(t, text)
		if f, err := worldOf(t).compare(&x, ended(t)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v; want %q", text, f, err, want)
		}
	}
}

// TestDirectory: who is local follows from what a step gives.
func TestDirectory(t *testing.T) {
	rows := []struct {
		name               string
		domains, mailboxes []string
		want               string // classes of bob@here, nobody@here, x@there
	}{
		{"nothing said", nil, nil, "local local local"},
		{"domains", []string{"HERE.example"}, nil, "local local relay"},
		{"mailboxes", nil, []string{"bob@here.example"}, "local unknown relay"},
		{"both", []string{"here.example", "there.example"}, []string{"Bob@Here.example"}, "local unknown unknown"},
	}
	for _, row := range rows {
		d := directory{&config.Given{Domains: row.domains, Mailboxes: row.mailboxes, Owners: map[string][]string{"x@there.example": {"ann"}}}}
		got := d.Class(path(t, "bob@here.example")) + " " + d.Class(path(t, "nobody@here.example")) + " " + d.Class(path(t, "x@there.example"))
		if got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
		if d.Class(path(t, "postmaster")) != policy.ClassLocal || d.Class(mail.Path{}) != "" {
			t.Errorf("%s: postmaster is %q, the null path %q", row.name, d.Class(path(t, "postmaster")), d.Class(mail.Path{}))
		}
		if o := d.Owners(path(t, "X@there.example")); len(o) != 1 || o[0] != "ann" {
			t.Errorf("%s: owners %q", row.name, o)
		}
		if o := d.Owners(path(t, "bob@here.example")); len(o) != 1 || o[0] != "bob@here.example" {
			t.Errorf("%s: owners %q", row.name, o)
		}
	}
}
