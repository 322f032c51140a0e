// Package downgrade turns messages with octets above 127 into 7-bit ones, for
// hosts that offer no 8BITMIME (RFC 6152 §3).
//
//	head, err := downgrade.Header(added)
//	err = downgrade.Message(w, file, size)
//
// Parts keep their place and their boundaries. A text becomes quoted-printable,
// anything else base64; parts that are 7-bit already stay as they are, octet for
// octet, so that a signed part survives beside one that is not. Octets above 127
// in header fields become encoded words (RFC 2047) or extended parameters (RFC
// 2231).
//
// # BUGS
//
// A signature over a part that is converted breaks, DKIM's too. Octets above 127
// before the first and after the last part of a multipart, which nobody sees, in
// a media type that does not follow its grammar, and in lines of a header that are
// no fields become question marks. Headers beyond 2 MiB are refused.
package downgrade

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"
	"strings"
	"unicode/utf8"

	"github.com/wafermail/wafer/core/mail"
)

const (
	maxHeader = 2 << 20
	block     = 32 << 10
	lineWidth = 76 // octets of a base64 line (RFC 2045 §6.8)
)

// Message writes the message of size octets in r to w in 7-bit form. Errors are
// those of r and w, and of messages that have no 7-bit form.
func Message(w io.Writer, r io.ReaderAt, size int64) error {
	root, err := mail.ParseStructure(r, size)
	if err != nil {
		return err
	}
	c := &converter{w: bufio.NewWriterSize(w, block), r: r}
	if err := c.part(root, true); err != nil {
		return err
	}
	if err := c.filler(mail.Range{Start: root.Body.End, End: size}); err != nil {
		return err
	}
	return c.w.Flush()
}

type converter struct {
	w *bufio.Writer
	r io.ReaderAt
}

// section reads octets of the message.
func (c *converter) section(r mail.Range) *io.SectionReader {
	return io.NewSectionReader(c.r, r.Start, r.Size())
}

// part writes a part and all that is in it.
func (c *converter) part(p *mail.Part, top bool) error {
	if p.Header.Size() == 0 && p.Body.Size() == 0 {
		return nil // one that the parser made up for an empty multipart
	}
	if p.Header.Size() > maxHeader {
		return fmt.Errorf("a header of %d octets is too large to be converted", p.Header.Size())
	}
	raw := make([]byte, p.Header.Size())
	if _, err := io.ReadFull(c.section(p.Header), raw); err != nil {
		return err
	}
	switch {
	case p.Is("multipart", "") && p.Parts != nil:
		if !ascii(p.Param("boundary")) {
			return errors.New("a boundary of parts has octets above 127")
		}
		return c.multipart(p, raw)
	case p.Is("message", "rfc822") && p.Message != nil:
		if err := c.header(raw, change{encoding: identity(p)}); err != nil {
			return err
		}
		return c.part(p.Message, true)
	}
	return c.leaf(p, raw, top)
}

// identity is the encoding that a part of parts is to name: RFC 2045 §6.4 allows
// none but 7bit once nothing in it is more. "" keeps what is there.
func identity(p *mail.Part) string {
	if p.Encoding == "" {
		return ""
	}
	return "7bit"
}

func (c *converter) multipart(p *mail.Part, raw []byte) error {
	if err := c.header(raw, change{encoding: identity(p)}); err != nil {
		return err
	}
	at := p.Body.Start
	for _, child := range p.Parts {
		if err := c.filler(mail.Range{Start: at, End: child.Header.Start}); err != nil {
			return err
		}
		if err := c.part(child, false); err != nil {
			return err
		}
		at = child.Body.End
	}
	return c.filler(mail.Range{Start: at, End: p.Body.End})
}

// filler writes what stands between parts: delimiters, and text for nobody.
func (c *converter) filler(r mail.Range) error {
	return c.each(r, func(b []byte) error {
		_, err := c.w.WriteString(masked(string(b)))
		return err
	})
}

