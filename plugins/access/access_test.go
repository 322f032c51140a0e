//go:build !wasip1

package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/wafermail/wafer/sdk"
)

func TestParts(t *testing.T) {
	s := settings{separator: "+"}
	rows := []struct {
		name      string
		got, want []string
	}{
		{"IPv4", s.network("192.0.2.1"), []string{"192.0.2.1", "192.0.2", "192.0", "192"}},
		{"IPv6", s.network("2001:db8::7"), []string{"2001:db8::7", "2001:db8", "2001"}},
		{"loopback", s.network("::1"), []string{"::1"}},
		{"whole", settings{whole: true}.network("192.0.2.1"), []string{"192.0.2.1"}},
		{"domain", s.domain("Mail.Example.com"), []string{"mail.example.com", ".example.com", "example.com", ".com", "com"}},
		{"literal", s.domain("[192.0.2.1]"), []string{"[192.0.2.1]"}},
		{"null", s.mailbox(""), []string{"<>"}},
		{"plain", s.mailbox("Ann@b.example"), []string{"ann@b.example", "b.example", ".example", "example", "ann@"}},
		{"detail", s.mailbox("ann+x@b.example"), []string{"ann+x@b.example", "ann@b.example", "b.example", ".example", "example", "ann+x@", "ann@"}},
		{"no detail", settings{}.mailbox("ann+x@b.example"), []string{"ann+x@b.example", "b.example", ".example", "example", "ann+x@"}},
		{"only a detail", s.mailbox("+x@b.example"), []string{"+x@b.example", "b.example", ".example", "example", "+x@"}},
		{"whole mailbox", settings{whole: true}.mailbox("ann+x@b.example"), []string{"ann+x@b.example"}},
	}
	for _, r := range rows {
		if !slices.Equal(r.got, r.want) {
			t.Errorf("%s: %q, want %q", r.name, r.got, r.want)
		}
	}
	if n := len(s.domain(strings.Repeat("a.", 120) + "b")); n > maxParts+1 {
		t.Errorf("%d parts of a long name", n)
	}
}

func TestAct(t *testing.T) {
	rows := []struct{ action, want string }{
		{"OK", "1 0  "},
		{"12345", "1 0  "},
		{"dunno", "0 0  "},
		{"REJECT", "2 554 5.7.1 <v>: Sender address rejected: Access denied"},
		{"reject  go away", "2 554 5.7.1 <v>: Sender address rejected: go away"},
		{"REJECT 5.1.1 gone", "2 554 5.1.1 <v>: Sender address rejected: gone"},
		{"550 5.1.1 gone", "2 550 5.1.1 <v>: Sender address rejected: gone"},
		{"550 4.1.1 gone", "2 550 5.1.1 <v>: Sender address rejected: gone"},
		{"451 later", "3 451 4.7.1 <v>: Sender address rejected: later"},
		{"421 bye", "4 421 4.7.1 <v>: Sender address rejected: bye"},
		{"DEFER", "3 450 4.7.1 <v>: Sender address rejected: Access denied"},
		{"DEFER_IF_PERMIT", "8 450 4.7.1 <v>: Sender address rejected: Service unavailable"},
		{"DEFER_IF_REJECT soon", "9 450 4.7.1 <v>: Sender address rejected: soon"},
		{"DISCARD", "5 0  "},
		{"HOLD", "6 0  "},
		{"QUARANTINE", "7 0  "},
	}
	for _, r := range rows {
		v := act(r.action, "Sender address", "v", nil)
		if got := fmt.Sprint(int(v.Action), " ", v.Code, " ", v.Enhanced, " ", v.Text); got != r.want || v.Failed != "" {
			t.Errorf("%s: %q (%s), want %q", r.action, got, v.Failed, r.want)
		}
	}
	for _, bad := range []string{"FILTER smtp:x", "my_class", "PREPEND", "PREPEND X Y: z", "REDIRECT nowhere", "BCC", "TAG", ""} {
		if v := act(bad, "Sender address", "v", nil); v.Failed == "" || v.Action != sdk.ActionNext {
			t.Errorf("%q gives %+v", bad, v)
		}
	}
	for _, effect := range []string{"PREPEND X-List: yes", "REDIRECT a@b.example", "BCC a@b.example", "TAG bulk"} {
		if v := act(effect, "Sender address", "v", nil); v.Failed != "" || len(v.Mods) != 1 || v.Action != sdk.ActionNext {
			t.Errorf("%q gives %+v", effect, v)
		}
	}
}

func TestJudge(t *testing.T) {
	f := sdk.NewFake(&plugin)
	f.Lists = map[string]map[string]string{
		"first":  {"spam.example": "DUNNO", "192.0.2": "REJECT", "odd@": "NONSENSE"},
		"second": {"spam.example": "REJECT no", "listed.example": ""},
	}
	if err := f.Configure(map[string][]string{"lists": {"first", "second"}, "key": {"client", "sender"}, "default": {"REJECT listed"}}); err != nil {
		t.Fatal(err)
	}
	rows := []struct{ name, client, sender, text, failed string }{
		{"nothing", "198.51.100.1", "a@b.example", "", ""},
		{"client", "192.0.2.9", "a@b.example", "<unknown[192.0.2.9]>: Client host rejected: Access denied", ""},
		{"dunno goes on", "198.51.100.1", "a@spam.example", "<a@spam.example>: Sender address rejected: no", ""},
		{"without an action", "198.51.100.1", "a@sub.listed.example", "<a@sub.listed.example>: Sender address rejected: listed", ""},
		{"nonsense", "198.51.100.1", "odd@b.example", "", "list first: action NONSENSE is none of"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			v, err := f.Call(sdk.Facts{Stage: sdk.Mail, Client: r.client, Sender: r.sender, HasSender: true})
			if failed := fmt.Sprint(v.Failed, err); v.Text != r.text || r.failed != "" && !strings.Contains(failed, r.failed) || r.failed == "" && err != nil {
				t.Errorf("got %q, %s", v.Text, failed)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	for field, bad := range map[string]string{"separator": "++", "default": "MAYBE"} {
		f := sdk.NewFake(&plugin)
		err := f.Configure(map[string][]string{"lists": {"l"}, "key": {"client"}, field: {bad}})
		if err == nil || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s = %q: %v", field, bad, err)
		}
	}
}
