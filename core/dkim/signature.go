package dkim

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wafermail/wafer/core/mail"
)

// maxNames is how many names a h= may list.
const maxNames = 1000

// Signature is what a DKIM-Signature, ARC-Message-Signature or ARC-Seal field says
// (RFC 6376 §3.5, RFC 8617 §4.1).
type Signature struct {
	Field     string // name of the field as given
	Tags      Tags   // all of them
	Algorithm string // a=: "rsa-sha256", "ed25519-sha256", in lower case
	Domain    string // d= in lower case, with A-labels
	Selector  string // s= likewise
	// Identity is i= decoded, the default "@" and Domain if there is none. It may hold
	// any printable character. The ARC fields have none: their i= is something else.
	Identity    string
	HeaderCanon Canon
	BodyCanon   Canon
	Headers     []string  // h=: names in lower case, in order
	BodyHash    []byte    // bh=
	Value       []byte    // b=
	Length      int64     // l=: octets of the body in canonical form, -1 if not given
	Time        time.Time // t=; zero if not given
	Expire      time.Time // x=; zero if not given, or so far off that it is never

	raw []byte // the field without its last line end
	own [2]int // where the value of b= stands in raw
}

// The names of the fields that ParseSignature reads.
const (
	fieldDKIM       = "DKIM-Signature"
	fieldARCMessage = "ARC-Message-Signature"
	fieldARCSeal    = "ARC-Seal"
)

// ParseSignature reads a field, raw with its name and folding. Its name decides what
// is required: a DKIM-Signature must be of version 1, cover From and have an i= within
// d=; an ARC-Message-Signature has no version and its i= is left in Tags; an ARC-Seal
// has none of h=, bh=, c= and l= either, and is always relaxed. The Signature is never nil
// and holds what could be read.
func ParseSignature(raw []byte) (*Signature, *Fault) {
	raw = trimLineEnd(raw)
	s := &Signature{raw: raw, Length: -1}
	colon := bytes.IndexByte(raw, ':')
	if colon < 0 {
		return s, faultf(Neutral, Syntax, "the signature is no header field")
	}
	s.Field = string(bytes.TrimRight(raw[:colon], " \t"))
	tags, err := ParseTags(string(raw[colon+1:]))
	if err != nil {
		return s, faultf(Neutral, Syntax, "%s", err)
	}
	s.Tags = tags
	for _, t := range tags {
		if t.Name == "b" {
			s.own = [2]int{colon + 1 + t.start, colon + 1 + t.end}
		}
	}
	dkim := strings.EqualFold(s.Field, fieldDKIM)
	seal := strings.EqualFold(s.Field, fieldARCSeal)
	if dkim {
		if v, ok := tags.Lookup("v"); !ok {
			return s, faultf(Neutral, Syntax, "tag v is missing")
		} else if v != "1" {
			return s, faultf(PermError, VersionUnknown, "version %q is unknown", clip(v))
		}
	}
	for _, step := range []func() *Fault{s.readName, s.readAlgorithm, s.readTimes} {
		if fault := step(); fault != nil {
			return s, fault
		}
	}
	if seal {
		return s, s.readSeal()
	}
	for _, step := range []func() *Fault{s.readCanon, s.readHeaders, s.readBody} {
		if fault := step(); fault != nil {
			return s, fault
		}
	}
	if !dkim {
		return s, nil
	}
	if fault := s.readQuery(); fault != nil {
		return s, fault
	}
	return s, s.readIdentity()
}

// required returns the value of a tag that must be there with a value.
func (s *Signature) required(name string) (string, *Fault) {
	v, ok := s.Tags.Lookup(name)
	switch {
	case !ok:
		return "", faultf(Neutral, Syntax, "tag %s is missing", name)
	case v == "":
		return "", faultf(Neutral, Syntax, "tag %s is empty", name)
	}
	return v, nil
}

func (s *Signature) readName() *Fault {
	d, fault := s.required("d")
	if fault != nil {
		return fault
	}
	if s.Domain, fault = domainTag("d", d); fault != nil {
		return fault
	}
	sel, fault := s.required("s")
	if fault != nil {
		return fault
	}
	s.Selector, fault = domainTag("s", sel)
	return fault
}

