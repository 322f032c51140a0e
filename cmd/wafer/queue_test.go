package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/durable"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/queue"
)

// busy is a transport that says "not now", in two lines.
type busy struct{}

func (busy) Deliver(_ context.Context, d *mail.Delivery) (r mail.Report) {
	for range d.Envelope.Rcpts {
		r.Outcomes = append(r.Outcomes, mail.Outcome{Status: mail.Status{Code: 450, Enhanced: "4.2.0", Text: "too\x1b[31m busy\ncome again"}, Remote: "mx.far.test"})
	}
	return r
}

// waiting is a queue with its control socket.
type waiting struct {
	t    *testing.T
	file string // configuration
	q    *queue.Queue
}

// newWaiting opens a queue with mail from ann to bob and eve, which was tried; from
// nobody to far.test, which is held; and from ann to late.test.
func newWaiting(t *testing.T) (w *waiting, tried, held, late mail.ID) {
	b, err := durable.NewBarrier(durable.SyncAuto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	q, err := queue.Open(context.Background(), queue.Config{
		Dir: filepath.Join(t.TempDir(), "queue"), Hostname: "mx.example.test", Barrier: b,
		Transports: map[string]queue.Transport{"smtp": busy{}, "other": busy{}},
		Route: func(_ context.Context, _ *queue.Message, r *queue.Recipient) (mail.Route, *mail.Outcome) {
			return mail.Route{Transport: "smtp", Hop: r.To.Domain()}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	w = &waiting{t: t, q: q, file: listenAdmin(t, admin.Config{Queue: q})}
	now := time.Now()
	tried = w.add(now.Add(-90*time.Minute), "", "ann@example.test", "bob@far.test", "eve@far.test")
	held = w.add(now.Add(-30*time.Minute), "a look", "", "bob@far.test")
	late = w.add(now, "", "ann@other.test", "joe@late.test")
	w.settle()
	return w, tried, held, late
}

func (w *waiting) add(at time.Time, hold, from string, to ...string) mail.ID {
	w.t.Helper()
	path := func(s string) mail.Path {
		p, err := mail.ParsePath(s, true)
		if err != nil {
			w.t.Fatal(err)
		}
		return p
	}
	m := &queue.Message{Envelope: mail.Envelope{ID: mail.NewID(at), From: path(from), Received: at}, Hold: hold, Head: []byte("Received: here\r\n")}
	for _, s := range to {
		m.Rcpts = append(m.Rcpts, queue.Recipient{Recipient: mail.Recipient{To: path(s), Notify: []string{"DELAY"}}})
	}
	d := w.q.Begin(m.Envelope.ID)
	defer d.Close()
	if _, err := io.WriteString(d, "Subject: a letter\r\n\tfolded \x1b[31m\r\n\r\nhello\r\n"); err != nil {
		w.t.Fatal(err)
	}
	if err := d.Commit(m); err != nil {
		w.t.Fatal(err)
	}
	return m.Envelope.ID
}

// settle waits until everything was tried that is not held.
func (w *waiting) settle() {
	w.t.Helper()
	for deadline := time.Now().Add(patience); ; wait(time.Millisecond, nil) {
		ready := true
		if err := w.q.List(context.Background(), queue.Filter{}, func(e queue.Entry) error {
			ready = ready && (e.Name == "hold" || e.Name == "deferred" && !e.Tried.IsZero() && e.Next.After(time.Now().Add(time.Minute)))
			return nil
		}); err != nil {
			w.t.Fatal(err)
		}
		if ready {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatal("the queue does not come to rest")
		}
	}
}

// run runs a verb of the queue.
func (w *waiting) run(args ...string) (code int, out, errs string) {
	w.t.Helper()
	std, o, e := captured("")
	code = wafer(append(append([]string{"queue"}, args...), "-c", w.file), std)
	return code, o.String(), e.String()
}

// want runs a verb and checks its exit code, and that what it says matches.
func (w *waiting) want(code int, pattern string, args ...string) string {
	w.t.Helper()
	got, out, errs := w.run(args...)
	if got != code || !regexp.MustCompile("(?s)^(?:"+pattern+")$").MatchString(out+errs) {
		w.t.Errorf("queue %q: exit code %d, want %d; said %s%s, want %s", args, got, code, out, errs, pattern)
	}
	return out
}

// TestQueueList: the table, and the filters.
func TestQueueList(t *testing.T) {
	w, tried, held, late := newWaiting(t)
	stamp := `\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d`
	reason := `\(host mx.far.test said: 450 too \[31m busy come again\)`
	w.want(0, fmt.Sprintf(`-Queue ID-          --Size-- ----Arrival Time---- -Sender/Recipient-------
%s +\d+ %s  ann@example.test
 *%s
 {41}bob@far.test
 {41}eve@far.test

%s! +\d+ %s  MAILER-DAEMON
 *\(a look\)
 {41}bob@far.test

%s +\d+ %s  ann@other.test
 *%s
 {41}joe@late.test

-- 1 Kbytes in 3 Requests.
`, tried, stamp, reason, held, stamp, late, stamp, reason), "list")
	for _, c := range []struct {
		args string
		want []mail.ID
	}{
		{"--destination far.test", []mail.ID{tried, held}},
		{"--destination FAR.test --deferred", []mail.ID{tried}},
		{"--sender <>", []mail.ID{held}},
		{"--sender @example.test", []mail.ID{tried}},
		{"--recipient eve@far.test", []mail.ID{tried}},
		{"--recipient @late.test", []mail.ID{late}},
		{"--reason BUSY", []mail.ID{tried, late}},
		{"--older 1h", []mail.ID{tried}},
		{"--older 20m --younger 1h", []mail.ID{held}},
		{"--younger 1d12h", []mail.ID{tried, held, late}},
		{"--older 1d", nil},
		{"--held", []mail.ID{held}},
		{string(late), []mail.ID{late}},
		{strings.ToLower(string(held)) + "! " + string(late) + "*", []mail.ID{held, late}},
		{string(late) + " --held", nil},
	} {
		t.Run(c.args, func(t *testing.T) {
			_, out, errs := w.run(append([]string{"list", "--json"}, strings.Fields(c.args)...)...)
			var got []mail.ID
			for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
				var q admin.Queued
				if err := d.Decode(&q); err != nil {
					t.Fatal(err, out)
				}
				got = append(got, mail.ID(q.QueueID))
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) || errs != "" {
				t.Errorf("got %v, want %v; %s", got, c.want, errs)
			}
		})
	}
	w.want(0, "Mail queue is empty\n", "list", "--older", "1d")
	for _, bad := range []string{"soon", "", "0s", "-5m", "1d-1h"} {
		w.want(1, `wafer: --older .* is no time: .*`, "list", "--older="+bad)
	}
	w.want(1, "wafer: --sender is empty\n", "list", "--sender=")
}

// TestQueueKeys: the keys of postqueue -j come first, in its order.
func TestQueueKeys(t *testing.T) {
	w, _, held, _ := newWaiting(t)
	_, out, _ := w.run("list", "--json", string(held))
	var keys []string
	d := json.NewDecoder(strings.NewReader(out))
	for depth := 0; d.More() || depth > 0; {
		token, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		switch v := token.(type) {
		case json.Delim:
			if depth--; v == '{' || v == '[' {
				depth += 2
			}
		case string:
			if depth == 1 {
				keys = append(keys, v)
				if err := d.Decode(new(any)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if got := strings.Join(keys, " "); !strings.HasPrefix(got, "queue_name queue_id arrival_time message_size forced_expire sender recipients") {
		t.Errorf("keys %s", got)
	}
}

// TestQueueShow: all of one message.
func TestQueueShow(t *testing.T) {
	w, tried, held, _ := newWaiting(t)
	w.want(0, fmt.Sprintf(`message +%s
queue +deferred
size +\d+ octets
arrived +\S+
sender +ann@example.test
attempts +1
next attempt +\S+

bob@far.test: waiting
  last attempt +\S+
  host +mx.far.test
  status +450 4.2.0
  said +too \[31m busy
 +come again
  notify +DELAY

eve@far.test: waiting
.*
  Received: here
  Subject: a letter
      folded  \[31m
`, tried), "show", string(tried))
	w.want(0, `message .*
held because +a look
.*bob@far.test: waiting
.*`, "show", strings.ToLower(string(held)))
	w.want(0, "Received: here\r\nSubject: a letter\r\n\tfolded \x1b\\[31m\r\n\r\nhello\r\n", "show", "--raw", string(tried))
	w.want(0, `\{.*"queue_id": .*"reply": "too.*`, "show", "--json", string(tried))
	w.want(1, "wafer: .*no such message in the queue\n", "show", "ABC")
	w.want(1, "wafer: .*no such message in the queue\n", "show", "--raw", "../../x")
	if code, _, _ := w.run("show", "--raw", "--json", string(tried)); code != 2 {
		t.Errorf("both forms: exit code %d", code)
	}
}

// TestQueueChange: what the verbs do, to what, and what they say.
func TestQueueChange(t *testing.T) {
	w, tried, held, late := newWaiting(t)
	for _, verb := range []string{"hold", "release", "drop", "reroute --default"} {
		args := strings.Fields(verb)
		w.want(1, "wafer: which messages\\? .*", args...)
		w.want(1, "wafer: "+args[0]+" all messages\\? Write --yes .*", append(args, "--all")...)
		w.want(1, "wafer: --all goes with no ids and no filter\n", append(args, "--all", "--yes", "--held")...)
		w.want(1, "wafer: --destination is empty\n", append(args, "--held", "--destination=")...)
	}
	if n := len(w.all()); n != 3 {
		t.Fatalf("%d messages are left", n)
	}
	w.want(0, fmt.Sprintf("%s  ann@example.test  bob@far.test and 1 more\n%s +MAILER-DAEMON +bob@far.test\n2 messages would be dropped\n", tried, held),
		"drop", "--dry-run", "--destination", "far.test")
	w.want(0, fmt.Sprintf("%s .*%s .*%s .*\n3 messages would be dropped\n", tried, held, late), "drop", "--dry-run", "--all")
	w.want(0, fmt.Sprintf(`\{\s+"ids": \[\s+"%s"\s+\],\s+"dry_run": true\s+\}\s+`, held), "release", "--dry-run", "--json", "--held")
	w.want(0, `\{\s+"ids": \[\]\s+\}\s+`, "drop", "--json", "--older", "1d")

	w.want(0, "1 message held\n", "hold", string(late), "--why", "too late")
	w.want(0, ".*held because +too late\n.*", "show", string(late))
	w.want(0, "0 messages held\nwafer: "+string(late)+" is left as it is \\(hold\\)\n", "hold", string(late))
	w.want(1, "1 message tried at once\nwafer: held, and not tried until they are released: "+string(late)+"\n", "flush", string(tried), string(late))
	w.settle()
	w.want(0, ".*attempts +2\n.*", "show", string(tried))
	w.want(0, "0 messages dropped\nwafer: "+string(tried)+" is left as it is \\(deferred\\)\n", "drop", string(tried), "--held")

	w.want(1, "wafer: where to\\?.*", "reroute", string(late))
	w.want(1, "wafer: where to\\?.*", "reroute", string(late), "--default", "--hop", "h")
	w.want(1, "wafer: .*there is no transport none\n", "reroute", string(late), "--transport", "none")
	w.want(0, "1 message rerouted\n", "reroute", string(late), "--transport", "other", "--hop", "[127.0.0.1]:26")
	w.want(0, ".*  by +other \\[127.0.0.1\\]:26\n.*", "show", string(late))
	w.want(0, "1 message rerouted\n", "reroute", string(late), "--default")
	if out := w.want(0, ".*", "show", string(late)); strings.Contains(out, "  by ") {
		t.Errorf("still with a route: %s", out)
	}

	w.want(0, "2 messages released\n", "release", "--all", "--yes")
	w.settle()
	w.want(1, "1 message dropped\nwafer: not in the queue: ABC, XYZ\n", "drop", "abc", string(late), "XYZ", "abc")
	w.want(0, "2 messages dropped\n", "drop", "--all", "--yes")
	w.want(0, "0 messages tried at once\n", "flush")
	if n := len(w.all()); n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

func (w *waiting) all() (ids []mail.ID) {
	w.t.Helper()
	if err := w.q.List(context.Background(), queue.Filter{}, func(e queue.Entry) error { ids = append(ids, e.Envelope.ID); return nil }); err != nil {
		w.t.Fatal(err)
	}
	return ids
}

// TestQueueManyIDs: more ids than one request takes.
func TestQueueManyIDs(t *testing.T) {
	w, tried, held, late := newWaiting(t)
	args := []string{"drop", string(tried)}
	for i := range 3 * maxIDs {
		args = append(args, fmt.Sprint("NONE", i))
	}
	code, out, errs := w.run(append(args, string(held))...)
	if code != 1 || out != "2 messages dropped\n" || strings.Count(errs, ", ") != 3*maxIDs-1 {
		t.Errorf("exit code %d, %s%.200s", code, out, errs)
	}
	if got := fmt.Sprint(w.all()); got != fmt.Sprint([]mail.ID{late}) {
		t.Errorf("%s is left", got)
	}
}

// TestQueueAsk: everything is meant only if ALL is typed.
func TestQueueAsk(t *testing.T) {
	for typed, ok := range map[string]bool{"ALL\n": true, "ALL": true, "all\n": false, "yes\n": false, "\n": false, "": false} {
		std, _, errs := captured(typed)
		if err := ask(std, "drop"); (err == nil) != ok || !strings.Contains(errs.String(), "Type ALL to go on") {
			t.Errorf("%q: %v, asked %q", typed, err, errs)
		}
	}
}

// TestQueueShape: what waits, by domain and age.
func TestQueueShape(t *testing.T) {
	w, _, _, _ := newWaiting(t)
	w.want(0, ` +T +5 +10 +20 +40 +80 +160 +320 +640 +1280 +1280\+ *
 *TOTAL +4 +1 +0 +0 +1 +0 +2 +0 +0 +0 +0 *
 *far.test +3 +0 +0 +0 +1 +0 +2 +0 +0 +0 +0 *
 *late.test +1 +1 +0 +0 +0 +0 +0 +0 +0 +0 +0 *
`, "shape")
	w.want(0, ".*TOTAL +4 .*example.test +2 .*MAILER-DAEMON +1 .*other.test +1 .*", "shape", "--senders")
	w.want(0, ".*TOTAL +2 .*", "shape", "--older", "1h")
	w.want(0, `\{\s+"ages_minutes": .*`, "shape", "--json")
}

// TestMailq: the list, by the names that programs know; -q tries at once.
func TestMailq(t *testing.T) {
	w, tried, held, _ := newWaiting(t)
	call := func(args ...string) (int, string) {
		std, out, errs := captured("")
		code := wafer(args, std)
		return code, out.String() + errs.String()
	}
	for _, name := range []string{"mailq", "sendmail -bp"} {
		if code, out := call(append(strings.Fields(name), "-C", w.file)...); code != 0 || !strings.Contains(out, "in 3 Requests") {
			t.Errorf("%s: exit code %d, said %s", name, code, out)
		}
	}
	for _, option := range []string{"-q", "-qI" + string(tried), "-qRfar.test"} {
		if code, out := call("sendmail", "-C", w.file, option); code != 0 || out != "" {
			t.Errorf("%s: exit code %d, said %s", option, code, out)
		}
		w.settle()
	}
	w.want(0, ".*attempts +4\n.*", "show", string(tried))
	if code, out := call("sendmail", "-C", w.file, "-qI"+string(held)); code != exUnavailable || !strings.Contains(out, "does not wait") {
		t.Errorf("what is held was tried: exit code %d, said %s", code, out)
	}
}

// TestOneLine: a stranger's text does nothing to a terminal.
func TestOneLine(t *testing.T) {
	var b bytes.Buffer
	printQueued(&b, admin.Queued{QueueID: "ID", Sender: "a\x1b]0;x\a", Recipients: []admin.QueuedRecipient{{Address: "b\u009b1m\r", DelayReason: "c\n\x7f"}}})
	if strings.ContainsFunc(strings.ReplaceAll(b.String(), "\n", ""), func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
		t.Errorf("printed %q", b.String())
	}
}
