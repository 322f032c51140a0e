package policy

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/wafermail/wafer/core/mail"
)

// asker is a plugin that calls a function.
type asker func(ev *Event) (Verdict, error)

func (a asker) Call(_ context.Context, ev *Event, _ Host) (Verdict, error) { return a(ev) }
func (asker) Close() error                                                 { return nil }

// gathered keeps records.
type gathered struct {
	mu   sync.Mutex
	list []Record
}

func (g *gathered) Decided(r Record) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.list = append(g.list, r)
}

// TestShadow asks a check that only observes, and is slow: nothing waits for it, it is asked
// after the answer only, and it sees the message that is gone by then.
func TestShadow(t *testing.T) {
	shadow := NewShadow()
	free, began := make(chan struct{}), make(chan struct{}, 1)
	var seen string
	slow := asker(func(ev *Event) (Verdict, error) {
		began <- struct{}{}
		<-free
		b := make([]byte, 100)
		n, err := ev.Content.Body(b, 0)
		subject, _ := ev.Content.Header("Subject", 0)
		seen = subject + " " + string(b[:n]) + " " + strings.Join(ev.Tags, ",")
		if !errors.Is(err, io.EOF) {
			t.Errorf("the body ends with %v", err)
		}
		return Verdict{Action: Reject, Reason: "would"}, nil
	})
	tagging := asker(func(*Event) (Verdict, error) { return Verdict{Effects: Effects{Tags: []string{"seen"}}}, nil })
	log := &gathered{}
	set := NewSet([]*Policy{{Name: "p", On: []string{"mx"}, Checks: []*Check{
		{Name: "tag", Plugin: tagging, At: []Stage{Message}},
		{Name: "slow", Plugin: slow, At: []Stage{Message}, Observe: true},
	}}}, SetOptions{Shadow: shadow, Log: log})
	s := set.Session("mx")
	s.Waits()
	text := "Subject: hello\r\n\r\nbody"
	r := strings.NewReader(text)
	d := s.Ask(context.Background(), &Event{Stage: Message, Door: "mx", Session: "s", Content: NewContent(r, int64(len(text)))})
	if d.Refused() {
		t.Errorf("refused: %+v", d)
	}
	select {
	case <-began:
		t.Error("it is asked before the answer")
	default:
	}
	r.Reset("")
	s.Answered()
	<-began
	close(free)
	if err := set.Close(); err != nil { // waits for what is under way
		t.Fatal(err)
	}
	if seen != "hello body seen" {
		t.Errorf("it saw %q", seen)
	}
	if len(log.list) != 2 || log.list[1].Mode != "observe" || log.list[1].Action != "reject" || log.list[1].ID != log.list[0].ID {
		t.Errorf("records %+v", log.list)
	}
	if err := shadow.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestShadowFull leaves out what finds no place, and counts it.
func TestShadowFull(t *testing.T) {
	shadow := NewShadow()
	free := make(chan struct{})
	slow := asker(func(*Event) (Verdict, error) { <-free; return Verdict{}, nil })
	set := NewSet([]*Policy{{Name: "p", On: []string{"mx"}, Checks: []*Check{{Name: "slow", Plugin: slow, At: []Stage{Rcpt}, Observe: true}}}}, SetOptions{Shadow: shadow})
	s := set.Session("mx")
	for range maxShadows + 200 {
		s.Ask(context.Background(), &Event{Stage: Rcpt, Door: "mx", Recipient: mail.Path{}})
	}
	if n := shadow.Dropped(); n < 100 || n > 200 {
		t.Errorf("%d were left out", n)
	}
	close(free)
	if err := errors.Join(set.Close(), shadow.Close()); err != nil {
		t.Fatal(err)
	}
}
