package arc

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/authres"
	"github.com/wafermail/wafer/core/dkim"
	"github.com/wafermail/wafer/core/mail"
)

// SealOptions says how to seal. Domain, Selector and Key are required, the rest may be
// zero.
type SealOptions struct {
	Domain     string           // d=
	Selector   string           // s=
	Key        crypto.Signer    // *rsa.PrivateKey, ed25519.PrivateKey, or anything with such a public key
	AuthServID string           // for results without a ServID; "": Domain
	Headers    []string         // fields that are covered, as often as they are there; nil: dkim.DefaultHeaders and DKIM-Signature
	Oversign   []string         // fields that are covered once more than they are there; nil: dkim.DefaultOversign
	Now        func() time.Time // nil: time.Now
	MaxHeader  int              // octets of a message's header section; 0: 256 KiB
}

// ErrRefused is what Seal's error wraps if it is the message that must not or cannot
// be sealed. It may go on as it is.
var ErrRefused = errors.New("the message is not to be sealed")

// Sealer adds sets to chains. It is safe for concurrent use if its key is.
type Sealer struct {
	domain, selector string // in lower case, with A-labels
	key              crypto.Signer
	algorithm        string // a=
	servID           string
	headers          []string        // in lower case, each once
	oversign         map[string]bool // in lower case
	now              func() time.Time
	maxHeader        int
	columns          int // where lines are folded
}

// NewSealer checks the options. An RSA key must have 1024 to 4096 bits. Neither
// Authentication-Results nor the ARC fields can be covered (RFC 8617 §4.1.2).
func NewSealer(o SealOptions) (*Sealer, error) {
	s := &Sealer{
		domain: mail.DomainKey(o.Domain), selector: mail.DomainKey(o.Selector), key: o.Key,
		algorithm: "rsa-sha256", servID: o.AuthServID, oversign: map[string]bool{}, now: o.Now, maxHeader: o.MaxHeader,
		columns: lineLength,
	}
	headers, oversign := o.Headers, o.Oversign
	if headers == nil {
		headers = append(dkim.DefaultHeaders(), "DKIM-Signature")
	}
	if oversign == nil {
		oversign = dkim.DefaultOversign()
	}
	// What holds for a DKIM signer's key and fields holds here.
	keys := []dkim.Key{{Domain: s.domain, Selector: s.selector, Private: s.key}}
	if _, err := dkim.NewSigner(dkim.SignerOptions{Keys: keys, Headers: headers, Oversign: oversign}); err != nil {
		return nil, fmt.Errorf("make arc sealer: %w", err)
	}
	seen := map[string]bool{}
	for i, name := range append(headers[:len(headers):len(headers)], oversign...) {
		key := strings.ToLower(name)
		if _, ours := kindOf(key); ours || key == "authentication-results" {
			return nil, fmt.Errorf("make arc sealer: %s cannot be covered, others may take it out or add it", name)
		}
		if !seen[key] {
			seen[key] = true
			s.headers = append(s.headers, key)
		}
		if i >= len(headers) {
			s.oversign[key] = true
		}
	}
	if _, ok := o.Key.Public().(ed25519.PublicKey); ok {
		s.algorithm = "ed25519-sha256"
	}
	if s.servID == "" {
		s.servID = s.domain
	}
	if s.now == nil {
		s.now = time.Now
	}
	return s, nil
}

// Seal returns the fields of a new set (RFC 8617 §5.1), folded below 78 columns with CR
// LF line ends, to be put above the message of size octets in r. The message must be
// what is going to be sent, octet for octet, with its chain as it came; result is what
// Verify said of it then, before anything was changed; found is what became known when
// it came, all methods together and ARC among them.
//
// After a chain that failed, the set says so and covers only itself (§5.1.2). Refused
// are chains that have failed before, that are full or that cannot be numbered, and a
// result of TempError: see ErrRefused.
func (s *Sealer) Seal(r io.ReaderAt, size int64, result Result, found authres.Field) ([]byte, error) {
	fields, err := s.seal(r, size, result, found)
	if err != nil {
		return nil, fmt.Errorf("seal message for %s: %w", s.domain, err)
	}
	return fields, nil
}

