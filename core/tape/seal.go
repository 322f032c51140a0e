package tape

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// MinSecret is how many octets a secret has at least.
const MinSecret = 16

// What a key is used for. Each use has nonces of its own.
const (
	roleFile byte = iota + 1
	roleHeader
	rolePayload
)

// maxTry bounds header.try, which has three octets in the nonce.
const maxTry = 1<<24 - 1

// key seals the chunks of one file. A nil key seals nothing.
type key struct{ aead cipher.AEAD }

// newKey makes the key of the file that has the salt.
func newKey(secret []byte, s salt) (*key, error) {
	octets, err := hkdf.Key(sha256.New, secret, s[:], "wafer tape 1, AES-256-GCM", 32)
	if err != nil {
		return nil, fmt.Errorf("make the key of a tape's file: %w", err)
	}
	block, err := aes.NewCipher(octets)
	if err != nil {
		return nil, fmt.Errorf("make the key of a tape's file: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make the key of a tape's file: %w", err)
	}
	return &key{aead}, nil
}

// nonce never comes twice for a file: a chunk that the disk has taken half of is
// followed by one with the same number, but another try.
func nonce(role byte, try uint32, number uint64) []byte {
	var n [12]byte
	binary.BigEndian.PutUint32(n[:], try)
	n[0] = role
	binary.BigEndian.PutUint64(n[4:], number)
	return n[:]
}

// mark authenticates the octets of a header.
func (k *key) mark(role byte, try uint32, number uint64, octets []byte) (t tag) {
	if k != nil {
		k.aead.Seal(t[:0], nonce(role, try, number), nil, octets)
	}
	return t
}

// marked reports whether t is the mark of octets. Without a key there is none.
func (k *key) marked(t tag, role byte, try uint32, number uint64, octets []byte) bool {
	want := k.mark(role, try, number, octets)
	return subtle.ConstantTimeCompare(want[:], t[:]) == 1
}

// overhead is how many octets seal adds.
func (k *key) overhead() int {
	if k == nil {
		return 0
	}
	return k.aead.Overhead()
}

// seal seals payload in place, where it has room for the overhead.
func (k *key) seal(payload []byte, h *header, body []byte) []byte {
	if k == nil {
		return payload
	}
	return k.aead.Seal(payload[:0], nonce(rolePayload, h.try, h.number), payload, body)
}

// open unseals payload in place.
func (k *key) open(payload []byte, h *header, body []byte) ([]byte, error) {
	if k == nil {
		return payload, nil
	}
	return k.aead.Open(payload[:0], nonce(rolePayload, h.try, h.number), payload, body)
}
