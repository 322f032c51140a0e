package main

import (
	"strconv"
	"strings"
)

// Bounds of one field's parameters.
const (
	maxParams   = 200
	maxSegments = 100 // of one value (RFC 2231 §3)
)

// param is one parameter as it is written, with its name in lower case.
type param struct {
	name, value string
}

// parseParams takes a Content-Type or Content-Disposition apart, as mail readers
// do and not as strictly as RFC 2045 §5.1 has it: an unquoted value goes up to
// ";", a quoted one without an end to the end of the field.
func parseParams(s string) (value string, params []param) {
	value, s = until(s)
	value = strings.ToLower(strings.TrimSpace(value))
	for s != "" && len(params) < maxParams {
		var text string
		name, rest, ok := strings.Cut(s, "=")
		if !ok {
			break
		}
		name = name[strings.LastIndexByte(name, ';')+1:] // before it stand names without a value
		rest = strings.TrimLeft(rest, " \t")
		if strings.HasPrefix(rest, `"`) {
			text, rest = quoted(rest[1:])
			_, s = until(rest) // what stands between the quote and ";" is nothing
		} else {
			text, s = until(rest)
			text = strings.TrimSpace(text)
		}
		params = append(params, param{strings.ToLower(strings.Trim(name, " \t")), text})
	}
	return value, params
}

// until cuts s at the first ";".
func until(s string) (before, after string) {
	before, after, _ = strings.Cut(s, ";")
	return before, after
}

// quoted reads a quoted string behind its first quote. A backslash before
// anything but a quote or a backslash stays: it is a path of Windows.
func quoted(s string) (value, rest string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s) && (s[i+1] == '"' || s[i+1] == '\\'):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}

// values returns each reading of the parameter called name: plain ones with
// encoded words decoded, extended ones by RFC 2231 §4, and those in segments
// (§3) joined. A peer may write several; mail readers differ in which they take.
func values(params []param, name string) []string {
	var out []string
	segments := map[int]string{}
	escaped := map[int]bool{}
	for _, p := range params {
		rest, ok := strings.CutPrefix(p.name, name)
		switch {
		case !ok:
		case rest == "":
			out = append(out, decodeWords(p.value))
		case rest == "*":
			charset, octets := extended(p.value)
			out = append(out, convert(charset, octets))
		case rest[0] == '*':
			number, star := strings.CutSuffix(rest[1:], "*")
			n, err := strconv.Atoi(number)
			if _, twice := segments[n]; err == nil && n >= 0 && n < maxSegments && !twice {
				segments[n], escaped[n] = p.value, star
			}
		}
	}
	if len(segments) > 0 {
		out = append(out, join(segments, escaped))
	}
	return out
}

// join puts segments together. A missing one is left out: what is behind it may
// be the extension that somebody's mail reader goes by.
func join(segments map[int]string, escaped map[int]bool) string {
	var octets []byte
	charset := ""
	for n := range maxSegments {
		value, ok := segments[n]
		switch {
		case !ok:
		case !escaped[n]:
			octets = append(octets, value...)
		case n == 0:
			var first []byte
			charset, first = extended(value)
			octets = append(octets, first...)
		default:
			octets = append(octets, unescape(value, '%')...)
		}
	}
	return decodeWords(convert(charset, octets))
}

// extended reads "charset'language'text" with its escaped octets. Without the
// two quotes all of it is text.
func extended(s string) (charset string, octets []byte) {
	charset, rest, ok := strings.Cut(s, "'")
	if _, text, both := strings.Cut(rest, "'"); ok && both {
		return strings.ToLower(charset), unescape(text, '%')
	}
	return "", unescape(s, '%')
}

func convert(charset string, octets []byte) string {
	text, _ := toUTF8(charset, octets)
	return plain(text)
}
