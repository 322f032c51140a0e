package tape

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"
)

// scanner goes through the chunks of one file, and past what is damaged.
type scanner struct {
	in     io.ReaderAt
	size   int64 // of what is read of the file
	name   string
	born   time.Time // by its name; zero: does not matter
	newest bool      // it may be being written
	access access
	out    sink

	salt   salt
	known  bool // salt is the file's
	key    *key // of the salt's
	sealed bool
	next   uint64 // number of the chunk that is expected
	cut    bool   // it has been said that the end is missing
	effort int64  // octets that may be read in vain
	head   [chunkHead]byte
	window []byte
}

// access says what may be read.
type access struct {
	secret   []byte
	unsealed bool // a file that is not sealed will do, though there is a secret
	blind    bool // the headers of sealed files will do, without a secret
}

// sink takes what a scanner finds, in the order of the file.
type sink interface {
	// wants reports whether the payload of h's chunk is to be read.
	wants(h *header) bool
	// buffer returns where a chunk is put. It is asked again only after take.
	buffer() (*found, error)
	take(f *found)                // a chunk whose checksum is right
	skip(h *header, length int64) // one that is not wanted
	problem(p Problem)
}

// found is a chunk.
type found struct {
	name   string
	off    int64
	header header
	body   [headBody]byte // of the header
	key    *key
	stored []byte
}

// scan reads the file. It returns an error only if the sink has no buffer.
func (s *scanner) scan() error {
	s.effort = 4*s.size + maxStored
	off, err := s.greeting()
	if off < 0 || err != nil {
		return err
	}
	for off < s.size {
		h, ok := s.header(off)
		if !ok {
			left := s.size - off
			tail := left < chunkHead && s.begins(off, left)
			if tail && s.newest {
				return nil // it is being written
			}
			off = s.pass(off, tail)
			continue
		}
		end := off + chunkHead + int64(h.stored)
		switch {
		case h.end:
			s.ending(&h, off)
			return nil
		case end > s.size && s.newest:
			return nil // it is being written
		case end > s.size:
			off = s.pass(off, true)
			continue
		case h.number < s.next:
			s.report(off, fmt.Sprintf("chunk %d is where chunk %d belongs", h.number, s.next), "somebody has moved or copied parts of the file; this part is not read; do not trust the file")
			off = end
			continue
		}
		sound, err := s.chunk(&h, off)
		if err != nil {
			return err
		}
		if !sound {
			// The header is sound: if its length leads to something sound, only
			// this chunk is lost.
			if _, ok := s.header(end); !ok && end < s.size {
				off = s.pass(off, false)
				continue
			}
			s.damaged(off, end)
		}
		off, s.next = end, h.number+1
	}
	if !s.newest && !s.cut {
		s.report(s.size, "the end mark is missing", "the server was killed or its disk was full, or the end was cut off: what came last may be missing")
	}
	return nil
}

// greeting reads the file's header and returns where chunks begin, or -1 if there
// is nothing to read.
func (s *scanner) greeting() (off int64, err error) {
	b := make([]byte, min(fileHead, max(s.size, 0)))
	if !s.read(b, 0) {
		return -1, nil
	}
	if len(b) < fileHead {
		if n := min(len(b), len(magic)); !s.newest || string(b[:n]) != magic[:n] { // else it is being written
			s.report(0, "shorter than a tape's header", "remove it: no entry is in it")
		}
		return -1, nil
	}
	h, err := parseFileHeader(b)
	switch {
	case errors.Is(err, errVersion):
		s.report(0, "a tape of a version that is not known here", "read it with a newer release")
		return -1, nil
	case err != nil: // each chunk has what is needed to read it
		off := s.search(0)
		if off == s.size {
			s.report(0, err.Error()+", and no chunk is found", "not a tape of this program, or all of it is damaged, or sealed with another secret: move it out of the folder")
			return -1, nil
		}
		s.report(0, "the file's header is damaged", "check the disk, or who may write to the folder; what is sound after it is read")
		if off > fileHead {
			s.damaged(fileHead, off)
			s.resume(off)
		}
		return off, nil
	}
	s.sealed = h.sealed
	switch {
	case s.access.blind:
	case h.sealed && len(s.access.secret) == 0:
		s.report(0, "the file is sealed, and there is no secret to read it with", "give the secret with which it was written")
		return -1, nil
	case h.sealed:
		if s.key, err = newKey(s.access.secret, h.salt); err != nil {
			return -1, err
		}
		if !s.key.marked(h.tag, roleFile, 0, 0, signedPart(b)) {
			s.report(0, "the file is sealed with another secret", "give the secret with which it was written")
			return -1, nil
		}
	case len(s.access.secret) > 0 && !s.access.unsealed:
		s.report(0, "the file is not sealed, though there is a secret", "anybody could have written it; if it is from before the tape had a secret, ask for files that are not sealed too")
		return -1, nil
	}
	s.known, s.salt = true, h.salt
	if !s.born.IsZero() && h.created != s.born.UnixMicro() {
		s.report(0, "the file's name should be "+nameOf(time.UnixMicro(h.created)), "somebody has renamed or copied it; its entries may be out of order or come twice")
	}
	return fileHead, nil
}

