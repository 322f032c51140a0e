package bundle

import "encoding/binary"

// member is a file of the archive as its headers have it.
type member struct {
	name string
	size int64
	crc  uint32 // CRC-32 (IEEE) of the content, which ZIP wants
	off  int64  // of the local header
}

// Sizes of ZIP's headers without names (APPNOTE 4.3).
const (
	localHead   = 30
	centralHead = 46
	endHead     = 22
)

// Fields that are the same for all members.
const (
	zipVersion = 20        // to extract: 2.0
	zipMadeBy  = 3<<8 | 20 // Unix
	zipUTF8    = 1 << 11
	zipDate    = 1<<5 | 1 // 1 January 1980, the first that there is
	zipMode    = 0o100600 << 16
)

// content is where m's content begins.
func (m *member) content() int64 { return m.off + localHead + int64(len(m.name)) }

// end is where the next member begins.
func (m *member) end() int64 { return m.content() + m.size }

// common appends what both headers of m have.
func (m *member) common(b []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, zipVersion)
	b = binary.LittleEndian.AppendUint16(b, zipUTF8)
	b = binary.LittleEndian.AppendUint16(b, 0) // stored
	b = binary.LittleEndian.AppendUint16(b, 0) // midnight
	b = binary.LittleEndian.AppendUint16(b, zipDate)
	b = binary.LittleEndian.AppendUint32(b, m.crc)
	b = binary.LittleEndian.AppendUint32(b, uint32(m.size))
	b = binary.LittleEndian.AppendUint32(b, uint32(m.size))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(m.name)))
	return binary.LittleEndian.AppendUint16(b, 0) // no extra field
}

// local is the header before m's content.
func (m *member) local() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0x04034b50)
	return append(m.common(b), m.name...)
}

// directory is what follows the last member's content.
func directory(all []member) []byte {
	var b []byte
	off := int64(0)
	for i := range all {
		m := &all[i]
		off = m.end()
		b = binary.LittleEndian.AppendUint32(b, 0x02014b50)
		b = binary.LittleEndian.AppendUint16(b, zipMadeBy)
		b = m.common(b)
		b = binary.LittleEndian.AppendUint16(b, 0) // no comment
		b = binary.LittleEndian.AppendUint16(b, 0) // disk
		b = binary.LittleEndian.AppendUint16(b, 0) // internal attributes
		b = binary.LittleEndian.AppendUint32(b, zipMode)
		b = binary.LittleEndian.AppendUint32(b, uint32(m.off))
		b = append(b, m.name...)
	}
	size := len(b)
	b = binary.LittleEndian.AppendUint32(b, 0x06054b50)
	b = binary.LittleEndian.AppendUint32(b, 0) // disks
	b = binary.LittleEndian.AppendUint16(b, uint16(len(all)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(all)))
	b = binary.LittleEndian.AppendUint32(b, uint32(size))
	b = binary.LittleEndian.AppendUint32(b, uint32(off))
	return binary.LittleEndian.AppendUint16(b, 0) // no comment
}

// lay gives members their places and returns the size of the archive.
func lay(all []member) int64 {
	off, central := int64(0), int64(endHead)
	for i := range all {
		all[i].off = off
		off = all[i].end()
		central += centralHead + int64(len(all[i].name))
	}
	return off + central
}

// manifestSize is the size of the first member, if b begins as the local header of
// a manifest does.
func manifestSize(b []byte) (size int64, ok bool) {
	m := member{name: manifestName}
	if len(b) < int(m.content()) {
		return 0, false
	}
	m.crc, m.size = binary.LittleEndian.Uint32(b[14:]), int64(binary.LittleEndian.Uint32(b[18:]))
	return m.size, string(m.local()) == string(b[:m.content()])
}

// sameButSum reports whether two local headers differ in the CRC only.
func sameButSum(a, b []byte) bool {
	const sum = 14
	return len(a) == len(b) && string(a[:sum]) == string(b[:sum]) && string(a[sum+4:]) == string(b[sum+4:])
}
