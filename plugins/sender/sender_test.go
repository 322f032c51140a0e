//go:build !wasip1

package main

import (
	"strings"
	"testing"

	"github.com/wafermail/wafer/sdk"
)

func configured(t *testing.T, reject ...string) *sdk.Fake {
	t.Helper()
	f := sdk.NewFake(&plugin)
	f.Zone["MX example.com"] = sdk.Answer{Records: []string{"10 mx.example.com"}}
	f.Zone["A address.example"] = sdk.Answer{Records: []string{"192.0.2.1"}}
	f.Zone["AAAA six.example"] = sdk.Answer{Records: []string{"2001:db8::1"}}
	f.Zone["MX null.example"] = sdk.Answer{Records: []string{"0 ."}}
	f.Zone["A null.example"] = sdk.Answer{Records: []string{"192.0.2.1"}}
	f.Zone["MX empty.example"] = sdk.Answer{}
	f.Zone["A down.example"] = sdk.Answer{Status: sdk.DNSTemp}
	f.Zone["MX half.example"] = sdk.Answer{Status: sdk.DNSTemp}
	f.Zone["A half.example"] = sdk.Answer{Records: []string{"192.0.2.1"}}
	if err := f.Configure(map[string][]string{"reject": reject}); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestJudge(t *testing.T) {
	const permit = sdk.ActionNext
	rows := []struct {
		name, reject, sender, user, class, owners string
		action                                    sdk.Action
		code                                      int
		enhanced, text                            string
	}{
		{"bounce", notFQDN, "", "", "", "", permit, 0, "", ""},
		{"no domain", notFQDN, "ann", "", "", "", sdk.ActionReject, 504, "5.5.2", "<ann>: Sender address rejected: need fully-qualified address"},
		{"bare host", notFQDN, "ann@host", "", "", "", sdk.ActionReject, 504, "5.5.2", "need fully-qualified address"},
		{"final dot", notFQDN, "ann@example.com.", "", "", "", permit, 0, "", ""},
		{"literal", notFQDN, "ann@[192.0.2.1]", "", "", "", permit, 0, "", ""},
		{"at sign in local part", notFQDN, `"a@b"@example.com`, "", "", "", permit, 0, "", ""},
		{"mail exchanger", unknownDomain, "ann@example.com", "", sdk.ClassRelay, "", permit, 0, "", ""},
		{"address", unknownDomain, "ann@address.example", "", sdk.ClassRelay, "", permit, 0, "", ""},
		{"IPv6 address", unknownDomain, "ann@six.example", "", sdk.ClassRelay, "", permit, 0, "", ""},
		{"null MX", unknownDomain, "ann@null.example", "", sdk.ClassRelay, "", sdk.ActionReject, 550, "5.7.27", "Domain null.example does not accept mail (nullMX)"},
		{"no records", unknownDomain, "ann@empty.example", "", sdk.ClassRelay, "", sdk.ActionDefer, 450, "4.1.8", "<ann@empty.example>: Sender address rejected: Domain not found"},
		{"no such name", unknownDomain, "ann@no.example", "", sdk.ClassRelay, "", sdk.ActionDefer, 450, "4.1.8", "Domain not found"},
		{"no answer", unknownDomain, "ann@down.example", "", sdk.ClassRelay, "", sdk.ActionDeferIfPermit, 450, "4.1.8", "Domain not found"},
		{"no answer about MX", unknownDomain, "ann@half.example", "", sdk.ClassRelay, "", permit, 0, "", ""},
		{"our domain", unknownDomain, "ann@no.example", "", sdk.ClassUnknown, "", permit, 0, "", ""},
		{"literal is known", unknownDomain, "ann@[192.0.2.1]", "", sdk.ClassRelay, "", permit, 0, "", ""},
		{"unlisted", unlisted, "x@our.example", "", sdk.ClassUnknown, "", sdk.ActionReject, 550, "5.1.0", "<x@our.example>: Sender address rejected: User unknown in local recipient table"},
		{"listed", unlisted, "ann@our.example", "", sdk.ClassLocal, "", permit, 0, "", ""},
		{"owned, no login", mismatch, "ann@our.example", "", sdk.ClassLocal, "ann@our.example", sdk.ActionReject, 553, "5.7.1", "<ann@our.example>: Sender address rejected: not logged in"},
		{"owned by another", mismatch, "ann@our.example", "bob@our.example", sdk.ClassLocal, "ann@our.example", sdk.ActionReject, 553, "5.7.1", "not owned by user bob@our.example"},
		{"owned by several", mismatch, "sales@our.example", "Bob@our.example", sdk.ClassLocal, "ann@our.example\nbob@our.example", permit, 0, "", ""},
		{"owned by nobody, login", mismatch, "x@else.example", "bob@our.example", sdk.ClassRelay, "", sdk.ActionReject, 553, "5.7.1", "not owned by user bob@our.example"},
		{"owned by nobody, no login", mismatch, "x@else.example", "", sdk.ClassRelay, "", permit, 0, "", ""},
		{"authenticated: no login", authenticatedMismatch, "ann@our.example", "", sdk.ClassLocal, "ann@our.example", permit, 0, "", ""},
		{"authenticated: another's", authenticatedMismatch, "x@else.example", "bob@our.example", sdk.ClassRelay, "", sdk.ActionReject, 553, "5.7.1", "not owned"},
		{"unauthenticated: no login", unauthenticatedMismatch, "ann@our.example", "", sdk.ClassLocal, "ann@our.example", sdk.ActionReject, 553, "5.7.1", "not logged in"},
		{"unauthenticated: another's", unauthenticatedMismatch, "ann@our.example", "bob@our.example", sdk.ClassLocal, "ann@our.example", permit, 0, "", ""},
		{"known: nobody's", knownMismatch, "x@else.example", "bob@our.example", sdk.ClassRelay, "", permit, 0, "", ""},
		{"known: another's", knownMismatch, "ann@our.example", "bob@our.example", sdk.ClassLocal, "ann@our.example", sdk.ActionReject, 553, "5.7.1", "not owned"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			v, err := configured(t, r.reject).Call(sdk.Facts{
				Stage: sdk.Mail, Sender: r.sender, HasSender: true, User: r.user,
				Rare: map[string]string{sdk.FactSenderClass: r.class, sdk.FactSenderOwners: r.owners},
			})
			if err != nil || v.Action != r.action || v.Code != r.code || v.Enhanced != r.enhanced || !strings.Contains(v.Text, r.text) {
				t.Errorf("got %v %d %s %q, %v", v.Action, v.Code, v.Enhanced, v.Text, err)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	f := sdk.NewFake(&plugin)
	if err := f.Configure(map[string][]string{"not_fqdn_code": {"250"}}); err == nil || !strings.Contains(err.Error(), "write a reply code from 400 to 599") {
		t.Errorf("250: %v", err)
	}
	f.Grants = nil
	if err := f.Configure(map[string][]string{"reject": {unknownDomain}}); err == nil || !strings.Contains(err.Error(), `write allow = ["dns"]`) {
		t.Errorf("without dns: %v", err)
	}
	if err := f.Configure(map[string][]string{"reject": {notFQDN}, "not_fqdn_code": {"450"}}); err != nil {
		t.Fatal(err)
	}
	v, err := f.Call(sdk.Facts{Stage: sdk.Mail, Sender: "ann", HasSender: true})
	if err != nil || v.Action != sdk.ActionDefer || v.Code != 450 || v.Enhanced != "4.5.2" {
		t.Errorf("with 450: %+v, %v", v, err)
	}
}
