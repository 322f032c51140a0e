package dmarc

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/dns"
)

// spf and dkim make results from "domain=result" words; "helo:" in front names that
// identity.
func spf(words string) (list []SPF) {
	for w := range strings.FieldsSeq(words) {
		d, r, _ := strings.Cut(w, "=")
		s := SPF{Identity: "mfrom", Domain: d, Result: r}
		if rest, ok := strings.CutPrefix(d, "helo:"); ok {
			s.Identity, s.Domain = "helo", rest
		}
		list = append(list, s)
	}
	return list
}

func dkim(words string) (list []DKIM) {
	for w := range strings.FieldsSeq(words) {
		d, r, _ := strings.Cut(w, "=")
		list = append(list, DKIM{Domain: d, Result: r})
	}
	return list
}

type evaluateRow struct {
	name      string
	zone      map[string]string
	from      string // fields are divided by "|"
	spf, dkim string
	o         Options
	want      string // verdict, requested policy, disposition, author, policy domain, organization, aligned by
	most      int    // questions
}

func rfcBank() map[string]string {
	return map[string]string{ // RFC 9989 Appendix B.4.3
		"_dmarc.bank.example":       "v=DMARC1; p=reject; psd=y",
		"_dmarc.giant.bank.example": "v=DMARC1; p=quarantine",
	}
}

