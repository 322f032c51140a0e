package maildir

import "path/filepath"

// FolderFor finds the folder of a user's Maildir that the detail of an address names,
// as Target.Folder has it. ok is false if there is no such folder.
func FolderFor(maildir, detail string) (folder string, ok bool) {
	name, err := cleanName(detail)
	if err != nil || name == "INBOX" {
		return "", false
	}
	dir := dirOf(maildir, name)
	if !isDir(filepath.Join(dir, "cur")) {
		return "", false
	}
	return filepath.Base(dir)[1:], true
}
