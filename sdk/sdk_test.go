//go:build !wasip1

package sdk

import (
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/sdk/abi"
)

// echo is a plugin that says what its events and host calls hold.
var echo = Plugin{
	ID: "org.example.echo", Version: "1", Stages: []Stage{Helo, Rcpt},
	Grants: []Grant{{Name: GrantDNS}, {Name: GrantCount}},
	Fields: []Field{
		{Name: "wait", Type: Duration, Default: []string{"1d12h"}},
		{Name: "room", Type: Size, Default: []string{"2KiB"}},
		{Name: "loud", Type: Bool, Default: []string{"true"}},
		{Name: "names", Type: List, Choices: []string{"a", "b"}},
	},
	Configure: func(c *Config) (Judge, error) {
		if c.Duration("wait") != 36*time.Hour || c.Size("room") != 2048 || !c.Bool("loud") || !c.Granted(GrantDNS) {
			return nil, c.Errorf("wait", "defaults are wrong")
		}
		return func(e *Event) Verdict {
			e.Log(Info, "asked about "+e.Helo())
			as, err := e.DNS(Question{"A", e.Helo()}, Question{"MX", e.Helo()})
			if err != nil {
				return Fail(err.Error())
			}
			n, err := e.Count(e.Client(), 1, time.Minute)
			if err != nil {
				return Fail(err.Error())
			}
			v := Reject(550, "5.7.1", strings.Join(as[0].Records, " ")+"|"+e.Fact(FactServer)+"|"+strings.Join(c.Strings("names"), ","))
			return v.AddScore(float64(n)).AddScore(float64(as[1].Status))
		}, nil
	},
}

func TestFake(t *testing.T) {
	f := NewFake(&echo)
	if err := f.Configure(map[string][]string{"names": {"a", "b"}}); err != nil {
		t.Fatal(err)
	}
	f.Zone["A mail.example"] = Answer{Records: []string{strings.Repeat("x", 200), "192.0.2.1"}}
	v, err := f.Call(Facts{Stage: Helo, Helo: "mail.example", Client: "192.0.2.7", Rare: map[string]string{FactServer: "192.0.2.1:25"}})
	if err != nil || !strings.HasSuffix(v.Text, "x 192.0.2.1|192.0.2.1:25|a,b") || v.Score != 2 {
		t.Errorf("got %+v, %v", v, err)
	}
	if len(f.Lines) != 1 || f.Lines[0] != "0 asked about mail.example" || len(f.Asked) != 2 {
		t.Errorf("log %q, questions %v", f.Lines, f.Asked)
	}
	if _, err := f.Call(Facts{Stage: Mail}); err == nil {
		t.Error("asked at a stage that is not in the manifest")
	}
	f.Grants = nil
	if v, err := f.Call(Facts{Stage: Helo, Helo: "x"}); err == nil {
		t.Errorf("dns without grant: %+v", v)
	}
}

func TestVerdictTexts(t *testing.T) {
	if got := Reject(550, "5.7.1", "a\r\nb\x00ü").Text; got != "a??b???" {
		t.Errorf("text %q", got)
	}
	if got := len(Reject(550, "5.7.1", strings.Repeat("x", 1000)).Text); got != abi.MaxText {
		t.Errorf("text of %d octets", got)
	}
	if got := Next().AddHeader("X", "a\r\n b\xffü").Mods[0].Value; got != "a   b?ü" {
		t.Errorf("header field %q", got)
	}
	a := Next().Tag("one")
	b, c := a.Tag("two"), a.Tag("three")
	if b.Mods[1].Value != "two" || c.Mods[1].Value != "three" {
		t.Error("verdicts share their modifications")
	}
}

func TestParse(t *testing.T) {
	durations := map[string]time.Duration{"90s": 90 * time.Second, "2d": 48 * time.Hour, "1d1h": 25 * time.Hour, "0s": 0}
	for s, want := range durations {
		if got, ok := parseDuration(s); !ok || got != want {
			t.Errorf("duration %q: %v %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "d", "-1s", "1", "1d-2h", "99999999d", "x"} {
		if got, ok := parseDuration(s); ok {
			t.Errorf("duration %q: %v", s, got)
		}
	}
	sizes := map[string]int64{"0": 0, "512": 512, "10MiB": 10 << 20, "1 GiB": 1 << 30}
	for s, want := range sizes {
		if got, ok := parseSize(s); !ok || got != want {
			t.Errorf("size %q: %v %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "-1", "1.5MiB", "9999999999TiB", "KiB"} {
		if got, ok := parseSize(s); ok {
			t.Errorf("size %q: %v", s, got)
		}
	}
}

// FuzzWire reads arbitrary octets as each message that a host sends.
func FuzzWire(f *testing.F) {
	f.Add([]byte{0x08, 0x02, 0x52, 0x01, 'x'})
	f.Add([]byte{0x0a, 0x05, 0x0a, 0x01, 'k', 0x12, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Event
		if e.index(b) == nil {
			_ = e.Helo() + e.Client()
		}
		_, _ = decodeConfig(b)
		_, _ = decodeAnswers(b, 1)
		_, _ = decodeSighting(b)
	})
}
