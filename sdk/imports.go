//go:build wasip1

package sdk

import "unsafe"

// host is the calls into the server. It has no state; only those that the
// plugin reaches become imports of the module.
type host struct{}

//go:wasmimport wafer1 log
func importLog(level int32, p unsafe.Pointer, n uint32)

//go:wasmimport wafer1 now
func importNow() int64

//go:wasmimport wafer1 random
func importRandom(buf unsafe.Pointer, size uint32) int32

//go:wasmimport wafer1 get
func importGet(p unsafe.Pointer, n uint32, buf unsafe.Pointer, size uint32) int32

//go:wasmimport wafer1 header
func importHeader(p unsafe.Pointer, n uint32, index int32, buf unsafe.Pointer, size uint32) int32

//go:wasmimport wafer1 body
func importBody(off int64, buf unsafe.Pointer, size uint32) int32

//go:wasmimport wafer1 dns
func importDNS(p unsafe.Pointer, n uint32, buf unsafe.Pointer, size uint32) int32

//go:wasmimport wafer1 count
func importCount(p unsafe.Pointer, n uint32, delta, window int64) int64

//go:wasmimport wafer1 state_get
func importStateGet(p unsafe.Pointer, n uint32, buf unsafe.Pointer, size uint32) int32

//go:wasmimport wafer1 state_put
func importStatePut(p unsafe.Pointer, n uint32, value unsafe.Pointer, size uint32, ttl int64) int32

//go:wasmimport wafer1 state_seen
func importStateSeen(p unsafe.Pointer, n uint32, ttl int64, buf unsafe.Pointer, size uint32) int32

//go:wasmimport wafer1 list
func importList(name unsafe.Pointer, nameLen uint32, p unsafe.Pointer, n uint32, buf unsafe.Pointer, size uint32) int32

//go:wasmimport wafer1 metric
func importMetric(p unsafe.Pointer, n uint32, delta int64)

func text(s string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(s)), uint32(len(s))
}

func octets(b []byte) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.SliceData(b)), uint32(len(b))
}

func (host) log(level int32, s string) {
	p, n := text(s)
	importLog(level, p, n)
}

func (host) now() int64 { return importNow() }

func (host) random(b []byte) {
	buf, size := octets(b)
	importRandom(buf, size)
}

func (host) fact(name string, b []byte) int32 {
	p, n := text(name)
	buf, size := octets(b)
	return importGet(p, n, buf, size)
}

func (host) header(name string, index int32, b []byte) int32 {
	p, n := text(name)
	buf, size := octets(b)
	return importHeader(p, n, index, buf, size)
}

func (host) body(off int64, b []byte) int32 {
	buf, size := octets(b)
	return importBody(off, buf, size)
}

func (host) dns(req, b []byte) int32 {
	p, n := octets(req)
	buf, size := octets(b)
	return importDNS(p, n, buf, size)
}

func (host) count(key string, delta, window int64) int64 {
	p, n := text(key)
	return importCount(p, n, delta, window)
}

func (host) stateGet(key string, b []byte) int32 {
	p, n := text(key)
	buf, size := octets(b)
	return importStateGet(p, n, buf, size)
}

func (host) statePut(key string, value []byte, ttl int64) int32 {
	p, n := text(key)
	v, size := octets(value)
	return importStatePut(p, n, v, size, ttl)
}

func (host) stateSeen(key string, ttl int64, b []byte) int32 {
	p, n := text(key)
	buf, size := octets(b)
	return importStateSeen(p, n, ttl, buf, size)
}

func (host) list(name, key string, b []byte) int32 {
	l, ln := text(name)
	p, n := text(key)
	buf, size := octets(b)
	return importList(l, ln, p, n, buf, size)
}

func (host) metric(label string, delta int64) {
	p, n := text(label)
	importMetric(p, n, delta)
}
