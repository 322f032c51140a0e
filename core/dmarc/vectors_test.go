package dmarc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/dns"
	"github.com/wafermail/wafer/core/mail"
)

const vectors = "../../../shared/testdata/"

// outside reads a file of test data from outside the project.
func outside(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(vectors + name)
	if err != nil {
		t.Skipf("no outside test data: %v", err)
	}
	return b
}

type vector struct {
	ID         string              `json:"id"`
	HeaderFrom string              `json:"header_from"`
	TXT        map[string][]string `json:"txt"`
	SPF        []struct {
		D, R, Scope string
	} `json:"spf"`
	DKIM []struct {
		D, R string
	} `json:"dkim"`
	Expected *struct {
		Result, Disposition string
	} `json:"expected"`
}

// exceptions are rows whose expectation the RFCs contradict: what comes out instead,
// and why. The rows were made by running one program.
var exceptions = map[string]struct {
	verdict     Verdict
	disposition Policy
	only        string // the mode; "" for both
	why         string
}{
	"result/spf-temperror": {TempError, None, "",
		"RFC 7489 §6.6.2 and RFC 9989 §5.3.6: where nothing passes and a mechanism had a temporary error, neither fail nor the policy may be concluded"},
	"syntax/bad-p-rua": {Fail, None, "",
		"RFC 7489 §6.6.3 step 6 and RFC 9989 §4.10.1: a record with a bad p and a URI in rua counts as p=none; the same rule makes syntax/bad-sp-rua what it is"},
	"policy/psl-record-none": {Fail, None, "treewalk",
		"RFC 9989 §4.10.2: a record at co.uk without psd=y makes co.uk the organizational domain of example.co.uk"},
}

func TestVectors(t *testing.T) {
	for _, mode := range []Mode{PSL, TreeWalk} {
		t.Run(mode.String(), func(t *testing.T) { testVectors(t, mode) })
	}
}

func testVectors(t *testing.T, mode Mode) {
	rows, settled, excepted := 0, 0, 0
	lines := bufio.NewScanner(bytes.NewReader(outside(t, "dmarc/dmarc.jsonl")))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var v vector
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		rows++
		// Sampling is on, because the rows with pct are from before RFC 9989.
		got := v.run(Options{Mode: mode, Sampling: true, Random: func(int) int { return 50 }})
		if v.Expected == nil {
			continue
		}
		settled++
		verdict, disposition := Verdict(v.Expected.Result), Policy(v.Expected.Disposition)
		if disposition == "" {
			disposition = None
		}
		if x, ok := exceptions[v.ID]; ok && (x.only == "" || x.only == mode.String()) {
			verdict, disposition = x.verdict, x.disposition
			excepted++
		}
		if got.Verdict != verdict || got.Disposition != disposition {
			t.Errorf("%s: %s %s, want %s %s\n%s\n%q", v.ID, got.Verdict, got.Disposition, verdict, disposition, lines.Bytes(), got.Reasons)
		}
	}
	t.Logf("%s: %d rows, %d settled, of which %d are exceptions", mode, rows, settled, excepted)
}

func (v vector) run(o Options) Result {
	names := map[string]map[string][]string{}
	for name, txt := range v.TXT {
		names[name] = map[string][]string{"TXT": txt}
	}
	in := Input{Authors: []string{v.HeaderFrom}}
	for _, s := range v.SPF {
		in.SPF = append(in.SPF, SPF{Identity: s.Scope, Domain: s.D, Result: s.R})
	}
	for _, d := range v.DKIM {
		in.DKIM = append(in.DKIM, DKIM{Domain: d.D, Result: d.R})
	}
	return Evaluate(context.Background(), dns.NewZone(names), in, o)
}

// TestPublicSuffixVectors runs the public suffix list's own tests.
func TestPublicSuffixVectors(t *testing.T) {
	rows := 0
	check := func(domain, want string) {
		rows++
		if want == "null" {
			want = ""
		}
		if got := RegisteredDomain(domain); got != mail.DomainKey(want) {
			t.Errorf("RegisteredDomain(%q) = %q, want %q", domain, got, want)
		}
	}
	for line := range strings.Lines(string(outside(t, "psl/tests.txt"))) {
		f := strings.Fields(line)
		if len(f) == 2 && !strings.HasPrefix(f[0], "//") {
			check(f[0], f[1])
		}
	}
	for line := range strings.Lines(string(outside(t, "psl/test_psl.txt"))) {
		args, ok := strings.CutPrefix(strings.TrimSpace(line), "checkPublicSuffix(")
		if !ok {
			continue
		}
		a, b, _ := strings.Cut(strings.TrimSuffix(args, ");"), ", ")
		a, b = strings.Trim(a, "'"), strings.Trim(b, "'")
		if a == "null" {
			a = ""
		}
		check(a, b)
	}
	t.Logf("%d rows", rows)
}
