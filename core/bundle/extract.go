package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/wafermail/wafer/core/durable"
)

// Extract writes the files to dir, which must not exist, below a directory that
// does: files with mode 0600, directories with 0700. dir is there with all of them,
// durably, or not at all.
func (b *Bundle) Extract(dir string) (err error) {
	dir = filepath.Clean(dir)
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return fmt.Errorf("extract bundle to %s: %w", dir, err)
	}
	parent := filepath.Dir(dir)
	work, err := os.MkdirTemp(parent, ".bundle-")
	if err != nil {
		return fmt.Errorf("extract bundle: %w", err)
	}
	if err := b.fill(work); err != nil {
		return fmt.Errorf("extract bundle: %w", errors.Join(err, os.RemoveAll(work)))
	}
	if err := os.Rename(work, dir); err != nil {
		return fmt.Errorf("extract bundle: %w", errors.Join(err, os.RemoveAll(work)))
	}
	if err := durable.SyncPath(parent); err != nil {
		return fmt.Errorf("extract bundle: %w", err)
	}
	return nil
}

// fill writes everything below dir, which is ours alone.
func (b *Bundle) fill(dir string) (err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for i := range b.manifest.Files {
		name := b.manifest.Files[i].Name
		content, err := b.read(b.tree[name])
		if err != nil {
			return err
		}
		if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
			return err
		}
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(content)
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	for name, n := range b.tree {
		if n.IsDir() {
			if err := durable.SyncPath(filepath.Join(dir, filepath.FromSlash(name))); err != nil {
				return err
			}
		}
	}
	return nil
}
