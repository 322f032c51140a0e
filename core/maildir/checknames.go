package maildir

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// names looks at the names of the files in new/ and cur/.
func (c *checked) names() error {
	files, err := c.listing()
	if err != nil {
		return err
	}
	first := map[string]string{} // path by base name
	for _, path := range files {
		sub, name, _ := strings.Cut(path, "/")
		base, info := splitName(name)
		if base == "" {
			c.fault(Finding{File: path, Fault: "a name that begins with a colon is no message's"}, nil)
			continue
		}
		if fi, err := os.Stat(c.file(path)); err == nil && !fi.Mode().IsRegular() {
			c.fault(Finding{File: path, Fault: "it is no regular file: nobody is shown it as a message"}, nil)
			continue
		}
		if other, twice := first[base]; twice {
			c.twice(other, path)
			continue
		}
		first[base] = path
		flagged := strings.HasPrefix(info, ":2,")
		to := "cur/" + base + ":2,"
		switch {
		case sub == "new" && flagged:
			to = "cur/" + name
			c.fault(Finding{File: path, Fault: "a message in new/ has flags already", Mend: "moves it to " + c.rel(to)}, c.renames(path, to))
		case sub == "cur" && !flagged && info == "":
			c.fault(Finding{File: path, Fault: `the name has no flags part (":2,")`, Mend: "renames it to " + c.rel(to)}, c.renames(path, to))
		case sub == "cur" && !flagged:
			c.fault(Finding{File: path, Fault: fmt.Sprintf("what is behind the colon, %q, are no flags", info), Mend: "renames it to " + c.rel(to)}, c.renames(path, to))
		}
	}
	return nil
}

// listing lists the files of the folder's messages, those of new/ after those of cur/.
func (c *checked) listing() (files []string, err error) {
	for _, sub := range []string{"cur", "new"} {
		entries, err := os.ReadDir(c.file(sub))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if name := e.Name(); name[0] != '.' && strings.IndexByte(name, '\n') < 0 {
				files = append(files, sub+"/"+name)
			}
		}
	}
	return files, nil
}

// renames gives a file another name, durably. A file that has gone meanwhile was
// renamed by another program, which knows better.
func (c *checked) renames(from, to string) func() error {
	return func() error {
		if err := c.p.ops.renameNew(c.file(from), c.file(to)); err != nil {
			return absent(err)
		}
		return c.p.ops.sync(c.file("cur"), c.file("new"))
	}
}

// twice tells of two files with the same base name: two names of one message, or two
// messages.
func (c *checked) twice(one, two string) {
	a, err := os.Lstat(c.file(one))
	b, err2 := os.Lstat(c.file(two))
	if err != nil || err2 != nil { // renamed while we were listing
		return
	}
	if os.SameFile(a, b) {
		if linkCount(b) < 2 {
			return
		}
		if len(two) > len(one) && strings.HasPrefix(two, "cur/") { // it has more flags
			one, two = two, one
		}
		c.fault(Finding{File: two, Fault: "a second name of the file " + c.rel(one), Mend: "removes this name"}, func() error {
			if _, err := os.Lstat(c.file(one)); err != nil {
				return absent(err)
			}
			return errors.Join(absent(c.p.ops.remove(c.file(two))), c.p.ops.sync(c.file("cur"), c.file("new")))
		})
		return
	}
	_, info := splitName(two)
	if !strings.HasPrefix(info, ":2,") {
		info = ":2,"
	}
	to := "cur/" + c.p.names.base(c.o.Now) + info
	c.fault(Finding{File: two, Fault: "another message, " + c.rel(one) + ", has the same name", Mend: "gives it a name of its own"}, c.renames(two, to))
}
