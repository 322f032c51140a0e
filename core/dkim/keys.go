package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// GenerateKey makes a new private key: "rsa" with 2048 to 4096 bits (0: 2048; fewer
// are no longer advised, RFC 8301 §3.2) or "ed25519", whose size is fixed (bits 0 or
// 256).
func GenerateKey(algorithm string, bits int) (crypto.Signer, error) {
	switch algorithm {
	case "rsa":
		if bits == 0 {
			bits = 2048
		}
		if bits < 2048 || bits > MaxBits {
			return nil, fmt.Errorf("generate rsa key: %d bits are not allowed; 2048 to %d are", bits, MaxBits)
		}
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			return nil, fmt.Errorf("generate rsa key: %w", err)
		}
		return key, nil
	case "ed25519":
		if bits != 0 && bits != 256 {
			return nil, fmt.Errorf("generate ed25519 key: it has 256 bits, not %d", bits)
		}
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("generate ed25519 key: %w", err)
		}
		return key, nil
	}
	return nil, fmt.Errorf("generate key: algorithm %q is unknown; rsa and ed25519 are known", algorithm)
}

const (
	pemPKCS8 = "PRIVATE KEY"
	pemPKCS1 = "RSA PRIVATE KEY"
)

// ParseKey reads a private key in PEM: PKCS #8 with RSA or Ed25519, or PKCS #1. What
// stands around the first such block is passed over.
func ParseKey(data []byte) (crypto.Signer, error) {
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return nil, errors.New("parse private key: there is no PEM block of a private key")
		}
		data = rest
		switch block.Type {
		case pemPKCS8:
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("parse private key: %w", err)
			}
			signer, ok := key.(crypto.Signer)
			if !ok {
				return nil, fmt.Errorf("parse private key: a key of type %T cannot sign mail", key)
			}
			return usable(signer)
		case pemPKCS1:
			key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("parse private key: %w", err)
			}
			return usable(key)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("parse private key: it is encrypted")
		}
	}
}

func usable(key crypto.Signer) (crypto.Signer, error) {
	if _, err := algorithm(key); err != nil {
		return nil, fmt.Errorf("parse private key: %w", err)
	}
	return key, nil
}

// MarshalKey writes a private key as PKCS #8 in PEM.
func MarshalKey(key crypto.Signer) ([]byte, error) {
	data, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPKCS8, Bytes: data}), nil
}

// maxKeyFile is how large a key file may be in octets.
const maxKeyFile = 64 << 10

// ReadKeyFile reads a private key from a file that nobody but its owner and its group
// can reach.
func ReadKeyFile(path string) (crypto.Signer, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read dkim key: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read dkim key: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("read dkim key %s: it is no regular file", path)
	case info.Mode().Perm()&0o007 != 0:
		return nil, fmt.Errorf("read dkim key %s: every user of this host can reach it (mode %04o); run chmod o= %s", path, info.Mode().Perm(), path)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read dkim key %s: %w", path, err)
	case len(data) > maxKeyFile:
		return nil, fmt.Errorf("read dkim key %s: it has more than %d octets", path, maxKeyFile)
	}
	key, err := ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("read dkim key %s: %w", path, err)
	}
	return key, nil
}

// ZoneLine is the key's record as a line of a zone file (RFC 1035 §5.1), its value in
// strings of at most 255 octets.
func ZoneLine(key Key) (string, error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	record, err := Record(key.Private.Public())
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s. IN TXT (", KeyName(key.Domain, key.Selector))
	for len(record) > 0 {
		n := min(len(record), 255)
		fmt.Fprintf(&b, " \"%s\"", record[:n])
		record = record[n:]
	}
	b.WriteString(" )")
	return b.String(), nil
}
