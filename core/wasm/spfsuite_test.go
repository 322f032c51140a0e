package wasm

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/plugins/spf/suite"
)

// spfSuites is where SPF test suites of others are: see SOURCES.md there.
const spfSuites = "../../../shared/testdata/spf/"

var buildSPF = sync.OnceValues(func() ([]byte, error) {
	file := filepath.Join(built, "spf.wasm")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-buildmode=c-shared", "-o", file, "github.com/wafermail/wafer/plugins/spf")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build plugin spf: %w\n%s", err, out)
	}
	return os.ReadFile(file)
})

func loadSPF(t testing.TB, config map[string][]string) *Plugin {
	t.Helper()
	code, err := buildSPF()
	if err != nil {
		t.Fatal(err)
	}
	// The race detector and a busy machine make guests slow; fuel is the limit
	// that is the same everywhere.
	return load(t, shared(t), code, LoadOptions{Config: config, Grants: []string{"dns"}, Limits: Limits{CPU: 5 * time.Second}})
}

// TestSPFHostilePolicies gives the plugin what a hostile domain would publish:
// each ends in a result, with little of the fuel that one call has.
func TestSPFHostilePolicies(t *testing.T) {
	long := func(head, part string) string { return head + strings.Repeat(part, (8000-len(head))/len(part)) }
	rows := []struct {
		name, policy, other string
		want                string
	}{
		{"many terms", long("v=spf1", " ~a:%{d}"), "", "spf-permerror"},
		{"many short terms", long("v=spf1", " ?ip4:1.1.1.1"), "", "spf-neutral"},
		{"many modifiers", long("v=spf1", " x=%{s99r-+,/_=}"), "", "spf-neutral"},
		{"many macros", long("v=spf1 exists:", "%{s}") + " -all", "", "spf-permerror"},
		{"macros in many terms", "v=spf1" + strings.Repeat(" exists:"+strings.Repeat("%{s5r+-.}", 100), 8) + " -all", "", "spf-permerror"},
		{"the same in modifiers", "v=spf1" + strings.Repeat(" x="+strings.Repeat("%{s5r+-.}", 100), 8) + " -all", "", "spf-fail"},
		{"escaped macros", long("v=spf1 a:", "%{S9r.-+,/_=}") + " -all", "", "spf-permerror"},
		{"long explanation", "v=spf1 -all exp=other.example", strings.Repeat("%{S9r-+.}%{P}%%", 60), "spf-fail"},
		{"long includes", "v=spf1" + strings.Repeat(" include:other.example", 10) + " -all", long("v=spf1", " -ip6:::"), "spf-permerror"},
		{"many addresses", "v=spf1 a:d0.example a:d1.example a:d2.example a:d3.example a:d4.example a:d5.example a:d6.example a:d7.example a:d8.example -all", "", "spf-fail"},
		{"many addresses in networks", "v=spf1 a:d0.example/9 a:d1.example/9 a:d2.example/9 a:d3.example/9 a:d4.example/9 a:d5.example/9 a:d6.example/9 a:d7.example/9 mx:mx.example/9 -all", "", "spf-permerror"},
		{"include of itself", "v=spf1 include:evil.example -all", "", "spf-permerror"},
		{"redirect to itself", "v=spf1 redirect=evil.example", "", "spf-permerror"},
		{"too long a policy", "v=spf1 " + strings.Repeat("ip4:1.1.1.1 ", 5000), "", "spf-permerror"},
		{"one long term", "v=spf1 a:" + strings.Repeat("%%", 4000) + ".example -all", "", "spf-permerror"},
		{"unended macro", "v=spf1 a:" + strings.Repeat("%{", 4000), "", "spf-permerror"},
	}
	reject := loadSPF(t, map[string][]string{"reason": {"{explanation}"}})
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			w := newWorld()
			w.zone["TXT evil.example"] = policy.Answer{Records: []string{r.policy}}
			w.zone["TXT other.example"] = policy.Answer{Records: []string{r.other}}
			var mx, addresses policy.Answer
			for i := range 256 { // core/dns takes no more records of one answer
				addresses.Records = append(addresses.Records, "203.0.113.113")
				mx.Records = append(mx.Records, fmt.Sprintf("10 d%d.example", i%10))
			}
			w.zone["MX mx.example"] = mx
			for i := range 10 {
				w.zone[fmt.Sprintf("A d%d.example", i)] = addresses
			}
			w.zone["PTR 198.51.100.7"] = policy.Answer{Records: []string{"evil.example"}}
			ask := func(helo string) string {
				ev := event(t, policy.Mail, helo)
				ev.Sender = path(t, strings.Repeat("a.b-c+", 80)+"@evil.example")
				v, err := reject.Call(context.Background(), ev, w)
				if err != nil {
					t.Fatal(err)
				}
				in, err := reject.pool.take(context.Background(), time.Second)
				if err != nil {
					t.Fatal(err)
				}
				defer reject.pool.put(in)
				if in.spent > 500_000_000 {
					t.Errorf("HELO %.20s: %d units of fuel", helo, in.spent)
				}
				t.Logf("HELO %.20s: %d units of fuel", helo, in.spent)
				return v.Reason
			}
			if got := ask(strings.Repeat("h", 400) + "("); got != r.want {
				t.Errorf("got %s, want %s", got, r.want)
			}
			ask("evil.example")
		})
	}
}

