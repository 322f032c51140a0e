package arc_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/arc"
)

// ofSize is a message of about size octets.
func ofSize(size int) string {
	return plain + strings.Repeat("The quick brown fox jumps over the lazy dog, and back again it goes.\r\n", (size-len(plain))/70)
}

func rsaSealer(b *testing.B) *arc.Sealer {
	return newSealer(b, arc.SealOptions{Domain: listDomain, Selector: "rsa", Key: testKey().rsa})
}

// BenchmarkVerify: a chain of three with RSA-2048 on 4 KiB. Beside it the bare work: six
// signatures and the octets, hashed once.
func BenchmarkVerify(b *testing.B) {
	message := ofSize(4 << 10)
	for range 3 {
		message = sealAs(b, message, message, rsaSealer(b), "arc=pass spf=pass dkim=pass dmarc=pass")
	}
	r := zone(records(b))
	b.Run("chain", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(message)))
		for b.Loop() {
			if got := arc.Verify(context.Background(), strings.NewReader(message), int64(len(message)), arc.VerifyOptions{Resolver: r, Now: clock}); got.CV != arc.Pass {
				b.Fatalf("got %+v", got)
			}
		}
	})
	b.Run("crypto", func(b *testing.B) {
		data := []byte(message)
		digest := sha256.Sum256(data)
		signature, err := testKey().rsa.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			digest := sha256.Sum256(data)
			for range 6 {
				if err := rsa.VerifyPKCS1v15(&testKey().rsa.PublicKey, crypto.SHA256, digest[:], signature); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// BenchmarkSeal: the third set with RSA-2048 on 4 KiB. Beside it the bare work.
func BenchmarkSeal(b *testing.B) {
	message := ofSize(4 << 10)
	for range 2 {
		message = sealAs(b, message, message, rsaSealer(b), "arc=pass")
	}
	result, s := verify(message, zone(records(b))), rsaSealer(b)
	b.Run("set", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Seal(strings.NewReader(message), int64(len(message)), result, found("arc=pass")); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("crypto", func(b *testing.B) {
		data := []byte(message)
		for b.Loop() {
			digest := sha256.Sum256(data)
			for range 2 {
				if _, err := testKey().rsa.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// BenchmarkWorst: 50 sets that pass, and 10,000 fields that do not.
func BenchmarkWorst(b *testing.B) {
	full := plain
	for range arc.MaxSets {
		full = sealAs(b, full, full, rsaSealer(b), "arc=pass")
	}
	r := zone(records(b))
	for _, row := range []struct{ name, message string }{
		{"50 sets", full},
		{"10,000 fields", strings.Repeat("ARC-Seal: i=1\r\n", 10000) + plain},
	} {
		b.Run(row.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				arc.Verify(context.Background(), strings.NewReader(row.message), int64(len(row.message)), arc.VerifyOptions{Resolver: r, Now: clock})
			}
		})
	}
}
