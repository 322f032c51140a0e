package maildir

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func gzipped(t testing.TB, data string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func zstded(t testing.TB, data string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCompressionOf(t *testing.T) {
	for name, row := range map[string]struct {
		head string
		want compression
	}{
		"empty":           {"", plain},
		"header":          {"Return-Path: <a@b>", plain},
		"gzip":            {"\x1f\x8b\x08\x00", gzipFile},
		"half of gzip":    {"\x1f", plain},
		"zstd":            {"\x28\xb5\x2f\xfd\x04", zstdFile},
		"xz":              {"\xfd7zXZ\x00\x00", xzFile},
		"bzip2":           {"BZh91AY&SYxx", bzip2File},
		"a word like BZ":  {"BZh9: a header field", plain},
		"Dovecot's lz4":   {"Dovecot-LZ4\x0d\x2a\x9b\xc5\x00", lz4File},
		"Dovecot, a word": {"Dovecot-LZ4: yes", plain},
	} {
		if got := compressionOf([]byte(row.head)); got != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}

// TestCompressed reads compressed messages whole and in parts, whatever their
// names say, and sees the sizes of what they unpack to.
func TestCompressed(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	big := strings.Repeat("a line of text with some words in it\n", 20_000)
	packers := map[string]func(testing.TB, string) string{"gzip": gzipped, "zstd": zstded}
	for _, body := range []string{"a: b\r\n\r\nx\r\n", "a: b\n\nx\n", "", big, strings.ReplaceAll(big, "\n", "\r\n")} {
		want := crlf([]byte(body))
		for kind, pack := range packers {
			for what, name := range map[string]string{
				"sizes":       fmt.Sprintf("1.a,S=%d,W=%d", len(body), len(want)),
				"no sizes":    "1.a",
				"S of file":   fmt.Sprintf("1.a,S=%d,W=%d", len(pack(t, body)), len(pack(t, body))),
				"wrong W":     fmt.Sprintf("1.a,S=%d,W=%d", len(body), len(want)+7),
				"wrong sizes": "1.a,S=5,W=6",
				"W too small": fmt.Sprintf("1.a,S=%d,W=%d", len(body), len(body)/2),
			} {
				p, path := testPool(t)
				put(t, path+"/cur/"+name+":2,S", pack(t, body))
				f := openFolder(t, openStore(t, p, path), "INBOX")
				c, err := f.Open(1)
				if err != nil {
					t.Fatal(err)
				}
				where := fmt.Sprintf("%s, %s, %d octets", kind, what, len(body))
				if got := messages(f)[0].Size; c.Size() != int64(len(want)) || got != c.Size() {
					t.Errorf("%s: sizes %d and %d, want %d", where, c.Size(), got, len(want))
				}
				if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: read %d octets, %v", where, len(got), err)
				}
				for range 50 {
					off, n := r.IntN(len(want)+1), 1+r.IntN(1000)
					part := make([]byte, n)
					k, _ := c.ReadAt(part, int64(off))
					if !bytes.Equal(part[:k], want[off:min(off+n, len(want))]) {
						t.Errorf("%s: other octets at %d", where, off)
					}
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
				if left := dirNames(t, path+"/tmp"); len(left) > 0 {
					t.Errorf("%s: %q stays in tmp", where, left)
				}
			}
		}
	}
}

// TestUnreadable opens what cannot be unpacked: an error, no garbage, and the
// folder and its other messages are not affected.
func TestUnreadable(t *testing.T) {
	gz, zs := gzipped(t, strings.Repeat("text ", 100)), zstded(t, strings.Repeat("text ", 100))
	flipped := []byte(gz)
	flipped[len(flipped)-6] ^= 1 // in the checksum
	for name, data := range map[string]string{
		"bzip2": "BZh91AY&SYxxxxxxxx", "xz": "\xfd7zXZ\x00\x00\x00", "lz4": "Dovecot-LZ4\x0d\x2a\x9b\xc5\x00\x01",
		"gzip cut": gz[:len(gz)/2], "gzip cut in header": gz[:5], "gzip checksum": string(flipped),
		"gzip with a tail": gz + "garbage", "zstd cut": zs[:len(zs)-7], "zstd header only": zs[:4],
	} {
		t.Run(name, func(t *testing.T) {
			p, path := testPool(t)
			put(t, path+"/cur/1.a:2,S", data)
			put(t, path+"/cur/2.a:2,S", "a: b\r\n\r\nx\r\n")
			f := openFolder(t, openStore(t, p, path), "INBOX")
			wantUIDs(t, f, 1, 2)
			if c, err := f.Open(1); !errors.Is(err, ErrUnreadable) {
				t.Errorf("Open gives %v, %v", c, err)
			}
			if got := text(t, f, 2); got != "a: b\r\n\r\nx\r\n" {
				t.Errorf("the next message is %q", got)
			}
		})
	}
}

// TestBomb unpacks no more than the limit.
func TestBomb(t *testing.T) {
	const limit = 1 << 20
	zeros := strings.Repeat("\x00", limit+1)
	for name, data := range map[string]string{"gzip": gzipped(t, zeros), "zstd": zstded(t, zeros), "gzip members": strings.Repeat(gzipped(t, zeros[:limit/2]), 3)} {
		file := filepath.Join(t.TempDir(), "cur", "m")
		put(t, file, data)
		if _, err := newOpener(limit).open(file, 1); !errors.Is(err, ErrUnreadable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	file := filepath.Join(t.TempDir(), "cur", "m")
	put(t, file, gzipped(t, zeros[:limit]))
	c, err := newOpener(limit).open(file, 1)
	if err != nil || c.Size() != limit {
		t.Fatalf("%v", err)
	}
	c.Close()
}

// TestAppendCompressed: nobody can store what would be unpacked when it is read.
func TestAppendCompressed(t *testing.T) {
	p, path := testPool(t)
	f := openFolder(t, openStore(t, p, path), "INBOX")
	for _, text := range []string{gzipped(t, "x"), zstded(t, "x"), "BZh91AY&SYxxxxxx"} {
		_, err := f.Append(context.Background(), strings.NewReader(text), AppendOptions{Size: int64(len(text))})
		if !errors.Is(err, ErrCompressed) {
			t.Errorf("%q: %v", text[:4], err)
		}
	}
	if f.Status().Messages != 0 {
		t.Error("something was stored")
	}
	const rest = "abcdefghijklmnopqrstuvwxyz"
	r := strings.NewReader(rest) // more than the message
	if _, err := f.Append(context.Background(), r, AppendOptions{Size: 3}); err != nil || r.Len() != len(rest)-3 {
		t.Errorf("%v, %d octets left", err, r.Len())
	}
}

// TestDovecotCompressed: Dovecot stores compressed messages, we read them;
// we copy them, Dovecot reads that.
func TestDovecotCompressed(t *testing.T) {
	for _, kind := range []string{"gz", "zstd", "lz4", "bz2"} {
		t.Run(kind, func(t *testing.T) {
			o := newOracle(t)
			o.configure("mail_plugins = zlib\nplugin {\n zlib_save = " + kind + "\n zlib_save_level = 3\n}\n")
			lf := "From: a@b\nSubject: x\n\n" + strings.Repeat("some text\n", 30_000)
			small := "From: a@b\r\nSubject: y\r\n\r\nhi\r\n"
			o.run(lf, "save", "-m", "INBOX")
			o.run(small, "save", "-m", "INBOX")
			s := openStore(t, o.pool(), o.box)
			if err := s.Create("Other"); err != nil {
				t.Fatal(err)
			}
			f, g := openFolder(t, s, "INBOX"), openFolder(t, s, "Other")
			wantUIDs(t, f, 1, 2)
			if kind == "lz4" || kind == "bz2" {
				if _, err := f.Open(2); !errors.Is(err, ErrUnreadable) {
					t.Errorf("Open: %v", err)
				}
				return
			}
			for _, name := range dirNames(t, o.box+"/cur") {
				data, err := os.ReadFile(o.box + "/cur/" + name)
				if err != nil || compressionOf(data) == plain {
					t.Fatalf("Dovecot has not compressed %s, %v", name, err)
				}
			}
			agree(t, o, f, "saved")
			if got := text(t, f, 1); got != strings.ReplaceAll(lf, "\n", "\r\n") {
				t.Errorf("%d octets", len(got))
			}
			if got := text(t, f, 2); got != small {
				t.Errorf("text %q", got)
			}
			if _, err := f.Copy(context.Background(), []uint32{1}, g); err != nil {
				t.Fatal(err)
			}
			if _, err := f.Move(context.Background(), []uint32{2}, g); err != nil {
				t.Fatal(err)
			}
			appendText(t, g, small, 0)
			agree(t, o, f, "copied")
			agree(t, o, g, "copied")
			for uid, want := range map[string]string{"1": lf, "2": small, "3": small} {
				got := o.run("", "fetch", "text", "mailbox", "Other", "uid", uid)
				got = strings.ReplaceAll(strings.TrimPrefix(got, "text:\n"), "\r", "")
				if strings.TrimSpace(got) != strings.TrimSpace(strings.ReplaceAll(want, "\r", "")) {
					t.Errorf("Dovecot reads %d octets of message %s", len(got), uid)
				}
			}
		})
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte(gzipped(f, "a: b\n\nx\n")))
	f.Add([]byte(zstded(f, "a: b\n\nx\n")))
	f.Add([]byte("BZh91AY&SY"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), "cur", "1.a,S=8,W=11")
		put(t, file, string(data))
		c, err := newOpener(1<<20).open(file, 11)
		if err != nil {
			return
		}
		defer c.Close()
		got, err := io.ReadAll(c)
		if err != nil || int64(len(got)) != c.Size() {
			t.Fatalf("%d octets of %d, %v", len(got), c.Size(), err)
		}
	})
}
