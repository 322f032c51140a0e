package imapd

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// Bounds of what a command may hold.
const (
	maxAtom      = 8 << 10
	maxFlags     = 100
	maxNesting   = 32
	maxKeys      = 1024 // search keys, fetch items, list patterns, header names
	smallLiteral = 4 << 10
)

// refusal is a tagged reply that is not OK, as an error.
type refusal struct {
	status string // "NO" or "BAD"
	code   string // response code without brackets, "" if none
	text   string
}

func (r *refusal) Error() string { return r.status + " " + r.text }

func bad(format string, args ...any) error {
	return &refusal{status: "BAD", text: fmt.Sprintf(format, args...)}
}

func no(code, text string) error { return &refusal{status: "NO", code: code, text: text} }

// parser reads one command (RFC 9051 §9) from lines and, as they are met, from
// literals. Every method either moves past what it has read or returns an error;
// after an error skipRest finds the end of the command.
type parser struct {
	in       *reader      // nil: the command is one line, literals are refused
	proceed  func() error // sends the continuation request and flushes
	line     []byte
	pos      int
	literals int64 // octets of literals that this command may still hold in memory
	utf8     bool  // mailbox names are UTF-8
}

func (p *parser) rest() []byte { return p.line[p.pos:] }

func (p *parser) peek() byte {
	if p.pos < len(p.line) {
		return p.line[p.pos]
	}
	return 0
}

func (p *parser) atEnd() bool { return p.pos >= len(p.line) }

