package arc_test

import (
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/arc"
	"github.com/wafermail/wafer/core/authres"
)

// TestTrusted: who is listened to, and what must not be made out of honest chains.
func TestTrusted(t *testing.T) {
	only := func(domains ...string) func(string) bool {
		return func(domain string) bool {
			for _, d := range domains {
				if d == domain {
					return true
				}
			}
			return false
		}
	}
	changed := func(m string) string { return strings.Replace(m, "Subject: ", "Subject: [list] ", 1) }
	one := seal(t, plain, listDomain, "spf=pass dkim=pass dmarc=pass")
	kept := func(domain, results string) string {
		return sealAs(t, one, changed(one), sealer(t, domain), results)
	}
	// Somebody got an honest message with a chain, wrote another and put a set on top.
	rewritten := strings.Replace(one, "From: Alice <alice@example.com>", "From: The bank <bank@example.com>", 1)
	stolen := sealAs(t, one, rewritten, sealer(t, evilDomain), "dmarc=pass")
	thinly := newSealer(t, arc.SealOptions{Domain: listDomain, Selector: "ed", Key: testKey().ed, Headers: []string{"From"}, Oversign: []string{}})
	another := "From: eve@example.com\r\n" + sealAs(t, plain, plain, thinly, "dmarc=pass")
	for _, row := range []struct {
		name    string
		message string
		sealers func(string) bool
		want    string // domain
	}{
		{"no chain", plain, only(listDomain), ""},
		{"believed", one, only(listDomain), listDomain},
		{"nobody is believed", one, only(), ""},
		{"another is believed", one, only(schoolDomain), ""},
		{"dkim without dmarc", seal(t, plain, listDomain, "dkim=pass spf=fail"), only(listDomain), listDomain},
		{"spf without dmarc", seal(t, plain, listDomain, "spf=Pass"), only(listDomain), listDomain},
		{"spf where there is no policy", seal(t, plain, listDomain, "spf=pass dmarc=none"), only(listDomain), listDomain},
		{"spf and dkim, but dmarc failed", seal(t, plain, listDomain, "spf=pass dkim=pass dmarc=fail"), only(listDomain), ""},
		{"dmarc passed and failed", seal(t, plain, listDomain, "dmarc=pass dmarc=fail"), only(listDomain), ""},
		{"dmarc not known", seal(t, plain, listDomain, "spf=pass dmarc=temperror"), only(listDomain), ""},
		{"all failed", seal(t, plain, listDomain, "spf=fail dkim=fail"), only(listDomain), ""},
		{"nothing was found", seal(t, plain, listDomain, ""), only(listDomain), ""},
		{"another method passed", seal(t, plain, listDomain, "iprev=pass auth=pass"), only(listDomain), ""},
		{"chain broken", changed(one), only(listDomain), ""},
		{"both believed, the first knows", kept(schoolDomain, "arc=pass dmarc=fail"), only(listDomain, schoolDomain), listDomain},
		{"both believed, both know", kept(schoolDomain, "arc=pass dmarc=pass"), only(listDomain, schoolDomain), schoolDomain},
		{"the second believed, but knows nothing", kept(schoolDomain, "arc=pass dmarc=fail"), only(schoolDomain), ""},
		{"the first believed, the second changed it", kept(evilDomain, "dmarc=pass"), only(listDomain), ""},
		{"the first believed, the second changed nothing", seal(t, one, evilDomain, "arc=pass"), only(listDomain), listDomain},
		{"stolen chain", stolen, only(listDomain), ""},
		{"stolen chain through a believed sealer", seal(t, stolen, schoolDomain, "arc=pass dmarc=fail"), only(listDomain, schoolDomain), ""},
		{"another From on top", another, only(listDomain), ""},
		{"another From on top, sealed once more", seal(t, another, evilDomain, "arc=pass"), only(listDomain), ""},
		{"results that cannot be read", forgeResults(t, "((("), only(listDomain), ""},
	} {
		result := verify(row.message, zone(records(t)))
		domain, results, ok := arc.Trusted(result, row.sealers)
		if domain != row.want || ok != (row.want != "") || ok != (results.ServID == row.want && row.want != "") {
			t.Errorf("%s: got %q, %+v, %v, want %q from %+v", row.name, domain, results, ok, row.want, result)
		}
	}
	// The honest parts of these rows are what they are said to be.
	for name, message := range map[string]string{"stolen": stolen, "another": another, "kept": kept(evilDomain, "")} {
		if got := verify(message, zone(records(t))); got.CV != arc.Pass {
			t.Errorf("%s: the chain says %+v", name, got)
		}
	}
	if _, _, ok := arc.Trusted(arc.Result{CV: arc.Pass}, only(listDomain)); ok {
		t.Error("a result without sets is trusted")
	}
}

func TestAuthResult(t *testing.T) {
	one := seal(t, plain, listDomain, "dmarc=pass")
	for _, row := range []struct{ name, message, want string }{
		{"none", plain, "arc=none"},
		{"pass", one, "arc=pass header.oldest-pass=0"},
		{"fail", one + "x", `arc=fail reason="ARC-Message-Signature of set 1 by \"lists.example.org\": the body is not what was signed"`},
	} {
		f := authres.Field{ServID: "mx", Results: []authres.Result{verify(row.message, zone(records(t))).AuthResult()}}
		got := strings.Join(strings.Fields(strings.TrimPrefix(f.Format(), "Authentication-Results: mx;")), " ")
		if got != row.want {
			t.Errorf("%s: got %s, want %s", row.name, got, row.want)
		}
	}
}
