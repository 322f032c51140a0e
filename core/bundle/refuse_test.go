package bundle

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// raw is an archive that a forger writes, whose parts fit: a manifest that says
// what it likes, a signature by key if there is one, and members.
func raw(manifest string, key ed25519.PrivateKey, files ...string) []byte {
	contents := []string{manifest}
	all := []member{{name: manifestName}}
	if key != nil {
		contents = append(contents, string(sign(key, []byte(manifest))))
		all = append(all, member{name: signatureName})
	}
	for i := 0; i+1 < len(files); i += 2 {
		contents = append(contents, files[i+1])
		all = append(all, member{name: files[i]})
	}
	for i, s := range contents {
		all[i].size, all[i].crc = int64(len(s)), crc32.ChecksumIEEE([]byte(s))
	}
	lay(all)
	var b []byte
	for i := range all {
		b = append(append(b, all[i].local()...), contents[i]...)
	}
	return append(b, directory(all)...)
}

// line is a file's line of a manifest.
func line(name, text string) string {
	return fmt.Sprintf("file %x %d %s\n", sha256.Sum256([]byte(text)), len(text), name)
}

const begin = "wafer-bundle 1\ncreated 2026-01-02T15:04:05Z\n"

// TestRefused: whatever a forger makes whose checksums fit.
func TestRefused(t *testing.T) {
	signer := "signer " + Fingerprint(publicOf(1)) + "\n"
	long := strings.Repeat("n", maxElement+1)
	rows := []struct {
		name string
		b    []byte
		want error
	}{
		{"sound", raw(begin+line("a", "1")+line("b/c", "2"), nil, "a", "1", "b/c", "2"), nil},
		{"sound and signed", raw(begin+signer+line("a", "1"), keyOf(1), "a", "1"), nil},
		{"no files", raw(begin, nil), nil},

		{"nothing", nil, ErrFormat},
		{"another file", []byte(strings.Repeat("From: a@example.org\r\n", 10)), ErrFormat},
		{"another archive", raw("", nil, "a", "1")[localHead+len(manifestName):], ErrFormat},
		{"an empty manifest", raw("", nil), ErrFormat},
		{"a later version", raw("wafer-bundle 2\nwhatever\n", nil), ErrVersion},
		{"no time", raw("wafer-bundle 1\n", nil), ErrFormat},
		{"another time zone", raw("wafer-bundle 1\ncreated 2026-01-02T15:04:05+01:00\n", nil), ErrFormat},
		{"no zone as others write it", raw("wafer-bundle 1\ncreated 2026-01-02T15:04:05+00:00\n", nil), ErrFormat},
		{"a part of a second", raw("wafer-bundle 1\ncreated 2026-01-02T15:04:05.5Z\n", nil), ErrFormat},
		{"an unknown line", raw(begin+"mode 0777\n", nil), ErrFormat},
		{"a line without end", raw(begin+"comment c", nil), ErrFormat},
		{"CR LF", raw(strings.ReplaceAll(begin, "\n", "\r\n"), nil), ErrFormat},
		{"a comment out of its place", raw(begin+line("a", "1")+"comment c\n", nil, "a", "1"), ErrFormat},
		{"a comment that commands terminals", raw(begin+"comment \x1b[2J\n", nil), ErrFormat},
		{"a comment that runs backwards", raw(begin+"comment \u202e\n", nil), ErrFormat},
		{"an empty comment", raw(begin+"comment \n", nil), ErrFormat},
		{"a size with a sign", raw(begin+strings.Replace(line("a", "1"), " 1 ", " +1 ", 1), nil, "a", "1"), ErrFormat},
		{"a size below zero", raw(begin+strings.Replace(line("a", "1"), " 1 ", " -1 ", 1), nil, "a", "1"), ErrFormat},
		{"a huge size", raw(begin+strings.Replace(line("a", "1"), " 1 ", " 9223372036854775807 ", 1), nil, "a", "1"), ErrFormat},
		{"a large size", raw(begin+strings.Replace(line("a", "1"), " 1 ", " 4000000000 ", 1), nil, "a", "1"), ErrTooLarge},
		{"a size that is not there", raw(begin+strings.Replace(line("a", "1"), " 1 ", " 4000000 ", 1), nil, "a", "1"), ErrTampered},
		{"a short digest", raw(begin+"file 00 1 a\n", nil, "a", "1"), ErrFormat},
		{"a digest in capitals", raw(begin+strings.ToUpper(line("", "1")[5:])+"\n", nil), ErrFormat},
		{"files out of order", raw(begin+line("b", "1")+line("a", "1"), nil, "b", "1", "a", "1"), ErrFormat},
		{"a file twice", raw(begin+line("a", "1")+line("a", "1"), nil, "a", "1", "a", "1"), ErrFormat},

		{"another content", raw(begin+line("a", "1"), nil, "a", "2"), ErrTampered},
		{"a file that is missing", raw(begin+line("a", "1")+line("b", "2"), nil, "a", "1"), ErrTampered},
		{"a file that is too many", raw(begin+line("a", "1"), nil, "a", "1", "b", "2"), ErrTampered},
		{"a file of another name", raw(begin+line("a", "1"), nil, "b", "1"), ErrTampered},
		{"a file of another size", raw(begin+line("a", "1"), nil, "a", "12"), ErrTampered},
		{"files exchanged", raw(begin+line("a", "1")+line("b", "2"), nil, "a", "2", "b", "1"), ErrTampered},
		{"files in another order", raw(begin+line("a", "1")+line("b", "2"), nil, "b", "2", "a", "1"), ErrTampered},

		{"the signature is taken away", raw(begin+signer+line("a", "1"), nil, "a", "1"), ErrTampered},
		{"the signature is taken away, and nothing is left", raw(begin+signer, nil), ErrTampered},
		{"a signature that the manifest does not speak of", raw(begin+line("a", "1"), keyOf(1), "a", "1"), ErrTampered},
		{"signed by another than it says", raw(begin+signer+line("a", "1"), keyOf(2), "a", "1"), ErrTampered},
		{"a signature of another manifest", raw(begin+signer+line("a", "1"), nil, signatureName, string(sign(keyOf(1), []byte(begin+signer))), "a", "1"), ErrTampered},
		{"a signature of something else", raw(begin+signer, nil, signatureName, string(encodeSignature(publicOf(1), ed25519.Sign(keyOf(1), []byte(begin+signer))))), ErrTampered},
		{"a signature in capitals", raw(begin+signer, nil, signatureName, strings.Replace(string(sign(keyOf(1), []byte(begin+signer))), "a", "A", 1)), ErrTampered},
		{"no signature at all", raw(begin+signer, nil, signatureName, strings.Repeat("x", signatureSize)), ErrTampered},

		{"an absolute path", raw(begin+line("/etc/passwd", "1"), nil, "/etc/passwd", "1"), ErrName},
		{"dots", raw(begin+line("../a", "1"), nil, "../a", "1"), ErrName},
		{"dots within", raw(begin+line("a/../../b", "1"), nil, "a/../../b", "1"), ErrName},
		{"a dot", raw(begin+line("./a", "1"), nil, "./a", "1"), ErrName},
		{"the folder itself", raw(begin+line(".", "1"), nil, ".", "1"), ErrName},
		{"no name", raw(begin+line("", "1"), nil, "", "1"), ErrName},
		{"a directory", raw(begin+line("a/", ""), nil, "a/", ""), ErrName},
		{"two slashes", raw(begin+line("a//b", "1"), nil, "a//b", "1"), ErrName},
		{"a backslash", raw(begin+line(`..\a`, "1"), nil, `..\a`, "1"), ErrName},
		{"a drive", raw(begin+line("c:a", "1"), nil, "c:a", "1"), ErrName},
		{"a stream", raw(begin+line("a:b", "1"), nil, "a:b", "1"), ErrName},
		{"a device", raw(begin+line("CON", "1"), nil, "CON", "1"), ErrName},
		{"a device with an extension", raw(begin+line("a/Nul.txt.hcl", "1"), nil, "a/Nul.txt.hcl", "1"), ErrName},
		{"a device with a space", raw(begin+line("aux .hcl", "1"), nil, "aux .hcl", "1"), ErrName},
		{"a device as directory", raw(begin+line("lpt1/a", "1"), nil, "lpt1/a", "1"), ErrName},
		{"a device with a raised digit", raw(begin+line("com¹", "1"), nil, "com¹", "1"), ErrName},
		{"a dot at the end", raw(begin+line("a./b", "1"), nil, "a./b", "1"), ErrName},
		{"a space at the end", raw(begin+line("a ", "1"), nil, "a ", "1"), ErrName},
		{"a NUL", raw(begin+line("a\x00b", "1"), nil, "a\x00b", "1"), ErrName},
		{"an escape", raw(begin+line("a\x1b[2J", "1"), nil, "a\x1b[2J", "1"), ErrName},
		{"a name that runs backwards", raw(begin+line("a\u202elch.x", "1"), nil, "a\u202elch.x", "1"), ErrName},
		{"not UTF-8", raw(begin+line("a\xff", "1"), nil, "a\xff", "1"), ErrName},
		{"decomposed", raw(begin+line("u\u0308", "1"), nil, "u\u0308", "1"), ErrName},
		{"a long part", raw(begin+line(long, "1"), nil, long, "1"), ErrName},
		{"a long name", raw(begin+line(strings.Repeat("a/", 500)+"a", "1"), nil), ErrName},
		{"a deep name", raw(begin+line(strings.Repeat("a/", maxDepth)+"a", "1"), nil), ErrName},
		{"another case", raw(begin+line("A", "1")+line("a", "1"), nil, "A", "1", "a", "1"), ErrName},
		{"another case of a directory", raw(begin+line("A/x", "1")+line("a/y", "1"), nil, "A/x", "1", "a/y", "1"), ErrName},
		{"another case that is longer", raw(begin+line("STRASSE", "1")+line("straße", "1"), nil, "STRASSE", "1", "straße", "1"), ErrName},
		{"a file that is a directory", raw(begin+line("a", "1")+line("a/b", "1"), nil, "a", "1", "a/b", "1"), ErrName},
		{"a file that is a directory, other case", raw(begin+line("A", "1")+line("a/b", "1"), nil, "A", "1", "a/b", "1"), ErrName},
		{"the manifest's name", raw(begin+line("MANIFEST", "1"), nil, "MANIFEST", "1"), ErrName},
		{"the signature's name", raw(begin+line("manifest.SIG", "1"), nil, "manifest.SIG", "1"), ErrName},
		{"the manifest as a directory", raw(begin+line("manifest/a", "1"), nil, "manifest/a", "1"), ErrName},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			_, err := opened(row.b, OpenOptions{})
			if !errors.Is(err, row.want) || (err == nil) != (row.want == nil) {
				t.Errorf("%v, want %v", err, row.want)
			}
			if err != nil && strings.ContainsFunc(err.Error(), invisible) {
				t.Errorf("%q commands terminals", err)
			}
		})
	}
}

