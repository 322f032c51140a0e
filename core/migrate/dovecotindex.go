package migrate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/wafermail/wafer/core/maildir"
)

// dovecot.index holds for each message a record with its UID and, in an extension named
// "keywords", one bit for each keyword of the list in the extension's header.
// dovecot.index.log holds the changes since it was written. Both are in the byte order of
// the machine; that of little-endian machines is read.
const (
	maxIndexFile   = 256 << 20 // octets
	indexBase      = 120       // octets of the header that every version 7 has
	maxIndexNames  = 4096
	keywordUpdate  = 0x0400 // type of a record in the log
	keywordReset   = 0x0800
	logRecordTypes = 0x0fffffff // without the mark of external changes
)

// tagged says which messages have which keywords.
type tagged struct {
	uids []uint32                   // of all messages, ascending: others are not noted
	has  map[string]map[uint32]bool // UIDs by name
}

// set notes that the messages from one UID to another have a keyword, or not.
func (t tagged) set(name string, from, to uint32, on bool) {
	if t.has[name] == nil {
		if len(t.has) >= maxIndexNames {
			return
		}
		t.has[name] = map[uint32]bool{}
	}
	i, _ := slices.BinarySearch(t.uids, from)
	for ; i < len(t.uids) && t.uids[i] <= to; i++ {
		if delete(t.has[name], t.uids[i]); on {
			t.has[name][t.uids[i]] = true
		}
	}
}

// readIndexKeywords reads which messages of the folder in dir have which keywords, as far
// as Dovecot's index tells. uids are those of its messages, ascending. What makes no sense says nothing.
func readIndexKeywords(dir string, uids []uint32) (tagged, error) {
	t := tagged{uids: uids, has: map[string]map[uint32]bool{}}
	data, err := readBounded(filepath.Join(dir, "dovecot.index"))
	if err != nil {
		return t, err
	}
	parseIndex(data, t)
	if data, err = readBounded(filepath.Join(dir, "dovecot.index.log")); err != nil {
		return t, err
	}
	parseLog(data, t)
	return t, nil
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	return io.ReadAll(io.LimitReader(f, maxIndexFile))
}

func u16(b []byte) int    { return int(binary.LittleEndian.Uint16(b)) }
func u32(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

// parseIndex reads a dovecot.index.
func parseIndex(b []byte, t tagged) {
	if len(b) < indexBase || b[0] != 7 {
		return
	}
	base, header, size, count := u16(b[2:]), int(u32(b[4:])), int(u32(b[8:])), int(u32(b[0x20:]))
	if base < indexBase || header > len(b) || base > header || size < 5 || count > (len(b)-header)/size {
		return
	}
	names, offset, width := indexExtension(b[:header], base)
	if len(names) == 0 || offset+width > size {
		return
	}
	for i := range count {
		rec := b[header+i*size:][:size]
		for k, name := range names {
			if k/8 < width && rec[offset+k/8]&(1<<(k%8)) != 0 {
				t.set(name, u32(rec), u32(rec), true)
			}
		}
	}
}

// indexExtension finds the names of keywords, and where their bits are in a record.
func indexExtension(b []byte, at int) (names []string, offset, width int) {
	for at = (at + 7) &^ 7; at+16 <= len(b); {
		size, nameSize := int(u32(b[at:])), u16(b[at+14:])
		offset, width = u16(b[at+8:]), u16(b[at+10:])
		data := (at + 16 + nameSize + 7) &^ 7
		if size > len(b) || data+size > len(b) {
			return nil, 0, 0
		}
		if string(b[at+16:at+16+nameSize]) == "keywords" {
			return keywordList(b[data : data+size]), offset, width
		}
		at = (data + size + 7) &^ 7
	}
	return nil, 0, 0
}

// keywordList reads a count, as many pairs of which the second number is the place of a
// name, and the names.
func keywordList(b []byte) (names []string) {
	if len(b) < 4 {
		return nil
	}
	n := int(u32(b))
	if n > maxIndexNames || 4+8*n > len(b) {
		return nil
	}
	text := b[4+8*n:]
	for i := range n {
		at := int(u32(b[4+8*i+4:]))
		if at >= len(text) {
			return nil
		}
		name, _, _ := bytes.Cut(text[at:], []byte{0})
		names = append(names, string(name))
	}
	return names
}

// parseLog reads a dovecot.index.log.
func parseLog(b []byte, t tagged) {
	if len(b) < 24 || b[0] != 1 {
		return
	}
	for at := u16(b[2:]); at+8 <= len(b); {
		size := logSize(b[at:])
		if size < 8 || at+size > len(b) {
			return
		}
		body := b[at+8 : at+size]
		switch u32(b[at+4:]) & logRecordTypes {
		case keywordUpdate:
			logKeyword(body, t)
		case keywordReset:
			for ; len(body) >= 8; body = body[8:] {
				for name := range t.has {
					t.set(name, u32(body), u32(body[4:]), false)
				}
			}
		}
		at += size
	}
}

// logSize is the size of a record with its head, 0 if it has not been written to the end:
// four times seven bits, in units of four octets.
func logSize(b []byte) int {
	if b[0]&b[1]&b[2]&b[3]&0x80 == 0 {
		return 0
	}
	return int(b[3]&0x7f)<<2 | int(b[2]&0x7f)<<9 | int(b[1]&0x7f)<<16 | int(b[0]&0x7f)<<23
}

// logKeyword reads one change: how, the name, and ranges of UIDs.
func logKeyword(b []byte, t tagged) {
	if len(b) < 4 {
		return
	}
	how, n := b[0], u16(b[2:])
	at := (4 + n + 3) &^ 3
	if n == 0 || at > len(b) {
		return
	}
	name := string(b[4 : 4+n])
	for b = b[at:]; len(b) >= 8; b = b[8:] {
		t.set(name, u32(b), u32(b[4:]), how != 1)
	}
}

// beyond lists the keywords that file names have no letter for, each with the UIDs of the
// messages that have it as far as they are known, and which file is whose.
func (f *folder) beyond(l uidlist) (t tagged, byUID map[uint32]file, err error) {
	names, further, err := maildir.KeywordNames(f.dir)
	if err != nil {
		return t, nil, err
	}
	files := make(map[string]file, len(f.files))
	for _, m := range f.files {
		files[m.Base] = m
	}
	byUID = map[uint32]file{}
	var uids []uint32
	for _, r := range l.recs {
		if m, ok := files[r.base]; ok {
			byUID[uint32(r.uid)] = m
			uids = append(uids, uint32(r.uid))
		}
	}
	if t, err = readIndexKeywords(f.dir, uids); err != nil {
		return t, nil, err
	}
	for _, name := range names {
		for have := range t.has {
			if fold(have) == fold(name) {
				delete(t.has, have)
			}
		}
	}
	for name, uids := range t.has {
		if len(uids) == 0 || !atom(name) {
			delete(t.has, name)
		}
	}
	for _, name := range further {
		t.set(name, 1, 0, true) // a name of which nothing more is known
	}
	return t, byUID, nil
}
