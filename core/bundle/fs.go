package bundle

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// FS is the bundle's files. Opening one reads and verifies it again: it is in
// memory until it is closed.
func (b *Bundle) FS() fs.FS { return tree{b} }

// node is a file or a directory.
type node struct {
	name     string // the last element
	entry    *Entry // nil: a directory
	off      int64  // of a file's content
	children []*node
	created  time.Time
}

// grow makes the tree. Members have their places.
func (b *Bundle) grow(files []member) {
	b.tree = map[string]*node{".": {name: ".", created: b.manifest.Created}}
	for i := range files {
		e := &b.manifest.Files[i]
		b.plant(e.Name, &node{entry: e, off: files[i].content()})
	}
	for _, n := range b.tree {
		slices.SortFunc(n.children, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	}
}

// plant puts n and the directories above it into the tree.
func (b *Bundle) plant(name string, n *node) {
	n.name, n.created = path.Base(name), b.manifest.Created
	b.tree[name] = n
	dir := path.Dir(name)
	if b.tree[dir] == nil {
		b.plant(dir, &node{})
	}
	b.tree[dir].children = append(b.tree[dir].children, n)
}

// read returns a file's content, which is what it was when it was verified.
func (b *Bundle) read(n *node) ([]byte, error) {
	content := make([]byte, n.entry.Size)
	if got, err := b.r.ReadAt(content, n.off); got < len(content) {
		if errors.Is(err, io.EOF) {
			return nil, &Error{ErrTampered, n.entry.Name, "it has been cut off meanwhile"}
		}
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	if sha256.Sum256(content) != n.entry.SHA256 {
		return nil, &Error{ErrTampered, n.entry.Name, "it has changed since the bundle was opened"}
	}
	return content, nil
}

// node implements fs.FileInfo and fs.DirEntry.

func (n *node) Name() string               { return n.name }
func (n *node) IsDir() bool                { return n.entry == nil }
func (n *node) ModTime() time.Time         { return n.created }
func (n *node) Sys() any                   { return nil }
func (n *node) Type() fs.FileMode          { return n.Mode().Type() }
func (n *node) Info() (fs.FileInfo, error) { return n, nil }
func (n *node) String() string             { return fs.FormatFileInfo(n) }

func (n *node) Mode() fs.FileMode {
	if n.IsDir() {
		return fs.ModeDir | 0o500
	}
	return 0o400
}

func (n *node) Size() int64 {
	if n.IsDir() {
		return 0
	}
	return n.entry.Size
}

// tree implements fs.FS, fs.StatFS and fs.ReadFileFS.
type tree struct{ b *Bundle }

func (t tree) find(op, name string) (*node, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	n := t.b.tree[name]
	if n == nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	return n, nil
}

// Open implements fs.FS.
func (t tree) Open(name string) (fs.File, error) {
	n, err := t.find("open", name)
	if err != nil {
		return nil, err
	}
	if n.IsDir() {
		return &openDir{node: n}, nil
	}
	content, err := t.b.read(n)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &openFile{bytes.NewReader(content), n}, nil
}

// Stat implements fs.StatFS.
func (t tree) Stat(name string) (fs.FileInfo, error) {
	n, err := t.find("stat", name)
	if err != nil {
		return nil, err
	}
	return n, nil
}

// ReadFile implements fs.ReadFileFS.
func (t tree) ReadFile(name string) ([]byte, error) {
	n, err := t.find("read", name)
	if err == nil && n.IsDir() {
		err = &fs.PathError{Op: "read", Path: name, Err: errors.New("is a directory")}
	}
	if err != nil {
		return nil, err
	}
	content, err := t.b.read(n)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return content, nil
}

// openFile is a file that is open.
type openFile struct {
	*bytes.Reader
	node *node
}

// Stat implements fs.File.
func (f *openFile) Stat() (fs.FileInfo, error) { return f.node, nil }

// Close implements fs.File.
func (f *openFile) Close() error { return nil }

// openDir is a directory that is open.
type openDir struct {
	node *node
	next int
}

// Stat implements fs.File.
func (d *openDir) Stat() (fs.FileInfo, error) { return d.node, nil }

// Close implements fs.File.
func (d *openDir) Close() error { return nil }

// Read fails.
func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.node.name, Err: errors.New("is a directory")}
}

// ReadDir implements fs.ReadDirFile.
func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	left := d.node.children[d.next:]
	if n > 0 {
		if len(left) == 0 {
			return nil, io.EOF
		}
		left = left[:min(n, len(left))]
	}
	d.next += len(left)
	all := make([]fs.DirEntry, len(left))
	for i, c := range left {
		all[i] = c
	}
	return all, nil
}
