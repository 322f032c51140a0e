package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Generations changes which configuration serves.
type Generations interface {
	// Reload makes a generation of the files on disk and puts it in place.
	Reload(context.Context, ReloadOptions) (*Reloaded, error)
	// Rollback puts generation n in place again, with 0 the one before the current.
	Rollback(ctx context.Context, n int, o ReloadOptions) (*Reloaded, error)
	// Promote makes the version of the policies that is tried the one for everybody;
	// Withdraw ends its trial.
	Promote(context.Context) (*Rollout, error)
	Withdraw(context.Context) (*Rollout, error)
	// Kept lists the generations that a rollback can go to.
	Kept() ([]Kept, error)
}

// ReloadOptions says how a generation is changed.
type ReloadOptions struct {
	DryRun    bool // build it and tell what would change; nothing does
	SkipTests bool // of policies
}

// Reloaded is what a change has brought.
type Reloaded struct {
	Generation int      `json:"generation"`
	Before     int      `json:"before"` // the generation that served until then
	Digest     string   `json:"digest"`
	Changes    []Change `json:"changes"`
	SwapMicros int64    `json:"swap_us"` // how long the change itself took
}

// Change is one thing that differs between two generations.
type Change struct {
	Kind   string `json:"kind"` // "added", "removed", "changed"
	What   string `json:"what"` // "check inbound/spf", "listener mx", …
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// Kept is a generation on disk.
type Kept struct {
	Number int       `json:"number"`
	Digest string    `json:"digest"`
	Loaded time.Time `json:"loaded"`
	Origin string    `json:"origin"`
}

// Rollout is a version of the policies that is tried.
type Rollout struct {
	Name     string    `json:"name"`
	Policies string    `json:"policies"`
	Digest   string    `json:"digest"`
	Percent  float64   `json:"percent"`
	State    string    `json:"state"` // "trying", "promoted", "withdrawn"
	Why      string    `json:"why,omitempty"`
	Since    time.Time `json:"since"`
	Sessions uint64    `json:"sessions"`
	Refused  uint64    `json:"refused"` // sessions in which something was refused
	Calls    uint64    `json:"calls"`
	Errors   uint64    `json:"errors"`
	P99      string    `json:"p99"` // of calls, to the next bound of their histogram
}

// Reloads says what became of attempts to change the generation.
type Reloads struct {
	Good uint64  `json:"good"`
	Bad  uint64  `json:"bad"`
	Last Attempt `json:"last"`
}

// Attempt is one of them.
type Attempt struct {
	Time   time.Time `json:"time,omitzero"`
	Origin string    `json:"origin,omitempty"`
	Took   int64     `json:"took_ms,omitempty"`
	Error  string    `json:"error,omitempty"` // "": it serves
}

// serveGenerations answers what concerns generations.
func serveGenerations(mux *http.ServeMux, g Generations, answer func(http.ResponseWriter, any, error)) {
	options := func(r *http.Request) ReloadOptions {
		return ReloadOptions{DryRun: r.FormValue("dry_run") != "", SkipTests: r.FormValue("skip_tests") != ""}
	}
	mux.HandleFunc("GET /generations", func(w http.ResponseWriter, _ *http.Request) {
		all, err := g.Kept()
		answer(w, all, err)
	})
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, r *http.Request) {
		done, err := g.Reload(context.WithoutCancel(r.Context()), options(r))
		answer(w, done, err)
	})
	mux.HandleFunc("POST /promote", func(w http.ResponseWriter, r *http.Request) {
		x, err := g.Promote(r.Context())
		answer(w, x, err)
	})
	mux.HandleFunc("POST /withdraw", func(w http.ResponseWriter, r *http.Request) {
		x, err := g.Withdraw(r.Context())
		answer(w, x, err)
	})
	mux.HandleFunc("POST /rollback", func(w http.ResponseWriter, r *http.Request) {
		n := 0
		if text := r.FormValue("to"); text != "" {
			var err error
			if n, err = strconv.Atoi(text); err != nil || n < 1 {
				answer(w, nil, fmt.Errorf("%q is not the number of a generation", text))
				return
			}
		}
		done, err := g.Rollback(context.WithoutCancel(r.Context()), n, options(r))
		answer(w, done, err)
	})
}

// Conclude asks the server to "promote" or "withdraw" the version that is tried.
func Conclude(ctx context.Context, state, verb string) (*Rollout, error) {
	b, err := do(ctx, http.MethodPost, state, "/"+verb)
	if err != nil {
		return nil, err
	}
	var r Rollout
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	return &r, nil
}

// ChangeGeneration asks the server whose state directory is state for "reload" or "rollback", the
// latter to generation n, with 0 to the one before.
func ChangeGeneration(ctx context.Context, state, verb string, n int, o ReloadOptions) (*Reloaded, error) {
	form := url.Values{}
	if n != 0 {
		form.Set("to", strconv.Itoa(n))
	}
	if o.DryRun {
		form.Set("dry_run", "1")
	}
	if o.SkipTests {
		form.Set("skip_tests", "1")
	}
	b, err := do(ctx, http.MethodPost, state, "/"+verb+"?"+form.Encode())
	if err != nil {
		return nil, err
	}
	var r Reloaded
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("read the server's answer: %w", err)
	}
	return &r, nil
}
