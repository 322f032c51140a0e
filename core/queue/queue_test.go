package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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

// TestDelivery: messages small and large go to every recipient and leave nothing.
func TestDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		large := body + strings.Repeat("line of a large message\r\n", 20_000)
		w.add("ann@example.org", body, "a@example.net", "b@example.net", "c@example.com")
		w.add("ann@example.org", large, "a@example.net")
		synctest.Wait()
		got := w.far.all()
		if len(got) != 4 {
			t.Errorf("%d deliveries", len(got))
		}
		for _, s := range got {
			if !strings.HasSuffix(s, body) && !strings.HasSuffix(s, large) || !strings.Contains(s, "Received: here") {
				t.Errorf("got %.80q", s)
			}
		}
		w.empty()
		w.close()
	})
}

// TestSchedule: a message is tried at the times that the schedule says, and then
// returned.
func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Schedule.Delay = -1 })
		w.far.say = func(d *mail.Delivery, _ mail.Recipient) mail.Outcome {
			if d.Envelope.From.IsNull() {
				return outcome(250, "2.0.0", "ok")
			}
			return outcome(450, "4.2.0", "greylisted")
		}
		began := time.Now()
		w.add("ann@example.org", body, "a@example.net")
		time.Sleep(6 * 24 * time.Hour)
		synctest.Wait()
		tries := w.far.tried
		want := 300.0
		for i := 1; i < len(tries)-2; i++ {
			got := tries[i].Sub(tries[i-1]).Seconds()
			if got < max(300, want*0.9)-1 || got > min(4000, want*1.1)+1 {
				t.Errorf("interval %d: %.0f s, want about %.0f", i, got, want)
			}
			want = min(want*2, 4000)
		}
		last := tries[len(tries)-2].Sub(began)
		if last < 5*24*time.Hour || last > 5*24*time.Hour+time.Minute {
			t.Errorf("the last attempt is after %v", last)
		}
		if got := w.far.all(); len(got) != 1 || !strings.Contains(got[0], "to ann@example.org") || !strings.Contains(got[0], "greylisted") {
			t.Errorf("bounce: %q", got)
		}
		w.empty()
		w.close()
	})
}

// TestBounces: who is told what.
func TestBounces(t *testing.T) {
	refuse := func(code int) func(*mail.Delivery, mail.Recipient) mail.Outcome {
		return func(d *mail.Delivery, to mail.Recipient) mail.Outcome {
			if to.To.Domain() == "example.org" {
				return outcome(250, "2.0.0", "ok")
			}
			return outcome(code, "5.1.1", "no such user")
		}
	}
	rows := []struct {
		name, from, to string
		notify         []string
		say            func(*mail.Delivery, mail.Recipient) mail.Outcome
		want           []string // parts of each notice
	}{
		{"failure", "ann@example.org", "x@example.net", nil, refuse(550), []string{" to ann@example.org"}},
		{"never", "ann@example.org", "x@example.net", []string{"NEVER"}, refuse(550), nil},
		{"success only", "ann@example.org", "x@example.net", []string{"SUCCESS"}, refuse(550), nil},
		{"success", "ann@example.org", "x@example.net", []string{"SUCCESS"}, nil, []string{"x@example.net", "to ann@example.org"}},
		{"no success asked for", "ann@example.org", "x@example.net", nil, nil, []string{"to x@example.net"}},
		{"double", "", "x@example.net", nil, refuse(550), []string{"to postmaster@example.org"}},
		{"triple", "", "x@example.net", nil, func(*mail.Delivery, mail.Recipient) mail.Outcome { return outcome(550, "5.0.0", "no") }, nil},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				w.far.say = r.say
				m := &Message{Envelope: mail.Envelope{ID: mail.NewID(time.Now()), From: path(t, r.from)}}
				m.Rcpts = []Recipient{{Recipient: mail.Recipient{To: path(t, r.to), Notify: r.notify}}}
				if err := w.put(m, body); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				got := w.far.all()
				if len(got) != len(r.want) && r.name != "success" {
					t.Errorf("%d messages sent, want %d: %.100q", len(got), len(r.want), got)
				}
				for i, want := range r.want {
					if i < len(got) && !strings.Contains(got[i], want) {
						t.Errorf("message %d lacks %q: %.300q", i, want, got[i])
					}
				}
				w.empty()
				w.close()
			})
		})
	}
}

