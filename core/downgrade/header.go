package downgrade

import (
	"fmt"
	"mime"
	"strings"
	"unicode/utf8"

	"github.com/wafermail/wafer/core/mail"
)

// change is what happens to a part's header besides its octets above 127.
type change struct {
	encoding string // that it is to name; "": what it names
	charset  string // of a text that names no type at all
	mime     bool   // it is a message's header, which must say that it is MIME
}

// Header returns a block of header fields in 7-bit form.
func Header(block []byte) ([]byte, error) {
	if ascii(string(block)) {
		return block, nil
	}
	var out []byte
	for f := range mail.HeaderFields(block) {
		var err error
		if out, err = appendField(out, f); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// header writes a header with its blank line, changed.
func (c *converter) header(raw []byte, ch change) error {
	var out []byte
	read, isMIME, typed := 0, false, false
	for f := range mail.HeaderFields(raw) {
		read += len(f.Raw)
		isMIME = isMIME || f.Is("MIME-Version")
		typed = typed || f.Is("Content-Type")
		if ch.encoding != "" && f.Is("Content-Transfer-Encoding") {
			continue
		}
		var err error
		if out, err = appendField(out, f); err != nil {
			return err
		}
	}
	if ch.mime && !isMIME {
		out = append(out, "MIME-Version: 1.0\r\n"...)
	}
	if ch.charset != "" && !typed {
		out = append(out, "Content-Type: text/plain; charset="+ch.charset+"\r\n"...)
	}
	if ch.encoding != "" {
		out = append(out, "Content-Transfer-Encoding: "+ch.encoding+"\r\n"...)
	}
	if read == len(raw) && ch.encoding != "" && ch.encoding != "7bit" {
		out = append(out, "\r\n"...) // the message had no blank line, and now has a field of ours
	}
	out = append(out, raw[read:]...)
	_, err := c.w.Write(out)
	return err
}

// appendField appends a field in 7-bit form.
func appendField(out []byte, f mail.HeaderField) ([]byte, error) {
	if ascii(string(f.Raw)) {
		return append(out, f.Raw...), nil
	}
	name, value := f.Name(), f.Value()
	var err error
	switch {
	case name == "": // a line that is no field
		return append(out, masked(string(f.Raw))...), nil
	case f.Is("Content-Type"), f.Is("Content-Disposition"):
		value = parameters(value)
	case structured(name):
		value, err = phrases(value)
	default:
		value = encodedWord(value)
	}
	if err != nil {
		return nil, fmt.Errorf("field %s: %w", name, err)
	}
	return append(out, name+": "+value+"\r\n"...), nil
}

// structured reports whether words of the field's value have a meaning of their own.
func structured(name string) bool {
	switch strings.ToLower(name) {
	case "from", "sender", "reply-to", "to", "cc", "bcc", "resent-from", "resent-sender", "resent-to", "resent-cc", "resent-bcc",
		"received", "return-path", "delivered-to", "message-id", "in-reply-to", "references", "date", "keywords",
		"list-id", "list-post", "list-help", "list-unsubscribe", "disposition-notification-to":
		return true
	}
	return false
}

// encodedWord writes a whole value as encoded words, a line each.
func encodedWord(s string) string {
	charset := "utf-8"
	if !utf8.ValidString(s) {
		charset = "unknown-8bit"
	}
	return strings.ReplaceAll(mime.QEncoding.Encode(charset, s), "?= =?", "?=\r\n =?")
}

// parameters writes a media type or a disposition with its parameters as RFC 2231
// has them.
func parameters(s string) string {
	t, params, err := mime.ParseMediaType(s)
	if err != nil {
		return masked(s)
	}
	if out := mime.FormatMediaType(t, params); out != "" {
		return strings.ReplaceAll(out, "; ", ";\r\n ")
	}
	return masked(s)
}

// masked has question marks in place of octets above 127.
func masked(s string) string {
	b := []byte(s)
	for i := range b {
		if b[i] > 127 {
			b[i] = '?'
		}
	}
	return string(b)
}

// phrases encodes the words of names and comments in a structured value (RFC 2047
// §5). Octets above 127 anywhere else have no 7-bit form.
func phrases(s string) (string, error) {
	var b strings.Builder
	for len(s) > 0 {
		n := wordLength(s)
		word := s[:n]
		s = s[n:]
		switch {
		case ascii(word):
			b.WriteString(word)
		case word[0] == '<' || strings.ContainsRune(word, '@') && word[0] != '"' && word[0] != '(':
			return "", fmt.Errorf("address %q has octets above 127", word)
		case word[0] == '"':
			b.WriteString(phrase(unquote(word)))
		case word[0] == '(':
			b.WriteByte('(')
			b.WriteString(encodedWord(strings.TrimSuffix(word[1:], ")")))
			b.WriteByte(')')
		default:
			b.WriteString(phrase(word))
		}
	}
	return b.String(), nil
}

// phrase is an encoded word that may stand in a name: in base64, as RFC 2047 §5
// (3) allows no others but letters and digits in Q.
func phrase(s string) string {
	charset := "utf-8"
	if !utf8.ValidString(s) {
		charset = "unknown-8bit"
	}
	return strings.ReplaceAll(mime.BEncoding.Encode(charset, s), "?= =?", "?=\r\n =?")
}

// wordLength is the length of the first piece of a structured value: a quoted
// string, an address in angle brackets, a comment, a mark, blanks, or words.
func wordLength(s string) int {
	switch s[0] {
	case '"':
		return closing(s, '"', false)
	case '<':
		return closing(s, '>', false)
	case '(':
		return closing(s, ')', true)
	case ' ', '\t', ',', ';', ':', '>', ')':
		return 1
	}
	if i := strings.IndexAny(s, "\"<( \t,;:>)"); i > 0 {
		return i
	}
	return len(s)
}

// closing finds the end of what begins with s[0].
func closing(s string, end byte, nests bool) int {
	depth := 0
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
		case s[i] == end && depth == 0:
			return i + 1
		case s[i] == end:
			depth--
		case nests && s[i] == s[0]:
			depth++
		}
	}
	return len(s)
}

func unquote(s string) string {
	s = strings.TrimSuffix(s[1:], `"`)
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
