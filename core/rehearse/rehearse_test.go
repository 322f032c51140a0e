package rehearse

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/dns"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// judge is a plugin from a function.
type judge func(ev *policy.Event) (policy.Verdict, error)

func (j judge) Call(_ context.Context, ev *policy.Event, _ policy.Host) (policy.Verdict, error) {
	return j(ev)
}
func (judge) Close() error { return nil }

var every = []policy.Stage{policy.Connect, policy.Helo, policy.StartTLS, policy.Auth, policy.Mail, policy.Rcpt, policy.Data, policy.Message}

// house is a set of policies whose checks note what they are asked.
type house struct {
	set   *policy.Set
	seen  []policy.Event
	known Records
}

// doors are all profiles.
var doors = []string{"mx", "submission", "submissions", "lmtp", "imap", "imaps", "pop3", "pop3s"}

// houseOf asks j at every stage of every door.
func houseOf(j judge, change ...func(*policy.Policy)) *house {
	h := &house{}
	p := &policy.Policy{Name: "p", On: doors, Checks: []*policy.Check{{Name: "c", At: every, Where: "p.hcl:3", Plugin: judge(func(ev *policy.Event) (policy.Verdict, error) {
		h.seen = append(h.seen, *ev)
		if j == nil {
			return policy.Verdict{}, nil
		}
		return j(ev)
	})}}}
	for _, c := range change {
		c(p)
	}
	h.set = policy.NewSet([]*policy.Policy{p}, policy.SetOptions{Log: &h.known, Explain: true, Now: func() time.Time { return noon }})
	return h
}

// stages are those that were asked, in order.
func (h *house) stages() string {
	var all []string
	for _, ev := range h.seen {
		all = append(all, ev.Stage.String())
	}
	return strings.Join(all, " ")
}

