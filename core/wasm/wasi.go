package wasm

import (
	"encoding/binary"
	"time"

	"github.com/tetratelabs/wazero/api"
)

// Error numbers of WASI preview 1.
const (
	wasiOK     = 0
	wasiBadF   = 8  // no such file: there are none
	wasiInval  = 28 // argument out of range
	wasiNoSys  = 52 // there is no such thing here
	wasiFault  = 21 // address out of range
	wasiOutput = 8 << 10
)

// environment is all that a guest finds there: a collector that keeps small
// heaps small (measured: 5 MB instead of 7 for a Go guest, at equal speed).
const environment = "GOGC=50\x00"

// wasiFunctions is WASI preview 1 stripped bare: enough for the runtime of a
// language to start, with no files, no arguments, no sockets and no clock of
// its own. Functions about files say that there is no such file.
var wasiFunctions = func() map[string]hostFunction {
	m := map[string]hostFunction{
		"args_get":          {"ii>i", "", wasiNothing},
		"args_sizes_get":    {"ii>i", "", wasiArgsSizes},
		"environ_get":       {"ii>i", "", wasiEnviron},
		"environ_sizes_get": {"ii>i", "", wasiEnvironSizes},
		"clock_res_get":     {"ii>i", "", wasiClockRes},
		"clock_time_get":    {"iIi>i", "", wasiClockTime},
		"fd_write":          {"iiii>i", "", wasiWrite},
		"poll_oneoff":       {"iiii>i", "", wasiPoll},
		"proc_exit":         {"i>", "", func(_ *instance, _ api.Memory, stack []uint64) { panic(errExit(stack[0])) }},
		"random_get":        {"ii>i", "", wasiRandom},
		"sched_yield":       {">i", "", wasiNothing},
	}
	refused := func(code int32, names map[string]string) {
		for name, signature := range names {
			m[name] = hostFunction{signature, "", func(in *instance, _ api.Memory, stack []uint64) {
				in.charge(hostCost(0))
				result32(stack, code)
			}}
		}
	}
	refused(wasiBadF, map[string]string{
		"fd_advise": "iIIi>i", "fd_allocate": "iII>i", "fd_close": "i>i", "fd_datasync": "i>i",
		"fd_fdstat_get": "ii>i", "fd_fdstat_set_flags": "ii>i", "fd_fdstat_set_rights": "iII>i",
		"fd_filestat_get": "ii>i", "fd_filestat_set_size": "iI>i", "fd_filestat_set_times": "iIIi>i",
		"fd_pread": "iiiIi>i", "fd_prestat_get": "ii>i", "fd_prestat_dir_name": "iii>i", "fd_pwrite": "iiiIi>i",
		"fd_read": "iiii>i", "fd_readdir": "iiiIi>i", "fd_renumber": "ii>i", "fd_seek": "iIii>i",
		"fd_sync": "i>i", "fd_tell": "ii>i", "path_create_directory": "iii>i", "path_filestat_get": "iiiii>i",
		"path_filestat_set_times": "iiiiIIi>i", "path_link": "iiiiiii>i", "path_open": "iiiiiIIii>i",
		"path_readlink": "iiiiii>i", "path_remove_directory": "iii>i", "path_rename": "iiiiii>i",
		"path_symlink": "iiiii>i", "path_unlink_file": "iii>i",
	})
	refused(wasiNoSys, map[string]string{
		"proc_raise": "i>i", "sock_accept": "iii>i", "sock_recv": "iiiiii>i", "sock_send": "iiiii>i",
		"sock_shutdown": "ii>i",
	})
	return m
}()

func wasiNothing(in *instance, _ api.Memory, stack []uint64) {
	in.charge(hostCost(0))
	result32(stack, wasiOK)
}

// put32 writes pairs of address and value.
func put32(mem api.Memory, stack []uint64, pairs ...uint32) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if !mem.WriteUint32Le(pairs[i], pairs[i+1]) {
			result32(stack, wasiFault)
			return
		}
	}
	result32(stack, wasiOK)
}

func wasiArgsSizes(in *instance, mem api.Memory, stack []uint64) {
	in.charge(hostCost(0))
	put32(mem, stack, uint32(stack[0]), 0, uint32(stack[1]), 0)
}

