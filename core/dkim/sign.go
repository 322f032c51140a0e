package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// Key is a private key and where its public half is published.
type Key struct {
	Domain   string        // d=
	Selector string        // s=
	Private  crypto.Signer // *rsa.PrivateKey, ed25519.PrivateKey, or anything with such a public key
}

// SignerOptions says how to sign. Keys is required, the rest may be zero.
type SignerOptions struct {
	Keys     []Key            // each makes one signature, in this order
	Headers  []string         // fields that are covered, as often as they are there; nil: DefaultHeaders
	Oversign []string         // fields that are covered once more than they are there, so that none can be added; nil: DefaultOversign
	Identity string           // i=, "user@domain" or "@domain" of or below every Key's Domain; "": none
	Expire   time.Duration    // x= is that much later than t=; 0: no x=
	Now      func() time.Time // nil: time.Now
	Limits   Limits           // of the messages
}

// DefaultHeaders returns the fields that are covered: what RFC 6376 §5.4.1 names, and
// List-Unsubscribe-Post (RFC 8058 §4). Trace fields are not, they change.
func DefaultHeaders() []string {
	return []string{
		"From", "Sender", "Reply-To", "Subject", "Date", "Message-ID", "To", "Cc",
		"In-Reply-To", "References", "MIME-Version", "Content-Type", "Content-Transfer-Encoding",
		"Content-ID", "Content-Description",
		"Resent-Date", "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc", "Resent-Message-ID",
		"List-Id", "List-Help", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Subscribe",
		"List-Post", "List-Owner", "List-Archive",
	}
}

// DefaultOversign returns the fields that nobody may add (RFC 6376 §8.15): those that
// people or programs are shown. Mailing lists may add Sender and List-.
func DefaultOversign() []string {
	return []string{
		"From", "Reply-To", "Subject", "Date", "Message-ID", "To", "Cc",
		"MIME-Version", "Content-Type", "Content-Transfer-Encoding",
	}
}

// Signer signs messages with one or more keys. It is safe for concurrent use if its
// keys are.
type Signer struct {
	keys     []Key // with names in lower case and A-labels
	headers  []string
	oversign map[string]bool // in lower case
	identity string          // encoded
	expire   time.Duration
	now      func() time.Time
	limits   Limits
}

// NewSigner checks the options. RSA keys must have 1024 to 4096 bits.
func NewSigner(o SignerOptions) (*Signer, error) {
	if len(o.Keys) == 0 {
		return nil, errors.New("dkim signer has no keys")
	}
	s := &Signer{headers: o.Headers, oversign: map[string]bool{}, expire: o.Expire, now: o.Now, limits: o.Limits}
	if s.now == nil {
		s.now = time.Now
	}
	for _, key := range o.Keys {
		key.Domain, key.Selector = mail.DomainKey(key.Domain), mail.DomainKey(key.Selector)
		if err := checkKey(key); err != nil {
			return nil, err
		}
		s.keys = append(s.keys, key)
	}
	if s.headers == nil {
		s.headers = DefaultHeaders()
	}
	oversign := o.Oversign
	if oversign == nil {
		oversign = DefaultOversign()
	}
	for _, name := range oversign {
		s.oversign[strings.ToLower(name)] = true
	}
	s.headers = unique(append(s.headers[:len(s.headers):len(s.headers)], oversign...))
	from := false
	for _, name := range s.headers {
		if !validFieldName(name) {
			return nil, fmt.Errorf("dkim signer: %q is no field name", name)
		}
		from = from || strings.EqualFold(name, "from")
	}
	if !from {
		return nil, errors.New("dkim signer: From must be among the fields that are covered")
	}
	return s, s.setIdentity(o.Identity)
}

func checkKey(key Key) error {
	if !validName(key.Domain) {
		return fmt.Errorf("dkim key: %q is no domain name", key.Domain)
	}
	if !validName(key.Selector) {
		return fmt.Errorf("dkim key of %s: %q is no selector", key.Domain, key.Selector)
	}
	if key.Private == nil {
		return fmt.Errorf("dkim key %s of %s has no private key", key.Selector, key.Domain)
	}
	if _, err := algorithm(key.Private); err != nil {
		return fmt.Errorf("dkim key %s of %s: %w", key.Selector, key.Domain, err)
	}
	return nil
}

// algorithm is what a= says for a key.
func algorithm(private crypto.Signer) (string, error) {
	switch public := private.Public().(type) {
	case *rsa.PublicKey:
		if n := public.N.BitLen(); n < MinBits || n > MaxBits {
			return "", fmt.Errorf("an RSA key of %d bits is not accepted; %d to %d are", n, MinBits, MaxBits)
		}
		return algRSA, nil
	case ed25519.PublicKey:
		return algEd25519, nil
	default:
		return "", fmt.Errorf("a key of type %T cannot sign mail", public)
	}
}

// unique drops names that stand again, in any case.
func unique(names []string) []string {
	seen := make(map[string]bool, len(names))
	var list []string
	for _, name := range names {
		if key := strings.ToLower(name); !seen[key] {
			seen[key] = true
			list = append(list, name)
		}
	}
	return list
}

