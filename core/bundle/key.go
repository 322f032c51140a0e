package bundle

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

const (
	privateType = "PRIVATE KEY"
	publicType  = "PUBLIC KEY"
	maxKeyFile  = 64 << 10
)

// GenerateKey makes a key to sign with. Its Public half is for those who verify.
func GenerateKey() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	return key, nil
}

// Fingerprint is "sha256:" and the SHA-256 of the key's SubjectPublicKeyInfo (RFC
// 8410) in hexadecimal, or "" for what is not a key.
func Fingerprint(key ed25519.PublicKey) string {
	if len(key) != ed25519.PublicKeySize {
		return ""
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// EncodePrivateKey is the key in PEM (PKCS #8, RFC 8410).
func EncodePrivateKey(key ed25519.PrivateKey) ([]byte, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, errors.New("encode signing key: it is not an Ed25519 key")
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode signing key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateType, Bytes: der}), nil
}

// EncodePublicKey is the key in PEM (RFC 8410).
func EncodePublicKey(key ed25519.PublicKey) ([]byte, error) {
	if len(key) != ed25519.PublicKeySize {
		return nil, errors.New("encode public key: it is not an Ed25519 key")
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicType, Bytes: der}), nil
}

// ParsePrivateKey reads what EncodePrivateKey or "openssl genpkey" has written.
func ParsePrivateKey(b []byte) (ed25519.PrivateKey, error) {
	blocks, err := blocks(b, privateType)
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	if len(blocks) != 1 {
		return nil, fmt.Errorf("read signing key: there are %d, want one", len(blocks))
	}
	parsed, err := x509.ParsePKCS8PrivateKey(blocks[0])
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read signing key: it is %T, want an Ed25519 key", parsed)
	}
	return key, nil
}

// ParsePublicKeys reads one key or more.
func ParsePublicKeys(b []byte) ([]ed25519.PublicKey, error) {
	blocks, err := blocks(b, publicType)
	if err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	var all []ed25519.PublicKey
	for _, der := range blocks {
		parsed, err := x509.ParsePKIXPublicKey(der)
		if err != nil {
			return nil, fmt.Errorf("read public key: %w", err)
		}
		key, ok := parsed.(ed25519.PublicKey)
		if !ok {
			return nil, fmt.Errorf("read public key: it is %T, want an Ed25519 key", parsed)
		}
		all = append(all, key)
	}
	return all, nil
}

// blocks are the PEM blocks of b, which must have a type and nothing around them.
func blocks(b []byte, want string) (all [][]byte, err error) {
	for len(bytes.TrimSpace(b)) > 0 {
		if !bytes.HasPrefix(bytes.TrimSpace(b), []byte("-----BEGIN ")) {
			return nil, errors.New("not PEM, or something else is before or after it")
		}
		block, rest := pem.Decode(b)
		switch {
		case block == nil:
			return nil, errors.New("not PEM")
		case block.Type == privateType && want == publicType:
			return nil, errors.New("it is the secret half of a key; give the public one, and keep this one secret")
		case block.Type != want || len(block.Headers) > 0:
			return nil, fmt.Errorf("a PEM block %q, want %q without headers", block.Type, want)
		}
		all, b = append(all, block.Bytes), rest
	}
	if len(all) == 0 {
		return nil, errors.New("no key in it")
	}
	return all, nil
}

// WritePrivateKey writes the key to a new file that its owner alone can read.
func WritePrivateKey(name string, key ed25519.PrivateKey) error {
	b, err := EncodePrivateKey(key)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write signing key: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write signing key %s: %w", name, err), os.Remove(name))
	}
	return nil
}

// ReadPrivateKey reads a key from a file, which others than its owner must not be
// able to read.
func ReadPrivateKey(name string) (ed25519.PrivateKey, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	defer f.Close() // only read
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	if mode := fi.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("read signing key %s: its mode is %04o: others can read it; write: chmod 600 %s", name, mode, name)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read signing key %s: %w", name, err)
	}
	key, err := ParsePrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.TrimSpace(name), err)
	}
	return key, nil
}
