package main

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// asciiDomain is a domain with its U-labels as A-labels (RFC 7208 §4.3, RFC
// 5891): in lower case and by Punycode. What is no valid UTF-8 stays as it is.
func asciiDomain(s string) string {
	ascii := true
	for i := range len(s) {
		ascii = ascii && s[i] < utf8.RuneSelf
	}
	if ascii || len(s) > 4*maxName || !utf8.ValidString(s) {
		return s
	}
	labels := strings.Split(s, ".")
	for i, label := range labels {
		if strings.IndexFunc(label, func(r rune) bool { return r >= utf8.RuneSelf }) >= 0 {
			labels[i] = "xn--" + punycode(strings.Map(unicode.ToLower, label))
		}
	}
	return strings.Join(labels, ".")
}

// Parameters of Punycode (RFC 3492 §5).
const (
	base, tMin, tMax = 36, 1, 26
	skew, damp       = 38, 700
	firstBias        = 72
)

// punycode encodes one label (RFC 3492 §6.3).
func punycode(label string) string {
	runes := []rune(label)
	var out []byte
	for _, r := range runes {
		if r < utf8.RuneSelf {
			out = append(out, byte(r))
		}
	}
	basic := len(out)
	if basic > 0 {
		out = append(out, '-')
	}
	n, delta, bias, done := rune(utf8.RuneSelf), 0, firstBias, basic
	for done < len(runes) {
		next := rune(unicode.MaxRune)
		for _, r := range runes {
			if r >= n && r < next {
				next = r
			}
		}
		delta += int(next-n) * (done + 1)
		n = next
		for _, r := range runes {
			if r < n {
				delta++
			}
			if r == n {
				out = appendDelta(out, delta, bias)
				bias = adapt(delta, done+1, done == basic)
				delta = 0
				done++
			}
		}
		delta++
		n++
	}
	return string(out)
}

// appendDelta writes a generalized variable-length integer (RFC 3492 §3.3).
func appendDelta(out []byte, delta, bias int) []byte {
	const digits = "abcdefghijklmnopqrstuvwxyz0123456789"
	for k := base; ; k += base {
		t := min(max(k-bias, tMin), tMax)
		if delta < t {
			return append(out, digits[delta])
		}
		out = append(out, digits[t+(delta-t)%(base-t)])
		delta = (delta - t) / (base - t)
	}
}

// adapt is the bias for the next delta (RFC 3492 §6.1).
func adapt(delta, points int, first bool) int {
	if first {
		delta /= damp
	} else {
		delta /= 2
	}
	delta += delta / points
	k := 0
	for ; delta > (base-tMin)*tMax/2; k += base {
		delta /= base - tMin
	}
	return k + (base-tMin+1)*delta/(delta+skew)
}
