package wasm

import (
	"slices"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/sdk/abi"
)

// hostFunction is one function that guests may import.
type hostFunction struct {
	signature string // see funcType.signature
	grant     string // "" for everybody
	call      func(in *instance, mem api.Memory, stack []uint64)
}

// hostFunctions is all of them, by module and name.
var hostFunctions = func() map[string]hostFunction {
	m := map[string]hostFunction{}
	for name, f := range map[string]hostFunction{
		abi.ImportLog:       {"iii>", "", hostLog},
		abi.ImportNow:       {">I", "", hostNow},
		abi.ImportRandom:    {"ii>i", "", hostRandom},
		abi.ImportGet:       {"iiii>i", "", hostGet},
		abi.ImportHeader:    {"iiiii>i", abi.GrantMessage, hostHeader},
		abi.ImportBody:      {"Iii>i", abi.GrantMessage, hostBody},
		abi.ImportDNS:       {"iiii>i", abi.GrantDNS, hostDNS},
		abi.ImportCount:     {"iiII>I", abi.GrantCount, hostCount},
		abi.ImportStateGet:  {"iiii>i", abi.GrantState, hostStateGet},
		abi.ImportStatePut:  {"iiiiI>i", abi.GrantState, hostStatePut},
		abi.ImportStateSeen: {"iiIii>i", abi.GrantState, hostStateSeen},
		abi.ImportList:      {"iiiiii>i", abi.GrantList, hostList},
		abi.ImportMetric:    {"iiI>", "", hostMetric},
	} {
		m[abi.Module+"."+name] = f
	}
	for name, f := range wasiFunctions {
		m[abi.WASI+"."+name] = f
	}
	return m
}()

// granted is what a check was granted.
type granted struct{ dns, count, message, state, list bool }

func grantsOf(names []string) granted {
	has := func(name string) bool { return slices.Contains(names, name) }
	return granted{has(abi.GrantDNS), has(abi.GrantCount), has(abi.GrantMessage), has(abi.GrantState), has(abi.GrantList)}
}

// hostCost is the fuel that octets cost which the host moves for the guest.
func hostCost(octets uint32) int64 { return 50 + int64(octets)/4 }

// charge takes fuel for work that the host does, and ends a guest whose stop
// flag is up.
func (in *instance) charge(units int64) {
	in.fuel.Set(uint64(int64(in.fuel.Get()) - units))
	if in.guard.stopped() {
		panic(errStopped)
	}
}

func result32(stack []uint64, v int32) { stack[0] = uint64(uint32(v)) }

// hostLog is log(level, p, n).
func hostLog(in *instance, mem api.Memory, stack []uint64) {
	n := uint32(stack[2])
	in.charge(hostCost(min(n, abi.MaxLog)))
	room := abi.MaxLog - in.logged
	if room <= 0 {
		return
	}
	p, ok := mem.Read(uint32(stack[1]), min(n, uint32(room)))
	if !ok {
		return
	}
	in.logged += max(len(p), 16) // empty lines are not free
	level := min(max(int(int32(stack[0])), -4), 8)
	in.host.Log(level, logText(p))
}

// hostNow is now() in ms since 1970.
func hostNow(in *instance, _ api.Memory, stack []uint64) {
	in.charge(0)
	stack[0] = uint64(in.time().UnixMilli())
}

// time is the host's time, asked once in a call.
func (in *instance) time() time.Time {
	if in.now.IsZero() {
		in.now = in.host.Now()
	}
	return in.now
}

// hostGet is get(p, n, buf, cap).
func hostGet(in *instance, mem api.Memory, stack []uint64) {
	name, ok := mem.Read(uint32(stack[0]), uint32(stack[1]))
	if !ok || len(name) > abi.MaxFactName {
		in.charge(hostCost(0))
		result32(stack, abi.BadArg)
		return
	}
	fact := factOf(in.event, string(name))
	in.charge(hostCost(uint32(len(fact))))
	in.note("get", string(name), fact, fact != "")
	if fact == "" {
		result32(stack, abi.NotFound)
		return
	}
	answer(mem, stack, 2, fact)
}

// answer writes s where stack's argument at and the one after it say, if it
// fits, and returns its length.
func answer(mem api.Memory, stack []uint64, at int, s string) {
	buf, size := uint32(stack[at]), uint32(stack[at+1])
	if uint64(len(s)) <= uint64(size) && !mem.WriteString(buf, s) {
		result32(stack, abi.BadArg)
		return
	}
	result32(stack, int32(len(s)))
}

// note tells the decision log of a call that policy.Host does not see.
func (in *instance) note(call, ask, answer string, found bool) {
	r, ok := in.host.(policy.Recorder)
	if !ok || !r.Records() {
		return
	}
	status := "ok"
	if !found {
		status = "not-found"
	}
	r.Note(policy.HostCall{Call: call, Ask: clean(ask, maxDetail), Answer: answer, Status: status})
}

// hostRandom is random(buf, cap).
func hostRandom(in *instance, mem api.Memory, stack []uint64) {
	n := uint32(stack[1])
	in.charge(hostCost(min(n, abi.MaxRandom)))
	p, ok := mem.Read(uint32(stack[0]), n)
	if !ok || n > abi.MaxRandom {
		result32(stack, abi.BadArg)
		return
	}
	in.host.Random(p)
	result32(stack, int32(n))
}

// hostMetric is metric(p, n, delta).
func hostMetric(in *instance, mem api.Memory, stack []uint64) {
	in.charge(hostCost(abi.MaxLabel))
	if p, ok := mem.Read(uint32(stack[0]), uint32(stack[1])); ok && len(p) <= abi.MaxLabel {
		in.host.Metric(string(p), int64(stack[2]))
	}
}