// TestNamed: which file was changed is said.
func TestNamed(t *testing.T) {
	b := packed(t, someFiles(), Options{Sign: keyOf(1)})
	at := bytes.Index(b, []byte("\x00asm"))
	b[at] ^= 1
	_, err := opened(b, strict())
	var e *Error
	if !errors.As(err, &e) || e.Kind != ErrTampered || e.File != "modules/spf.wasm" || !strings.Contains(err.Error(), "modules/spf.wasm") {
		t.Errorf("%v", err)
	}
}

// TestBounds: what is too large is refused before it is read.
func TestBounds(t *testing.T) {
	b := packed(t, someFiles(), Options{})
	rows := []struct {
		name string
		o    OpenOptions
		want error
	}{
		{"enough", OpenOptions{MaxTotal: 36, MaxFile: 20, MaxFiles: 4}, nil},
		{"total", OpenOptions{MaxTotal: 35}, ErrTooLarge},
		{"file", OpenOptions{MaxFile: 19}, ErrTooLarge},
		{"files", OpenOptions{MaxFiles: 3}, ErrTooLarge},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if _, err := opened(b, row.o); !errors.Is(err, row.want) || (err == nil) != (row.want == nil) {
				t.Errorf("%v, want %v", err, row.want)
			}
		})
	}
	if _, err := Open(bytes.NewReader(b), 1<<32, OpenOptions{}); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	huge := slices.Clone(b)
	copy(huge[14:], "\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff") // of the manifest
	if _, err := opened(huge, OpenOptions{}); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
}

