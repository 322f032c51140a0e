// Package bounce composes delivery status notifications: multipart/report messages
// (RFC 6522) that tell a sender what became of a message (RFC 3461, RFC 3464, and
// RFC 6533 for addresses in UTF-8).
//
// A notice has three parts: text for people, the same for programs, and the
// message or its header section. It is streamed: neither the original nor a long
// list of recipients is held in memory.
//
// What other hosts said is quoted word for word, but never as it came: controls
// and line ends are replaced, so that a hostile reply cannot add a header field or
// end a part, and its length is bounded.
//
// # BUGS
//
// The text is English. Fields of the original are returned as they are, also where
// they hold octets that no standard allows; such a part is labelled 8bit. A message
// in BINARYMIME is returned as headers only.
package bounce

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// Kind is what a notice tells.
type Kind int

// The kinds. Double goes to the postmaster about a notice that failed itself.
const (
	Failed    Kind = iota + 1
	Delayed        // and still being tried
	Delivered      // into the mailbox
	Relayed        // to a host that sends no notices of success
	Expanded       // to a list
	Double
)

// String is the kind as the field Action has it (RFC 3464 §2.3.3).
func (k Kind) String() string {
	switch k {
	case Failed, Double:
		return "failed"
	case Delayed:
		return "delayed"
	case Delivered:
		return "delivered"
	case Relayed:
		return "relayed"
	case Expanded:
		return "expanded"
	}
	return "unknown"
}

// Wanted reports whether the sender wants to hear of kind k (RFC 3461 §4.1). Who
// has said nothing hears of failures and delays.
func Wanted(r mail.Recipient, k Kind) bool {
	switch k {
	case Double:
		return true
	case Failed:
		return len(r.Notify) == 0 || slices.Contains(r.Notify, "FAILURE")
	case Delayed:
		return len(r.Notify) == 0 || slices.Contains(r.Notify, "DELAY")
	}
	return slices.Contains(r.Notify, "SUCCESS")
}

// Recipient is one that the notice is about.
type Recipient struct {
	mail.Recipient           // as the sender knows it
	Final          mail.Path // where the message was sent
	Outcome        mail.Outcome
	LastAttempt    time.Time // zero: unknown
	WillRetryUntil time.Time // of Delayed
}

// Notice is what Compose needs.
type Notice struct {
	Kind         Kind
	ReportingMTA string  // our host name
	ID           mail.ID // of the original
	Envelope     *mail.Envelope
	Arrival      time.Time // of the original
	Recipients   []Recipient

	Head     []byte    // header fields above Original
	Original io.Reader // the message, CR LF line ends
	Size     int64     // of Original in octets

	Now        time.Time
	NewID      mail.ID   // of the notice
	Postmaster mail.Path // who is told of Double
	Excerpt    int64     // octets: a longer message is returned as its header section; 0: 50,000
}

// Compose writes the notice to w, with CR LF line ends, and returns its envelope:
// the null reverse-path and one recipient. Errors: a null sender, who must not be
// told anything (RFC 5321 §4.5.5), an unknown Kind, and those of w and Original.
func Compose(w io.Writer, n Notice) (mail.Envelope, error) {
	env := mail.Envelope{ID: n.NewID, Received: n.Now, Body: mail.Body8Bit}
	to := n.Envelope.From
	if n.Kind == Double {
		to = n.Postmaster
	}
	switch {
	case to.IsNull():
		return env, errors.New("a notice needs somebody to go to")
	case n.Kind < Failed || n.Kind > Double:
		return env, fmt.Errorf("no kind of notice %d", n.Kind)
	case len(n.Recipients) == 0:
		return env, errors.New("a notice about no recipient")
	}
	if n.Excerpt == 0 {
		n.Excerpt = 50_000
	}
	env.Rcpts = []mail.Recipient{{To: to, Notify: []string{"NEVER"}}}
	if n.Kind == Double {
		env.Rcpts[0].Notify = nil
	}
	c := &composer{n: &n, to: to, w: bufio.NewWriter(w), boundary: "=_" + rand.Text()}
	c.utf8 = n.Envelope.UTF8 || to.NeedsUTF8()
	for i := range n.Recipients {
		c.utf8 = c.utf8 || n.Recipients[i].To.NeedsUTF8() || n.Recipients[i].Final.NeedsUTF8()
	}
	env.UTF8 = c.utf8
	if err := c.compose(); err != nil {
		return env, err
	}
	return env, c.w.Flush()
}

// composer writes one notice.
type composer struct {
	n        *Notice
	to       mail.Path
	w        *bufio.Writer // remembers the first error
	boundary string
	utf8     bool // RFC 6533
}

func (c *composer) line(parts ...string) {
	for _, p := range parts {
		_, _ = c.w.WriteString(p) // Flush has the error
	}
	_, _ = c.w.WriteString("\r\n")
}

func (c *composer) compose() error {
	section, whole, err := c.header()
	if err != nil {
		return err
	}
	c.top(section)
	c.text()
	c.status()
	if err := c.original(section, whole); err != nil {
		return err
	}
	c.line()
	c.line("--", c.boundary, "--")
	return nil
}

