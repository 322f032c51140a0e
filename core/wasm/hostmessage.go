package wasm

import (
	"errors"
	"io"
	"strconv"

	"github.com/tetratelabs/wazero/api"

	"github.com/wafermail/wafer/sdk/abi"
)

// maxBodyRead is the most that one call of body hands over, in octets.
const maxBodyRead = 64 << 10

// hostHeader is header(p, n, index, buf, cap). A guest whose buffer was too
// small finds the same field ready when it asks again.
func hostHeader(in *instance, mem api.Memory, stack []uint64) {
	name, ok := mem.Read(uint32(stack[0]), uint32(stack[1]))
	index := int32(stack[2])
	in.charge(hostCost(0))
	switch {
	case !in.grants.message:
		result32(stack, abi.Denied)
		return
	case !ok || len(name) > abi.MaxName || index < 0:
		result32(stack, abi.BadArg)
		return
	case in.event == nil || in.event.Content == nil:
		result32(stack, abi.NotFound)
		return
	case in.io <= 0:
		result32(stack, abi.Timeout)
		return
	}
	if !in.fieldHeld || in.fieldName != string(name) || in.fieldIndex != index {
		in.charge(headerCost) // the host looks through the fields
		var value string
		var found bool
		in.waits(func() { value, found = in.event.Content.Header(string(name), int(index)) })
		in.note(abi.ImportHeader, string(name)+" "+strconv.Itoa(int(index)), strconv.Itoa(len(value)), found)
		if !found {
			result32(stack, abi.NotFound)
			return
		}
		in.fieldHeld, in.fieldName, in.fieldIndex, in.fieldValue = true, string(name), index, value
	}
	in.charge(hostCost(uint32(len(in.fieldValue))))
	answer(mem, stack, 3, in.fieldValue)
}

// headerCost is the fuel for finding one header field, which takes the host up
// to some 100 µs in the longest header section.
const headerCost = 50_000

// hostBody is body(off, buf, cap).
func hostBody(in *instance, mem api.Memory, stack []uint64) {
	off, n := int64(stack[0]), min(uint32(stack[2]), maxBodyRead)
	in.charge(hostCost(n))
	buf, ok := mem.Read(uint32(stack[1]), n)
	switch {
	case !in.grants.message:
		result32(stack, abi.Denied)
		return
	case !ok || off < 0 || off > 1<<62:
		result32(stack, abi.BadArg)
		return
	case in.event == nil || in.event.Content == nil:
		result32(stack, abi.NotFound)
		return
	case in.io <= 0:
		result32(stack, abi.Timeout)
		return
	}
	var got int
	var err error
	in.waits(func() { got, err = in.event.Content.Body(buf, off) })
	if got <= 0 && err != nil && !errors.Is(err, io.EOF) {
		result32(stack, abi.Temporary)
		return
	}
	got = max(got, 0)
	in.note(abi.ImportBody, strconv.FormatInt(off, 10)+" "+strconv.Itoa(int(n)), strconv.Itoa(got), true)
	result32(stack, int32(got))
}