// domainTag checks a name that is going to be asked for in DNS.
func domainTag(tag, value string) (string, *Fault) {
	name := mail.DomainKey(value)
	if !validName(name) {
		return "", faultf(Neutral, Syntax, "tag %s: %q is no domain name", tag, clip(value))
	}
	return name, nil
}

// validName reports whether s is a domain name of letters, digits, hyphens and
// underscores.
func validName(s string) bool {
	if len(s) > 253 {
		return false
	}
	label := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
			label++
		case c == '.' && label > 0:
			label = 0
		default:
			return false
		}
		if label > 63 {
			return false
		}
	}
	return label > 0
}

func (s *Signature) readAlgorithm() *Fault {
	a, fault := s.required("a")
	if fault != nil {
		return fault
	}
	s.Algorithm = strings.ToLower(clip(a))
	b, fault := s.required("b")
	if fault != nil {
		return fault
	}
	switch s.Algorithm {
	case algRSA, algEd25519:
	case "rsa-sha1":
		return faultf(PermError, AlgorithmRefused, "rsa-sha1 is not secure")
	default:
		return faultf(PermError, AlgorithmUnknown, "algorithm %q is unknown", s.Algorithm)
	}
	var err error
	if s.Value, err = decodeBase64(b); err != nil {
		return faultf(Neutral, Syntax, "tag b is not base64")
	}
	return nil
}

// The algorithms, as a= names them.
const (
	algRSA     = "rsa-sha256"
	algEd25519 = "ed25519-sha256"
)

// decodeBase64 passes over white space. Final "=" may lack: the grammar of RFC 6376
// §2.10 lets them.
func decodeBase64(text string) ([]byte, error) {
	b := make([]byte, 0, len(text))
	for i := range len(text) {
		if !isBlankOctet(text[i]) {
			b = append(b, text[i])
		}
	}
	encoding := base64.RawStdEncoding
	if bytes.HasSuffix(b, []byte{'='}) {
		encoding = base64.StdEncoding
	}
	out := make([]byte, encoding.DecodedLen(len(b)))
	n, err := encoding.Decode(out, b)
	return out[:n], err
}

func (s *Signature) readTimes() *Fault {
	t, signed, fault := s.number("t")
	if fault != nil {
		return fault
	}
	x, expires, fault := s.number("x")
	if fault != nil {
		return fault
	}
	if signed {
		s.Time = time.Unix(min(t, never), 0).UTC()
	}
	if expires && x < never {
		s.Expire = time.Unix(x, 0).UTC()
	}
	return nil
}

// never is the first number of seconds with more than twelve digits (RFC 6376 §3.5).
const never = 1_000_000_000_000

// number reads a decimal number. One beyond int64 is the largest int64.
func (s *Signature) number(tag string) (n int64, ok bool, fault *Fault) {
	v, ok := s.Tags.Lookup(tag)
	if !ok {
		return 0, false, nil
	}
	for i := range len(v) {
		if v[i] < '0' || v[i] > '9' {
			ok = false
		}
	}
	if !ok || v == "" || len(v) > 76 {
		return 0, false, faultf(Neutral, Syntax, "tag %s: %q is no number", tag, clip(v))
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		n = math.MaxInt64
	}
	return n, true, nil
}

func (s *Signature) readCanon() *Fault {
	c, ok := s.Tags.Lookup("c")
	if !ok {
		return nil
	}
	header, body, both := strings.Cut(strings.ToLower(c), "/")
	if !both {
		body = "simple"
	}
	var known [2]bool
	s.HeaderCanon, known[0] = canonByName(trimBlank(header))
	s.BodyCanon, known[1] = canonByName(trimBlank(body))
	if !known[0] || !known[1] {
		return faultf(PermError, CanonUnknown, "canonicalization %q is unknown", clip(c))
	}
	return nil
}

func canonByName(name string) (Canon, bool) {
	switch name {
	case "simple":
		return Simple, true
	case "relaxed":
		return Relaxed, true
	}
	return Simple, false
}

func (s *Signature) readHeaders() *Fault {
	h, fault := s.required("h")
	if fault != nil {
		return fault
	}
	if strings.Count(h, ":") >= maxNames {
		return faultf(Neutral, Syntax, "tag h lists more than %d fields", maxNames)
	}
	s.Headers = strings.Split(strings.ToLower(h), ":")
	from := false
	for i, name := range s.Headers {
		name = trimBlank(name)
		if !validFieldName(name) {
			return faultf(Neutral, Syntax, "tag h: %q is no field name", clip(name))
		}
		from = from || name == "from"
		s.Headers[i] = name
	}
	if !from {
		return faultf(PermError, FromUnsigned, "the From field is not signed")
	}
	return nil
}

