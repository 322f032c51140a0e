package smtpd

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// owners are addresses and the logins that own them.
type owners map[string][]string

func (owners) Class(mail.Path) string        { return policy.ClassLocal }
func (o owners) Owners(p mail.Path) []string { return o[p.Key()] }

var testOwners = owners{
	"alice@local.example": {"alice@local.example"},
	"sales@local.example": {"alice@local.example", "bob@local.example"},
	"bob@local.example":   {"bob@local.example"},
}

// owning is a submission door that knows whose an address is.
func owning(c *Config, h *house) {
	c.Begin = func(netip.Addr) Rules {
		return Rules{
			Courier: h.courier, Directory: testOwners,
			Auth: impatient(users{}),
		}
	}
}

// loggedIn is a client that is alice.
func (h *house) loggedIn() *client {
	c := h.hello()
	c.do("AUTH PLAIN "+b64("\x00alice@local.example\x00wonderland"), "235")
	return c
}

func TestSubmittedHeader(t *testing.T) {
	const added = "Message-ID Date From"
	for _, row := range []struct {
		name, in, out string
		added         string
	}{
		{"nothing", "", "", added},
		{"blank line alone", "\r\n", "\r\n", added},
		{"body alone", "\r\nFrom: no field\r\n", "\r\nFrom: no field\r\n", added},
		{"no blank line", "From: alice@local.example\r\nhello world\r\n", "From: alice@local.example\r\n\r\nhello world\r\n", "Message-ID Date"},
		{"no header at all", "hello\r\n\r\nworld\r\n", "\r\nhello\r\n\r\nworld\r\n", added},
		{"complete", "from: a@b.example\r\nDATE: x\r\nmessage-id: y\r\n\r\nz\r\n", "from: a@b.example\r\nDATE: x\r\nmessage-id: y\r\n\r\nz\r\n", ""},
		{"ends in the header", "From: a@b.example\r\nDate: x\r\n", "From: a@b.example\r\nDate: x\r\n", "Message-ID"},
		{"bare name", "From: alice\r\n\r\n", "From: alice@local.example\r\n\r\n", "Message-ID Date"},
		{"name in brackets", "From: Alice Liddell <alice>\r\n\r\n", "From: Alice Liddell <alice@local.example>\r\n\r\n", "Message-ID Date"},
		{"every field", "From: a\r\nSender: b\r\nReply-To: c\r\nTo: d\r\nCc: e\r\nResent-To: f\r\nX-To: g\r\n\r\n",
			"From: a@local.example\r\nSender: b@local.example\r\nReply-To: c@local.example\r\nTo: d@local.example\r\nCc: e@local.example\r\nResent-To: f@local.example\r\nX-To: g\r\n\r\n", "Message-ID Date"},
		{"list over lines", "From: a\r\nTo: b,\r\n\t\"x, y\" <c>,\r\n d@e.example (comment, f), \"g h\"\r\n\r\n",
			"From: a@local.example\r\nTo: b@local.example,\r\n\t\"x, y\" <c@local.example>,\r\n d@e.example (comment, f), \"g h\"@local.example\r\n\r\n", "Message-ID Date"},
		{"group", "From: a\r\nTo: friends: b, c@d.example;, e\r\nCc: undisclosed-recipients:;\r\n\r\n",
			"From: a@local.example\r\nTo: friends: b@local.example, c@d.example;, e@local.example\r\nCc: undisclosed-recipients:;\r\n\r\n", "Message-ID Date"},
		{"no addresses", "From: a\r\nTo:\r\nCc: John Smith, <>, ,;\r\n\r\n", "From: a@local.example\r\nTo:\r\nCc: John Smith, <>, ,;\r\n\r\n", "Message-ID Date"},
		{"comment behind", "From: alice (Alice)\r\n\r\n", "From: alice@local.example (Alice)\r\n\r\n", "Message-ID Date"},
		{"route and literal", "From: <@x.example:a@b.example>\r\nTo: a@[192.0.2.1]\r\n\r\n", "From: <@x.example:a@b.example>\r\nTo: a@[192.0.2.1]\r\n\r\n", "Message-ID Date"},
		{"never ends", "From: \"alice\r\n\r\n", "From: \"alice\r\n\r\n", "Message-ID Date"},
		{"Bcc", "From: a@b.example\r\nBcc: secret@c.example,\r\n other@c.example\r\nResent-Bcc: x\r\nTo: d@e.example\r\n\r\n", "From: a@b.example\r\nTo: d@e.example\r\n\r\n", "Message-ID Date"},
		{"from a mailbox file", "From alice Mon Nov 23\r\nFrom: a@b.example\r\n\r\n", "From: a@b.example\r\n\r\n", "Message-ID Date"},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := open(t, Submission, nil)
			for _, octets := range []int{1, 7, 1 << 20} {
				c := h.loggedIn()
				c.do("MAIL FROM:<alice@local.example>", "250", "RCPT TO:<x@example.net>", "250", "DATA", "354")
				for _, p := range pieces([]byte(row.in+".\r\n"), octets) {
					c.send(string(p))
				}
				c.want("250")
				got := h.courier.taken()[len(h.courier.taken())-1]
				if got.text != row.out {
					t.Errorf("in pieces of %d:\n got %q\nwant %q", octets, got.text, row.out)
				}
				var names []string
				for f := range mail.HeaderFields([]byte(got.trace)) {
					if !f.Is("Received") {
						names = append(names, f.Name())
					}
				}
				if strings.Join(names, " ") != row.added {
					t.Errorf("added %q, want %q", names, row.added)
				}
				if !strings.Contains(row.in, "rom: ") && !strings.HasSuffix(got.trace, "\r\nFrom: alice@local.example\r\n") {
					t.Errorf("trace %q", got.trace)
				}
			}
		})
	}
}