func path(t testing.TB, s string) mail.Path {
	t.Helper()
	p, err := mail.ParsePath(s, true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// mailOf is a mail that nobody has anything against.
func mailOf(t testing.TB, change ...func(*Scenario)) *Scenario {
	sc := &Scenario{
		Door: "mx", Hostname: "mail.example.test", Now: func() time.Time { return noon },
		Client: netip.MustParseAddrPort("192.0.2.1:40000"), Helo: "client.example.net", Extended: true, Mechanism: "PLAIN", AuthOK: true,
		Sender: path(t, "ann@example.net"), Rcpts: []mail.Path{path(t, "bob@example.test")}, Message: []byte("Subject: x\r\n\r\nhello\r\n"),
	}
	for _, c := range change {
		c(sc)
	}
	return sc
}

// at is a plugin that says v at a stage.
func at(stage policy.Stage, v policy.Verdict) judge {
	return func(ev *policy.Event) (policy.Verdict, error) {
		if ev.Stage == stage {
			return v, nil
		}
		return policy.Verdict{}, nil
	}
}

func refuse(code int) policy.Verdict {
	v := policy.Verdict{Action: policy.Reject, Status: mail.Status{Code: code, Enhanced: fmt.Sprint(code/100, ".7.1"), Text: "no"}, Reason: "because"}
	if code < 500 {
		v.Action = policy.Defer
	}
	return v
}

// brief is an outcome in one line.
func brief(o Outcome) string {
	d := o.Decisive
	s := fmt.Sprintf("%s %d", o.Verdict, d.Status.Code)
	if d.Status.Code != 0 || d.Action != policy.Next {
		s += fmt.Sprintf(" at %s by %s", d.Stage, d.By)
	}
	return s
}

// TestStages: each door asks its stages in its order, and the events are what
// the doors make.
func TestStages(t *testing.T) {
	login := func(sc *Scenario) { sc.User = "ann" }
	tls := func(sc *Scenario) { sc.TLS = "TLSv1.3" }
	rows := []struct {
		door     string
		change   []func(*Scenario)
		want     string
		protocol string
	}{
		{"mx", nil, "connect helo mail rcpt data message", "smtp"},
		{"mx", []func(*Scenario){tls}, "connect helo starttls helo mail rcpt data message", "smtp"},
		{"mx", []func(*Scenario){func(sc *Scenario) { sc.Message = nil }}, "connect helo mail rcpt data", "smtp"},
		{"mx", []func(*Scenario){func(sc *Scenario) { sc.NoMail = true }}, "connect helo", "smtp"},
		{"mx", []func(*Scenario){func(sc *Scenario) { sc.Helo = "" }}, "connect", "smtp"},
		{"mx", []func(*Scenario){func(sc *Scenario) { sc.Rcpts = nil }}, "connect helo mail", "smtp"},
		{"lmtp", nil, "connect helo mail rcpt data message", "lmtp"},
		{"submission", []func(*Scenario){tls, login}, "connect helo starttls helo auth mail rcpt data message", "smtp"},
		{"submission", nil, "connect helo", "smtp"},
		{"submissions", []func(*Scenario){tls, login}, "connect starttls helo auth mail rcpt data message", "smtp"},
		{"imap", []func(*Scenario){tls, login}, "connect auth", "imap"},
		{"imaps", []func(*Scenario){tls, login}, "connect auth", "imap"},
		{"imap", nil, "connect", "imap"},
		{"pop3", []func(*Scenario){login}, "connect auth", "pop3"},
		{"pop3s", []func(*Scenario){tls, login}, "connect auth", "pop3"},
	}
	for _, row := range rows {
		t.Run(row.door+" "+row.want, func(t *testing.T) {
			h := houseOf(nil)
			sc := mailOf(t, append(row.change, func(sc *Scenario) { sc.Door = row.door })...)
			Begin(h.set, sc).Walk(t.Context(), sc)
			if got := h.stages(); got != row.want {
				t.Errorf("stages %s, want %s", got, row.want)
			}
			for _, ev := range h.seen {
				implicit := strings.HasSuffix(row.door, "s") && row.door != "mx"
				wantTLS := sc.TLS != "" && (implicit || ev.Stage == policy.StartTLS || ev.Stage > policy.StartTLS)
				if ev.Stage == policy.Helo && h.seen[1].Stage == policy.Helo {
					continue // one before and one after the handshake
				}
				if ev.Door != row.door || ev.Protocol != row.protocol || ev.TLS.On() != wantTLS || !ev.Time.Equal(noon) || ev.Hostname != "mail.example.test" || ev.Session != h.seen[0].Session {
					t.Errorf("event %+v", ev)
				}
			}
		})
	}
}

// TestEvents: what a check knows at each stage.
func TestEvents(t *testing.T) {
	h := houseOf(nil)
	sc := mailOf(t, func(sc *Scenario) {
		sc.TLS, sc.User, sc.Size, sc.Trusted, sc.EarlyTalker = "TLSv1.2", "ann", 77, true, true
		sc.Rcpts = append(sc.Rcpts, path(t, "carl@example.test"))
	})
	Begin(h.set, sc).Walk(t.Context(), sc)
	byStage := map[policy.Stage][]policy.Event{}
	for _, ev := range h.seen {
		byStage[ev.Stage] = append(byStage[ev.Stage], ev)
		if !ev.Trusted || !ev.EarlyTalker {
			t.Errorf("%s: %+v", ev.Stage, ev)
		}
	}
	helos, rcpts := byStage[policy.Helo], byStage[policy.Rcpt]
	if ev := byStage[policy.StartTLS][0]; ev.Helo != "" || ev.TLS.Version != "TLSv1.2" {
		t.Errorf("starttls: the greeting from before the handshake counts: %+v", ev)
	}
	if len(helos) != 2 || helos[0].TLS.On() || !helos[1].TLS.On() || helos[1].Helo != "client.example.net" || !helos[1].Extended {
		t.Errorf("helo: %+v", helos)
	}
	if ev := byStage[policy.Auth][0]; ev.User != "ann" || ev.Mechanism != "PLAIN" || !ev.AuthOK || ev.HasSender {
		t.Errorf("auth: %+v", ev)
	}
	if ev := byStage[policy.Mail][0]; !ev.HasSender || ev.Sender.String() != "ann@example.net" || ev.Size != 77 || ev.QueueID == "" {
		t.Errorf("mail: %+v", ev)
	}
	if len(rcpts) != 2 || len(rcpts[0].Rcpts) != 0 || len(rcpts[1].Rcpts) != 1 || rcpts[1].Recipient.String() != "carl@example.test" {
		t.Errorf("rcpt: %+v", rcpts)
	}
	if ev := byStage[policy.Data][0]; !ev.Recipient.IsNull() || len(ev.Rcpts) != 2 || ev.Content != nil {
		t.Errorf("data: %+v", ev)
	}
	ev := byStage[policy.Message][0]
	if ev.Content == nil || ev.Size != int64(len(sc.Message)) {
		t.Fatalf("message: %+v", ev)
	}
	if v, ok := ev.Content.Header("subject", 0); !ok || v != "x" {
		t.Errorf("subject %q", v)
	}
}

// table is who is known here.
type table map[string]string

func (d table) Class(p mail.Path) string {
	if c, ok := d[p.String()]; ok {
		return c
	}
	return policy.ClassLocal
}
func (table) Owners(mail.Path) []string { return nil }

// TestOutcomes: what the peer is told, by whom and when.
func TestOutcomes(t *testing.T) {
	known := table{"x@elsewhere.example": policy.ClassRelay, "nobody@example.test": policy.ClassUnknown}
	to := func(rcpts ...string) func(*Scenario) {
		return func(sc *Scenario) {
			sc.Directory, sc.Rcpts = known, nil
			for _, r := range rcpts {
				sc.Rcpts = append(sc.Rcpts, path(t, r))
			}
		}
	}
	by := func(f func(*Scenario)) []func(*Scenario) { return []func(*Scenario){f} }
	quarantine, hold, discard := policy.Verdict{Action: policy.Quarantine, Reason: "odd"}, policy.Verdict{Action: policy.Hold}, policy.Verdict{Action: policy.Discard}
	perRcpt := func(fates map[string]policy.Verdict) judge {
		return func(ev *policy.Event) (policy.Verdict, error) {
			if ev.Stage == policy.Rcpt {
				return fates[ev.Recipient.Local()], nil
			}
			return policy.Verdict{}, nil
		}
	}
	rows := []struct {
		name    string
		judge   judge
		policy  func(*policy.Policy)
		mail    []func(*Scenario)
		want    string
		replies string // stage and code of each
	}{
		{"nothing against it", nil, nil, nil, "accept 0", "connect 0|helo 0|mail 0|rcpt 0|data 0|message 0"},
		{"a refused greeting is held until RCPT", at(policy.Helo, refuse(501)), nil, nil, "reject 501 at rcpt by p/c", "connect 0|helo 0|mail 0|rcpt 501"},
		{"and given for every recipient", at(policy.Helo, refuse(501)), nil, by(to("a@example.test", "b@example.test")), "reject 501 at rcpt by p/c", "connect 0|helo 0|mail 0|rcpt 501|rcpt 501"},
		{"or at once", at(policy.Helo, refuse(501)), func(p *policy.Policy) { p.ReplyAt = policy.Helo }, nil, "reject 501 at helo by p/c", "connect 0|helo 501"},
		{"or at MAIL", at(policy.Connect, refuse(554)), func(p *policy.Policy) { p.ReplyAt = policy.Mail }, nil, "reject 554 at mail by p/c", "connect 0|helo 0|mail 554"},
		{"what the check says counts", at(policy.Connect, refuse(554)), func(p *policy.Policy) { p.Checks[0].ReplyAt = policy.Connect }, nil, "reject 554 at connect by p/c", "connect 554"},
		{"a deferral", at(policy.Rcpt, refuse(450)), nil, nil, "defer 450 at rcpt by p/c", "connect 0|helo 0|mail 0|rcpt 450"},
		{"soft bounce", at(policy.Rcpt, refuse(550)), func(p *policy.Policy) { p.SoftBounce = true }, nil, "defer 450 at rcpt by p/c", "connect 0|helo 0|mail 0|rcpt 450"},
		{"at DATA", at(policy.Data, refuse(550)), nil, nil, "reject 550 at data by p/c", "connect 0|helo 0|mail 0|rcpt 0|data 550"},
		{"at the message", at(policy.Message, refuse(550)), nil, nil, "reject 550 at message by p/c", "connect 0|helo 0|mail 0|rcpt 0|data 0|message 550"},
		{"a check that fails", func(*policy.Event) (policy.Verdict, error) { return policy.Verdict{}, errors.New("trap") }, nil, nil, "defer 451 at rcpt by p/c", "connect 0|helo 0|mail 0|rcpt 451"},
		{"only observed", at(policy.Rcpt, refuse(550)), func(p *policy.Policy) { p.Checks[0].Observe = true }, nil, "accept 0", "connect 0|helo 0|mail 0|rcpt 0|data 0|message 0"},
		{"exempt", at(policy.Rcpt, refuse(550)), func(p *policy.Policy) { p.Exempt.Networks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} }, nil, "accept 0", "connect 0|helo 0|mail 0|rcpt 0|data 0|message 0"},
		{"held, and exempt by the time", at(policy.Helo, refuse(501)), func(p *policy.Policy) { p.Exempt.Authenticated = true }, by(func(sc *Scenario) { sc.User = "ann" }), "accept 0", "connect 0|helo 0|auth 0|mail 0|rcpt 0|data 0|message 0"},
		{"disconnect", at(policy.Connect, policy.Verdict{Action: policy.Disconnect}), func(p *policy.Policy) { p.ReplyAt = policy.Connect }, nil, "disconnect 421 at connect by p/c", "connect 421"},
		{"disconnect ends the recipients", at(policy.Rcpt, policy.Verdict{Action: policy.Disconnect}), nil, by(to("a@example.test", "b@example.test")), "disconnect 421 at rcpt by p/c", "connect 0|helo 0|mail 0|rcpt 421"},

		{"no relay for strangers", nil, nil, by(to("x@elsewhere.example")), "reject 554 at rcpt by core", "connect 0|helo 0|mail 0|rcpt 554"},
		{"but for trusted networks", nil, nil, []func(*Scenario){to("x@elsewhere.example"), func(sc *Scenario) { sc.Trusted = true }}, "accept 0", "connect 0|helo 0|mail 0|rcpt 0|data 0|message 0"},
		{"and for who has logged in", nil, nil, []func(*Scenario){to("x@elsewhere.example"), func(sc *Scenario) { sc.User = "ann" }}, "accept 0", "connect 0|helo 0|auth 0|mail 0|rcpt 0|data 0|message 0"},
		{"no mail for who is unknown", nil, nil, by(to("nobody@example.test")), "reject 550 at rcpt by core", "connect 0|helo 0|mail 0|rcpt 550"},
		{"not even for users", nil, nil, []func(*Scenario){to("nobody@example.test"), func(sc *Scenario) { sc.User = "ann" }}, "reject 550 at rcpt by core", "connect 0|helo 0|auth 0|mail 0|rcpt 550"},
		{"accept of a check changes nothing", at(policy.Rcpt, policy.Verdict{Action: policy.Accept}), nil, by(to("x@elsewhere.example")), "reject 554 at rcpt by core", "connect 0|helo 0|mail 0|rcpt 554"},
		{"the check speaks first", at(policy.Rcpt, refuse(550)), nil, by(to("x@elsewhere.example")), "reject 550 at rcpt by p/c", "connect 0|helo 0|mail 0|rcpt 550"},
		{"defer_if_reject overrules the server's own refusal", at(policy.Mail, policy.Verdict{Action: policy.DeferIfReject, Status: mail.Status{Code: 451}}), nil, by(to("nobody@example.test")), "defer 451 at rcpt by p/c", "connect 0|helo 0|mail 0|rcpt 0|rcpt 451"},
		{"defer_if_permit does not", at(policy.Mail, policy.Verdict{Action: policy.DeferIfPermit, Status: mail.Status{Code: 450}}), nil, nil, "defer 450 at rcpt by p/c", "connect 0|helo 0|mail 0|rcpt 450"},
		{"submission without a login", nil, nil, by(func(sc *Scenario) { sc.Door = "submission" }), "reject 530 at mail by core", "connect 0|helo 0|mail 530"},
		{"no greeting", nil, nil, by(func(sc *Scenario) { sc.Helo = "" }), "reject 503 at mail by core", "connect 0|mail 503"},
		{"wrong password", nil, nil, by(func(sc *Scenario) { sc.User, sc.AuthOK = "ann", false }), "reject 535 at auth by core", "connect 0|helo 0|auth 535"},
		{"what a policy says to a wrong password", at(policy.Auth, refuse(454)), nil, by(func(sc *Scenario) { sc.User, sc.AuthOK = "ann", false }), "defer 454 at auth by p/c", "connect 0|helo 0|auth 454"},
		{"a login that a policy refuses", at(policy.Auth, refuse(535)), nil, []func(*Scenario){func(sc *Scenario) { sc.Door, sc.User = "imap", "ann" }}, "reject 535 at auth by p/c", "connect 0|auth 535"},
		{"a reader who comes in", nil, nil, []func(*Scenario){func(sc *Scenario) { sc.Door, sc.User = "imaps", "ann" }}, "accept 0", "connect 0|auth 0"},
		{"a reader is not held back", at(policy.Connect, refuse(554)), nil, []func(*Scenario){func(sc *Scenario) { sc.Door, sc.User = "pop3", "ann" }}, "reject 554 at connect by p/c", "connect 554"},

		{"the bare postmaster is asked of nobody", at(policy.Rcpt, refuse(550)), nil, by(to("PostMaster")), "accept 0", "connect 0|helo 0|mail 0|data 0|message 0"},
		{"a postmaster with a domain is", at(policy.Rcpt, refuse(550)), nil, by(to("postmaster@example.test")), "reject 550 at rcpt by p/c", "connect 0|helo 0|mail 0|rcpt 550"},
		{"nothing held stops him", at(policy.Helo, refuse(550)), nil, by(to("postmaster")), "accept 0", "connect 0|helo 0|mail 0|data 0|message 0"},

		{"one of two recipients", nil, nil, by(to("nobody@example.test", "bob@example.test")), "accept 0", "connect 0|helo 0|mail 0|rcpt 550|rcpt 0|data 0|message 0"},
		{"none of two: the first refusal", perRcpt(map[string]policy.Verdict{"a": refuse(450), "b": refuse(551)}), nil, by(to("a@example.test", "b@example.test")), "defer 450 at rcpt by p/c", "connect 0|helo 0|mail 0|rcpt 450|rcpt 551"},

		{"quarantine", at(policy.Message, quarantine), nil, nil, "quarantine 0 at message by p/c", "connect 0|helo 0|mail 0|rcpt 0|data 0|message 0"},
		{"hold at MAIL", at(policy.Mail, hold), nil, nil, "hold 0 at mail by p/c", "connect 0|helo 0|mail 0|rcpt 0|data 0|message 0"},
		{"discard at RCPT", at(policy.Rcpt, discard), nil, nil, "discard 0 at rcpt by p/c", "connect 0|helo 0|mail 0|rcpt 0|data 0|message 0"},
		{"one copy of two is discarded", perRcpt(map[string]policy.Verdict{"a": discard}), nil, by(to("a@example.test", "b@example.test")), "accept 0", "connect 0|helo 0|mail 0|rcpt 0|rcpt 0|data 0|message 0"},
		{"the better fate of two", perRcpt(map[string]policy.Verdict{"a": discard, "b": quarantine}), nil, by(to("a@example.test", "b@example.test")), "quarantine 0 at rcpt by p/c", "connect 0|helo 0|mail 0|rcpt 0|rcpt 0|data 0|message 0"},
		{"in whatever order", perRcpt(map[string]policy.Verdict{"a": quarantine, "b": hold}), nil, by(to("a@example.test", "b@example.test")), "quarantine 0 at rcpt by p/c", "connect 0|helo 0|mail 0|rcpt 0|rcpt 0|data 0|message 0"},
		{"the message's fate is the least", func(ev *policy.Event) (policy.Verdict, error) {
			switch {
			case ev.Stage == policy.Rcpt && ev.Recipient.Local() == "a":
				return discard, nil
			case ev.Stage == policy.Message:
				return hold, nil
			}
			return policy.Verdict{}, nil
		}, nil, by(to("a@example.test", "b@example.test")), "hold 0 at message by p/c", "connect 0|helo 0|mail 0|rcpt 0|rcpt 0|data 0|message 0"},
		{"a refusal is stronger than a fate", func(ev *policy.Event) (policy.Verdict, error) {
			switch ev.Stage {
			case policy.Rcpt:
				return discard, nil
			case policy.Message:
				return refuse(550), nil
			}
			return policy.Verdict{}, nil
		}, nil, nil, "reject 550 at message by p/c", "connect 0|helo 0|mail 0|rcpt 0|data 0|message 550"},
		{"no recipient", nil, nil, by(to()), "accept 0", "connect 0|helo 0|mail 0"},
		{"no mail", at(policy.Mail, refuse(550)), nil, by(func(sc *Scenario) { sc.NoMail = true }), "accept 0", "connect 0|helo 0"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var change []func(*policy.Policy)
			if row.policy != nil {
				change = append(change, row.policy)
			}
			h, sc := houseOf(row.judge, change...), mailOf(t, row.mail...)
			o := Begin(h.set, sc).Walk(t.Context(), sc)
			if got := brief(o); got != row.want {
				t.Errorf("got %s, want %s", got, row.want)
			}
			var replies []string
			for _, r := range o.Replies {
				replies = append(replies, fmt.Sprint(r.Stage, " ", r.Status.Code))
			}
			if got := strings.Join(replies, "|"); got != row.replies {
				t.Errorf("replies %s\nwant    %s", got, row.replies)
			}
			if d := o.Decisive; d.Status.Code != 0 && (d.Status.Text == "" || d.Status.Enhanced == "" || (d.By == Core) != (d.ID == "")) {
				t.Errorf("decisive %+v", d)
			}
		})
	}
}