// subject says what the notice is, first of all.
func (c *composer) subject() string {
	switch c.n.Kind {
	case Delayed:
		return "Delayed mail (still being tried)"
	case Delivered, Relayed, Expanded:
		return "Mail delivered"
	case Double:
		return "A failure notice could not be delivered"
	}
	return "Undelivered mail returned to sender"
}

// top writes the notice's own header section. section is the original's.
func (c *composer) top(section []byte) {
	n := c.n
	c.line("Date: ", n.Now.Format(time.RFC1123Z))
	c.line("From: \"Mail Delivery System\" <MAILER-DAEMON@", n.ReportingMTA, ">")
	c.line("To: <", c.to.String(), ">")
	c.line("Subject: ", c.subject())
	c.line("Message-ID: <", string(n.NewID), "@", n.ReportingMTA, ">")
	if id := messageID(section); id != "" {
		c.line("In-Reply-To: ", id)
		c.line("References: ", id)
	}
	c.line("Auto-Submitted: auto-replied") // RFC 3834 §5
	c.line("MIME-Version: 1.0")
	c.line("Content-Type: multipart/report; report-type=delivery-status;")
	c.line("\tboundary=\"", c.boundary, "\"")
	c.line("Content-Transfer-Encoding: 8bit")
	c.line()
	c.line("This is a MIME message; a mail program shows its parts.")
}

// part begins a part.
func (c *composer) part(description, contentType, encoding string) {
	c.line()
	c.line("--", c.boundary)
	c.line("Content-Description: ", description)
	c.line("Content-Type: ", contentType)
	if encoding != "" {
		c.line("Content-Transfer-Encoding: ", encoding)
	}
	c.line()
}

// typ is a media type, or its form for UTF-8.
func (c *composer) typ(plain, global string) string {
	if c.utf8 {
		return global
	}
	return plain
}

// addrType is the type of an address in a status field (RFC 3464 §2.1.2, RFC 6533 §3).
func (c *composer) address(p mail.Path) string {
	if p.NeedsUTF8() {
		return "utf-8; " + clean(p.String(), maxField)
	}
	return "rfc822; " + clean(p.String(), maxField)
}

// status writes the part for programs (RFC 3464 §2).
func (c *composer) status() {
	n := c.n
	c.part("Delivery report", c.typ("message/delivery-status", "message/global-delivery-status; charset=utf-8"), "8bit")
	if n.Envelope.EnvID != "" {
		c.line("Original-Envelope-Id: ", clean(n.Envelope.EnvID, maxField))
	}
	c.line("Reporting-MTA: dns; ", n.ReportingMTA)
	c.line("X-Queue-ID: ", string(n.ID))
	if n.Envelope.Client.Helo != "" {
		c.line("Received-From-MTA: dns; ", clean(n.Envelope.Client.Helo, maxField))
	}
	c.line("Arrival-Date: ", n.Arrival.Format(time.RFC1123Z))
	for i := range n.Recipients {
		r := &n.Recipients[i]
		c.line()
		if typ, addr, ok := strings.Cut(r.ORcpt, ";"); ok {
			c.line("Original-Recipient: ", clean(typ, 40), "; ", clean(addr, maxField))
		} else if r.Final.Key() != r.To.Key() {
			c.line("Original-Recipient: ", c.address(r.To))
		}
		c.line("Final-Recipient: ", c.address(r.Final))
		c.line("Action: ", n.Kind.String())
		c.line("Status: ", statusCode(r.Outcome.Status, n.Kind))
		if r.Outcome.Remote != "" {
			c.line("Remote-MTA: dns; ", clean(remoteName(r.Outcome.Remote), maxField))
			c.fold("Diagnostic-Code: smtp; ", reply(r.Outcome.Status))
		} else if r.Outcome.Status.Text != "" {
			c.fold("Diagnostic-Code: X-Wafer; ", reply(r.Outcome.Status))
		}
		if !r.LastAttempt.IsZero() {
			c.line("Last-Attempt-Date: ", r.LastAttempt.Format(time.RFC1123Z))
		}
		if n.Kind == Delayed && !r.WillRetryUntil.IsZero() {
			c.line("Will-Retry-Until: ", r.WillRetryUntil.Format(time.RFC1123Z))
		}
	}
}

// fold writes a field over several lines.
func (c *composer) fold(name, body string) {
	first := true
	for _, l := range wrap(body, 70) {
		if first {
			c.line(name, l)
		} else {
			c.line("    ", l)
		}
		first = false
	}
}

// statusCode is the enhanced code of RFC 3463, whatever the host said.
func statusCode(s mail.Status, k Kind) string {
	class := byte('5')
	switch {
	case k == Delayed:
		class = '4'
	case k != Failed && k != Double:
		class = '2'
	case s.Temporary(): // it has expired
		class = '4'
	}
	e := s.Enhanced
	if len(e) < 5 || len(e) > 9 || e[1] != '.' || strings.Trim(e, "0123456789.") != "" || strings.Count(e, ".") != 2 || e[0] != class {
		return string(class) + ".0.0"
	}
	return e
}

// remoteName is the name of a host without its address.
func remoteName(remote string) string {
	name, _, _ := strings.Cut(remote, "[")
	if name == "" {
		return remote
	}
	return name
}