func evaluateRows() []evaluateRow {
	plain := map[string]string{"_dmarc.example.com": "v=DMARC1; p=reject; sp=quarantine"}
	np := map[string]string{"_dmarc.example.com": "v=DMARC1; p=reject; sp=none; np=quarantine", "a.example.com": "A", "x.ent.example.com": "A", "down.example.com": "!"}
	two := map[string]string{
		"_dmarc.q.example": "v=DMARC1; p=quarantine", "_dmarc.r.example": "v=DMARC1; p=reject", "_dmarc.n.example": "v=DMARC1; p=none", "_dmarc.t.example": "!",
	}
	long := strings.Repeat("x.", 60)
	var attack strings.Builder
	for i := range 300 {
		fmt.Fprintf(&attack, "%ss%d.example.com=pass ", long, i)
	}
	always, never := func(int) int { return 0 }, func(int) int { return 99 }
	return []evaluateRow{
		{"same domain", plain, "a@example.com", "example.com=pass", "", Options{}, "pass reject none example.com example.com example.com example.com/", 1},
		{"case, dot and U-label", map[string]string{"_dmarc.xn--bcher-kva.example": "v=DMARC1; p=reject; aspf=s"}, "a@Bücher.Example.", "XN--BCHER-KVA.example.=PASS", "", Options{},
			"pass reject none xn--bcher-kva.example xn--bcher-kva.example xn--bcher-kva.example xn--bcher-kva.example/", 1},
		{"subdomain", plain, "a@example.com", "bounce.example.com=pass", "", Options{}, "pass reject none example.com example.com example.com bounce.example.com/", 3},
		{"both", plain, "a@example.com", "bounce.example.com=pass", "evil.example=pass example.com=pass", Options{},
			"pass reject none example.com example.com example.com bounce.example.com/example.com", 3},
		{"strict SPF, relaxed DKIM", map[string]string{"_dmarc.example.com": "v=DMARC1; p=reject; aspf=s"}, "a@example.com", "b.example.com=pass", "b.example.com=pass", Options{},
			"pass reject none example.com example.com example.com /b.example.com", 3},
		{"nothing", plain, "a@example.com", "", "", Options{}, "fail reject reject example.com example.com example.com /", 1},
		{"of others only", plain, "a@example.com", "evil.example=pass", "evil.example=pass notexample.com=pass", Options{}, "fail reject reject example.com example.com example.com /", 2},
		{"subdomain policy", plain, "a@sub.example.com", "", "", Options{}, "fail quarantine quarantine sub.example.com example.com example.com /", 3},
		{"no record", nil, "a@example.com", "example.com=pass", "", Options{}, "none  none example.com  example.com /", 2},
		{"record without sense", map[string]string{"_dmarc.example.com": "v=DMARC1; p=x"}, "a@example.com", "example.com=pass", "", Options{}, "none  none example.com  example.com /", 1},
		{"organization by a record of its own", map[string]string{"_dmarc.example.com": "v=DMARC1; p=reject", "_dmarc.b.example.com": "v=DMARC1; p=none; psd=n"},
			"a@example.com", "x.b.example.com=pass", "", Options{}, "fail reject reject example.com example.com example.com /", 5},

		{"bank: aligned", rfcBank(), "a@giant.bank.example", "mail.giant.bank.example=pass", "mail.mega.bank.example=pass", Options{},
			"pass quarantine none giant.bank.example giant.bank.example giant.bank.example mail.giant.bank.example/", 4},
		{"bank: not aligned", rfcBank(), "a@giant.bank.example", "", "mail.mega.bank.example=pass", Options{},
			"fail quarantine quarantine giant.bank.example giant.bank.example giant.bank.example /", 3},
		{"bank: policy of the suffix", rfcBank(), "a@x.mega.bank.example", "", "giant.bank.example=pass", Options{},
			"fail reject reject x.mega.bank.example bank.example mega.bank.example /", 4},

		{"null reverse-path", plain, "a@example.com", "helo:mx.example.com=pass", "", Options{}, "pass reject none example.com example.com example.com mx.example.com/", 3},
		{"HELO does not count beside MAIL FROM", plain, "a@example.com", "helo:example.com=pass example.org=none", "", Options{}, "fail reject reject example.com example.com example.com /", 1},

		{"exists", np, "x@a.example.com", "", "", Options{}, "fail none none a.example.com example.com example.com /", 4},
		{"does not exist", np, "x@nx.example.com", "", "", Options{}, "fail quarantine quarantine nx.example.com example.com example.com /", 4},
		{"exists for what is below it", np, "x@ent.example.com", "", "", Options{}, "fail none none ent.example.com example.com example.com /", 5},
		{"existence is not to be known", np, "x@down.example.com", "", "", Options{}, "temperror none none down.example.com example.com example.com /", 4},
		{"passes though it does not exist", np, "x@nx.example.com", "", "example.com=pass", Options{}, "pass none none nx.example.com example.com example.com /example.com", 3},

		{"test mode: reject", map[string]string{"_dmarc.example.com": "v=DMARC1; p=reject; t=y"}, "a@example.com", "", "", Options{}, "fail reject quarantine example.com example.com example.com / policy_test_mode", 1},
		{"test mode: quarantine", map[string]string{"_dmarc.example.com": "v=DMARC1; p=quarantine; t=y"}, "a@example.com", "", "", Options{}, "fail quarantine none example.com example.com example.com / policy_test_mode", 1},
		{"test mode: none", map[string]string{"_dmarc.example.com": "v=DMARC1; p=none; t=y"}, "a@example.com", "", "", Options{}, "fail none none example.com example.com example.com /", 1},
		{"test mode and sampling", map[string]string{"_dmarc.example.com": "v=DMARC1; p=reject; t=y; pct=0"}, "a@example.com", "", "", Options{Sampling: true, Random: never}, "fail reject quarantine example.com example.com example.com / policy_test_mode", 1},
		{"pct is ignored (RFC 9989)", map[string]string{"_dmarc.example.com": "v=DMARC1; p=reject; pct=0"}, "a@example.com", "", "", Options{Random: never}, "fail reject reject example.com example.com example.com /", 1},
		{"pct, out", map[string]string{"_dmarc.example.com": "v=DMARC1; p=reject; pct=50"}, "a@example.com", "", "", Options{Sampling: true, Random: func(int) int { return 50 }}, "fail reject quarantine example.com example.com example.com / sampled_out", 1},
		{"pct, in", map[string]string{"_dmarc.example.com": "v=DMARC1; p=reject; pct=50"}, "a@example.com", "", "", Options{Mode: PSL, Random: func(int) int { return 49 }}, "fail reject reject example.com example.com example.com /", 1},
		{"pct=0", map[string]string{"_dmarc.example.com": "v=DMARC1; p=quarantine; pct=0"}, "a@example.com", "", "", Options{Mode: PSL, Random: always}, "fail quarantine none example.com example.com example.com / sampled_out", 1},

		{"no answer for the record", map[string]string{"_dmarc.example.com": "!"}, "a@example.com", "example.com=pass", "", Options{}, "temperror  none example.com  example.com /", 1},
		{"no answer above, not needed", map[string]string{"_dmarc.example.com": "v=DMARC1; p=reject", "_dmarc.com": "!"}, "a@example.com", "example.com=pass", "", Options{}, "pass reject none example.com example.com example.com example.com/", 1},
		{"no answer above, needed", map[string]string{"_dmarc.example.com": "v=DMARC1; p=reject", "_dmarc.com": "!"}, "a@example.com", "", "b.example.com=pass", Options{}, "temperror reject none example.com example.com example.com /", 2},
		{"no answer for an identifier", map[string]string{"_dmarc.example.com": "v=DMARC1; p=reject", "_dmarc.b.example.com": "!"}, "a@example.com", "", "b.example.com=pass", Options{}, "temperror reject none example.com example.com example.com /", 3},
		{"SPF not known, would align", plain, "a@example.com", "b.example.com=temperror", "", Options{}, "temperror reject none example.com example.com example.com /", 3},
		{"SPF not known, would not align", plain, "a@example.com", "b.example.net=temperror", "", Options{}, "fail reject reject example.com example.com example.com /", 2},
		{"SPF not known, DKIM passes", plain, "a@example.com", "example.com=temperror", "example.com=pass", Options{}, "pass reject none example.com example.com example.com /example.com", 1},

		{"two authors, both pass", two, "a@q.example, b@r.example", "q.example=pass", "r.example=pass", Options{}, "pass quarantine none q.example q.example q.example q.example/", 3},
		{"two authors, the strictest that fails", two, "a@n.example, b@q.example, c@r.example", "", "q.example=pass", Options{}, "fail reject reject r.example r.example r.example /", 4},
		{"two authors, the strict one passes", two, "a@q.example, b@r.example", "r.example=pass", "", Options{}, "fail quarantine quarantine q.example q.example q.example /", 3},
		{"two authors, one without a record", two, "a@r.example, b@none.example", "r.example=pass", "", Options{}, "none  none none.example  none.example /", 4},
		{"two authors, one not to be known", two, "a@r.example, b@t.example", "r.example=pass", "", Options{}, "temperror  none t.example  t.example /", 2},
		{"two authors are refused", two, "a@q.example, b@r.example", "q.example=pass r.example=pass", "", Options{OneAuthor: true}, "permerror  none q.example   /", 0},
		{"one author twice is one", two, "a@q.example, b@Q.example", "q.example=pass", "", Options{OneAuthor: true}, "pass quarantine none q.example q.example q.example q.example/", 1},
		{"too many authors", two, "a@q.example, b@r.example", "q.example=pass r.example=pass", "", Options{MaxAuthors: 1}, "permerror quarantine none q.example q.example q.example q.example/", 1},
		{"too many authors, one fails", two, "a@q.example, b@r.example", "", "", Options{MaxAuthors: 1}, "fail quarantine quarantine q.example q.example q.example /", 1},
		{"two fields", two, "a@q.example|b@q.example", "q.example=pass", "", Options{}, "permerror quarantine none q.example q.example q.example q.example/", 1},
		{"two fields, fail", two, "a@q.example|b@r.example", "q.example=pass", "", Options{}, "fail reject reject r.example r.example r.example /", 3},
		{"no author", two, "", "q.example=pass", "", Options{}, "permerror  none    /", 0},
		{"encoded word for a local part", two, "=?utf-8?q?ceo=40bank.example?=@q.example", "q.example=pass", "", Options{}, "permerror quarantine none q.example q.example q.example q.example/", 1},

		{"list: aligned", map[string]string{"_dmarc.example.co.uk": "v=DMARC1; p=reject"}, "a@b.example.co.uk", "c.example.co.uk=pass", "", Options{Mode: PSL}, "pass reject none b.example.co.uk example.co.uk example.co.uk c.example.co.uk/", 2},
		{"list: only the suffix in common", map[string]string{"_dmarc.example.co.uk": "v=DMARC1; p=reject"}, "a@example.co.uk", "other.co.uk=pass", "", Options{Mode: PSL}, "fail reject reject example.co.uk example.co.uk example.co.uk /", 1},

		{"very many signatures with long names", plain, "a@example.com", "", attack.String(), Options{}, "pass reject none example.com example.com example.com /" + long + "s0.example.com", 8},
		{"the same of others", plain, "a@x.example.org", "", attack.String(), Options{}, "none  none x.example.org  x.example.org /", 3},
		{"the same with another organization", map[string]string{"_dmarc.example.com": "v=DMARC1; p=reject", "_dmarc.x.x.x.x.s1.example.com": "v=DMARC1; p=none; psd=n"},
			"a@example.com", "", strings.ReplaceAll(attack.String(), "s0.", "s1."), Options{}, "pass reject none example.com example.com example.com /" + long + "s2.example.com", 30},
	}
}

