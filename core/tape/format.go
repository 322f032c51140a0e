package tape

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"
)

const (
	magic      = "\x93WFTAPE\n"
	version    = 1
	fileHead   = 60 // octets of a file's header
	chunkHead  = 88 // octets of a chunk's header
	saltSize   = 16
	tagSize    = 16
	marks      = 4 // octets of a mark
	chunkMark  = "\xf5wtc"
	endMark    = "\xf5wte"
	maxRaw     = 4 << 20 // octets of a chunk's entries
	maxStored  = maxRaw + 64<<10
	entryHead  = 16 // octets of an entry besides its texts
	maxSession = 1 << 10
	maxEntry   = maxRaw - entryHead - maxSession
)

// Flags of files and chunks.
const (
	flagSealed = 1 << iota
	flagFast   // of chunks: compressed with S2, else with Zstandard
)

// MaxEntry is how many octets one entry may have.
const MaxEntry = maxEntry

type salt [saltSize]byte
type tag [tagSize]byte

// castagnoli makes the CRC-32C of b.
func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// fileHeader is what a file begins with.
type fileHeader struct {
	sealed  bool
	created int64 // Unix time in microseconds, as in the file's name
	salt    salt
	tag     tag
}

// Errors of a file's header.
var (
	errMagic   = errors.New("not a tape")
	errSum     = errors.New("the header's checksum is wrong")
	errVersion = errors.New("unknown version")
)

// append writes h, with the tag of k if the file is sealed.
func (h *fileHeader) append(b []byte, k *key) []byte {
	at := len(b)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint16(b, version)
	flags := uint16(0)
	if h.sealed {
		flags |= flagSealed
	}
	b = binary.LittleEndian.AppendUint16(b, flags)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.created))
	b = append(b, h.salt[:]...)
	h.tag = k.mark(roleFile, 0, 0, b[at:])
	b = append(b, h.tag[:]...)
	return binary.LittleEndian.AppendUint32(b, castagnoli(b[at:]))
}

// parseFileHeader reads the header in b, which has fileHead octets.
func parseFileHeader(b []byte) (h fileHeader, err error) {
	const body = fileHead - 4
	sound := castagnoli(b[:body]) == binary.LittleEndian.Uint32(b[body:])
	switch {
	case string(b[:len(magic)]) != magic:
		return h, errMagic
	case !sound:
		return h, errSum
	case binary.LittleEndian.Uint16(b[8:]) != version, binary.LittleEndian.Uint16(b[10:]) > flagSealed, binary.LittleEndian.Uint32(b[12:]) != 0:
		return h, errVersion
	}
	h.sealed = binary.LittleEndian.Uint16(b[10:])&flagSealed != 0
	h.created = int64(binary.LittleEndian.Uint64(b[16:]))
	copy(h.salt[:], b[24:])
	copy(h.tag[:], b[24+saltSize:])
	return h, nil
}

// signedPart is what the tag of a file's header is made of.
func signedPart(fileHeaderOctets []byte) []byte { return fileHeaderOctets[:24+saltSize] }

// header is what a chunk begins with. A chunk without entries is the end of a
// file that was closed.
type header struct {
	end         bool
	sealed      bool
	fast        bool
	try         uint32 // how often the disk had not taken a chunk of this file
	number      uint64 // of the chunk in its file, from 0
	stored, raw uint32 // octets of the payload on disk, and of the entries
	entries     uint32
	first, last int64 // earliest and latest time of an entry, Unix nanoseconds
	salt        salt  // the file's
	sum         uint32
	tag         tag
}

// Parts of a chunk's header.
const (
	headBody = 64 // octets that the seal of the payload covers
	headTag  = headBody + 4
	headSum  = headTag + tagSize
)

