package wasm

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// built holds the folder with the plugins that the tests use, built once.
var built string

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "wafer-wasm-test")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	built = dir
	for name, pkg := range map[string]string{
		"helo":      "github.com/wafermail/wafer/plugins/helo",
		"ratelimit": "github.com/wafermail/wafer/plugins/ratelimit",
		"spf":       "github.com/wafermail/wafer/plugins/spf",
		"naughty":   "./testdata/naughty",
	} {
		cmd := exec.Command("go", "build", "-ldflags=-s -w", "-buildmode=c-shared", "-o", filepath.Join(dir, name+".wasm"), pkg)
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build plugin %s: %w\n%s", name, err, out)
		}
	}
	return m.Run(), nil
}

// plugin returns a built plugin's octets.
func plugin(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(built, name+".wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var (
	sharedOnce sync.Once
	sharedHost *Host
	sharedErr  error
)

// cacheDir keeps what was compiled, for all Hosts of the tests.
func cacheDir() string { return filepath.Join(built, "cache") }

// shared returns a Host that all tests use, so that each plugin is compiled
// once.
func shared(t testing.TB) *Host {
	t.Helper()
	sharedOnce.Do(func() { sharedHost, sharedErr = New(Options{CacheDir: cacheDir()}) })
	if sharedErr != nil {
		t.Fatal(sharedErr)
	}
	return sharedHost
}

// load loads a module or fails the test.
func load(t testing.TB, h *Host, module []byte, o LoadOptions) *Plugin {
	t.Helper()
	if o.Name == "" {
		o.Name = "test/check"
	}
	p, err := h.Load(context.Background(), module, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// world is a policy.Host from tables.
type world struct {
	mu     sync.Mutex
	clock  time.Time
	zone   map[string]policy.Answer
	counts map[string]int64
	lines  []string
	asked  int
	block  chan struct{} // DNS waits for it, if it is there
	// arrived is told of each who begins to wait, if it is there.
	arrived chan struct{}
	table   policy.Table // state, lists, metrics
}

func newWorld() *world {
	return &world{clock: time.Unix(1795000000, 0), zone: make(map[string]policy.Answer), counts: make(map[string]int64), table: policy.Table{Time: time.Unix(1795000000, 0)}}
}

func (w *world) Now() time.Time { return w.clock }

func (w *world) Random(p []byte) { clear(p) }

func (w *world) DNS(ctx context.Context, qs []policy.Question) []policy.Answer {
	w.mu.Lock()
	w.asked += len(qs)
	w.mu.Unlock()
	as := make([]policy.Answer, len(qs))
	if w.block != nil {
		if w.arrived != nil {
			w.arrived <- struct{}{}
		}
		select {
		case <-w.block:
		case <-ctx.Done():
			for i := range as {
				as[i].Status = policy.DNSTemp
			}
			return as
		}
	}
	for i, q := range qs {
		a, ok := w.zone[q.Type+" "+q.Name]
		if !ok {
			a.Status = policy.DNSNotFound
		}
		as[i] = a
	}
	return as
}

func (w *world) Count(_ context.Context, key string, delta int64, _ time.Duration) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[key] += delta
	return w.counts[key], nil
}

func (w *world) StateGet(_ context.Context, key string) ([]byte, bool, error) {
	return w.table.StateGet(context.Background(), key)
}

func (w *world) StatePut(_ context.Context, key string, value []byte, ttl time.Duration) error {
	return w.table.StatePut(context.Background(), key, value, ttl)
}

func (w *world) StateSeen(_ context.Context, key string, ttl time.Duration) (policy.Sighting, error) {
	return w.table.StateSeen(context.Background(), key, ttl)
}

func (w *world) List(name, key string) (string, bool, error) { return w.table.List(name, key) }

func (w *world) Metric(label string, delta int64) { w.table.Metric(label, delta) }

func (w *world) Log(level int, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, fmt.Sprint(level, " ", text))
}

func path(t testing.TB, s string) mail.Path {
	t.Helper()
	p, err := mail.ParsePath(s, true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// event is a typical event at stage.
func event(t testing.TB, stage policy.Stage, helo string) *policy.Event {
	t.Helper()
	return &policy.Event{
		Stage:      stage,
		Time:       time.Unix(1795000000, 0),
		Session:    "01ARZ3NDEKTSV4RRF",
		Door:       "mx",
		Protocol:   "smtp",
		Server:     netip.MustParseAddrPort("192.0.2.1:25"),
		Hostname:   "mx.local.example",
		Client:     netip.MustParseAddrPort("198.51.100.7:4711"),
		ClientName: "client.example.net",
		Helo:       helo,
		Extended:   true,
		TLS:        mail.TLS{Version: "TLSv1.3", Cipher: "TLS_AES_128_GCM_SHA256"},
		Sender:     path(t, "alice@example.com"),
		HasSender:  stage >= policy.Mail,
		Recipient:  path(t, "bob@local.example"),
	}
}

// logger collects what the Host logs.
func logger() (*slog.Logger, *bytes.Buffer) {
	var b bytes.Buffer
	return slog.New(slog.NewTextHandler(&b, nil)), &b
}
