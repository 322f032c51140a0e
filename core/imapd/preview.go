package imapd

import (
	"errors"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"

	"github.com/wafermail/wafer/core/mail"
)

// Bounds of PREVIEW (RFC 8970 §3): characters that are sent, octets of a text that
// are read for it, and octets of an HTML document.
const (
	maxPreview     = 200
	previewText    = 8 << 10
	previewHTML    = 128 << 10
	maxPreviewHops = 200 // parts that are looked at
)

// preview is the beginning of the text that a reader would see, in one line. It is
// empty for a message that has none.
func (m *message) preview() (string, error) {
	f := m.v.getFacts()
	if b, ok := f.Get(m.uid, previewFact); ok {
		return string(b), nil
	}
	if err := m.parse(); err != nil {
		return "", err
	}
	hops := 0
	plain, rich := textParts(m.tree, &hops)
	text := ""
	var err error
	switch {
	case plain != nil:
		text, err = m.beginning(plain, previewText)
		text = unquoted(text)
	case rich != nil:
		text, err = m.beginning(rich, previewHTML)
		text = textOfHTML(text)
	}
	if err != nil {
		return "", err
	}
	text = oneSpace(text)
	f.Note(m.uid, previewFact, []byte(text))
	return text, nil
}

// textParts finds the first text/plain and the first text/html that are no attachments.
func textParts(p *mail.Part, hops *int) (plain, rich *mail.Part) {
	if *hops++; *hops > maxPreviewHops || strings.EqualFold(p.Disposition, "attachment") {
		return nil, nil
	}
	if p.Parts == nil {
		switch {
		case p.Message != nil:
		case p.Is("text", "plain"):
			return p, nil
		case p.Is("text", "html"):
			return nil, p
		}
		return nil, nil
	}
	for _, child := range p.Parts {
		a, b := textParts(child, hops)
		if rich == nil {
			rich = b
		}
		if a != nil {
			return a, rich
		}
	}
	return nil, rich
}

// beginning is the first octets of a part, decoded, in UTF-8.
func (m *message) beginning(p *mail.Part, most int64) (string, error) {
	raw := io.NewSectionReader(m.content, p.Body.Start, min(p.Body.Size(), 2*most))
	src, known := decodeTransfer(p.Encoding, raw)
	if !known {
		return "", nil
	}
	b, err := io.ReadAll(io.LimitReader(charsetReader(p.Param("charset"), src), most))
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", err
	}
	return strings.ToValidUTF8(string(b), "\uFFFD"), nil
}

// unquoted leaves out the lines that quote another message.
func unquoted(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if !strings.HasPrefix(line, ">") {
			b.WriteString(line)
		}
	}
	if strings.TrimSpace(b.String()) == "" {
		return s
	}
	return b.String()
}

// textOfHTML is the text of a document that a browser would show.
func textOfHTML(s string) string {
	var b strings.Builder
	z := html.NewTokenizer(strings.NewReader(s))
	hidden := ""
	for b.Len() < 4*maxPreview*utf8.UTFMax {
		switch z.Next() {
		case html.ErrorToken:
			return b.String()
		case html.TextToken:
			if hidden == "" {
				b.Write(z.Text())
			}
		case html.StartTagToken:
			switch name, _ := z.TagName(); string(name) {
			case "style", "script", "title", "head":
				if hidden == "" {
					hidden = string(name)
				}
			}
			b.WriteByte(' ')
		case html.EndTagToken:
			if name, _ := z.TagName(); string(name) == hidden {
				hidden = ""
			}
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// oneSpace is at most maxPreview characters of s, with one space for any blanks and
// without control characters.
func oneSpace(s string) string {
	var b strings.Builder
	n, blank := 0, true
	for _, r := range s {
		if unicode.IsSpace(r) || unicode.IsControl(r) || r == '\u200b' || r == '\u034f' || r == '\ufeff' || r == '\u00ad' {
			blank = true
			continue
		}
		if n == maxPreview {
			break
		}
		if blank && b.Len() > 0 {
			b.WriteByte(' ')
			if n++; n == maxPreview {
				break
			}
		}
		blank = false
		b.WriteRune(r)
		n++
	}
	return strings.TrimRight(b.String(), " ")
}
