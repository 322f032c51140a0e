package queue

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

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
