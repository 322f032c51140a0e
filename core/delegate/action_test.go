package delegate

import (
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/policy"
)

func TestParseAction(t *testing.T) {
	about := subject{"a@b.example", "Sender address"}
	const said = "<a@b.example>: Sender address rejected: "
	for _, row := range []struct {
		name, action     string
		want             policy.Action
		code             int
		enhanced, text   string
		prepend, to, log string
		fails            string
	}{
		{name: "ok", action: "OK", want: policy.Accept},
		{name: "ok with words", action: "ok  whatever", want: policy.Accept},
		{name: "permit", action: "permit", want: policy.Accept},
		{name: "a number is ok", action: "1234567890", want: policy.Accept},
		{name: "a small number", action: "200", want: policy.Accept},
		{name: "dunno", action: "DUNNO", want: policy.Next},
		{name: "dunno with words", action: "dunno mock header field that should be ignored", want: policy.Next},
		{name: "reject", action: "REJECT", want: policy.Reject, code: 554, enhanced: "5.7.1", text: said + "Access denied"},
		{name: "reject text", action: "Reject\tNo  thanks ", want: policy.Reject, code: 554, enhanced: "5.7.1", text: said + "No  thanks"},
		{name: "reject enhanced", action: "REJECT 5.1.1 No such user", want: policy.Reject, code: 554, enhanced: "5.1.1", text: said + "No such user"},
		{name: "class follows the code", action: "REJECT 4.1.1 x", want: policy.Reject, code: 554, enhanced: "5.1.1", text: said + "x"},
		{name: "defer", action: "defer", want: policy.Defer, code: 450, enhanced: "4.7.1", text: said + "Access denied"},
		{name: "defer if permit", action: "DEFER_IF_PERMIT Greylisted", want: policy.DeferIfPermit, code: 450, enhanced: "4.7.1", text: said + "Greylisted"},
		{name: "defer if permit bare", action: "defer_if_permit", want: policy.DeferIfPermit, code: 450, enhanced: "4.7.1", text: said + "Service unavailable"},
		{name: "defer if reject", action: "defer_if_reject 4.2.0 later", want: policy.DeferIfReject, code: 450, enhanced: "4.2.0", text: said + "later"},
		{name: "policyd-spf fail", action: "550 5.7.23 Message rejected due to: SPF fail", want: policy.Reject, code: 550, enhanced: "5.7.23", text: said + "Message rejected due to: SPF fail"},
		{name: "bare code", action: "451", want: policy.Defer, code: 451, enhanced: "4.7.1", text: said + "Access denied"},
		{name: "hang up for now", action: "421 4.7.0 Go away", want: policy.Disconnect, code: 421, enhanced: "4.7.0", text: said + "Go away"},
		{name: "hang up for good", action: "521 no", want: policy.Disconnect, code: 521, enhanced: "5.7.1", text: said + "no"},
		{name: "prepend", action: "PREPEND Received-SPF: pass (x) client-ip=192.0.2.1;", prepend: "Received-SPF: pass (x) client-ip=192.0.2.1;"},
		{name: "hold", action: "hold for review", want: policy.Hold},
		{name: "discard", action: "DISCARD", want: policy.Discard},
		{name: "redirect", action: "REDIRECT ops@example.org", to: "ops@example.org"},
		{name: "bcc", action: "bcc <ops@example.org>", to: "ops@example.org"},
		{name: "info", action: "INFO seen", log: "INFO seen"},
		{name: "warn", action: "warn odd", log: "WARN odd"},
		{name: "empty", action: "  ", fails: "empty action"},
		{name: "filter", action: "FILTER smtp:[127.0.0.1]:10025", fails: `"FILTER"`},
		{name: "another restriction", action: "reject_unauth_destination", fails: "reject_unauth_destination"},
		{name: "a class", action: "greylist", fails: "greylist"},
		{name: "four digits that refuse", action: "5501 x", fails: "5501"},
		{name: "prepend nothing", action: "PREPEND", fails: "no header field"},
		{name: "prepend with a space in the name", action: "PREPEND X Y: z", fails: "no header field"},
		{name: "prepend with a control", action: "PREPEND X: a\x01b", fails: "control character"},
		{name: "redirect nowhere", action: "REDIRECT", fails: "no domain"},
		{name: "bcc two", action: "BCC a@b.example, c@d.example", fails: "BCC"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r, err := parseAction(row.action, about)
			if row.fails != "" {
				if err == nil || !strings.Contains(err.Error(), row.fails) {
					t.Fatalf("%q: %+v, %v; want an error with %q", row.action, r, err, row.fails)
				}
				return
			}
			v := r.verdict
			if err != nil || v.Action != row.want || v.Status.Code != row.code || v.Status.Enhanced != row.enhanced || v.Status.Text != row.text || r.note != row.log {
				t.Fatalf("%q: %+v, %v", row.action, r, err)
			}
			prepend, to := "", ""
			for _, f := range v.Effects.Prepend {
				prepend = f.Name + ": " + f.Value
			}
			for _, p := range append(v.Effects.Redirect, v.Effects.BCC...) {
				to = p.String()
			}
			if prepend != row.prepend || to != row.to {
				t.Errorf("%q adds %q and %q, want %q and %q", row.action, prepend, to, row.prepend, row.to)
			}
		})
	}
}
