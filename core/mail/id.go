package mail

import (
	"crypto/rand"
	"encoding/binary"
	"sync/atomic"
	"time"
)

// ID names a message, a session or a decision. It is 17 characters of
// Crockford's base 32 in capitals: 45 bits of time in 1/256 ms, then 40 bits
// that are random at start and count up afterwards, so ids sort by age, are
// never reused, and are safe in file names and replies.
type ID string

var idCounter = func() *atomic.Uint64 {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails (crypto/rand)
	c := new(atomic.Uint64)
	c.Store(binary.LittleEndian.Uint64(seed[:]))
	return c
}()

const idAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// NewID returns a new id for something that happens at t.
func NewID(t time.Time) ID {
	var b [17]byte
	ticks := uint64(t.UnixMicro()) * 256 / 1000
	n := idCounter.Add(1)
	for i := 8; i >= 0; i-- {
		b[i] = idAlphabet[ticks&31]
		ticks >>= 5
	}
	for i := 16; i >= 9; i-- {
		b[i] = idAlphabet[n&31]
		n >>= 5
	}
	return ID(b[:])
}
