//go:build !wasip1

package main

import (
	"strings"
	"testing"

	"github.com/wafermail/wafer/sdk"
)

func TestJudge(t *testing.T) {
	rows := []struct {
		name, reject, rcpt, class string
		stage                     sdk.Stage
		count                     int
		action                    sdk.Action
		code                      int
		enhanced, text            string
	}{
		{"relay", unauthDestination, "x@else.example", sdk.ClassRelay, sdk.Rcpt, 0, sdk.ActionReject, 554, "5.7.1", "<x@else.example>: Relay access denied"},
		{"ours", unauthDestination, "x@our.example", sdk.ClassUnknown, sdk.Rcpt, 0, sdk.ActionNext, 0, "", ""},
		{"nothing known", unauthDestination, "x@our.example", "", sdk.Rcpt, 0, sdk.ActionNext, 0, "", ""},
		{"bare host", notFQDN, "ann@localhost", sdk.ClassLocal, sdk.Rcpt, 0, sdk.ActionReject, 504, "5.5.2", "<ann@localhost>: Recipient address rejected: need fully-qualified address"},
		{"full", notFQDN, "ann@our.example", sdk.ClassLocal, sdk.Rcpt, 0, sdk.ActionNext, 0, "", ""},
		{"null MX", unknownDomain, "x@null.example", sdk.ClassRelay, sdk.Rcpt, 0, sdk.ActionReject, 556, "5.1.10", "Domain null.example does not accept mail (nullMX)"},
		{"no such domain", unknownDomain, "x@no.example", sdk.ClassRelay, sdk.Rcpt, 0, sdk.ActionDefer, 450, "4.1.2", "<x@no.example>: Recipient address rejected: Domain not found"},
		{"no answer", unknownDomain, "x@down.example", sdk.ClassRelay, sdk.Rcpt, 0, sdk.ActionDeferIfPermit, 450, "4.1.2", "Domain not found"},
		{"our domain", unknownDomain, "x@no.example", sdk.ClassLocal, sdk.Rcpt, 0, sdk.ActionNext, 0, "", ""},
		{"unlisted", unlisted, "x@our.example", sdk.ClassUnknown, sdk.Rcpt, 0, sdk.ActionReject, 550, "5.1.1", "<x@our.example>: Recipient address rejected: User unknown in local recipient table"},
		{"first of a bounce", multiBounce, "x@our.example", sdk.ClassLocal, sdk.Rcpt, 0, sdk.ActionNext, 0, "", ""},
		{"second of a bounce", multiBounce, "x@our.example", sdk.ClassLocal, sdk.Rcpt, 1, sdk.ActionReject, 550, "5.5.3", "<x@our.example>: Recipient address rejected: Multi-recipient bounce"},
		{"bounce to one", multiBounce, "", "", sdk.Data, 1, sdk.ActionNext, 0, "", ""},
		{"bounce to two", multiBounce, "", "", sdk.Data, 2, sdk.ActionReject, 550, "5.5.3", "<DATA>: Data command rejected: Multi-recipient bounce"},
		{"bounce to two, seen late", multiBounce, "", "", sdk.Message, 2, sdk.ActionReject, 550, "5.5.3", "<END-OF-MESSAGE>: End-of-data rejected: Multi-recipient bounce"},
		{"others are for rcpt", unauthDestination, "x@else.example", sdk.ClassRelay, sdk.Data, 1, sdk.ActionNext, 0, "", ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := sdk.NewFake(&plugin)
			f.Zone["MX null.example"] = sdk.Answer{Records: []string{"0 ."}}
			f.Zone["MX down.example"] = sdk.Answer{Status: sdk.DNSTemp}
			if err := f.Configure(map[string][]string{"reject": {r.reject}}); err != nil {
				t.Fatal(err)
			}
			v, err := f.Call(sdk.Facts{
				Stage: r.stage, Recipient: r.rcpt, RecipientCount: r.count, HasSender: true,
				Rare: map[string]string{sdk.FactRecipientClass: r.class},
			})
			if err != nil || v.Action != r.action || v.Code != r.code || v.Enhanced != r.enhanced || !strings.Contains(v.Text, r.text) {
				t.Errorf("got %v %d %s %q, %v", v.Action, v.Code, v.Enhanced, v.Text, err)
			}
		})
	}
}

// TestOrder: the first fault of the list is the answer.
func TestOrder(t *testing.T) {
	for _, row := range []struct {
		order []string
		code  int
	}{{[]string{notFQDN, unauthDestination}, 504}, {[]string{unauthDestination, notFQDN}, 454}} {
		f := sdk.NewFake(&plugin)
		if err := f.Configure(map[string][]string{"reject": row.order, "relay_code": {"454"}}); err != nil {
			t.Fatal(err)
		}
		v, err := f.Call(sdk.Facts{Stage: sdk.Rcpt, Recipient: "x@host", Rare: map[string]string{sdk.FactRecipientClass: sdk.ClassRelay}})
		if err != nil || v.Code != row.code {
			t.Errorf("%v: %+v, %v", row.order, v, err)
		}
	}
}
