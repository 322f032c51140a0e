package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// smtpAttacks are what can be done to SMTP alone.
func smtpAttacks() []attack {
	lines := answers("mx")
	return []attack{
		{"a command of 10 MB", "mx", func(p *peer) error {
			if err := p.greeted(); err != nil {
				return err
			}
			said := p.drainTo()
			err := errors.Join(p.pour("A", 10<<20), p.trySend("\r\nQUIT\r\n"), half(p))
			text, gone := said()
			if !strings.HasPrefix(text, "500 ") && !strings.HasPrefix(text, "421 ") {
				err = errors.Join(err, fmt.Errorf("it said %.200q", text))
			}
			return errors.Join(err, gone, sane(text, lines))
		}},
		{"a message line of 10 MB", "mx", func(p *peer) error {
			if err := p.begin(); err != nil {
				return err
			}
			return p.refusedAfter("Subject: x\r\n\r\n", "A", 10<<20)
		}},
		{"a header without an end", "mx", func(p *peer) error {
			if err := p.begin(); err != nil {
				return err
			}
			return p.refusedAfter("", "X-Header: value\r\n", 30<<20)
		}},
		{"a header line folded without an end", "mx", func(p *peer) error {
			if err := p.begin(); err != nil {
				return err
			}
			return p.refusedAfter("Subject: x\r\n", " folded\r\n", 10<<20)
		}},
		{"a thousand Received fields", "mx", func(p *peer) error {
			if err := p.begin(); err != nil {
				return err
			}
			return p.refusedAfter("", "Received: by x\r\n", 1000*16)
		}},
		{"a message larger than the limit", "mx", func(p *peer) error {
			if err := p.begin(); err != nil {
				return err
			}
			return p.refusedAfter("Subject: x\r\n\r\n", strings.Repeat("A", 70)+"\r\n", 80<<20)
		}},
		{"100,000 recipients", "mx", manyRecipients},
		{"8-bit octets in commands", "mx", func(p *peer) error {
			if err := p.greeted(); err != nil {
				return err
			}
			for _, command := range []string{"MAIL FROM:<gr\xfc\xdfe@example.net>", "NOOP \xff\xfe", "EHL\xd6 x", "VRFY \x80", "MAIL FROM:<a@grüße.example>"} {
				if err := p.refused(command); err != nil {
					return err
				}
			}
			_, err := p.want(250, "NOOP")
			return err
		}},
		{"control characters in commands", "mx", func(p *peer) error {
			if err := p.greeted(); err != nil {
				return err
			}
			for _, command := range []string{"MAIL FROM:<a\x00@example.net>", "NOOP \x00", "\x1b[2J", "MAIL FROM:<a@example.net>\rRCPT TO:<ann@example.test>"} {
				if err := p.refused(command); err != nil {
					return err
				}
			}
			_, err := p.want(250, "NOOP")
			return err
		}},
		{"one octet a second as commands", "mx", func(p *peer) error {
			text, err := p.drip(strings.Repeat("NOOP", 10), time.Second, 30*time.Second)
			if err == nil && !strings.Contains(text, "\r\n421 4.4.2 ") {
				err = fmt.Errorf("it said %q, want 421", text)
			}
			return err
		}},
		{"one octet a second as a message", "mx", func(p *peer) error {
			if err := p.begin(); err != nil {
				return err
			}
			text, err := p.drip(strings.Repeat("X", 40), time.Second, 30*time.Second)
			if err == nil && !strings.HasPrefix(text, "421 4.4.2 ") {
				err = fmt.Errorf("it said %q, want 421", text)
			}
			return err
		}},
		{"silence", "mx", func(p *peer) error {
			text, err := p.gone()
			if err == nil && !strings.Contains(text, "\r\n421 4.4.2 ") {
				err = fmt.Errorf("it said %q, want 421", text)
			}
			return err
		}},
		{"half a close inside DATA", "mx", func(p *peer) error {
			if err := p.begin(); err != nil {
				return err
			}
			if err := p.send("Subject: half\r\n\r\nhalf a mess"); err != nil {
				return err
			}
			return errors.Join(half(p), p.closed("4", "5"))
		}},
		{"half a close inside BDAT", "mx", func(p *peer) error {
			if err := p.recipients(); err != nil {
				return err
			}
			if err := p.send("BDAT 1000 LAST\r\nSubject: half\r\n"); err != nil {
				return err
			}
			return errors.Join(half(p), p.closed("4", "5"))
		}},
		{"sizes that are none", "mx", func(p *peer) error {
			if err := p.recipients(); err != nil {
				return err
			}
			return errors.Join(p.send("BDAT 99999999999999999999999 LAST\r\nBDAT -1\r\nQUIT\r\n"), half(p), p.closed(lines...))
		}},
		{"an AUTH response of 10 MB", "submission", func(p *peer) error {
			if err := p.greeted(); err != nil {
				return err
			}
			if _, err := p.want(334, "AUTH LOGIN"); err != nil {
				return err
			}
			said := p.drainTo()
			err := errors.Join(p.pour("QUFB", 10<<20), p.trySend("\r\n"), half(p))
			text, gone := said()
			return errors.Join(err, gone, sane(text, []string{"4", "5"}))
		}},
		{"a hundred wrong passwords", "submission", func(p *peer) error {
			if err := p.greeted(); err != nil {
				return err
			}
			said := p.drainTo()
			err := errors.Join(p.trySend(strings.Repeat("AUTH PLAIN AHRyZXZvcgB3cm9uZw==\r\n", 100)), half(p))
			text, gone := said()
			return errors.Join(err, gone, sane(text, []string{"4", "5"}))
		}},
		{"commands sneaked in before the handshake", "mx", func(p *peer) error {
			if err := p.greeted(); err != nil {
				return err
			}
			if err := p.send("STARTTLS\r\nMAIL FROM:<a@example.net>\r\n"); err != nil {
				return err
			}
			code, text, err := p.reply()
			if err == nil && code == 220 {
				_, err = p.gone() // then it must not go on in the clear
			} else if err == nil && code < 500 {
				err = fmt.Errorf("it said %q", text)
			}
			return err
		}},
	}
}

