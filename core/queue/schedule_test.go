package queue

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

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
