// Package authres reads and writes the header fields in which mail servers tell each
// other who a message is from: Authentication-Results (RFC 8601) and Received-SPF (RFC
// 7208 §9.1).
//
//	f := authres.Field{ServID: "mx.example.org", Results: []authres.Result{
//		{Method: "spf", Value: "pass", Props: []authres.Prop{{Type: "smtp", Property: "mailfrom", Value: "a@example.com"}}},
//	}}
//	head := f.Format() // "Authentication-Results: mx.example.org;\r\n\tspf=pass smtp.mailfrom=a@example.com\r\n"
//
//	if authres.ClaimsName(value, "mx.example.org") { … take the field out … }
//
// What is formatted is safe whatever the values are: they are quoted where the grammar
// wants it, and octets that could break out of the field become "?". A field can be
// believed only if everything that claims to be from the same server was taken out
// when the message came in (RFC 8601 §5); ClaimsName finds those in every disguise
// that some reader might see through.
//
// # BUGS
//
// Parse keeps the last comment of each result only. Values that other servers write
// without the quotes they need, such as base64, are read up to the next blank,
// semicolon or bracket. Format cuts a value after 800 octets, because no line of a
// message may be longer than 998.
package authres

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Name is the name of the header field.
const Name = "Authentication-Results"

// Field is an Authentication-Results field.
type Field struct {
	ServID  string   // authserv-id: the server that found this out
	Version string   // "" means 1
	Results []Result // none means that nothing was looked at: "none"
	// UTF8 lets Format write characters outside ASCII, for mail with SMTPUTF8 (RFC 8601
	// §5). Otherwise they become "?".
	UTF8 bool
}

// Result is what one method found (RFC 8601 §2.2, "resinfo").
type Result struct {
	Method  string // "spf", "dkim", "dmarc", "arc", "iprev", "auth" …
	Version string // of the method; "" means 1
	Value   string // "pass", "fail" …
	Comment string
	Reason  string
	Props   []Prop
}

// Prop is a property of the message that the method looked at.
type Prop struct {
	Type     string // "smtp", "header", "policy", "body", "dns"
	Property string // "mailfrom", "d", "from" …
	Value    string
}

// Prop is the value of a property, "" if it was not given.
func (r Result) Prop(kind, property string) string {
	i := slices.IndexFunc(r.Props, func(p Prop) bool {
		return strings.EqualFold(p.Type, kind) && strings.EqualFold(p.Property, property)
	})
	if i < 0 {
		return ""
	}
	return r.Props[i].Value
}

// Format is the whole header field, folded, with its name and its last CRLF. Each
// result has lines of its own, of at most 78 columns where its values allow that.
func (f Field) Format() string {
	w := writer{utf8: f.UTF8}
	w.raw(Name + ":")
	w.word(w.value(f.ServID))
	if f.Version != "" {
		w.word(w.keyword(f.Version))
	}
	if len(f.Results) == 0 {
		w.raw(";")
		w.word("none")
	}
	for _, r := range f.Results {
		w.raw(";")
		w.fold()
		method := w.keyword(r.Method)
		if r.Version != "" {
			method += "/" + w.keyword(r.Version)
		}
		w.word(method + "=" + w.keyword(r.Value))
		if r.Comment != "" {
			w.words(w.comment(r.Comment))
		}
		if r.Reason != "" {
			w.words("reason=" + w.value(r.Reason))
		}
		for _, p := range r.Props {
			w.words(w.keyword(p.Type) + "." + w.keyword(p.Property) + "=" + w.property(p.Value))
		}
	}
	w.raw("\r\n")
	return w.b.String()
}

// maxColumns is how long lines should be at most (RFC 5322 §2.1.1); maxValue is what
// fits into a line that must not be longer than 998.
const (
	maxColumns = 78
	maxValue   = 800 // octets, with the backslashes
)

// tabWidth is the columns that the tab before a continuation line is counted as.
const tabWidth = 8

// writer folds words into lines.
type writer struct {
	b      strings.Builder
	utf8   bool
	column int
	fresh  bool // the line has nothing but its tab
}

