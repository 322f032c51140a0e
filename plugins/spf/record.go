package main

import (
	"net/netip"
	"strconv"
	"strings"
)

// Bounds of a record. RFC 7208 §3.4 asks for records of at most 450 octets; the
// longest that DNS can carry is 64 KiB.
const (
	maxRecord = 8 << 10 // octets
	maxName   = 253     // octets of a name as text, without the last dot (RFC 1035 §2.3.4)
	maxLabel  = 63
)

// brokenError is why an evaluation cannot end in a result of the record's.
type brokenError struct {
	temporary bool
	text      string // for people
	problem   string // the offending part of the record
}

func (e *brokenError) Error() string { return e.text + ": " + e.problem }

func permanent(text, problem string) *brokenError { return &brokenError{false, text, problem} }
func temporary(text, problem string) *brokenError { return &brokenError{true, text, problem} }

// useFQDN is what people who search for it know this error as.
const useFQDN = "Invalid domain found (use FQDN)"

// mechanism is the kind of a directive (RFC 7208 §5).
type mechanism uint8

const (
	mechAll mechanism = iota
	mechInclude
	mechA
	mechMX
	mechPTR
	mechIP
	mechExists
)

// directive is a mechanism with its qualifier.
type directive struct {
	kind       mechanism
	result     result       // of a match
	spec       string       // domain-spec, "" for the current domain
	network    netip.Prefix // of ip4 and ip6
	bits4      int          // prefix lengths of a and mx
	bits6      int
	asWritten  string
	countsTerm bool // it is one of the ten that cause lookups (§4.6.4)
}

// record is a policy (§3, §4.6.1).
type record struct {
	directives []directive
	redirect   string // domain-spec, "" if there is none
	exp        string // domain-spec, "" if there is none
}

// denyAll reports whether the record says that its domain sends no mail.
func (r *record) denyAll() bool {
	return len(r.directives) == 1 && r.directives[0].kind == mechAll && r.directives[0].result == fail
}

// isPolicy reports whether a TXT record begins with the version section (§4.5).
func isPolicy(txt string) bool {
	const version = "v=spf1"
	return len(txt) >= len(version) && strings.EqualFold(txt[:len(version)], version) &&
		(len(txt) == len(version) || txt[len(version)] == ' ')
}

// parseRecord reads a record that isPolicy. Every error of syntax in it is
// found, wherever it stands (§4.6). A name of one label is taken if single is
// true.
func parseRecord(s string, single bool) (record, *brokenError) {
	var r record
	if len(s) > maxRecord {
		return r, permanent("record is too long", strconv.Itoa(len(s))+" octets")
	}
	if !isPrintable(s) {
		return r, permanent("record has a character that is not printable ASCII", "")
	}
	rest := s[len("v=spf1"):]
	r.directives = make([]directive, 0, min(strings.Count(rest, " "), 32))
	for rest != "" {
		var term string
		if term, rest, _ = strings.Cut(rest, " "); term == "" {
			continue
		}
		if n := separator(term); n < len(term) && term[n] == '=' {
			if err := r.modifier(term[:n], term[n+1:], single); err != nil {
				return r, err
			}
			continue
		}
		d, err := parseDirective(term, single)
		if err != nil {
			return r, err
		}
		r.directives = append(r.directives, d)
	}
	return r, nil
}

// separator is where the name of a term ends: at the first '=', ':' or '/'.
// This loop has a function of its own because fuel counts the whole function
// around a loop for each round.
//
//go:noinline
func separator(s string) int {
	for i := range len(s) {
		if c := s[i]; c == '=' || c == ':' || c == '/' {
			return i
		}
	}
	return len(s)
}

// modifier takes "name=value" (§6). What it does not know must be well-formed
// and is passed over.
func (r *record) modifier(name, value string, single bool) *brokenError {
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || !(c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.')) {
			return permanent("malformed name of a modifier", name)
		}
	}
	var into *string
	switch {
	case name == "":
		return permanent("modifier without a name", "="+value)
	case strings.EqualFold(name, "redirect"):
		into = &r.redirect
	case strings.EqualFold(name, "exp"):
		into = &r.exp
	default:
		return scan(value, false, func(string) {}, func(macro) {})
	}
	if *into != "" {
		return permanent("modifier stands there twice", name)
	}
	*into = value
	return checkSpec(value, single)
}

// mechanismOf finds a mechanism by its name, in any case. four tells ip4 from
// ip6; term says whether it counts as one of the ten that cause lookups.
func mechanismOf(name string) (kind mechanism, four, term, ok bool) {
	switch strings.ToLower(name) {
	case "all":
		return mechAll, false, false, true
	case "ip4":
		return mechIP, true, false, true
	case "ip6":
		return mechIP, false, false, true
	case "include":
		return mechInclude, false, true, true
	case "a":
		return mechA, false, true, true
	case "mx":
		return mechMX, false, true, true
	case "ptr":
		return mechPTR, false, true, true
	case "exists":
		return mechExists, false, true, true
	}
	return 0, false, false, false
}

