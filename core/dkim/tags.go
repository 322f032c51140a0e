package dkim

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxTags is how many tags a list may have.
const MaxTags = 100

// Tag is one tag of a list, without the white space around its value.
type Tag struct {
	Name, Value string
	start, end  int // of the value in the text, with the white space around it
}

// Tags is a tag list (RFC 6376 §3.2) in its own order, without duplicates.
type Tags []Tag

// ParseTags reads a tag list strictly: names of letters, digits and underscores,
// printable values (UTF-8 as RFC 8616 allows), no duplicate, no empty tag but after the
// last semicolon, at most MaxTags. White space may be folded.
func ParseTags(text string) (Tags, error) {
	tags := make(Tags, 0, 12)
	for at := 0; ; {
		end := strings.IndexByte(text[at:], ';')
		last := end < 0
		if last {
			end = len(text)
		} else {
			end += at
		}
		spec := text[at:end]
		if last && isBlank(spec) {
			if len(tags) == 0 {
				return nil, errors.New("tag list is empty")
			}
			return tags, nil
		}
		if len(tags) == MaxTags {
			return nil, fmt.Errorf("tag list has more than %d tags", MaxTags)
		}
		equals := strings.IndexByte(spec, '=')
		if equals < 0 {
			return nil, fmt.Errorf("tag %q has no value", clip(trimBlank(spec)))
		}
		tag := Tag{
			Name:  trimBlank(spec[:equals]),
			Value: trimBlank(spec[equals+1:]),
			start: at + equals + 1,
			end:   end,
		}
		if !isTagName(tag.Name) {
			return nil, fmt.Errorf("tag name %q is not valid", clip(tag.Name))
		}
		if err := checkValue(tag.Value); err != nil {
			return nil, fmt.Errorf("tag %s: %w", clip(tag.Name), err)
		}
		if _, twice := tags.Lookup(tag.Name); twice {
			return nil, fmt.Errorf("tag %s stands twice", clip(tag.Name))
		}
		tags = append(tags, tag)
		if last {
			return tags, nil
		}
		at = end + 1
	}
}

// Lookup returns the value of a tag, whose name is compared with case.
func (l Tags) Lookup(name string) (value string, ok bool) {
	for i := range l {
		if l[i].Name == name {
			return l[i].Value, true
		}
	}
	return "", false
}

func isTagName(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z':
		case i > 0 && (c >= '0' && c <= '9' || c == '_'):
		default:
			return false
		}
	}
	return s != ""
}

// checkValue looks for octets that a tag value cannot have; line ends must be part of
// folding white space.
func checkValue(s string) error {
	ascii := true
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c > ' ' && c < 0x7f, c == ' ', c == '\t':
		case c >= 0x80:
			ascii = false
		case c == '\r' && i+1 < len(s) && s[i+1] == '\n':
		case c == '\n' && i+1 < len(s) && (s[i+1] == ' ' || s[i+1] == '\t'):
		default:
			return fmt.Errorf("octet %#02x is not allowed", c)
		}
	}
	if !ascii && !utf8.ValidString(s) {
		return errors.New("value is not UTF-8")
	}
	return nil
}

const blanks = " \t\r\n"

func isBlankOctet(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func isBlank(s string) bool { return trimBlank(s) == "" }

func trimBlank(s string) string { return strings.Trim(s, blanks) }

// withoutBlanks removes all white space, which has no meaning inside of some values.
func withoutBlanks(s string) string {
	if !strings.ContainsAny(s, blanks) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		if !isBlankOctet(s[i]) {
			b = append(b, s[i])
		}
	}
	return string(b)
}
