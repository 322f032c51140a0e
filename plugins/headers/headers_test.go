//go:build !wasip1

package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wafermail/wafer/sdk"
)

func configured(t *testing.T, config map[string][]string) *sdk.Fake {
	t.Helper()
	f := sdk.NewFake(&plugin)
	if err := f.Configure(config); err != nil {
		t.Fatal(err)
	}
	return f
}

func judged(t *testing.T, f *sdk.Fake) sdk.Verdict {
	t.Helper()
	v, err := f.Call(sdk.Facts{Stage: sdk.Message})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// shown writes a verdict in short: action, code, enhanced code and text, score, effects.
func shown(v sdk.Verdict) string {
	names := []string{"next", "accept", "reject", "defer", "disconnect", "discard", "hold", "quarantine"}
	s := names[v.Action]
	if v.Code != 0 {
		s += fmt.Sprintf(" %d %s %s", v.Code, v.Enhanced, v.Text)
	}
	if v.Score != 0 {
		s += fmt.Sprintf(" score %g", v.Score)
	}
	for _, m := range v.Mods {
		s += " +" + m.Value
	}
	return s
}

func TestRules(t *testing.T) {
	header := []string{
		"From: =?utf-8?Q?Caf=C3=A9?= <cafe@example.com>",
		"Subject: =?UTF-8?B?WW91IHdvbiB0aGUg?= =?UTF-8?B?bG90dGVyeQ==?=",
		"Precedence: bulk",
		"Received: from a.example",
		"Received: from b.example",
		"X-Tab: one\r\n two",
	}
	rows := []struct{ name, rules, want string }{
		{"own text", "reject Subject ~ (?i)LOTTERY => No lotteries here", "reject 550 5.7.1 No lotteries here"},
		{"Postfix's text", "reject subject ~ lottery", "reject 550 5.7.1 message content rejected"},
		{"own codes", "reject Subject ~ lottery => 554 5.6.1 No", "reject 554 5.6.1 No"},
		{"own code", "reject Subject ~ lottery => 571 No", "reject 571 5.7.1 No"},
		{"defer", "defer Subject ~ lottery", "defer 450 4.7.1 message content rejected for now"},
		{"no match", "reject Subject ~ ^lottery", "next"},
		{"anchors are the value's", "reject Subject ~ ^You won the lottery$", "reject 550 5.7.1 message content rejected"},
		{"decoded", "quarantine From ~ Café", "quarantine"},
		{"any field", "hold * ~ ^Precedence: bulk$", "hold"},
		{"one of two fields", "discard X-No|precedence ~ bulk", "discard"},
		{"the second field of the name", "reject Received ~ b\\.example", "reject 550 5.7.1 message content rejected"},
		{"tags go on, the first refusal wins", "tag bulk Precedence ~ ^bulk$\nscore 2.5 From ~ example\nreject Subject ~ lottery => one\nreject Subject ~ won => two", "reject 550 5.7.1 one score 2.5 +bulk"},
		{"accept ends the rules", "accept Precedence ~ bulk\nreject Subject ~ lottery", "accept"},
		{"absent", "reject X-No !~ . => no X-No", "reject 550 5.7.1 no X-No"},
		{"present", "reject From !~ example", "next"},
		{"a group", "reject Subject ~ won the (\\w+) => no $1 for $$1", "reject 550 5.7.1 no lottery for $1"},
		{"an arrow in the expression", "reject Subject ~ x => y|lottery => no", "reject 550 5.7.1 no"},
		{"bcc and redirect", "bcc a@example.org From ~ .\nredirect b@example.org From ~ .", "next +a@example.org +b@example.org"},
		{"warn", "warn From ~ .", "next"},
		{"a line end is a space", "tag two X-Tab ~ ^one.*two$", "next +two"},
		{"parts are not the message", "reject part:Subject ~ .", "next"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := configured(t, map[string][]string{"rules": strings.Split(r.rules, "\n")})
			f.Header = header
			if got := shown(judged(t, f)); got != r.want {
				t.Errorf("got %q, want %q", got, r.want)
			}
		})
	}
}

func TestReply(t *testing.T) {
	f := configured(t, map[string][]string{"rules": {"reject Subject ~ (.*) => saw $1"}})
	f.Header = []string{"Subject: =?utf-8?Q?a=0D=0A250_ok=00=C3=A9?= " + strings.Repeat("x", 9000)}
	v := judged(t, f)
	if !strings.HasPrefix(v.Text, "saw a  250 ok ??") || len(v.Text) > 480 || strings.ContainsAny(v.Text, "\r\n\x00") {
		t.Errorf("got %q", v.Text)
	}
}

func TestFields(t *testing.T) {
	rows := []struct {
		name   string
		config map[string][]string
		header string
		want   string
		reason string
	}{
		{"all there", map[string][]string{"require": {"From", "Date"}}, "from: a\nDATE: b", "next", ""},
		{"one missing", map[string][]string{"require": {"From", "Message-ID"}}, "From: a", "reject 550 5.6.0 message has no header field Message-ID", "headers-missing"},
		{"empty is there", map[string][]string{"require": {"From"}}, "From:", "next", ""},
		{"twice", map[string][]string{"single": {"From", "Subject"}}, "Subject: a\nsubject : b", "reject 550 5.6.0 message has more than one header field Subject", "headers-duplicate"},
		{"once", map[string][]string{"single": {"From", "Subject"}}, "Subject: a\nSubject-X: b", "next", ""},
		{"quarantine", map[string][]string{"single": {"From"}, "field_action": {"quarantine"}}, "From: a\nFrom: b", "quarantine", "headers-duplicate"},
		{"defer", map[string][]string{"require": {"Date"}, "field_action": {"defer"}}, "From: a", "defer 450 4.6.0 message has no header field Date", "headers-missing"},
		{"tag", map[string][]string{"require": {"Date"}, "single": {"From"}, "field_action": {"tag"}}, "From: a\nFrom: b", "next +headers-missing +headers-duplicate", ""},
		{"nothing at all", map[string][]string{"require": {"From"}}, "", "reject 550 5.6.0 message has no header field From", "headers-missing"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := configured(t, r.config)
			if r.header != "" {
				f.Header = strings.Split(r.header, "\n")
			}
			v := judged(t, f)
			if got := shown(v); got != r.want || v.Reason != r.reason {
				t.Errorf("got %q because %q, want %q", got, v.Reason, r.want)
			}
		})
	}
}

