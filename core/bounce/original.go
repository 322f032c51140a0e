package bounce

import (
	"bytes"
	"errors"
	"io"

	"github.com/wafermail/wafer/core/mail"
)

// maxSection bounds the header section that is returned, in octets; what is
// beyond is left out.
const maxSection = 256 << 10

// header reads the original's header section, with the fields above it and
// without its blank line. whole is false if there is more than maxSection of it.
func (c *composer) header() (section []byte, whole bool, err error) {
	b := make([]byte, min(c.n.Size, maxSection))
	k, err := io.ReadFull(c.n.Original, b)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, false, err
	}
	b = b[:k]
	section = append(c.n.Head[:len(c.n.Head):len(c.n.Head)], b...)
	end := bytes.Index(b, []byte("\r\n\r\n"))
	switch {
	case bytes.HasPrefix(b, []byte("\r\n")):
		end = 0
	case end >= 0:
		end += 2
	case int64(k) < c.n.Size: // cut at a whole line
		c.n.Original = bytes.NewReader(nil)
		return section[:len(c.n.Head)+bytes.LastIndexByte(b, '\n')+1], false, nil
	default:
		end = k
	}
	c.n.Original = io.MultiReader(bytes.NewReader(b[end:]), c.n.Original)
	return section[:len(c.n.Head)+end], true, nil
}

// original returns the message, or its header section where that was asked for
// (RFC 3461 §4.3), where the message is too long, and where nothing failed.
func (c *composer) original(section []byte, whole bool) error {
	n := c.n
	full := whole && (n.Kind == Failed || n.Kind == Double) && n.Envelope.Return != "HDRS" &&
		n.Size <= n.Excerpt && n.Envelope.Body != mail.BodyBinary
	if !full {
		c.part("Header of the message", c.typ("text/rfc822-headers", "message/global-headers"), "8bit")
		_, _ = c.w.Write(section) // Flush has the error
		return nil
	}
	c.part("Message", c.typ("message/rfc822", "message/global"), "8bit")
	_, _ = c.w.Write(section) // Flush has the error
	_, err := io.Copy(c.w, n.Original)
	return err
}

// messageID is the original's Message-ID, "" if it is not one that can be written
// into a field.
func messageID(section []byte) string {
	const name = "message-id:"
	for _, line := range bytes.SplitAfter(section, []byte("\n")) {
		if len(line) < len(name) || !bytes.EqualFold(line[:len(name)], []byte(name)) {
			continue
		}
		id := bytes.TrimSpace(line[len(name):])
		if len(id) < 3 || len(id) > 500 || id[0] != '<' || id[len(id)-1] != '>' {
			return ""
		}
		for _, b := range id[1 : len(id)-1] {
			if b <= ' ' || b >= 0x7f || b == '<' || b == '>' {
				return ""
			}
		}
		return string(id)
	}
	return ""
}
