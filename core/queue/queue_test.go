package queue

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

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
