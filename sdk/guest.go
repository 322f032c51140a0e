//go:build wasip1

package sdk

import (
	"unsafe"

	"github.com/wafermail/wafer/sdk/abi"
)

// guest is the state of this instance. The exports have no other place to
// find it: a module is one instance, asked one question at a time.
var guest struct {
	plugin *Plugin
	judge  Judge
	in     []byte // request buffer, written by the host
	out    []byte // result, read by the host before its next call
	event  Event
}

// Serve makes p this module's plugin. It returns a value only so that it can
// stand in a variable declaration: var _ = sdk.Serve(&plugin).
func Serve(p *Plugin) struct{} {
	guest.plugin = p
	return struct{}{}
}

//go:wasmexport wafer_abi
func exportABI() int32 { return abi.Version }

//go:wasmexport wafer_buffer
func exportBuffer(n int32) int32 {
	if n < 0 || n > abi.MaxConfig {
		return 0
	}
	if int(n) > len(guest.in) {
		guest.in = make([]byte, n)
	}
	return int32(uintptr(unsafe.Pointer(unsafe.SliceData(guest.in))))
}

//go:wasmexport wafer_describe
func exportDescribe() int64 {
	if guest.plugin == nil {
		return 0
	}
	return result(guest.plugin.manifest())
}

//go:wasmexport wafer_configure
func exportConfigure(n int32) int64 {
	c, err := decodeConfig(guest.in[:n])
	if err == nil {
		guest.judge, err = guest.plugin.Configure(c)
	}
	if err != nil {
		return result([]byte(err.Error()))
	}
	return 0
}

//go:wasmexport wafer_event
func exportEvent(stage, n int32) int64 {
	e := &guest.event
	if guest.judge == nil || e.index(guest.in[:n]) != nil || e.Stage() != Stage(stage) {
		return abi.EventError
	}
	v := guest.judge(e)
	if v.Failed != "" {
		e.Log(Error, v.Failed)
		return abi.EventError
	}
	if v.empty() {
		return abi.EventNext
	}
	return result(v.append(guest.out[:0]))
}

// result keeps b for the host and packs its place.
func result(b []byte) int64 {
	guest.out = b
	return int64(uintptr(unsafe.Pointer(unsafe.SliceData(b))))<<32 | int64(len(b))
}