// TestPackRefuses: what Open would refuse is not packed.
func TestPackRefuses(t *testing.T) {
	mine := errors.New("mine")
	turns := 0
	changing := File{Name: "a", Open: func() (io.ReadCloser, error) {
		turns++
		return io.NopCloser(strings.NewReader(strings.Repeat("x", turns))), nil
	}}
	rows := []struct {
		name  string
		files []File
		o     Options
		want  error
		text  string
	}{
		{"a name", []File{fileOf("../a", "")}, Options{}, ErrName, `"../a"`},
		{"a name twice", []File{fileOf("a", ""), fileOf("a", "")}, Options{}, ErrName, ""},
		{"another case", []File{fileOf("a", ""), fileOf("A", "")}, Options{}, ErrName, ""},
		{"a comment", nil, Options{Comment: "\x1b"}, nil, "not printable"},
		{"a long comment", nil, Options{Comment: strings.Repeat("c", maxComment+1)}, nil, "longer than"},
		{"a time", nil, Options{Created: created.AddDate(10000, 0, 0)}, nil, "year 12026"},
		{"a key", nil, Options{Sign: ed25519.PrivateKey{1}}, nil, "not an Ed25519 key"},
		{"a file that cannot be opened", []File{{"a", func() (io.ReadCloser, error) { return nil, mine }}}, Options{}, mine, `"a"`},
		{"a file that is none", []File{{Name: "a"}}, Options{}, nil, "nothing to open"},
		{"a file that grows", []File{changing}, Options{}, ErrTooLarge, "grows"},
		{"too many files", make([]File, maxFiles+1), Options{}, ErrTooLarge, ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			_, err := Pack(io.Discard, row.files, row.o)
			if err == nil || row.want != nil && !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.text) {
				t.Errorf("%v, want %v %q", err, row.want, row.text)
			}
		})
	}
	for n := range 8 {
		if _, err := Pack(&full{n}, someFiles(), Options{}); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("%d writes: %v", n, err)
		}
	}
}

