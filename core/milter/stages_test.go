package milter

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// want compares the journal.
func want(t *testing.T, f *fake, what, journal string) {
	t.Helper()
	if got := f.take(); got != journal {
		t.Errorf("%s: the milter was told\n %s\nwant\n %s", what, got, journal)
	}
}

const told = "L From|a@b.example; L Subject|two\n words; N; B body\r\n; E"

func TestEveryStage(t *testing.T) {
	f := (&fake{}).start(t)
	w := newWalk(t, open(t, Options{Address: f.address}))
	for _, row := range []struct {
		what string
		ask  func() string
		told string
	}{
		{"connect", w.connect, "O; C c.example|4|4711|192.0.2.7"},
		{"helo", w.helo, "H h.example"},
		{"mail", func() string { return w.mail("Q1", `"x y"@b.example`) }, `M <"x y"@b.example>`},
		{"rcpt", func() string { return w.rcpt("r@d.example") }, "R <r@d.example>"},
		{"rcpt again", func() string { return w.rcpt("s@d.example") }, "R <s@d.example>"},
		{"data", w.data, "T"},
		{"message", func() string { return w.message(simpleMessage) }, told},
		{"another mail", func() string { return w.mail("Q2", "") }, "M <>"},
		{"its rcpt", func() string { return w.rcpt("r@d.example") }, "R <r@d.example>"},
		{"mail after RSET", func() string { return w.mail("Q3", "a@b.example") }, "A; M <a@b.example>"},
		{"helo within a transaction", w.helo, "A; H h.example"},
	} {
		if got := row.ask(); got != "next" {
			t.Errorf("%s: %s", row.what, got)
		}
		want(t, f, row.what, row.told)
	}
}

// TestLate: whatever subset of stages is asked, the milter hears of all, in order.
func TestLate(t *testing.T) {
	const (
		before   = "O; C c.example|4|4711|192.0.2.7; H h.example; M <a@b.example>"
		both     = "; R <r@d.example>; R <s@d.example>"
		complete = before + both + "; T; " + told
	)
	for _, row := range []struct {
		name string
		at   []policy.Stage
		told string
	}{
		{"message alone", []policy.Stage{policy.Message}, complete},
		{"mail and message", []policy.Stage{policy.Mail, policy.Message}, complete},
		{"rcpt and message", []policy.Stage{policy.Rcpt, policy.Message}, complete},
		{"rcpt alone", []policy.Stage{policy.Rcpt}, before + both},
		{"connect and data", []policy.Stage{policy.Connect, policy.Data}, before + both + "; T"},
		{"helo alone", []policy.Stage{policy.Helo}, "O; C c.example|4|4711|192.0.2.7; H h.example"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := (&fake{}).start(t)
			w := newWalk(t, open(t, Options{Address: f.address}))
			at := map[policy.Stage]bool{}
			for _, s := range row.at {
				at[s] = true
			}
			for _, stage := range []policy.Stage{policy.Connect, policy.Helo, policy.Mail, policy.Rcpt, policy.Rcpt, policy.Data, policy.Message} {
				switch {
				case stage == policy.Mail:
					w.envelope("Q1", "a@b.example")
				case stage == policy.Rcpt && w.ev.Recipient.IsNull():
					w.ev.Recipient = pathOf(t, "r@d.example")
				case stage == policy.Rcpt:
					w.ev.Rcpts, w.ev.Recipient = pathsOf(t, "r@d.example"), pathOf(t, "s@d.example")
				case stage == policy.Data:
					w.ev.Rcpts = pathsOf(t, "r@d.example", "s@d.example")
				case stage == policy.Message:
					w.ev.Content, w.ev.Size = contentOf(simpleMessage), int64(len(simpleMessage))
				}
				if at[stage] {
					if got := w.say(stage); got != "next" {
						t.Errorf("%s: %s", stage, got)
					}
				}
			}
			want(t, f, row.name, row.told)
		})
	}
}