// TestEffects: what checks add comes together once, and a second greeting takes
// the place of the first.
func TestEffects(t *testing.T) {
	h := houseOf(func(ev *policy.Event) (policy.Verdict, error) {
		v := policy.Verdict{Effects: policy.Effects{Tags: []string{ev.Stage.String()}, Score: 1}}
		if policy.LegalEffect(ev.Stage, policy.BCC) {
			v.Effects.BCC, v.Effects.Redirect = []mail.Path{path(t, "b@example.test")}, []mail.Path{path(t, "r@example.test")}
			v.Effects.Prepend, v.Effects.Tarpit = []policy.Field{{Name: "X-" + ev.Stage.String(), Value: "y"}}, time.Second
		}
		return v, nil
	})
	sc := mailOf(t, func(sc *Scenario) { sc.TLS, sc.User = "TLSv1.3", "ann" })
	s := Begin(h.set, sc)
	for range 2 { // those of the connection count for each mail, those of a mail for it alone
		o := s.Walk(t.Context(), sc)
		e := o.Effects
		if got := strings.Join(e.Tags, " "); got != "connect helo starttls auth mail rcpt data message" {
			t.Errorf("tags %s", got)
		}
		if e.Score != 8 || len(e.BCC) != 4 || len(e.Redirect) != 4 || fmt.Sprint(e.Prepend) != "[{X-mail y} {X-rcpt y} {X-data y} {X-message y}]" || e.Tarpit != 4*time.Second {
			t.Errorf("effects %+v", e)
		}
	}
}

