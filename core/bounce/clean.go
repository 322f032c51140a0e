package bounce

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/wafermail/wafer/core/mail"
)

// Bounds of what other hosts and senders wrote, in octets.
const (
	maxField = 900
	maxReply = 4000
)

// clean makes text fit for a line: controls and line ends become blanks, what is
// no UTF-8 a question mark, and it is cut at most octets.
func clean(s string, most int) string {
	var b strings.Builder
	for _, r := range s {
		if b.Len() >= most {
			b.WriteString("…")
			break
		}
		switch {
		case r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\u2028' || r == '\u2029':
			b.WriteByte(' ')
		case r == utf8.RuneError:
			b.WriteByte('?')
		default:
			b.WriteRune(r)
		}
	}
	return strings.TrimSpace(b.String())
}

// reply is a host's reply on one line.
func reply(s mail.Status) string {
	var b strings.Builder
	if s.Code != 0 {
		b.WriteString(strconv.Itoa(s.Code) + " ")
	}
	if s.Enhanced != "" && !strings.HasPrefix(s.Text, s.Enhanced) {
		b.WriteString(s.Enhanced + " ")
	}
	b.WriteString(s.Text)
	return clean(b.String(), maxReply)
}

// wrap breaks text into lines of about width octets: at blanks, or where there are
// none, between characters. There is at least one line.
func wrap(s string, width int) (lines []string) {
	for len(s) > width {
		cut := strings.LastIndexByte(s[:width+1], ' ')
		if cut <= 0 {
			for cut = width; cut > 1 && !utf8.RuneStart(s[cut]); cut-- {
			}
		}
		lines = append(lines, strings.TrimRight(s[:cut], " "))
		s = strings.TrimLeft(s[cut:], " ")
	}
	if s != "" || len(lines) == 0 {
		lines = append(lines, s)
	}
	return lines
}
