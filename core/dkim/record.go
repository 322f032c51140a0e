package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// Sizes of RSA keys in bits that are accepted (RFC 8301 §3.2).
const (
	MinBits = 1024
	MaxBits = 4096
)

// maxRecord is how long a key record may be in octets; one of RSA with 4096 bits has
// some 750.
const maxRecord = 16 << 10

// PublicKey is a key as a record gives it (RFC 6376 §3.6.1).
type PublicKey struct {
	Type    string // k=: "rsa", "ed25519"
	Bits    int    // 256 for ed25519
	Testing bool   // t=y
	Strict  bool   // t=s: i= must be d= itself
	Hashes  []string
	Service []string // s=; nil for all
	Notes   string   // n=
	Key     crypto.PublicKey
}

// ParseRecord reads a key record. Every Fault but KeyRevoked says that it is not
// usable as it stands.
func ParseRecord(record string) (*PublicKey, *Fault) {
	if len(record) > maxRecord {
		return nil, faultf(PermError, KeySyntax, "key record has more than %d octets", maxRecord)
	}
	tags, err := ParseTags(record)
	if err != nil {
		return nil, faultf(PermError, KeySyntax, "key record: %s", err)
	}
	// A v= that is not first is against RFC 6376 §3.6.1, but only records that begin
	// with another version are to be discarded.
	if v, ok := tags.Lookup("v"); ok && v != "DKIM1" {
		return nil, faultf(PermError, KeySyntax, "key record is of version %q, not DKIM1", clip(v))
	}
	p, ok := tags.Lookup("p")
	if !ok {
		return nil, faultf(PermError, KeySyntax, "key record has no tag p")
	}
	k := &PublicKey{Type: "rsa"}
	if v, ok := tags.Lookup("k"); ok {
		k.Type = v
	}
	k.Hashes = listTag(tags, "h")
	k.Service = listTag(tags, "s")
	k.Notes, _ = tags.Lookup("n")
	for _, flag := range listTag(tags, "t") {
		k.Testing = k.Testing || flag == "y"
		k.Strict = k.Strict || flag == "s"
	}
	if withoutBlanks(p) == "" {
		return nil, faultf(PermError, KeyRevoked, "the key is revoked")
	}
	data, err := decodeBase64(p)
	if err != nil {
		return nil, faultf(PermError, KeySyntax, "key record: tag p is not base64")
	}
	switch k.Type {
	case "rsa":
		key, err := parseRSA(data)
		if err != nil {
			return nil, faultf(PermError, KeySyntax, "key record: %s", err)
		}
		k.Key, k.Bits = key, key.N.BitLen()
	case "ed25519":
		if len(data) != ed25519.PublicKeySize {
			return nil, faultf(PermError, KeySyntax, "key record: an ed25519 key has %d octets, not %d", ed25519.PublicKeySize, len(data))
		}
		k.Key, k.Bits = ed25519.PublicKey(data), 256
	default:
		return nil, faultf(PermError, KeyType, "key is of unknown type %q", clip(k.Type))
	}
	return k, nil
}

func listTag(tags Tags, name string) []string {
	v, ok := tags.Lookup(name)
	if !ok {
		return nil
	}
	list := strings.Split(v, ":")
	for i := range list {
		list[i] = trimBlank(list[i])
	}
	return list
}

// parseRSA reads a SubjectPublicKeyInfo, which everybody publishes (RFC 6376 erratum
// 3017), or a bare RSAPublicKey, which RFC 6376 §3.6.1 asks for.
func parseRSA(data []byte) (*rsa.PublicKey, error) {
	any, err := x509.ParsePKIXPublicKey(data)
	if err != nil {
		if key, err := x509.ParsePKCS1PublicKey(data); err == nil {
			return key, checkRSA(key)
		}
		return nil, errors.New("tag p is no RSA key")
	}
	key, ok := any.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("tag p is a key of another type than RSA")
	}
	return key, checkRSA(key)
}

func checkRSA(key *rsa.PublicKey) error {
	if key.E < 3 || key.E&1 == 0 || key.N.Cmp(big.NewInt(3)) < 0 || key.N.Bit(0) == 0 {
		return errors.New("tag p is no sound RSA key")
	}
	return nil
}

// fits says whether the key may be used for a signature.
func (k *PublicKey) fits(s *Signature) *Fault {
	want := "rsa"
	if s.Algorithm == algEd25519 {
		want = "ed25519"
	}
	switch {
	case k.Type != want:
		return faultf(PermError, KeyType, "key is of type %s, the signature of %s", k.Type, s.Algorithm)
	case k.Hashes != nil && !has(k.Hashes, "sha256"):
		return faultf(PermError, KeyHash, "key is not for sha256")
	case k.Service != nil && !has(k.Service, "*") && !has(k.Service, "email"):
		return faultf(PermError, KeyService, "key is not for mail")
	case k.Strict && s.Identity != "" && s.identityDomain() != s.Domain:
		return faultf(PermError, KeyStrict, "key does not allow identities below %s", s.Domain)
	case want == "rsa" && k.Bits < MinBits:
		return faultf(Policy, KeyTooShort, "key has %d bits; %d are too few to be secure", k.Bits, MinBits-1)
	case want == "rsa" && k.Bits > MaxBits:
		return faultf(Policy, KeyTooLong, "key has %d bits; at most %d are accepted", k.Bits, MaxBits)
	}
	return nil
}

func has(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// verify checks a signature of digest, a SHA-256.
func (k *PublicKey) verify(digest, signature []byte) bool {
	switch key := k.Key.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest, signature) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(key, digest, signature) // RFC 8463 §3: of the hash
	}
	return false
}

// Record is the TXT record of a public key: "v=DKIM1; k=…; p=…".
func Record(public crypto.PublicKey) (string, error) {
	switch key := public.(type) {
	case *rsa.PublicKey:
		data, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return "", fmt.Errorf("encode public key: %w", err)
		}
		return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(data), nil
	case ed25519.PublicKey:
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(key), nil
	}
	return "", fmt.Errorf("a key of type %T cannot sign mail", public)
}
