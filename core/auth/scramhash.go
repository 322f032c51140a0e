package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

// SCRAM hashes. They serve two purposes: SCRAM reads its keys from them, and a
// password in the clear is checked against them like any other hash. A second,
// slower hash beside them would protect nobody: whoever steals the file guesses
// at the keys instead. So the keys themselves must be slow to compute. A client
// computes them too, once for each login, and Cyrus SASL's (mbsync, mutt) refuses
// more than 65,536 rounds.
const (
	minSCRAMRounds = 4096      // RFC 7677 §4; most clients refuse fewer
	maxSCRAMRounds = 1_000_000 // what this server is ready to spend on a password in the clear
	newSCRAMRounds = 60_000
	newSCRAMSalt   = 16 // octets
)

// scramKeys is a SCRAM-SHA-256 hash (RFC 7677), in Dovecot's form
// "rounds,salt,StoredKey,ServerKey", the last three in base64.
type scramKeys struct {
	rounds         int
	salt           []byte
	stored, server []byte
}

// shape is what SCRAM tells everybody who asks about a user's keys, besides the
// octets of the salt.
type shape struct{ rounds, salt int }

// shapeOf says what the keys look like that h gives; ok is false if it gives none.
func shapeOf(h stored) (s shape, ok bool) {
	switch h := h.(type) {
	case scramKeys:
		return shape{h.rounds, len(h.salt)}, true
	case plain: // whose keys are computed when they are needed: slowness would protect nothing
		return shape{minSCRAMRounds, newSCRAMSalt}, true
	}
	return shape{}, false
}

func parseSCRAM(body string) (stored, error) {
	parts := strings.Split(body, ",")
	if len(parts) != 4 {
		return nil, errors.New("hash is not rounds,salt,key,key")
	}
	n, err := strconv.Atoi(parts[0])
	if err != nil || n < minSCRAMRounds || strconv.Itoa(n) != parts[0] {
		return nil, fmt.Errorf("rounds are not a number from %d", minSCRAMRounds)
	}
	if n > maxSCRAMRounds {
		return nil, fmt.Errorf("%d rounds are more than %d", n, maxSCRAMRounds)
	}
	k := scramKeys{rounds: n}
	for i, field := range []*[]byte{&k.salt, &k.stored, &k.server} {
		if *field, err = base64.StdEncoding.Strict().DecodeString(parts[i+1]); err != nil {
			return nil, errors.New("salt or key is not base64")
		}
	}
	if len(k.salt) < 8 || len(k.salt) > 64 || len(k.stored) != sha256.Size || len(k.server) != sha256.Size {
		return nil, errors.New("salt or key is of the wrong length")
	}
	return k, nil
}

func hashSCRAM(password string) (string, error) {
	k, err := deriveSCRAM(prepared(password), random(newSCRAMSalt), newSCRAMRounds)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return k.String(), nil
}

// newDecoy is a hash of the default cost that no password matches.
func newDecoy() string {
	return scramKeys{newSCRAMRounds, random(newSCRAMSalt), random(sha256.Size), random(sha256.Size)}.String()
}

// prepared is the client half that knows password after SASLprep (RFC 4013). What
// SASLprep refuses, such as emoji, is taken as it is: then it can still be used
// with PLAIN, and with the SCRAM of clients that do the same.
func prepared(password string) *scram.Client {
	c, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		return unprepared(password)
	}
	return c
}

func unprepared(password string) *scram.Client {
	c, _ := scram.SHA256.NewClientUnprepped("", password, "") // which has no error to return
	return c
}

// deriveSCRAM computes the keys of a password; it takes as long as rounds say.
func deriveSCRAM(c *scram.Client, salt []byte, rounds int) (scramKeys, error) {
	cred, err := c.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: rounds})
	return scramKeys{rounds, salt, cred.StoredKey, cred.ServerKey}, err
}

func (k scramKeys) match(password string) bool {
	// Dovecot makes its keys of the password as it was typed.
	return k.madeBy(prepared(password)) || !isASCII(password) && k.madeBy(unprepared(password))
}

func (k scramKeys) madeBy(c *scram.Client) bool {
	other, err := deriveSCRAM(c, k.salt, k.rounds)
	return err == nil && subtle.ConstantTimeCompare(k.stored, other.stored) == 1
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 0x7e })
}

func (k scramKeys) cost() string { return fmt.Sprintf("scram %d", k.rounds) }

func (k scramKeys) decoy() string {
	return scramKeys{k.rounds, random(len(k.salt)), random(sha256.Size), random(sha256.Size)}.String()
}

func (k scramKeys) String() string {
	enc := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("{SCRAM-SHA-256}%d,%s,%s,%s", k.rounds, enc(k.salt), enc(k.stored), enc(k.server))
}
