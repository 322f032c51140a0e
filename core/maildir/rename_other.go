//go:build !linux

package maildir

// renameNew renames old to new unless new exists.
func renameNew(old, new string) error { return renameCareful(old, new) }
