package wasm

import (
	"errors"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/sdk/abi"
)

// Causes of a CallError, fit for a metric's label.
const (
	CauseTrap       = "trap"        // an instruction failed, or memory was used out of bounds
	CausePanic      = "panic"       // the guest's language runtime gave up
	CauseExit       = "exit"        // the guest ended its process
	CauseFuel       = "fuel"        // computed for longer than its budget
	CauseDeadline   = "deadline"    // was stopped by the watchdog
	CauseDepth      = "depth"       // calls within calls
	CauseBadVerdict = "bad verdict" // a result that cannot be believed
	CauseGuest      = "guest error" // the guest says that it has no verdict
	CauseBusy       = "busy"        // no instance became free in time
	CauseOpen       = "breaker"     // failed too often and is not asked for a while
	CauseClosed     = "closed"      // the plugin was closed
	CauseStart      = "start"       // an instance could not be made
)

// CallError is why a plugin has no verdict. It is safe to log: printable, and
// of bounded length.
type CallError struct {
	Cause  string // one of the Cause constants
	Detail string
}

// Error is "cause: detail".
func (e *CallError) Error() string {
	if e.Detail == "" {
		return e.Cause
	}
	return e.Cause + ": " + e.Detail
}

// errExit ends a guest that calls proc_exit.
type errExit uint32

func (e errExit) Error() string { return "exit code " + strconv.FormatUint(uint64(e), 10) }

// errStopped ends a guest inside a host call once its stop flag is up.
var errStopped = errors.New("stopped")

// maxDetail is the longest detail of a CallError in octets.
const maxDetail = 512

// explain makes a CallError of what a call into the guest returned. late is the
// watchdog's reason, if it had one.
func (in *instance) explain(err error, late string) *CallError {
	var exit errExit
	switch {
	case late != "":
		return &CallError{CauseDeadline, late}
	case int64(in.left.Get())+int64(in.fuel.Get()) < 0:
		return &CallError{CauseFuel, "computed for more than its budget"}
	case uint32(in.depth.Get()) > maxDepth:
		return &CallError{CauseDepth, "calls within calls, more than " + strconv.Itoa(maxDepth)}
	}
	if p := panicLine(string(in.output)); p != "" {
		return &CallError{CausePanic, p}
	}
	if errors.As(err, &exit) {
		return &CallError{CauseExit, exit.Error()}
	}
	return &CallError{CauseTrap, clean(trapLine(err.Error()), maxDetail)}
}

// panicLine finds in a Go guest's standard error what it died of, with the
// place in its source.
func panicLine(output string) string {
	var what string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		switch {
		case what == "" && (strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ")):
			what = line
		case what != "" && isPlace(line):
			place, _, _ := strings.Cut(line, " ")
			return clean(what+" ("+place+")", maxDetail)
		}
	}
	return clean(what, maxDetail)
}

// isPlace reports whether line is "FILE.go:LINE …" outside Go's own runtime.
func isPlace(line string) bool {
	_, after, ok := strings.Cut(line, ".go:")
	return ok && after != "" && after[0] >= '0' && after[0] <= '9' && !strings.Contains(line, "/src/runtime/") && !strings.HasPrefix(line, "runtime/")
}

// trapLine is the first line of wazero's message and the innermost function of
// its stack trace.
func trapLine(s string) string {
	first, rest, _ := strings.Cut(s, "\n")
	for line := range strings.Lines(rest) {
		if line = strings.TrimSpace(line); line != "" && line != "wasm stack trace:" {
			return first + " in " + line
		}
	}
	return first
}

// clean makes s printable and cuts it to limit octets.
func clean(s string, limit int) string {
	s = strings.ToValidUTF8(s[:min(len(s), limit)], "?")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0:
			return '?'
		}
		return r
	}, s)
}

// logText is clean for the lines that a guest logs.
func logText(p []byte) string { return clean(string(p), abi.MaxLog) }