// parseDirective reads one mechanism with its qualifier (§4.6.1, §5).
func parseDirective(term string, single bool) (directive, *brokenError) {
	d := directive{result: pass, bits4: 32, bits6: 128, asWritten: term}
	rest := term
	switch rest[0] {
	case '+':
		rest = rest[1:]
	case '-':
		d.result, rest = fail, rest[1:]
	case '~':
		d.result, rest = softfail, rest[1:]
	case '?':
		d.result, rest = neutral, rest[1:]
	}
	n := separator(rest)
	name, arg := rest[:n], rest[n:]
	hasArg := arg != "" && arg[0] == ':'
	if hasArg {
		arg = arg[1:]
	}
	kind, four, counts, known := mechanismOf(name)
	d.kind, d.countsTerm = kind, counts
	switch {
	case !known:
		return d, permanent("Unknown mechanism found", term)
	case d.kind == mechAll && (hasArg || arg != ""):
		return d, permanent("mechanism takes no argument", term)
	case d.kind == mechAll:
		return d, nil
	case d.kind == mechIP:
		network, ok := parseNetwork(arg, four)
		if !hasArg || !ok {
			return d, permanent("Invalid IP address", term)
		}
		d.network = network
		return d, nil
	case d.kind == mechA || d.kind == mechMX:
		var err *brokenError
		if arg, err = d.prefixLengths(arg); err != nil {
			return d, err
		}
	}
	d.spec = arg
	switch {
	case hasArg:
		return d, checkSpec(arg, single)
	case arg != "":
		return d, permanent("mechanism takes no prefix length", term)
	case d.kind == mechInclude || d.kind == mechExists:
		return d, permanent("mechanism without a domain", term)
	}
	return d, nil
}

// prefixLengths takes a dual-cidr-length from the end of an argument and
// returns what is in front of it (§5.3).
func (d *directive) prefixLengths(arg string) (string, *brokenError) {
	rest, digits, double := cutPrefixLength(arg)
	if double {
		n, ok := parseBits(digits, 128)
		if !ok {
			return "", permanent("Invalid IP6 prefix length", d.asWritten)
		}
		d.bits6 = n
		arg = rest
		rest, digits, double = cutPrefixLength(arg)
	}
	if digits == "" || double {
		return arg, nil
	}
	n, ok := parseBits(digits, 32)
	if !ok {
		return "", permanent("Invalid IP4 prefix length", d.asWritten)
	}
	d.bits4 = n
	return rest, nil
}

// cutPrefixLength cuts "/DIGITS" or "//DIGITS" off the end of s; digits is ""
// where there is none.
func cutPrefixLength(s string) (rest, digits string, double bool) {
	n := strings.LastIndexByte(s, '/')
	if n < 0 || n == len(s)-1 {
		return s, "", false
	}
	for i := n + 1; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return s, "", false
		}
	}
	digits = s[n+1:]
	if n > 0 && s[n-1] == '/' {
		return s[:n-1], digits, true
	}
	return s[:n], digits, false
}

// parseBits reads a prefix length without leading zeros.
func parseBits(s string, most int) (int, bool) {
	if s == "" || len(s) > 3 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + int(s[i]-'0')
	}
	return n, n <= most
}

// parseNetwork reads the argument of ip4 and ip6 (§5.6).
func parseNetwork(s string, four bool) (netip.Prefix, bool) {
	bits := 128
	if four {
		bits = 32
	}
	text, length, ok := strings.Cut(s, "/")
	if ok {
		if bits, ok = parseBits(length, bits); !ok {
			return netip.Prefix{}, false
		}
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Is4() != four || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, bits), true
}

// checkSpec checks the syntax of a domain-spec: it ends in a macro or in a dot
// and a toplabel, and uses no macro that only explanations have (§7.1, §7.2).
func checkSpec(s string, single bool) *brokenError {
	var tail []byte // literal text behind the last macro
	hasMacro, forbidden := false, false
	literal := func(t string) {
		if t == "%" || t == " " || t == "%20" { // %%, %_ and %- are macros too
			tail, hasMacro = tail[:0], true
			return
		}
		tail = append(tail, t...)
	}
	err := scan(s, false, literal, func(m macro) {
		tail, hasMacro = tail[:0], true
		forbidden = forbidden || strings.IndexByte(explainLetters, m.letter) >= 0
	})
	switch {
	case err != nil:
		return err
	case forbidden:
		return permanent("macro that only an explanation may have", s)
	case s == "":
		return permanent("empty domain", s)
	case hasMacro && len(tail) == 0:
		return nil
	}
	name := strings.TrimSuffix(string(tail), ".")
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 && (hasMacro || !single) || !isTopLabel(name[dot+1:]) {
		return permanent(useFQDN, s)
	}
	return nil
}

// isTopLabel reports whether s is a label of letters, digits and hyphens with
// no hyphen at its ends and something that is no digit (§7.1).
func isTopLabel(s string) bool {
	onlyDigits := true
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '-':
			onlyDigits = false
		default:
			return false
		}
	}
	return s != "" && !onlyDigits && s[0] != '-' && s[len(s)-1] != '-'
}