func (w *writer) raw(s string) {
	w.b.WriteString(s)
	w.column += utf8.RuneCountInString(s)
	w.fresh = false
}

// fold begins a line.
func (w *writer) fold() {
	w.b.WriteString("\r\n\t")
	w.column, w.fresh = tabWidth, true
}

// word writes a word after a blank, or on a new line if it does not fit.
func (w *writer) word(s string) {
	switch {
	case w.fresh:
	case w.column+1+utf8.RuneCountInString(s)+1 > maxColumns: // 1 for the semicolon
		w.fold()
	default:
		w.raw(" ")
	}
	w.raw(s)
}

// words writes what may have blanks in it. At those it may be folded, as they are in
// quotes or in a comment: unfolding gives the blank back.
func (w *writer) words(s string) {
	if w.column+1+utf8.RuneCountInString(s)+1 > maxColumns && !w.fresh && tabWidth+utf8.RuneCountInString(s)+1 <= maxColumns {
		w.fold()
	}
	first := true
	for part := range strings.SplitSeq(s, " ") {
		switch {
		case first:
			w.word(part)
		// A line must not consist of blanks only, and one blank must not become two.
		case part != "" && w.column+1+utf8.RuneCountInString(part)+1 > maxColumns:
			w.b.WriteString("\r\n " + part)
			w.column = 1 + utf8.RuneCountInString(part)
		default:
			w.raw(" " + part)
		}
		first = false
	}
}

// safe replaces what no field may have, and cuts what is too long. Runs of blanks
// become one blank, or the lines could not be folded at them.
func (w *writer) safe(s string) string {
	var b strings.Builder
	blank := false
	escapes := 0
	for _, c := range s {
		if b.Len()+escapes >= maxValue {
			break
		}
		if c == ' ' || c == '\t' || c == '\r' || c == '\n' {
			blank = true
			continue
		}
		if blank {
			b.WriteByte(' ')
			blank = false
		}
		if c < ' ' || c == 0x7f || c >= 0x80 && (!w.utf8 || c == utf8.RuneError || c < 0xa0 || c == 0x2028 || c == 0x2029) {
			c = '?'
		}
		if strings.ContainsRune(`()\"`, c) {
			escapes++
		}
		b.WriteRune(c)
	}
	return b.String()
}

// keyword is s if it is one (RFC 8601 §2.2), else what is left of it.
func (w *writer) keyword(s string) string {
	k := strings.Map(func(c rune) rune {
		if c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			return c
		}
		return -1
	}, s)
	if k == "" {
		return "unknown"
	}
	return k[:min(len(k), 60)]
}

// value is s as a token or in quotes.
func (w *writer) value(s string) string {
	s = w.safe(s)
	if isToken(s) {
		return s
	}
	return quote(s)
}

// property is s as a property's value: like value, but an address or a domain needs no
// quotes (RFC 8601 §2.2, "pvalue").
func (w *writer) property(s string) string {
	s = w.safe(s)
	local, domain, ok := strings.Cut(s, "@")
	if isToken(s) || ok && (local == "" || isDotAtom(local)) && isDotAtom(domain) {
		return s
	}
	return quote(s)
}

// comment is s in brackets.
func (w *writer) comment(s string) string {
	var b strings.Builder
	b.WriteByte('(')
	for _, c := range w.safe(s) {
		if c == '(' || c == ')' || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
	b.WriteByte(')')
	return b.String()
}

func quote(s string) string {
	return `"` + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), `"`, `\"`) + `"`
}

// isToken reports whether s is a token (RFC 2045 §5.1), beyond ASCII too (RFC 8601 §2.2).
func isToken(s string) bool {
	for _, c := range s {
		if c <= ' ' || c == 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?=`, c) {
			return false
		}
	}
	return s != ""
}

// isDotAtom reports whether s is a dot-atom (RFC 5322 §3.2.3).
func isDotAtom(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" {
			return false
		}
		for _, c := range atom {
			if c <= ' ' || c == 0x7f || strings.ContainsRune(`()<>[]:;@\,."`, c) {
				return false
			}
		}
	}
	return true
}
