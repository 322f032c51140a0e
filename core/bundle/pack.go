package bundle

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"time"
)

// Pack writes a bundle of files, in whatever order they are given, to w. It reads
// each file twice, and fails if they differ. What w has got when there is an error
// is no bundle.
func Pack(w io.Writer, files []File, o Options) (Manifest, error) {
	m := Manifest{Created: o.Created.UTC().Truncate(time.Second), Comment: o.Comment}
	if y := m.Created.Year(); y < 0 || y > 9999 {
		return m, fmt.Errorf("pack bundle: created in the year %d", y)
	}
	if wrong := wrongComment(o.Comment); wrong != "" {
		return m, fmt.Errorf("pack bundle: the comment is %s", wrong)
	}
	if o.Sign != nil {
		if len(o.Sign) != ed25519.PrivateKeySize {
			return m, errors.New("pack bundle: the key to sign with is not an Ed25519 key")
		}
		m.Signer = Fingerprint(o.Sign.Public().(ed25519.PublicKey))
	}
	if len(files) > maxFiles {
		return m, &Error{ErrTooLarge, "", fmt.Sprintf("%d files, at most %d can be packed", len(files), maxFiles)}
	}
	files = slices.Clone(files)
	slices.SortStableFunc(files, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	for _, f := range files {
		m.Files = append(m.Files, Entry{Name: f.Name})
	}
	if err := checkNames(m.Files); err != nil {
		return m, err
	}
	sums := make([]uint32, len(files))
	total := int64(0)
	for i, f := range files {
		var err error
		if m.Files[i], sums[i], err = copied(io.Discard, f, maxArchive-total); err != nil {
			return m, err
		}
		total += m.Files[i].Size
	}
	return m, m.write(w, files, sums, o.Sign)
}

// write writes the archive.
func (m *Manifest) write(w io.Writer, files []File, sums []uint32, key ed25519.PrivateKey) error {
	manifest := m.encode()
	if len(manifest) > maxManifest {
		return &Error{ErrTooLarge, manifestName, fmt.Sprintf("%d octets, at most %d", len(manifest), maxManifest)}
	}
	own := [][]byte{manifest}
	all := []member{{name: manifestName}}
	if key != nil {
		own = append(own, sign(key, manifest))
		all = append(all, member{name: signatureName})
	}
	for i, b := range own {
		all[i].size, all[i].crc = int64(len(b)), crc32.ChecksumIEEE(b)
	}
	for i, f := range m.Files {
		all = append(all, member{name: f.Name, size: f.Size, crc: sums[i]})
	}
	if size := lay(all); size > maxArchive {
		return &Error{ErrTooLarge, "", fmt.Sprintf("the bundle would have %d octets, at most %d", size, int64(maxArchive))}
	}
	for i := range all {
		if _, err := w.Write(all[i].local()); err != nil {
			return fmt.Errorf("write bundle: %w", err)
		}
		if i < len(own) {
			if _, err := w.Write(own[i]); err != nil {
				return fmt.Errorf("write bundle: %w", err)
			}
			continue
		}
		n := i - len(own)
		again, _, err := copied(w, files[n], m.Files[n].Size)
		if err != nil {
			return err
		}
		if again != m.Files[n] {
			return fmt.Errorf("pack %s: it has changed meanwhile", quoted(files[n].Name))
		}
	}
	if _, err := w.Write(directory(all)); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

// copied copies f to w and returns what it was. It is an error if there are more
// octets than max.
func copied(w io.Writer, f File, max int64) (e Entry, crc uint32, err error) {
	if f.Open == nil {
		return e, 0, fmt.Errorf("pack %s: nothing to open", quoted(f.Name))
	}
	r, err := f.Open()
	if err != nil {
		return e, 0, fmt.Errorf("pack %s: %w", quoted(f.Name), err)
	}
	sum, check := sha256.New(), crc32.NewIEEE()
	n, err := io.Copy(io.MultiWriter(w, sum, check), io.LimitReader(r, max))
	if err == nil && n == max {
		if more, _ := io.CopyN(io.Discard, r, 1); more > 0 {
			err = &Error{ErrTooLarge, f.Name, "more octets than fit, or it grows"}
		}
	}
	if err = errors.Join(err, r.Close()); err != nil {
		return e, 0, fmt.Errorf("pack %s: %w", quoted(f.Name), err)
	}
	e = Entry{Name: f.Name, Size: n}
	sum.Sum(e.SHA256[:0])
	return e, check.Sum32(), nil
}
