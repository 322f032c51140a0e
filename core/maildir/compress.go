package maildir

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"

	"github.com/wafermail/wafer/core/spill"
)

// ErrUnreadable means that a message's file is there but does not say what the
// message is: it is compressed in a way that is not understood, damaged, or
// unpacks to more than maxUnpacked octets.
var ErrUnreadable = errors.New("message cannot be unpacked")

// ErrCompressed means that octets were to be stored as a message that would be
// taken for a compressed one when they are read.
var ErrCompressed = errors.New("message begins like a compressed file")

// Bounds of unpacking: a bomb costs this much of a disk and about a second.
const (
	maxUnpacked   = 256 << 20 // octets of one message
	maxZstdWindow = 128 << 20 // octets of memory; the most that any level of zstd(1) asks for
	maxUnpacking  = 4         // messages at the same time
)

// compression is how a file is compressed. The file's name does not tell:
// Dovecot's mail_compress leaves it as it is, and knows the files by their
// first octets.
type compression string

const (
	plain      compression = ""
	gzipFile   compression = "gzip"
	zstdFile   compression = "zstd"
	bzip2File  compression = "bzip2"
	xzFile     compression = "xz"
	lz4File    compression = "lz4"
	magicBytes             = 15 // that tell
)

// compressionOf tells from the first octets of a file, magicBytes or all of it.
func compressionOf(head []byte) compression {
	magics := [...]struct {
		magic string
		c     compression
	}{
		{"\x1f\x8b", gzipFile},
		{"\x28\xb5\x2f\xfd", zstdFile},
		{"\xfd7zXZ\x00", xzFile},
		{"Dovecot-LZ4\x0d\x2a\x9b\xc5", lz4File},
	}
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.c
		}
	}
	if len(head) >= 10 && (string(head[:3]) == "BZh" || string(head[:3]) == "BZ0") &&
		head[3] >= '1' && head[3] <= '9' && string(head[4:10]) == "1AY&SY" {
		return bzip2File
	}
	return plain
}

// unpacker reads what is compressed in r.
func (c compression) unpacker(r io.Reader) (io.ReadCloser, error) {
	switch c {
	case gzipFile:
		return gzip.NewReader(bufio.NewReader(r))
	case zstdFile:
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("files compressed with %s are not read here", c)
}

// unpack copies the message in f to w and returns its octets, as they are and
// with CRLF line ends. An error of the contents wraps ErrUnreadable.
func (c compression) unpack(w io.Writer, f io.ReaderAt, size, limit int64) (n int64, err error) {
	r, err := c.unpacker(io.NewSectionReader(f, 0, size))
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	defer r.Close() // only read
	in := make([]byte, contentRead)
	for {
		k, rerr := r.Read(in)
		if n += int64(k); n > limit {
			return n, fmt.Errorf("%w: it is longer than %d octets", ErrUnreadable, limit)
		}
		if _, err := w.Write(in[:k]); err != nil {
			return n, err
		}
		if errors.Is(rerr, io.EOF) {
			return n, nil
		}
		if rerr != nil {
			return n, fmt.Errorf("%w: %s: %w", ErrUnreadable, c, rerr)
		}
	}
}

// unpacked is a message that was compressed: in memory, or in a file without a
// name if it is big.
type unpacked struct {
	spill.Buffer
	marks surveyor
}

// openUnpacked unpacks the file f, which is compressed with c, once and for all
// readers of one Content.
func openUnpacked(f *os.File, c compression, size, limit int64) (*unpacked, error) {
	u := &unpacked{}
	u.Open = func() (spill.File, error) { return nameless(filepath.Dir(f.Name())) }
	_, err := c.unpack(io.MultiWriter(&u.Buffer, &u.marks), f, size, limit)
	if err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return u, nil
}

// nameless makes a file without a name in the tmp/ beside the directory cur, or
// where the system wants such files if that cannot be written to.
func nameless(cur string) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Join(filepath.Dir(cur), "tmp"), "unpacked.*")
	if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
		f, err = os.CreateTemp("", "wafer-unpacked.*")
	}
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// virtualSize is the size with CRLF line ends of the message in the file name:
// of one that cannot be unpacked, that of the file, so that the folder can be
// shown all the same.
func virtualSize(name string) (int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close() // only read
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	var magic [magicBytes]byte
	n, err := f.ReadAt(magic[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	c := compressionOf(magic[:n])
	if c == plain {
		_, size, err := survey(f)
		return size, err
	}
	if s, w := sizesOf(baseOf(name)); c.confirms(f, fi.Size(), s) && w >= s && w <= 2*s {
		return w, nil
	}
	var at mark
	_, err = c.unpack(counter{&at}, f, fi.Size(), maxUnpacked)
	if errors.Is(err, ErrUnreadable) {
		return fi.Size(), nil
	}
	return at.crlf, err
}

func baseOf(path string) string {
	base, _ := splitName(filepath.Base(path))
	return base
}

// confirms reports whether the file says by itself that it unpacks to s octets.
// Only the end of a gzip file does (RFC 1952 §2.3.1).
func (c compression) confirms(f io.ReaderAt, size, s int64) bool {
	var end [4]byte
	if c != gzipFile || s < 0 || s > maxUnpacked || size < 18 {
		return false
	}
	if _, err := f.ReadAt(end[:], size-4); err != nil {
		return false
	}
	return int64(binary.LittleEndian.Uint32(end[:])) == s
}

// counter moves its mark over what is written.
type counter struct{ at *mark }

func (c counter) Write(p []byte) (int, error) {
	c.at.count(p)
	return len(p), nil
}

// surveyor makes marks all over what is written.
type surveyor struct {
	at    mark
	marks []mark
}

func (s *surveyor) Write(p []byte) (n int, err error) {
	n = len(p)
	if s.marks == nil {
		s.marks = []mark{{}}
	}
	for len(p) > 0 {
		k := min(len(p), int(markEvery-s.at.file%markEvery))
		s.at.count(p[:k])
		p = p[k:]
		if s.at.file%markEvery == 0 {
			s.marks = append(s.marks, s.at)
		}
	}
	return n, nil
}
