// Package bundle packs files into one, with their digests and a signature, and
// gives them out again only if nothing about them has changed.
//
//	manifest, err := bundle.Pack(w, []bundle.File{{Name: "policy.hcl", Open: open}}, bundle.Options{Created: now, Sign: key})
//
//	b, err := bundle.Open(r, size, bundle.OpenOptions{Trusted: keys, RequireSigned: true})
//	fs.WalkDir(b.FS(), ".", …)
//	err = b.Extract("/var/lib/wafer/policies/new")
//
// The same files and options give the same octets. Open verifies everything
// before it returns: a signature by a key that is trusted, digests, that no file
// is missing or too many, and that each name is one that any system can have,
// and none twice however case is seen. What is read later is verified again, so
// that whoever changes the file meanwhile gains nothing.
//
// # Format
//
// A bundle is a ZIP archive in which nothing is compressed, as unzip can read it:
//
//	MANIFEST       what is in the bundle
//	MANIFEST.sig   if it is signed
//	…              the files, by their names' octets
//
// Everything about the archive follows from the manifest and the contents: Open
// knows which octets must be there, compares them, and parses no archive. So no
// octet can change unnoticed, there is no second reading of the same archive by
// another program, and nothing to inflate. A tar or ZIP with compression would be
// a third as large, but has many forms of the same content, of which none would be
// covered by a digest or a signature without unpacking first what nobody has
// vouched for. Who wants a bundle small on the way compresses it as a whole.
//
// The manifest is lines:
//
//	wafer-bundle 1
//	created 2026-01-02T15:04:05Z
//	comment a line; for each line of the comment
//	signer sha256:…; if it is signed: the Fingerprint of the key
//	file SHA-256 OCTETS NAME; for each file
//
// The signature is Ed25519 (RFC 8032) over the line "wafer-bundle-signature 1" and
// the manifest. MANIFEST.sig is lines:
//
//	wafer-bundle-signature 1
//	key the public key, 64 hexadecimal digits
//	signature 128 hexadecimal digits
//
// # BUGS
//
// A bundle has less than 4 GiB. Modes, owners, times and links of files are not
// kept. A signature says who has packed, not when: Created is what the packer says,
// and an older bundle with a good signature is as good as a newer one. Keys do not
// expire. Two processes that extract to the same new name at once may both succeed
// where the first has left an empty directory.
package bundle

import (
	"crypto/ed25519"
	"errors"
	"io"
	"time"
)

// What is wrong with a bundle. Errors of Pack, Open and Bundle match one of these
// where they are about contents, and are an *Error.
var (
	ErrFormat    = errors.New("not a policy bundle")
	ErrVersion   = errors.New("a policy bundle of a version that is not known here")
	ErrUnsigned  = errors.New("not signed")
	ErrUntrusted = errors.New("signed by a key that is not trusted")
	ErrTampered  = errors.New("changed since it was packed")
	ErrName      = errors.New("a name that a file in a bundle cannot have")
	ErrTooLarge  = errors.New("too large")
)

// Error is what is wrong with a bundle.
type Error struct {
	Kind error  // one of the package's
	File string // in the bundle; "" if it is about no file
	What string // more about it; may be ""
}

// Error is on one line.
func (e *Error) Error() string {
	s := "bundle: "
	if e.File != "" {
		s += quoted(e.File) + ": "
	}
	s += e.Kind.Error()
	if e.What != "" {
		s += ": " + e.What
	}
	return s
}

// Unwrap is Kind.
func (e *Error) Unwrap() error { return e.Kind }

// File is one to be packed.
type File struct {
	Name string                        // with slashes: "policies/inbound.hcl"
	Open func() (io.ReadCloser, error) // is called twice
}

// Options of Pack.
type Options struct {
	Created time.Time          // to the second; the zero time is kept as such
	Comment string             // printable lines
	Sign    ed25519.PrivateKey // nil: the bundle is not signed
}

// Manifest is what a bundle says of itself.
type Manifest struct {
	Created time.Time // in UTC
	Comment string
	Signer  string  // Fingerprint of the key that signed it; "" if none did
	Files   []Entry // by name
}

// Entry is one file of a bundle.
type Entry struct {
	Name   string
	Size   int64 // octets
	SHA256 [32]byte
}

// OpenOptions of Open. The zero value opens bundles whether they are signed or not.
type OpenOptions struct {
	// Trusted are keys of which one must have signed, if the bundle is signed. If
	// there are none, a signature is verified all the same, but may be anybody's.
	Trusted []ed25519.PublicKey
	// RequireSigned refuses a bundle that is not signed by one of Trusted.
	RequireSigned bool

	MaxTotal int64 // octets of all files; 0: 256 MiB
	MaxFile  int64 // octets of one file; 0: 64 MiB
	MaxFiles int   // 0: 10,000
}

// Limits of the format.
const (
	maxArchive  = 1<<32 - 1 // octets
	maxFiles    = 1<<16 - 3 // besides manifest and signature
	maxManifest = 16 << 20
	maxComment  = 16 << 10
)