// TestDelayNotice: after four hours, once.
func TestDelayNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.far.say = func(d *mail.Delivery, to mail.Recipient) mail.Outcome {
			if d.Envelope.From.IsNull() {
				return outcome(250, "2.0.0", "ok")
			}
			return outcome(450, "4.2.0", "later")
		}
		began := time.Now()
		w.add("ann@example.org", body, "a@example.net")
		time.Sleep(4*time.Hour - time.Minute)
		if n := len(w.far.all()); n != 0 {
			t.Errorf("%d notices after %v", n, time.Since(began))
		}
		w.close() // it is on record
		w.open()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if got := w.far.all(); len(got) != 1 || !strings.Contains(got[0], "elayed") {
			t.Errorf("notices: %d", len(got))
		}
		w.close()
	})
}

// TestRestart: what is in the queue is there after a restart, with what is known.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		said := "450 4.2.0 caf\xe9\nsecond line" // octets that are no UTF-8
		w.far.say = func(_ *mail.Delivery, to mail.Recipient) mail.Outcome {
			if to.To.Local() == "good" {
				return outcome(250, "2.0.0", "ok")
			}
			return outcome(450, "4.2.0", said)
		}
		id := w.add("ann@example.org", body, "good@example.net", "bad@example.net")
		synctest.Wait()
		w.close()
		w.open()
		es := w.list()
		if len(es) != 1 || es[0].Envelope.ID != id || es[0].Rcpts[0].State != Sent || es[0].Rcpts[1].Outcome.Status.Text != said || es[0].Name != "deferred" {
			t.Fatalf("after the restart: %+v", es)
		}
		w.far.says(nil)
		time.Sleep(400 * time.Second)
		synctest.Wait()
		if got := w.far.all(); len(got) != 2 {
			t.Errorf("sent %d", len(got))
		}
		w.empty()
		w.close()
	})
}

// TestDeadDestination: when nobody answers, those who wait are deferred without a
// try, and others are not held up.
func TestDeadDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		dialled := 0
		w.far.say = func(d *mail.Delivery, to mail.Recipient) mail.Outcome {
			if d.Route.Hop == "dead.example" {
				w.far.mu.Lock()
				dialled++
				w.far.mu.Unlock()
				time.Sleep(30 * time.Second)
				return mail.Outcome{Status: mail.Status{Code: 451, Enhanced: "4.4.1", Text: "connection timed out"}}
			}
			return outcome(250, "2.0.0", "ok")
		}
		for range 100 {
			w.add("ann@example.org", body, "x@dead.example")
		}
		for range 100 {
			w.add("ann@example.org", body, "x@example.net")
		}
		synctest.Wait()
		if n := len(w.far.all()); n != 100 {
			t.Errorf("%d of 100 are there beside a dead destination", n)
		}
		time.Sleep(60 * time.Second)
		synctest.Wait()
		if dialled > 10 {
			t.Errorf("a dead destination was dialled %d times in a minute", dialled)
		}
		for _, e := range w.list() {
			if !strings.Contains(e.Rcpts[0].Outcome.Status.Text, "connection timed out") {
				t.Errorf("reason: %q", e.Rcpts[0].Outcome.Status.Text)
			}
		}
		if s := w.q.Stats(); s.Suspended != 1 || s.Deferred != 100 {
			t.Errorf("stats: %+v", s)
		}
		w.close()
	})
}

// TestConcurrency: a destination is burdened with five at first, never with more
// than twenty.
func TestConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		now, first, most := 0, 0, 0
		w.far.say = func(*mail.Delivery, mail.Recipient) mail.Outcome {
			w.far.mu.Lock()
			now++
			most = max(most, now)
			w.far.mu.Unlock()
			time.Sleep(time.Second)
			w.far.mu.Lock()
			now--
			w.far.mu.Unlock()
			return outcome(250, "2.0.0", "ok")
		}
		for range 300 {
			w.add("ann@example.org", body, "x@example.net")
		}
		synctest.Wait()
		w.far.mu.Lock()
		first = most
		w.far.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if first != 5 || most != 20 {
			t.Errorf("%d at first, %d at most; want 5 and 20", first, most)
		}
		w.empty()
		w.close()
	})
}