func TestEvaluate(t *testing.T) {
	for _, row := range evaluateRows() {
		z := zone(row.zone)
		in := Input{SPF: spf(row.spf), DKIM: dkim(row.dkim)}
		if row.from != "" {
			in.From = strings.Split(row.from, "|")
		}
		r := Evaluate(context.Background(), z, in, row.o)
		got := strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s %s %s/%s %s", r.Verdict, r.Policy, r.Disposition, r.Author, r.PolicyDomain, r.OrgDomain, r.AlignedSPF, r.AlignedDKIM, r.Exempt))
		if got != row.want {
			t.Errorf("%s\n got %s %q\nwant %s", row.name, got, r.Reasons, row.want)
		}
		if len(z.asked) > row.most {
			t.Errorf("%s: %d questions, want %d at most: %.1000q", row.name, len(z.asked), row.most, z.asked)
		}
		if len(r.Reasons) == 0 {
			t.Errorf("%s: no reason", row.name)
		}
	}
}

func TestEvaluateEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r := Evaluate(ctx, ended{}, Input{Authors: []string{"example.com"}}, Options{})
	if r.Verdict != TempError || r.Disposition != None {
		t.Errorf("%+v", r)
	}
}

// ended is a resolver whose caller has left.
type ended struct{}

func (ended) Lookup(ctx context.Context, _ dns.Question) dns.Answer {
	<-ctx.Done()
	return dns.Answer{Err: ctx.Err()}
}