// TestSecondMessage: a check at message alone tells the second message on the same
// connection, without connect and helo.
func TestSecondMessage(t *testing.T) {
	f := (&fake{}).start(t)
	w := newWalk(t, open(t, Options{Address: f.address})).envelope("Q1", "a@b.example", "r@d.example")
	w.message(simpleMessage)
	f.take()
	w.envelope("Q2", "", "s@d.example").message(simpleMessage)
	want(t, f, "the second", "M <>; R <s@d.example>; T; "+told)
	w.ev.Helo, w.ev.TLS = "i.example", mail.TLS{Version: "TLSv1.3", Cipher: "TLS_AES_256_GCM_SHA384"}
	w.envelope("Q3", "", "s@d.example").message(simpleMessage)
	want(t, f, "after STARTTLS", "H i.example; M <>; R <s@d.example>; T; "+told)
	w.ev.Client, w.ev.ClientName = netip.MustParseAddrPort("[2001:db8::1]:99"), ""
	w.envelope("Q4", "", "s@d.example").message(simpleMessage)
	if got := strings.Replace(f.take(), "Q; ", "", 1); !strings.HasPrefix(got, "O; C unknown|6|99|2001:db8::1; H i.example; M <>") {
		t.Errorf("another client: %s", got)
	}
	f.waitGone(t)
}

// TestWithoutIDs: where transactions have no ids, the first recipient begins a new one.
func TestWithoutIDs(t *testing.T) {
	f := (&fake{}).start(t)
	w := newWalk(t, open(t, Options{Address: f.address})).envelope("", "a@b.example")
	w.rcpt("r@d.example")
	w.rcpt("s@d.example")
	w.envelope("", "a@b.example")
	f.take()
	w.rcpt("t@d.example")
	want(t, f, "rcpt", "A; M <a@b.example>; R <t@d.example>")
}

// TestWithdrawn: a recipient whom the milter accepted and another refused is taken back.
func TestWithdrawn(t *testing.T) {
	f := (&fake{says: func(_ int, cmd byte, data string) (string, bool) {
		if cmd == cmdRcpt && strings.HasPrefix(data, "<bad") {
			return pack(ansReject, ""), true
		}
		return "", true
	}}).start(t)
	w := newWalk(t, open(t, Options{Address: f.address}))
	w.mail("Q1", "a@b.example")
	for _, to := range []string{"r@d.example", "bad@d.example", "s@d.example"} {
		w.rcpt(to)
	}
	f.take()
	w.ev.Rcpts = w.ev.Rcpts[1:]
	if got := w.data(); got != "next" {
		t.Error(got)
	}
	want(t, f, "data", "A; M <a@b.example>; R <s@d.example>; T")
	w.message(simpleMessage)
	want(t, f, "message", told)
}

func TestSkippedSteps(t *testing.T) {
	for _, row := range []struct {
		name    string
		version uint32
		steps   uint32
		told    string
	}{
		{"all", 6, 0, "O; C c.example|4|4711|192.0.2.7; H h.example; M <a@b.example>; R <r@d.example>; T; L From|a@b.example; L Subject|two\n words; N; B body\r\n; E"},
		{"leading space", 6, leadingSpace, "O; C c.example|4|4711|192.0.2.7; H h.example; M <a@b.example>; R <r@d.example>; T; L From| a@b.example; L Subject|  two\n words; N; B body\r\n; E"},
		{"no connect, helo", 6, noConnect | noHelo, "O; M <a@b.example>; R <r@d.example>; T; L From|a@b.example; L Subject|two\n words; N; B body\r\n; E"},
		{"no mail, rcpt", 6, noMail | noRcpt, "O; C c.example|4|4711|192.0.2.7; H h.example; T; L From|a@b.example; L Subject|two\n words; N; B body\r\n; E"},
		{"no header, eoh", 6, noHeaders | noEOH, "O; C c.example|4|4711|192.0.2.7; H h.example; M <a@b.example>; R <r@d.example>; T; B body\r\n; E"},
		{"nothing but the end", 6, noConnect | noHelo | noMail | noRcpt | noData | noHeaders | noEOH | noBody, "O; E"},
		{"silent", 6, silentConnect | silentHelo | silentMail | silentRcpt | silentData | silentHeader | silentEOH | silentBody, "O; C c.example|4|4711|192.0.2.7; H h.example; M <a@b.example>; R <r@d.example>; T; L From|a@b.example; L Subject|two\n words; N; B body\r\n; E"},
		{"version 3 has no data", 3, 0, "O; C c.example|4|4711|192.0.2.7; H h.example; M <a@b.example>; R <r@d.example>; L From|a@b.example; L Subject|two\n words; N; B body\r\n; E"},
		{"version 2", 2, noHelo, "O; C c.example|4|4711|192.0.2.7; M <a@b.example>; R <r@d.example>; L From|a@b.example; L Subject|two\n words; N; B body\r\n; E"},
		{"version 4", 4, noHelo | silentHeader, "O; C c.example|4|4711|192.0.2.7; M <a@b.example>; R <r@d.example>; T; L From|a@b.example; L Subject|two\n words; N; B body\r\n; E"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := (&fake{version: row.version, steps: row.steps}).start(t)
			w := newWalk(t, open(t, Options{Address: f.address})).envelope("Q1", "a@b.example", "r@d.example")
			if got := w.message(simpleMessage); got != "next" {
				t.Error(got)
			}
			want(t, f, row.name, row.told)
		})
	}
}

