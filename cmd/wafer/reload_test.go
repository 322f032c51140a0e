package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/decisions"
)

// reloadPolicy has a check at every stage, and differs in its limit.
const reloadPolicy = `policy "p" {
  on = ["mx"]
  check "rate" {
    plugin = "ratelimit"
    at     = "connect"
    allow  = ["count"]
    with   = { limit = %d }
  }
  check "helo" {
    plugin = "helo"
    at     = "helo"
    with   = { reject = ["invalid"] }
  }
  check "sender" {
    plugin = "sender"
    at     = "mail"
    with   = { reject = ["not-fqdn"] }
  }
  check "recipient" {
    plugin = "recipient"
    at     = "rcpt"
    with   = { reject = ["not-fqdn"] }
  }
}
`

// broken are ways in which a configuration can be bad, each with what the reload says.
func broken(t *testing.T, w *world) []struct{ file, text, says string } {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	good, err := os.ReadFile(w.path("config.hcl"))
	must(t, err)
	return []struct{ file, text, says string }{
		{"policies/p.hcl", "policy \"p\" {\n  on = [\n}\n", "p.hcl"},
		{"policies/p.hcl", strings.Replace(fmt.Sprintf(reloadPolicy, 1), `"ratelimit"`, `"./torn.wasm"`, 1), "malformed module"},
		{"policies/p.hcl", strings.Replace(fmt.Sprintf(reloadPolicy, 1), "invalid", "nonsense", 1), "nonsense"},
		{"policies/p_test.hcl", "test \"x\" {\n  given {\n    helo = \"mx.example.net\"\n  }\n  expect {\n    verdict = \"reject\"\n  }\n}\n", "tests of policies fail"},
		{"config.hcl", string(good) + fmt.Sprintf("listener \"more\" {\n  profile = \"imap\"\n  address = %q\n}\n", ln.Addr()), "another program has"},
		{"cert.pem", "no certificate", "load certificate"},
	}
}

