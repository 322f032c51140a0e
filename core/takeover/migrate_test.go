package takeover

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/maildir"
	"github.com/wafermail/wafer/core/migrate"
)

// TestMigrate has more keywords than file names have letters for: what only Dovecot's
// index knows is told before a takeover, and kept as far as there are letters.
func TestMigrate(t *testing.T) {
	const kinds = 30
	for _, c := range []struct {
		name string
		gone int // keywords that no message has any more
		kept int
	}{
		{"all in use", 0, 0},
		{"two letters to give", 2, 2},
		{"enough letters", 6, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			h.maildir(h.mail("ann"))
			h.own(h.dir + "/ann")
			d := h.dovecot("ann")
			for i := 1; i <= kinds; i++ {
				d.save("INBOX", "", fmt.Sprintf("Subject: %d\r\n\r\nx\r\n", i))
			}
			d.ok("SELECT INBOX")
			for i := 1; i <= kinds; i++ {
				d.ok(fmt.Sprintf("STORE %d +FLAGS.SILENT (kw%d \\Flagged)", i, i))
			}
			for i := 1; i <= c.gone; i++ { // they had letters
				d.ok(fmt.Sprintf("STORE %d -FLAGS.SILENT (kw%d)", i, i))
			}
			d.close()

			before := tree(t, h.mail("ann"))
			r, err := migrate.Survey(context.Background(), filepath.Join(h.dir, "ann"), nil)
			if err != nil {
				t.Fatal(err)
			}
			if after := tree(t, h.mail("ann")); !slices.Equal(after, before) {
				t.Errorf("a survey changed files:\n%s\nbefore\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
			}
			if len(r.Users) != 1 || r.Users[0].Messages != kinds {
				t.Fatalf("users: %+v", r.Users)
			}
			if lost := keywordsOf(r, false); len(lost) != kinds-maildir.MaxKeywords {
				t.Errorf("told as lost: %q", lost)
			}
			err = migrate.Apply(context.Background(), r, func(string) (*maildir.Pool, error) {
				return maildir.NewPool(maildir.Options{UID: nobody, GID: nobody}), nil
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if kept := keywordsOf(r, true); len(kept) != c.kept {
				t.Errorf("kept: %q, want %d", kept, c.kept)
			}
			if r.Lost() != (c.kept < kinds-maildir.MaxKeywords) {
				t.Errorf("Lost: %v", r.Lost())
			}
			w := h.wafer("ann")
			defer w.close()
			w.ok("SELECT INBOX")
			seen := 0
			for i := 1; i <= kinds; i++ {
				if slices.Contains(w.ok(fmt.Sprintf("SEARCH KEYWORD kw%d", i)), fmt.Sprintf("* SEARCH %d", i)) {
					seen++
				}
			}
			if want := maildir.MaxKeywords - c.gone + c.kept; seen != want {
				t.Errorf("%d keywords arrived, want %d", seen, want)
			}
			// The way back stays open.
			d = h.dovecot("ann")
			defer d.close()
			same(t, "INBOX", w.look("INBOX", "FLAGS"), d.look("INBOX", "FLAGS"), "")
			if got := d.ok("SEARCH FLAGGED"); len(strings.Fields(got[0])) != kinds+2 {
				t.Errorf("Dovecot afterwards: %q", got)
			}
		})
	}
}

// keywordsOf lists what a report says of keywords.
func keywordsOf(r *migrate.Report, kept bool) (list []string) {
	for _, i := range r.Items {
		if i.Kind == "keyword" && i.Lost && i.Kept == kept {
			list = append(list, i.What)
		}
	}
	return list
}

// tree lists what is below a directory.
func tree(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err == nil {
			list = append(list, fmt.Sprint(path, fi.Size(), fi.Mode(), fi.ModTime().UnixNano()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}
