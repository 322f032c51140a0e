package decisions

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// Mask says what the log keeps of mail addresses.
type Mask string

// The masks.
const (
	MaskNone Mask = "none" // addresses as they are
	MaskHash Mask = "hash" // "ann@example.org" as "h-5f0e…@example.org": equal addresses stay equal
	MaskDrop Mask = "drop" // "*@example.org"
)

// Masks are the values of Mask, for messages.
func Masks() []string { return []string{string(MaskNone), string(MaskHash), string(MaskDrop)} }

const (
	keyName  = "key"
	keySize  = 32 // octets
	hashSize = 8  // octets of a hash that are written
)

// masker hides local parts of addresses. The key is this installation's own, so
// nobody without it can try names out.
type masker struct {
	mask Mask
	key  []byte // MaskHash only
}

// newMasker makes the key of dir if a key is needed and there is none.
func newMasker(dir string, m Mask) (masker, error) {
	switch m {
	case "", MaskNone:
		return masker{mask: MaskNone}, nil
	case MaskDrop:
		return masker{mask: m}, nil
	case MaskHash:
	default:
		return masker{}, fmt.Errorf("mask decisions: no mask %q; write one of %s", m, strings.Join(Masks(), ", "))
	}
	key, err := readKey(dir)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(dir)
	}
	if err != nil {
		return masker{}, fmt.Errorf("key of the decision log: %w", err)
	}
	return masker{m, key}, nil
}

func readKey(dir string) ([]byte, error) {
	key, err := os.ReadFile(filepath.Join(dir, keyName))
	if err == nil && len(key) != keySize {
		return nil, fmt.Errorf("%s is %d octets, want %d: remove it to begin with another", filepath.Join(dir, keyName), len(key), keySize)
	}
	return key, err
}

// makeKey writes a new key beside its place and renames it, so that there is
// never half of one.
func makeKey(dir string) ([]byte, error) {
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	f, err := os.CreateTemp(dir, keyName+".*")
	if err != nil {
		return nil, err
	}
	_, err = f.Write(key)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, keyName))
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()))
	}
	// Without the key, what it has hashed cannot be found any more.
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return nil, err
	}
	return key, nil
}

// local is what stands for a local part.
func (m masker) local(local, domain string) string {
	if m.mask == MaskDrop {
		return "*"
	}
	h := hmac.New(sha256.New, m.key)
	h.Write([]byte(strings.ToLower(local) + "@" + mail.DomainKey(domain)))
	return "h-" + hex.EncodeToString(h.Sum(nil)[:hashSize])
}

// address masks a whole address, in angle brackets or not. A name without a
// domain, such as a login, is a local part.
func (m masker) address(s string) string {
	open, rest, end := "", s, ""
	if strings.HasPrefix(s, "<") && strings.HasSuffix(s, ">") {
		open, rest, end = "<", s[1:len(s)-1], ">"
	}
	if m.mask == MaskNone || rest == "" {
		return s
	}
	local, domain, at := rest, "", strings.LastIndexByte(rest, '@')
	if at >= 0 {
		local, domain = rest[:at], rest[at+1:]
	}
	masked := m.local(local, domain)
	if at >= 0 {
		masked += "@" + domain
	}
	return open + masked + end
}

// maxSpan bounds what is taken for one address within a text, in octets: a path
// with every character of its local part behind a backslash.
const maxSpan = 2*mail.MaxLocal + mail.MaxDomain

// text masks every address within a text. Whatever could be part of a local
// part before an "@" is taken for one: better too much than too little.
func (m masker) text(s string) string {
	if m.mask == MaskNone || strings.IndexByte(s, '@') < 0 {
		return s
	}
	var b strings.Builder
	done := 0
	for i := 0; i < len(s); i++ {
		begin, at := i, -1
		switch s[i] {
		case '"': // a quoted string (RFC 5321 §4.1.2), which may hold an "@" too
			at = quotedAt(s, i)
		case '<': // an address, perhaps without the quotes that it needs
			begin, at = i+1, bracketedAt(s, i)
		case '@':
			begin, at = localStart(s, done, i), i
		}
		if at <= begin {
			continue
		}
		end := at + 1
		for end < len(s) && (isDomainByte(s[end]) || s[end] == '@') {
			if s[end] == '@' { // what stands before the last one is local
				at = end
			}
			end++
		}
		if n := strings.IndexByte(s[end:min(len(s), end+mail.MaxDomain)], ']') + 1; n > 0 && end == at+1 {
			if _, ok := mail.ParseLiteral(s[end : end+n]); ok {
				end += n
			}
		}
		b.WriteString(s[done:begin])
		b.WriteString(m.local(s[begin:at], strings.TrimRight(s[at+1:end], "."))) // the dot is the sentence's
		b.WriteString(s[at:end])
		done, i = end, end-1
	}
	b.WriteString(s[done:])
	return b.String()
}

