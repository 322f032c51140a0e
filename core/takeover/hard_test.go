package takeover

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
)

// subjects are what mails are about, before somebody replies or a list adds its name.
var subjects = []string{
	"Besprechung", "besprechung", "Über uns", "über uns", "ÜBER UNS", "Straße", "STRASSE", "café", "cafe\u0301", "CAFÉ", "a  b", "A\tB", "",
	"日本語", "Ελλάδας", "ΕΛΛΆΔΑΣ", "привет", "ПРИВЕТ", "report (draft)", "Report", "[x]", "[x] y", "x [y]", "10", "9", "Re", "forward", "fwd", "Ré:", "reply: to", "a:b", "ﬁsh", "Ångström", "z", "ä", "a", "o", "ö",
	"(fwd)", "[fwd]", "[]", "Re[", "[unclosed", "a]b",
}

var leaders = []string{
	"Re: ", "RE:", "re : ", "Re[2]: ", "RE [list]:", "Fwd: ", "FW:", "fw[x] :", "Fwd[a]: ", "[list] ", "[list]", "[a][b] ", "[a] [b] ", "Re: [list] ", "[list] Re: ",
	"Aw: ", "Re: Re: ", "Re:Fwd:", "  ", "\t", "[Re: x] ", "Re[a][b]: ", "Re:[a]Re:", "[a Re: ", "[a[b] ",
}

var trailers = []string{" (fwd)", "(FWD)", " (fwd) (Fwd)", " ", "  (fwd)  ", " (fwd", "(fwd) x"}

// hardSubject makes the value of a Subject field.
func hardSubject(r *rand.Rand) string {
	s := subjects[r.IntN(len(subjects))]
	switch r.IntN(4) {
	case 0:
	case 1:
		s = encodedWord(r, s)
	default:
		s = strings.Join(eachWord(r, strings.Split(s, " ")), " ")
	}
	if r.IntN(6) == 0 {
		s += trailers[r.IntN(len(trailers))]
	}
	for range []int{0, 0, 1, 1, 2, 3}[r.IntN(6)] {
		l := leaders[r.IntN(len(leaders))]
		if r.IntN(8) == 0 {
			l = encodedWord(r, l) + " "
		}
		s = l + s
	}
	switch r.IntN(16) {
	case 0:
		s = "[fwd: " + s + "]"
	case 1:
		s = "[Fwd:" + s + "] (fwd)"
	case 2:
		s = "Re: [FWD: " + s + "]"
	case 3:
		if i := strings.IndexByte(s, ' '); i > 0 && s[i-1] != '=' {
			s = s[:i] + "\r\n" + s[i:]
		}
	}
	return s
}

