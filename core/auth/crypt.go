package auth

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-crypt/crypt/algorithm"
	"github.com/go-crypt/crypt/algorithm/shacrypt"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// What this server is ready to spend on one hashing. Whoever writes a users
// file could otherwise stop the whole server with one line.
const (
	maxArgon2Memory = 256 << 10 // KiB
	maxArgon2Work   = 1 << 20   // KiB times passes: libsodium's "moderate" is 3/4 of it
	maxArgon2Lanes  = 16
	maxBcryptCost   = 15
	maxSHARounds    = 1_000_000
)

// What new hashes cost: about 30 ms on a small machine each. Argon2's memory is
// the least that OWASP's password cheat sheet calls sufficient, so that a
// burst of logins fits into a machine with 1 GB.
const (
	newArgon2Memory = 19456 // KiB
	newArgon2Passes = 2
	newBcryptCost   = 10
	newSHARounds    = 100_000
)

const cryptAlphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// argon is an argon2 hash (RFC 9106) in its usual text form.
type argon struct {
	id             bool // argon2id, else argon2i
	memory, passes uint32
	lanes          uint8
	salt, key      []byte
}

// parseArgon2 reads "$argon2id$v=19$m=65536,t=3,p=1$salt$key".
func parseArgon2(s string) (stored, error) {
	parts := strings.Split(s, "$")
	if len(parts) != 6 {
		return nil, errors.New("hash is malformed")
	}
	if parts[2] != "v=19" {
		return nil, errors.New("only version 19 of argon2 is known")
	}
	a := argon{id: parts[1] == "argon2id"}
	var seen [3]uint32
	params := strings.Split(parts[3], ",")
	if len(params) != 3 {
		return nil, errors.New("parameters are not m=,t=,p=")
	}
	for i, name := range []string{"m=", "t=", "p="} {
		value, ok := strings.CutPrefix(params[i], name)
		n, err := strconv.ParseUint(value, 10, 32)
		if !ok || err != nil {
			return nil, errors.New("parameters are not m=,t=,p=")
		}
		seen[i] = uint32(n)
	}
	a.memory, a.passes = seen[0], seen[1]
	switch {
	case seen[2] < 1 || seen[2] > maxArgon2Lanes:
		return nil, fmt.Errorf("p=%d is not between 1 and %d", seen[2], maxArgon2Lanes)
	case a.passes < 1 || a.memory < 8*seen[2]:
		return nil, errors.New("m or t is too small")
	case a.memory > maxArgon2Memory:
		return nil, fmt.Errorf("m=%d KiB is more than %d", a.memory, maxArgon2Memory)
	case uint64(a.memory)*uint64(a.passes) > maxArgon2Work:
		return nil, fmt.Errorf("m=%d,t=%d is more than m times t = %d", a.memory, a.passes, maxArgon2Work)
	}
	a.lanes = uint8(seen[2])
	var err1, err2 error
	a.salt, err1 = base64.RawStdEncoding.DecodeString(parts[4])
	a.key, err2 = base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(a.salt) < 8 || len(a.salt) > 64 || len(a.key) < 16 || len(a.key) > 64 {
		return nil, errors.New("salt or key is not base64 of a sensible length")
	}
	return a, nil
}

func hashArgon2(password string) string {
	a := argon{id: true, memory: newArgon2Memory, passes: newArgon2Passes, lanes: 1, salt: random(16), key: make([]byte, 32)}
	a.key = a.derive(password)
	return a.String()
}

func (a argon) derive(password string) []byte {
	f := argon2.Key
	if a.id {
		f = argon2.IDKey
	}
	return f([]byte(password), a.salt, a.passes, a.memory, a.lanes, uint32(len(a.key)))
}

func (a argon) match(password string) bool {
	return subtle.ConstantTimeCompare(a.key, a.derive(password)) == 1
}

func (a argon) variant() string {
	if a.id {
		return "argon2id"
	}
	return "argon2i"
}

func (a argon) cost() string {
	return fmt.Sprintf("%s m=%d,t=%d,p=%d", a.variant(), a.memory, a.passes, a.lanes)
}

