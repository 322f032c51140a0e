package queue

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/durable"
	"github.com/wafermail/wafer/core/mail"
)

// far is a transport of which a test decides what it says.
type far struct {
	say func(d *mail.Delivery, to mail.Recipient) mail.Outcome

	mu    sync.Mutex
	sent  []string // "recipient: body"
	tried []time.Time
}

func (f *far) Deliver(ctx context.Context, d *mail.Delivery) mail.Report {
	b, err := io.ReadAll(io.NewSectionReader(d.Body, 0, d.Size))
	if err != nil {
		return mail.Report{}
	}
	var r mail.Report
	f.mu.Lock()
	f.tried = append(f.tried, time.Now())
	f.mu.Unlock()
	for _, to := range d.Envelope.Rcpts {
		o := mail.Outcome{Status: mail.Status{Code: 250, Enhanced: "2.0.0", Text: "ok"}, Remote: "mx"}
		f.mu.Lock()
		say := f.say
		f.mu.Unlock()
		if say != nil {
			o = say(d, to)
		}
		r.Unreachable = r.Unreachable || o.Remote == "" && o.Status.Temporary()
		if o.Status.OK() {
			f.mu.Lock()
			f.sent = append(f.sent, fmt.Sprintf("%s to %s: %s%s", d.Envelope.From, to.To, d.Head, b))
			f.mu.Unlock()
		}
		r.Outcomes = append(r.Outcomes, o)
	}
	return r
}

// says replaces what it says.
func (f *far) says(say func(d *mail.Delivery, to mail.Recipient) mail.Outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.say = say
}

func (f *far) all() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.sent...)
}

func outcome(code int, enhanced, text string) mail.Outcome {
	return mail.Outcome{Status: mail.Status{Code: code, Enhanced: enhanced, Text: text}, Remote: "mx"}
}

func path(t testing.TB, s string) mail.Path {
	t.Helper()
	p, err := parsePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

type world struct {
	t   testing.TB
	dir string
	far *far
	c   Config
	q   *Queue
}

func newWorld(t testing.TB, change func(*Config)) *world {
	w := &world{t: t, dir: t.TempDir(), far: &far{}}
	b, err := durable.NewBarrier(durable.SyncAuto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	w.c = Config{
		Dir: filepath.Join(w.dir, "queue"), Hostname: "mail.example.org", Barrier: b, Transports: map[string]Transport{"smtp": w.far},
		Route: func(_ context.Context, _ *Message, r *Recipient) (mail.Route, *mail.Outcome) {
			return mail.Route{Transport: "smtp", Hop: r.To.Domain()}, nil
		},
		Notices: Notices{Postmaster: path(t, "postmaster@example.org")},
	}
	if testing.Verbose() {
		w.c.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if change != nil {
		change(&w.c)
	}
	w.open()
	return w
}

func (w *world) open() {
	w.t.Helper()
	q, err := Open(context.Background(), w.c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.q = q
}

func (w *world) close() {
	w.t.Helper()
	if err := w.q.Close(context.Background()); err != nil {
		w.t.Error(err)
	}
}

func (w *world) add(from, body string, to ...string) mail.ID {
	w.t.Helper()
	m := &Message{Envelope: mail.Envelope{ID: mail.NewID(time.Now()), From: path(w.t, from), Received: time.Now()}, Head: []byte("Received: here\r\n")}
	for _, s := range to {
		m.Rcpts = append(m.Rcpts, Recipient{Recipient: mail.Recipient{To: path(w.t, s)}})
	}
	if err := w.put(m, body); err != nil {
		w.t.Fatal(err)
	}
	return m.Envelope.ID
}

func (w *world) put(m *Message, body string) error {
	d := w.q.Begin(m.Envelope.ID)
	defer d.Close()
	if _, err := io.WriteString(d, body); err != nil {
		return err
	}
	return d.Commit(m)
}

func (w *world) list() (entries []Entry) {
	w.t.Helper()
	err := w.q.List(context.Background(), Filter{}, func(e Entry) error { entries = append(entries, e); return nil })
	if err != nil {
		w.t.Fatal(err)
	}
	return entries
}

// empty checks that nothing is left, in memory and on disk.
func (w *world) empty() {
	w.t.Helper()
	if n := len(w.list()); n != 0 {
		w.t.Errorf("%d messages are left", n)
	}
	left, _ := filepath.Glob(filepath.Join(w.c.Dir, "?", "*"))
	drafts, _ := filepath.Glob(filepath.Join(w.c.Dir, "tmp", "*"))
	left = append(left, drafts...)
	if len(left) > 0 {
		w.t.Errorf("files are left: %v", left)
	}
	w.q.mu.Lock()
	defer w.q.mu.Unlock()
	if w.q.running+w.q.messages+w.q.recipients+len(w.q.items)+len(w.q.due) != 0 {
		w.t.Errorf("counts are left: %d running, %d messages, %d recipients, %d items", w.q.running, w.q.messages, w.q.recipients, len(w.q.items))
	}
}

const body = "Subject: hi\r\n\r\nhello\r\n"