func eachWord(r *rand.Rand, words []string) []string {
	for i, w := range words {
		if ascii(w) && r.IntN(5) > 0 || w == "" {
			continue
		}
		words[i] = encodedWord(r, w)
	}
	return words
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// latin1 gives text in ISO 8859-1 where it fits.
func latin1(s string) ([]byte, bool) {
	var b []byte
	for _, c := range s {
		if c > 0xff {
			return nil, false
		}
		b = append(b, byte(c))
	}
	return b, true
}

// koi8 gives lower and upper case Russian in KOI8-R where it fits.
func koi8(s string) ([]byte, bool) {
	const order = "юабцдефгхийклмнопярстужвьызшэщчъЮАБЦДЕФГХИЙКЛМНОПЯРСТУЖВЬЫЗШЭЩЧЪ"
	places := map[rune]byte{}
	n := byte(0xc0)
	for _, c := range order {
		places[c] = n
		n++
	}
	var b []byte
	for _, c := range s {
		p, ok := places[c]
		switch {
		case ok:
			b = append(b, p)
		case c < 0x80:
			b = append(b, byte(c))
		default:
			return nil, false
		}
	}
	return b, true
}

// encodedWord encodes text by RFC 2047, in one of several character sets.
func encodedWord(r *rand.Rand, s string) string {
	charset, raw := []string{"utf-8", "UTF-8"}[r.IntN(2)], []byte(s)
	if l, ok := latin1(s); ok && r.IntN(2) == 0 {
		charset, raw = []string{"iso-8859-1", "ISO-8859-1", "windows-1252"}[r.IntN(3)], l
	}
	if k, ok := koi8(s); ok && !ascii(s) && r.IntN(2) == 0 {
		charset, raw = "KOI8-R", k
	}
	if s == "日本語" && r.IntN(2) == 0 {
		return "=?ISO-2022-JP?B?GyRCRnxLXDhsGyhC?="
	}
	if r.IntN(2) == 0 {
		if i := strings.IndexByte(s, ' '); i > 0 && r.IntN(2) == 0 && strings.EqualFold(charset, "utf-8") {
			return fmt.Sprintf("=?%s?b?%s?= =?utf-8?Q?%s?=", charset, base64.StdEncoding.EncodeToString(raw[:i+1]), quotedWord(s[i+1:]))
		}
		return fmt.Sprintf("=?%s?B?%s?=", charset, base64.StdEncoding.EncodeToString(raw))
	}
	return fmt.Sprintf("=?%s?%s?%s?=", charset, []string{"q", "Q"}[r.IntN(2)], quotedWord(string(raw)))
}

func quotedWord(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == ' ':
			b.WriteByte('_')
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}

var hardDates = []string{
	"Mon, %d Jan 2024 10:%02d:30 +0100", "%d Feb 2024 23:%02d:00 -0800", "Tue, %d Mar 2023 10:%02d:01 GMT", "%d Apr 24 10:%02d EST", "Fri, %d May 99 10:%02d:01 +0000",
	"Sat, %d Jun 2022 10:%02d:01 +0530 (IST)", "%d Jul 1971 10:%02d:01 +0000", "Sun,%d Aug 2024 10:%02d:01 PDT", "%d   Sep   2024   10:%02d:09   Z", "Wed, %d Oct 2024 10:%02d:60 +0000",
}

var badDates = []string{"", "yesterday", "Mon, 32 Jan 2024 10:00:00 +0000", "2024-01-02T03:04:05Z", "1 Foo 2024 10:00:00 +0000", "1 Jan 2024 10:00:00", "Mon Jan  1 10:00:00 2024"}

// hardDate makes the value of a Date field; none: there shall be no field.
func hardDate(r *rand.Rand) (value string, good, none bool) {
	switch r.IntN(12) {
	case 0:
		return "", false, true
	case 1:
		return badDates[r.IntN(len(badDates))], false, false
	}
	return fmt.Sprintf(hardDates[r.IntN(len(hardDates))], 1+r.IntN(28), r.IntN(60)), true, false
}

var hardNames = []string{"Ann", "ann", "Bob B.", `"Bob, B."`, "=?utf-8?Q?=C3=9Cmit?=", "=?iso-8859-1?Q?=FCmit?=", `"=?utf-8?Q?Quoted?="`, `"q \"u\""`, "Zoë", "", "=?utf-8?B?0L/RgNC40LLQtdGC?= X", "a.b"}

func hardMailbox(r *rand.Rand) string {
	local := []string{"ann", "Ann", "BOB", "carl.x", `"d e"`, "zed", "éva", "a+b"}[r.IntN(8)]
	host := []string{"example.org", "Example.ORG", "b.example", "[192.0.2.1]"}[r.IntN(4)]
	name := hardNames[r.IntN(len(hardNames))]
	form := r.IntN(10)
	if local == `"d e"` && form == 2 {
		form = 5 // a quoted string alone is no address
	}
	switch form {
	case 0:
		return local + "@" + host + " (" + strings.NewReplacer(`"`, "", `\`, "").Replace(name) + ")"
	case 1:
		return name + " <@r1.example,@r2.example:" + local + "@" + host + ">"
	case 2:
		return local
	case 3:
		return name + " <" + local + ">"
	case 4:
		return local + "@" + host
	}
	return name + " <" + local + "@" + host + ">"
}

func hardAddresses(r *rand.Rand) string {
	var list []string
	for range 1 + r.IntN(3) {
		list = append(list, hardMailbox(r))
	}
	s := strings.Join(list, ", ")
	switch r.IntN(12) {
	case 0:
		return "undisclosed-recipients:;"
	case 1:
		return "Team: " + s + ";"
	case 2:
		return "=?utf-8?Q?Gr=C3=BCppe?=: " + s + ";, last@example.org"
	case 3:
		return ""
	case 4:
		return strings.ReplaceAll(s, ", ", ",\r\n\t")
	}
	return s
}

// hardMail makes the n-th of a series of messages that refer to each other. dated: it
// has a good Date.
func hardMail(r *rand.Rand, n int) (text string, dated bool) {
	id := func(k int) string {
		switch k % 17 {
		case 3:
			return fmt.Sprintf(`<"m%d"@x.example>`, k)
		case 5:
			return fmt.Sprintf("<M%d@X.example>", k)
		case 7:
			return fmt.Sprintf(`<"m %d"@x.example>`, k)
		}
		return fmt.Sprintf("<m%d@x.example>", k)
	}
	var b strings.Builder
	field := func(name, value string) { b.WriteString(name + ": " + value + "\r\n") }
	date, dated, none := hardDate(r)
	if !none {
		field("Date", date)
	}
	if r.IntN(15) > 0 {
		field([]string{"Subject", "SUBJECT", "subject"}[r.IntN(3)], hardSubject(r))
	}
	for _, name := range []string{"From", "To", "Cc"} {
		if r.IntN(8) > 0 {
			field(name, hardAddresses(r))
		}
	}
	switch r.IntN(14) {
	case 0:
	case 1:
		field("Message-ID", id(r.IntN(n+1))) // given twice
	case 2:
		field("Message-ID", "no brackets "+fmt.Sprint(n))
	case 3:
		field("Message-ID", id(n)+" (a comment)")
	case 4:
		field("Message-Id", "\r\n "+id(n))
	default:
		field("Message-ID", id(n))
	}
	var refs []string
	for k := n; k > 0 && len(refs) < 5 && r.IntN(4) > 0; {
		k -= 1 + r.IntN(min(k, 12))
		refs = append([]string{id(k)}, refs...)
	}
	switch r.IntN(12) {
	case 0:
		refs = append(refs, id(n)) // itself
	case 1:
		refs = append(refs, id(n+1+r.IntN(5))) // what comes later
	case 2:
		refs = append(refs, "<lost"+fmt.Sprint(r.IntN(9))+"@y.example>")
	case 3:
		refs = append([]string{"<lost" + fmt.Sprint(r.IntN(9)) + "@y.example>"}, refs...)
	case 4:
		refs = append(refs, "junk", "<nohost>", "<>")
	case 5:
		refs = append(refs, refs...)
	}
	sep := []string{" ", "\r\n ", "", ", ", " (c) "}[r.IntN(5)]
	switch r.IntN(10) {
	case 0:
		field("In-Reply-To", strings.Join(refs, sep))
	case 1:
		if len(refs) > 0 {
			field("In-Reply-To", "Your message of today "+refs[len(refs)-1])
		}
	case 2:
		field("References", "nothing of use")
		field("In-Reply-To", id(r.IntN(n+1)))
	case 3:
		field("References", strings.Join(refs, sep))
		field("In-Reply-To", id(r.IntN(n+1)))
	default:
		field("References", strings.Join(refs, sep))
	}
	b.WriteString("\r\n" + strings.Repeat("text\r\n", r.IntN(20)) + subjects[r.IntN(len(subjects))] + "\r\n")
	return b.String(), dated
}
