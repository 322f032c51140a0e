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

// ParseSubscriptions returns the names in a file subscriptions, in UTF-8 and in their
// order. Names that no folder can have are left out.
func ParseSubscriptions(data string) (names []string) {
	lines, _ := parseSubscriptions(data)
	for _, line := range lines {
		name, ok := decodeName(line)
		if !ok {
			name = line
		}
		if clean, err := cleanName(name); err == nil {
			names = append(names, clean)
		}
	}
	return names
}

// Unpacked reads the message in f, which may be compressed. Errors of what is compressed
// wrap ErrUnreadable. f must stay open.
func Unpacked(f *os.File) (io.ReadCloser, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var magic [magicBytes]byte
	n, err := f.ReadAt(magic[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	all := io.NewSectionReader(f, 0, fi.Size())
	c := compressionOf(magic[:n])
	if c == plain {
		return io.NopCloser(all), nil
	}
	r, err := c.unpacker(all)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return &unpacking{r: r, left: maxUnpacked}, nil
}

// unpacking is a bounded reader of what is compressed.
type unpacking struct {
	r    io.ReadCloser
	left int64
}

func (u *unpacking) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if u.left -= int64(n); u.left < 0 {
		return 0, fmt.Errorf("%w: it is longer than %d octets", ErrUnreadable, maxUnpacked)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return n, err
}

func (u *unpacking) Close() error { return u.r.Close() }

// String is the name of a file with the given base name and flags.
func (n FileName) String() string { return makeName(n.Base, n.Flags, "", "") }

// Promised reads the commit log that a Deliverer keeps in the directory state, and
// reports of a path in some tmp/ whether it is a message that was acknowledged and
// may wait for its mailbox. Nothing is changed.
func Promised(state string) (func(file string) bool, error) {
	commits, _, _, err := readCommits(state)
	if err != nil {
		return nil, err
	}
	owed := make(map[string]bool, len(commits))
	for _, c := range commits {
		owed[filepath.Clean(c.file)] = true
	}
	return func(file string) bool { return owed[file] }, nil
}