// TestSubmittedByBDAT: the header may come in several chunks.
func TestSubmittedByBDAT(t *testing.T) {
	h := open(t, Submission, nil)
	c := h.loggedIn()
	c.do("MAIL FROM:<> BODY=BINARYMIME", "250", "RCPT TO:<x@example.net>", "250")
	for _, chunk := range []string{"BDAT 8\r\nFrom: al", "BDAT 10\r\nice\r\nTo: b", "BDAT 6 LAST\r\n\r\n\r\nx\n"} {
		c.send(chunk)
		c.want("250")
	}
	if got := h.courier.taken()[0].text; got != "From: alice@local.example\r\nTo: b@local.example\r\n\r\nx\n" {
		t.Errorf("%q", got)
	}
}

// TestNotSubmitted: other doors leave messages as they are.
func TestNotSubmitted(t *testing.T) {
	h := open(t, MX, func(c *Config, _ *house) { c.HideClient = true })
	c := h.hello()
	c.do("MAIL FROM:<a>", "250", "RCPT TO:<b>", "250", "DATA", "354", "From: a\r\nBcc: b\r\n\r\nc\r\n.", "250")
	m := h.courier.taken()[0]
	if m.text != "From: a\r\nBcc: b\r\n\r\nc\r\n" || strings.Contains(m.trace, "Date:") || m.env.From.Domain() != "" ||
		!strings.HasPrefix(m.trace, "Received: from client.example ([127.0.0.1])") {
		t.Errorf("%+v", m)
	}
}

func TestHideClient(t *testing.T) {
	h := open(t, Submission, func(c *Config, _ *house) { c.HideClient = true })
	c := h.loggedIn()
	c.do("MAIL FROM:<alice>", "250", "RCPT TO:<bob>", "250", "RCPT TO:<postmaster>", "250", "DATA", "354", ".", "250")
	m := h.courier.taken()[0]
	if !strings.HasPrefix(m.trace, "Received: from localhost (localhost [127.0.0.1])\r\n\tby mx.local.example with ESMTPA id ") || strings.Contains(m.trace, "client.example") {
		t.Errorf("trace %q", m.trace)
	}
	if m.env.From.String() != "alice@local.example" || m.env.Rcpts[0].To.String() != "bob@local.example" || m.env.Rcpts[1].To.String() != "postmaster" {
		t.Errorf("envelope %+v", m.env)
	}
}

