package mtasts

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/dns"
)

const good = "version: STSv1\nmode: enforce\nmx: mx.example.net\r\nmx: *.wild.example\nmax_age: 86400\nfuture: x\n"

// TestParsePolicy: RFC 8461 §3.2.
func TestParsePolicy(t *testing.T) {
	rows := []struct {
		name, in, want string
	}{
		{"good", good, "enforce [mx.example.net *.wild.example] 24h0m0s"},
		{"none needs no mx", "version: STSv1\nmode: none\nmax_age: 1\n", "none [] 1s"},
		{"the first counts", "version: STSv1\nmode: testing\nmode: enforce\nmx: a.b\nmax_age: 1\n", "testing [a.b] 1s"},
		{"too long is cut", "version: STSv1\nmode: testing\nmx: a.b\nmax_age: 4294967295\n", "testing [a.b] 8766h0m0s"},
		{"no version", "mode: none\nmax_age: 1\n", ""},
		{"another version", "version: STSv2\nmode: none\nmax_age: 1\n", ""},
		{"no mode", "version: STSv1\nmax_age: 1\nmx: a.b\n", ""},
		{"another mode", "version: STSv1\nmode: maybe\nmax_age: 1\nmx: a.b\n", ""},
		{"no max_age", "version: STSv1\nmode: enforce\nmx: a.b\n", ""},
		{"negative max_age", "version: STSv1\nmode: enforce\nmx: a.b\nmax_age: -1\n", ""},
		{"no mx", "version: STSv1\nmode: enforce\nmax_age: 1\n", ""},
		{"mx of nonsense", "version: STSv1\nmode: enforce\nmx: a b\nmax_age: 1\n", ""},
		{"no field", "version: STSv1\nnonsense\n", ""},
		{"HTML", "<!doctype html>\n", ""},
		{"huge", good + strings.Repeat("x: y\n", 20000), ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			p, err := ParsePolicy(strings.NewReader(r.in))
			got := ""
			if err == nil {
				got = fmt.Sprint(p.Mode, " ", p.MX, " ", p.MaxAge)
			}
			if got != r.want {
				t.Errorf("%q (%v), want %q", got, err, r.want)
			}
		})
	}
}

// TestMatch: RFC 8461 §4.1.
func TestMatch(t *testing.T) {
	p := Policy{MX: []string{"mx.example.net", "*.wild.example"}}
	for host, want := range map[string]bool{
		"mx.example.net": true, "MX.example.NET.": true, "a.mx.example.net": false, "a.wild.example": true, "a.b.wild.example": false, "wild.example": false, "": false,
	} {
		if p.Match(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
}

// TestParseRecord: RFC 8461 §3.1.
func TestParseRecord(t *testing.T) {
	for in, want := range map[string]string{
		"v=STSv1; id=2026;": "2026", "v=STSv1;id=a1": "a1", "v=STSv1 ; x=y; id=1": "1",
		"v=STSv2; id=1": "", "v=STSv1;": "", "v=STSv1; id=a b": "", "id=1; v=STSv1": "", "v=STSv1; id=1|v=STSv1; id=2": "",
		"v=spf1 -all|v=STSv1; id=3": "3", "v=STSv1; id=" + strings.Repeat("x", 33): "",
	} {
		if id, ok := ParseRecord(strings.Split(in, "|")); id != want || ok != (want != "") {
			t.Errorf("%q: %q %v", in, id, ok)
		}
	}
}

// lab is a web server that plays every domain, and a clock.
type lab struct {
	gets    atomic.Int32
	serve   atomic.Pointer[http.HandlerFunc]
	records map[string]map[string][]string
	now     time.Time
	o       Options
}

func newLab(t *testing.T) *lab {
	l := &lab{now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), records: map[string]map[string][]string{"_mta-sts.example.net": {"TXT": {"v=STSv1; id=1"}}}}
	l.say(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, good)
	})
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.gets.Add(1)
		if r.URL.Path != "/.well-known/mta-sts.txt" {
			http.NotFound(w, r)
			return
		}
		(*l.serve.Load())(w, r)
	}))
	t.Cleanup(web.Close)
	client := web.Client()
	tr := client.Transport.(*http.Transport)
	tr.TLSClientConfig.ServerName = "example.com" // of the test server's certificate
	tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", web.Listener.Addr().String())
	}
	l.o = Options{Dir: t.TempDir(), Client: client, Now: func() time.Time { return l.now }, Patience: 20 * time.Second}
	return l
}

