package bundle

import (
	"archive/zip"
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

var created = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)

var update = flag.Bool("update", false, "write testdata anew")

// keyOf is a key that is the same in each run.
func keyOf(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func publicOf(seed byte) ed25519.PublicKey { return keyOf(seed).Public().(ed25519.PublicKey) }

// fileOf is a file of text.
func fileOf(name, text string) File {
	return File{Name: name, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }}
}

func someFiles() []File {
	return []File{
		fileOf("policy.hcl", "policy \"inbound\" {}\n"),
		fileOf("modules/spf.wasm", "\x00asm\x01\x00\x00\x00"),
		fileOf("modules/empty", ""),
		fileOf("tests/größe_test.hcl", "test {}\n"),
	}
}

func packed(t testing.TB, files []File, o Options) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := Pack(&b, files, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func opened(b []byte, o OpenOptions) (*Bundle, error) {
	return Open(bytes.NewReader(b), int64(len(b)), o)
}

// strict accepts what keyOf(1) has signed.
func strict() OpenOptions {
	return OpenOptions{Trusted: []ed25519.PublicKey{publicOf(2), publicOf(1)}, RequireSigned: true}
}

// TestRoundTrip: what is packed comes out again, by all ways.
func TestRoundTrip(t *testing.T) {
	for _, key := range []ed25519.PrivateKey{nil, keyOf(1)} {
		t.Run(fmt.Sprint("signed ", key != nil), func(t *testing.T) {
			var buf bytes.Buffer
			comment := "the new rules\n\tfor <Größe> & more"
			m, err := Pack(&buf, someFiles(), Options{Created: created.In(time.FixedZone("", 3600)), Comment: comment, Sign: key})
			if err != nil {
				t.Fatal(err)
			}
			o := OpenOptions{}
			if key != nil {
				o = strict()
			}
			b, err := opened(buf.Bytes(), o)
			if err != nil {
				t.Fatal(err)
			}
			got := b.Manifest()
			if !got.Created.Equal(created) || got.Comment != comment || got.Signer != m.Signer || !slices.Equal(got.Files, m.Files) || len(got.Files) != 4 {
				t.Errorf("got %+v, want %+v", got, m)
			}
			signer, trusted := b.Signer()
			if trusted != (key != nil) || key != nil && (!signer.Equal(publicOf(1)) || m.Signer != Fingerprint(publicOf(1))) {
				t.Errorf("signer %x, trusted %t, %s", signer, trusted, m.Signer)
			}
			if err := fstest.TestFS(b.FS(), "policy.hcl", "modules/spf.wasm", "modules/empty", "tests/größe_test.hcl"); err != nil {
				t.Error(err)
			}
			dir := filepath.Join(t.TempDir(), "new")
			if err := b.Extract(dir); err != nil {
				t.Fatal(err)
			}
			for _, f := range someFiles() {
				r, _ := f.Open()
				want, _ := io.ReadAll(r)
				if b, err := os.ReadFile(filepath.Join(dir, f.Name)); err != nil || !bytes.Equal(b, want) {
					t.Errorf("%s: %q, %v", f.Name, b, err)
				}
			}
			modes(t, dir)
		})
	}
}

// modes sees that nobody else can read what is in dir.
func modes(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[d.IsDir()]; fi.Mode().Perm() != want {
			t.Errorf("%s has mode %v", p, fi.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".bundle-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestSame: the same files in any order give the same octets, and these are the
// octets of this version: a change of them is a change of the format.
func TestSame(t *testing.T) {
	o := Options{Created: created, Comment: "c", Sign: keyOf(1)}
	want := packed(t, someFiles(), o)
	files := someFiles()
	slices.Reverse(files)
	if got := packed(t, files, o); !bytes.Equal(got, want) {
		t.Error("another order gives other octets")
	}
	golden := filepath.Join("testdata", "signed.bundle")
	if *update {
		if err := os.WriteFile(golden, want, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(golden); err != nil || !bytes.Equal(b, want) {
		t.Errorf("not the octets of %s: %v", golden, err)
	}
}

// TestEveryBit: whichever bit of a signed bundle flips, it is refused; so it is
// without any option, and where it is not signed.
func TestEveryBit(t *testing.T) {
	for _, key := range []ed25519.PrivateKey{nil, keyOf(1)} {
		b := packed(t, someFiles(), Options{Created: created, Comment: "c", Sign: key})
		options := []OpenOptions{{}}
		if key != nil {
			options = append(options, strict())
		}
		for bit := range len(b) * 8 {
			b[bit/8] ^= 1 << (bit % 8)
			for _, o := range options {
				_, err := opened(b, o)
				var e *Error
				if !errors.As(err, &e) || e.Kind == nil {
					t.Fatalf("bit %d of octet %d: %v", bit%8, bit/8, err)
				}
			}
			b[bit/8] ^= 1 << (bit % 8)
		}
		if _, err := opened(b, options[len(options)-1]); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEveryLength: a bundle that is cut off, or has more, is refused.
func TestEveryLength(t *testing.T) {
	b := packed(t, someFiles(), Options{Created: created, Sign: keyOf(1)})
	for n := range len(b) {
		if _, err := opened(b[:n], strict()); err == nil {
			t.Fatalf("%d of %d octets are accepted", n, len(b))
		}
		if _, err := Open(bytes.NewReader(b[:n]), int64(len(b)), strict()); err == nil { // shorter than it was said
			t.Fatalf("%d of %d octets are accepted", n, len(b))
		}
	}
	for _, more := range []string{"\x00", "more", string(b)} {
		if _, err := opened(append(slices.Clone(b), more...), strict()); !errors.Is(err, ErrTampered) {
			t.Errorf("%d octets more: %v", len(more), err)
		}
		if _, err := opened(append([]byte(more), b...), strict()); err == nil {
			t.Errorf("%d octets before it", len(more))
		}
	}
}

// TestTrust: who may have signed.
func TestTrust(t *testing.T) {
	mine, others, unsigned := packed(t, someFiles(), Options{Sign: keyOf(1)}), packed(t, someFiles(), Options{Sign: keyOf(3)}), packed(t, someFiles(), Options{})
	trust := []ed25519.PublicKey{publicOf(2), publicOf(1)}
	rows := []struct {
		name    string
		b       []byte
		o       OpenOptions
		want    error
		trusted bool
	}{
		{"signed by one of us", mine, OpenOptions{Trusted: trust, RequireSigned: true}, nil, true},
		{"signed by one of us, which need not be", mine, OpenOptions{Trusted: trust}, nil, true},
		{"signed by another", others, OpenOptions{Trusted: trust, RequireSigned: true}, ErrUntrusted, false},
		{"signed by another, which need not be", others, OpenOptions{Trusted: trust}, ErrUntrusted, false},
		{"signed by anybody", others, OpenOptions{}, nil, false},
		{"must be signed, and nobody is trusted", mine, OpenOptions{RequireSigned: true}, ErrUntrusted, false},
		{"a key that is none", mine, OpenOptions{Trusted: []ed25519.PublicKey{nil, {1}}, RequireSigned: true}, ErrUntrusted, false},
		{"unsigned", unsigned, OpenOptions{Trusted: trust, RequireSigned: true}, ErrUnsigned, false},
		{"unsigned, which will do", unsigned, OpenOptions{Trusted: trust}, nil, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			b, err := opened(row.b, row.o)
			if !errors.Is(err, row.want) || (err == nil) != (row.want == nil) {
				t.Fatalf("%v, want %v", err, row.want)
			}
			if err == nil {
				if _, trusted := b.Signer(); trusted != row.trusted {
					t.Errorf("trusted %t", trusted)
				}
			}
		})
	}
}

// TestOtherReaders: the archive is one for others, too.
func TestOtherReaders(t *testing.T) {
	b := packed(t, someFiles(), Options{Created: created, Comment: "c", Sign: keyOf(1)})
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{manifestName, signatureName, "modules/empty", "modules/spf.wasm", "policy.hcl", "tests/größe_test.hcl"}
	for i, f := range z.File {
		if f.Name != want[i] || f.NonUTF8 {
			t.Errorf("member %d is %s, want %s", i, f.Name, want[i])
		}
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil { // which sees the CRC, too
			t.Errorf("%s: %v", f.Name, err)
		}
	}
	unzip, err := exec.LookPath("unzip")
	if err != nil {
		t.Skip("unzip is not installed")
	}
	name := filepath.Join(t.TempDir(), "bundle.zip")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(unzip, "-t", name).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestOpenSSL: another program verifies the signature and agrees about the key.
func TestOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	b := packed(t, someFiles(), Options{Created: created, Sign: keyOf(1)})
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := fs.ReadFile(z, manifestName)
	if err != nil {
		t.Fatal(err)
	}
	file, err := fs.ReadFile(z, signatureName)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := hex.DecodeString(strings.Fields(string(file))[5])
	if err != nil {
		t.Fatal(err)
	}
	key, err := EncodePublicKey(publicOf(1))
	if err != nil {
		t.Fatal(err)
	}
	public := write("public", key)
	signed := write("signed", slices.Concat([]byte(signatureLine), manifest))
	out, err := exec.Command(openssl, "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", public, "-in", signed, "-sigfile", write("signature", signature)).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	der, err := exec.Command(openssl, "pkey", "-pubin", "-in", public, "-outform", "DER").Output()
	if err != nil {
		t.Fatal(err)
	}
	sum := exec.Command(openssl, "dgst", "-sha256", "-r")
	sum.Stdin = bytes.NewReader(der)
	if out, err := sum.Output(); err != nil || "sha256:"+strings.Fields(string(out))[0] != Fingerprint(publicOf(1)) {
		t.Errorf("%s, %v, want %s", out, err, Fingerprint(publicOf(1)))
	}
}
