package mtasts

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/dns"
)

// lab is a web server that plays every domain under example.net, a zone that can be
// changed, and a clock.
type lab struct {
	t     *testing.T
	gets  atomic.Int32
	serve atomic.Pointer[http.HandlerFunc]
	zone  atomic.Pointer[dns.Zone]
	addr  string
	now   atomic.Pointer[time.Time]
	o     Options
}

func (l *lab) Lookup(ctx context.Context, q dns.Question) dns.Answer {
	return l.zone.Load().Lookup(ctx, q)
}

// newLab returns a lab whose certificate is for names, and whose record has the id 1.
func newLab(t *testing.T, names ...string) *lab {
	l := &lab{t: t}
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	l.now.Store(&start)
	l.text("v=STSv1; id=1")
	l.say(policy(good))
	if len(names) == 0 {
		names = []string{"mta-sts.example.net", "mta-sts.other.example.net"}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.gets.Add(1)
		if r.URL.Path != "/.well-known/mta-sts.txt" || !strings.HasPrefix(r.Host, "mta-sts.") {
			http.NotFound(w, r)
			return
		}
		(*l.serve.Load())(w, r)
	}))
	web.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	web.Config.ErrorLog = log.New(io.Discard, "", 0) // of refused certificates
	web.StartTLS()
	t.Cleanup(web.Close)
	l.addr = web.Listener.Addr().String()
	client := web.Client()
	client.Transport.(*http.Transport).DialContext = l.dial
	l.o = Options{Dir: t.TempDir(), Resolver: l, Client: client, Now: func() time.Time { return *l.now.Load() }, Patience: 20 * time.Second}
	return l
}

func (l *lab) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", l.addr)
}

func (l *lab) say(f http.HandlerFunc) { l.serve.Store(&f) }

// text sets the record of every domain.
func (l *lab) text(records ...string) {
	l.rcode(map[string][]string{"TXT": records})
}

func (l *lab) rcode(types map[string][]string) {
	l.zone.Store(dns.NewZone(map[string]map[string][]string{"_mta-sts.example.net": types, "_mta-sts.other.example.net": types}))
}

func (l *lab) pass(d time.Duration) {
	now := l.now.Load().Add(d)
	l.now.Store(&now)
}

func (l *lab) open() *Cache {
	l.t.Helper()
	c, err := Open(l.o)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c
}

// files is what the cache has on disk.
func (l *lab) files() int {
	names, err := filepath.Glob(filepath.Join(l.o.Dir, "*"))
	if err != nil {
		l.t.Fatal(err)
	}
	return len(names)
}

func policy(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, text)
	}
}

// ask waits until the look that it causes is over.
func ask(c *Cache, domain string) string {
	c.Policy(context.Background(), domain)
	c.mu.Lock()
	var pending context.Context
	if e := c.domains["example.net"]; e != nil {
		pending = e.pending
	}
	c.mu.Unlock()
	if pending != nil {
		<-pending.Done()
	}
	p, known := c.Policy(context.Background(), domain)
	return strings.TrimSpace(fmt.Sprint(known, " ", p.ID, " ", p.Mode))
}

