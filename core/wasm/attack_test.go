package wasm

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// naughtyRow is something that the plugin of testdata/naughty does: a Go guest,
// built by the compiler that authors use.
type naughtyRow struct{ do, cause, detail string }

// naughtyRows are what ends in an error. Where the cause is "" it depends on
// which limit is met first.
var naughtyRows = []naughtyRow{
	{"loop", CauseFuel, ""},
	{"recurse", "", ""},
	{"mutual", "", ""},
	{"allocate", CausePanic, "out of memory"},
	{"goroutines", "", ""},
	{"panic", CausePanic, "panic: assignment to entry in nil map"},
	{"pointer", CausePanic, "main.go:"},
	{"index", CausePanic, "main.go:"},
	{"custom panic", CausePanic, "line one"},
	{"exit", CauseExit, "exit code 3"},
	{"deadlock", CausePanic, "all goroutines are asleep"},
	{"fail", CauseGuest, ""},
	{"storm", CauseFuel, ""},
	{"state storm", "", ""},
	{"mods", CauseBadVerdict, "more than 64 modifications"},
	{"forge text", CauseBadVerdict, "may not stand in a reply"},
	{"forge code", CauseBadVerdict, "code 250 does not fit"},
	{"forge action", CauseBadVerdict, "unknown action 200"},
	{"forge header", CauseBadVerdict, "control character"},
	{"forge name", CauseBadVerdict, "header field name"},
	{"forge address", CauseBadVerdict, ""},
	{"forge operation", CauseBadVerdict, "unknown modification 99"},
	{"giant text", CauseBadVerdict, "more than 65536"},
	{"illegal action", CauseBadVerdict, "action hold is not legal at stage helo"},
	{"illegal effect", CauseBadVerdict, "effect bcc is not legal at stage helo"},
}

// times is what each of them is told to do it.
func (r naughtyRow) times() string {
	if r.do == "giant text" {
		return "1000000"
	}
	return "65"
}

func TestNaughty(t *testing.T) {
	for _, r := range naughtyRows {
		t.Run(r.do, func(t *testing.T) {
			p := naughty(t, r.do, map[string][]string{"times": {r.times()}})
			for range 2 { // a new instance for the second
				_, err := p.Call(context.Background(), event(t, policy.Helo, "x"), newWorld())
				var call *CallError
				if !errors.As(err, &call) || r.cause != "" && call.Cause != r.cause || !strings.Contains(call.Error(), r.detail) {
					t.Errorf("got %v, want %s: %s", err, r.cause, r.detail)
				}
			}
		})
	}
}

// attack is a check that will fail, in a policy of its own.
type attack struct {
	name   string
	plugin *Plugin
	causes string
	row    hostileRow
}

// attacks are all hostile modules, loaded, with a budget that a test can wait for.
func attacks(t testing.TB) []attack {
	t.Helper()
	var all []attack
	for _, r := range hostileRows() {
		o := r.options()
		if o.Limits.Fuel = 20_000_000; r.limits.Memory == 0 {
			o.Limits.CPU = time.Second
		}
		all = append(all, attack{r.name, load(t, shared(t), r.module.bytes(), o), r.causes, r})
	}
	for _, r := range naughtyRows {
		p := load(t, shared(t), plugin(t, "naughty"), LoadOptions{
			Config: map[string][]string{"do": {r.do}, "times": {r.times()}}, Grants: []string{"dns", "count", "message", "state", "list"},
			Limits: small,
		})
		all = append(all, attack{"Go: " + r.do, p, r.cause, hostileRow{}})
	}
	return all
}

// lines is a writer that many may log to.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestAttacks puts each hostile module into a policy: every one ends in the
// check's on_error with a log line that says who, where and why, and while it
// runs other sessions are served as ever. Afterwards the memory is back where it was.
func TestAttacks(t *testing.T) {
	probe := policy.NewSet([]*policy.Policy{{Name: "probe", On: []string{"mx"}, ReplyAt: policy.Connect, Checks: []*policy.Check{{
		Name: "helo", At: []policy.Stage{policy.Helo}, Plugin: load(t, shared(t), plugin(t, "helo"), LoadOptions{}),
	}}}}, policy.SetOptions{})
	all := attacks(t)
	var before memory
	for round := range 2 {
		for _, a := range all {
			t.Run(a.name, func(t *testing.T) { assault(t, a, probe) })
		}
		switch after := memoryNow(t); round {
		case 0:
			before = after // the first round fills pools and caches
		case 1:
			// Each left-over instance would hold 64 MiB of address space, and
			// there were some eighty.
			if after.size > before.size+512<<20 || after.private > before.private+64<<20 {
				t.Errorf("memory grew from %v to %v", before, after)
			}
		}
	}
}

