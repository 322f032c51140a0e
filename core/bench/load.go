package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	perConn = 20  // messages on one connection
	boxes   = 100 // recipients
	senders = 50
	domain  = "example.test"
)

// loader makes SMTP load for one address.
type loader struct {
	address  string
	conns    int
	size     int // octets of a message
	duration time.Duration
	pipeline bool

	network byte               // of the clients' addresses, 127.network; 0: 2
	user    string             // logs in after STARTTLS and is the sender; "": nobody does
	to      func(n int) string // recipient of message n; nil: a mailbox of ours
	limit   int                // messages; 0: as many as the duration allows
}

// outcome is what a loader saw.
type outcome struct {
	accepted int
	errors   int
	first    error // the first of them
	began    time.Time
	ended    time.Time       // the last 250
	waits    []time.Duration // from the message's last octets to 250, one a message
}

// run sends messages until the duration is over, then ends the sessions.
func (l *loader) run(ctx context.Context) *outcome {
	body := text(l.size)
	o := &outcome{began: time.Now()}
	o.ended = o.began
	end := o.began.Add(l.duration)
	var mu sync.Mutex
	var wg sync.WaitGroup
	var seq, opened atomic.Int64
	for range l.conns {
		wg.Go(func() {
			w := worker{loader: l, body: body, seq: &seq, opened: &opened}
			for ctx.Err() == nil && time.Now().Before(end) && w.failed < 20 && (l.limit == 0 || seq.Load() < int64(l.limit)) {
				w.message()
			}
			if w.client != nil {
				w.client.quit()
			}
			mu.Lock()
			defer mu.Unlock()
			o.accepted += len(w.waits)
			o.waits = append(o.waits, w.waits...)
			o.errors += w.failed
			if o.first == nil {
				o.first = w.first
			}
			if w.last.After(o.ended) {
				o.ended = w.last
			}
		})
	}
	wg.Wait()
	return o
}

// worker keeps one connection busy, and opens it anew after perConn messages.
type worker struct {
	*loader
	body        []byte
	seq, opened *atomic.Int64

	client *client
	sent   int // on this connection
	buf    []byte
	waits  []time.Duration
	last   time.Time
	failed int
	first  error
}

// message sends one message.
func (w *worker) message() {
	if err := w.try(); err != nil {
		w.failed++
		if w.first == nil {
			w.first = err
		}
		if w.client != nil {
			_ = w.client.conn.Close()
			w.client = nil
		}
	}
}

func (w *worker) try() error {
	if w.client != nil && w.sent == perConn {
		w.client.quit()
		w.client = nil
	}
	if w.client == nil {
		c, err := w.open()
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		w.client, w.sent = c, 0
	}
	c := w.client
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	n := int(w.seq.Add(1))
	from := "s" + strconv.Itoa(n%senders) + "@d" + strconv.Itoa(n%7) + ".sender.test"
	to := "u" + strconv.Itoa(n%boxes) + "@" + domain
	if w.user != "" {
		from = w.user
	}
	if w.to != nil {
		to = w.to(n)
	}
	if w.pipeline {
		w.buf = fmt.Appendf(w.buf[:0], "MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nDATA\r\n", from, to)
		if _, err := c.conn.Write(w.buf); err != nil {
			return err
		}
		for _, want := range []string{"250", "250", "354"} {
			if err := c.reply(want); err != nil {
				return fmt.Errorf("envelope: %w", err)
			}
		}
	} else {
		if err := c.command("MAIL FROM:<"+from+">", "250"); err != nil {
			return err
		}
		if err := c.command("RCPT TO:<"+to+">", "250"); err != nil {
			return err
		}
		if err := c.command("DATA", "354"); err != nil {
			return err
		}
	}
	w.compose(n, from, to)
	start := time.Now()
	if _, err := c.conn.Write(w.buf); err != nil {
		return err
	}
	if err := c.reply("250"); err != nil {
		return fmt.Errorf("message: %w", err)
	}
	w.last = time.Now()
	w.waits = append(w.waits, w.last.Sub(start))
	w.sent++
	return nil
}

// open connects, and logs in if the load does.
func (w *worker) open() (*client, error) {
	network := w.network
	if network == 0 {
		network = 2
	}
	c, err := smtpOpen(w.address, network, int(w.opened.Add(1)), w.user != "")
	if err != nil || w.user == "" {
		return c, err
	}
	login := base64.StdEncoding.EncodeToString([]byte("\x00" + w.user + "\x00" + password))
	if err := c.command("AUTH PLAIN "+login, "235"); err != nil {
		return nil, errors.Join(err, c.conn.Close())
	}
	return c, nil
}

// compose writes message n, of about w.size octets, with its final dot.
func (w *worker) compose(n int, from, to string) {
	now := time.Now()
	b := append(w.buf[:0], "Date: "...)
	b = now.AppendFormat(b, time.RFC1123Z)
	b = append(b, "\r\nFrom: Sender <"...)
	b = append(b, from...)
	b = append(b, ">\r\nTo: <"...)
	b = append(b, to...)
	b = append(b, ">\r\nMessage-ID: <"...)
	b = strconv.AppendInt(b, now.UnixNano(), 10)
	b = append(b, '.')
	b = strconv.AppendInt(b, int64(n), 10)
	b = append(b, "@sender.test>\r\nSubject: benchmark message\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"...)
	if lines := (w.size - len(b)) / lineLen; lines > 0 {
		b = append(b, w.body[:lines*lineLen]...)
	}
	w.buf = append(b, ".\r\n"...)
}

const lineLen = 78 // octets of a body line with CRLF

// text is a body of at least size octets in lines of lineLen. No line begins
// with a dot.
func text(size int) []byte {
	const letters = "the quick brown fox jumps over the lazy dog 0123456789 and back again, "
	b := make([]byte, 0, size+lineLen)
	for n := 0; len(b) < size; n++ {
		for i := range lineLen - 2 {
			c := letters[(n*31+i*7)%len(letters)]
			if (i == 0 || i == lineLen-3) && c == ' ' {
				c = 'x'
			}
			b = append(b, c)
		}
		b = append(b, "\r\n"...)
	}
	return b
}

// probe asks a server every few milliseconds, on a connection of its own, how
// long it takes to answer NOOP, until ctx ends.
func probe(ctx context.Context, address string) (rtts []time.Duration, err error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var c *client
	defer func() {
		if c != nil {
			c.quit()
		}
	}()
	for n := 0; ; n++ {
		if n%50 == 0 { // servers distrust clients that say NOOP all day
			if c != nil {
				c.quit()
			}
			if c, err = smtpOpen(address, 3, n/50, false); err != nil {
				c = nil
				return rtts, fmt.Errorf("probe: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return rtts, nil
		case <-tick.C:
		}
		start := time.Now()
		if err := c.command("NOOP", "250"); err != nil {
			return rtts, fmt.Errorf("probe: %w", err)
		}
		rtts = append(rtts, time.Since(start))
	}
}
