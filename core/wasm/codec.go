package wasm

import (
	"encoding/binary"
	"net/netip"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/sdk/abi"
)

// Wire types of protobuf that the ABI uses.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// maxEventText is the longest text of an event, in octets; the rest is cut.
// Nothing that a session accepts is longer.
const maxEventText = 4 << 10

func appendUint(b []byte, field int, v uint64) []byte {
	if v == 0 {
		return b
	}
	return binary.AppendUvarint(appendTag(b, field, wireVarint), v)
}

func appendTag(b []byte, field int, wire byte) []byte {
	return binary.AppendUvarint(b, uint64(field)<<3|uint64(wire))
}

func appendText(b []byte, field int, s string) []byte {
	if s == "" {
		return b
	}
	return appendElement(b, field, s[:min(len(s), maxEventText)])
}

// appendElement appends s also if it is empty: an element of a repeated field.
func appendElement(b []byte, field int, s string) []byte {
	b = binary.AppendUvarint(appendTag(b, field, wireBytes), uint64(len(s)))
	return append(b, s...)
}

// sized writes the length of what was appended after the octet at from, which
// was kept for it. A long length moves the contents up.
func sized(b []byte, from int) []byte {
	n := len(b) - from - 1
	if n < 0x80 {
		b[from] = byte(n)
		return b
	}
	var head [binary.MaxVarintLen32]byte
	h := binary.PutUvarint(head[:], uint64(n))
	b = append(b, head[:h-1]...)
	copy(b[from+h:], b[from+1:from+1+n])
	copy(b[from:], head[:h])
	return b
}

func appendAddr(b []byte, field int, a netip.Addr) []byte {
	if !a.IsValid() {
		return b
	}
	b = append(appendTag(b, field, wireBytes), 0)
	from := len(b) - 1
	return sized(a.Unmap().WithZone("").AppendTo(b), from)
}

// appendPath appends an address without making a string of it where its local
// part needs no quotes.
func appendPath(b []byte, field int, p mail.Path) []byte {
	if p.IsNull() {
		return b
	}
	if !plain(p.Local()) {
		return appendText(b, field, p.String())
	}
	b = append(appendTag(b, field, wireBytes), 0)
	from := len(b) - 1
	b = append(b, p.Local()...)
	if p.Domain() != "" {
		b = append(append(b, '@'), p.Domain()...)
	}
	return sized(b, from)
}

// plain reports whether a local part is surely written without quotes.
func plain(local string) bool {
	for i := 0; i < len(local); i++ {
		c := local[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '+' || c == '=') {
			if c != '.' || i == 0 || i == len(local)-1 || local[i-1] == '.' {
				return false
			}
		}
	}
	return local != ""
}

// appendEvent appends ev as an Event message. It allocates only to grow b.
func appendEvent(b []byte, ev *policy.Event) []byte {
	var flags uint64
	for bit, on := range [...]bool{ev.Trusted, ev.EarlyTalker, ev.Extended, ev.TLS.On(), ev.AuthOK, ev.HasSender} {
		if on {
			flags |= 1 << bit
		}
	}
	b = appendUint(b, abi.EventStage, uint64(ev.Stage))
	b = appendUint(b, abi.EventTime, uint64(max(ev.Time.UnixMilli(), 0)))
	b = appendText(b, abi.EventSession, ev.Session)
	b = appendText(b, abi.EventDoor, ev.Door)
	b = appendText(b, abi.EventProtocol, ev.Protocol)
	b = appendAddr(b, abi.EventClient, ev.Client.Addr())
	b = appendUint(b, abi.EventClientPort, uint64(ev.Client.Port()))
	b = appendText(b, abi.EventClientName, ev.ClientName)
	b = appendUint(b, abi.EventFlags, flags)
	b = appendText(b, abi.EventHelo, ev.Helo)
	b = appendText(b, abi.EventUser, ev.User)
	if ev.HasSender {
		b = appendPath(b, abi.EventSender, ev.Sender)
	}
	b = appendPath(b, abi.EventRecipient, ev.Recipient)
	b = appendUint(b, abi.EventRcptCount, uint64(len(ev.Rcpts)))
	b = appendUint(b, abi.EventSize, uint64(max(ev.Size, 0)))
	b = appendText(b, abi.EventHostname, ev.Hostname)
	return appendText(b, abi.EventQueueID, string(ev.QueueID))
}

// wireReader walks the fields of a message that a guest wrote.
type wireReader struct {
	b   []byte
	bad bool
}

func (r *wireReader) varint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// next returns the next field's number and wire type with its value: v for
// varint and fixed64, p for bytes. ok is false at the end and where the message
// is malformed; bad tells which.
func (r *wireReader) next() (field uint64, wire byte, v uint64, p []byte, ok bool) {
	if r.bad || len(r.b) == 0 {
		return 0, 0, 0, nil, false
	}
	tag := r.varint()
	field, wire = tag>>3, byte(tag&7)
	var n uint64
	switch wire {
	case wireVarint:
		v = r.varint()
		return field, wire, v, nil, !r.bad
	case wireBytes:
		n = r.varint()
	case wireFixed64:
		n = 8
	case wireFixed32:
		n = 4
	default:
		r.bad = true // groups, which nobody writes
	}
	if r.bad || field == 0 || n > uint64(len(r.b)) {
		r.bad = true
		return 0, 0, 0, nil, false
	}
	p, r.b = r.b[:n], r.b[n:]
	if wire == wireFixed64 {
		v = binary.LittleEndian.Uint64(p)
	}
	return field, wire, v, p, true
}