// header reads the chunk's header at off. It is one only if it belongs to the
// file, and is authentic in a sealed one.
func (s *scanner) header(off int64) (h header, ok bool) {
	if off+chunkHead > s.size || !s.read(s.head[:], off) {
		return h, false
	}
	h, ok = parseHeader(s.head[:])
	if !ok || s.known && (h.salt != s.salt || h.sealed != s.sealed) {
		return h, false
	}
	k := s.key
	if !s.known && !s.access.blind {
		// The file's own header is damaged: the first chunk that is sound speaks
		// for it. What a sender of mail may have put into an entry comes later.
		switch secret := len(s.access.secret) > 0; {
		case h.sealed && secret:
			var err error
			if k, err = newKey(s.access.secret, h.salt); err != nil {
				return h, false
			}
		case h.sealed, secret && !s.access.unsealed:
			return h, false
		}
	}
	if !s.access.blind && !k.marked(h.tag, roleHeader, h.try, h.number, s.head[:headTag]) {
		return h, false
	}
	s.known, s.salt, s.sealed, s.key = true, h.salt, h.sealed, k
	return h, true
}

// chunk hands on the chunk of h, which head has, or reports false if it is
// damaged.
func (s *scanner) chunk(h *header, off int64) (sound bool, err error) {
	if !s.out.wants(h) {
		s.missing(h, off)
		s.out.skip(h, chunkHead+int64(h.stored))
		return true, nil
	}
	f, err := s.out.buffer()
	if err != nil {
		return false, err
	}
	copy(f.body[:], s.head[:])
	f.name, f.off, f.header, f.key = s.name, off, *h, s.key
	if cap(f.stored) < int(h.stored) {
		f.stored = make([]byte, h.stored)
	}
	f.stored = f.stored[:h.stored]
	if !s.read(f.stored, off+chunkHead) || castagnoli(f.stored) != h.sum {
		s.effort -= int64(h.stored)
		return false, nil
	}
	s.missing(h, off)
	s.out.take(f)
	return true, nil
}

// missing reports chunks that are not there before h.
func (s *scanner) missing(h *header, off int64) {
	if h.number > s.next {
		s.report(off, fmt.Sprintf("chunks %d to %d are missing before this place", s.next, h.number-1), "somebody has taken out parts of the file; do not trust it")
	}
}

// ending reports what is wrong with the end mark at off.
func (s *scanner) ending(h *header, off int64) {
	s.missing(h, off)
	if off += chunkHead; off < s.size {
		s.report(off, fmt.Sprintf("%d octets follow the end mark", s.size-off), "something other than the tape has added them; they are not read")
	}
}

// pass finds the next header after off, where there is none or none to follow,
// and reports what is between. With tail a chunk has begun at off.
func (s *scanner) pass(off int64, tail bool) int64 {
	at := s.search(off + 1)
	if at == s.size && tail {
		s.cut = true
		s.report(off, "the file is cut off within a chunk", "the server was killed or its disk was full, or the end was cut off: what came last is missing")
		return at
	}
	s.damaged(off, at)
	s.resume(at)
	return at
}

// resume goes on at off after damage: that chunks are missing has been said.
func (s *scanner) resume(off int64) {
	if h, ok := s.header(off); ok && h.number > s.next {
		s.next = h.number
	}
}

// damaged reports that what is from off to end cannot be read.
func (s *scanner) damaged(off, end int64) {
	what := fmt.Sprintf("%d octets are damaged or are not this file's", end-off)
	if s.effort <= 0 {
		what += "; there is too much damage, the rest is not searched"
	}
	s.report(off, what, "their entries are missing; check the disk, or who may write to the folder")
}

// search finds the next header at off or after it, or the end of the file.
func (s *scanner) search(off int64) int64 {
	const step = 64 << 10
	if s.window == nil {
		s.window = make([]byte, step+marks)
	}
	for ; off < s.size && s.effort > 0; off += step {
		b := s.window[:min(int64(len(s.window)), s.size-off)]
		if !s.read(b, off) {
			break
		}
		for at := 0; ; at++ {
			n := bytes.Index(b[at:], []byte(chunkMark[:marks-1])) // of both marks
			if n < 0 {
				break
			}
			at += n
			if _, ok := s.header(off + int64(at)); ok {
				return off + int64(at)
			}
			if s.effort -= 4 * chunkHead; s.effort <= 0 {
				return s.size
			}
		}
	}
	return s.size
}

// begins reports whether the n octets at off may be the beginning of a header.
func (s *scanner) begins(off, n int64) bool {
	b := make([]byte, min(n, marks))
	return s.read(b, off) && (bytes.HasPrefix([]byte(chunkMark), b) || bytes.HasPrefix([]byte(endMark), b))
}

// read fills b. What cannot be read is no different from what is damaged, but
// for the disk's complaint.
func (s *scanner) read(b []byte, off int64) bool {
	n, err := s.in.ReadAt(b, off)
	if n == len(b) {
		return true
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.report(off, "the disk cannot read it: "+err.Error(), "check the disk")
	}
	return false
}

func (s *scanner) report(off int64, what, advice string) {
	s.out.problem(Problem{File: s.name, Offset: off, What: what, Advice: advice})
}