func TestOwnSender(t *testing.T) {
	for _, row := range []struct {
		name     string
		own      Ownership
		from     string // reverse-path
		mail     string // reply to MAIL
		header   string
		accepted string // reply to the message
	}{
		{"own", OwnBoth, "alice@local.example", "250", "From: Alice <ALICE@Local.example>", "250"},
		{"shared", OwnBoth, "sales@local.example", "250", "From: sales@local.example", "250"},
		{"without domain", OwnBoth, "alice", "250", "From: sales", "250"},
		{"another's", OwnBoth, "bob@local.example", "553 5.7.1 <bob@local.example>: Sender address rejected: not owned by user alice@local.example", "", ""},
		{"nobody's", OwnBoth, "x@elsewhere.example", "553 5.7.1", "", ""},
		{"null", OwnBoth, "", "250", "From: alice@local.example", "250"},
		{"header another's", OwnBoth, "alice@local.example", "250", "From: bob@local.example", "550 5.7.1 <bob@local.example>: From address rejected: not owned by user alice@local.example"},
		{"header nobody's", OwnBoth, "", "250", "From: \"alice@local.example\" <ceo@elsewhere.example>", "550 5.7.1"},
		{"one of two", OwnBoth, "alice@local.example", "250", "From: alice@local.example, bob@local.example", "550 5.7.1"},
		{"both of two", OwnBoth, "alice@local.example", "250", "From: alice@local.example,\r\n sales@local.example", "250"},
		{"two fields", OwnBoth, "alice@local.example", "250", "From: alice@local.example\r\nfrom: sales@local.example", "550 5.6.0"},
		{"spelled with a comment", OwnBoth, "alice@local.example", "250", "From: bob(x)@local.example", "550 5.7.1 <bob@local.example>"},
		{"two in brackets", OwnBoth, "alice@local.example", "250", "From: <bob@local.example> <alice@local.example>", "550 5.7.1 <bob@local.example>"},
		{"blank before the colon", OwnBoth, "alice@local.example", "250", "From : bob@local.example", "550 5.7.1 <bob@local.example>"},
		{"hidden in a body without its blank line", OwnBoth, "alice@local.example", "250", "no field\r\nFrom: bob@local.example", "250"},
		{"grows too big", OwnBoth, "alice@local.example", "250", "From: alice\r\nTo: " + strings.Repeat("a,", 200000), "552 5.3.4"},
		{"behind a route", OwnBoth, "alice@local.example", "250", "From: <@alice@local.example:bob@local.example>", "550 5.7.1"},
		{"empty", OwnBoth, "alice@local.example", "250", "From:", "550 5.7.1"},
		{"no address", OwnBoth, "alice@local.example", "250", "From: John Smith", "550 5.7.1"},
		{"angle brackets without", OwnBoth, "alice@local.example", "250", "From: <>", "550 5.7.1"},
		{"group", OwnBoth, "alice@local.example", "250", "From: us: alice@local.example, bob@local.example;", "550 5.7.1"},
		{"many", OwnBoth, "alice@local.example", "250", "From: " + strings.Repeat("alice,\r\n ", 101) + "alice", "550 5.7.1 From field has no address or too many"},
		{"sender another's", OwnBoth, "alice@local.example", "250", "From: alice@local.example\r\nSender: bob@local.example", "550 5.7.1 <bob@local.example>: Sender"},
		{"others may be anybody", OwnBoth, "alice@local.example", "250", "From: alice\r\nReply-To: bob@local.example\r\nTo: x@elsewhere.example", "250"},
		{"no From", OwnBoth, "alice@local.example", "250", "To: bob@local.example", "250"},
		{"envelope only", OwnEnvelope, "alice@local.example", "250", "From: bob@local.example", "250"},
		{"envelope only, another's", OwnEnvelope, "bob@local.example", "553 5.7.1", "", ""},
		{"off", OwnOff, "x@elsewhere.example", "250", "From: a@b.example\r\nFrom: c@d.example", "250"},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := open(t, Submission, func(c *Config, h *house) { owning(c, h); c.OwnSender = row.own })
			c := h.loggedIn()
			c.do("MAIL FROM:<"+row.from+">", row.mail)
			if row.mail != "250" {
				c.do("RCPT TO:<x@example.net>", "503", "MAIL FROM:<alice@local.example>", "250")
				return
			}
			c.do("RCPT TO:<x@example.net>", "250", "DATA", "354", row.header+"\r\nSubject: x\r\n\r\n"+strings.Repeat("text\r\n", 20000)+".", row.accepted)
			if n := len(h.courier.taken()); (n == 1) != (row.accepted == "250") {
				t.Errorf("%d messages", n)
			}
			c.do("NOOP", "250")
		})
	}
	if _, err := New(Config{Profile: Submission, Hostname: "x.example", Begin: func(netip.Addr) Rules { return Rules{} }, OwnSender: "some"}); err == nil {
		t.Error("an unknown ownership is taken")
	}
}

// FuzzSubmission: the header section of a submitted message keeps its fields,
// and is the same however the network cut it.
func FuzzSubmission(f *testing.F) {
	f.Add([]byte("From: alice\r\nTo: a, b <c>, g: d;\r\nBcc: x\r\n\r\nbody\r\n"), 3)
	f.Add([]byte("no header\r\n\r\n"), 1)
	f.Add([]byte("From: \"a\\\"b\" (c (d)) <@x:e>\r\nSender : f\r\n g\r\n\r\n"), 5)
	f.Add([]byte("To: [,<\\\r\n"), 2)
	f.Fuzz(func(t *testing.T, in []byte, n int) {
		once := submitted(t, in, len(in)+1)
		if got := submitted(t, in, max(n, 1)); got != once {
			t.Fatalf("%q in pieces of %d: %q, at once %q", in, n, got, once)
		}
		if again := submitted(t, []byte(once), len(once)+1); again != once {
			t.Fatalf("%q becomes %q and then %q", in, once, again)
		}
	})
}

// submitted passes octets through a submission door's session.
func submitted(t *testing.T, in []byte, n int) string {
	srv, k := theatre(t, Submission, nil)
	s := newSession(srv, newScript())
	s.user = "alice@local.example"
	s.tx = &transaction{}
	s.rules = Rules{Courier: k}
	s.judge = &script{}
	d := &draft{c: k, env: &s.tx.env}
	s.tx.draft = d
	for _, p := range pieces(in, n) {
		s.store(p)
	}
	if !s.tx.header.done {
		s.submitHead()
	}
	return d.b.String()
}