// TestSecondMail: a session goes on from MAIL, and forgets the last mail.
func TestSecondMail(t *testing.T) {
	n := 0
	h := houseOf(func(ev *policy.Event) (policy.Verdict, error) {
		switch ev.Stage {
		case policy.Mail:
			if n++; n == 1 {
				return policy.Verdict{Action: policy.DeferIfPermit, Effects: policy.Effects{Tags: []string{"first"}}}, nil
			}
		case policy.Rcpt:
			if n == 2 {
				return policy.Verdict{Action: policy.Quarantine}, nil
			}
		}
		return policy.Verdict{}, nil
	})
	first := mailOf(t)
	s := Begin(h.set, first)
	if o := s.Walk(t.Context(), first); brief(o) != "defer 450 at rcpt by p/c" || len(o.Effects.Tags) != 1 {
		t.Errorf("first: %s, %+v", brief(o), o.Effects)
	}
	second := mailOf(t, func(sc *Scenario) {
		sc.Sender, sc.Rcpts = mail.Path{}, append(sc.Rcpts, path(t, "carl@example.test"))
	})
	h.seen = nil
	if o := s.Walk(t.Context(), second); brief(o) != "quarantine 0 at rcpt by p/c" || len(o.Effects.Tags) != 0 || len(o.Replies) != 5 {
		t.Errorf("second: %s, %+v", brief(o), o)
	}
	if got := h.stages(); got != "mail rcpt rcpt data message" {
		t.Errorf("second: stages %s", got)
	}
	if ev := h.seen[0]; !ev.HasSender || !ev.Sender.IsNull() || len(ev.Rcpts) != 0 || ev.Content != nil || !ev.Recipient.IsNull() {
		t.Errorf("second: mail %+v", ev)
	}
	if o := s.Walk(t.Context(), mailOf(t)); brief(o) != "accept 0" {
		t.Errorf("third: %s", brief(o))
	}
}

