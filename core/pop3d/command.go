package pop3d

import (
	"bytes"
	"strconv"
	"strings"
)

// command is a line of a client's (RFC 1939 §3).
type command struct {
	verb string // in capitals
	arg  string // all that follows the first space; "" if nothing
}

// parseCommand reads a line without its end. ok is false for what is no
// command: no keyword of three or four letters and digits, or control characters.
// Octets beyond ASCII may only stand in arguments (RFC 6856 §2.2).
func parseCommand(line []byte) (c command, ok bool) {
	verb, arg, _ := bytes.Cut(line, []byte(" "))
	if len(verb) < 3 || len(verb) > 4 {
		return command{}, false
	}
	for _, b := range verb {
		if !(b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9') {
			return command{}, false
		}
	}
	for _, b := range arg {
		if b < ' ' || b == 0x7f {
			return command{}, false
		}
	}
	c = command{strings.ToUpper(string(verb)), string(arg)}
	if c.verb != "PASS" { // a password may end with spaces (RFC 1939 §7)
		c.arg = strings.Trim(c.arg, " ")
	}
	return c, true
}

// number reads a message number from 1, or with min 0 a count of lines.
func number(s string, min int) (int, bool) {
	if s == "" || len(s) > 10 || s[0] == '+' {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= min
}

// isAuth reports whether a line begins like AUTH, whose argument may be long.
func isAuth(start []byte) bool {
	return len(start) > 5 && strings.EqualFold(string(start[:5]), "AUTH ")
}