// full takes a number of writes.
type full struct{ writes int }

func (f *full) Write(b []byte) (int, error) {
	if f.writes--; f.writes < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

// TestChanged: what changes after Open is not given out.
func TestChanged(t *testing.T) {
	octets := packed(t, someFiles(), Options{Sign: keyOf(1)})
	b, err := opened(octets, strict())
	if err != nil {
		t.Fatal(err)
	}
	octets[bytes.Index(octets, []byte("\x00asm"))] ^= 1
	if _, err := fs.ReadFile(b.FS(), "modules/spf.wasm"); !errors.Is(err, ErrTampered) {
		t.Errorf("read: %v", err)
	}
	if _, err := b.FS().Open("modules/spf.wasm"); !errors.Is(err, ErrTampered) {
		t.Errorf("open: %v", err)
	}
	dir := t.TempDir()
	if err := b.Extract(filepath.Join(dir, "new")); !errors.Is(err, ErrTampered) {
		t.Errorf("extract: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := fs.ReadFile(b.FS(), "policy.hcl"); err != nil {
		t.Error(err)
	}
}

// TestExtractPlaces: where a bundle is not extracted to.
func TestExtractPlaces(t *testing.T) {
	b, err := opened(packed(t, someFiles(), Options{}), OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Symlink("/nowhere", filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	for place, want := range map[string]error{dir: fs.ErrExist, name: fs.ErrExist, filepath.Join(dir, "link"): fs.ErrExist, filepath.Join(dir, "none", "new"): fs.ErrNotExist} {
		if err := b.Extract(place); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", place, err, want)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("%v, %v", left, err)
	}
}

// FuzzOpen opens what anybody may have made. What is accepted is exactly what Pack
// makes of its files.
func FuzzOpen(f *testing.F) {
	f.Add(packed(f, someFiles(), Options{Created: created, Comment: "c", Sign: keyOf(1)}))
	f.Add(packed(f, someFiles(), Options{}))
	f.Add(raw(begin+line("a", "1")+line("b/c", "2"), nil, "a", "1", "b/c", "2"))
	f.Add(raw(begin+line("../a", "1"), nil, "../a", "1"))
	f.Fuzz(func(t *testing.T, octets []byte) {
		b, err := opened(octets, OpenOptions{MaxTotal: 1 << 20})
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		m := b.Manifest()
		var files []File
		for _, e := range m.Files {
			content, err := fs.ReadFile(b.FS(), e.Name)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, fileOf(e.Name, string(content)))
		}
		o := Options{Created: m.Created, Comment: m.Comment}
		if m.Signer == Fingerprint(publicOf(1)) {
			o.Sign = keyOf(1)
		} else if m.Signer != "" {
			return
		}
		if again := packed(t, files, o); !bytes.Equal(again, octets) {
			t.Error("two forms of one bundle")
		}
	})
}