// TestContent: what a milter is told of messages of other shapes.
func TestContent(t *testing.T) {
	long := strings.Repeat("x", maxValue+10)
	for _, row := range []struct {
		name    string
		content policy.Content
		told    string
	}{
		{"fields asked for one by one", plainContent(simpleMessage), "L From|a@b.example; L Subject|two words; N; B body\r\n; E"},
		{"empty", contentOf(""), "N; E"},
		{"no header", contentOf("\r\nbody"), "N; B \r\nbody; E"},
		{"no header, one by one", plainContent("\r\nbody"), "N; B body; E"},
		{"no body", contentOf("A: b\r\n\r\n"), "L A|b; N; E"},
		{"no empty line", contentOf("A: b\r\n"), "L A|b; N; E"},
		{"a line that is no field", contentOf("A: b\r\nnonsense\r\nC : d\r\n\r\n"), "L A|b; L C|d; N; E"},
		{"NUL", contentOf("A: b\x00c\r\n\r\n"), "L A|b c; N; E"},
		{"an empty field", contentOf("A:\r\nB: \r\n\r\n"), "L A|; L B|; N; E"},
		{"a long field", contentOf("A: " + long + "\r\n\r\n"), "L A|" + long[:maxValue] + "; N; E"},
		{"a large body", contentOf("A: b\r\n\r\n" + strings.Repeat("0123456789abcdef", 1<<13)), "L A|b; N; B 65535 octets; B 65535 octets; B ef; E"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := (&fake{}).start(t)
			w := newWalk(t, open(t, Options{Address: f.address})).envelope("Q1", "a@b.example", "r@d.example")
			w.data()
			f.take()
			w.ev.Content, w.ev.Size = row.content, 1<<17+8
			if row.name == "no header" { // contentOf finds no end of the header; NewContent does
				w.ev.Content, row.told = whole{plainContent("\r\nbody"), "\r\n"}, "N; B body; E"
			}
			if got := w.say(policy.Message); got != "next" {
				t.Error(got)
			}
			want(t, f, row.name, row.told)
		})
	}
}

// TestHiddenHeader: what Content does not show cannot be told, so nothing is decided.
func TestHiddenHeader(t *testing.T) {
	for name, content := range map[string]policy.Content{
		"cut":         whole{plainContent("A: b\r\nC: d\r\n\r\n body"), "A: b\r\n"},
		"many":        plainContent(strings.Repeat("a:b\r\n", maxFields+1) + "\r\n"),
		"long":        plainContent("a: " + strings.Repeat("x", maxShown) + "\r\n\r\n"),
		"none at all": nil,
	} {
		f := (&fake{}).start(t)
		var log bytes.Buffer
		o := Options{Address: f.address, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		w := newWalk(t, open(t, o)).envelope("Q1", "a@b.example", "r@d.example")
		w.ev.Content, w.ev.Size = content, 100
		if got := w.say(policy.Message); !strings.HasPrefix(got, "error: ") || !strings.HasSuffix(got, "the message cannot be shown to it") {
			t.Errorf("%s: %s", name, got)
		}
		if log.Len() > 0 {
			t.Errorf("%s: the milter is blamed: %s", name, &log)
		}
	}
}
