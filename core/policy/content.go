package policy

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
)

// maxHeader is how much of a header section checks are shown, in octets.
const maxHeader = 256 << 10

// content reads a message in ranges.
type content struct {
	r      io.ReaderAt
	size   int64
	header []byte // read at first use, up to and with the empty line
}

// NewContent is the message of size octets in r, with CRLF as line ends. One
// goroutine uses it.
func NewContent(r io.ReaderAt, size int64) Content { return &content{r: r, size: size} }

func (c *content) load() {
	if c.header != nil {
		return
	}
	b := make([]byte, min(c.size, maxHeader))
	n, err := c.r.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		n = 0
	}
	b = b[:n]
	if bytes.HasPrefix(b, []byte("\r\n")) {
		c.header = b[:2]
	} else if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
		c.header = b[:i+4]
	} else {
		c.header = b
	}
}

// Header returns the index-th field called name, unfolded; with name "" any field,
// as "Name: body".
func (c *content) Header(name string, index int) (string, bool) {
	c.load()
	rest := c.header
	for len(rest) > 2 {
		end := 0
		for { // a field ends before a line that does not begin with white space
			i := bytes.Index(rest[end:], []byte("\r\n"))
			if i < 0 {
				end = len(rest)
				break
			}
			if end += i + 2; end >= len(rest) || rest[end] != ' ' && rest[end] != '\t' {
				break
			}
		}
		field := rest[:end]
		rest = rest[end:]
		colon := bytes.IndexByte(field, ':')
		if colon < 0 || name != "" && !strings.EqualFold(strings.TrimRight(string(field[:colon]), " \t"), name) {
			continue
		}
		if index--; index < 0 {
			if name == "" {
				return strings.TrimSpace(strings.ReplaceAll(string(field), "\r\n", "")), true
			}
			value := strings.ReplaceAll(string(field[colon+1:]), "\r\n", "")
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}

// Body reads octets after the header section.
func (c *content) Body(p []byte, off int64) (int, error) {
	c.load()
	if off < 0 {
		return 0, errors.New("negative offset " + strconv.FormatInt(off, 10))
	}
	return c.r.ReadAt(p, int64(len(c.header))+off)
}

// RawHeader is the header section as it stands, with the empty line that ends it, as far
// as checks are shown it.
func (c *content) RawHeader() []byte {
	c.load()
	return c.header
}
