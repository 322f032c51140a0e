//go:build !linux

package maildir

import (
	"os"
	"path/filepath"
	"time"
)

// glances looks at files of one folder.
type glances struct{ dir string }

func openGlances(dir string) (glances, error) { return glances{dir}, nil }

func (glances) close() {}

// at is the size and mtime of a regular file, or of one that a symbolic link leads to,
// by its path in the folder; regular is false for what is none.
func (g glances) at(path string) (size int64, mtime time.Time, regular bool, err error) {
	fi, err := os.Stat(filepath.Join(g.dir, path))
	if err != nil {
		return 0, mtime, false, err
	}
	return fi.Size(), fi.ModTime(), fi.Mode().IsRegular(), nil
}
