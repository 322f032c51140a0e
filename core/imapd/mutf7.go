package imapd

import (
	"encoding/base64"
	"errors"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// modifiedBase64 is RFC 3501 §5.1.3's: "," for "/", no padding.
var modifiedBase64 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding)

var errMailboxName = errors.New("mailbox name is not valid modified UTF-7")

// encodeMailbox writes a UTF-8 name in modified UTF-7.
func encodeMailbox(name string) string {
	plain := true
	for i := 0; i < len(name); i++ {
		if name[i] < ' ' || name[i] > '~' || name[i] == '&' {
			plain = false
			break
		}
	}
	if plain {
		return name
	}
	var b strings.Builder
	var wide []rune
	flush := func() {
		if len(wide) == 0 {
			return
		}
		units := utf16.Encode(wide)
		raw := make([]byte, 0, 2*len(units))
		for _, u := range units {
			raw = append(raw, byte(u>>8), byte(u))
		}
		b.WriteByte('&')
		b.WriteString(modifiedBase64.EncodeToString(raw))
		b.WriteByte('-')
		wide = wide[:0]
	}
	for _, r := range name {
		if r < ' ' || r > '~' {
			wide = append(wide, r)
			continue
		}
		flush()
		b.WriteRune(r)
		if r == '&' {
			b.WriteByte('-')
		}
	}
	flush()
	return b.String()
}

// decodeMailbox reads modified UTF-7. A name with octets outside ASCII is taken
// for UTF-8, which clients send that believe in RFC 6855 or RFC 9051.
func decodeMailbox(s string) (string, error) {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			if !utf8.ValidString(s) {
				return "", errMailboxName
			}
			return s, nil
		}
	}
	if strings.IndexByte(s, '&') < 0 {
		return s, nil
	}
	var b strings.Builder
	for s != "" {
		if s[0] != '&' {
			b.WriteByte(s[0])
			s = s[1:]
			continue
		}
		end := strings.IndexByte(s, '-')
		if end < 0 {
			return "", errMailboxName
		}
		enc := s[1:end]
		s = s[end+1:]
		if enc == "" {
			b.WriteByte('&')
			continue
		}
		raw, err := modifiedBase64.DecodeString(enc)
		if err != nil || len(raw)%2 != 0 {
			return "", errMailboxName
		}
		units := make([]uint16, len(raw)/2)
		for i := range units {
			units[i] = uint16(raw[2*i])<<8 | uint16(raw[2*i+1])
		}
		for i := 0; i < len(units); i++ {
			r := rune(units[i])
			if utf16.IsSurrogate(r) {
				if i+1 == len(units) {
					return "", errMailboxName
				}
				i++
				if r = utf16.DecodeRune(r, rune(units[i])); r == utf8.RuneError {
					return "", errMailboxName
				}
			}
			if r >= ' ' && r <= '~' { // printable ASCII must stand for itself: one name, one form
				return "", errMailboxName
			}
			b.WriteRune(r)
		}
	}
	return b.String(), nil
}