// TestLife is the life of one domain's policy.
func TestLife(t *testing.T) {
	l := newLab(t)
	c := l.open()
	check := func(step, want string, gets int32, files int) {
		t.Helper()
		if got := ask(c, "Example.NET."); got != want || l.gets.Load() != gets || l.files() != files {
			t.Errorf("%s: %q after %d fetches with %d files, want %q, %d, %d", step, got, l.gets.Load(), l.files(), want, gets, files)
		}
	}
	reopen := func() {
		t.Helper()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		c = l.open()
	}
	check("first", "true 1 enforce", 1, 1)
	check("again", "true 1 enforce", 1, 1)
	reopen()
	check("after a restart", "true 1 enforce", 1, 1)
	l.text("v=STSv1; id=2")
	check("the record is not asked for at once", "true 1 enforce", 1, 1)
	l.pass(time.Hour)
	check("new id", "true 2 enforce", 2, 1)
	l.pass(11 * time.Hour)
	check("same id before half its life", "true 2 enforce", 2, 1)
	l.pass(time.Hour)
	check("same id after half its life", "true 2 enforce", 3, 1)
	l.say(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) })
	l.text("v=STSv1; id=3")
	l.pass(time.Hour)
	check("a redirect", "true 2 enforce", 4, 1)
	l.pass(4 * time.Minute)
	check("a failure is remembered", "true 2 enforce", 4, 1)
	l.rcode(map[string][]string{"RCODE": {"SERVFAIL"}})
	l.pass(time.Hour)
	check("DNS broken", "true 2 enforce", 4, 1)
	l.pass(12 * time.Hour)
	check("DNS and HTTPS broken, half its life over", "true 2 enforce", 5, 1)
	l.say(policy(good))
	l.pass(time.Hour)
	check("only DNS broken", "true 2 enforce", 6, 1)
	l.text("v=spf1 -all")
	l.pass(13 * time.Hour)
	check("record gone, policy there", "true 2 enforce", 7, 1)
	l.say(http.NotFound)
	l.pass(23 * time.Hour)
	check("both gone", "true 2 enforce", 8, 1)
	l.pass(2 * time.Hour)
	check("expired", "false", 8, 0)
	l.say(policy("version: STSv1\nmode: none\nmax_age: 86400\n"))
	l.text("v=STSv1; id=4")
	l.pass(time.Hour)
	check("none", "false", 9, 0)
	l.pass(time.Hour)
	check("none is not fetched again", "false", 9, 0)
	l.say(policy(strings.Replace(good, "enforce", "testing", 1)))
	l.text("v=STSv1; id=5")
	l.pass(time.Hour)
	check("testing", "true 5 testing", 10, 1)
	l.say(policy("version: STSv1\nmode: none\nmax_age: 86400\n"))
	l.text("v=STSv1; id=6")
	l.pass(time.Hour)
	check("none removes", "false", 11, 0)
}

// TestRefused: what is no policy, and is not asked for again at once.
func TestRefused(t *testing.T) {
	typed := func(kind string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{kind}
			fmt.Fprint(w, good)
		}
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(code)
			fmt.Fprint(w, good)
		}
	}
	for _, r := range []struct {
		name  string
		serve http.HandlerFunc
		want  string
	}{
		{"plain", typed("text/plain"), "true 1 enforce"},
		{"another charset", typed("Text/Plain; charset=latin1"), "true 1 enforce"},
		{"parameter of nonsense", typed("text/plain; charset"), "true 1 enforce"},
		{"HTML", typed("text/html"), "false"},
		{"no type", typed(""), "false"},
		{"a longer type", typed("text/plainer"), "false"},
		{"404", status(404), "false"},
		{"203", status(203), "false"},
		{"500", status(500), "false"},
		{"301", status(301), "false"},
		{"nonsense", policy("x"), "false"},
		{"huge", policy(good + strings.Repeat("x: y\n", 1<<20)), "false"},
		{"redirect to itself", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/.well-known/mta-sts.txt?x", http.StatusMovedPermanently)
		}, "false"},
		{"redirect elsewhere", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://mta-sts.other.example.net/.well-known/mta-sts.txt", http.StatusTemporaryRedirect)
		}, "false"},
		{"cut off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Length", "9999")
			fmt.Fprint(w, good)
		}, "false"},
		{"no answer", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "false"},
	} {
		t.Run(r.name, func(t *testing.T) {
			l := newLab(t)
			l.say(r.serve)
			c := l.open()
			if got := ask(c, "example.net"); got != r.want {
				t.Errorf("%s, want %s", got, r.want)
			}
			if ask(c, "example.net"); l.gets.Load() != 1 && r.name != "no answer" { // which net/http asks for twice
				t.Errorf("fetched %d times", l.gets.Load())
			}
		})
	}
}

// TestNoRecord: nothing is fetched where the record does not say so.
func TestNoRecord(t *testing.T) {
	l := newLab(t)
	l.text("v=STSv1; id=1", "v=STSv1; id=2")
	c := l.open()
	for _, domain := range []string{"example.net", "none.test", "[192.0.2.1]", "a/b", "user@example.net", "x y", "", ".", "example.net:1", strings.Repeat("a.", 200) + "a"} {
		if got := ask(c, domain); got != "false" {
			t.Errorf("%q: %s", domain, got)
		}
	}
	if l.gets.Load() != 0 || len(c.domains) > 2 {
		t.Errorf("%d fetches, %d domains", l.gets.Load(), len(c.domains))
	}
}

