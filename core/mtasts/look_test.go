package mtasts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wafermail/wafer/core/dns"
)

// web answers without a network, so that the tests' clock can stand in for time.
type web func(r *http.Request) (string, error)

func (w web) RoundTrip(r *http.Request) (*http.Response, error) {
	text, err := w(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Status: "200", Header: http.Header{"Content-Type": {"text/plain"}}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}

// silent is a host that takes the question and never answers.
func silent(r *http.Request) (string, error) {
	<-r.Context().Done()
	return "", r.Context().Err()
}

// everyone is a zone in which every domain under test has a record.
func everyone() *dns.Zone {
	return dns.NewZone(map[string]map[string][]string{"*.test": {"TXT": {"v=STSv1; id=1"}}, "plain.example": {"A": {"192.0.2.1"}}})
}

func openWith(t *testing.T, o Options) *Cache {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	o.Dir = dir
	if o.Resolver == nil {
		o.Resolver = everyone()
	}
	c, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// waited is how long a call takes.
func waited(c *Cache, domain string) time.Duration {
	start := time.Now()
	c.Policy(context.Background(), domain)
	return time.Since(start)
}

// TestPatience: mail waits for a host that does not answer once and no longer, and one
// that has given up its mail waits no longer than that.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openWith(t, Options{Client: &http.Client{Transport: web(silent)}})
		defer c.Close()
		if d := waited(c, "a.test"); d != 5*time.Second {
			t.Errorf("the first waits %v", d)
		}
		if d := waited(c, "a.test"); d != 0 {
			t.Errorf("the second waits %v", d)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		c.Policy(ctx, "b.test")
		if d := time.Since(start); d != time.Second {
			t.Errorf("one that gives up waits %v", d)
		}
	})
}

// TestSlowHosts: hosts that do not answer take all that is there for fetches, and
// neither domains without a policy nor mail wait for them.
func TestSlowHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most := 0, 0
		c := openWith(t, Options{Client: &http.Client{Transport: web(func(r *http.Request) (string, error) {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			defer func() {
				mu.Lock()
				now--
				mu.Unlock()
			}()
			return silent(r)
		})}})
		defer c.Close()
		var group sync.WaitGroup
		for i := range 2 * maxLooks {
			group.Go(func() {
				if d := waited(c, fmt.Sprintf("d%d.test", i)); d > 5*time.Second {
					t.Errorf("waits %v", d)
				}
			})
		}
		group.Wait()
		c.mu.Lock()
		looks := c.looks
		c.mu.Unlock()
		mu.Lock()
		if looks != maxLooks || most != fetches {
			t.Errorf("%d looks, %d fetches", looks, most)
		}
		mu.Unlock()
		time.Sleep(lookTime)
		synctest.Wait()
		for i := range 2 * fetches {
			go waited(c, fmt.Sprintf("e%d.test", i))
		}
		synctest.Wait()
		if d := waited(c, "plain.example"); d != 0 {
			t.Errorf("a domain without a policy waits %v for the others", d)
		}
	})
}

// TestBackOff: a host that fails is asked less and less often.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var asked []string
		c := openWith(t, Options{Client: &http.Client{Transport: web(func(*http.Request) (string, error) {
			asked = append(asked, fmt.Sprint(time.Since(start).Minutes()))
			return "", errors.New("broken")
		})}})
		defer c.Close()
		for range 6 * 60 {
			c.Policy(context.Background(), "a.test")
			time.Sleep(time.Minute)
		}
		if got := strings.Join(asked, " "); got != "0 5 15 35 75 135 195 255 315" {
			t.Errorf("asked at minutes %s", got)
		}
	})
}

// TestRenew: a policy that nobody asks for is renewed daily while there was mail in the
// last 30 days, and then expires.
func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gets atomic.Int32
		c := openWith(t, Options{Client: &http.Client{Transport: web(func(*http.Request) (string, error) {
			gets.Add(1)
			return strings.Replace(good, "86400", "604800", 1), nil
		})}})
		defer c.Close()
		c.Policy(context.Background(), "a.test")
		time.Sleep(29*24*time.Hour + time.Minute)
		if _, known := c.Policy(context.Background(), "a.test"); !known || gets.Load() != 30 {
			t.Errorf("after 29 days: known %v, %d fetches", known, gets.Load())
		}
		time.Sleep(60 * 24 * time.Hour)
		synctest.Wait()
		c.mu.Lock()
		defer c.mu.Unlock()
		if _, known := c.domains["a.test"].policy.inForce(time.Now()); known || gets.Load() > 61 {
			t.Errorf("60 days without mail: known %v, %d fetches", known, gets.Load())
		}
	})
}

// TestEvict: domains without a policy, however many, do not drive out one that has; and
// those with a policy are bounded too, on disk as in memory.
func TestEvict(t *testing.T) {
	c := openWith(t, Options{Max: 10, Client: &http.Client{Transport: web(func(*http.Request) (string, error) { return good, nil })}})
	defer c.Close()
	count := func() (domains, files int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		names, err := os.ReadDir(c.o.Dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(c.domains), len(names)
	}
	c.Policy(context.Background(), "a.test")
	for i := range 50 {
		c.Policy(context.Background(), fmt.Sprintf("d%d.example", i))
	}
	if n, files := count(); n > 11 || files != 1 {
		t.Errorf("%d domains, %d files", n, files)
	}
	if _, known := c.Policy(context.Background(), "a.test"); !known {
		t.Error("the policy was driven out")
	}
	for i := range 50 {
		c.Policy(context.Background(), fmt.Sprintf("d%d.test", i))
		c.Policy(context.Background(), "a.test")
	}
	if n, files := count(); n > 20 || files != 10 {
		t.Errorf("%d domains, %d files", n, files)
	}
	if p, known := c.Policy(context.Background(), "a.test"); !known || !p.Match("mx.example.net") {
		t.Error("the one that is asked for most was driven out")
	}
}

// TestPanic: a resolver that panics costs one look.
func TestPanic(t *testing.T) {
	c := openWith(t, Options{Resolver: broken{}})
	if _, known := c.Policy(context.Background(), "a.test"); known {
		t.Error("known")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, known := c.Policy(context.Background(), "b.test"); known {
		t.Error("known after the end")
	}
}

type broken struct{}

func (broken) Lookup(context.Context, dns.Question) dns.Answer { panic("broken") }

// TestClose: looks under way end with the cache.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openWith(t, Options{Client: &http.Client{Transport: web(silent)}})
		go c.Policy(context.Background(), "a.test")
		synctest.Wait()
		start := time.Now()
		if err := c.Close(); err != nil || time.Since(start) != 0 {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}
