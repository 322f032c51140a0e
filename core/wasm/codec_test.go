package wasm

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/sdk/abi"
)

// fields reads a message into texts by field.
func fields(t *testing.T, b []byte) map[uint64]string {
	t.Helper()
	out := make(map[uint64]string)
	r := wireReader{b: b}
	for {
		field, _, _, p, ok := r.next()
		if !ok {
			break
		}
		out[field] = string(p)
	}
	if r.bad {
		t.Fatalf("malformed: %x", b)
	}
	return out
}

func TestAppendEvent(t *testing.T) {
	long := strings.Repeat("a", 60) + "@" + strings.Repeat("b", 60) + "." + strings.Repeat("c", 60) + ".example"
	rows := []struct{ name, sender, want string }{
		{"simple", "alice@example.com", "alice@example.com"},
		{"quoted", `"a b"@example.com`, `"a b"@example.com`},
		{"plus and dots", "a.b+c@example.com", "a.b+c@example.com"},
		{"longer than 127 octets", long, long},
		{"null", "", ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			ev := event(t, policy.Mail, "x")
			ev.Sender = path(t, r.sender)
			ev.Session = strings.Repeat("s", 5000)
			got := fields(t, appendEvent(nil, ev))
			if got[abi.EventSender] != r.want || got[abi.EventRecipient] != "bob@local.example" || got[abi.EventClient] != "198.51.100.7" || len(got[abi.EventSession]) != maxEventText {
				t.Errorf("got %v", got)
			}
		})
	}
	buf, ev := make([]byte, 0, 1024), event(t, policy.Rcpt, "mail.example.com")
	if n := testing.AllocsPerRun(100, func() { buf = appendEvent(buf[:0], ev) }); n != 0 {
		t.Errorf("%v allocations into a buffer that is large enough", n)
	}
}

// TestActionTable holds ABI.md's table of actions and stages.
func TestActionTable(t *testing.T) {
	legal := map[policy.Action]string{ // a character for each stage from connect to message
		policy.Next: "yyyyyyyy", policy.Accept: "yyyyyyyy", policy.Reject: "yyyyyyyy", policy.Defer: "yyyyyyyy",
		policy.Disconnect: "yyyyyyyy", policy.Discard: "nnnnyyyy", policy.Hold: "nnnnyyyy", policy.Quarantine: "nnnnyyyy",
		policy.DeferIfPermit: "yynnyyyy", policy.DeferIfReject: "yynnyyyy",
	}
	for action, row := range legal {
		for i, want := range row {
			v, err := decodeVerdict(verdict(uint64(action), 0, ""), policy.Stage(i+1))
			if (err == nil) != (want == 'y') || err == nil && v.Action != action {
				t.Errorf("action %d at stage %d: %+v, %v", action, i+1, v, err)
			}
		}
	}
}

func TestDecodeVerdict(t *testing.T) {
	text := func(field int, s string) []byte { return appendElement(nil, field, s) }
	rows := []struct {
		name string
		msg  []byte
		ok   bool
	}{
		{"empty", nil, true},
		{"enhanced", join(verdict(2, 550, "no"), text(abi.VerdictEnhanced, "5.7.1")), true},
		{"enhanced with three digits", join(verdict(2, 550, "no"), text(abi.VerdictEnhanced, "5.7.123")), true},
		{"enhanced of success", join(verdict(2, 550, "no"), text(abi.VerdictEnhanced, "2.0.0")), false},
		{"enhanced with a line end", join(verdict(2, 550, "no"), text(abi.VerdictEnhanced, "5.7.1\n")), false},
		{"enhanced of four numbers", join(verdict(2, 550, "no"), text(abi.VerdictEnhanced, "5.7.1.1")), false},
		{"8-bit text", verdict(2, 550, "nö"), false},
		{"reason", text(abi.VerdictReason, "too-many-2"), true},
		{"reason with capitals", text(abi.VerdictReason, "Too"), false},
		{"unknown field", text(99, "from the future"), true},
		{"wrong wire type", text(abi.VerdictAction, "x"), false},
		{"score not a number", join(appendTag(nil, abi.VerdictScore, wireFixed64), []byte{1, 0, 0, 0, 0, 0, 0xf0, 0x7f}), false},
		{"code beyond 32 bits", verdict(2, 1<<40|550, ""), false},
		{"action beyond 8 bits", verdict(258, 0, ""), false},
		{"bcc without domain", text(abi.VerdictMod, string(mod(abi.OpBCC, "", "postmaster"))), false},
		{"bcc of nobody", text(abi.VerdictMod, string(mod(abi.OpBCC, "", ""))), false},
		{"bcc with a second command", text(abi.VerdictMod, string(mod(abi.OpBCC, "", "a@b.example>\r\nDATA"))), false},
		{"tab in a header field", text(abi.VerdictMod, string(mod(abi.OpPrepend, "X-A", "a\tb"))), true},
		{"tarpit of an hour", text(abi.VerdictMod, string(appendUint(appendUint(nil, abi.ModOp, abi.OpTarpit), abi.ModNumber, 3600_000))), false},
		{"unknown modification", text(abi.VerdictMod, string(mod(9, "", ""))), false},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if v, err := decodeVerdict(r.msg, policy.Mail); (err == nil) != r.ok {
				t.Errorf("got %+v, %v", v, err)
			}
		})
	}
}