// TestFairness: a message to few overtakes one to many, at the same destination and
// at others.
func TestFairness(t *testing.T) {
	for _, domains := range []int{1, 500} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, func(c *Config) { c.Concurrent = 20; c.Most = map[string]int{"smtp": 20} })
			var order []string
			w.far.say = func(d *mail.Delivery, to mail.Recipient) mail.Outcome {
				time.Sleep(time.Second)
				w.far.mu.Lock()
				order = append(order, d.Envelope.From.Local())
				w.far.mu.Unlock()
				return outcome(250, "2.0.0", "ok")
			}
			var to []string
			for i := range 5000 {
				to = append(to, fmt.Sprintf("u%d@d%d.example", i, i%domains))
			}
			w.add("many@example.org", body, to...)
			synctest.Wait()
			w.add("few@example.org", body, to[:5]...)
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			last := 0
			for i, from := range order {
				if from == "few" {
					last = i
				}
			}
			if len(order) != 5005 {
				t.Errorf("%d domains: %d deliveries", domains, len(order))
			}
			if last > 2500 {
				t.Errorf("%d domains: the message to five was done as number %d of %d", domains, last, len(order))
			}
			w.close()
		})
	}
}

// TestInterval: a destination's rate is kept.
func TestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) {
			c.Limits = func(mail.Route) Limits { return Limits{Interval: 10 * time.Second} }
		})
		for range 10 {
			w.add("ann@example.org", body, "x@example.net")
		}
		time.Sleep(45 * time.Second)
		synctest.Wait()
		if n := len(w.far.all()); n != 5 {
			t.Errorf("%d deliveries in 45 s at one in 10 s", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		w.empty()
		w.close()
	})
}

// TestPanic: a message whose handling panics is set aside, whole; others go on.
func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.far.say = func(_ *mail.Delivery, to mail.Recipient) mail.Outcome {
			if to.To.Local() == "poison" {
				panic("poison")
			}
			return outcome(250, "2.0.0", "ok")
		}
		id := w.add("ann@example.org", body, "poison@example.net")
		w.add("ann@example.org", body, "x@example.net")
		synctest.Wait()
		if n := len(w.far.all()); n != 1 {
			t.Errorf("%d deliveries", n)
		}
		for _, suffix := range []string{bodySuffix, envelopeSuffix} {
			if _, err := os.Stat(filepath.Join(w.c.Dir, "aside", string(id)+suffix)); err != nil {
				t.Error(err)
			}
		}
		w.empty()
		w.close()
	})
}

// TestDamage: files that make no sense are set aside, not dropped, and do not keep
// the others from being delivered.
func TestDamage(t *testing.T) {
	rows := []struct {
		name   string
		damage func(env, body string) error
		aside  bool
	}{
		{"empty envelope", func(env, _ string) error { return os.WriteFile(env, nil, 0o600) }, true},
		{"half an envelope", func(env, _ string) error { return os.Truncate(env, 50) }, true},
		{"garbage", func(env, _ string) error { return os.WriteFile(env, []byte("garbage\n"), 0o600) }, true},
		{"a flipped bit", func(env, _ string) error {
			b, err := os.ReadFile(env)
			b[40] ^= 1
			return errors.Join(err, os.WriteFile(env, b, 0o600))
		}, true},
		{"body gone", func(_, body string) error { return os.Remove(body) }, true},
		{"envelope gone", func(env, _ string) error { return os.Remove(env) }, true},
		{"body cut", func(_, body string) error { return os.Truncate(body, 3) }, true},
		{"a torn last record", func(env, _ string) error {
			f, err := os.OpenFile(env, os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			_, err = f.WriteString(`01234567 {"result":{"at"`)
			return errors.Join(err, f.Close())
		}, false},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, nil)
				w.far.say = func(*mail.Delivery, mail.Recipient) mail.Outcome { return outcome(450, "4.2.0", "later") }
				id := w.add("ann@example.org", body, "x@example.net")
				other := w.add("ann@example.org", body, "y@example.net")
				synctest.Wait()
				w.close()
				env, file := w.q.spool.path(id, envelopeSuffix), w.q.spool.path(id, bodySuffix)
				if err := r.damage(env, file); err != nil {
					t.Fatal(err)
				}
				w.open()
				got := map[mail.ID]bool{}
				for _, e := range w.list() {
					got[e.Envelope.ID] = true
				}
				if !got[other] || got[id] == r.aside {
					t.Errorf("in the queue: %v", got)
				}
				left, _ := filepath.Glob(filepath.Join(w.c.Dir, "aside", string(id)+"*"))
				if (len(left) > 0) != r.aside {
					t.Errorf("aside: %v", left)
				}
				w.close()
			})
		})
	}
}