// appendBody writes the part of h that is known before the payload is sealed.
func (h *header) appendBody(b []byte) []byte {
	mark := chunkMark
	if h.end {
		mark = endMark
	}
	b = append(b, mark...)
	b = binary.LittleEndian.AppendUint32(b, h.try)
	b = binary.LittleEndian.AppendUint64(b, h.number)
	b = binary.LittleEndian.AppendUint32(b, h.stored)
	b = binary.LittleEndian.AppendUint32(b, h.raw)
	b = binary.LittleEndian.AppendUint32(b, h.entries)
	flags := uint32(0)
	if h.sealed {
		flags |= flagSealed
	}
	if h.fast {
		flags |= flagFast
	}
	b = binary.LittleEndian.AppendUint32(b, flags)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.first))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.last))
	return append(b, h.salt[:]...)
}

// appendRest writes what follows the body, which b ends with.
func (h *header) appendRest(b []byte, k *key) []byte {
	at := len(b) - headBody
	b = binary.LittleEndian.AppendUint32(b, h.sum)
	h.tag = k.mark(roleHeader, h.try, h.number, b[at:])
	b = append(b, h.tag[:]...)
	return binary.LittleEndian.AppendUint32(b, castagnoli(b[at:]))
}

// parseHeader reads the header in b, which has chunkHead octets. ok is false
// if it is none: what it says is within the format's bounds otherwise.
func parseHeader(b []byte) (h header, ok bool) {
	switch string(b[:marks]) {
	case chunkMark:
	case endMark:
		h.end = true
	default:
		return h, false
	}
	if castagnoli(b[:headSum]) != binary.LittleEndian.Uint32(b[headSum:]) {
		return h, false
	}
	h.try = binary.LittleEndian.Uint32(b[4:])
	h.number = binary.LittleEndian.Uint64(b[8:])
	h.stored = binary.LittleEndian.Uint32(b[16:])
	h.raw = binary.LittleEndian.Uint32(b[20:])
	h.entries = binary.LittleEndian.Uint32(b[24:])
	flags := binary.LittleEndian.Uint32(b[28:])
	h.sealed, h.fast = flags&flagSealed != 0, flags&flagFast != 0
	h.first = int64(binary.LittleEndian.Uint64(b[32:]))
	h.last = int64(binary.LittleEndian.Uint64(b[40:]))
	copy(h.salt[:], b[48:])
	h.sum = binary.LittleEndian.Uint32(b[headBody:])
	copy(h.tag[:], b[headTag:])
	if flags > flagSealed|flagFast || h.try > maxTry {
		return h, false
	}
	if h.end {
		return h, h.stored == 0 && h.raw == 0 && h.entries == 0
	}
	return h, h.stored > 0 && h.stored <= maxStored && h.raw <= maxRaw && h.entries > 0 && uint64(h.entries)*entryHead <= uint64(h.raw)
}

// appendEntry writes an entry of a chunk.
func appendEntry(b []byte, at int64, session string, data []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(session)))
	b = binary.LittleEndian.AppendUint64(b, uint64(at))
	return append(append(b, session...), data...)
}

var errEntries = errors.New("its entries are not what its header says")

// entriesOf calls each, unless it is nil, with the entries of a chunk, whose
// octets they share. Without each it only says whether they are as h says.
func entriesOf(b []byte, h *header, each func(Entry) error) error {
	session := ""
	for range h.entries {
		if len(b) < entryHead {
			return errEntries
		}
		size, name := uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[4:]))
		at := int64(binary.LittleEndian.Uint64(b[8:]))
		b = b[entryHead:]
		if name > maxSession || size+name > uint64(len(b)) || at < h.first || at > h.last {
			return errEntries
		}
		if each != nil {
			if string(b[:name]) != session { // they often come in a row
				session = string(b[:name])
			}
			if err := each(Entry{Time: time.Unix(0, at).UTC(), Session: session, Data: b[name : name+size : name+size]}); err != nil {
				return err
			}
		}
		b = b[name+size:]
	}
	if len(b) > 0 {
		return errEntries
	}
	return nil
}