func TestBeyond(t *testing.T) {
	many := func(n int) []string { return strings.Split(strings.Repeat("X-A: b\n", n-1)+"X-A: b", "\n") }
	rows := []struct {
		name   string
		config map[string][]string
		header []string
		body   string
		want   string
	}{
		{"1000 fields", nil, many(1000), "", "next"},
		{"1001 fields", nil, many(1001), "", "next +headers-unread"},
		{"large header", map[string][]string{"unread_action": {"reject"}}, []string{"X: " + strings.Repeat("y", maxHeader)}, "", "reject 550 5.7.1 message is too complex"},
		{"body at the limit", map[string][]string{"attachments": {"exe"}, "max_body": {"10"}}, nil, "123456789\n", "next"},
		{"body beyond the limit", map[string][]string{"attachments": {"exe"}, "max_body": {"10"}}, nil, "123456789\nbegin 644 a.exe\n", "next +headers-unread"},
		{"body that nobody asks about", map[string][]string{"max_body": {"10"}}, nil, strings.Repeat("x", 100), "next"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := configured(t, r.config)
			f.Header, f.Body = r.header, []byte(r.body)
			if got := shown(judged(t, f)); got != r.want {
				t.Errorf("got %q, want %q", got, r.want)
			}
		})
	}
}

func TestNoGrant(t *testing.T) {
	f := configured(t, map[string][]string{"require": {"From"}})
	f.Grants = nil
	if v, err := f.Call(sdk.Facts{Stage: sdk.Message}); err == nil {
		t.Errorf("without the message: %+v", v)
	}
}

func TestConfigErrors(t *testing.T) {
	rows := []struct{ field, value, want string }{
		{"rules", "refuse Subject ~ x", `rules: rule 1 "refuse Subject ~ x": "refuse" is none of ` + allActions},
		{"rules", "reject Subject x", `rules: rule 1 "reject Subject x": wants "FIELD ~ REGEXP" or "FIELD !~ REGEXP" behind the action`},
		{"rules", "reject Subject: ~ x", `rules: rule 1 "reject Subject: ~ x": "subject:" is no header field, "part:" and one, ":filename" or "*"`},
		{"rules", "reject Subject ~ (x", "rules: rule 1 \"reject Subject ~ (x\": error parsing regexp: missing closing ): `(x`"},
		{"rules", "reject Subject ~ (x)\\1", "rules: rule 1 \"reject Subject ~ (x)\\\\1\": error parsing regexp: invalid escape sequence: `\\1`"},
		{"rules", "reject Subject ~", `rules: rule 1 "reject Subject ~": has no regular expression`},
		{"rules", "reject Subject ~ x => 450 no", `rules: rule 1 "reject Subject ~ x => 450 no": code 450 does not go with reject`},
		{"rules", "defer Subject ~ x => 5.7.1 no", `rules: rule 1 "defer Subject ~ x => 5.7.1 no": enhanced code 5.7.1 does not go with defer`},
		{"rules", "hold Subject ~ x => no", `rules: rule 1 "hold Subject ~ x => no": hold has no reply, so nothing comes behind =>`},
		{"rules", "score much Subject ~ x", `rules: rule 1 "score much Subject ~ x": score "much" wants a number from -1000 to 1000`},
		{"rules", "score NaN Subject ~ x", `rules: rule 1 "score NaN Subject ~ x": score "NaN" wants a number from -1000 to 1000`},
		{"rules", "bcc nobody Subject ~ x", `rules: rule 1 "bcc nobody Subject ~ x": bcc "nobody" wants an address`},
		{"rules", "", `rules: rule 1 "": "" is none of ` + allActions},
		{"attachments", "*.exe", `attachments: "*.exe" is no extension: write "exe"`},
		{"attachments", ".", `attachments: "." is no extension: write "exe"`},
		{"require", "Message ID", `require: "Message ID" is no name of a header field`},
		{"single", "From:", `single: "From:" is no name of a header field`},
		{"max_body", "17MiB", "max_body: must be between 1 and 16MiB"},
		{"attachment_text", "450 no", "attachment_text: code 450 does not go with reject"},
		{"unread_action", "ignore", `unread_action: "ignore" is not allowed here`},
	}
	for _, r := range rows {
		t.Run(r.field+" "+r.value, func(t *testing.T) {
			if err := sdk.NewFake(&plugin).Configure(map[string][]string{r.field: {r.value}}); err == nil || err.Error() != r.want {
				t.Errorf("got  %v\nwant %s", err, r.want)
			}
		})
	}
	good := []string{"reject Subject ~ x", "reject Subject ~ y", "reject Subject ~ ["}
	if err := sdk.NewFake(&plugin).Configure(map[string][]string{"rules": good}); err == nil || !strings.HasPrefix(err.Error(), `rules: rule 3 "reject Subject ~ ["`) {
		t.Errorf("third rule: got %v", err)
	}
}
