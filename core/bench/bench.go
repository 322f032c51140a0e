// Command bench measures the whole server from outside: the wafer binary with
// policies off and on, and Debian's Postfix beside it on the same file system.
//
// It starts private instances of each, on loopback ports and in one folder that
// it removes at the end, and loads them in turn: every figure is the median of
// -repeat rounds, and in each round every server has its run before the next
// size or number of connections begins. What is measured, and how to read it,
// is in README.md beside this file.
//
// # BUGS
//
// Load generator and server share the cores. Other programs on the machine
// disturb the figures; the column "others" says how much they took. CPU is read
// from a control group where one can be made (Linux, as root), else from /proc,
// which needs Linux too. Postfix is left out, with a message, where it is not
// installed or the user is not root.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// settings are the command line.
type settings struct {
	wafer    string   // the binary
	dir      string   // parent of the work folder
	parts    []string // of "load", "send", "slow", "read", "idle", "disk"
	servers  []string // of those in load.go's order
	conns    []int
	sizes    []int // octets
	repeat   int
	duration time.Duration // of one run's load
	calm     time.Duration // longest wait for a calm machine before a run
	idle     int           // idle connections
	mailbox  int           // messages of the one that is read
	waiting  int           // sessions that wait for DNS
	pipeline bool
	json     bool
	keep     bool
}

// The servers by name, in the order in which a round takes them.
const (
	waferPlain  = "wafer"
	waferPolicy = "wafer+policies"
	postfix     = "postfix"
)

func main() {
	s, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// parse reads the command line.
func parse(args []string) (*settings, error) {
	s := &settings{}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&s.wafer, "wafer", ".build/wafer", "the wafer binary")
	f.StringVar(&s.dir, "dir", "/var/tmp", "make the work folder here: its file system is measured")
	only := f.String("only", "load,send,slow,read,idle,disk", "parts to measure")
	servers := f.String("servers", strings.Join([]string{waferPlain, waferPolicy, postfix}, ","), "servers to load")
	conns := f.String("conns", "1,10,50", "numbers of connections")
	sizes := f.String("sizes", "4096,102400", "message sizes in octets")
	quick := f.Bool("quick", false, "short runs: everything in about five minutes")
	f.IntVar(&s.repeat, "repeat", 3, "runs of each figure, of which the median is reported")
	f.DurationVar(&s.duration, "duration", 0, "how long each run accepts mail (default 4s, with -quick 1s)")
	f.DurationVar(&s.calm, "calm", 0, "before each run wait up to this long for a calm machine")
	f.IntVar(&s.idle, "idle", 2000, "idle connections")
	f.IntVar(&s.mailbox, "mailbox", 10000, "messages of the mailbox that is read, at least 2000")
	f.IntVar(&s.waiting, "waiting", 1000, "sessions that wait for DNS")
	f.BoolVar(&s.pipeline, "pipeline", false, "send MAIL, RCPT and DATA in one go")
	f.BoolVar(&s.json, "json", false, "print JSON instead of a table")
	f.BoolVar(&s.keep, "keep", false, "keep the work folder, with the servers' logs")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	s.parts, s.servers = split(*only), split(*servers)
	var err1, err2 error
	s.conns, err1 = numbers(*conns)
	s.sizes, err2 = numbers(*sizes)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if s.duration == 0 {
		s.duration = 4 * time.Second
		if *quick {
			s.duration = time.Second
		}
	}
	if err := known(s.parts, "load", "send", "slow", "read", "idle", "disk"); err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	if err := known(s.servers, waferPlain, waferPolicy, postfix); err != nil {
		return nil, fmt.Errorf("-servers: %w", err)
	}
	if f.NArg() > 0 || s.repeat < 1 || s.idle < 1 || s.waiting < 1 || s.mailbox < 2000 {
		return nil, errors.New("no arguments but flags, -repeat, -idle and -waiting of at least 1, and -mailbox of at least 2000")
	}
	path, err := filepath.Abs(s.wafer)
	s.wafer = path
	return s, err
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

func numbers(list string) ([]int, error) {
	var ns []int
	for _, t := range split(list) {
		n, err := strconv.Atoi(t)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no number above 0", t)
		}
		ns = append(ns, n)
	}
	return ns, nil
}

func known(names []string, all ...string) error {
	for _, n := range names {
		if !slices.Contains(all, n) {
			return fmt.Errorf("no %q; there are %s", n, strings.Join(all, ", "))
		}
	}
	return nil
}

// run measures what s asks for and prints the report.
func run(ctx context.Context, s *settings) (err error) {
	if _, err := os.Stat(s.wafer); err != nil {
		return fmt.Errorf("%w (make build makes it)", err)
	}
	work, err := os.MkdirTemp(s.dir, "wafer-bench-")
	if err != nil {
		return err
	}
	defer func() {
		if s.keep {
			fmt.Fprintln(os.Stderr, "kept:", work)
			return
		}
		err = errors.Join(err, os.RemoveAll(work))
	}()
	if err := os.Chmod(work, 0o755); err != nil { // Postfix's accounts pass through it
		return err
	}
	spread(work)
	r := &report{Machine: describe(work), Settings: s.describe()}
	parts := map[string]func(context.Context, *settings, string, *report) error{
		"disk": measureDisk, "load": measureLoad, "send": measureSend, "slow": measureSlow, "read": measureRead, "idle": measureIdle,
	}
	for _, part := range []string{"disk", "load", "send", "slow", "read", "idle"} {
		if !slices.Contains(s.parts, part) {
			continue
		}
		if err := parts[part](ctx, s, work, r); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("%s: %w", part, err)
		}
	}
	if s.json {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	return r.print(os.Stdout)
}

// describe is the line that says how was measured.
func (s *settings) describe() string {
	how := "one command at a time"
	if s.pipeline {
		how = "MAIL, RCPT and DATA pipelined"
	}
	return fmt.Sprintf("medians of %d runs of %s each; %d messages on a connection, %s", s.repeat, s.duration, perConn, how)
}

// note tells the user what is going on.
func note(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}
