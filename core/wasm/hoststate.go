package wasm

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/sdk/abi"
)

// keyed reads the key of a call of counters or state and pays for it. A code
// less than 0 is why the call is not made.
func (in *instance) keyed(mem api.Memory, granted bool, p, n uint64) (key string, code int32) {
	k, ok := mem.Read(uint32(p), uint32(n))
	in.charge(hostCost(min(uint32(len(k)), abi.MaxKey)))
	switch {
	case !granted:
		return "", abi.Denied
	case !ok || len(k) > abi.MaxKey:
		return "", abi.BadArg
	}
	return string(k), 0
}

// spend takes one operation from the call's allowance.
func (in *instance) spend() (code int32) {
	switch {
	case in.stateOps >= abi.MaxStateOps:
		return abi.Quota
	case in.io <= 0:
		return abi.Timeout
	}
	in.stateOps++
	return 0
}

// waits runs f, which may wait, on the call's time for that.
func (in *instance) waits(f func()) {
	in.guard.waiting(true)
	began := time.Now()
	f()
	in.io -= time.Since(began)
	in.guard.waiting(false)
}

// hostCount is count(p, n, delta, window).
func hostCount(in *instance, mem api.Memory, stack []uint64) {
	key, code := in.keyed(mem, in.grants.count, stack[0], stack[1])
	delta, window := int64(stack[2]), int64(stack[3])
	if code == 0 && (delta < 0 || window <= 0 || window > abi.MaxWindow) {
		code = abi.BadArg
	}
	if code == 0 {
		code = in.spend()
	}
	if code < 0 {
		stack[0] = uint64(int64(code))
		return
	}
	var sum int64
	var err error
	in.waits(func() {
		sum, err = in.host.Count(in.ctx, key, delta, time.Duration(window)*time.Millisecond)
	})
	if err != nil || sum < 0 {
		sum = abi.Temporary
	}
	stack[0] = uint64(sum)
}

// hostStateGet is state_get(p, n, buf, cap). A guest whose buffer was too small
// asks the same again and is not charged twice.
func hostStateGet(in *instance, mem api.Memory, stack []uint64) {
	key, code := in.keyed(mem, in.grants.state, stack[0], stack[1])
	if code < 0 {
		result32(stack, code)
		return
	}
	if !in.stateHeld || in.stateKey != key {
		if code := in.spend(); code < 0 {
			result32(stack, code)
			return
		}
		var value []byte
		var found bool
		var err error
		in.waits(func() { value, found, err = in.host.StateGet(in.ctx, key) })
		switch {
		case err != nil || len(value) > abi.MaxState:
			result32(stack, abi.Temporary)
			return
		case !found:
			result32(stack, abi.NotFound)
			return
		}
		in.stateHeld, in.stateKey, in.stateValue = true, key, string(value)
	}
	in.charge(hostCost(uint32(len(in.stateValue))))
	fits := uint64(len(in.stateValue)) <= uint64(uint32(stack[3]))
	answer(mem, stack, 2, in.stateValue)
	if fits {
		in.stateHeld = false // the next question is a new one
	}
}

// hostStatePut is state_put(p, n, value, len, ttl).
func hostStatePut(in *instance, mem api.Memory, stack []uint64) {
	key, code := in.keyed(mem, in.grants.state, stack[0], stack[1])
	value, ok := mem.Read(uint32(stack[2]), uint32(stack[3]))
	in.charge(hostCost(min(uint32(len(value)), abi.MaxState)))
	ttl := int64(stack[4])
	if code == 0 && (!ok || len(value) > abi.MaxState || ttl > abi.MaxStateTTL) {
		code = abi.BadArg
	}
	if code == 0 {
		code = in.spend()
	}
	if code == 0 {
		in.stateHeld = false
		var err error
		in.waits(func() {
			err = in.host.StatePut(in.ctx, key, append([]byte(nil), value...), time.Duration(max(ttl, 0))*time.Millisecond)
		})
		if err != nil {
			code = abi.Temporary
		}
	}
	result32(stack, code)
}

// hostStateSeen is state_seen(p, n, ttl, buf, cap). It looks at the buffer first:
// what it records cannot be asked for again.
func hostStateSeen(in *instance, mem api.Memory, stack []uint64) {
	key, code := in.keyed(mem, in.grants.state, stack[0], stack[1])
	ttl := int64(stack[2])
	_, ok := mem.Read(uint32(stack[3]), abi.MaxSighting)
	if code == 0 && (!ok || uint32(stack[4]) < abi.MaxSighting || ttl <= 0 || ttl > abi.MaxStateTTL) {
		code = abi.BadArg
	}
	if code == 0 {
		code = in.spend()
	}
	if code < 0 {
		result32(stack, code)
		return
	}
	var seen policy.Sighting
	var err error
	in.waits(func() {
		seen, err = in.host.StateSeen(in.ctx, key, time.Duration(ttl)*time.Millisecond)
	})
	if err != nil {
		result32(stack, abi.Temporary)
		return
	}
	answer(mem, stack, 3, string(encodeSighting(seen)))
}

func encodeSighting(s policy.Sighting) []byte {
	if s.Count <= 0 {
		return nil
	}
	b := appendUint(make([]byte, 0, abi.MaxSighting), abi.SightingFirst, uint64(max(s.First.UnixMilli(), 0)))
	b = appendUint(b, abi.SightingLast, uint64(max(s.Last.UnixMilli(), 0)))
	return binary.AppendUvarint(appendTag(b, abi.SightingCount, wireVarint), uint64(s.Count))
}

// hostList is list(name, len, p, n, buf, cap).
func hostList(in *instance, mem api.Memory, stack []uint64) {
	key, code := in.keyed(mem, in.grants.list, stack[2], stack[3])
	name, ok := mem.Read(uint32(stack[0]), uint32(stack[1]))
	if code == 0 && (!ok || len(name) > abi.MaxIdent) {
		code = abi.BadArg
	}
	if code < 0 {
		result32(stack, code)
		return
	}
	value, found, err := in.host.List(string(name), key)
	in.charge(hostCost(uint32(len(value))))
	switch {
	case errors.Is(err, policy.ErrNoList):
		result32(stack, abi.NoList)
	case err != nil || len(value) > abi.MaxResult:
		result32(stack, abi.Temporary)
	case !found:
		result32(stack, abi.NotFound)
	default:
		answer(mem, stack, 4, value)
	}
}