func validFieldName(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == ':' || s[i] == ';' {
			return false
		}
	}
	return s != ""
}

func (s *Signature) readBody() *Fault {
	bh, fault := s.required("bh")
	if fault != nil {
		return fault
	}
	var err error
	if s.BodyHash, err = decodeBase64(bh); err != nil {
		return faultf(Neutral, Syntax, "tag bh is not base64")
	}
	if len(s.BodyHash) != sha256.Size {
		return faultf(Neutral, Syntax, "tag bh has %d octets, not %d", len(s.BodyHash), sha256.Size)
	}
	l, ok, fault := s.number("l")
	if ok {
		s.Length = l
	}
	return fault
}

// readSeal holds ARC-Seal to what it may have (RFC 8617 §4.1.3).
func (s *Signature) readSeal() *Fault {
	for _, name := range []string{"h", "bh", "l"} {
		if _, ok := s.Tags.Lookup(name); ok {
			return faultf(Neutral, Syntax, "tag %s is not allowed in ARC-Seal", name)
		}
	}
	s.HeaderCanon, s.BodyCanon = Relaxed, Relaxed
	return nil
}

func (s *Signature) readQuery() *Fault {
	q, ok := s.Tags.Lookup("q")
	if !ok {
		return nil
	}
	for method := range strings.SplitSeq(q, ":") {
		if strings.EqualFold(trimBlank(method), "dns/txt") {
			return nil
		}
	}
	return faultf(PermError, QueryUnknown, "query methods %q are unknown", clip(q))
}

func (s *Signature) readIdentity() *Fault {
	i, ok := s.Tags.Lookup("i")
	if !ok {
		s.Identity = "@" + s.Domain
		return nil
	}
	identity, ok := decodeQuoted(i)
	if !ok {
		return faultf(Neutral, Syntax, "tag i is not well quoted")
	}
	at := strings.LastIndexByte(identity, '@')
	if at < 0 {
		return faultf(Neutral, Syntax, "tag i has no domain")
	}
	s.Identity = identity
	if !within(s.identityDomain(), s.Domain) {
		return faultf(PermError, IdentityMismatch, "identity %q is not of domain %s", clip(identity), s.Domain)
	}
	return nil
}

func (s *Signature) identityDomain() string {
	return mail.DomainKey(s.Identity[strings.LastIndexByte(s.Identity, '@')+1:])
}

// within reports whether a domain is parent or below it.
func within(domain, parent string) bool {
	rest, ok := strings.CutSuffix(domain, parent)
	return ok && (rest == "" || rest[len(rest)-1] == '.' && validName(rest[:len(rest)-1]))
}

// decodeQuoted decodes dkim-quoted-printable (RFC 6376 §2.11). It is false for what is
// not hexadecimal, not UTF-8, or a control character.
func decodeQuoted(s string) (string, bool) {
	s = withoutBlanks(s)
	if strings.IndexByte(s, '=') >= 0 {
		b := make([]byte, 0, len(s))
		for i := 0; i < len(s); i++ {
			c := s[i]
			if c == '=' {
				if i+2 >= len(s) {
					return "", false
				}
				n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
				if err != nil {
					return "", false
				}
				c, i = byte(n), i+2
			}
			b = append(b, c)
		}
		s = string(b)
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return "", false
		}
	}
	return s, utf8.ValidString(s)
}

// Digest is the SHA-256 that b= signs: of fields in the signature's canonical form, in
// their order, and of the signature itself with an empty b= and no line end at its end
// (RFC 6376 §3.7).
func (s *Signature) Digest(fields [][]byte) [sha256.Size]byte {
	n := len(s.raw) + 64
	for _, f := range fields {
		n += len(f) + 2
	}
	data := make([]byte, 0, n)
	for _, f := range fields {
		data = s.HeaderCanon.AppendField(data, f)
	}
	own := make([]byte, 0, len(s.raw))
	own = append(own, s.raw[:s.own[0]]...)
	own = append(own, s.raw[s.own[1]:]...)
	data = s.HeaderCanon.AppendField(data, own)
	return sha256.Sum256(trimLineEnd(data))
}