// refused sends a command that must be answered with 5xx.
func (p *peer) refused(command string) error {
	code, text, err := p.smtp(command)
	if err == nil && code < 500 {
		err = fmt.Errorf("it said %q", text)
	}
	if err != nil {
		err = fmt.Errorf("%q: %w", command, err)
	}
	return err
}

// trySend is send for a server that may have gone.
func (p *peer) trySend(text string) error {
	if err := p.send(text); err != nil && !isReset(err) {
		return err
	}
	return nil
}

// recipients opens a transaction to ann.
func (p *peer) recipients() error {
	if err := p.greeted(); err != nil {
		return err
	}
	if _, err := p.want(250, "MAIL FROM:<sender@example.net>"); err != nil {
		return err
	}
	_, err := p.want(250, "RCPT TO:<"+account+">")
	return err
}

// begin goes up to where the message starts.
func (p *peer) begin() error {
	if err := p.recipients(); err != nil {
		return err
	}
	_, err := p.want(354, "DATA")
	return err
}

// refusedAfter sends head and n octets of pattern as a message, which must be
// refused for good, or be cut off.
func (p *peer) refusedAfter(head, pattern string, n int) error {
	said := p.drainTo()
	err := errors.Join(p.trySend(head), p.pour(pattern, n), p.trySend("\r\n.\r\nQUIT\r\n"), half(p))
	text, gone := said()
	if text != "" && !strings.HasPrefix(text, "5") && !strings.HasPrefix(text, "421 ") {
		err = errors.Join(err, fmt.Errorf("it said %.200q, want 5xx or 421", text))
	}
	return errors.Join(err, gone)
}

// manyRecipients sends 100,000 RCPTs in one go. A thousand are taken.
func manyRecipients(p *peer) error {
	if err := p.greeted(); err != nil {
		return err
	}
	if _, err := p.want(250, "MAIL FROM:<sender@example.net>"); err != nil {
		return err
	}
	said := p.drainTo()
	var err error
	var block strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&block, "RCPT TO:<ann+%d@example.test>\r\n", i)
		if block.Len() > 32<<10 {
			err = errors.Join(err, p.trySend(block.String()))
			block.Reset()
		}
	}
	err = errors.Join(err, p.trySend(block.String()+"QUIT\r\n"), half(p))
	text, gone := said()
	taken := strings.Count(text, "250 ")
	if taken > 1000 || taken < 1 {
		err = errors.Join(err, fmt.Errorf("%d recipients were taken, want 1000", taken))
	}
	return errors.Join(err, gone, sane(text, []string{"2", "4", "5"}))
}