// TestOver: who was sent away says nothing more.
func TestOver(t *testing.T) {
	rows := map[string]judge{
		"connect": at(policy.Connect, policy.Verdict{Action: policy.Disconnect}),
		"rcpt":    at(policy.Rcpt, policy.Verdict{Action: policy.Disconnect, Status: mail.Status{Code: 521}}),
		"message": at(policy.Message, refuse(421)),
	}
	for name, j := range rows {
		h, sc := houseOf(j, func(p *policy.Policy) { p.ReplyAt = policy.Connect }), mailOf(t)
		s := Begin(h.set, sc)
		s.Walk(t.Context(), sc)
		h.seen = nil
		if o := s.Walk(t.Context(), sc); o.Verdict != "disconnect" || o.Decisive.By != Core || o.Decisive.Status.Code != 421 || len(h.seen) > 0 || len(o.Replies) != 1 {
			t.Errorf("%s: %s after %s", name, brief(o), h.stages())
		}
	}
}

// TestNames: what a client is called is what the scenario says, else the resolver.
func TestNames(t *testing.T) {
	zone := dns.NewZone(map[string]map[string][]string{
		dns.ReverseName(netip.MustParseAddr("192.0.2.1")): {"PTR": {"mail.example.net"}},
		dns.ReverseName(netip.MustParseAddr("192.0.2.2")): {"PTR": {"forged.example.net"}},
		"mail.example.net":   {"A": {"192.0.2.1"}},
		"forged.example.net": {"A": {"203.0.113.9"}},
	})
	text := func(s string) *string { return &s }
	rows := []struct {
		name            string
		client          string
		resolver        dns.Resolver
		verified, ptr   *string
		wantName, wantR string
	}{
		{"nobody knows", "192.0.2.1", nil, nil, nil, "", ""},
		{"verified", "192.0.2.1", zone, nil, nil, "mail.example.net", "mail.example.net"},
		{"not verified", "192.0.2.2", zone, nil, nil, "", "forged.example.net"},
		{"no name", "192.0.2.3", zone, nil, nil, "", ""},
		{"said", "192.0.2.1", zone, text("other.example"), nil, "other.example", "other.example"},
		{"both said", "192.0.2.1", zone, text(""), text("ptr.example"), "", "ptr.example"},
		{"only the reverse name is said", "192.0.2.1", zone, nil, text("ptr.example"), "mail.example.net", "ptr.example"},
		{"loopback is not asked for", "127.0.0.1", zone, nil, nil, "", ""},
	}
	for _, row := range rows {
		h := houseOf(nil)
		sc := mailOf(t, func(sc *Scenario) {
			sc.Client = netip.AddrPortFrom(netip.MustParseAddr(row.client), 25)
			sc.Resolver, sc.ClientName, sc.ReverseName = row.resolver, row.verified, row.ptr
		})
		Begin(h.set, sc).Walk(t.Context(), sc)
		if ev := h.seen[0]; ev.ClientName != row.wantName || ev.ReverseName != row.wantR {
			t.Errorf("%s: %q and %q, want %q and %q", row.name, ev.ClientName, ev.ReverseName, row.wantName, row.wantR)
		}
	}
}

// TestOwnRepliesAreOneLine: what the server itself says holds no control characters.
func TestOwnRepliesAreOneLine(t *testing.T) {
	odd := path(t, "\"a\x1b[2Jb\"@example.test")
	h := houseOf(nil)
	sc := mailOf(t, func(sc *Scenario) {
		sc.Rcpts, sc.Directory = []mail.Path{odd}, table{odd.String(): policy.ClassUnknown}
	})
	o := Begin(h.set, sc).Walk(t.Context(), sc)
	if o.Decisive.Status.Code != 550 || strings.ContainsFunc(o.Decisive.Status.Text, func(r rune) bool { return r < ' ' }) {
		t.Errorf("%+v", o.Decisive)
	}
}

// TestNoPolicies: a door that nothing guards.
func TestNoPolicies(t *testing.T) {
	sc := mailOf(t)
	if o := Begin(policy.NewSet(nil, policy.SetOptions{}), sc).Walk(t.Context(), sc); brief(o) != "accept 0" {
		t.Errorf("%s", brief(o))
	}
}
