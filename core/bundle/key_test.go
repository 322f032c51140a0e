package bundle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKeys: both halves come back as they were written.
func TestKeys(t *testing.T) {
	key, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "key")
	if err := WritePrivateKey(name, key); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadPrivateKey(name); err != nil || !got.Equal(key) {
		t.Errorf("another key, %v", err)
	}
	if err := WritePrivateKey(name, key); !os.IsExist(unwrapped(err)) {
		t.Errorf("a key is overwritten: %v", err)
	}
	if fi, err := os.Stat(name); err != nil || fi.Mode() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if err := os.Chmod(name, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPrivateKey(name); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: %v", err)
	}
	a, errA := EncodePublicKey(publicOf(1))
	b, errB := EncodePublicKey(publicOf(2))
	all, err := ParsePublicKeys(append(append(a, '\n'), b...))
	if errA != nil || errB != nil || err != nil || len(all) != 2 || !all[0].Equal(publicOf(1)) || !all[1].Equal(publicOf(2)) {
		t.Errorf("%v, %v", all, err)
	}
	if a, b := Fingerprint(publicOf(1)), Fingerprint(publicOf(2)); a == b || len(a) != len("sha256:")+64 || Fingerprint(nil) != "" {
		t.Errorf("%s, %s", a, b)
	}
	if _, err := EncodePrivateKey(nil); err == nil {
		t.Error("no key is written")
	}
	if _, err := EncodePublicKey(nil); err == nil {
		t.Error("no key is written")
	}
}

func unwrapped(err error) error {
	if u, ok := err.(interface{ Unwrap() error }); ok {
		return u.Unwrap()
	}
	return err
}

// TestBadKeys: what is no key is said to be none, and what it is.
func TestBadKeys(t *testing.T) {
	private, err := EncodePrivateKey(keyOf(1))
	if err != nil {
		t.Fatal(err)
	}
	public, err := EncodePublicKey(publicOf(1))
	if err != nil {
		t.Fatal(err)
	}
	// An EC key of P-256, which is of no use here.
	const ec = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt
6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==
-----END PUBLIC KEY-----
`
	rows := []struct {
		name, text, private, public string
	}{
		{"nothing", "", "no key in it", "no key in it"},
		{"text", "hello", "not PEM", "not PEM"},
		{"a private key", string(private), "", "the secret half"},
		{"a public key", string(public), `want "PRIVATE KEY"`, ""},
		{"two private keys", string(private) + string(private), "want one", "the secret half"},
		{"text before it", "hello\n" + string(public), "something else", "something else"},
		{"text after it", string(public) + "hello\n", "want", "something else"},
		{"half of it", string(public[:60]), "not PEM", "not PEM"},
		{"another kind", ec, `want "PRIVATE KEY"`, "want an Ed25519 key"},
		{"not a key", "-----BEGIN PUBLIC KEY-----\naGVsbG8=\n-----END PUBLIC KEY-----\n", "want", "read public key"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			_, err := ParsePrivateKey([]byte(row.text))
			if (err == nil) != (row.private == "") || err != nil && !strings.Contains(err.Error(), row.private) {
				t.Errorf("private: %v, want %q", err, row.private)
			}
			_, err = ParsePublicKeys([]byte(row.text))
			if (err == nil) != (row.public == "") || err != nil && !strings.Contains(err.Error(), row.public) {
				t.Errorf("public: %v, want %q", err, row.public)
			}
		})
	}
}