// scenarioWorld is a world whose DNS is a scenario's zone.
func scenarioWorld(s *suite.Scenario) *world {
	w := newWorld()
	for _, name := range s.Names() {
		for _, kind := range []string{"A", "AAAA", "MX", "TXT", "PTR"} {
			a := s.Lookup(kind, name)
			answer := policy.Answer{Records: a.Records}
			switch {
			case a.Fails:
				answer.Status = policy.DNSTemp
			case !a.Exists:
				answer.Status = policy.DNSNotFound
			}
			w.zone[kind+" "+name] = answer
		}
	}
	return w
}

// TestSPFSuites runs the suites of others through the module in this host, with
// its budget of DNS questions.
func TestSPFSuites(t *testing.T) {
	rows := []struct {
		file    string
		count   int
		single  string            // the plugin's single_label
		differs map[string]string // test → the result that RFC 7208 asks for
	}{
		{"rfc7208-tests.yml", 203, "false", nil},
		{"rfc4408-tests.yml", 191, "false", nil},
		// An unknown modifier changes no result (RFC 7208 §6); "ambiguous" is none.
		{"pyspf-tests.yml", 16, "false", map[string]string{"default-modifier": "neutral", "default-modifier-harsh": "neutral"}},
		// Its senders and targets of one label have no policy in RFC 7208 §4.3 and §7.1.
		{"blitirispf-tests.yml", 21, "true", nil},
	}
	for _, r := range rows {
		t.Run(r.file, func(t *testing.T) {
			scenarios, err := suite.Read(spfSuites + r.file)
			if err != nil {
				t.Skip("no suite here: ", err)
			}
			config := func(fail string) map[string][]string {
				return map[string][]string{"identities": {"mail"}, "skip": {}, "fail": {fail}, "reason": {"{explanation}"}, "single_label": {r.single}}
			}
			tell, explain := loadSPF(t, config("next")), loadSPF(t, config("reject"))
			count := 0
			for _, s := range scenarios {
				for _, test := range s.Tests {
					count++
					if result, ok := r.differs[test.Name]; ok {
						test.Results = []string{result}
					}
					t.Run(s.Name+"/"+test.Name, func(t *testing.T) { checkSPF(t, tell, explain, &s, test) })
				}
			}
			if count != r.count {
				t.Errorf("%d tests, want %d", count, r.count)
			}
			t.Logf("%d tests, %+v", count, tell.Stats())
		})
	}
}

// checkSPF compares the header field that one check adds, and the text with
// which the other refuses, with what a test expects.
func checkSPF(t *testing.T, tell, explain *Plugin, s *suite.Scenario, test suite.Test) {
	ev := event(t, policy.Mail, test.Helo)
	ev.Client = netip.AddrPortFrom(netip.MustParseAddr(test.Host), 4711)
	ev.Hostname = "receiver.com"
	if test.Receiver != "" {
		ev.Hostname = test.Receiver
	}
	local, domain, _ := strings.Cut(test.MailFrom, "@")
	sender, err := mail.ParsePath(test.MailFrom, true)
	if err != nil && strings.Contains(local, " ") {
		sender, err = mail.ParsePath(`"`+local+`"@`+domain, true) // as a session has it
	}
	if err != nil {
		// No session lets such a sender through. The null sender asks the same of
		// the same domain: its local part is "postmaster", too (RFC 7208 §4.3).
		ev.Helo = domain
	}
	ev.Sender = sender
	v, err := tell.Call(context.Background(), ev, scenarioWorld(s))
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Effects.Prepend) != 1 || v.Effects.Prepend[0].Name != "Received-SPF" {
		t.Fatalf("got %+v, want Received-SPF", v)
	}
	header := v.Effects.Prepend[0].Value
	got, _, _ := strings.Cut(header, " ")
	if !slices.Contains(test.Results, strings.ToLower(got)) {
		t.Errorf("%s: HELO %s, MAIL FROM %q from %s: got %s, want %s", test.Spec, test.Helo, test.MailFrom, test.Host, header, test.Results)
	}
	if test.Header != "" && header != test.Header {
		t.Errorf("header\n got %s\nwant %s", header, test.Header)
	}
	if test.Explanation == "" {
		return
	}
	want := strings.Replace(test.Explanation, "DEFAULT", "", 1)
	if v, err := explain.Call(context.Background(), ev, scenarioWorld(s)); err != nil || v.Status.Text != want {
		t.Errorf("explanation: got %q, %v, want %q", v.Status.Text, err, want)
	}
}

// BenchmarkSPF evaluates a policy with an include, an mx and a, as many senders
// have: five lookups.
func BenchmarkSPF(b *testing.B) {
	p := loadSPF(b, nil)
	w := newWorld()
	for q, record := range map[string]string{
		"TXT mail.example.com": "v=spf1 a -all",
		"A mail.example.com":   "198.51.100.7",
		"TXT example.com":      "v=spf1 a mx include:spf.example.net ip4:203.0.113.0/24 -all",
		"A example.com":        "192.0.2.80",
		"MX example.com":       "10 mx.example.com",
		"A mx.example.com":     "192.0.2.25",
		"TXT spf.example.net":  "v=spf1 ip4:192.0.2.0/28 ip4:198.51.100.0/24 ip6:2001:db8::/32 ~all",
	} {
		w.zone[q] = policy.Answer{Records: []string{record}}
	}
	ev := event(b, policy.Mail, "mail.example.com")
	v, err := p.Call(context.Background(), ev, w)
	if err != nil || v.Reason != "spf-pass" {
		b.Fatal(v, err)
	}
	benchmark(b, p, ev)
	in, err := p.pool.take(context.Background(), time.Second)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(in.spent), "fuel/op")
	p.pool.put(in)
}
