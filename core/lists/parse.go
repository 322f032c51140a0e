package lists

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// parser reads logical lines and gathers faults.
type parser struct {
	name   string
	src    io.Reader
	faults []error
}

// fault notes what is wrong with a line; false means that there are too many.
func (p *parser) fault(line int, format string, args ...any) bool {
	if len(p.faults) == maxFaults {
		p.faults = append(p.faults, errMany)
	}
	if len(p.faults) < maxFaults {
		p.faults = append(p.faults, fmt.Errorf("%s:%d: %w", p.name, line, fmt.Errorf(format, args...)))
	}
	return len(p.faults) <= maxFaults
}

// lines calls each for every logical line, with the number of its first one,
// until it returns false.
func (p *parser) lines(each func(line int, text string) bool) error {
	s := bufio.NewScanner(p.src)
	s.Buffer(make([]byte, 0, 4096), maxLine)
	var text strings.Builder
	first, n, octets := 0, 0, 0
	more := true
	flush := func() {
		if first > 0 && more {
			more = each(first, strings.TrimSpace(text.String()))
		}
		text.Reset()
		first = 0
	}
	for more && s.Scan() {
		n++
		line := s.Text()
		if octets += len(line) + 1; octets > MaxFile {
			return fmt.Errorf("%s is larger than %d octets", p.name, MaxFile)
		}
		switch trimmed := strings.TrimSpace(line); {
		case trimmed == "" || trimmed[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if first == 0 {
				more = p.fault(n, "the line begins with blank, but there is none that it goes on with; begin it at the margin")
			} else if text.Len()+len(trimmed) > maxLine {
				more = p.fault(first, "the line is longer than %d octets", maxLine)
			} else {
				text.WriteString(" " + trimmed)
			}
		default:
			flush()
			text.WriteString(trimmed)
			first = n
		}
	}
	flush()
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		p.fault(n+1, "the line is longer than %d octets", maxLine)
		return nil
	}
	return s.Err()
}

// end joins the faults.
func (p *parser) end(entries int, f finder, err error) (*contents, error) {
	if err = errors.Join(append(p.faults, err)...); err != nil {
		return nil, err
	}
	return &contents{entries, f}, nil
}

// cut splits a line at its first blank.
func cut(text string) (key, value string) {
	if i := strings.IndexAny(text, " \t"); i >= 0 {
		return text[:i], strings.TrimSpace(text[i:])
	}
	return text, ""
}

// table has exact keys.
type table map[string]string

func (t table) find(key string) (string, bool) {
	v, ok := t[strings.ToLower(key)]
	return v, ok
}

func (p *parser) table() (*contents, error) {
	t := table{}
	values := map[string]string{} // most keys share a few
	err := p.lines(func(line int, text string) bool {
		key, value := cut(text)
		key = strings.ToLower(key)
		if _, ok := t[key]; ok {
			return p.fault(line, "%s is there already; keep one of the two lines", key)
		}
		if len(t) == MaxEntries {
			return p.fault(line, "there are more than %d keys", MaxEntries)
		}
		if v, ok := values[value]; ok {
			value = v
		} else if len(values) < 10_000 {
			values[value] = value
		}
		t[key] = value
		return true
	})
	return p.end(len(t), t, err)
}

// cidr finds the first network in the order of the file. Networks of one length
// are a map, so a lookup asks as many maps as there are lengths.
type cidr struct {
	byBits map[int]map[netip.Addr]entry // IPv4 and IPv6 apart: IPv6 lengths are counted from 100
	bits   []int
}

type entry struct {
	order int
	value string
}

func (c *cidr) find(key string) (string, bool) {
	addr, err := netip.ParseAddr(key)
	if err != nil {
		return "", false
	}
	addr = addr.Unmap().WithZone("")
	best, found := entry{}, false
	for _, n := range c.bits {
		length := n
		if n >= sixes {
			length -= sixes
		}
		if (n >= sixes) != addr.Is6() {
			continue
		}
		p, err := addr.Prefix(length)
		if err != nil {
			continue
		}
		if e, ok := c.byBits[n][p.Addr()]; ok && (!found || e.order < best.order) {
			best, found = e, true
		}
	}
	return best.value, found
}

// sixes is added to the length of IPv6 networks.
const sixes = 100