func TestBreaker(t *testing.T) {
	var b breaker
	now := time.Unix(0, 0)
	clock := func() time.Time { return now }
	for i := range 4 {
		if p := b.fail(now); p != 0 {
			t.Fatalf("failure %d opened it for %v", i+1, p)
		}
		now = now.Add(time.Second)
	}
	want := 30 * time.Second
	for range 3 {
		var pause time.Duration
		for pause == 0 {
			pause = b.fail(now)
		}
		if pause != want || b.allow(clock) {
			t.Errorf("opened for %v, want %v; allowed %v", pause, want, b.allow(clock))
		}
		now = now.Add(pause)
		if !b.allow(clock) {
			t.Error("still open when its time was over")
		}
		want *= 2
	}
	now = now.Add(2 * time.Minute)
	if !b.allow(clock) || b.troubled.Load() {
		t.Error("does not forget")
	}
	for range 20 { // slower than five in a minute
		if b.fail(now) != 0 {
			t.Error("opened")
		}
		now = now.Add(16 * time.Second)
	}
}

// TestPoolWaits takes every instance of a plugin: the next caller waits, hears
// that it is busy, or that its own time is over.
func TestPoolWaits(t *testing.T) {
	limits := Limits{Instances: 1, Wall: time.Millisecond}
	p := load(t, shared(t), plugin(t, "naughty"), LoadOptions{Config: map[string][]string{"do": {"dns"}}, Grants: []string{"dns"}, Limits: limits})
	in, err := p.pool.take(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Call(context.Background(), event(t, policy.Helo, "x"), newWorld())
	var call *CallError
	if !errors.As(err, &call) || call.Cause != CauseBusy {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.pool.take(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	p.pool.put(in)
	if in, err := p.pool.take(context.Background(), 0); err != nil {
		t.Error(err)
	} else {
		p.pool.put(in)
	}
}

// TestAside: who waits lets others run, unless those that wait hold too much.
func TestAside(t *testing.T) {
	p := newPool(4, 1, func() (*instance, error) { return nil, errors.New("none") })
	free := func() bool {
		select {
		case p.tokens <- struct{}{}:
			<-p.tokens
			return true
		default:
			return false
		}
	}
	p.tokens <- struct{}{} // the caller's
	for grown, want := range map[int64]bool{0: true, pausedGrowth: true, pausedGrowth + 1: false} {
		p.aside(grown, false, func() {
			if free() != want {
				t.Errorf("with %d octets: free %v, want %v", grown, free(), want)
			}
		})
		if free() || p.paused.Load() != 0 {
			t.Errorf("with %d octets: %d left", grown, p.paused.Load())
		}
	}
	ran := false
	(*pool)(nil).aside(1, true, func() { ran = true })
	if !ran {
		t.Error("without a pool nothing is asked")
	}
}

func TestPanicLine(t *testing.T) {
	out := "panic: assignment to entry in nil map\n\ngoroutine 1 [running]:\nmain.configure.func1(0x1)\n\t/src/plugins/x/main.go:27 +0x3\nruntime.goexit({})\n\t/usr/local/go/src/runtime/asm_wasm.s:434 +0x1\n"
	if got, want := panicLine(out), "panic: assignment to entry in nil map (/src/plugins/x/main.go:27)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := panicLine("hello\n"); got != "" {
		t.Errorf("got %q", got)
	}
}

// TestCacheDir keeps compiled code in a folder, and refuses one that others can
// write.
func TestCacheDir(t *testing.T) {
	dir := t.TempDir() + "/cache"
	for range 2 {
		h, err := New(Options{CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		p := load(t, h, answering(verdict(2, 550, "no")).bytes(), LoadOptions{})
		v, err := p.Call(context.Background(), event(t, policy.Helo, "x"), newWorld())
		if err != nil || v.Status != (mail.Status{Code: 550, Text: "no"}) {
			t.Errorf("got %+v, %v", v, err)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
}
