package dkim_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wafermail/wafer/core/dkim"
	"github.com/wafermail/wafer/core/dns"
)

// counter counts the questions.
type counter struct {
	dns.Resolver
	asked atomic.Int64
}

func (c *counter) Lookup(ctx context.Context, q dns.Question) dns.Answer {
	c.asked.Add(1)
	return c.Resolver.Lookup(ctx, q)
}

// TestLimits: more than anybody sends.
func TestLimits(t *testing.T) {
	keys, records := bothKeys(t)
	good := signWith(t, plain, keys[1].Private)
	field := string(good[:len(good)-len(plain)])
	tooLarge := func(got []dkim.Result) bool {
		return len(got) == 1 && got[0].Status == dkim.Neutral && got[0].Reason == dkim.HeaderTooLarge
	}
	for _, row := range []struct {
		name    string
		message string
		asked   int64
		fine    func([]dkim.Result) bool
	}{
		{"10,000 good signatures", strings.Repeat(field, 10000) + plain, 1, func(got []dkim.Result) bool {
			for _, r := range got[:10] {
				if r.Status != dkim.Pass {
					return false
				}
			}
			return len(got) == 11 && got[10].Status == dkim.Neutral && got[10].Reason == dkim.TooMany && strings.Contains(got[10].Text, "9990")
		}},
		{"10,000 empty signatures", strings.Repeat("DKIM-Signature:\r\n", 10000) + plain, 0, func(got []dkim.Result) bool {
			return len(got) == 11 && got[0].Reason == dkim.Syntax && got[10].Reason == dkim.TooMany
		}},
		{"many selectors", strings.Join(func() (all []string) {
			for i := range 1000 {
				all = append(all, strings.Replace(field, "s=ed", "s=ed"+strconv.Itoa(i), 1))
			}
			return all
		}(), "") + plain, 10, func(got []dkim.Result) bool { return len(got) == 11 && got[0].Reason == dkim.KeyMissing }},
		{"a line of 1 MB", "X: " + strings.Repeat("x", 1<<20) + "\r\n" + string(good), 0, tooLarge},
		{"a signature of 1 MB", "DKIM-Signature: v=" + strings.Repeat("1", 1<<20) + "\r\n" + string(good), 0, tooLarge},
		{"a name of 1 MB", strings.Repeat("x", 1<<20) + ": x\r\n" + string(good), 1, passes}, // no field of ours
		{"100,000 fields", strings.Repeat("a:\r\n", 100000) + string(good), 0, tooLarge},
		{"1 MB that is no field", strings.Repeat("\x00", 1<<20) + "\r\n" + string(good), 1, passes},
	} {
		c := &counter{Resolver: zone(records)}
		got := verify(t, []byte(row.message), c)
		if len(got) == 0 || !row.fine(got) {
			t.Errorf("%s: got %+v", row.name, got)
		}
		if asked := c.asked.Load(); asked != row.asked {
			t.Errorf("%s: %d questions were asked, want %d", row.name, asked, row.asked)
		}
	}
}

// broken is a reader that fails after some octets.
type broken struct {
	io.ReaderAt
	after int64
}

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.after {
		return 0, errors.New("disk on fire")
	}
	return b.ReaderAt.ReadAt(p, off)
}

// TestReadErrors: a disk that fails is no verdict about the message.
func TestReadErrors(t *testing.T) {
	keys, records := bothKeys(t)
	message := signWith(t, plain+strings.Repeat("line\r\n", 10000), keys[1].Private)
	size := int64(len(message))
	o := dkim.VerifyOptions{Resolver: zone(records), Now: clock}
	for name, r := range map[string]io.ReaderAt{
		"at once":        broken{bytes.NewReader(message), 0},
		"in the body":    broken{bytes.NewReader(message), 20 << 10},
		"shorter":        bytes.NewReader(message[:40<<10]),
		"much shorter":   bytes.NewReader(message[:100]),
		"nothing at all": bytes.NewReader(nil),
	} {
		got := dkim.Verify(context.Background(), r, size, o)
		if len(got) != 1 || got[0].Status != dkim.TempError || got[0].Reason != dkim.ReadError {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	if got := dkim.Verify(context.Background(), bytes.NewReader(message), size, dkim.VerifyOptions{}); got[0].Status != dkim.TempError {
		t.Errorf("no resolver: got %+v", got)
	}
}

// TestNothingLeft: signatures that are broken in all ways leave no goroutine and no
// memory behind.
func TestNothingLeft(t *testing.T) {
	rounds := 100_000
	if testing.Short() {
		rounds = 2_000
	}
	keys, records := bothKeys(t)
	good := string(signWith(t, plain, keys[1].Private))
	field := good[:len(good)-len(plain)]
	var all strings.Builder
	for _, change := range []string{"v=1;|v=9;", "s=ed|s=none", "s=ed|s=fails", "bh=|bh=A", "h=From|h=X", "d=example.com|d=example.org", "a=ed|a=xx", "c=relaxed|c=simple", " b=| b=AAAA", ";|;;"} {
		old, new, _ := strings.Cut(change, "|")
		all.WriteString(strings.Replace(field, old, new, 1))
	}
	message := []byte(all.String() + plain)
	r := dns.NewZone(map[string]map[string][]string{
		"ed._domainkey.example.com":    {"TXT": records["ed._domainkey.example.com"]},
		"fails._domainkey.example.com": {"RCODE": {"SERVFAIL"}},
	})
	torn := broken{bytes.NewReader(message), int64(len(message)) - 1}
	run := func(n int) {
		for range n / 10 {
			if got := verify(t, message, r); len(got) != 10 || passes(got) {
				t.Fatalf("got %+v", got)
			}
			dkim.Verify(context.Background(), torn, int64(len(message)), dkim.VerifyOptions{Resolver: r, Now: clock})
		}
	}
	level := func() (goroutines int, heap uint64) {
		runtime.GC()
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return runtime.NumGoroutine(), stats.HeapAlloc
	}
	run(100)
	goroutines, heap := level()
	run(rounds)
	after, held := level()
	if after > goroutines {
		t.Errorf("%d goroutines before, %d after", goroutines, after)
	}
	if held > heap+(1<<20) {
		t.Errorf("%d octets of memory before, %d after", heap, held)
	}
}

func FuzzVerify(f *testing.F) {
	keys, records := bothKeys(f)
	r := zone(records)
	f.Add([]byte(plain))
	f.Add(signWith(f, plain, keys[1].Private))
	f.Add(signWith(f, plain, keys[0].Private, "s=rsa", "l=3", "x=1", "i=@a=40b.example.com"))
	f.Add([]byte("DKIM-Signature: v=1;\n\ta=b\r\n\r\n"))
	f.Add([]byte("DKIM-Signature:\x00\r\n \r\n:\r\n\n"))
	f.Fuzz(func(t *testing.T, message []byte) {
		got := dkim.Verify(context.Background(), bytes.NewReader(message), int64(len(message)), dkim.VerifyOptions{Resolver: r, Now: clock, MaxHeader: 1 << 10})
		if len(got) > 11 {
			t.Fatalf("%d results", len(got))
		}
		for _, one := range got {
			if one.Status == "" || (one.Reason == "") != (one.Status == dkim.Pass) {
				t.Fatalf("got %+v", one)
			}
		}
	})
}
