package maildir

import (
	"bytes"
	"path/filepath"
	"strings"
)

// Header appends the header of a message to b, as it goes to clients, with the empty line
// that ends it. It takes one look at the first octets of the file: ok is false where
// that does not tell, because the header is long, or the file is compressed, and Open
// has to be asked. It is ErrExpunged if the message is gone.
func (f *Folder) Header(b []byte, uid uint32) (header []byte, ok bool, err error) {
	in := heads.Get().(*[]byte)
	defer heads.Put(in)
	err = f.find(uid, func(name string, size int64) (int64, error) {
		n, err := readHead(name, (*in)[:contentHead])
		if err != nil {
			return 0, err
		}
		file := (*in)[:n]
		end := headerEnd(file)
		if end == 0 || compressionOf(file) != plain || strings.Contains(filepath.Base(name), binaryMark) {
			return size, nil
		}
		header, ok = appendCRLF(b, file[:end]), true
		if n < contentHead { // all of the message is here
			return crlfSize(file), nil
		}
		return size, nil
	})
	return header, ok && err == nil, err
}

// headerEnd is the length of the header in b with its empty line, 0 if that is not in b.
func headerEnd(b []byte) int {
	for at := 0; at < len(b); {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return 0
		}
		if i == 0 || i == 1 && b[at] == '\r' {
			return at + i + 1
		}
		at += i + 1
	}
	return 0
}

// appendCRLF appends lines to b, each LF with a CR before it.
func appendCRLF(b, lines []byte) []byte {
	if cap(b)-len(b) < len(lines)+32 {
		b = append(make([]byte, 0, len(b)+len(lines)+len(lines)/16+32), b...)
	}
	for len(lines) > 0 {
		i := bytes.IndexByte(lines, '\n')
		if i < 0 {
			return append(b, lines...)
		}
		if i > 0 && lines[i-1] == '\r' {
			b = append(b, lines[:i+1]...)
		} else {
			b = append(append(b, lines[:i]...), '\r', '\n')
		}
		lines = lines[i+1:]
	}
	return b
}

// crlfSize is how many octets b has with CRLF line ends.
func crlfSize(b []byte) int64 {
	if bytes.IndexByte(b, '\r') < 0 {
		return int64(len(b) + bytes.Count(b, []byte{'\n'}))
	}
	var at mark
	at.count(b)
	return at.crlf
}
