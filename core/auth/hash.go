package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"
)

// DefaultScheme is what Hash uses when it is not told otherwise: the one scheme
// that serves all mechanisms.
const DefaultScheme = "SCRAM-SHA-256"

// MaxPassword is the longest password in octets. The cost of some schemes
// grows with the length, so it is a limit on work, too.
const MaxPassword = 512

// stored is a password hash that has been taken apart and whose cost is known
// to be bearable.
type stored interface {
	match(password string) bool
	cost() string  // scheme and parameters; equal for hashes that take equally long
	decoy() string // a hash of the same cost that no password matches, in Dovecot's syntax
}

// Hash returns password under scheme in Dovecot's syntax, "{SCHEME}…", with a
// fresh salt. Scheme is "" for DefaultScheme, or one of SCRAM-SHA-256, ARGON2ID,
// BLF-CRYPT, SHA512-CRYPT, SHA256-CRYPT, SSHA512, SSHA256, PLAIN, in any case;
// users with any but the first cannot log in with SCRAM. The result has no ":"
// and no control character, so it fits into a users file.
func Hash(scheme, password string) (string, error) {
	if err := checkPassword(password); err != nil {
		return "", err
	}
	switch s := strings.ToUpper(strings.Trim(scheme, "{}")); s {
	case "", DefaultScheme:
		return hashSCRAM(password)
	case "ARGON2ID":
		return hashArgon2(password), nil
	case "BLF-CRYPT":
		return hashBcrypt(password)
	case "SHA512-CRYPT", "SHA256-CRYPT":
		return hashSHACrypt(s, password)
	case "SSHA512", "SSHA256":
		return hashSalted(s, password), nil
	case "PLAIN":
		if strings.ContainsFunc(password, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) {
			return "{PLAIN.b64}" + base64.StdEncoding.EncodeToString([]byte(password)), nil
		}
		return "{PLAIN}" + password, nil
	}
	return "", fmt.Errorf("unknown password scheme %q; use SCRAM-SHA-256, ARGON2ID, BLF-CRYPT or SHA512-CRYPT", scheme)
}

func checkPassword(password string) error {
	switch {
	case password == "":
		return errors.New("password is empty")
	case len(password) > MaxPassword:
		return fmt.Errorf("password is longer than %d octets", MaxPassword)
	case strings.IndexByte(password, 0) >= 0: // crypt(3) would stop there
		return errors.New("password has a NUL octet")
	}
	return nil
}

// Verify reports whether password belongs to hash, which is in Dovecot's
// syntax: "{SCHEME}…", "{SCHEME.b64}…", "{SCHEME.hex}…", or a crypt(3) string
// without a scheme. The error says why a hash cannot be used: unknown or weak
// scheme, bad encoding, parameters beyond what this server is ready to spend.
// It takes as long as the hash is meant to take: up to seconds.
func Verify(hash, password string) (ok bool, err error) {
	h, err := parseHash(hash)
	if err != nil {
		return false, err
	}
	return checkPassword(password) == nil && h.match(password), nil
}

// parseHash takes a hash apart and checks all of it but the password. Its
// errors never quote the hash.
func parseHash(s string) (stored, error) {
	if len(s) > 4096 {
		return nil, errors.New("password hash is longer than 4096 octets")
	}
	scheme, body := "", s
	if strings.HasPrefix(s, "{") {
		end := strings.IndexByte(s, '}')
		if end < 0 {
			return nil, errors.New(`password scheme has no closing "}"`)
		}
		scheme, body = s[1:end], s[end+1:]
	} else if !strings.HasPrefix(s, "$") {
		return nil, errors.New("password has no scheme; write {PLAIN} in front of a password in clear text, or better set a new one")
	}
	if isLocked(s) {
		return locked{}, nil
	}
	name, suffix, encoded := strings.Cut(strings.ToUpper(scheme), ".")
	if encoded {
		raw, err := decode(suffix, body)
		if err != nil {
			return nil, fmt.Errorf("password scheme {%s}: %w", printable(scheme), err)
		}
		body = string(raw)
	}
	switch name {
	case "", "CRYPT", "ARGON2ID", "ARGON2I", "BLF-CRYPT", "SHA512-CRYPT", "SHA256-CRYPT":
		return parseCrypt(name, body)
	case "SCRAM-SHA-256":
		h, err := parseSCRAM(body)
		if err != nil {
			return nil, fmt.Errorf("password scheme {%s}: %w", name, err)
		}
		return h, nil
	case "SSHA512", "SSHA256":
		return parseSalted(name, body, encoded)
	case "PLAIN", "CLEAR", "CLEARTEXT":
		if body == "" {
			return nil, errors.New("password in clear text is empty")
		}
		return plain(body), nil
	case "MD5", "MD5-CRYPT", "DES-CRYPT", "SHA", "SHA1", "SSHA", "SMD5", "LDAP-MD5", "PLAIN-MD4", "PLAIN-MD5",
		"CRAM-MD5", "SCRAM-SHA-1", "HMAC-MD5", "DIGEST-MD5", "OTP", "SHA256", "SHA512", "PLAIN-TRUNC":
		return nil, fmt.Errorf("password scheme {%s} is too weak to be accepted; set a new password", name)
	}
	return nil, fmt.Errorf("unknown password scheme {%s}; use {SCRAM-SHA-256}, {ARGON2ID}, {BLF-CRYPT} or {SHA512-CRYPT}", printable(scheme))
}