// each hands over the octets of r in blocks.
func (c *converter) each(r mail.Range, take func([]byte) error) error {
	buf := make([]byte, min(block, max(r.Size(), 0)))
	for in := c.section(r); ; {
		n, err := in.Read(buf)
		if n > 0 {
			if err := take(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF || n == 0 && err == nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// content is what a look through a leaf's body finds.
type content struct {
	eight, binary bool // octets above 127; NUL
	utf8          bool // well-formed
}

func (c *converter) look(r mail.Range) (content, error) {
	found := content{utf8: true}
	var rest []byte // the beginning of a character that a block has cut
	err := c.each(r, func(b []byte) error {
		for _, x := range b {
			found.eight = found.eight || x > 127
			found.binary = found.binary || x == 0
		}
		if found.utf8 && found.eight {
			b = append(rest, b...)
			for len(b) > 0 {
				ch, n := utf8.DecodeRune(b)
				if ch == utf8.RuneError && n <= 1 {
					if utf8.FullRune(b) {
						found.utf8 = false
					}
					break
				}
				b = b[n:]
			}
			rest = append(rest[:0:0], b...)
			if !found.utf8 {
				rest = nil
			}
		}
		return nil
	})
	found.utf8 = found.utf8 && len(rest) == 0
	return found, err
}

// leaf writes a part that has no parts.
func (c *converter) leaf(p *mail.Part, raw []byte, top bool) error {
	found, err := c.look(p.Body)
	if err != nil {
		return err
	}
	encoding := strings.ToLower(p.Encoding)
	switch encoding {
	case "base64", "quoted-printable":
		if err := c.header(raw, change{}); err != nil {
			return err
		}
		return c.mended(p.Body, encoding == "base64")
	}
	if !found.eight && !found.binary {
		ch := change{}
		if encoding == "8bit" || encoding == "binary" {
			ch.encoding = "7bit"
		}
		if err := c.header(raw, ch); err != nil {
			return err
		}
		return c.copy(p.Body)
	}
	if p.Is("message", "") && !p.Is("message", "global") {
		return fmt.Errorf("a part of type %s/%s may not be encoded", p.Type, p.Subtype)
	}
	ch := change{encoding: "base64", mime: top}
	if p.Is("text", "") && !found.binary {
		ch.encoding = "quoted-printable"
		ch.charset = "unknown-8bit" // RFC 1428 §3
		if found.utf8 {
			ch.charset = "utf-8"
		}
	}
	if err := c.header(raw, ch); err != nil {
		return err
	}
	if ch.encoding == "base64" {
		return c.base64(p.Body)
	}
	q := quotedprintable.NewWriter(c.w)
	if _, err := io.Copy(q, c.section(p.Body)); err != nil {
		return err
	}
	return q.Close()
}

func (c *converter) copy(r mail.Range) error {
	_, err := io.Copy(c.w, c.section(r))
	return err
}

// mended copies an encoded body. Octets above 127 have no business there: a
// decoder of base64 does not see them, in quoted-printable they stand for themselves.
func (c *converter) mended(r mail.Range, base64 bool) error {
	return c.each(r, func(b []byte) error {
		for len(b) > 0 {
			i := 0
			for i < len(b) && b[i] <= 127 {
				i++
			}
			if _, err := c.w.Write(b[:i]); err != nil {
				return err
			}
			if b = b[i:]; len(b) == 0 {
				return nil
			}
			if !base64 {
				if _, err := fmt.Fprintf(c.w, "=%02X", b[0]); err != nil {
					return err
				}
			}
			b = b[1:]
		}
		return nil
	})
}

func (c *converter) base64(r mail.Range) error {
	lines := &wrapper{w: c.w}
	e := base64.NewEncoder(base64.StdEncoding, lines)
	if _, err := io.Copy(e, c.section(r)); err != nil {
		return err
	}
	if err := e.Close(); err != nil {
		return err
	}
	if r.End == r.Start {
		return nil
	}
	_, err := c.w.WriteString("\r\n")
	return err
}

// wrapper breaks what is written into lines.
type wrapper struct {
	w   io.Writer
	len int
}

func (w *wrapper) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if w.len == lineWidth {
			if _, err := io.WriteString(w.w, "\r\n"); err != nil {
				return n, err
			}
			w.len = 0
		}
		k, err := w.w.Write(p[n:min(len(p), n+lineWidth-w.len)])
		n += k
		w.len += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] > 127 {
			return false
		}
	}
	return true
}