// quotedAt is where the "@" behind the quoted string is that begins at s[i], or -1.
func quotedAt(s string, i int) int {
	for j := i + 1; j+1 < len(s) && j < i+maxSpan; j++ {
		switch s[j] {
		case '\\':
			j++
		case '"':
			if s[j+1] == '@' {
				return j + 1
			}
			return -1
		}
	}
	return -1
}

// bracketedAt is where the last "@" is between s[i], which is "<", and the ">"
// that follows, or -1.
func bracketedAt(s string, i int) int {
	inner, _, ok := strings.Cut(s[i+1:min(len(s), i+maxSpan)], ">")
	at := strings.LastIndexByte(inner, '@')
	if !ok || at < 0 || inner[0] == '"' {
		return -1
	}
	return i + 1 + at
}

// localStart is where the local part that ends at s[at] begins, no earlier than from.
func localStart(s string, from, at int) int {
	i := at
	if i > from && s[i-1] == '"' { // a quoted string (RFC 5321 §4.1.2)
		for i -= 2; i >= from; i-- {
			if s[i] == '"' && !escaped(s, from, i) {
				return i
			}
		}
		return from
	}
	for i > from && strings.IndexByte(" \t\r\n\x00<>()[]:;,\"@", s[i-1]) < 0 {
		i--
	}
	return i
}

// escaped reports whether an odd number of backslashes stands before s[i].
func escaped(s string, from, i int) bool {
	n := 0
	for i--; i >= from && s[i] == '\\'; i-- {
		n++
	}
	return n%2 == 1
}

func isDomainByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c >= 0x80
}

// record masks every address in r, and in what was asked and said also the login,
// which may be a local part alone. The lists of r may be shared with others, so
// they are replaced, never written to.
func (m masker) record(r *policy.Record) {
	if m.mask == MaskNone {
		return
	}
	login := r.User
	text := func(s string) string { return m.word(m.text(s), login) }
	r.Sender, r.Recipient, r.User = m.address(r.Sender), m.address(r.Recipient), m.address(r.User)
	r.Helo, r.ClientName = m.text(r.Helo), m.text(r.ClientName)
	r.Text, r.Error = text(r.Text), text(r.Error)
	if e := r.Effects; e != nil {
		masked := *e
		masked.Prepend = each(e.Prepend, text)
		masked.Tags = each(e.Tags, text)
		masked.Redirect = each(e.Redirect, m.address)
		masked.BCC = each(e.BCC, m.address)
		masked.Transport, masked.Hop = text(e.Transport), text(e.Hop)
		r.Effects = &masked
	}
	calls := make([]policy.HostCall, len(r.Calls))
	for i, c := range r.Calls {
		if c.Call == "get" && c.Ask == "sender-owners" { // logins, one a line
			c.Answer = strings.Join(each(strings.Split(c.Answer, "\n"), m.address), "\n")
		} else {
			c.Answer = text(c.Answer)
		}
		c.Ask, c.Status = text(c.Ask), text(c.Status)
		calls[i] = c
	}
	if len(calls) > 0 {
		r.Calls = calls
	}
}

// word masks a login without a domain wherever it stands in s, in any case, as a
// word of its own.
func (m masker) word(s, login string) string {
	if login == "" || strings.IndexByte(login, '@') >= 0 {
		return s
	}
	low, want := lowered(s), lowered(login)
	if !strings.Contains(low, want) {
		return s
	}
	var b strings.Builder
	done := 0
	for {
		i := strings.Index(low[done:], want)
		if i < 0 {
			b.WriteString(s[done:])
			return b.String()
		}
		begin, end := done+i, done+i+len(login)
		b.WriteString(s[done:begin])
		if begin > 0 && (isWordByte(s[begin-1]) || s[begin-1] == '@') || end < len(s) && isWordByte(s[end]) {
			b.WriteString(s[begin:end])
		} else {
			b.WriteString(m.local(login, ""))
		}
		done = end
	}
}

// lowered is s with small letters of ASCII; every octet keeps its place.
func lowered(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func isWordByte(c byte) bool { return isDomainByte(c) && c != '.' }

func each(list []string, f func(string) string) []string {
	if list == nil {
		return nil
	}
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = f(s)
	}
	return out
}
