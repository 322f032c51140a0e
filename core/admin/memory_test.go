package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// memory is a Memory that notes what it is asked.
type memory struct {
	items []Item
	asked []string
	err   error
}

func (m *memory) Remembered(kind, check string, limit int) ([]Item, error) {
	m.asked = append(m.asked, fmt.Sprintf("list %s %q %d", kind, check, limit))
	return m.items, m.err
}

func (m *memory) Forget(kind, check, key string) (int, error) {
	m.asked = append(m.asked, fmt.Sprintf("forget %s %q %q", kind, check, key))
	return 3, m.err
}

// serve opens a control socket until the test ends and returns its state directory.
func serve(t *testing.T, c Config) string {
	t.Helper()
	c.State, c.Logger = t.TempDir(), slog.New(slog.DiscardHandler)
	if c.Status == nil {
		c.Status = func() Status { return Status{} }
	}
	s, err := Listen(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c.State
}

// TestMemory: what checks remember is listed and forgotten, whatever is in the keys.
func TestMemory(t *testing.T) {
	odd := "a b&key=c/../<x>\x00é%2f"
	m := &memory{items: []Item{
		{Check: "in/rate", Key: odd, Sum: 3, Window: "1m0s"},
		{Check: "in/grey", Key: "k", Seen: 2, First: time.Unix(1700000000, 0).UTC(), Last: time.Unix(1700000001, 0).UTC(), Until: time.Unix(1700000002, 0).UTC()},
	}}
	state := serve(t, Config{Memory: m})
	b, err := Ask(t.Context(), state, "/memory/"+Counters+"?check="+url.QueryEscape("in/rate"))
	if err != nil {
		t.Fatal(err)
	}
	var items []Item
	if err := json.Unmarshal(b, &items); err != nil || len(items) != 2 || items[0] != m.items[0] || !items[1].First.Equal(m.items[1].First) {
		t.Errorf("%s, %v", b, err)
	}
	if s := string(b); strings.Contains(s, "0001-01-01") {
		t.Errorf("times that are not there are shown: %s", s)
	}
	if _, err := Ask(t.Context(), state, "/memory/"+State); err != nil {
		t.Error(err)
	}
	b, err = Delete(t.Context(), state, "/memory/"+State+"?check=in%2Fgrey&key="+url.QueryEscape(odd))
	if err != nil || strings.Join(strings.Fields(string(b)), "") != `{"forgotten":3}` {
		t.Errorf("%s, %v", b, err)
	}
	want := []string{`list counter "in/rate" 10000`, `list state "" 10000`, fmt.Sprintf(`forget state "in/grey" %q`, odd)}
	if got := strings.Join(m.asked, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("asked\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	// Nothing remembered is an answer, too.
	m.items = nil
	if b, err := Ask(t.Context(), state, "/memory/"+State); err != nil || strings.TrimSpace(string(b)) != "null" {
		t.Errorf("%s, %v", b, err)
	}
}

// TestErrors: each says what was asked and what is wrong.
func TestErrors(t *testing.T) {
	m := &memory{err: errors.New(`nothing is remembered under "moon"`)}
	rows := []struct {
		name   string
		do     func(ctx context.Context, state, path string) ([]byte, error)
		memory Memory
		path   string
		want   string
	}{
		{"kind that is none", Ask, m, "/memory/moon", `ask /memory/moon: nothing is remembered under "moon"`},
		{"forgetting of such", Delete, m, "/memory/moon?check=x", `ask /memory/moon: nothing is remembered under "moon"`},
		{"no memory", Ask, nil, "/memory/state", "ask /memory/state: 404 Not Found"},
		{"no metrics", Ask, m, "/metrics", "ask /metrics: 404 Not Found"},
		{"no kind", Ask, m, "/memory/", "404 Not Found"},
		{"forgetting the status", Delete, m, "/status", "405 Method Not Allowed"},
		{"no path", Ask, m, "", "404 Not Found"},
	}
	for _, row := range rows {
		state := serve(t, Config{Memory: row.memory})
		b, err := row.do(t.Context(), state, row.path)
		if err == nil || !strings.Contains(err.Error(), row.want) || errors.Is(err, ErrNotRunning) {
			t.Errorf("%s: %s, %v; want %q", row.name, b, err, row.want)
		}
	}
}

// TestMetrics: what the handler says is handed on as it is.
func TestMetrics(t *testing.T) {
	state := serve(t, Config{Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "wafer_connections 1\n") // the test reads it
	})})
	if b, err := Ask(t.Context(), state, "/metrics"); err != nil || string(b) != "wafer_connections 1\n" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestNotRunning: a socket behind which nobody is, or none.
func TestNotRunning(t *testing.T) {
	state := t.TempDir()
	if _, err := Delete(t.Context(), state, "/memory/state"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: %v", err)
	}
	if err := os.WriteFile(filepath.Join(state, SocketName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Ask(t.Context(), state, "/status"); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), SocketName) {
		t.Errorf("no server: %v", err)
	}
	if _, err := Listen(Config{State: filepath.Join(state, "none"), Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "listen on the control socket") {
		t.Errorf("no directory: %v", err)
	}
}