// TestReloadUnderLoad changes the configuration many times, every second time to one
// that is broken, while mail comes in and is read. Nothing fails, every session is
// judged by one generation, and nothing is left behind.
func TestReloadUnderLoad(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 12
	}
	if s := os.Getenv("WAFER_RELOADS"); s != "" {
		_, err := fmt.Sscan(s, &rounds)
		must(t, err)
	}
	w := newWorld(t, setup{
		plain: true, policies: map[string]string{"p.hcl": fmt.Sprintf(reloadPolicy, 1_000_000)},
		top: "log {\n  decisions = true\n  decisions_size = \"1GiB\"\n}\nlimits {\n  connections_per_client = 1000\n  connection_rate = 1000000\n}\n",
	})
	w.write("policies/torn.wasm", "\x00asm\x01\x00\x00\x00\xff")
	s := w.start()
	seed(t, s, "first")
	bad := broken(t, w)
	text, err := os.ReadFile(w.path("config.hcl"))
	must(t, err)
	config := string(text)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var load sync.WaitGroup
	var sent, read atomic.Int64
	worker := func(work func() error) {
		load.Go(func() {
			for ctx.Err() == nil {
				if err := work(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := range 3 {
		worker(func() error {
			p, err := s.reach("mx", 0)
			if err != nil {
				return err
			}
			defer p.close()
			if err := p.greeted(); err != nil {
				return err
			}
			for i := range 5 {
				code, text, err := p.deliver("sender@example.net", []string{account}, "", sampleNumber(fmt.Sprint(n, "-", i)))
				if err != nil || code != 250 {
					return fmt.Errorf("a message was answered %q: %v", text, err)
				}
				sent.Add(1)
			}
			return nil
		})
	}
	worker(func() error {
		p, err := s.reach("imap", 0)
		if err != nil {
			return err
		}
		defer p.close()
		if err := p.imapLogin("ann"); err != nil {
			return err
		}
		for _, command := range []string{"SELECT INBOX", "UID FETCH 1:10 (FLAGS ENVELOPE)", "NOOP"} {
			if _, err := p.imapOK(command); err != nil {
				return err
			}
		}
		read.Add(1)
		return nil
	})
	var swaps []int64
	for n := range rounds {
		if n%2 == 1 {
			b := bad[n/2%len(bad)]
			was, werr := os.ReadFile(w.path(b.file))
			w.write(b.file, b.text)
			if _, err := admin.ChangeGeneration(ctx, w.path("state"), "reload", 0, admin.ReloadOptions{}); err == nil || !strings.Contains(err.Error(), b.says) {
				t.Errorf("reload with a bad %s: %v", b.file, err)
			}
			if werr != nil {
				must(t, os.Remove(w.path(b.file)))
			} else {
				w.write(b.file, string(was))
			}
			continue
		}
		w.write("policies/p.hcl", fmt.Sprintf(reloadPolicy, 1_000_000+n))
		if n%4 == 0 { // all listeners get new engines
			w.write("config.hcl", strings.Replace(config, "limits {", fmt.Sprintf("limits {\n  errors_soft = %d", 5+n%7), 1))
		}
		r, err := admin.ChangeGeneration(ctx, w.path("state"), "reload", 0, admin.ReloadOptions{})
		if err != nil {
			t.Errorf("reload %d: %v", n, err)
			break
		}
		swaps = append(swaps, r.SwapMicros)
	}
	stop()
	load.Wait()
	t.Logf("%d messages sent, %d mailboxes read, swaps in µs: %v", sent.Load(), read.Load(), swaps)
	st := s.status()
	if st.Generation.Number != 1+(rounds+1)/2 || st.Reloads.Good != uint64(rounds+1)/2 || st.Reloads.Bad != uint64(rounds)/2 {
		t.Errorf("generation %+v, reloads %+v", st.Generation, st.Reloads)
	}
	// All that is left is what one generation needs.
	s.until("the earlier generations have not ended", func(admin.Status) bool {
		return strings.Count(s.log.String(), "an earlier generation has ended") == (rounds+1)/2
	})
	s.until("goroutines are left", func(st admin.Status) bool { return st.Goroutines < 100+20*runtime.GOMAXPROCS(0) })
	s.stop()
	oneGeneration(t, w.path("state/decisions"))
}

// oneGeneration checks that every session was judged by one generation.
func oneGeneration(t *testing.T, dir string) {
	t.Helper()
	by := map[string]int{}
	records := 0
	_, err := decisions.Read(dir, decisions.Filter{}, func(e decisions.Entry) error {
		records++
		if g, ok := by[e.Session]; ok && g != e.Generation {
			t.Errorf("session %s was judged by generations %d and %d", e.Session, g, e.Generation)
		}
		by[e.Session] = e.Generation
		return nil
	})
	must(t, err)
	seen := map[int]bool{}
	for _, g := range by {
		seen[g] = true
	}
	if records == 0 || len(seen) < 2 {
		t.Errorf("%d records of %d generations", records, len(seen))
	}
	t.Logf("%d records, %d sessions, %d generations", records, len(by), len(seen))
}

// TestReloadSignal reloads by SIGHUP, and by watching: a file in its place, and a
// Kubernetes volume, where a link to a folder changes.
func TestReloadSignal(t *testing.T) {
	w := newWorld(t, setup{policies: map[string]string{"p.hcl": fmt.Sprintf(reloadPolicy, 1)}})
	must(t, os.Rename(w.path("policies"), w.path("one")))
	must(t, os.Symlink("one", w.path("..data")))
	must(t, os.Symlink("..data", w.path("policies")))
	s := w.start("--watch")
	generation := func(n int) {
		t.Helper()
		s.until(fmt.Sprintf("no generation %d", n), func(st admin.Status) bool { return st.Generation.Number == n })
	}
	w.write("one/p.hcl.new", fmt.Sprintf(reloadPolicy, 2))
	must(t, os.Rename(w.path("one/p.hcl.new"), w.path("one/p.hcl")))
	generation(2)
	w.write("two/p.hcl", fmt.Sprintf(reloadPolicy, 3))
	must(t, os.Symlink("two", w.path("..data_tmp")))
	must(t, os.Rename(w.path("..data_tmp"), w.path("..data")))
	generation(3)
	w.write("two/p.hcl", fmt.Sprintf(reloadPolicy, 4)) // the new folder is watched too
	generation(4)
	must(t, s.cmd.Process.Signal(syscall.SIGHUP))
	generation(5)
	w.write("two/p.hcl", "policy {")
	s.until("no failed reload", func(st admin.Status) bool { return st.Reloads.Bad == 1 })
	s.stop()
}

// TestReloadGrace ends a session of an earlier generation when its time is up.
func TestReloadGrace(t *testing.T) {
	w := newWorld(t, setup{policies: map[string]string{"p.hcl": fmt.Sprintf(reloadPolicy, 100)}, top: "limits {\n  reload_grace = \"1s\"\n}\n"})
	s := w.start()
	p := s.open("mx", 0)
	must(t, p.greeted())
	w.write("policies/p.hcl", fmt.Sprintf(reloadPolicy, 101))
	_, err := admin.ChangeGeneration(context.Background(), w.path("state"), "reload", 0, admin.ReloadOptions{})
	must(t, err)
	code, text, err := p.reply()
	must(t, err)
	if code != 421 {
		t.Errorf("the session ends with %q", text)
	}
	s.until("the earlier generation has not ended", func(admin.Status) bool { return strings.Contains(s.log.String(), "an earlier generation has ended") })
	s.stop()
}

// TestHistory keeps ten generations, and tells a damaged one.
func TestHistory(t *testing.T) {
	w := newWorld(t, setup{policies: map[string]string{"p.hcl": fmt.Sprintf(reloadPolicy, 1)}})
	s := w.start()
	for n := range 12 {
		w.write("policies/p.hcl", fmt.Sprintf(reloadPolicy, n+2))
		_, err := admin.ChangeGeneration(context.Background(), w.path("state"), "reload", 0, admin.ReloadOptions{})
		must(t, err)
	}
	b, err := admin.Ask(context.Background(), w.path("state"), "/generations")
	must(t, err)
	var kept []admin.Kept
	must(t, json.Unmarshal(b, &kept))
	if len(kept) != 10 || kept[0].Number != 4 || kept[9].Number != 13 {
		t.Errorf("kept %+v", kept)
	}
	files, err := filepath.Glob(w.path("state/generations/12/*"))
	must(t, err)
	for _, f := range files {
		if !strings.HasSuffix(f, ".json") {
			must(t, os.WriteFile(f, []byte("policy \"p\" { on = [\"mx\"] }"), 0o600))
		}
	}
	_, err = admin.ChangeGeneration(context.Background(), w.path("state"), "rollback", 0, admin.ReloadOptions{})
	if err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a damaged generation: %v", err)
	}
	_, err = admin.ChangeGeneration(context.Background(), w.path("state"), "rollback", 11, admin.ReloadOptions{})
	must(t, err)
	s.stop()
}

// TestReloadCertificate shows new sessions the new certificate, users and aliases, and
// leaves those that are there alone.
func TestReloadCertificate(t *testing.T) {
	w := newWorld(t, setup{plain: true})
	s := w.start()
	serial := func() string {
		c, err := tls.Dial("tcp", s.addr["imaps"], &tls.Config{InsecureSkipVerify: true})
		must(t, err)
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	p := s.open("imap", 0)
	must(t, p.imapLogin("ann"))
	cert, key, _, err := makePair(testHost)
	must(t, err)
	w.write("cert.pem", string(cert))
	w.write("key.pem", string(key))
	b, err := os.ReadFile(w.path("config.hcl"))
	must(t, err)
	w.write("config.hcl", strings.Replace(string(b), `aliases   = { postmaster`, `aliases   = { sales = ["bob"], postmaster`, 1))
	if serial() != before {
		t.Error("the certificate changes before the reload")
	}
	r, err := admin.ChangeGeneration(context.Background(), w.path("state"), "reload", 0, admin.ReloadOptions{})
	must(t, err)
	var changes []string
	for _, x := range r.Changes {
		changes = append(changes, x.Kind+" "+x.What)
	}
	if got := strings.Join(changes, ", "); got != "changed domain example.test, changed tls, added alias sales@example.test" {
		t.Errorf("changes: %s", got)
	}
	if serial() == before {
		t.Error("the certificate is the old one after the reload")
	}
	_, err = p.imapOK("NOOP")
	must(t, err)
	q := s.open("mx", 0)
	must(t, q.greeted())
	_, err = q.want(250, "MAIL FROM:<a@example.net>")
	must(t, err)
	_, err = q.want(250, "RCPT TO:<sales@example.test>")
	must(t, err)
	s.stop()
}
