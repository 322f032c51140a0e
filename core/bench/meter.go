package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// meter reads what the processes of one server use: from a control group, in
// which those that have ended still count, or else from the tree of processes
// below root.
type meter struct {
	group string // directory of the control group, "" if there is none
	v1    bool   // it is one of the cpuacct controller
	root  int    // process id
}

// newMeter makes a control group for a server, if it can.
func newMeter(name string) *meter {
	name = fmt.Sprintf("wafer-bench-%d-%s", os.Getpid(), name)
	for _, m := range []meter{
		{group: "/sys/fs/cgroup"},         // version 2 alone
		{group: "/sys/fs/cgroup/unified"}, // version 2 beside version 1
		{group: "/sys/fs/cgroup/cpuacct", v1: true},
	} {
		if _, err := os.Stat(filepath.Join(m.group, "cgroup.procs")); err != nil {
			continue
		}
		m.group = filepath.Join(m.group, name)
		if os.Mkdir(m.group, 0o755) != nil {
			continue
		}
		if _, err := m.groupCPU(); err == nil {
			return &m
		}
		_ = os.Remove(m.group) // empty
	}
	return &meter{}
}

// command is exec.Command, in the control group.
func (m *meter) command(name string, args ...string) *exec.Cmd {
	if m.group == "" {
		return exec.Command(name, args...)
	}
	args = append([]string{"-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(m.group, "cgroup.procs"), name}, args...)
	return exec.Command("/bin/sh", args...)
}

// close removes the control group, when its processes have ended.
func (m *meter) close(ctx context.Context) error {
	if m.group == "" {
		return nil
	}
	var err error
	for range 100 {
		if err = os.Remove(m.group); err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
	return err
}

// cpu is the user and system time used so far.
func (m *meter) cpu() (time.Duration, error) {
	if m.group != "" {
		return m.groupCPU()
	}
	var sum time.Duration
	for _, pid := range m.pids() {
		t, err := processCPU(pid)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

func (m *meter) groupCPU() (time.Duration, error) {
	if m.v1 {
		b, err := os.ReadFile(filepath.Join(m.group, "cpuacct.usage"))
		if err != nil {
			return 0, err
		}
		ns, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		return time.Duration(ns), err
	}
	b, err := os.ReadFile(filepath.Join(m.group, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	return parseUsage(b)
}

// parseUsage reads usage_usec of a cpu.stat file.
func parseUsage(b []byte) (time.Duration, error) {
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte("usage_usec ")); ok {
			us, err := strconv.ParseInt(string(bytes.TrimSpace(v)), 10, 64)
			return time.Duration(us) * time.Microsecond, err
		}
	}
	return 0, errors.New("cpu.stat has no usage_usec")
}

// pids are the server's processes.
func (m *meter) pids() []int {
	if m.group != "" {
		b, err := os.ReadFile(filepath.Join(m.group, "cgroup.procs"))
		if err != nil {
			return nil
		}
		var pids []int
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
		return pids
	}
	pids := []int{m.root}
	for i := 0; i < len(pids); i++ {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		if err != nil {
			continue
		}
		for _, name := range tasks {
			b, err := os.ReadFile(name)
			if err != nil {
				continue
			}
			for _, f := range strings.Fields(string(b)) {
				if pid, err := strconv.Atoi(f); err == nil {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}

// processCPU is the time of a process, its threads, and its children that have
// ended, in ticks of 10 ms.
func processCPU(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(b)
}

// parseStat adds utime, stime, cutime and cstime of /proc/PID/stat (proc(5)).
func parseStat(b []byte) (time.Duration, error) {
	end := bytes.LastIndexByte(b, ')') // the name before it may hold anything
	f := strings.Fields(string(b[end+1:]))
	if end < 0 || len(f) < 15 {
		return 0, fmt.Errorf("short stat %q", b)
	}
	var ticks int64
	for _, s := range f[11:15] {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

// memory is what the server's processes hold, in octets: for one process its
// resident pages, for several each page once.
func (m *meter) memory() int64 {
	pids := m.pids()
	var sum int64
	for _, pid := range pids {
		file, key := "smaps_rollup", "Pss:"
		if len(pids) == 1 {
			file, key = "status", "VmRSS:"
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err == nil {
			sum += parseKB(b, key)
		}
	}
	return sum
}

// parseKB finds the line that begins with key and gives its kB in octets.
func parseKB(b []byte, key string) int64 {
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte(key)); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(v)), " kB"), 10, 64)
			if err == nil {
				return n * 1024
			}
		}
	}
	return 0
}

// peak samples memory until ctx ends and returns the most it saw.
func (m *meter) peak(ctx context.Context) int64 {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	most := m.memory()
	for {
		select {
		case <-ctx.Done():
			return max(most, m.memory())
		case <-tick.C:
			most = max(most, m.memory())
		}
	}
}

// machine is the time that all cores have been busy, of that which has passed
// on all of them, since the start of the machine.
func machine() (busy, all time.Duration) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	f := strings.Fields(string(line))
	for i, s := range f[1:min(len(f), 9)] {
		n, _ := strconv.ParseInt(s, 10, 64) // the kernel writes numbers
		all += time.Duration(n) * 10 * time.Millisecond
		if i != 3 && i != 4 { // idle, iowait
			busy += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return busy, all
}

// calm waits, at most for long, until others leave the machine nearly idle.
func calm(ctx context.Context, long time.Duration) {
	for end := time.Now().Add(long); time.Now().Before(end); {
		b0, a0 := machine()
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		b1, a1 := machine()
		if b1-b0 < (a1-a0)/5 {
			return
		}
	}
}

// loadAverage is the machine's, over one minute.
func loadAverage() float64 {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	s, _, _ := strings.Cut(string(b), " ")
	f, _ := strconv.ParseFloat(s, 64) // the kernel writes numbers
	return f
}
