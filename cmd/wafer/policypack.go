package main

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/bundle"
	"github.com/wafermail/wafer/core/config"
)

// policyPackCmd makes one file of a folder of policies.
type policyPackCmd struct {
	Dir     string `arg:"" help:"Folder with policies, tests, lists and modules."`
	Output  string `short:"o" required:"" placeholder:"FILE" help:"The bundle; it replaces a file of that name."`
	Sign    string `placeholder:"KEY" help:"Sign with the private key in this file; wafer policy key makes one."`
	Comment string `help:"What is to be said about it."`
}

// Run packs, once the policies can be read.
func (c *policyPackCmd) Run(std streams) error {
	if _, err := faults(std, "policies", func() (*config.Config, error) { return config.LoadPolicies(c.Dir) }); err != nil {
		return err
	}
	o := bundle.Options{Created: time.Now().UTC().Truncate(time.Second), Comment: c.Comment}
	if c.Sign != "" {
		var err error
		if o.Sign, err = bundle.ReadPrivateKey(c.Sign); err != nil {
			return err
		}
	}
	files, err := filesOf(c.Dir, c.Output)
	if err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(c.Output), ".pack-")
	if err != nil {
		return err
	}
	m, err := bundle.Pack(out, files, o)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Chmod(0o644), out.Close()); err == nil {
		err = os.Rename(out.Name(), c.Output)
	}
	if err != nil {
		return errors.Join(err, os.Remove(out.Name()))
	}
	return printManifest(std, &m)
}

// filesOf are the files below dir, but for hidden ones and the bundle itself.
func filesOf(dir, output string) (files []bundle.File, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path != dir && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return nil
		}
		fi, err := os.Stat(path) // a link is what it leads to
		if err != nil {
			return err
		}
		if out, err := os.Stat(output); !fi.Mode().IsRegular() || err == nil && os.SameFile(fi, out) {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err == nil {
			files = append(files, bundle.File{Name: filepath.ToSlash(rel), Open: func() (io.ReadCloser, error) { return os.Open(path) }})
		}
		return err
	})
	return files, err
}

func printManifest(std streams, m *bundle.Manifest) error {
	for _, f := range m.Files {
		fmt.Fprintf(std.out, "%x %9d %s\n", f.SHA256[:6], f.Size, f.Name)
	}
	signer := m.Signer
	if signer == "" {
		signer = "nobody"
	}
	if m.Comment != "" {
		fmt.Fprintf(std.out, "comment: %s\n", oneLine(m.Comment))
	}
	_, err := fmt.Fprintf(std.out, "packed %s, signed by %s\n", m.Created.Format(time.RFC3339), signer)
	return err
}

// policyVerifyCmd looks whether a bundle is what it says.
type policyVerifyCmd struct {
	File    string   `arg:"" help:"The bundle."`
	Key     []string `placeholder:"FILE" help:"Public keys of which one must have signed it; may be repeated."`
	Extract string   `placeholder:"DIR" help:"Write its files into a new folder."`
}

// Run verifies everything before it says anything.
func (c *policyVerifyCmd) Run(std streams) (err error) {
	o := bundle.OpenOptions{RequireSigned: len(c.Key) > 0}
	for _, name := range c.Key {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		keys, err := bundle.ParsePublicKeys(b)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		o.Trusted = append(o.Trusted, keys...)
	}
	f, err := os.Open(c.File)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	b, err := bundle.Open(f, fi.Size(), o)
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	m := b.Manifest()
	if err := printManifest(std, &m); err != nil {
		return err
	}
	if c.Extract != "" {
		return b.Extract(c.Extract)
	}
	return nil
}

// policyKeyCmd makes a pair of keys.
type policyKeyCmd struct {
	File string `arg:"" help:"Where the private key goes; the public one goes beside it, with .pub after the name."`
}

// Run makes the keys.
func (c *policyKeyCmd) Run(std streams) error {
	key, err := bundle.GenerateKey()
	if err != nil {
		return err
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return errors.New("the key has no public half")
	}
	b, err := bundle.EncodePublicKey(public)
	if err != nil {
		return err
	}
	if err := bundle.WritePrivateKey(c.File, key); err != nil {
		return err
	}
	out, err := os.OpenFile(c.File+".pub", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, bytes.NewReader(b)); err != nil {
		return errors.Join(err, out.Close())
	}
	if err := out.Close(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "%s.pub is %s\npolicy_keys = [%q]\n", c.File, bundle.Fingerprint(public), c.File+".pub")
	return err
}