// parseCrypt reads a crypt(3) or argon2 string, which tells its own kind. A
// scheme that says something else is a mistake of the file's.
func parseCrypt(name, body string) (stored, error) {
	var h stored
	var is string
	var err error
	switch {
	case strings.HasPrefix(body, "$argon2id$"):
		is = "ARGON2ID"
		h, err = parseArgon2(body)
	case strings.HasPrefix(body, "$argon2i$"):
		is = "ARGON2I"
		h, err = parseArgon2(body)
	case strings.HasPrefix(body, "$2a$"), strings.HasPrefix(body, "$2b$"), strings.HasPrefix(body, "$2y$"):
		is = "BLF-CRYPT"
		h, err = parseBcrypt(body)
	case strings.HasPrefix(body, "$6$"):
		is = "SHA512-CRYPT"
		h, err = parseSHACrypt(body)
	case strings.HasPrefix(body, "$5$"):
		is = "SHA256-CRYPT"
		h, err = parseSHACrypt(body)
	default:
		return nil, errors.New("password hash is none of $argon2id$, $2y$, $6$, $5$; set a new password")
	}
	if err != nil {
		return nil, fmt.Errorf("password scheme {%s}: %w", is, err)
	}
	if name != "" && name != "CRYPT" && name != is {
		return nil, fmt.Errorf("password scheme says {%s} but the hash is {%s}", name, is)
	}
	return h, nil
}

func decode(suffix, body string) ([]byte, error) {
	switch suffix {
	case "B64", "BASE64":
		b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(body, "="))
		if err != nil {
			return nil, errors.New("hash is not base64")
		}
		return b, nil
	case "HEX":
		b, err := hex.DecodeString(body)
		if err != nil {
			return nil, errors.New("hash is not hexadecimal")
		}
		return b, nil
	}
	return nil, errors.New(`the encoding must be ".b64" or ".hex"`)
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// isLocked reports whether the password field says that nobody can log in.
// "!" and "*" in front of or instead of a hash are what passwd(1) writes.
func isLocked(s string) bool {
	if end := strings.IndexByte(s, '}'); strings.HasPrefix(s, "{") && end > 0 {
		s = s[end+1:]
		return strings.HasPrefix(s, "!") || s == "*"
	}
	return s == "" || s[0] == '!' || s == "*"
}

// locked is an account that receives mail and cannot log in.
type locked struct{}

func (locked) match(string) bool { return false }
func (locked) cost() string      { return "" }
func (locked) decoy() string     { return "{CRYPT}!" }

// plain is a password in clear text.
type plain string

func (p plain) match(password string) bool {
	a, b := sha256.Sum256([]byte(p)), sha256.Sum256([]byte(password)) // hide the length, too
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}
func (p plain) cost() string  { return "plain" }
func (p plain) decoy() string { return "{PLAIN}" + rand.Text() }

// salted is SSHA256 or SSHA512: digest(password ‖ salt) ‖ salt.
type salted struct {
	name         string
	digest, salt []byte
}

func newDigest(name string) hash.Hash {
	if name == "SSHA256" {
		return sha256.New()
	}
	return sha512.New()
}

func parseSalted(name, body string, decoded bool) (stored, error) {
	raw := []byte(body)
	if !decoded {
		var err error
		if raw, err = decode("B64", body); err != nil {
			return nil, fmt.Errorf("password scheme {%s}: %w", name, err)
		}
	}
	n := newDigest(name).Size()
	if len(raw) <= n || len(raw) > n+64 {
		return nil, fmt.Errorf("password scheme {%s}: hash has %d octets, not %d and a salt", name, len(raw), n)
	}
	return salted{name, raw[:n], raw[n:]}, nil
}

func hashSalted(name, password string) string {
	s := salted{name: name, salt: random(8)}
	return "{" + name + "}" + base64.StdEncoding.EncodeToString(append(s.sum(password), s.salt...))
}

func (s salted) sum(password string) []byte {
	h := newDigest(s.name)
	h.Write([]byte(password))
	h.Write(s.salt)
	return h.Sum(nil)
}

func (s salted) match(password string) bool {
	return subtle.ConstantTimeCompare(s.digest, s.sum(password)) == 1
}
func (s salted) cost() string { return s.name }
func (s salted) decoy() string {
	raw := random(len(s.digest) + len(s.salt))
	return "{" + s.name + "}" + base64.StdEncoding.EncodeToString(raw)
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}

// randomText returns n characters of alphabet, whose length divides 256.
func randomText(n int, alphabet string) string {
	b := random(n)
	for i := range b {
		b[i] = alphabet[int(b[i])%len(alphabet)]
	}
	return string(b)
}