func (a argon) decoy() string {
	a.salt, a.key = random(len(a.salt)), random(len(a.key))
	return a.String()
}

func (a argon) String() string {
	enc := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("{%s}$%s$v=19$m=%d,t=%d,p=%d$%s$%s", strings.ToUpper(a.variant()), a.variant(),
		a.memory, a.passes, a.lanes, enc(a.salt), enc(a.key))
}

// blowfish is a bcrypt string, "$2y$10$" and 53 characters.
type blowfish string

func parseBcrypt(s string) (stored, error) {
	if len(s) != 60 || s[6] != '$' || strings.Trim(s[7:], cryptAlphabet) != "" {
		return nil, errors.New("hash is malformed")
	}
	n, err := bcrypt.Cost([]byte(s))
	if err != nil {
		return nil, errors.New("hash is malformed")
	}
	if n > maxBcryptCost {
		return nil, fmt.Errorf("cost %d is more than %d", n, maxBcryptCost)
	}
	return blowfish(s), nil
}

func hashBcrypt(password string) (string, error) {
	b, err := bcrypt.GenerateFromPassword([]byte(password), newBcryptCost)
	if errors.Is(err, bcrypt.ErrPasswordTooLong) {
		return "", errors.New("password is longer than the 72 octets that BLF-CRYPT looks at")
	}
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return "{BLF-CRYPT}$2y$" + string(b[4:]), nil // Dovecot's name for what Go calls $2a$
}

func (b blowfish) match(password string) bool {
	return bcrypt.CompareHashAndPassword([]byte(b), []byte(password)) == nil
}
func (b blowfish) cost() string { return "bcrypt " + string(b[4:6]) }
func (b blowfish) decoy() string {
	// The 22nd and the last character carry only some bits; "." has none of them set.
	return "{BLF-CRYPT}" + string(b[:7]) + randomText(21, cryptAlphabet) + "." + randomText(30, cryptAlphabet) + "."
}

// sha is SHA-crypt, "$6$rounds=100000$salt$key" or "$5$…".
type sha struct {
	digest algorithm.Digest
	prefix string // up to and with the "$" before the salt
	salt   int    // length
	key    int
}

func parseSHACrypt(s string) (stored, error) {
	parts := strings.Split(s, "$")
	h := sha{prefix: s[:3], key: 86}
	if s[1] == '5' {
		h.key = 43
	}
	if len(parts) == 5 {
		rounds, ok := strings.CutPrefix(parts[2], "rounds=")
		n, err := strconv.Atoi(rounds)
		if !ok || err != nil || n < shacrypt.IterationsMin {
			return nil, fmt.Errorf("rounds are not a number from %d", shacrypt.IterationsMin)
		}
		if n > maxSHARounds {
			return nil, fmt.Errorf("%d rounds are more than %d", n, maxSHARounds)
		}
		h.prefix += parts[2] + "$"
	} else if len(parts) != 4 {
		return nil, errors.New("hash is malformed")
	}
	salt, key := parts[len(parts)-2], parts[len(parts)-1]
	h.salt = len(salt)
	if len(salt) > shacrypt.SaltLengthMax || len(key) != h.key || strings.Trim(key, cryptAlphabet) != "" {
		return nil, errors.New("salt or key is of the wrong length")
	}
	var err error
	if h.digest, err = shacrypt.Decode(s); err != nil {
		return nil, errors.New("hash is malformed") // the library's error may quote it
	}
	return h, nil
}

func hashSHACrypt(name, password string) (string, error) {
	variant := shacrypt.WithSHA512()
	if name == "SHA256-CRYPT" {
		variant = shacrypt.WithSHA256()
	}
	h, err := shacrypt.New(variant, shacrypt.WithIterations(newSHARounds))
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	d, err := h.Hash(password)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return "{" + name + "}" + d.Encode(), nil
}

func (h sha) match(password string) bool {
	ok, err := h.digest.MatchAdvanced(password)
	return ok && err == nil
}
func (h sha) cost() string { return h.prefix }
func (h sha) decoy() string {
	return "{CRYPT}" + h.prefix + randomText(max(h.salt, 1), cryptAlphabet) + "$" + randomText(h.key, cryptAlphabet)
}
