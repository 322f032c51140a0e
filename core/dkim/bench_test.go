package dkim_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/wafermail/wafer/core/dkim"
)

// testKey makes the keys of these tests once.
var testKey = sync.OnceValue(func() (keys struct {
	rsa *rsa.PrivateKey
	ed  ed25519.PrivateKey
}) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	keys.rsa = key
	_, keys.ed, err = ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return keys
})

// bothKeys are an RSA and an Ed25519 key of example.com, and their DNS.
func bothKeys(t testing.TB) ([]dkim.Key, map[string][]string) {
	keys := []dkim.Key{
		{Domain: "example.com", Selector: "rsa", Private: testKey().rsa},
		{Domain: "example.com", Selector: "ed", Private: testKey().ed},
	}
	records := map[string][]string{}
	for _, key := range keys {
		record, err := dkim.Record(key.Private.Public())
		if err != nil {
			t.Fatal(err)
		}
		records[dkim.KeyName(key.Domain, key.Selector)] = []string{record}
	}
	return keys, records
}

const header = "Received: from client.example.com ([192.0.2.1])\r\n\tby mx.example.com with ESMTPSA id 01; Mon, 4 Mar 2024 10:00:00 +0000\r\n" +
	"From: Alice <alice@example.com>\r\nTo: Bob <bob@example.net>,\r\n  Carol <carol@example.net>\r\nSubject: a  plain\ttest\r\n" +
	"Date: Mon, 04 Mar 2024 10:00:00 +0000\r\nMessage-ID: <m1@example.com>\r\nMIME-Version: 1.0\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"

// letter is a message of about size octets as people write them.
func letter(size int) []byte {
	var b bytes.Buffer
	b.WriteString(header)
	for i := 0; b.Len() < size; i++ {
		switch i % 8 {
		case 3:
			b.WriteString("> A quoted line (with brackets) - and a dash, $ 5 & more.\r\n")
		case 5:
			b.WriteString("A sentence ends here.  The next one begins after two blanks.\r\n")
		case 7:
			b.WriteString("\r\n")
		default:
			b.WriteString("The quick brown fox jumps over the lazy dog, and back again it goes.\r\n")
		}
	}
	return b.Bytes()
}

// attachment is a message of about size octets that is mostly base64.
func attachment(size int) []byte {
	line := strings.Repeat("QUJD", 19) + "\r\n"
	return append([]byte(header), strings.Repeat(line, size/len(line))...)
}

var kinds = []struct {
	name string
	make func(int) []byte
}{{"text", letter}, {"base64", attachment}}

func sizes(b *testing.B, run func(b *testing.B, message []byte)) {
	for _, kind := range kinds {
		for _, size := range []int{4 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s%dKiB", kind.name, size>>10), func(b *testing.B) {
				message := kind.make(size)
				b.SetBytes(int64(len(message)))
				run(b, message)
			})
		}
	}
}

// BenchmarkVerify verifies one RSA signature of 2048 bits.
func BenchmarkVerify(b *testing.B) {
	sizes(b, func(b *testing.B, message []byte) {
		keys, records := bothKeys(b)
		signer, err := dkim.NewSigner(dkim.SignerOptions{Keys: keys[:1], Now: clock})
		if err != nil {
			b.Fatal(err)
		}
		fields, err := signer.Sign(bytes.NewReader(message), int64(len(message)))
		if err != nil {
			b.Fatal(err)
		}
		message = append(fields, message...)
		o := dkim.VerifyOptions{Resolver: zone(records), Now: clock}
		r := bytes.NewReader(message)
		digest := sha256.Sum256(message)
		signature, err := rsa.SignPKCS1v15(rand.Reader, testKey().rsa, crypto.SHA256, digest[:])
		if err != nil {
			b.Fatal(err)
		}
		b.Run("bare", func(b *testing.B) {
			b.SetBytes(int64(len(message)))
			for b.Loop() {
				digest := sha256.Sum256(message)
				if err := rsa.VerifyPKCS1v15(&testKey().rsa.PublicKey, crypto.SHA256, digest[:], signature); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("dkim", func(b *testing.B) {
			b.SetBytes(int64(len(message)))
			b.ReportAllocs()
			for b.Loop() {
				if got := dkim.Verify(context.Background(), r, int64(len(message)), o); got[0].Status != dkim.Pass {
					b.Fatal(got)
				}
			}
		})
	})
}

// BenchmarkSign signs with RSA of 2048 bits and Ed25519.
func BenchmarkSign(b *testing.B) {
	sizes(b, func(b *testing.B, message []byte) {
		keys, _ := bothKeys(b)
		signer, err := dkim.NewSigner(dkim.SignerOptions{Keys: keys, Now: clock})
		if err != nil {
			b.Fatal(err)
		}
		r := bytes.NewReader(message)
		b.Run("bare", func(b *testing.B) {
			b.SetBytes(int64(len(message)))
			for b.Loop() {
				digest := sha256.Sum256(message)
				if _, err := rsa.SignPKCS1v15(rand.Reader, testKey().rsa, crypto.SHA256, digest[:]); err != nil {
					b.Fatal(err)
				}
				ed25519.Sign(testKey().ed, digest[:])
			}
		})
		b.Run("dkim", func(b *testing.B) {
			b.SetBytes(int64(len(message)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := signer.Sign(r, int64(len(message))); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

// BenchmarkBody is the body alone, with bodies made to be slow.
func BenchmarkBody(b *testing.B) {
	const size = 1 << 20
	for _, row := range []struct{ name, unit string }{
		{"blanks", " "}, {"LF", "\n"}, {"CR", "\r"}, {"CRLF", "\r\n"}, {"a and tab", "a\t"}, {"blank and dash", " -"},
		{"CRLF and a", "\r\na"}, {"indented", "\r\n        <td>"},
	} {
		body := []byte(strings.Repeat(row.unit, size/len(row.unit)))
		for _, c := range []dkim.Canon{dkim.Simple, dkim.Relaxed} {
			b.Run(row.name+"/"+c.String(), func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				for b.Loop() {
					h := dkim.NewBodyHash(c, -1)
					h.Write(body)
					h.Octets()
				}
			})
		}
	}
}