// assault asks one hostile check, and the probe until that is over.
func assault(t *testing.T, a attack, probe *policy.Set) {
	var log lines
	stage := max(a.row.stage, policy.Helo)
	c := &policy.Check{Name: "attacker", At: []policy.Stage{stage}, Plugin: a.plugin, OnError: policy.Reject, Where: "x.hcl:1"}
	set := policy.NewSet([]*policy.Policy{{Name: "p", On: []string{"mx"}, ReplyAt: policy.Connect, Checks: []*policy.Check{c}}},
		policy.SetOptions{Logger: slog.New(slog.NewTextHandler(&log, nil)), Now: time.Now})
	done := make(chan policy.Decision, 1)
	go func() { done <- set.Session("mx").Ask(context.Background(), a.row.event(t)) }()
	var d policy.Decision
	for over := false; !over; {
		if got := probe.Session("mx").Ask(context.Background(), event(t, policy.Helo, "mailhost")); got.Status.Code != 504 {
			t.Errorf("another session was told %+v", got)
		}
		select {
		case d = <-done:
			over = true
		default:
		}
	}
	if d.Action != policy.Reject || d.Status.Code != 550 || d.Status.Enhanced != "5.3.5" {
		t.Errorf("decision %+v, want on_error's", d)
	}
	line := log.String()
	for _, want := range []string{"level=WARN", "check=p/attacker", "plugin=org.example.", "where=x.hcl:1", "stage=" + stage.String(), "on_error=reject"} {
		if !strings.Contains(line, want) {
			t.Errorf("the log has no %s: %s", want, line)
		}
	}
	_, reason, _ := strings.Cut(line, " err=")
	known := a.causes == "" || strings.HasPrefix(reason, CauseOpen)
	for _, cause := range []string{CauseTrap, CausePanic, CauseExit, CauseFuel, CauseDeadline, CauseDepth, CauseBadVerdict, CauseGuest} {
		known = known || strings.Contains(a.causes, cause) && strings.HasPrefix(strings.TrimPrefix(reason, `"`), cause)
	}
	if !known {
		t.Errorf("the log's reason is %s, want %s", reason, a.causes)
	}
	if a.causes == CausePanic && !strings.Contains(reason, ".go:") && !strings.Contains(reason, "out of memory") && !strings.Contains(reason, "asleep") {
		t.Errorf("the log has no file and line of a panic: %s", reason)
	}
}

// memory is what the process has, in octets: address space, and pages that are
// its own. Pages of an image that instances share are not counted.
type memory struct{ size, private int64 }

// memoryNow reads it after a collection; zeros where the system does not tell.
func memoryNow(t *testing.T) (m memory) {
	t.Helper()
	debug.FreeOSMemory()
	for file, field := range map[string]string{"/proc/self/status": "VmSize:", "/proc/self/smaps_rollup": "Private_Dirty:"} {
		b, err := os.ReadFile(file)
		if err != nil {
			return memory{}
		}
		for line := range strings.Lines(string(b)) {
			words := strings.Fields(line)
			if len(words) < 2 || words[0] != field {
				continue
			}
			n, err := strconv.ParseInt(words[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if n <<= 10; field == "VmSize:" {
				m.size = n
			} else {
				m.private = n
			}
		}
	}
	return m
}

// TestOverlaps lets outputs fall on inputs and results on requests: whatever a
// guest does to itself stays within it.
func TestOverlaps(t *testing.T) {
	w := newWorld()
	w.zone["A a.example"] = policy.Answer{Records: []string{"192.0.2.1"}}
	once := func(r hostileRow) *builder { // the storm's call, made once
		b := r.module
		body := &b.funcs[len(b.funcs)-1]
		body.code = append(bytes.TrimSuffix(bytes.TrimPrefix(body.code, []byte{opLoop, typeEmpty}), []byte{opBr, 0, opEnd, opI64Const, 0, opEnd}), opI64Const, 0, opEnd)
		return b
	}
	for _, row := range stormRows() {
		t.Run(row.name, func(t *testing.T) {
			p := load(t, shared(t), once(row).bytes(), row.options())
			if v, err := p.Call(context.Background(), row.event(t), w); err != nil || v.Action != policy.Next {
				t.Errorf("got %+v, %v", v, err)
			}
		})
	}
	calls := map[string]*builder{
		"dns answers onto its question": storm("wafer1", "dns", 8192, 16, 8192, 4096),
		"get answers onto its name":     storm("wafer1", "get", 9000, 3, 9000, 3),
		"state answers onto its key":    storm("wafer1", "state_seen", 9000, 3, 60000, 8990, 64),
		"list answers onto its name":    storm("wafer1", "list", 9000, 3, 9000, 3, 9000, 3),
		"everything at the very end":    storm("wafer1", "dns", 65520, 16, 65530, 4096),
		"pointers that wrap round":      storm("wafer1", "get", -8, 16, -8, 16),
		"lengths that wrap round":       storm("wafer1", "get", 9000, -1, 9000, -1),
		"random beyond the end":         storm("wafer1", "random", 65000, 65536),
		"body beyond the end":           storm("wafer1", "body", 0, 65000, 65536),
		"body before the beginning":     storm("wafer1", "body", -1, 0, 64),
		"header with a negative index":  storm("wafer1", "header", 9000, 3, -1, 0, 64),
		"log of 4 GiB":                  storm("wafer1", "log", 0, 0, -1),
		"state of 4 GiB":                storm("wafer1", "state_put", 9000, 3, 0, -1, 1000),
		"a count of nothing":            storm("wafer1", "count", 9000, 3, -1, 0),
		"a metric of 4 GiB":             storm("wafer1", "metric", 0, -1, 1),
	}
	for name, b := range calls {
		t.Run(name, func(t *testing.T) {
			row := hostileRow{module: b, grants: []string{"dns", "count", "message", "state", "list"}, stage: policy.Message}
			p := load(t, shared(t), once(row).bytes(), row.options())
			if v, err := p.Call(context.Background(), row.event(t), w); err != nil || v.Action != policy.Next {
				t.Errorf("got %+v, %v", v, err)
			}
		})
	}
}