func (p *parser) cidr() (*contents, error) {
	c := &cidr{byBits: map[int]map[netip.Addr]entry{}}
	count := 0
	err := p.lines(func(line int, text string) bool {
		key, value := cut(text)
		if key[0] == '!' || key == "if" || key == "endif" {
			return p.fault(line, "%s is not supported; write the networks that are meant, the narrower ones first", key)
		}
		net, err := netip.ParsePrefix(key)
		if err != nil {
			var addr netip.Addr
			if addr, err = netip.ParseAddr(key); err != nil || addr.Zone() != "" {
				return p.fault(line, "%s is no network; write one such as 192.0.2.0/24, 192.0.2.1 or 2001:db8::/32", key)
			}
			net = netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
		}
		if net.Addr().Is4In6() {
			return p.fault(line, "%s is an IPv4 network in IPv6's form; write the IPv4 form", key)
		}
		if net != net.Masked() {
			return p.fault(line, "%s has bits after its prefix; write %s", key, net.Masked())
		}
		if count++; count > MaxEntries {
			return p.fault(line, "there are more than %d networks", MaxEntries)
		}
		n := net.Bits()
		if net.Addr().Is6() {
			n += sixes
		}
		if c.byBits[n] == nil {
			c.byBits[n] = map[netip.Addr]entry{}
			c.bits = append(c.bits, n)
		}
		if _, ok := c.byBits[n][net.Addr()]; !ok { // the first one counts
			c.byBits[n][net.Addr()] = entry{line, value}
		}
		return true
	})
	slices.Sort(c.bits)
	return p.end(count, c, err)
}

// regexps are tried in turn.
type regexps []rule

type rule struct {
	re    *regexp.Regexp
	value string
	refs  bool // value has a reference
}

func (rs regexps) find(key string) (string, bool) {
	for _, r := range rs {
		if !r.refs {
			if r.re.MatchString(key) {
				return r.value, true
			}
			continue
		}
		if m := r.re.FindStringSubmatchIndex(key); m != nil {
			return string(r.re.ExpandString(nil, r.value, key, m)), true
		}
	}
	return "", false
}

func (p *parser) regexps() (*contents, error) {
	var rs regexps
	err := p.lines(func(line int, text string) bool {
		pattern, flags, value, ok := slashed(text)
		if !ok {
			return p.fault(line, "write /pattern/ value, or /pattern/flags value")
		}
		if strings.Trim(flags, "ixms") != "" {
			return p.fault(line, "there is no flag %q; write i, m, s or x, each of which turns its meaning over", strings.Trim(flags, "ixms"))
		}
		if strings.Contains(flags, "x") {
			return p.fault(line, "the flag x is not supported; write the pattern without blanks and comments")
		}
		re, err := regexp.Compile(prefix(flags) + pattern)
		if err != nil {
			return p.fault(line, "%s: %v; write RE2 syntax, which has no look-around and no back-references", pattern, err)
		}
		value, err = references(value, re.NumSubexp())
		if err != nil {
			return p.fault(line, "%v", err)
		}
		if len(rs) == MaxRegexps {
			return p.fault(line, "there are more than %d patterns", MaxRegexps)
		}
		rs = append(rs, rule{re, value, strings.Contains(value, "$")})
		return true
	})
	return p.end(len(rs), rs, err)
}

// slashed splits "/pattern/flags value". A slash in the pattern is "\/".
func slashed(text string) (pattern, flags, value string, ok bool) {
	if len(text) < 2 || text[0] != '/' {
		return "", "", "", false
	}
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '/':
			flags, value = cut(text[i+1:])
			if strings.HasPrefix(text[i+1:], " ") || strings.HasPrefix(text[i+1:], "\t") {
				flags, value = "", strings.TrimSpace(text[i+1:])
			}
			return strings.ReplaceAll(text[1:i], `\/`, "/"), flags, value, i > 1
		}
	}
	return "", "", "", false
}

// prefix is the RE2 form of Postfix's flags, of which i is on until it is written.
func prefix(flags string) string {
	insensitive := strings.Count(flags, "i")%2 == 0
	set := ""
	if insensitive {
		set = "i"
	}
	for _, f := range "ms" {
		if strings.Count(flags, string(f))%2 == 1 {
			set += string(f)
		}
	}
	if set == "" {
		return ""
	}
	return "(?" + set + ")"
}

// references turns $1, ${1} and $(1) into Go's form and $$ into a dollar sign.
func references(value string, groups int) (string, error) {
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		if value[i] != '$' {
			b.WriteByte(value[i])
			continue
		}
		rest := value[i+1:]
		if strings.HasPrefix(rest, "$") {
			b.WriteString("$$")
			i++
			continue
		}
		open := len(rest) > 0 && (rest[0] == '{' || rest[0] == '(')
		digits := rest
		if open {
			digits = rest[1:]
		}
		n := 0
		for n < len(digits) && n < 3 && digits[n] >= '0' && digits[n] <= '9' {
			n++
		}
		if n == 0 || open && (n >= len(digits) || digits[n] != map[byte]byte{'{': '}', '(': ')'}[rest[0]]) {
			return "", errors.New("after $ there is no number; write $1, ${1} or $$ for a dollar sign")
		}
		number := 0
		for _, c := range digits[:n] {
			number = number*10 + int(c-'0')
		}
		if number > groups {
			return "", fmt.Errorf("$%d refers to a group in brackets that the pattern does not have: it has %d", number, groups)
		}
		fmt.Fprintf(&b, "${%d}", number)
		i += n
		if open {
			i += 2
		}
	}
	return b.String(), nil
}
