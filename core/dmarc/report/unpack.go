package report

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxFiles is how many files a zip archive may have.
const maxFiles = 64

// unpack returns what is in a file: it knows gzip and zip by their first octets.
func unpack(r io.Reader, l Limits) (io.Reader, error) {
	head := make([]byte, 4)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	head = head[:n]
	all := io.MultiReader(bytes.NewReader(head), r)
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(&capped{r: all, left: l.Packed, what: "packed octets", most: l.Packed})
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		return &capped{r: z, left: l.Octets, what: "octets", most: l.Octets}, nil
	case bytes.Equal(head, []byte("PK\x03\x04")):
		return unzip(all, l)
	}
	return &capped{r: all, left: l.Octets, what: "octets", most: l.Octets}, nil
}

// capped fails once it has read more than it may.
type capped struct {
	r    io.Reader
	left int64
	most int64
	what string
}

func (c *capped) Read(p []byte) (int, error) {
	if int64(len(p)) > c.left+1 {
		p = p[:c.left+1]
	}
	n, err := c.r.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return 0, beyond("more than %d %s", c.most, c.what)
	}
	return n, err
}

// unzip returns the first file of an archive that may be a report.
func unzip(r io.Reader, l Limits) (io.Reader, error) {
	b, err := io.ReadAll(&capped{r: r, left: l.Packed, what: "packed octets", most: l.Packed})
	if err != nil {
		return nil, err
	}
	// Each entry of the directory costs memory before it can be refused.
	end := bytes.LastIndex(b, []byte("PK\x05\x06"))
	if end < 0 || len(b) < end+12 {
		return nil, errors.New("zip: it has no directory")
	}
	if n := binary.LittleEndian.Uint16(b[end+10:]); n > maxFiles {
		return nil, beyond("zip with %d files", n)
	}
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, fmt.Errorf("zip: %w", err)
	}
	if len(z.File) > maxFiles {
		return nil, beyond("zip with %d files", len(z.File))
	}
	var best *zip.File
	for _, f := range z.File {
		name := strings.ToLower(f.Name)
		if strings.HasSuffix(name, "/") {
			continue
		}
		if strings.HasSuffix(name, ".xml") || strings.HasSuffix(name, ".json") {
			best = f
			break
		}
		if best == nil {
			best = f
		}
	}
	if best == nil {
		return nil, errors.New("zip: it has no file")
	}
	f, err := best.Open()
	if err != nil {
		return nil, fmt.Errorf("zip: %w", err)
	}
	return &capped{r: f, left: l.Octets, what: "octets", most: l.Octets}, nil
}
