package maildir

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Bounds of folder names. 255 octets is what file systems allow for one name.
const (
	maxNameOctets = 240 // as encoded
	maxNameDepth  = 32
)

// isInbox reports whether name is the INBOX, in any case (RFC 9051 §5.1).
func isInbox(name string) bool { return strings.EqualFold(name, "INBOX") }

// cleanName returns name with "INBOX" in capitals, alone or as the first
// element (RFC 9051 §5.1). It is an error wrapping ErrBadName if no folder can
// have the name.
func cleanName(name string) (string, error) {
	bad := func(why string) (string, error) { return "", fmt.Errorf("%w: %s", ErrBadName, why) }
	first, rest, nested := strings.Cut(name, ".")
	if isInbox(first) {
		if !nested {
			return "INBOX", nil
		}
		name = "INBOX." + rest
	}
	switch {
	case name == "":
		return bad("it is empty")
	case len(name) > maxNameOctets: // before any work on it
		return bad("it is too long")
	case !utf8.ValidString(name):
		return bad("it is not UTF-8")
	case strings.Count(name, ".") >= maxNameDepth:
		return bad("it is nested too deeply")
	case name[0] == '.', name[len(name)-1] == '.', strings.Contains(name, ".."):
		return bad("it has an empty element")
	case strings.ContainsAny(name, "/"):
		return bad("it has a slash")
	case name[0] == '~':
		return bad("it begins with a tilde")
	}
	for _, r := range name {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == utf8.RuneError {
			return bad("it has a control character")
		}
	}
	if len(encodeName(name)) > maxNameOctets {
		return bad("it is too long")
	}
	return name, nil
}

// specialUse is the attribute of a folder that is known by its name (RFC 6154 §2).
func specialUse(name string) string {
	switch name {
	case "Drafts", "Sent", "Junk", "Trash", "Archive":
		return `\` + name
	}
	return ""
}

// mutf7 is the base 64 of modified UTF-7: "," for "/" and no padding.
func mutf7() *base64.Encoding {
	return base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").
		WithPadding(base64.NoPadding).Strict()
}

// encodeName encodes UTF-8 as modified UTF-7 (RFC 3501 §5.1.3).
func encodeName(s string) string {
	plain := true
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' || s[i] == '&' {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	var b strings.Builder
	enc := mutf7()
	for len(s) > 0 {
		n := strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '&' })
		if n < 0 {
			n = len(s)
		}
		b.WriteString(s[:n])
		if s = s[n:]; s == "" {
			break
		}
		if s[0] == '&' {
			b.WriteString("&-")
			s = s[1:]
			continue
		}
		n = strings.IndexFunc(s, func(r rune) bool { return r >= ' ' && r <= '~' })
		if n < 0 {
			n = len(s)
		}
		var raw []byte
		for _, u := range utf16.Encode([]rune(s[:n])) {
			raw = append(raw, byte(u>>8), byte(u))
		}
		b.WriteByte('&')
		b.WriteString(enc.EncodeToString(raw))
		b.WriteByte('-')
		s = s[n:]
	}
	return b.String()
}

// decodeName decodes modified UTF-7. Only the one right encoding of a name is
// accepted, so that no two directories have the same name.
func decodeName(s string) (string, bool) {
	if strings.IndexByte(s, '&') < 0 {
		for i := 0; i < len(s); i++ {
			if s[i] < ' ' || s[i] > '~' {
				return "", false
			}
		}
		return s, true
	}
	var b strings.Builder
	enc := mutf7()
	for rest := s; rest != ""; {
		plain, coded, found := strings.Cut(rest, "&")
		b.WriteString(plain)
		if !found {
			break
		}
		code, after, ok := strings.Cut(coded, "-")
		if !ok {
			return "", false
		}
		rest = after
		if code == "" {
			b.WriteByte('&')
			continue
		}
		raw, err := enc.DecodeString(code)
		if err != nil || len(raw)%2 != 0 {
			return "", false
		}
		units := make([]uint16, len(raw)/2)
		for i := range units {
			units[i] = uint16(raw[2*i])<<8 | uint16(raw[2*i+1])
		}
		b.WriteString(string(utf16.Decode(units)))
	}
	name := b.String()
	return name, encodeName(name) == s
}

// shownName is the name under which the directory ".dir" is listed: decoded
// from modified UTF-7, or as it stands if it is none (other programs write
// UTF-8, or a bare "&"). ok is false for what cannot be a folder.
func shownName(dir string) (name string, ok bool) {
	name, ok = decodeName(dir)
	if !ok {
		name = dir
	}
	clean, err := cleanName(name)
	if err != nil || clean != name || name == "INBOX" {
		return "", false
	}
	return name, true
}

// dirOf is the directory of the folder with the clean name, in the Maildir root.
func dirOf(root, name string) string {
	if name == "INBOX" {
		return root
	}
	dir := filepath.Join(root, "."+encodeName(name))
	if encodeName(name) != name && !isDir(dir) {
		if raw := filepath.Join(root, "."+name); isDir(raw) {
			if _, ok := decodeName(name); !ok {
				return raw
			}
		}
	}
	return dir
}

func parent(path string) string { return filepath.Dir(path) }
