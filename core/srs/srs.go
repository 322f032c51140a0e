// Package srs rewrites the envelope senders of forwarded mail (Sender Rewriting
// Scheme, as libsrs2 and postsrsd have it), so that the next host does not find us
// sending in the name of a domain that has not allowed it (SPF), and a notice
// about the mail finds its way back.
//
//	SRS0=HASH=TT=example.net=ann@ours      ann@example.net, forwarded by us
//	SRS1=HASH=first.example==HASH=TT=…@ours  the same, forwarded by first.example before
//
// HASH keeps others from sending through us: only what we made is taken back. TT is
// the day, so that an address is good for some weeks.
//
// # BUGS
//
// An address whose rewritten form would be longer than 64 octets before the "@" is
// not rewritten: RFC 5321 §4.5.3.1.1 allows no more.
package srs

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// Options change what New makes; the zero value means the defaults.
type Options struct {
	HashLength int           // characters of the hash; 4, at least 4
	MaxAge     time.Duration // how long an address is good for; 21 days
	Separator  byte          // after SRS0 and SRS1: '=', '+' or '-'; '='
}

// Rewriter rewrites and takes back. It is safe for concurrent use.
type Rewriter struct {
	secrets [][]byte
	domain  string
	o       Options
}

// Why an address is not taken back.
var (
	ErrNotSRS  = errors.New("not an address that was rewritten")
	ErrHash    = errors.New("the hash of a rewritten address is not ours")
	ErrExpired = errors.New("a rewritten address is too old")
	ErrTooLong = errors.New("the rewritten address would be too long")
)

// New returns a Rewriter for addresses in domain. The first secret signs, all of them
// verify. Errors: no secret, a Separator that is none.
func New(secrets [][]byte, domain string, o Options) (*Rewriter, error) {
	if o.HashLength < 4 {
		o.HashLength = 4
	}
	if o.MaxAge <= 0 {
		o.MaxAge = 21 * 24 * time.Hour
	}
	if o.Separator == 0 {
		o.Separator = '='
	}
	switch {
	case len(secrets) == 0 || len(secrets[0]) == 0:
		return nil, errors.New("SRS needs a secret")
	case !strings.ContainsRune("=+-", rune(o.Separator)):
		return nil, errors.New(`the separator of SRS is "=", "+" or "-"`)
	}
	return &Rewriter{secrets: secrets, domain: domain, o: o}, nil
}

const maxLocal = 64 // octets (RFC 5321 §4.5.3.1.1)

// Forward returns the sender for mail of from that we send on. The null path, and
// addresses of our domain, stay. Error: ErrTooLong.
func (r *Rewriter) Forward(from mail.Path, now time.Time) (mail.Path, error) {
	if from.IsNull() || mail.DomainKey(from.Domain()) == r.domain {
		return from, nil
	}
	sep := string(r.o.Separator)
	domain := mail.DomainKey(from.Domain())
	var local string
	switch kind, rest := split(from.Local()); kind {
	case "SRS0": // of another forwarder: it knows what follows, and we know it
		rest = from.Local()[4:] // with its separator
		local = "SRS1" + sep + r.hash(r.secrets[0], domain, rest) + "=" + domain + "=" + rest
	case "SRS1":
		_, host, after, ok := cut3(rest)
		if !ok {
			return mail.Path{}, ErrNotSRS
		}
		local = "SRS1" + sep + r.hash(r.secrets[0], host, after) + "=" + host + "=" + after
	default:
		day := stamp(now)
		local = "SRS0" + sep + r.hash(r.secrets[0], day, domain, from.Local()) + "=" + day + "=" + domain + "=" + from.Local()
	}
	if len(local) > maxLocal {
		return mail.Path{}, ErrTooLong
	}
	return mail.Path{}.WithLocal(local).WithDomain(r.domain), nil
}