// TestControl: what an operator can do.
func TestControl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		w := newWorld(t, func(c *Config) { c.Transports["other"] = &far{} })
		w.far.say = func(*mail.Delivery, mail.Recipient) mail.Outcome { return outcome(450, "4.2.0", "Mailbox busy") }
		one := w.add("ann@example.org", body, "x@example.net")
		two := w.add("bob@example.org", body, "y@example.com")
		three := w.add("", body, "z@example.com")
		synctest.Wait()
		find := func(f Filter) (ids []mail.ID) {
			_ = w.q.List(ctx, f, func(e Entry) error { ids = append(ids, e.Envelope.ID); return nil })
			return ids
		}
		for _, r := range []struct {
			f    Filter
			want []mail.ID
		}{
			{Filter{}, []mail.ID{one, two, three}},
			{Filter{Destination: "EXAMPLE.com"}, []mail.ID{two, three}},
			{Filter{Sender: "bob@example.org"}, []mail.ID{two}},
			{Filter{Sender: "@example.org"}, []mail.ID{one, two}},
			{Filter{Sender: "<>"}, []mail.ID{three}},
			{Filter{Recipient: "x@example.net"}, []mail.ID{one}},
			{Filter{Reason: "mailbox BUSY"}, []mail.ID{one, two, three}},
			{Filter{Reason: "nothing"}, nil},
			{Filter{Older: time.Hour}, nil},
			{Filter{Younger: time.Hour, IDs: []mail.ID{two}}, []mail.ID{two}},
			{Filter{Held: true}, nil},
		} {
			if got := find(r.f); fmt.Sprint(got) != fmt.Sprint(r.want) {
				t.Errorf("%+v: %v, want %v", r.f, got, r.want)
			}
		}
		verb := func(ids []mail.ID, err error) []mail.ID {
			t.Helper()
			if err != nil {
				t.Error(err)
			}
			return ids
		}
		if ids := verb(w.q.Hold(ctx, Filter{IDs: []mail.ID{one}}, "", true)); len(ids) != 1 || len(find(Filter{Held: true})) != 0 {
			t.Error("a dry run has held something")
		}
		verb(w.q.Hold(ctx, Filter{IDs: []mail.ID{one}}, "look at it", false))
		w.far.says(nil)
		verb(w.q.Flush(ctx, Filter{}, false))
		synctest.Wait()
		if got := find(Filter{}); len(got) != 1 || got[0] != one {
			t.Errorf("after a flush: %v", got)
		}
		w.close()
		w.open()
		if e, b, err := w.q.Show(one); err != nil || e.Hold != "look at it" || e.Name != "hold" {
			t.Errorf("show: %+v (%v)", e, err)
		} else {
			text, _ := io.ReadAll(b)
			b.Close()
			if !bytes.Equal(text, []byte(body)) {
				t.Errorf("body: %q", text)
			}
		}
		verb(w.q.Reroute(ctx, Filter{IDs: []mail.ID{one}}, &mail.Route{Transport: "other"}, false))
		if _, err := w.q.Reroute(ctx, Filter{}, &mail.Route{Transport: "none"}, false); err == nil {
			t.Error("rerouted to nowhere")
		}
		verb(w.q.Release(ctx, Filter{}, false))
		synctest.Wait()
		if got := w.c.Transports["other"].(*far).all(); len(got) != 1 {
			t.Errorf("the other transport has %d", len(got))
		}
		w.empty()
		w.far.says(func(*mail.Delivery, mail.Recipient) mail.Outcome { return outcome(450, "4.2.0", "no") })
		w.add("ann@example.org", body, "x@example.net")
		time.Sleep(7 * time.Minute)
		synctest.Wait()
		rows, err := w.q.Shape(ctx, Filter{}, false)
		if err != nil || len(rows) != 2 || rows[1].Domain != "example.net" || rows[1].ByAge[1] != 1 {
			t.Errorf("shape: %+v (%v)", rows, err)
		}
		verb(w.q.Drop(ctx, Filter{}, false))
		synctest.Wait()
		w.empty()
		w.close()
	})
}

// TestHoldWhileActive: verbs for a message whose round is under way take effect when
// that ends.
func TestHoldWhileActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		w := newWorld(t, nil)
		w.far.say = func(*mail.Delivery, mail.Recipient) mail.Outcome {
			time.Sleep(time.Minute)
			return outcome(450, "4.2.0", "later")
		}
		one, two := w.add("ann@example.org", body, "x@example.net"), w.add("ann@example.org", body, "x@example.net")
		synctest.Wait()
		if _, err := w.q.Hold(ctx, Filter{IDs: []mail.ID{one}}, "wait", false); err != nil {
			t.Error(err)
		}
		if _, err := w.q.Drop(ctx, Filter{IDs: []mail.ID{two}}, false); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if es := w.list(); len(es) != 1 || es[0].Name != "hold" || es[0].Hold != "wait" {
			t.Errorf("%+v", es)
		}
		w.close()
	})
}