func (l *lab) say(f http.HandlerFunc) { l.serve.Store(&f) }

func (l *lab) open(t *testing.T) *Cache {
	l.o.Resolver = dns.NewZone(l.records)
	c, err := Open(l.o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ask waits until the look that it causes is over.
func ask(t *testing.T, c *Cache) string {
	t.Helper()
	c.Policy(context.Background(), "Example.NET")
	c.group.Wait()
	p, known := c.Policy(context.Background(), "example.net")
	return fmt.Sprint(known, " ", p.ID, " ", p.Mode)
}

// TestCache: fetched once, kept over a restart, renewed when the id changes, and
// kept whatever breaks.
func TestCache(t *testing.T) {
	l := newLab(t)
	c := l.open(t)
	check := func(step, want string, gets int32) {
		t.Helper()
		if got := ask(t, c); got != want || l.gets.Load() != gets {
			t.Errorf("%s: %s after %d fetches, want %s after %d", step, got, l.gets.Load(), want, gets)
		}
	}
	check("first", "true 1 enforce", 1)
	check("again", "true 1 enforce", 1)
	c.Close()
	c = l.open(t)
	check("after a restart", "true 1 enforce", 1)
	l.records["_mta-sts.example.net"]["TXT"] = []string{"v=STSv1; id=2"}
	c.Close()
	l.now = l.now.Add(time.Hour)
	c = l.open(t)
	check("new id", "true 2 enforce", 2)
	l.say(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) })
	l.records["_mta-sts.example.net"]["TXT"] = []string{"v=STSv1; id=3"}
	c.Close()
	l.now = l.now.Add(time.Hour)
	c = l.open(t)
	check("a redirect", "true 2 enforce", 3)
	l.records["_mta-sts.example.net"] = map[string][]string{"RCODE": {"SERVFAIL"}}
	c.Close()
	l.now = l.now.Add(time.Hour)
	c = l.open(t)
	check("DNS broken", "true 2 enforce", 3)
	l.now = l.now.Add(48 * time.Hour)
	check("expired", "false 2 enforce", 3)
	c.Close()
}

// TestRefused: what is no policy.
func TestRefused(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"404": func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) },
		"HTML": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, good)
		},
		"nonsense": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			fmt.Fprint(w, "x")
		},
		"elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://example.com/", http.StatusMovedPermanently)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.say(h)
			c := l.open(t)
			defer c.Close()
			if got := ask(t, c); !strings.HasPrefix(got, "false") {
				t.Errorf("%s", got)
			}
			if ask(t, c); l.gets.Load() != 1 {
				t.Errorf("fetched %d times at once", l.gets.Load())
			}
		})
	}
}

// TestPatience: mail does not wait for a server that does not answer.
func TestPatience(t *testing.T) {
	l := newLab(t)
	l.o.Patience = time.Millisecond
	stop := make(chan struct{})
	l.say(func(http.ResponseWriter, *http.Request) { <-stop })
	c := l.open(t)
	if _, known := c.Policy(context.Background(), "example.net"); known {
		t.Error("known")
	}
	close(stop)
	c.Close()
}

// TestEvict: domains that mail is sent to do not fill the memory.
func TestEvict(t *testing.T) {
	l := newLab(t)
	l.o.Max = 10
	c := l.open(t)
	for i := range 50 {
		c.Policy(context.Background(), fmt.Sprintf("d%d.example", i))
	}
	c.group.Wait()
	if len(c.domains) > 10 {
		t.Errorf("%d domains", len(c.domains))
	}
	c.Close()
}

// FuzzParsePolicy: bounded, and what is accepted is whole.
func FuzzParsePolicy(f *testing.F) {
	f.Add(good)
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePolicy(strings.NewReader(s))
		if err == nil && (p.Mode == "" || p.Mode != "none" && len(p.MX) == 0 || p.MaxAge < 0 || p.MaxAge > maxMaxAge) {
			t.Errorf("%+v", p)
		}
		ParseRecord([]string{s})
		p.Match(s)
	})
}
