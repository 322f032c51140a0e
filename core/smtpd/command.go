package smtpd

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/wafermail/wafer/core/mail"
)

// splitVerb cuts a command line into its first word and the rest without the
// spaces around it.
func splitVerb(line []byte) (verb, arg []byte) {
	line = bytes.TrimRight(line, " \t")
	if i := bytes.IndexAny(line, " \t"); i >= 0 {
		return line[:i], bytes.TrimLeft(line[i:], " \t")
	}
	return line, nil
}

// hasControl reports whether line has a control character other than tab.
func hasControl(line []byte) bool {
	for _, c := range line {
		if c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}

func isASCII(s []byte) bool {
	for _, c := range s {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// cutPath reads `FROM:<path> params` or `TO:<path> params`: keyword is "FROM:"
// or "TO:" in any case. It returns the path as written, without its brackets,
// and the parameters. Spaces after the colon and paths without brackets are no
// part of the grammar, but too common to refuse.
func cutPath(arg []byte, keyword string) (path, params []byte, err error) {
	if len(arg) < len(keyword) || !strings.EqualFold(string(arg[:len(keyword)]), keyword) {
		return nil, nil, errors.New("must be " + keyword + "<address>")
	}
	arg = bytes.TrimLeft(arg[len(keyword):], " \t")
	if len(arg) == 0 {
		return nil, nil, errors.New("must be in angle brackets")
	}
	bracketed := arg[0] == '<'
	end, quoted := -1, false
	for i := 0; i < len(arg) && end < 0; i++ {
		switch c := arg[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case bracketed && c == '>', !bracketed && (c == ' ' || c == '\t'):
			end = i
		}
	}
	if !bracketed {
		if end < 0 {
			end = len(arg)
		}
		return bytes.TrimSuffix(arg[:end], []byte(">")), arg[end:], nil
	}
	if end < 0 {
		return nil, nil, errors.New("must be in angle brackets")
	}
	path, params = arg[1:end], arg[end+1:]
	if len(params) > 0 && params[0] != ' ' && params[0] != '\t' {
		return nil, nil, errors.New("must be followed by a space")
	}
	return path, params, nil
}

// mailCommand is MAIL with its parameters.
type mailCommand struct {
	from  mail.Path
	size  int64
	body  mail.Body
	utf8  bool
	ret   string
	envid string
	auth  bool
}

// parseMail parses the argument of MAIL. A Status with a code is the refusal, and
// then err may say more than Postfix's text does.
func parseMail(arg []byte, without extensions) (m mailCommand, st mail.Status, err error) {
	raw, params, err := cutPath(arg, "FROM:")
	if err != nil {
		return m, statusSender, err
	}
	utf8ok := false // the address is judged before its parameters, one of which says how
	eachParam(params, func(key, value, _ string) bool {
		utf8ok = utf8ok || key == "SMTPUTF8" && value == "" && !without.has(key)
		return true
	})
	if m.from, err = mail.ReadPath(string(raw), utf8ok); err != nil {
		return m, statusSender, err
	}
	eachParam(params, func(key, value, given string) bool {
		if without.refuse(key, value) {
			st = statusOption(given)
		} else {
			st = m.param(key, value, given)
		}
		return st.Code == 0
	})
	return m, st, nil
}

// param takes one parameter of MAIL. key is in capitals.
func (m *mailCommand) param(key, value, given string) mail.Status {
	twice := false
	switch key {
	case "SIZE": // RFC 1870 §3
		if value == "" {
			return statusOption(given)
		}
		n, ok := parseOctets(value)
		if !ok {
			return statusSyntax("Bad message size syntax")
		}
		twice, m.size = m.size != 0, n
	case "BODY": // RFC 6152 §2, RFC 3030 §3
		twice = m.body != ""
		switch b := mail.Body(strings.ToUpper(value)); b {
		case mail.Body7Bit, mail.Body8Bit, mail.BodyBinary:
			m.body = b
		default:
			return statusOption(given)
		}
	case "SMTPUTF8": // RFC 6531 §3.4
		if value != "" {
			return statusOption(given)
		}
		twice, m.utf8 = m.utf8, true
	case "RET": // RFC 3461 §4.3
		again := m.ret != ""
		if m.ret = strings.ToUpper(value); again || m.ret != "FULL" && m.ret != "HDRS" {
			return statusSyntax("Bad RET parameter syntax")
		}
	case "ENVID": // RFC 3461 §4.4
		id, ok := decodeXtext(value, 500) // it asks for at most 100, and clients that send more for nothing
		if !ok || id == "" {
			return statusSyntax("ENVID must be 1 to 500 octets of xtext")
		}
		twice, m.envid = m.envid != "", id
	case "AUTH": // RFC 4954 §5; checked and not believed
		if _, ok := decodeXtext(value, 500); !ok {
			return statusSyntax("AUTH must be <> or xtext")
		}
		twice, m.auth = m.auth, true
	default:
		return statusOption(given)
	}
	if twice {
		return statusSyntax(key + " is there twice")
	}
	return mail.Status{}
}

// parseRcpt parses the argument of RCPT, like parseMail.
func parseRcpt(arg []byte, utf8ok bool, without extensions) (r mail.Recipient, st mail.Status, err error) {
	raw, params, err := cutPath(arg, "TO:")
	if err != nil {
		return r, statusRecipient, err
	}
	r.To, err = mail.ReadPath(string(raw), utf8ok)
	if err == nil && r.To.IsNull() {
		err = errors.New("is empty")
	}
	if err != nil {
		return r, statusRecipient, err
	}
	eachParam(params, func(key, value, given string) bool {
		if without.refuse(key, value) {
			st = statusOption(given)
		} else {
			st = rcptParam(&r, key, value, given, utf8ok)
		}
		return st.Code == 0
	})
	return r, st, nil
}

// rcptParam takes one parameter of RCPT. key is in capitals.
func rcptParam(r *mail.Recipient, key, value, given string, utf8ok bool) mail.Status {
	switch key {
	case "NOTIFY": // RFC 3461 §4.1
		if r.Notify != nil {
			return statusSyntax("Error: Bad NOTIFY parameter syntax")
		}
		words, never := []string{}, false
		for i, w := range strings.Split(strings.ToUpper(value), ",") {
			known := w == "SUCCESS" || w == "FAILURE" || w == "DELAY" || w == "NEVER"
			never = never || w == "NEVER"
			if !known || i > 9 || never && (w != "NEVER" || i > 0 && words[0] != "NEVER") {
				return statusSyntax("Error: Bad NOTIFY parameter syntax")
			}
			if !slices.Contains(words, w) {
				words = append(words, w)
			}
		}
		r.Notify = words
	case "ORCPT": // RFC 3461 §4.2, RFC 6533 §3
		kind, addr, ok := strings.Cut(value, ";")
		if r.ORcpt != "" {
			return statusSyntax("Error: Bad ORCPT parameter syntax")
		}
		if ok = ok && isAtom(kind); ok {
			if strings.EqualFold(kind, "utf-8") && utf8ok {
				ok = len(addr) <= 500
			} else {
				addr, ok = decodeXtext(addr, 500)
			}
		}
		if !ok {
			return statusSyntax("Error: Bad ORCPT parameter syntax")
		}
		r.ORcpt = kind + ";" + addr
	default:
		return statusOption(given)
	}
	return mail.Status{}
}

// eachParam calls f with each "KEY" or "KEY=value", the key in capitals and the
// whole as it was given, until f says no.
func eachParam(params []byte, f func(key, value, given string) bool) {
	for _, p := range bytes.Fields(params) {
		key, value, _ := bytes.Cut(p, []byte("="))
		if !f(strings.ToUpper(string(key)), string(value), string(p)) {
			return
		}
	}
}

// parseOctets parses digits: RFC 1870 §3 has 20 at most, and a larger number is
// only too large. What does not fit into an
// int64 is as good as its largest value.
func parseOctets(s string) (int64, bool) {
	if len(s) == 0 || len(s) > 100 {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 1<<63 - 1, true
	}
	return n, true
}

// decodeXtext decodes RFC 3461 §4 xtext. Encoded control characters are
// refused, since the value ends up in header fields of reports.
func decodeXtext(s string, limit int) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '+' {
			if i+2 >= len(s) {
				return "", false
			}
			hi, lo := hexDigit(s[i+1]), hexDigit(s[i+2])
			if hi < 0 || lo < 0 {
				return "", false
			}
			c = byte(hi<<4 | lo)
			i += 2
			if c < ' ' || c == 0x7f {
				return "", false
			}
		} else if c < '!' || c > '~' || c == '=' {
			return "", false
		}
		b.WriteByte(c)
	}
	return b.String(), b.Len() <= limit && utf8.ValidString(b.String())
}

// hexDigit is the value of an upper-case hexadecimal digit, else -1. RFC 3461
// wants capitals; small letters are taken too since some clients send them.
func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

func isAtom(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>[]:;@\,."=+`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// parseBdat parses "octets [LAST]" (RFC 3030 §2).
func parseBdat(arg []byte) (n int64, last, ok bool) {
	f := bytes.Fields(arg)
	if len(f) == 0 || len(f) > 2 {
		return 0, false, false
	}
	n, ok = parseOctets(string(f[0]))
	if len(f) == 2 {
		last = bytes.EqualFold(f[1], []byte("LAST"))
		ok = ok && last
	}
	return n, last, ok
}
