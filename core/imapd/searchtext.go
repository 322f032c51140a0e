package imapd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/unicode/norm"

	"github.com/wafermail/wafer/core/mail"
)

// foldByte is c as ASCII texts are compared.
func foldByte(c byte) byte {
	if c >= 'a' && c <= 'z' {
		c -= 'a' - 'A'
	}
	return c
}

// foldText is s with every letter folded and runs of blanks made one space, so
// that a header's folding does not matter.
func foldText(s string) string {
	var f folder
	f.fold([]byte(s), true)
	return string(f.out)
}

// folder folds a stream of UTF-8. A rune that is cut between two pieces is kept.
type folder struct {
	out   []byte
	cut   []byte
	blank bool
}

// fold appends the folded p to out. last says that nothing follows.
func (f *folder) fold(p []byte, last bool) {
	if len(f.cut) > 0 {
		p = append(f.cut, p...)
		f.cut = nil
	}
	for len(p) > 0 {
		c := p[0]
		if c < utf8.RuneSelf {
			p = p[1:]
			if isBlank(c) {
				if !f.blank {
					f.out = append(f.out, ' ')
				}
				f.blank = true
				continue
			}
			f.blank = false
			f.out = append(f.out, foldByte(c))
			continue
		}
		f.blank = false
		if !last && !utf8.FullRune(p) {
			f.cut = append([]byte(nil), p...)
			return
		}
		r, n := utf8.DecodeRune(p)
		if r == utf8.RuneError && n == 1 { // raw octets stay comparable
			f.out = append(f.out, c)
		} else {
			f.out = appendFolded(f.out, r)
		}
		p = p[n:]
	}
}

// appendFolded appends a rune as i;unicode-casemap compares it (RFC 5051 §2): in title
// case and taken apart, so that a letter with an accent is the same whether it came
// as one character or as two.
func appendFolded(out []byte, r rune) []byte {
	var whole [utf8.UTFMax]byte
	return append(out, norm.NFKD.Bytes(utf8.AppendRune(whole[:0], unicode.ToTitle(r)))...)
}

// finder looks for a text in a stream of octets (Knuth, Morris, Pratt): each
// octet is looked at once and nothing is kept.
type finder struct {
	text  string
	back  []int
	at    int
	found bool
}

func newFinder(text string) *finder {
	back := make([]int, len(text)+1)
	back[0] = -1
	for i, k := 0, -1; i < len(text); {
		for k >= 0 && text[i] != text[k] {
			k = back[k]
		}
		i++
		k++
		back[i] = k
	}
	return &finder{text: text, back: back, found: text == ""}
}

func (f *finder) feed(p []byte) {
	if f.found {
		return
	}
	if len(f.text) == 0 {
		f.found = true
		return
	}
	for len(p) > 0 {
		if f.at == 0 { // most octets are not the first one
			i := bytes.IndexByte(p, f.text[0])
			if i < 0 {
				return
			}
			p = p[i:]
		}
		c := p[0]
		p = p[1:]
		for f.at >= 0 && f.text[f.at] != c {
			f.at = f.back[f.at]
		}
		if f.at++; f.at == len(f.text) {
			f.found = true
			return
		}
	}
}

// end says that what follows is not connected to what was fed.
func (f *finder) end() { f.at = 0 }

const searchChunk = 16 << 10

// feedText folds all of r into f.
func (f *finder) feedText(r io.Reader, buf []byte) error {
	var fold folder
	for !f.found {
		n, err := r.Read(buf)
		fold.out = fold.out[:0]
		fold.fold(buf[:n], err != nil)
		f.feed(fold.out)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	f.end()
	return nil
}

// contains looks for a folded text in the parts of the message that are text,
// decoded, and if headers is true in the headers too.
func (m *message) contains(text string, headers bool) (bool, error) {
	if text == "" {
		return true, nil
	}
	f := newFinder(text)
	if headers {
		f.feedHeader(m.header)
		if f.found {
			return true, nil
		}
	}
	if err := m.parse(); err != nil {
		return false, err
	}
	err := m.searchPart(m.tree, f, headers, make([]byte, searchChunk))
	return f.found, err
}

// searchPart feeds a part, and the parts in it, to f.
func (m *message) searchPart(p *mail.Part, f *finder, headers bool, buf []byte) error {
	if f.found {
		return nil
	}
	for _, child := range p.Parts {
		if headers {
			if err := m.searchHeader(child, f); err != nil {
				return err
			}
		}
		if err := m.searchPart(child, f, headers, buf); err != nil {
			return err
		}
	}
	switch {
	case p.Parts != nil:
		return nil
	case p.Message != nil: // its header is part of the text that people read
		if err := m.searchHeader(p.Message, f); err != nil {
			return err
		}
		return m.searchPart(p.Message, f, headers, buf)
	case !p.Is("text", "") && !p.Is("message", ""):
		return nil
	}
	src, known := decodeTransfer(p.Encoding, io.NewSectionReader(m.content, p.Body.Start, p.Body.Size()))
	if !known {
		src = io.NewSectionReader(m.content, p.Body.Start, p.Body.Size())
	}
	return f.feedText(charsetReader(p.Param("charset"), src), buf)
}

func (m *message) searchHeader(p *mail.Part, f *finder) error {
	h, err := mail.ReadHeader(m.content, p.Header.Start, p.Header.End, maxNestedHeader)
	if err == nil {
		f.feedHeader(h)
	}
	return err
}

func (f *finder) feedHeader(header []byte) {
	for field := range mail.HeaderFields(header) {
		f.feed([]byte(foldText(field.Name() + ": " + decodeWords(field.Value()))))
		f.end()
		if f.found {
			return
		}
	}
}

// charsetReader decodes text to UTF-8. US-ASCII, UTF-8 and what is unknown pass.
func charsetReader(charset string, r io.Reader) io.Reader {
	if isUTF8(charset) || len(charset) > 40 {
		return r
	}
	enc, err := htmlindex.Get(charset)
	if err != nil {
		return r
	}
	return enc.NewDecoder().Reader(r)
}

var errCharset = errors.New("unknown character set")

// maxWords is the longest field body in which encoded words are looked for.
const maxWords = 64 << 10

// decodeWords decodes the encoded words of a field's body (RFC 2047). A body
// with a word that cannot be decoded stays as it is.
func decodeWords(s string) string {
	if len(s) > maxWords || !strings.Contains(s, "=?") {
		return s
	}
	dec := mime.WordDecoder{CharsetReader: func(charset string, r io.Reader) (io.Reader, error) {
		enc, err := htmlindex.Get(charset)
		if err != nil {
			return nil, fmt.Errorf("%w %q", errCharset, clip(charset, 40))
		}
		return enc.NewDecoder().Reader(r), nil
	}}
	decoded, err := dec.DecodeHeader(s)
	if err != nil {
		return s
	}
	return decoded
}