func (p *parser) eat(c byte) bool {
	if p.pos < len(p.line) && p.line[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

// space reads the blank between arguments. More than one is forgiven.
func (p *parser) space() error {
	if !p.eat(' ') {
		if p.atEnd() {
			return bad("Missing argument")
		}
		return bad("Expected a space at octet %d", p.pos+1)
	}
	p.blanks()
	return nil
}

func (p *parser) blanks() {
	for p.eat(' ') {
	}
}

// end demands the end of the command.
func (p *parser) end() error {
	p.blanks()
	if !p.atEnd() {
		return bad("Unexpected text after the arguments at octet %d", p.pos+1)
	}
	return nil
}

func (p *parser) expect(c byte) error {
	if !p.eat(c) {
		return bad("Expected %q at octet %d", string(rune(c)), p.pos+1)
	}
	return nil
}

func isAtomChar(c byte) bool {
	return c > ' ' && c < 0x7f && strings.IndexByte(`(){%*"\]`, c) < 0
}

func (p *parser) run(ok func(byte) bool) string {
	start := p.pos
	for p.pos < len(p.line) && ok(p.line[p.pos]) {
		p.pos++
	}
	return string(p.line[start:p.pos])
}

func (p *parser) atom() (string, error) {
	s := p.run(isAtomChar)
	if s == "" {
		return "", bad("Expected an atom at octet %d", p.pos+1)
	}
	if len(s) > maxAtom {
		return "", bad("Atom is too long")
	}
	return s, nil
}

// keyword reads an atom in capitals.
func (p *parser) keyword() (string, error) {
	s, err := p.atom()
	return strings.ToUpper(s), err
}

// isAstringChar also takes "]" (resp-specials), and octets outside ASCII, which
// clients send unquoted in spite of the grammar.
func isAstringChar(c byte) bool { return isAtomChar(c) || c == ']' || c >= 0x80 }

// astring reads an atom, a quoted string or a literal.
func (p *parser) astring() (string, error) {
	switch p.peek() {
	case '"', '{':
		return p.string()
	}
	s := p.run(isAstringChar)
	if s == "" {
		return "", bad("Expected a string at octet %d", p.pos+1)
	}
	return s, nil
}

// string reads a quoted string or a literal.
func (p *parser) string() (string, error) {
	switch p.peek() {
	case '"':
		return p.quoted()
	case '{':
		return p.literal()
	}
	return "", bad("Expected a quoted string or a literal at octet %d", p.pos+1)
}

func (p *parser) quoted() (string, error) {
	var b []byte
	for i := p.pos + 1; i < len(p.line); i++ {
		c := p.line[i]
		switch {
		case c == '"':
			p.pos = i + 1
			return string(b), nil
		case c == 0 || c == '\r':
			return "", bad("Quoted string has a control character")
		case c == '\\':
			if i++; i == len(p.line) || p.line[i] != '"' && p.line[i] != '\\' {
				return "", bad("Quoted string has a bad escape")
			}
			c = p.line[i]
		}
		b = append(b, c)
	}
	return "", bad("Quoted string does not end")
}

// literalHeader is "{n}", "{n+}" or "~{n}" at the end of a line.
type literalHeader struct {
	size   int64
	nosync bool // LITERAL+ (RFC 7888)
	binary bool // literal8 (RFC 3516)
}

// parseLiteralHeader reads a header that must fill b.
func parseLiteralHeader(b []byte) (h literalHeader, ok bool) {
	if len(b) > 0 && b[0] == '~' {
		h.binary, b = true, b[1:]
	}
	if len(b) < 3 || b[0] != '{' || b[len(b)-1] != '}' {
		return h, false
	}
	b = b[1 : len(b)-1]
	if b[len(b)-1] == '+' {
		h.nosync, b = true, b[:len(b)-1]
	}
	if len(b) == 0 || len(b) > 18 {
		return h, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return h, false
		}
		h.size = h.size*10 + int64(c-'0')
	}
	return h, true
}

// literal reads a literal into memory.
func (p *parser) literal() (string, error) {
	h, ok := parseLiteralHeader(p.rest())
	if !ok || h.binary {
		return "", bad("Malformed literal at octet %d", p.pos+1)
	}
	if h.size > p.literals || p.in == nil {
		return "", &refusal{"BAD", "TOOBIG", "Literal is too big here"}
	}
	p.literals -= h.size
	if err := p.accept(h); err != nil {
		return "", err
	}
	b := make([]byte, h.size)
	for n := 0; n < len(b); {
		k, err := p.in.Read(b[n:])
		n += k
		if err != nil && n < len(b) {
			return "", err
		}
	}
	if err := p.nextLine(); err != nil {
		return "", err
	}
	for _, c := range b {
		if c == 0 {
			return "", bad("Literal holds a NUL")
		}
	}
	return string(b), nil
}

// accept moves past a literal's header and asks for its octets.
func (p *parser) accept(h literalHeader) error {
	p.pos = len(p.line)
	if h.nosync {
		return nil
	}
	return p.proceed()
}

// nextLine goes on with the line that follows a literal.
func (p *parser) nextLine() error {
	line, err := p.in.line()
	p.line, p.pos = line, 0
	if errors.Is(err, errLineTooLong) {
		p.line = nil
		return bad("Command line is too long")
	}
	return err
}

// skipRest reads to the end of a command that has been refused. Literals that
// the client sends without being asked are drained, so that their octets are
// never taken for commands; limit bounds them.
func (p *parser) skipRest(limit int64) error {
	for p.in != nil {
		rest := p.rest()
		p.pos = len(p.line)
		at := len(rest)
		for at > 0 && rest[at-1] != '{' {
			at--
		}
		if at == 0 {
			return nil
		}
		h, ok := parseLiteralHeader(rest[at-1:])
		if !ok || !h.nosync {
			return nil
		}
		if limit -= h.size; limit < 0 {
			return errGiveUp
		}
		if err := p.in.discard(h.size); err != nil {
			return err
		}
		line, err := p.in.line()
		if errors.Is(err, errLineTooLong) {
			return nil
		}
		if err != nil {
			return err
		}
		p.line, p.pos = line, 0
	}
	return nil
}

// number64 reads an unsigned number of at most 63 bits.
func (p *parser) number64() (uint64, error) {
	start := p.pos
	var n uint64
	for p.pos < len(p.line) && p.line[p.pos] >= '0' && p.line[p.pos] <= '9' {
		if n > math.MaxInt64/10 {
			return 0, bad("Number is too big")
		}
		n = n*10 + uint64(p.line[p.pos]-'0')
		p.pos++
	}
	if p.pos == start {
		return 0, bad("Expected a number at octet %d", start+1)
	}
	if n > math.MaxInt64 {
		return 0, bad("Number is too big")
	}
	return n, nil
}

func (p *parser) number() (uint32, error) {
	n, err := p.number64()
	if err == nil && n > math.MaxUint32 {
		return 0, bad("Number is too big")
	}
	return uint32(n), err
}

// mailbox reads a mailbox name and returns it in UTF-8, INBOX in capitals.
func (p *parser) mailbox() (string, error) {
	s, err := p.astring()
	if err != nil {
		return "", err
	}
	return p.mailboxName(s)
}

func (p *parser) mailboxName(s string) (string, error) {
	if strings.EqualFold(s, "INBOX") {
		return "INBOX", nil
	}
	if p.utf8 {
		return s, nil // the store refuses what is not UTF-8
	}
	name, err := decodeMailbox(s)
	if err != nil {
		return "", no("CANNOT", "Mailbox name is not valid modified UTF-7")
	}
	return name, nil
}

// list calls item for each element of a parenthesized list.
func (p *parser) list(item func() error) error {
	if err := p.expect('('); err != nil {
		return err
	}
	for n := 0; ; n++ {
		p.blanks()
		if p.eat(')') {
			return nil
		}
		if n >= maxKeys {
			return bad("List has too many elements")
		}
		if err := item(); err != nil {
			return err
		}
		if c := p.peek(); c != ' ' && c != ')' {
			return bad("List does not end")
		}
	}
}

// flag reads one flag or keyword as it stands.
func (p *parser) flag() (string, error) {
	slash := ""
	if p.eat('\\') {
		slash = `\`
	}
	s, err := p.atom()
	return slash + s, err
}

// flags reads a list of flags, with parentheses or, where STORE allows it,
// without.
func (p *parser) flags(bare bool) ([]string, error) {
	var all []string
	item := func() error {
		f, err := p.flag()
		if all = append(all, f); len(all) > maxFlags {
			return bad("Too many flags")
		}
		return err
	}
	if p.peek() == '(' || !bare {
		err := p.list(item)
		return all, err
	}
	for {
		if err := item(); err != nil {
			return nil, err
		}
		if !p.eat(' ') {
			return all, nil
		}
		p.blanks()
	}
}

// date reads "1-Feb-1994" with or without quotes.
func (p *parser) date() (time.Time, error) {
	s, err := p.astring()
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse("_2-Jan-2006", s)
	if err != nil {
		return time.Time{}, bad("Date is malformed")
	}
	return t, nil
}

// internalDateLayout is RFC 9051 §9's date-time.
const internalDateLayout = "_2-Jan-2006 15:04:05 -0700"

func (p *parser) dateTime() (time.Time, error) {
	s, err := p.quoted()
	if err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(internalDateLayout, s)
	if err != nil {
		return time.Time{}, bad("Date and time are malformed")
	}
	return t, nil
}
