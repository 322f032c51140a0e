// Package spill holds a message while it is being received: a small one in
// memory, a larger one in a file that is begun when memory would be too much.
//
//	b := spill.Buffer{Open: func() (spill.File, error) { return os.Create(name) }}
//	io.Copy(&b, connection)
//	b.WriteTo(file)
//	b.Close() // and remove the file, if b.File() is there
//
// # BUGS
//
// What is in memory is moved to the file in one go, which is one long Write.
package spill

import (
	"io"
	"sync"
)

const (
	chunk  = 32 << 10
	memory = 128 << 10 // octets that are held before a file is begun
)

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// File is an *os.File, as far as a Buffer needs it.
type File interface {
	io.Writer
	io.ReaderAt
	io.Closer
}

// Buffer is an io.Writer and an io.ReaderAt over what was written. It is for one
// goroutine.
type Buffer struct {
	Open func() (File, error) // begins the file

	chunks []*[chunk]byte
	size   int64
	file   File
	err    error // first write error: the message is lost
}

// Size is the number of octets written.
func (b *Buffer) Size() int64 { return b.size }

// Err is the first error of a Write: what was written is not whole.
func (b *Buffer) Err() error { return b.err }

// File is where the octets are, nil while they are in memory.
func (b *Buffer) File() File { return b.file }

// Write adds p. After an error every Write fails.
func (b *Buffer) Write(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.file == nil && b.size+int64(len(p)) > memory {
		if b.err = b.toFile(); b.err != nil {
			return 0, b.err
		}
	}
	if b.file != nil {
		n, err := b.file.Write(p)
		b.size += int64(n)
		b.err = err
		return n, err
	}
	for done := 0; done < len(p); {
		off := int(b.size % chunk)
		if off == 0 {
			b.chunks = append(b.chunks, chunks.Get().(*[chunk]byte))
		}
		n := copy(b.chunks[len(b.chunks)-1][off:], p[done:])
		b.size += int64(n)
		done += n
	}
	return len(p), nil
}

func (b *Buffer) toFile() error {
	f, err := b.Open()
	if err != nil {
		return err
	}
	_, err = b.WriteTo(f)
	b.file = f
	b.free()
	return err
}

// WriteTo writes all octets to w.
func (b *Buffer) WriteTo(w io.Writer) (n int64, err error) {
	if b.file != nil {
		return io.Copy(w, io.NewSectionReader(b.file, 0, b.size))
	}
	for i := 0; n < b.size; i++ {
		k, err := w.Write(b.chunks[i][:min(b.size-n, chunk)])
		n += int64(k)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// ReadAt reads octets as written.
func (b *Buffer) ReadAt(p []byte, off int64) (n int, err error) {
	if b.file != nil {
		return b.file.ReadAt(p, off)
	}
	for n < len(p) && off < b.size {
		end := min(int64(chunk), b.size-off/chunk*chunk)
		k := copy(p[n:], b.chunks[off/chunk][off%chunk:end])
		n, off = n+k, off+int64(k)
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (b *Buffer) free() {
	for _, c := range b.chunks {
		chunks.Put(c)
	}
	b.chunks = nil
}

// Close gives the memory back and closes the file, which stays where it is. The
// Buffer is empty then. It may be called again.
func (b *Buffer) Close() error {
	b.free()
	b.size = 0
	f := b.file
	if b.file = nil; f == nil {
		return nil
	}
	return f.Close()
}

// Gather returns a Writer that joins small writes to w into large ones: header,
// trace and the first octets of a small message are one system call. Flush it.
func Gather(w io.Writer) *Gatherer {
	return &Gatherer{w: w, b: chunks.Get().(*[chunk]byte)}
}

// Gatherer is what Gather returns.
type Gatherer struct {
	w io.Writer
	b *[chunk]byte
	n int
}

// Write implements io.Writer.
func (g *Gatherer) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		k := copy(g.b[g.n:], p[done:])
		g.n += k
		done += k
		if g.n == len(g.b) {
			if err := g.write(); err != nil {
				return done, err
			}
		}
	}
	return len(p), nil
}

func (g *Gatherer) write() error {
	_, err := g.w.Write(g.b[:g.n])
	g.n = 0
	return err
}

// Flush writes what is left. The Gatherer must not be used afterwards.
func (g *Gatherer) Flush() error {
	var err error
	if g.n > 0 {
		err = g.write()
	}
	chunks.Put(g.b)
	g.b = nil
	return err
}
