package bounce

import (
	"fmt"
	"strings"
	"time"
)

// text writes the part for people.
func (c *composer) text() {
	n := c.n
	charset := "us-ascii"
	if c.utf8 || c.says8Bit() {
		charset = "utf-8"
	}
	c.part("Notification", "text/plain; charset="+charset, map[bool]string{true: "8bit", false: "7bit"}[charset == "utf-8"])
	c.line("This is the mail server at ", n.ReportingMTA, ".")
	c.line()
	for _, p := range c.opening() {
		for _, l := range wrap(p, 72) {
			c.line(l)
		}
		c.line()
	}
	for i := range n.Recipients {
		c.about(&n.Recipients[i])
	}
	c.line("Queue id: ", string(n.ID))
}

// says8Bit reports whether a reply needs more than ASCII.
func (c *composer) says8Bit() bool {
	for i := range c.n.Recipients {
		for _, b := range []byte(reply(c.n.Recipients[i].Outcome.Status)) {
			if b >= 0x80 {
				return true
			}
		}
	}
	return false
}

// opening says what has happened, and what to do.
func (c *composer) opening() []string {
	n := c.n
	arrived := n.Arrival.Format("Monday, 2 January 2006 15:04 -0700")
	many := len(n.Recipients) > 1
	whom := map[bool]string{true: "the recipients below", false: "the recipient below"}[many]
	switch n.Kind {
	case Delayed:
		p := []string{
			"Your message of " + arrived + " has not reached " + whom + " yet. This is a warning only: THERE IS NO NEED TO SEND IT AGAIN.",
		}
		if until := n.Recipients[0].WillRetryUntil; !until.IsZero() {
			p = append(p, "It will be tried until "+until.Format("Monday, 2 January 2006 15:04 -0700")+". If that fails you will be told.")
		}
		return p
	case Delivered:
		return []string{"As you asked to be told: your message of " + arrived + " is in the mailbox of " + whom + "."}
	case Relayed:
		return []string{"As you asked to be told: your message of " + arrived + " for " + whom + " was handed to the next mail server. That one sends no such notices, so you will not hear more of it unless it fails."}
	case Expanded:
		return []string{"As you asked to be told: your message of " + arrived + " for " + whom + " was sent on to the members of a list."}
	case Double:
		return []string{"A failure notice that this server sent could itself not be delivered. The notice, with the message that it returns, is attached as far as there was room. Its recipient is the sender of that message, so an address here may be forged or misspelt."}
	}
	p := []string{"Your message of " + arrived + " could not be delivered to " + whom + ". It is attached, and will not be tried again."}
	if c.expired() {
		p = append(p, fmt.Sprintf("It was tried for %s, which is as long as this server keeps mail.", span(n.Now.Sub(n.Arrival))))
	}
	return append(p, "What the other server said is quoted under each address. If it does not help, send it to your postmaster.")
}

// expired reports whether patience, rather than a refusal, has ended.
func (c *composer) expired() bool {
	for i := range c.n.Recipients {
		if c.n.Recipients[i].Outcome.Status.Temporary() {
			return true
		}
	}
	return false
}

// span is a time in words.
func span(d time.Duration) string {
	count := func(n int, unit string) string {
		if n == 1 {
			return "1 " + unit
		}
		return fmt.Sprintf("%d %ss", n, unit)
	}
	switch {
	case d >= 48*time.Hour:
		return count(int(d.Hours())/24, "day")
	case d >= 2*time.Hour:
		return count(int(d.Hours()), "hour")
	}
	return count(max(int(d.Minutes()), 1), "minute")
}

// about tells of one recipient.
func (c *composer) about(r *Recipient) {
	c.line("<", clean(r.To.Readable(), maxField), ">")
	if r.Final.Key() != r.To.Key() {
		c.line("    (forwarded to <", clean(r.Final.Readable(), maxField), ">)")
	}
	said := reply(r.Outcome.Status)
	switch {
	case said == "":
	case r.Outcome.Remote != "":
		c.line("    ", clean(r.Outcome.Remote, maxField), " said:")
		c.quote(said)
	default:
		c.quote(strings.ToUpper(said[:1]) + said[1:])
	}
	c.line()
}

func (c *composer) quote(s string) {
	for _, l := range wrap(s, 66) {
		c.line("    ", l)
	}
}
