package delegate

import (
	"bufio"
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// FuzzReply: an answer is bounded, and what it says can be said.
func FuzzReply(f *testing.F) {
	for _, s := range []string{"action=DUNNO\n\n", "action=550 5.7.23 no\r\n\r\n", "x=y\naction=PREPEND A: b\n\n", "action=REDIRECT a@b.example\n\n", "action=\n\n", "\n", "action=421 bye\n\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		answer, err := readAttributes(bufio.NewReaderSize(bytes.NewReader(b), 16), maxBlock)
		if err != nil {
			return
		}
		if len(answer) > maxLines {
			t.Fatalf("%d lines", len(answer))
		}
		action, err := actionOf(answer)
		if err != nil {
			return
		}
		r, err := parseAction(action, subject{"x", "Client host"})
		if err != nil {
			return
		}
		v := r.verdict
		if (v.Action.Refuses() || v.Action == policy.DeferIfPermit || v.Action == policy.DeferIfReject) != (v.Status.Code >= 400) {
			t.Errorf("%q: %+v", action, v)
		}
		if v.Status.Code != 0 && v.Status.Enhanced[0] != byte('0'+v.Status.Code/100) {
			t.Errorf("%q: %+v", action, v.Status)
		}
		for _, p := range v.Effects.Prepend {
			if strings.ContainsAny(p.Name+p.Value, "\r\n\x00") || !isFieldName(p.Name) {
				t.Errorf("%q prepends %q", action, p)
			}
		}
	})
}

// FuzzRequest: whatever is asked, the answer is one line that Postfix can read.
func FuzzRequest(f *testing.F) {
	f.Add([]byte("request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=192.0.2.1\nsender=a@b.example\nrecipient=x y@d.example\ninstance=1.2\n\n"))
	f.Add([]byte("request=smtpd_access_policy\nprotocol_state=CONNECT\nclient_address=unknown\n\n"))
	f.Add([]byte("request=smtpd_access_policy\nprotocol_state=DATA\nclient_address=::1\nrecipient_count=2\nsasl_username=u\nencryption_protocol=TLSv1.3\nhelo_name=h\n\n"))
	f.Add([]byte("request=junk_mail\n\n"))
	said := plugin(func(ev *policy.Event) policy.Verdict {
		v := refuse(policy.Defer, 450, "4.1.1", ev.Helo+ev.Sender.String()+ev.Recipient.String())
		if ev.Stage != policy.Rcpt {
			v = policy.Verdict{Effects: policy.Effects{Prepend: []policy.Field{{Name: "X-Helo", Value: ev.Helo}}}}
		}
		return v
	})
	set := setOf(said, policy.Helo, policy.Mail, policy.Rcpt)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := NewServer(ServerConfig{Hostname: "mx.example", Policies: func() (*policy.Set, func()) { return set, func() {} }})
		if err != nil {
			t.Fatal(err)
		}
		lines, err := readAttributes(bufio.NewReaderSize(bytes.NewReader(b), 16), maxBlock)
		if err != nil {
			return
		}
		rq, err := parseRequest(lines)
		if err != nil {
			return
		}
		for range 2 {
			action, _ := s.answer(rq, 1)
			if action == "" || strings.ContainsAny(action, "\r\n\x00") || len(action) > 998 {
				t.Fatalf("answer %q to %q", action, b)
			}
			if _, err := parseAction(action, subject{}); err != nil {
				t.Fatalf("answer %q to %q: %v", action, b, err)
			}
		}
	})
}

// plugin is a policy.Plugin of the tests.
type plugin func(ev *policy.Event) policy.Verdict

func (p plugin) Call(_ context.Context, ev *policy.Event, _ policy.Host) (policy.Verdict, error) {
	return p(ev), nil
}
func (plugin) Close() error { return nil }

// setOf is one policy at the door "policy" with one check at stages.
func setOf(p policy.Plugin, stages ...policy.Stage) *policy.Set {
	return policy.NewSet([]*policy.Policy{{Name: "p", On: []string{"policy"}, Checks: []*policy.Check{{Name: "c", Plugin: p, At: stages}}}},
		policy.SetOptions{Now: time.Now})
}

func refuse(a policy.Action, code int, enhanced, text string) policy.Verdict {
	v := policy.Verdict{Action: a}
	v.Status.Code, v.Status.Enhanced, v.Status.Text = code, enhanced, text
	return v
}
