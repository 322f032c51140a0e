package auth

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// ErrUserExists is returned by Add.
var ErrUserExists = errors.New("user exists already")

// Add appends a user with the password hash, which Hash makes; "" makes a user
// who receives mail and cannot log in. The change is durable when Add returns.
// Errors: ErrUserExists; what is wrong with name or hash; Problems if the file
// on disk has mistakes, since a server would not take the change up then.
func (f *File) Add(user, hash string) error {
	return f.edit("add user", user, func(lines []string, at int, name string) ([]string, error) {
		if at >= 0 {
			return nil, fmt.Errorf("%s: %w", name, ErrUserExists)
		}
		// A last line without its end gets one, and the new line has one.
		if n := len(lines); n > 0 && lines[n-1] == "" {
			lines = lines[:n-1]
		}
		return append(lines, f.written(user, name)+":"+hash, ""), checkHash(hash)
	})
}

// SetPassword replaces user's hash and leaves the rest of the line, and of the
// file, as it is. Errors as for Add, and ErrNoUser.
func (f *File) SetPassword(user, hash string) error {
	return f.edit("set password of", user, func(lines []string, at int, name string) ([]string, error) {
		if at < 0 {
			return nil, fmt.Errorf("%s: %w", name, ErrNoUser)
		}
		fields := strings.SplitN(lines[at], ":", 3)
		end := ""
		if len(fields) == 2 && strings.HasSuffix(fields[1], "\r") {
			end = "\r"
		}
		fields[1] = hash + end
		lines[at] = strings.Join(fields, ":")
		return lines, checkHash(hash)
	})
}

// Remove takes user's line out of the file. Errors: ErrNoUser, Problems.
func (f *File) Remove(user string) error {
	return f.edit("remove user", user, func(lines []string, at int, name string) ([]string, error) {
		if at < 0 {
			return nil, fmt.Errorf("%s: %w", name, ErrNoUser)
		}
		return append(lines[:at], lines[at+1:]...), nil
	})
}

// written is the name as a new line shall have it: the local part alone where
// that is all that was given, else the canonical name.
func (f *File) written(user, name string) string {
	if !strings.Contains(user, "@") {
		local, _, _ := cutLast(name)
		return local
	}
	return name
}

func checkHash(hash string) error {
	if strings.ContainsAny(hash, ":\r\n\x00") {
		return errors.New("password hash has a character that users files cannot hold")
	}
	_, err := parsePasswordField(hash)
	return err
}

// edit changes the file under its lock. Change gets all lines, the index of
// user's line or -1, and user's canonical name. The text is parsed before and
// after, so that an edit can never make a file that would not be read.
func (f *File) edit(verb, user string, change func(lines []string, at int, name string) ([]string, error)) error {
	wrap := func(err error) error { return fmt.Errorf("%s %q in %s: %w", verb, user, f.path, err) }
	name, err := canonicalUser(user, f.domains)
	if err != nil {
		return wrap(err)
	}
	path, unlock, err := lockFile(f.path)
	if err != nil {
		return wrap(err)
	}
	defer unlock()
	text, _, err := f.read()
	if err != nil {
		return wrap(err)
	}
	if _, problems := parseFile(f.path, text, f.domains); len(problems) > 0 {
		return wrap(problems)
	}
	lines := strings.Split(text, "\n")
	at := -1
	for i, line := range lines {
		if isComment(line) {
			continue
		}
		field, _, _ := strings.Cut(line, ":")
		if n, err := canonicalUser(field, f.domains); err == nil && n == name {
			at = i
		}
	}
	if lines, err = change(lines, at, name); err != nil {
		return wrap(err)
	}
	text = strings.Join(lines, "\n")
	if _, problems := parseFile(f.path, text, f.domains); len(problems) > 0 {
		return wrap(problems)
	}
	if err := replaceFile(path, text, f.fault); err != nil {
		return wrap(err)
	}
	return nil
}

// replaceFile puts text in the place of the file at path, which keeps its mode
// and owner: whoever opens it sees the old text or the new one, and the new one
// is durable when replaceFile returns nil. After an error the old text stands,
// unless it was the folder that could not be synced. Fault, if not nil, is asked
// before each step and can make it go wrong.
func replaceFile(path, text string, fault func(step string) error) (err error) {
	try := func(step string, do func() error) {
		if err == nil && fault != nil {
			err = fault(step)
		}
		if err == nil {
			err = do()
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	var temp *os.File
	try("create", func() error {
		// In the same folder, hidden, 0600.
		temp, err = os.CreateTemp(folderOf(path), ".wafer-users-*")
		return err
	})
	if err != nil {
		return err
	}
	open, renamed := true, false
	defer func() {
		if open {
			_ = temp.Close() // there is an error already
		}
		if !renamed {
			_ = os.Remove(temp.Name())
		}
	}()
	try("write", func() error { _, err := io.WriteString(temp, text); return err })
	try("owner", func() error { return keepOwner(temp, info) })
	try("mode", func() error { return temp.Chmod(info.Mode().Perm()) })
	try("sync", temp.Sync)
	try("close", func() error { open = false; return temp.Close() })
	try("rename", func() error { return os.Rename(temp.Name(), path) })
	renamed = err == nil
	try("folder", func() error { return syncFolder(path) })
	return err
}
