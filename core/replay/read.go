package replay

import (
	"bufio"
	"context"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/wafermail/wafer/core/policy"
)

// ReadOptions say what of a tape is read.
type ReadOptions struct {
	Since, Until time.Time // of moments; zero: no bound
	Secret       []byte    // nil: the files are plain
	Progress     func(done, total int64)
}

// Problem is a place of a tape that cannot be read. What is sound around it is.
type Problem struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	What   string `json:"what"`
}

// ErrNoTape means that there is nothing to be read.
var ErrNoTape = errors.New("there is no tape")

// ErrSecret means that a tape is sealed, and with another secret or none was asked.
var ErrSecret = errors.New("the tape is sealed with another secret")

// Read reads a tape in the order in which it was written, also while it is written, and
// calls each for every moment. Damage never ends it: what cannot be read is in problems.
// It ends with an error of each's.
func Read(ctx context.Context, dir string, o ReadOptions, each func(*policy.Asked) error) (problems []Problem, err error) {
	names, err := tapeFiles(dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(names) == 0 {
		return nil, fmt.Errorf("%w in %s: write tape { } in the configuration to record", ErrNoTape, dir)
	}
	if err != nil {
		return nil, err
	}
	r := &tapeReader{o: o, each: each}
	for _, name := range names {
		if fi, err := os.Stat(name); err == nil {
			r.total += fi.Size()
		}
	}
	for i, name := range names {
		if err := r.file(ctx, name, i == len(names)-1); err != nil {
			return r.problems, err
		}
	}
	if r.sealed && !r.opened {
		return r.problems, fmt.Errorf("%w: %s", ErrSecret, dir)
	}
	return r.problems, nil
}

// tapeReader is one Read.
type tapeReader struct {
	o              ReadOptions
	each           func(*policy.Asked) error
	problems       []Problem
	done, total    int64
	sealed, opened bool // some chunk was sealed; one could be opened
	raw            []byte
}

const maxProblems = 1000

func (r *tapeReader) problem(file string, off int64, format string, args ...any) {
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, Problem{file, off, fmt.Sprintf(format, args...)})
	}
}

func (r *tapeReader) file(ctx context.Context, name string, newest bool) error {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) { // too old meanwhile
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() // only read
	in := bufio.NewReaderSize(f, 256<<10)
	head := make([]byte, fileHead)
	if _, err := io.ReadFull(in, head); err != nil || string(head[:len(fileMagic)]) != fileMagic {
		if !newest {
			r.problem(name, 0, "it is no tape of this version")
		}
		return nil
	}
	var seal cipher.AEAD
	if head[len(fileMagic)] == 1 {
		r.sealed = true
		if r.o.Secret == nil {
			r.problem(name, 0, "it is sealed, and there is no secret: write key in the tape block")
			return nil
		}
		if seal, err = sealer(r.o.Secret, head[len(fileMagic)+1:]); err != nil {
			return err
		}
	}
	r.done += int64(fileHead)
	off := int64(fileHead)
	chunk := make([]byte, headSize)
	for n := uint64(0); ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := io.ReadFull(in, chunk); err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) && !newest {
				r.problem(name, off, "the file ends within a chunk")
			}
			return nil
		}
		size, raw := binary.LittleEndian.Uint32(chunk[4:]), binary.LittleEndian.Uint32(chunk[8:])
		if binary.LittleEndian.Uint32(chunk) != chunkMagic || size > maxChunk || raw > maxChunk {
			r.problem(name, off, "this is no chunk; the rest of the file is not read")
			return nil
		}
		stored := make([]byte, size)
		if _, err := io.ReadFull(in, stored); err != nil {
			if !newest {
				r.problem(name, off, "the file ends within a chunk")
			}
			return nil
		}
		if err := r.chunk(name, off, n, chunk, stored, seal); err != nil {
			return err
		}
		off += headSize + int64(size)
		r.done += headSize + int64(size)
		if r.o.Progress != nil {
			r.o.Progress(r.done, r.total)
		}
	}
}

// chunk reads one chunk. Only an error of each's is returned.
func (r *tapeReader) chunk(name string, off int64, n uint64, head, stored []byte, seal cipher.AEAD) error {
	le := binary.LittleEndian
	if crc32.Update(crc32.Checksum(head[:32], castagnoli()), castagnoli(), stored) != le.Uint32(head[36:]) {
		r.problem(name, off, "the chunk is damaged")
		return nil
	}
	first, last := time.Unix(0, int64(le.Uint64(head[16:]))), time.Unix(0, int64(le.Uint64(head[24:])))
	if !r.o.Since.IsZero() && last.Before(r.o.Since) || !r.o.Until.IsZero() && first.After(r.o.Until) {
		r.opened = true // nobody needs it
		return nil
	}
	if seal != nil {
		var err error
		if stored, err = seal.Open(stored[:0], nonce(n), stored, head[:32]); err != nil {
			r.problem(name, off, "the chunk cannot be opened: another secret, or it was changed")
			return nil
		}
		r.opened = true
	}
	var raw []byte
	size, err := s2.DecodedLen(stored)
	if err == nil && size == int(le.Uint32(head[8:])) {
		raw, err = s2.Decode(r.raw[:cap(r.raw)], stored)
	}
	if err != nil || len(raw) != int(le.Uint32(head[8:])) {
		r.problem(name, off, "the chunk cannot be unpacked")
		return nil
	}
	r.raw = raw
	for len(raw) > 0 {
		size, k := binary.Uvarint(raw)
		if k <= 0 || size > uint64(len(raw)-k) {
			r.problem(name, off, "the entries make no sense")
			return nil
		}
		a, err := Decode(raw[k : k+int(size)])
		raw = raw[k+int(size):]
		if err != nil {
			r.problem(name, off, "%v", err)
			continue
		}
		if t := a.Event.Time; !r.o.Since.IsZero() && t.Before(r.o.Since) || !r.o.Until.IsZero() && t.After(r.o.Until) {
			continue
		}
		if err := r.each(a); err != nil {
			return err
		}
	}
	return nil
}