// Reverse returns the address that p was made from. Errors: ErrNotSRS, ErrHash,
// ErrExpired.
func (r *Rewriter) Reverse(p mail.Path, now time.Time) (mail.Path, error) {
	if mail.DomainKey(p.Domain()) != r.domain {
		return mail.Path{}, ErrNotSRS
	}
	switch kind, rest := split(p.Local()); kind {
	case "SRS0":
		hash, day, after, ok := cut3(rest)
		domain, local, ok2 := strings.Cut(after, "=")
		if !ok || !ok2 || local == "" {
			return mail.Path{}, ErrNotSRS
		}
		if !r.good(hash, day, mail.DomainKey(domain), local) {
			return mail.Path{}, ErrHash
		}
		if !fresh(day, now, r.o.MaxAge) {
			return mail.Path{}, ErrExpired
		}
		return address(local, domain)
	case "SRS1":
		hash, host, after, ok := cut3(rest)
		if !ok || len(after) < 2 || !strings.ContainsRune("=+-", rune(after[0])) {
			return mail.Path{}, ErrNotSRS
		}
		if !r.good(hash, mail.DomainKey(host), after) {
			return mail.Path{}, ErrHash
		}
		return address("SRS0"+after, host)
	}
	return mail.Path{}, ErrNotSRS
}

// address is what was hidden, if it is an address at all.
func address(local, domain string) (mail.Path, error) {
	if !mail.ValidDomain(domain) || strings.ContainsAny(local, "\r\n\x00") {
		return mail.Path{}, ErrNotSRS
	}
	p, err := mail.ParsePath(mail.Path{}.WithLocal(local).WithDomain(domain).String(), true)
	if err != nil {
		return mail.Path{}, ErrNotSRS
	}
	return p, nil
}

// split takes the tag off a local part: its kind in capitals, and what is behind the
// separator.
func split(local string) (kind, rest string) {
	if len(local) < 6 || !strings.ContainsRune("=+-", rune(local[4])) {
		return "", ""
	}
	if kind = strings.ToUpper(local[:4]); kind != "SRS0" && kind != "SRS1" {
		return "", ""
	}
	return kind, local[5:]
}

// cut3 cuts s at its first two "=".
func cut3(s string) (a, b, rest string, ok bool) {
	a, s, ok = strings.Cut(s, "=")
	if !ok {
		return
	}
	b, rest, ok = strings.Cut(s, "=")
	return a, b, rest, ok && a != "" && b != "" && rest != ""
}

// hash signs the parts, in small letters: mail programs and hosts do not always
// keep the case of a local part.
func (r *Rewriter) hash(secret []byte, parts ...string) string {
	m := hmac.New(sha1.New, secret)
	for _, p := range parts {
		m.Write([]byte(strings.ToLower(p))) // never fails (hash.Hash)
	}
	sum := base64.StdEncoding.EncodeToString(m.Sum(nil))
	return sum[:min(r.o.HashLength, 27)]
}

// good reports whether a hash is one that we would write now or would have written
// with an older secret. Case does not count, for the same reason.
func (r *Rewriter) good(hash string, parts ...string) bool {
	if len(hash) < r.o.HashLength {
		return false
	}
	ok := false
	for _, s := range r.secrets {
		want := strings.ToLower(r.hash(s, parts...))
		ok = hmac.Equal([]byte(want), []byte(strings.ToLower(hash))) || ok
	}
	return ok
}

const (
	digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	days   = 1 << 10 // after which the stamps come round
)

// stamp is the day in two characters.
func stamp(t time.Time) string {
	d := int(t.Unix()/86400) % days
	return string([]byte{digits[d>>5], digits[d&31]})
}

// fresh reports whether a stamp is at most maxAge old, and not of tomorrow's
// morrow.
func fresh(s string, now time.Time, maxAge time.Duration) bool {
	if len(s) != 2 {
		return false
	}
	d := 0
	for _, c := range strings.ToUpper(s) {
		i := strings.IndexRune(digits, c)
		if i < 0 {
			return false
		}
		d = d<<5 | i
	}
	age := (int(now.Unix()/86400)%days - d + days) % days
	return age <= int(maxAge/(24*time.Hour)) || age == days-1
}
