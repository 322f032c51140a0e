package bundle

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Bundle is one that has been verified. Its methods may be called by many
// goroutines, as long as what it was opened from is open.
type Bundle struct {
	r        io.ReaderAt
	manifest Manifest
	signer   ed25519.PublicKey
	trusted  bool
	tree     map[string]*node
}

// Open verifies the bundle of size octets that r has. An error is an *Error,
// unless it is one of reading r.
func Open(r io.ReaderAt, size int64, o OpenOptions) (*Bundle, error) {
	if o.MaxTotal <= 0 {
		o.MaxTotal = 256 << 20
	}
	if o.MaxFile <= 0 {
		o.MaxFile = 64 << 20
	}
	if o.MaxFiles <= 0 {
		o.MaxFiles = 10_000
	}
	o.MaxFiles = min(o.MaxFiles, maxFiles)
	b := &Bundle{r: r}
	if size > maxArchive {
		return nil, &Error{ErrTooLarge, "", fmt.Sprintf("%d octets, at most %d", size, int64(maxArchive))}
	}
	v := verifier{r: r, size: size}
	manifest, err := v.manifest()
	if err != nil {
		return nil, err
	}
	if b.manifest, err = parseManifest(manifest, o.MaxFiles); err != nil {
		return nil, err
	}
	if err := b.whose(&v, manifest, &o); err != nil {
		return nil, err
	}
	if err := b.bounded(&o); err != nil {
		return nil, err
	}
	if err := checkNames(b.manifest.Files); err != nil {
		return nil, err
	}
	first := len(v.members)
	for _, f := range b.manifest.Files {
		v.members = append(v.members, member{name: f.Name, size: f.Size})
	}
	if err := v.fits(); err != nil {
		return nil, err
	}
	for i, f := range b.manifest.Files {
		sum := sha256.New()
		if err := v.member(&v.members[first+i], sum); err != nil {
			return nil, err
		}
		if !bytes.Equal(sum.Sum(nil), f.SHA256[:]) {
			return nil, &Error{ErrTampered, f.Name, "its digest is another"}
		}
	}
	if err := v.directory(); err != nil {
		return nil, err
	}
	b.grow(v.members[first:])
	return b, nil
}

// whose sees that the signature is one, and of somebody whom o trusts.
func (b *Bundle) whose(v *verifier, manifest []byte, o *OpenOptions) error {
	if b.manifest.Signer == "" {
		if o.RequireSigned {
			return &Error{ErrUnsigned, "", "only signed bundles are accepted"}
		}
		return nil
	}
	signature, err := v.signature()
	if err != nil {
		return err
	}
	if b.signer, err = verify(signature, manifest, b.manifest.Signer); err != nil {
		return err
	}
	for _, key := range o.Trusted {
		b.trusted = b.trusted || key.Equal(b.signer)
	}
	if !b.trusted && (len(o.Trusted) > 0 || o.RequireSigned) {
		return &Error{ErrUntrusted, "", "the key is " + b.manifest.Signer}
	}
	return nil
}

// bounded sees that the files are within o's bounds.
func (b *Bundle) bounded(o *OpenOptions) error {
	total := int64(0)
	for _, f := range b.manifest.Files {
		if f.Size > o.MaxFile {
			return &Error{ErrTooLarge, f.Name, fmt.Sprintf("%d octets, at most %d", f.Size, o.MaxFile)}
		}
		if total += f.Size; total > o.MaxTotal {
			return &Error{ErrTooLarge, "", fmt.Sprintf("all files have more than %d octets", o.MaxTotal)}
		}
	}
	return nil
}

// Manifest is what is in the bundle. Its Files are not to be changed.
func (b *Bundle) Manifest() Manifest { return b.manifest }

// Signer is the key that signed the bundle, nil if none did, and whether it was
// one of OpenOptions.Trusted.
func (b *Bundle) Signer() (key ed25519.PublicKey, trusted bool) { return b.signer, b.trusted }

// verifier compares an archive with what it must be.
type verifier struct {
	r       io.ReaderAt
	size    int64
	members []member
}

// manifest returns the content of the first member.
func (v *verifier) manifest() ([]byte, error) {
	m := member{name: manifestName}
	head, err := v.octets(0, min(m.content(), max(v.size, 0)))
	if err != nil {
		return nil, err
	}
	size, ok := manifestSize(head)
	if !ok {
		return nil, &Error{ErrFormat, "", "it does not begin with a manifest"}
	}
	if size > maxManifest {
		return nil, &Error{ErrTooLarge, manifestName, fmt.Sprintf("%d octets, at most %d", size, maxManifest)}
	}
	return v.own(manifestName, size)
}

// signature returns the content of the second member.
func (v *verifier) signature() ([]byte, error) {
	off := v.members[0].end()
	m := member{name: signatureName, off: off}
	if m.content() <= v.size {
		head, err := v.octets(off+localHead, int64(len(m.name)))
		if err != nil {
			return nil, err
		}
		if string(head) != signatureName {
			return nil, &Error{ErrTampered, signatureName, "the signature that the manifest speaks of is missing"}
		}
	}
	return v.own(signatureName, int64(signatureSize))
}

// own reads a member that is no file of the bundle's.
func (v *verifier) own(name string, size int64) ([]byte, error) {
	v.members = append(v.members, member{name: name, size: size})
	if err := v.fits(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err := v.member(&v.members[len(v.members)-1], &b)
	return b.Bytes(), err
}

// fits gives members their places and sees that there is room for them.
func (v *verifier) fits() error {
	if size := lay(v.members); size > v.size {
		return &Error{ErrTampered, "", fmt.Sprintf("%d octets where at least %d belong: it is cut off", v.size, size)}
	}
	return nil
}

// member writes the content of m to w and compares what is before it.
func (v *verifier) member(m *member, w io.Writer) error {
	check := crc32.NewIEEE()
	n, err := io.Copy(io.MultiWriter(check, w), io.NewSectionReader(v.r, m.content(), m.size))
	if err != nil {
		return fmt.Errorf("read bundle: %w", err)
	}
	if n != m.size {
		return &Error{ErrTampered, m.name, "it is cut off"}
	}
	head, err := v.octets(m.off, m.content()-m.off)
	if err != nil {
		return err
	}
	m.crc = check.Sum32()
	switch want := m.local(); {
	case bytes.Equal(head, want):
		return nil
	case sameButSum(head, want):
		return &Error{ErrTampered, m.name, "its checksum is another"}
	}
	return &Error{ErrTampered, m.name, "the archive has something else in its place"}
}

// directory compares what follows the last member, which nothing may follow.
func (v *verifier) directory() error {
	want := directory(v.members)
	off := v.members[len(v.members)-1].end()
	if off+int64(len(want)) != v.size {
		return &Error{ErrTampered, "", fmt.Sprintf("%d octets where %d belong: there is something else in it", v.size, off+int64(len(want)))}
	}
	got, err := v.octets(off, int64(len(want)))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return &Error{ErrTampered, "", "the archive's directory is not the one that belongs there"}
	}
	return nil
}

// octets reads n octets at off.
func (v *verifier) octets(off, n int64) ([]byte, error) {
	b := make([]byte, n)
	if got, err := v.r.ReadAt(b, off); int64(got) < n {
		if errors.Is(err, io.EOF) {
			return nil, &Error{ErrTampered, "", "it is cut off"}
		}
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	return b, nil
}
