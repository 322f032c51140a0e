package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report is everything that was measured.
type report struct {
	Machine  string    `json:"machine"`
	Settings string    `json:"settings"`
	Notes    []string  `json:"notes,omitempty"`
	Disks    []diskRow `json:"disk,omitempty"`
	Loads    []loadRow `json:"load,omitempty"`
	Sends    []sendRow `json:"send,omitempty"`
	Slows    []slowRow `json:"slow,omitempty"`
	Reads    []readRow `json:"read,omitempty"`
	Idles    []idleRow `json:"idle,omitempty"`
}

// print writes the report as markdown.
func (r *report) print(w io.Writer) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s.\n%s.\n", r.Machine, r.Settings)
	for _, n := range r.Notes {
		fmt.Fprintln(&b, n)
	}
	r.printDisks(&b)
	r.printLoads(&b)
	r.printSends(&b)
	r.printSlows(&b)
	r.printReads(&b)
	r.printIdles(&b)
	_, err := w.Write(b.Bytes())
	return err
}

func (r *report) printDisks(b *bytes.Buffer) {
	if len(r.Disks) == 0 {
		return
	}
	fmt.Fprint(b, "\nThe bare disk: create, write, one shared sync, rename.\n\n| octets | writers | files/s | p99 ms |\n|--:|--:|--:|--:|\n")
	for _, g := range group(r.Disks, func(d diskRow) [2]int { return [2]int{d.Size, d.Writers} }) {
		fmt.Fprintf(b, "| %d | %d | %.0f | %.1f |\n", g[0].Size, g[0].Writers,
			median(g, func(d diskRow) float64 { return d.Rate }), median(g, func(d diskRow) float64 { return d.P99 }))
	}
}

func (r *report) printLoads(b *bytes.Buffer) {
	if len(r.Loads) == 0 {
		return
	}
	type key struct {
		size, conns int
		server      string
	}
	groups := group(r.Loads, func(l loadRow) key { return key{l.Size, l.Conns, l.Server} })
	rate := func(l loadRow) float64 { return l.Stored }
	cpu := func(l loadRow) float64 { return l.CPU }
	fmt.Fprint(b, "\nMail in over SMTP, durable when it is answered.\n\n"+
		"| octets | conns | server | accepted/s | stored/s (least–most) | ×Postfix | dot→250 p50 ms | p99 ms | CPU µs/msg | ×Postfix | peak MiB | NOOP p99 ms | load CPU µs | others % | load |\n"+
		"|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, g := range groups {
		l := g[0]
		peer := slices.IndexFunc(groups, func(p []loadRow) bool {
			return p[0].Size == l.Size && p[0].Conns == l.Conns && p[0].Server == postfix
		})
		ratio := func(of func(loadRow) float64, format string) string {
			if peer < 0 || l.Server == postfix {
				return ""
			}
			return fmt.Sprintf(format, median(g, of)/median(groups[peer], of))
		}
		m := func(of func(loadRow) float64) float64 { return median(g, of) }
		low, high := slices.MinFunc(g, less(rate)), slices.MaxFunc(g, less(rate))
		fmt.Fprintf(b, "| %d | %d | %s | %.0f | %.0f (%.0f–%.0f) | %s | %.1f | %.1f | %.0f | %s | %.0f | %.1f | %.0f | %.0f | %.1f |\n",
			l.Size, l.Conns, l.Server, m(func(l loadRow) float64 { return l.Rate }),
			m(rate), low.Stored, high.Stored, ratio(rate, "%.1f"),
			m(func(l loadRow) float64 { return l.P50 }), m(func(l loadRow) float64 { return l.P99 }),
			m(cpu), ratio(cpu, "%.2f"),
			m(func(l loadRow) float64 { return l.Peak }), m(func(l loadRow) float64 { return l.Probe }),
			m(func(l loadRow) float64 { return l.Client }),
			m(func(l loadRow) float64 { return l.Others }), m(func(l loadRow) float64 { return l.Load }))
	}
	for _, l := range r.Loads {
		if l.Errors > 0 {
			fmt.Fprintf(b, "\n%s, %d octets, %d connections, round %d: %d errors, the first: %s\n", l.Server, l.Size, l.Conns, l.Round, l.Errors, l.FirstError)
		}
	}
}

