package relay

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/wafermail/wafer/core/mail"
)

// Bounds of a reply.
const (
	maxReplyLine  = 2048 // octets
	maxReplyLines = 128
)

var (
	errReplyLong   = errors.New("a reply is too long")
	errReplySyntax = errors.New("what should be a reply is none")
)

// readReply reads a reply of one or more lines (RFC 5321 §4.2). The text keeps the
// lines as they came, without their codes, joined by LF.
func readReply(r *bufio.Reader) (mail.Status, error) {
	var st mail.Status
	var text []byte
	for n := 0; ; n++ {
		if n >= maxReplyLines {
			return st, errReplyLong
		}
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) || len(line) > maxReplyLine {
			return st, errReplyLong
		}
		if err != nil {
			return st, err
		}
		line = bytes.TrimRight(line, "\r\n")
		code, last, rest, ok := replyLine(line)
		if !ok || st.Code != 0 && code != st.Code {
			return st, fmt.Errorf("%w: %.80q", errReplySyntax, line)
		}
		if st.Code = code; n > 0 {
			text = append(text, '\n')
		} else {
			st.Enhanced = enhanced(rest, code)
		}
		text = append(text, rest...)
		if last {
			st.Text = string(text)
			return st, nil
		}
	}
}

// replyLine takes a line apart; "250" alone is one, too.
func replyLine(line []byte) (code int, last bool, rest []byte, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' {
		return 0, false, nil, false
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return 0, false, nil, false
		}
		code = code*10 + int(c-'0')
	}
	if len(line) == 3 {
		return code, true, nil, true
	}
	switch line[3] {
	case ' ':
		return code, true, line[4:], true
	case '-':
		return code, false, line[4:], true
	}
	return 0, false, nil, false
}

// enhanced is the enhanced status code that a text begins with (RFC 2034 §4), "" if
// there is none of the code's class.
func enhanced(text []byte, code int) string {
	word, _, _ := bytes.Cut(text, []byte(" "))
	if len(word) < 5 || len(word) > 11 || int(word[0]-'0') != code/100 || word[1] != '.' {
		return ""
	}
	dots, digits := 0, 0
	for _, c := range word {
		switch {
		case c == '.' && digits > 0 && digits < 4:
			dots, digits = dots+1, 0
		case c >= '0' && c <= '9':
			digits++
		default:
			return ""
		}
	}
	if dots != 2 || digits == 0 || digits > 3 {
		return ""
	}
	return string(word)
}

// capabilities are what EHLO said (RFC 5321 §4.1.1.1): keyword in capitals to its
// parameters.
type capabilities map[string]string

func parseCapabilities(text string) capabilities {
	caps := capabilities{}
	for i, line := range strings.Split(text, "\n") {
		if i == 0 {
			continue
		}
		keyword, params, _ := strings.Cut(strings.TrimSpace(line), " ")
		if keyword, old, ok := strings.Cut(keyword, "="); ok { // AUTH=LOGIN of old servers
			keyword = strings.ToUpper(keyword)
			caps[keyword] = strings.TrimSpace(caps[keyword] + " " + old)
			continue
		}
		keyword = strings.ToUpper(keyword)
		caps[keyword] = strings.TrimSpace(caps[keyword] + " " + params)
	}
	return caps
}

func (c capabilities) has(keyword string) bool { _, ok := c[keyword]; return ok }
