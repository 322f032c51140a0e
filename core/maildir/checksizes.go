package maildir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// sizes reads each message whose name tells sizes, and compares.
func (c *checked) sizes() error {
	files, err := c.listing()
	if err != nil {
		return err
	}
	for i, path := range files {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if c.o.Progress != nil {
			c.o.Progress(c.name, i+1, len(files))
		}
		base := baseOf(path)
		s, w := sizesOf(base)
		says := s >= 0 || w >= 0
		size, crlf, err := octets(c.file(path))
		switch {
		case errors.Is(err, os.ErrNotExist):
			continue // renamed or expunged meanwhile
		case errors.Is(err, ErrUnreadable):
			c.fault(Finding{File: path, Fault: err.Error()}, nil)
			continue
		case err != nil:
			c.fault(Finding{File: path, Fault: "it cannot be read: " + err.Error()}, nil)
			continue
		case !says:
			continue
		}
		if strings.Contains(base, binaryMark) {
			crlf = size
		}
		if (s < 0 || s == size) && (w < 0 || w == crlf) {
			continue
		}
		right := withSizes(base, size, crlf)
		c.fault(Finding{
			File: path, Fault: fmt.Sprintf("the name tells %s, and the message has %d octets, with CRLF line ends %d", told(s, w), size, crlf),
			Mend: "renames it, and keeps the UID",
		}, func() error { return c.rebase(path, right) })
	}
	return nil
}

// told is what a name says.
func told(s, w int64) string {
	var parts []string
	if s >= 0 {
		parts = append(parts, "S="+strconv.FormatInt(s, 10))
	}
	if w >= 0 {
		parts = append(parts, "W="+strconv.FormatInt(w, 10))
	}
	return strings.Join(parts, " and ")
}

// octets reads a message, and returns its octets as they are and with CRLF line ends.
func octets(name string) (size, crlf int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close() // only read
	fi, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	var magic [magicBytes]byte
	n, err := f.ReadAt(magic[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, 0, err
	}
	kind := compressionOf(magic[:n])
	if kind == plain {
		_, crlf, err := survey(f)
		return fi.Size(), crlf, err
	}
	var at mark
	n64, err := kind.unpack(counter{&at}, f, fi.Size(), maxUnpacked)
	return n64, at.crlf, err
}

// withSizes is a base name with the right sizes where it has wrong ones.
func withSizes(base string, size, crlf int64) string {
	fields := strings.Split(base, ",")
	for i, f := range fields[1:] {
		switch {
		case strings.HasPrefix(f, "S=") && number(f[2:]) >= 0:
			fields[i+1] = "S=" + strconv.FormatInt(size, 10)
		case strings.HasPrefix(f, "W=") && number(f[2:]) >= 0:
			fields[i+1] = "W=" + strconv.FormatInt(crlf, 10)
		}
	}
	return strings.Join(fields, ",")
}

// rebase gives the message in the file path another base name, in dovecot-uidlist too.
func (c *checked) rebase(path, base string) error {
	unlock, err := c.p.lock(c.ctx, c.file(uidlistName))
	if err != nil {
		return err
	}
	defer unlock()
	old := baseOf(path)
	sub, name, _ := strings.Cut(path, "/")
	to := sub + "/" + base + strings.TrimPrefix(name, old)
	if err := c.p.ops.renameNew(c.file(path), c.file(to)); err != nil {
		return absent(err)
	}
	// The index has the old name, and would have the message expunged.
	if err := errors.Join(absent(c.p.ops.remove(c.file(indexName))), c.p.ops.sync(c.file(sub))); err != nil {
		return err
	}
	l, _, err := c.lines()
	if err != nil {
		return absent(err)
	}
	for i := range l.recs {
		if l.recs[i].name == old {
			l.recs[i].name = base
			return c.p.replace(c.file(uidlistName), c.file(uidlistName)+".tmp", l.bytes())
		}
	}
	return nil
}