func (r *report) printIdles(b *bytes.Buffer) {
	if len(r.Idles) == 0 {
		return
	}
	fmt.Fprintf(b, "\nIdle connections (SMTP after EHLO, IMAP in IDLE), policies on, %s after the last was opened.\n\n"+
		"| door | TLS | connections | errors | KiB each | server MiB at a third | third opened in s | load |\n|---|---|--:|--:|--:|--:|--:|--:|\n", rest)
	for _, i := range r.Idles {
		fmt.Fprintf(b, "| %s | %v | %d | %d | %.1f | %.0f | %.1f | %.1f |\n", i.Door, i.TLS, i.Conns, i.Errors, i.KiB, i.MiB, i.Took, i.Load)
	}
	for _, i := range r.Idles {
		if i.First != "" {
			fmt.Fprintf(b, "\n%s, TLS %v: the first error: %s\n", i.Door, i.TLS, i.First)
		}
	}
}

func (r *report) printSends(b *bytes.Buffer) {
	if len(r.Sends) == 0 {
		return
	}
	fmt.Fprintf(b, "\nMail out: %d connections log in over TLS and send 4 KiB to fifty domains, beside five that send %d messages to a host that is ….\n\n"+
		"| beside | arrived/s | of alone | CPU µs/msg | transit p50 ms | transit p99 ms | errors |\n|---|--:|--:|--:|--:|--:|--:|\n", sendConns, badMessages)
	var alone float64
	for _, g := range group(r.Sends, func(s sendRow) string { return s.Beside }) {
		rate := median(g, func(s sendRow) float64 { return s.Arrived })
		if alone == 0 {
			alone = rate
		}
		errors := 0
		for _, s := range g {
			errors += s.Errors
		}
		fmt.Fprintf(b, "| %s | %.0f | %.0f %% | %.0f | %.1f | %.1f | %d |\n", g[0].Beside, rate, 100*rate/alone,
			median(g, func(s sendRow) float64 { return s.CPU }), median(g, func(s sendRow) float64 { return s.P50 }), median(g, func(s sendRow) float64 { return s.P99 }), errors)
	}
}

func (r *report) printSlows(b *bytes.Buffer) {
	if len(r.Slows) == 0 {
		return
	}
	fmt.Fprintf(b, "\nMail from %d connections while others wait for names that no server answers for, policies on.\n\n"+
		"| waiting | stored/s | p99 ms | resident MiB | errors |\n|--:|--:|--:|--:|--:|\n", slowConns)
	for _, g := range group(r.Slows, func(s slowRow) int { return s.Waiting }) {
		errors := 0
		for _, s := range g {
			errors += s.Errors
		}
		fmt.Fprintf(b, "| %d | %.0f | %.1f | %.0f | %d |\n", g[0].Waiting, median(g, func(s slowRow) float64 { return s.Stored }),
			median(g, func(s slowRow) float64 { return s.P99 }), median(g, func(s slowRow) float64 { return s.Peak }), errors)
	}
}

// group puts rows of one key together, in the order of their first.
func group[R any, K comparable](rows []R, key func(R) K) [][]R {
	var groups [][]R
	at := map[K]int{}
	for _, r := range rows {
		k := key(r)
		i, ok := at[k]
		if !ok {
			i = len(groups)
			at[k] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], r)
	}
	return groups
}

// median of a figure of rows, of which there is at least one.
func median[R any](rows []R, of func(R) float64) float64 {
	var v []float64
	for _, r := range rows {
		v = append(v, of(r))
	}
	slices.Sort(v)
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

func less[R any](of func(R) float64) func(a, b R) int {
	return func(a, b R) int {
		switch x, y := of(a), of(b); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	}
}

// quantile q of d, by nearest rank; 0 if d is empty. It sorts d.
func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[min(len(d)-1, int(q*float64(len(d))))]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// describe is the line that says where was measured: work's file system counts.
func describe(work string) string {
	parts := []string{fmt.Sprintf("%d cores", runtime.NumCPU())}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				parts[0] += " of " + strings.TrimSpace(v)
				break
			}
		}
	}
	parts = append(parts, kernel(), fileSystem(work), runtime.Version())
	if v, err := postconf("mail_version"); err == nil {
		parts = append(parts, "Postfix "+v)
	}
	return strings.Join(parts, ", ")
}

// fileSystem is the type of the file system that holds dir (proc_pid_mountinfo(5)).
func fileSystem(dir string) string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "unknown file system"
	}
	return mountType(string(b), dir)
}

func mountType(mounts, dir string) string {
	best, kind := -1, "unknown file system"
	for line := range strings.Lines(mounts) {
		f := strings.Fields(line)
		dash := slices.Index(f, "-")
		if dash < 0 || dash+1 >= len(f) || len(f) < 5 {
			continue
		}
		rel, err := filepath.Rel(f[4], dir)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") || len(f[4]) < best {
			continue
		}
		best, kind = len(f[4]), f[dash+1]
	}
	return kind
}