func (s *Sealer) seal(r io.ReaderAt, size int64, result Result, found authres.Field) ([]byte, error) {
	m, err := dkim.Read(r, size, dkim.Limits{Header: s.maxHeader, Signatures: maxSignatures})
	if errors.Is(err, dkim.ErrHeaderTooLarge) {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err != nil {
		return nil, err
	}
	c := collect(m, MaxSets)
	if err := sealable(c, result); err != nil {
		return nil, err
	}
	if err := begins(r, size); err != nil {
		return nil, err
	}
	names, err := s.names(m)
	if err != nil {
		return nil, err
	}
	if found.ServID == "" {
		found.ServID = s.servID
	}
	instance := strconv.Itoa(len(c.sets) + 1)
	now := strconv.FormatInt(s.now().Unix(), 10)

	results := resultsField(instance, found)
	sums, err := m.HashBody([]*dkim.Signature{{BodyCanon: dkim.Relaxed, Length: -1}})
	if err != nil {
		return nil, err
	}
	covered, _ := m.Select(names, -1)
	message, err := s.sign(FieldMessage, []tag{
		{"a", s.algorithm}, {"b", ""}, {"bh", base64.StdEncoding.EncodeToString(sums[0].Digest)}, {"c", "relaxed/relaxed"},
		{"d", s.domain}, {"h", strings.Join(names, ":")}, {"i", instance}, {"s", s.selector}, {"t", now},
	}, covered)
	if err != nil {
		return nil, err
	}
	covered = nil
	if result.CV == Pass {
		covered = c.covered(len(c.sets))
	}
	seal, err := s.sign(FieldSeal, []tag{
		{"a", s.algorithm}, {"b", ""}, {"cv", string(result.CV)},
		{"d", s.domain}, {"i", instance}, {"s", s.selector}, {"t", now},
	}, append(covered, results, message))
	if err != nil {
		return nil, err
	}
	return append(append(seal, message...), results...), nil
}

// sealable says why no set can be added to a chain.
func sealable(c *chain, result Result) error {
	switch {
	case result.CV == TempError:
		return fmt.Errorf("%w: whether its chain is intact is not known", ErrRefused)
	case c.fault != nil && c.fault.reason == TooManySets || len(c.sets) == MaxSets:
		return fmt.Errorf("%w: its chain cannot have more sets", ErrRefused)
	case c.ended():
		return fmt.Errorf("%w: its chain has failed before", ErrRefused)
	case c.fields > 0 && len(c.sets) == 0:
		return fmt.Errorf("%w: its chain cannot be read", ErrRefused)
	case result.CV == Fail && c.fields > 0:
		return nil
	case result.CV == None && c.fields == 0:
		return nil
	case result.CV == Pass && c.fault == nil && len(c.sets) == len(result.Sets) && c.fields > 0:
		return nil
	}
	return errors.New("its chain is not the one that was verified")
}

// begins looks at the first octet: a line that begins with a blank would become part of
// the field that is put above it.
func begins(r io.ReaderAt, size int64) error {
	var first [1]byte
	if size == 0 {
		return nil
	}
	if n, err := r.ReadAt(first[:], 0); n == 0 {
		return err
	}
	if first[0] == ' ' || first[0] == '\t' {
		return fmt.Errorf("%w: it begins with the rest of a field", ErrRefused)
	}
	return nil
}

// maxSigned is how many fields a signature may cover; a verifier may look at no more.
const maxSigned = 500

// names is the h= of a message.
func (s *Sealer) names(m *dkim.Message) ([]string, error) {
	if m.Surplus > 0 {
		return nil, fmt.Errorf("%w: it has too many DKIM signatures", ErrRefused)
	}
	count := make(map[string]int, len(s.headers))
	for _, f := range m.Fields {
		count[f.Name]++
	}
	if count["from"] == 0 {
		return nil, fmt.Errorf("%w: it has no From field", ErrRefused)
	}
	var names []string
	for _, name := range s.headers {
		n := count[name]
		if s.oversign[name] {
			n++
		}
		if len(names)+n > maxSigned {
			return nil, fmt.Errorf("%w: it has more than %d fields to be covered", ErrRefused, maxSigned)
		}
		for range n {
			names = append(names, name)
		}
	}
	return names, nil
}

// sign makes a signature field of the tags, in relaxed form. The tag b gets its value
// here.
func (s *Sealer) sign(name string, tags []tag, covered [][]byte) ([]byte, error) {
	digest := digest(covered, compose(name, tags, s.columns))
	hash := crypto.SHA256
	if s.algorithm == "ed25519-sha256" {
		hash = 0 // RFC 8463 §3: the hash is what is signed
	}
	value, err := s.key.Sign(rand.Reader, digest[:], hash)
	if err != nil {
		return nil, fmt.Errorf("compute %s: %w", name, err)
	}
	for i := range tags {
		if tags[i].name == "b" {
			tags[i].value = base64.StdEncoding.EncodeToString(value)
		}
	}
	return compose(name, tags, s.columns), nil
}