func wasiEnvironSizes(in *instance, mem api.Memory, stack []uint64) {
	in.charge(hostCost(0))
	put32(mem, stack, uint32(stack[0]), 1, uint32(stack[1]), uint32(len(environment)))
}

func wasiEnviron(in *instance, mem api.Memory, stack []uint64) {
	in.charge(hostCost(0))
	pointers, buf := uint32(stack[0]), uint32(stack[1])
	if !mem.WriteString(buf, environment) {
		result32(stack, wasiFault)
		return
	}
	put32(mem, stack, pointers, buf)
}

func wasiClockRes(in *instance, mem api.Memory, stack []uint64) {
	in.charge(hostCost(0))
	put64(mem, stack, uint32(stack[1]), uint64(time.Millisecond))
}

func put64(mem api.Memory, stack []uint64, at uint32, v uint64) {
	if !mem.WriteUint64Le(at, v) {
		result32(stack, wasiFault)
		return
	}
	result32(stack, wasiOK)
}

// wasiClockTime tells the host's time, which stands still during a call. The
// monotonic clock counts how often it was asked, so that nothing in a guest
// divides by a duration of zero or waits for ever, and replays are exact.
func wasiClockTime(in *instance, mem api.Memory, stack []uint64) {
	in.charge(hostCost(0))
	switch clock, at := uint32(stack[0]), uint32(stack[2]); clock {
	case 0:
		put64(mem, stack, at, uint64(in.time().UnixNano()))
	case 1:
		in.monotonic += 1000
		put64(mem, stack, at, in.monotonic)
	default:
		result32(stack, wasiInval)
	}
}

// wasiPoll returns at once: a sleep moves the monotonic clock and nothing else.
func wasiPoll(in *instance, mem api.Memory, stack []uint64) {
	const subscription, event, most = 48, 32, 64
	from, to, n, count := uint32(stack[0]), uint32(stack[1]), uint32(stack[2]), uint32(stack[3])
	in.charge(hostCost(min(n, most) * subscription))
	if n == 0 || n > most {
		result32(stack, wasiInval)
		return
	}
	subs, ok := mem.Read(from, n*subscription)
	if !ok {
		result32(stack, wasiFault)
		return
	}
	events, ok := mem.Read(to, n*event)
	if !ok {
		result32(stack, wasiFault)
		return
	}
	done := uint32(0)
	for ; len(subs) > 0; subs = subs[subscription:] {
		var out [event]byte
		copy(out[:8], subs[:8]) // user data
		if kind := subs[8]; kind == 0 {
			wait := binary.LittleEndian.Uint64(subs[24:])
			if absolute := subs[40]&1 != 0; absolute {
				in.monotonic = max(in.monotonic, wait)
			} else {
				in.monotonic += min(wait, uint64(24*time.Hour))
			}
		} else {
			out[8], out[10] = wasiBadF, kind
		}
		copy(events[done*event:], out[:])
		done++
	}
	put32(mem, stack, count, done)
}

// wasiWrite keeps what the guest writes to standard output and error.
func wasiWrite(in *instance, mem api.Memory, stack []uint64) {
	const most = 1024
	fd, vectors, n, written := uint32(stack[0]), uint32(stack[1]), uint32(stack[2]), uint32(stack[3])
	in.charge(hostCost(min(n, most) * 8))
	if fd != 1 && fd != 2 {
		result32(stack, wasiBadF)
		return
	}
	if n > most {
		result32(stack, wasiInval)
		return
	}
	total := uint32(0)
	for i := uint32(0); i < n; i++ {
		v, ok := mem.ReadUint64Le(vectors + i*8)
		if !ok {
			result32(stack, wasiFault)
			return
		}
		p, ok := mem.Read(uint32(v), uint32(v>>32))
		if !ok {
			result32(stack, wasiFault)
			return
		}
		total += uint32(len(p))
		room := max(wasiOutput-len(in.output), 0)
		in.output = append(in.output, p[:min(len(p), room)]...)
	}
	put32(mem, stack, written, total)
}

func wasiRandom(in *instance, mem api.Memory, stack []uint64) {
	const most = 64 << 10
	n := uint32(stack[1])
	in.charge(hostCost(min(n, most)))
	p, ok := mem.Read(uint32(stack[0]), n)
	switch {
	case n > most:
		result32(stack, wasiInval)
	case !ok:
		result32(stack, wasiFault)
	default:
		in.host.Random(p)
		result32(stack, wasiOK)
	}
}
