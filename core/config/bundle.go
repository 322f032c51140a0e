package config

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/wafermail/wafer/core/bundle"
)

// unpacked stands in Files in place of a bundle's contents, before the folder that it was
// unpacked into.
const unpacked = "unpacked into "

// bundled makes c.Policies a folder where it is a bundle: one that was unpacked into the
// state directory, after everything about it was verified. keys are files with public keys,
// of which one must have signed it; where there are none, anybody may have packed it.
func (r *reader) bundled(c *Config, keys []string) {
	if c.Policies == "" {
		return
	}
	if r.from != nil {
		if dir, ok := strings.CutPrefix(string(r.from[c.Policies]), unpacked); ok {
			r.files[c.Policies] = r.from[c.Policies]
			c.Policies = dir
		}
		return
	}
	fi, err := os.Stat(c.Policies)
	if err != nil || !fi.Mode().IsRegular() {
		if err == nil && len(keys) > 0 {
			r.fault(r.policiesAt, "policies are not signed", "policy_keys asks for signed ones: write policies = \"FILE\" with what wafer policy pack --sign has made, or take out policy_keys.")
		}
		return // what is wrong with a folder is told by who reads it
	}
	dir, err := unpack(c.Policies, filepath.Join(c.State, "bundles"), keys)
	if err != nil {
		r.fault(r.policiesAt, "bundle of policies cannot be used", cause(c.Policies, err))
		c.Policies = ""
		return
	}
	if r.files != nil {
		r.files[c.Policies] = []byte(unpacked + dir)
	}
	c.Policies = dir
}

// unpack verifies a bundle and unpacks it below dir, unless that has been done.
func unpack(name, dir string, keys []string) (string, error) {
	var o bundle.OpenOptions
	for _, file := range keys {
		b, err := readFile(file)
		if err != nil {
			return "", err
		}
		more, err := bundle.ParsePublicKeys(b)
		if err != nil {
			return "", fmt.Errorf("%s: %w", file, err)
		}
		o.Trusted = append(o.Trusted, more...)
	}
	o.RequireSigned = len(keys) > 0
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close() // only read
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	b, err := bundle.Open(f, fi.Size(), o)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, fi.Size())); err != nil {
		return "", err
	}
	to := filepath.Join(dir, fmt.Sprintf("%x", sum.Sum(nil))[:32])
	if _, err := os.Stat(to); err == nil {
		return to, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	err = b.Extract(to)
	if err == nil || errors.Is(err, fs.ErrExist) { // another process was faster
		err = giveTo(filepath.Dir(dir), dir)
	}
	return to, err
}

// giveTo gives what is below dir to the owner of the state directory, where root unpacks
// for a server that is not root.
func giveTo(state, dir string) error {
	fi, err := os.Stat(state)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || st.Uid == 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(st.Uid), int(st.Gid))
	})
}