func (s *Signer) setIdentity(identity string) error {
	if identity == "" {
		return nil
	}
	at := strings.LastIndexByte(identity, '@')
	if at < 0 {
		return fmt.Errorf("dkim identity %q has no domain", identity)
	}
	domain := mail.DomainKey(identity[at+1:])
	for _, key := range s.keys {
		if !within(domain, key.Domain) {
			return fmt.Errorf("dkim identity %q is not of domain %s", identity, key.Domain)
		}
	}
	encoded := encodeQuoted(identity[:at]) + "@" + domain
	if decoded, ok := decodeQuoted(encoded); !ok || decoded != identity[:at]+"@"+domain {
		return fmt.Errorf("dkim identity %q has characters that it cannot have", identity)
	}
	s.identity = encoded
	return nil
}

// encodeQuoted encodes dkim-quoted-printable (RFC 6376 §2.11).
func encodeQuoted(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c > ' ' && c < 0x7f && c != ';' && c != '=' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}

// maxSigned is how many fields a signature may cover; a verifier may look at no more.
const maxSigned = 500

// Sign returns a DKIM-Signature field for each key, one after another, folded below 78
// columns with CR LF line ends, to be put above the message of size octets in r. The
// message must be what is going to be sent, octet for octet. The body is read once.
// Without a From field a message is not signed.
func (s *Signer) Sign(r io.ReaderAt, size int64) ([]byte, error) {
	m, err := Read(r, size, s.limits)
	if err != nil {
		return nil, fmt.Errorf("sign message: %w", err)
	}
	names, err := s.names(m)
	if err != nil {
		return nil, fmt.Errorf("sign message: %w", err)
	}
	covered := strings.Join(names, ":")
	fields, _ := m.Select(strings.Split(strings.ToLower(covered), ":"), -1)
	sums, err := m.HashBody([]*Signature{{BodyCanon: Relaxed, Length: -1}})
	if err != nil {
		return nil, fmt.Errorf("sign message: %w", err)
	}
	bodyHash := base64.StdEncoding.EncodeToString(sums[0].Digest)
	now := s.now()

	var out []byte
	for _, key := range s.keys {
		a, err := algorithm(key.Private)
		if err != nil {
			return nil, fmt.Errorf("sign message: %w", err)
		}
		tags := Tags{
			{Name: "v", Value: "1"}, {Name: "a", Value: a}, {Name: "c", Value: "relaxed/relaxed"},
			{Name: "d", Value: key.Domain}, {Name: "s", Value: key.Selector},
		}
		if s.identity != "" {
			tags = append(tags, Tag{Name: "i", Value: s.identity})
		}
		tags = append(tags, Tag{Name: "t", Value: strconv.FormatInt(now.Unix(), 10)})
		if s.expire > 0 {
			tags = append(tags, Tag{Name: "x", Value: strconv.FormatInt(now.Add(s.expire).Unix(), 10)})
		}
		tags = append(tags, Tag{Name: "h", Value: covered}, Tag{Name: "bh", Value: bodyHash})
		field, err := SignField(fieldDKIM, tags, key.Private, fields)
		if err != nil {
			return nil, fmt.Errorf("sign message for %s with %s: %w", key.Domain, key.Selector, err)
		}
		out = append(out, field...)
	}
	return out, nil
}

// names is the h= of a message.
func (s *Signer) names(m *Message) ([]string, error) {
	if m.top("from") == 0 {
		return nil, errors.New("it has no From field")
	}
	var names []string
	for _, name := range s.headers {
		key := strings.ToLower(name)
		for at := m.top(key); at > 0; at = m.prev[at-1] {
			names = append(names, name)
			if len(names) > maxSigned {
				return nil, fmt.Errorf("it has more than %d fields to be covered", maxSigned)
			}
		}
		if s.oversign[key] {
			names = append(names, name)
		}
	}
	return names, nil
}

// SignField makes a field that signs other fields, all in relaxed form: a
// DKIM-Signature, ARC-Message-Signature or ARC-Seal called name with tags and then b=.
// The values of tags are taken as they are; h= may be folded at its colons. fields are
// what is covered besides, in order. The result is folded and ends in CR LF.
func SignField(name string, tags Tags, private crypto.Signer, fields [][]byte) ([]byte, error) {
	a, err := algorithm(private)
	if err != nil {
		return nil, err
	}
	f := newFolder(name)
	for _, tag := range tags {
		f.tag(tag.Name, tag.Value)
	}
	f.begin("b=")
	s := &Signature{raw: f.out, own: [2]int{len(f.out), len(f.out)}, HeaderCanon: Relaxed}
	digest := s.Digest(fields)
	hash := crypto.SHA256
	if a == algEd25519 {
		hash = 0 // RFC 8463 §3: the hash is what is signed
	}
	value, err := private.Sign(rand.Reader, digest[:], hash)
	if err != nil {
		return nil, fmt.Errorf("compute signature: %w", err)
	}
	f.anywhere(base64.StdEncoding.EncodeToString(value))
	return append(f.out, '\r', '\n'), nil
}
