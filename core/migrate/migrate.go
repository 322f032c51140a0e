// Package migrate brings mail from one place to another: Maildirs of other servers are
// taken over where they stand, mbox files and other Maildirs are read and written.
//
//	r, err := migrate.Survey(ctx, "/var/mail/vhosts", nil)  // what would be taken over, what lost
//	err := migrate.Apply(ctx, r, pool, nil)                 // keeps what can be kept
//	n, err := migrate.Import(ctx, store, source, migrate.TransferOptions{})
//	n, err := migrate.Export(ctx, store, dir, migrate.TransferOptions{})
//
// Survey reads only. Import stores messages through the mail store, and knows what it
// has stored before by the contents of the messages: see Import.
//
// # BUGS
//
// What Dovecot's configuration says is not read: which format POP3 UIDLs have, where
// index and control files are, which names namespaces have. Keywords beyond the 26th are
// read from dovecot.index and dovecot.index.log as Dovecot 2.0 to 2.4 write them; a
// log that was rotated since the index was written is not. Whether ,W= is right is not
// checked: that would take reading all mail, and nothing here believes it.
package migrate

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/maildir"
)

// Progress is told how far a long work has come: what it is at, how many of total
// units are done; total is 0 where it is not known.
type Progress func(what string, done, total int64)

func (p Progress) tell(what string, done, total int64) {
	if p != nil {
		p(what, done, total)
	}
}

// folder is a folder of a Maildir as its directory has it.
type folder struct {
	name  string // UTF-8
	dir   string
	files []file // of cur and new, by name
	odd   []string
}

// file is a file of a message.
type file struct {
	sub string // "cur" or "new"
	maildir.FileName
	size int64
	mode fs.FileMode
	uid  uint32 // owner
}

// path is where the file is in its folder.
func (f file) path() string { return filepath.Join(f.sub, f.Base+f.Info) }

// folders lists the folders of a Maildir in their order.
func folders(root string) ([]folder, error) {
	dirs, err := maildir.FolderDirs(root)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(dirs))
	for name := range dirs {
		names = append(names, name)
	}
	maildir.SortNames(names)
	list := make([]folder, len(names))
	for i, name := range names {
		list[i] = folder{name: name, dir: dirs[name]}
	}
	return list, nil
}

// list reads the directories. What is no file goes into odd.
func (f *folder) list() error {
	for _, sub := range []string{"cur", "new"} {
		entries, err := os.ReadDir(filepath.Join(f.dir, sub))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at folder %s: %w", f.name, err)
		}
		for _, e := range entries {
			name := e.Name()
			if name[0] == '.' || name[0] == ':' {
				continue
			}
			fi, err := os.Stat(filepath.Join(f.dir, sub, name))
			if os.IsNotExist(err) { // renamed or removed meanwhile
				continue
			}
			if err != nil || !fi.Mode().IsRegular() || strings.Contains(name, "\n") {
				f.odd = append(f.odd, filepath.Join(sub, name))
				continue
			}
			f.files = append(f.files, file{sub: sub, FileName: maildir.ParseFileName(name), size: fi.Size(), mode: fi.Mode(), uid: owner(fi)})
		}
	}
	return nil
}

// compression is how a message's file is compressed, and whether mail_crypt has
// encrypted it.
func (f *folder) compression(m file) (how string, err error) {
	r, err := os.Open(filepath.Join(f.dir, m.path()))
	if err != nil {
		return "", err
	}
	defer r.Close() // only read
	head := make([]byte, 16)
	n, _ := r.Read(head) // what cannot be read is not compressed
	if strings.HasPrefix(string(head[:n]), "CRYPTED\x03\x07") {
		return "mail_crypt", nil
	}
	return maildir.CompressionOf(head[:n]), nil
}

// isMaildir reports whether dir is a Maildir: it has cur and new.
func isMaildir(dir string) bool {
	return isDir(filepath.Join(dir, "cur")) && isDir(filepath.Join(dir, "new"))
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func isFile(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular()
}

// sortedKeys are the keys of m in order.
func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
