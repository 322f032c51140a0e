package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// FolderDirs finds the folders of the Maildir root, the INBOX among them: their
// directories by name. Nothing is changed, and nothing is looked at but names.
func FolderDirs(root string) (map[string]string, error) {
	dirs, err := foldersIn(root)
	if err != nil {
		return nil, err
	}
	dirs["INBOX"] = root
	return dirs, nil
}

// SortNames puts folder names in the order of Store.Folders.
func SortNames(names []string) {
	slices.SortFunc(names, func(a, b string) int {
		switch {
		case a == b:
			return 0
		case before(a, b):
			return -1
		}
		return 1
	})
}

// FileName is what the name of a message's file says.
type FileName struct {
	Base  string // by which the message is known
	Info  string // from the colon on
	Flags Flags
	S, W  int64 // octets of the file and with CRLF line ends, as named; below 0 if it does not say
}

// ParseFileName reads the name of a message's file.
func ParseFileName(name string) (n FileName) {
	n.Base, n.Info = splitName(name)
	n.Flags, _, _ = parseInfo(n.Info)
	n.S, n.W = sizesOf(n.Base)
	return n
}

// CompressionOf tells from the first octets of a message's file how it is
// compressed: "gzip", "zstd", "bzip2", "xz", "lz4", or "" if it is not. Those that
// are read here are gzip and zstd.
func CompressionOf(head []byte) string { return string(compressionOf(head)) }

// KeywordNames reads the names of a folder's keywords by index, "" where there is
// none, and those of the 27th and later ones. Nothing is changed.
func KeywordNames(dir string) (names [MaxKeywords]string, further []string, err error) {
	k, _, err := readKeywords(dir)
	if err != nil {
		return names, nil, fmt.Errorf("read keywords of %s: %w", dir, err)
	}
	lines, err := readFurther(dir)
	if err != nil {
		return names, nil, fmt.Errorf("read keywords of %s: %w", dir, err)
	}
	for _, l := range lines {
		_, name, _ := strings.Cut(l, " ")
		further = append(further, name)
	}
	return k, further, nil
}

// CheckIndex returns an error if the folder in dir has an index that cannot be
// read, which hurts nothing but costs time. Nothing is changed.
func CheckIndex(dir string) error {
	f, err := os.Open(filepath.Join(dir, indexName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() // only read
	data, err := io.ReadAll(io.LimitReader(f, maxIndexFile))
	if err != nil {
		return err
	}
	_, err = decodeIndex(data)
	return err
}

// DropIndex removes what is kept about the folder in dir to save time. Modification
// sequences go on above those that clients may know.
func DropIndex(dir string) error {
	for _, name := range []string{indexName, factsName} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Edit changes a file that others change too, under its dot lock: change gets what is
// in it, nil if it is absent, and returns what is to be in it, durably; nil leaves it
// alone. The file is at most maxUIDList octets long.
func (p *Pool) Edit(ctx context.Context, file string, change func(old []byte) ([]byte, error)) error {
	unlock, err := p.lock(ctx, file)
	if err != nil {
		return err
	}
	defer unlock()
	if fi, err := os.Stat(file); err == nil && fi.Size() > maxUIDList {
		return fmt.Errorf("edit %s: it is longer than %d octets", file, maxUIDList)
	}
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	data, err := change(old)
	if err != nil || data == nil {
		return err
	}
	return p.replace(file, filepath.Join(filepath.Dir(file), "tmp", p.names.base(time.Now())), data)
}

// Owed reads from the state directory of a server the paths of messages in tmp/
// directories that were or are being delivered: they must not be removed.
func Owed(state string) (files map[string]bool, err error) {
	commits, _, _, err := readCommits(state)
	if err != nil {
		return nil, err
	}
	files = map[string]bool{}
	for _, c := range commits {
		abs, err := filepath.Abs(c.file)
		if err != nil {
			return nil, err
		}
		files[abs] = true
	}
	return files, nil
}
