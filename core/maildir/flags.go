package maildir

import (
	"slices"
	"strings"
)

// Flags is the set of flags and keywords of a message.
type Flags uint64

// The system flags of RFC 9051 §2.3.2, with the letters that they have in file names
// (https://cr.yp.to/proto/maildir.html). Forwarded is the Maildir flag P
// (passed), which Dovecot keeps but does not show: it has $Forwarded as a keyword.
const (
	DraftFlag Flags = 1 << iota // D
	Flagged                     // F
	Answered                    // R
	Seen                        // S
	Deleted                     // T
	Forwarded                   // P
)

// MaxKeywords is how many keywords a folder can have: the letters a to z.
const MaxKeywords = 26

const keywordShift = 8

// KeywordBit is the flag of the keyword with index i in Folder.Keywords, 0 to 25.
func KeywordBit(i int) Flags { return 1 << (keywordShift + i) }

// systemFlags and systemLetters belong together.
const systemLetters = "DFPRST" // in the order of file names

func letterFlag(c byte) Flags {
	switch {
	case c == 'D':
		return DraftFlag
	case c == 'F':
		return Flagged
	case c == 'P':
		return Forwarded
	case c == 'R':
		return Answered
	case c == 'S':
		return Seen
	case c == 'T':
		return Deleted
	case c >= 'a' && c <= 'z':
		return KeywordBit(int(c - 'a'))
	}
	return 0
}

// onDisk is every flag that a file name can hold.
const onDisk = DraftFlag | Flagged | Answered | Seen | Deleted | Forwarded | (1<<MaxKeywords-1)<<keywordShift

// appendLetters appends the letters of f in the order of file names.
func (f Flags) appendLetters(b []byte) []byte {
	for i := 0; i < len(systemLetters); i++ {
		if f&letterFlag(systemLetters[i]) != 0 {
			b = append(b, systemLetters[i])
		}
	}
	for i := 0; f>>keywordShift != 0 && i < MaxKeywords; i++ {
		if f&KeywordBit(i) != 0 {
			b = append(b, byte('a'+i))
		}
	}
	return b
}

// splitName splits a file name at the first colon into the base name, by which
// a message is known, and the rest.
func splitName(name string) (base, info string) {
	if i := strings.IndexByte(name, ':'); i >= 0 {
		return name[:i], name[i:]
	}
	return name, ""
}

// parseInfo reads the part of a file name from the colon on. Letters that it
// does not know end up in extra, and so does whatever follows a second comma.
// An info that is not ":2," says nothing, and nothing of it is kept.
func parseInfo(info string) (f Flags, extra, tail string) {
	letters, ok := strings.CutPrefix(info, ":2,")
	if !ok {
		return 0, "", ""
	}
	if i := strings.IndexByte(letters, ','); i >= 0 {
		letters, tail = letters[:i], letters[i:]
	}
	var unknown []byte
	for i := 0; i < len(letters); i++ {
		if bit := letterFlag(letters[i]); bit != 0 {
			f |= bit
		} else if !slices.Contains(unknown, letters[i]) {
			unknown = append(unknown, letters[i])
		}
	}
	return f, string(unknown), tail
}

// makeName is the file name of a message with flags f. extra and tail are what
// parseInfo found in its earlier name.
func makeName(base string, f Flags, extra, tail string) string {
	b := make([]byte, 0, len(base)+3+8+len(extra)+len(tail))
	b = append(b, base...)
	b = append(b, ":2,"...)
	n := len(b)
	b = f.appendLetters(b)
	if extra != "" {
		b = append(b, extra...)
		slices.Sort(b[n:])
	}
	return string(append(b, tail...))
}

// sizesOf reads the ",S=" and ",W=" fields of a base name: the octets of the
// file, and of the message with CRLF line ends. -1 stands for a field that is
// absent or no number.
func sizesOf(base string) (s, w int64) {
	s, w = -1, -1
	_, rest, more := strings.Cut(base, ",")
	for more {
		var field string
		field, rest, more = strings.Cut(rest, ",")
		if len(field) < 3 || field[1] != '=' {
			continue
		}
		switch field[0] {
		case 'S':
			s = number(field[2:])
		case 'W':
			w = number(field[2:])
		}
	}
	return s, w
}

// number parses up to 18 decimal digits, -1 for anything else.
func number(s string) int64 {
	if s == "" || len(s) > 18 {
		return -1
	}
	var n int64
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return -1
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n
}

// compareArrival orders base names by the time of delivery that they begin
// with, as Dovecot does when it gives out UIDs: seconds, then the microseconds
// after ".M", then the bytes.
func compareArrival(a, b string) int {
	sa, ra := leadingNumber(a)
	sb, rb := leadingNumber(b)
	if sa != sb {
		return sa.compare(sb)
	}
	if strings.HasPrefix(ra, ".M") && strings.HasPrefix(rb, ".M") {
		ma, _ := leadingNumber(ra[2:])
		mb, _ := leadingNumber(rb[2:])
		if ma != mb {
			return ma.compare(mb)
		}
	}
	return strings.Compare(a, b)
}

// digits is a number of any length without leading zeros.
type digits string

func (d digits) compare(e digits) int {
	if len(d) != len(e) {
		return len(d) - len(e)
	}
	return strings.Compare(string(d), string(e))
}

func leadingNumber(s string) (n digits, rest string) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return digits(strings.TrimLeft(s[:i], "0")), s[i:]
}
