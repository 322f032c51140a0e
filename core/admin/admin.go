// Package admin is the door of the operator: a control socket in the state
// directory over which the wafer command asks a running server.
//
// It speaks HTTP with JSON bodies over a Unix socket, so that curl can be used
// too: curl --unix-socket STATE/control.sock http://wafer/status. The socket
// has mode 0600: who may open it may ask everything.
//
// # BUGS
//
// A server that was killed leaves its socket behind; the next one replaces it.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/queue"
)

// SocketName is the socket's name in the state directory.
const SocketName = "control.sock"

// maxAnswer bounds what a client reads, in octets.
const maxAnswer = 16 << 20

// Status is what a running server says of itself.
type Status struct {
	Hostname   string           `json:"hostname"`
	Version    string           `json:"version"`
	PID        int              `json:"pid"`
	Started    time.Time        `json:"started"`
	Generation Generation       `json:"generation"`
	Listeners  []Listener       `json:"listeners"`
	Owed       int              `json:"owed"`   // acknowledged messages that wait for a mailbox
	Memory     uint64           `json:"memory"` // heap in use, octets
	Goroutines int              `json:"goroutines"`
	Checks     map[string]Tally `json:"checks"` // by policy/check
	Reloads    Reloads          `json:"reloads"`
	Rollout    *Rollout         `json:"rollout,omitempty"`
}

// Generation is one configuration that serves.
type Generation struct {
	Number int       `json:"number"`
	Digest string    `json:"digest"`
	Loaded time.Time `json:"loaded"`
	Origin string    `json:"origin"` // "start", "reload", "rollback to 3"
}

// Listener is one door.
type Listener struct {
	Name    string `json:"name"`
	Profile string `json:"profile"`
	Address string `json:"address"`
	Open    int    `json:"open"`   // connections now
	Total   uint64 `json:"total"`  // connections so far
	Panics  uint64 `json:"panics"` // sessions that ended in a bug of ours
}

// Tally counts what a check has decided.
type Tally struct {
	Asked  uint64 `json:"asked"`
	Next   uint64 `json:"next"`
	Refuse uint64 `json:"refuse"`
	Errors uint64 `json:"errors"`
}

// Kinds of what checks remember.
const (
	Counters = "counter" // sums over sliding windows, in memory
	State    = "state"   // values and sightings, on disk
)

// Item is one thing that a check remembers.
type Item struct {
	Check  string    `json:"check"` // "policy/check"
	Key    string    `json:"key"`   // the check's own
	Sum    int64     `json:"sum,omitempty"`
	Window string    `json:"window,omitempty"` // of Sum
	Value  string    `json:"value,omitempty"`
	Seen   int64     `json:"seen,omitempty"` // how often
	First  time.Time `json:"first,omitzero"` // when it was seen
	Last   time.Time `json:"last,omitzero"`
	Until  time.Time `json:"until,omitzero"` // when it is forgotten
}

// Memory is what checks remember.
type Memory interface {
	// Remembered lists what a check, or with check "" every check, remembers.
	Remembered(kind, check string, limit int) ([]Item, error)
	// Forget forgets a key of a check, with key "" all of them, and says how many.
	Forget(kind, check, key string) (int, error)
}

// Config is what a Server needs.
type Config struct {
	State       string // directory of the socket
	Status      func() Status
	Memory      Memory       // nil: there is none
	Queue       *queue.Queue // nil: there is none
	Submit      Submit       // nil: programs on this machine cannot hand mail over
	Generations Generations  // nil: the configuration stays as it is
	Metrics     http.Handler // nil: there are none
	Logger      *slog.Logger
}

// maxItems bounds a list of what is remembered.
const maxItems = 10_000

// Server answers on the control socket.
type Server struct {
	ln   net.Listener
	http *http.Server
	done chan struct{}
}

// Listen opens the control socket in c.State and serves it until Close.
func Listen(c Config) (*Server, error) {
	path := filepath.Join(c.State, SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// Made under another name: nobody may connect before the mode is right.
	tmp := path + ".new"
	_ = os.Remove(tmp) // of a killed server
	ln, err := net.Listen("unix", tmp)
	if err != nil {
		return nil, fmt.Errorf("listen on the control socket: %w", err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, path)); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any, err error) {
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			v = struct {
				Error string `json:"error"`
			}{err.Error()}
		}
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			c.Logger.Debug("control socket", "err", err)
		}
	}
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answer(w, c.Status(), nil) })
	if c.Memory != nil {
		mux.HandleFunc("GET /memory/{kind}", func(w http.ResponseWriter, r *http.Request) {
			items, err := c.Memory.Remembered(r.PathValue("kind"), r.FormValue("check"), maxItems)
			answer(w, items, err)
		})
		mux.HandleFunc("DELETE /memory/{kind}", func(w http.ResponseWriter, r *http.Request) {
			n, err := c.Memory.Forget(r.PathValue("kind"), r.FormValue("check"), r.FormValue("key"))
			answer(w, map[string]int{"forgotten": n}, err)
		})
	}
	if c.Queue != nil {
		serveQueue(mux, c.Queue, answer)
	}
	if c.Submit != nil {
		serveSubmit(mux, c.Submit, answer)
	}
	if c.Generations != nil {
		serveGenerations(mux, c.Generations, answer)
	}
	if c.Metrics != nil {
		mux.Handle("GET /metrics", c.Metrics)
	}
	s := &Server{
		ln:   ln,
		http: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(c.Logger.Handler(), slog.LevelWarn)},
		done: make(chan struct{}),
	}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			c.Logger.Error("control socket", "err", err)
		}
	}()
	return s, nil
}

// Close ends the server, waiting for requests under way until ctx ends.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	<-s.done
	return err
}

// ErrNotRunning means that no server answers on the control socket.
var ErrNotRunning = errors.New("no server is running")

// Ask fetches path, such as "/status", from the server whose state directory
// is state, and returns what it answers: JSON, but for "/metrics".
func Ask(ctx context.Context, state, path string) ([]byte, error) {
	return do(ctx, http.MethodGet, state, path)
}

// Delete asks the server to forget what lies under path.
func Delete(ctx context.Context, state, path string) ([]byte, error) {
	return do(ctx, http.MethodDelete, state, path)
}

func do(ctx context.Context, method, state, path string) (b []byte, err error) {
	err = stream(ctx, method, state, path, func(r io.Reader) error {
		b, err = io.ReadAll(io.LimitReader(r, maxAnswer))
		return err
	})
	return b, err
}

// request sends a request; the caller closes the answer's body.
func request(ctx context.Context, method, state, path string, body io.Reader) (*http.Response, error) {
	sock := filepath.Join(state, SocketName)
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", sock)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://wafer"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("%s may be opened by root and by the server's account only; run this as one of them, such as with sudo", sock)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s does not answer (%v)", ErrNotRunning, sock, err)
	}
	return resp, nil
}

// stream sends a request and hands the answer's body to read.
func stream(ctx context.Context, method, state, path string, read func(io.Reader) error) error {
	resp, err := request(ctx, method, state, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close() // only read
	if resp.StatusCode == http.StatusOK {
		return read(resp.Body)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	return fault(path, resp.Status, b)
}

// fault is what the server said instead of an answer.
func fault(path, status string, b []byte) error {
	path, _, _ = strings.Cut(path, "?")
	var said struct{ Error string }
	if json.Unmarshal(b, &said) == nil && said.Error != "" {
		return fmt.Errorf("ask %s: %s", path, said.Error)
	}
	return fmt.Errorf("ask %s: %s", path, status)
}