func BenchmarkEvaluate(b *testing.B) {
	z := zone(map[string]string{"_dmarc.example.com": "v=DMARC1; p=reject; rua=mailto:d@example.com"}).Resolver
	for name, in := range map[string]Input{
		"same domain": {From: []string{"A <a@example.com>"}, SPF: spf("example.com=pass"), DKIM: dkim("example.com=pass")},
		"tree walk":   {From: []string{"A <a@news.example.com>"}, SPF: spf("bounce.example.com=pass"), DKIM: dkim("mailer.example=pass example.com=pass")},
		"fail":        {From: []string{"A <a@example.com>"}, SPF: spf("evil.example=pass"), DKIM: dkim("example.com=fail")},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if r := Evaluate(b.Context(), z, in, Options{}); r.Verdict == TempError {
					b.Fatal(r)
				}
			}
		})
	}
}

// TestQuestionsAreBounded sends as many signatures as a message can have, none of which
// aligns before its tree walk is done.
func TestQuestionsAreBounded(t *testing.T) {
	records := map[string]string{"_dmarc.example.com": "v=DMARC1; p=reject"}
	var in Input
	for i := range 10000 {
		name := fmt.Sprintf("x%d.example.com", i)
		records["_dmarc."+name] = "v=DMARC1; p=none; psd=n"
		in.DKIM = append(in.DKIM, DKIM{Domain: strings.Repeat("a.", 50) + name, Result: "pass"})
		in.SPF = append(in.SPF, SPF{Identity: "mfrom", Domain: strings.Repeat("b.", 50) + name, Result: "pass"})
	}
	in.From = []string{strings.Repeat("c.", 20) + "a@" + strings.Repeat("d.", 50) + "example.com"}
	z := zone(records)
	r := Evaluate(context.Background(), z, in, Options{})
	if r.Verdict != Fail || len(z.asked) > 8+2*16*8 {
		t.Errorf("%s %q, %d questions", r.Verdict, r.Reasons, len(z.asked))
	}
	seen := map[string]bool{}
	for _, q := range z.asked {
		if seen[q] {
			t.Errorf("%.80s was asked twice", q)
		}
		seen[q] = true
	}
}