// TestCertificate: the host must be mta-sts.DOMAIN, whoever else it is.
func TestCertificate(t *testing.T) {
	for name, want := range map[string]string{"mta-sts.example.net": "true 1 enforce", "*.example.net": "true 1 enforce", "example.net": "false", "mta-sts.example.org": "false", "other.mta-sts.example.net": "false"} {
		l := newLab(t, name)
		if got := ask(l.open(), "example.net"); got != want {
			t.Errorf("certificate for %s: %s, want %s", name, got, want)
		}
	}
}

// TestDefaultClient: it finds hosts with the resolver and believes no stranger.
func TestDefaultClient(t *testing.T) {
	l := newLab(t)
	l.zone.Store(dns.NewZone(map[string]map[string][]string{"mta-sts.example.net": {"A": {"127.0.0.2", "127.0.0.1"}}}))
	client := newClient(Options{Resolver: l})
	tr := client.Transport.(*http.Transport)
	_, port, err := net.SplitHostPort(l.addr)
	if err != nil {
		t.Fatal(err)
	}
	url := "https://mta-sts.example.net:" + port + "/.well-known/mta-sts.txt"
	if _, err := client.Get(url); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("unknown authority: %v", err)
	}
	tr.TLSClientConfig.RootCAs = l.o.Client.Transport.(*http.Transport).TLSClientConfig.RootCAs
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if _, err := client.Get("https://mta-sts.none.test:" + port + "/"); err == nil || !strings.Contains(err.Error(), "no address") {
		t.Errorf("no address: %v", err)
	}
}

// TestManyAtOnce: one fetch serves all mail that waits for it.
func TestManyAtOnce(t *testing.T) {
	l := newLab(t)
	c := l.open()
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			if _, known := c.Policy(context.Background(), "example.net"); !known {
				t.Error("not known")
			}
		})
	}
	group.Wait()
	if l.gets.Load() != 1 {
		t.Errorf("%d fetches", l.gets.Load())
	}
}

// TestFolder: what is on disk is believed only if it is what was put there.
func TestFolder(t *testing.T) {
	l := newLab(t)
	c := l.open()
	ask(c, "example.net")
	name := c.file("example.net")
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(filepath.Base(c.file("../../x")), "/\\") || filepath.Dir(c.file("../../x")) != l.o.Dir {
		t.Errorf("file %s", c.file("../../x"))
	}
	c.Close()
	l.text("v=spf1 -all")
	for _, r := range []struct {
		name, file, text string
		known            bool
		files            int
	}{
		{"whole", name, string(whole), true, 1},
		{"another domain's", filepath.Join(l.o.Dir, "x.json"), string(whole), false, 0},
		{"cut off", name, string(whole[:20]), false, 0},
		{"empty", name, "", false, 0},
		{"another mode", name, strings.Replace(string(whole), "enforce", "maybe", 1), false, 0},
		{"endless", name, strings.Replace(string(whole), `"max_age":`, `"max_age":999`, 1), false, 0},
		{"huge", name, string(whole) + strings.Repeat(" ", maxFile), false, 0},
		{"from the future", name, strings.Replace(string(whole), "2026-", "2036-", 1), true, 1},
		{"from long ago", name, strings.Replace(string(whole), "2026-", "2016-", 1), false, 0},
		{"left by a crash", name + ".tmp", string(whole), false, 0},
		{"something else", filepath.Join(l.o.Dir, "README"), "x", false, 1},
	} {
		t.Run(r.name, func(t *testing.T) {
			l.o.Dir = filepath.Dir(name)
			old, _ := filepath.Glob(filepath.Join(l.o.Dir, "*"))
			for _, f := range old {
				os.Remove(f)
			}
			if err := os.WriteFile(r.file, []byte(r.text), 0o600); err != nil {
				t.Fatal(err)
			}
			c := l.open()
			defer c.Close()
			p, known := c.Policy(context.Background(), "example.net")
			if known != r.known || l.files() != r.files {
				t.Errorf("%+v %v, %d files", p, known, l.files())
			}
			if known && p.Fetched.After(l.o.Now()) {
				t.Errorf("fetched %v", p.Fetched)
			}
		})
	}
	l.o.Dir = name // was a file at last
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(l.o); err == nil {
		t.Error("a file is taken for a folder")
	}
}
