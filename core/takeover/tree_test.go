package takeover

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// messageCount is how many messages the INBOX of a taken-over tree has.
func messageCount(t testing.TB) int {
	s := os.Getenv("WAFER_MESSAGES")
	if s == "" {
		return 3000
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 100 {
		t.Fatalf("WAFER_MESSAGES is %q, want a number of at least 100", s)
	}
	return n
}

// folders are those of a taken-over tree, as IMAP4rev1 names them.
var folders = []string{"Work", "Work.Plans", "Work.Plans.2024", "INBOX.children", "INBOX.children.deep", "Sent", "Entw&APw-rfe", "Tom &- Jerry", "&ZeVnLIqe-.&ZeU-", "with space", "Corpus", "Gone.only child"}

// oldTree makes a mailbox that Dovecot and others have filled for long.
func oldTree(t *testing.T, h *house, user string, n int) {
	t.Helper()
	r := rand.New(rand.NewPCG(7, uint64(n)))
	h.put(user+"/made", "")
	h.own(filepath.Join(h.dir, user))
	d := h.dovecot(user)
	for _, f := range folders {
		d.ok("CREATE " + quote(f))
	}
	d.ok("CREATE Gone.again")
	d.ok("SUBSCRIBE Gone.again")
	d.ok("DELETE Gone.again")
	for _, f := range []string{"INBOX", "Work", "Work.Plans.2024", "Entw&APw-rfe", "Tom &- Jerry", "INBOX.children.deep"} {
		d.ok("SUBSCRIBE " + quote(f))
	}
	d.ok("UNSUBSCRIBE Work")
	d.close()

	mail := h.mail(user)
	drop := func(folder, sub, name string, i int) {
		text, _ := hardMail(r, i)
		if r.IntN(2) == 0 {
			text = strings.ReplaceAll(text, "\r\n", "\n")
		}
		dropFile(t, filepath.Join(mail, folder, sub, name), text, i)
	}
	// What was there before Dovecot.
	for i := range n / 2 {
		drop("", "cur", fmt.Sprintf("%d.M%dP1.old:2,%s", 1600000000+i/3, i, []string{"", "S", "RS", "FS", "DS", "ST"}[r.IntN(6)]), i)
	}
	h.own(mail)
	d = h.dovecot(user)
	d.ok("SELECT INBOX")
	for i := range n / 20 {
		text, _ := hardMail(r, i)
		args := []string{`(\Seen)`, `(\Flagged $Junk)`, `(work "07-Jan-2021 10:11:12 +0200")`, `"01-Feb-2022 23:59:59 -0800"`, `(\Draft \Answered $Forwarded Later)`, `()`}[r.IntN(6)]
		args = strings.Replace(args, ` "`, `) "`, 1)
		args = strings.Replace(args, `")`, `"`, 1)
		if got := d.save([]string{"INBOX", "INBOX", "Work", "Sent", "Work.Plans.2024", "&ZeVnLIqe-.&ZeU-"}[r.IntN(6)], args, text); !strings.HasPrefix(got, "OK") {
			t.Fatalf("dovecot: APPEND %s: %s", args, got)
		}
	}
	for i := range 40 {
		from := 1 + r.IntN(n/2)
		set := fmt.Sprintf("%d:%d", from, from+r.IntN(20))
		switch i % 4 {
		case 0:
			d.ok("UID STORE " + set + " +FLAGS (" + []string{`\Seen`, `\Flagged`, `\Answered`}[r.IntN(3)] + fmt.Sprintf(" kw%d)", i))
		case 1:
			d.ok("UID STORE " + set + " -FLAGS (\\Seen kw0)")
		case 2:
			d.ok("UID COPY " + set + " " + quote(folders[r.IntN(8)]))
		case 3:
			d.ok("UID MOVE " + set + " " + quote(folders[r.IntN(8)]))
		}
	}
	d.ok("UID STORE 5:9,40 +FLAGS (\\Deleted)")
	d.ok("EXPUNGE")
	d.close()

	// What others did meanwhile.
	for i := range n / 3 {
		drop("", "new", fmt.Sprintf("%d.M%dP2.foreign", 1710000000+i/2, r.IntN(1000000)), i)
	}
	for i := range n / 10 {
		drop("", "cur", fmt.Sprintf("%d.M%dP3.mutt:2,%s", 1700000000+i, i, []string{"S", "FRS", "", "Sab"}[r.IntN(4)]), i)
		drop(".Work", []string{"cur", "new"}[i%2], fmt.Sprintf("%d.odd%d", 1650000000-i, i), i)
	}
	renameSome(t, filepath.Join(mail, "cur"), r)
	cutList(t, filepath.Join(mail, "dovecot-uidlist"), r)
	corpus(t, mail)
	h.own(mail)
}

// dropFile writes a message as a delivery agent does, with a date of its own.
func dropFile(t *testing.T, path, text string, i int) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	when := time.Date(2020, 1, 1, 0, i, 0, 0, time.UTC)
	if err := os.Chtimes(path, when, when); err != nil {
		t.Fatal(err)
	}
}

// renameSome changes the flags in the names of some files, as another client does.
func renameSome(t *testing.T, dir string, r *rand.Rand) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		base, _, ok := strings.Cut(e.Name(), ":2,")
		if !ok || r.IntN(20) > 0 {
			continue
		}
		to := base + []string{":2,FS", ":2,", ":2,DRa", ""}[r.IntN(4)]
		if err := os.Rename(filepath.Join(dir, e.Name()), filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
}

// cutList removes lines from a dovecot-uidlist.
func cutList(t *testing.T, path string, r *rand.Rand) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	n := 0
	for line := range strings.Lines(string(b)) {
		if n++; n == 1 || r.IntN(60) > 0 {
			out.WriteString(line)
		}
	}
	if err := os.WriteFile(path, []byte(out.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

const corpusDir = "../../../shared/testdata/eml"

// corpusFiles are the shared test messages, by path.
func corpusFiles(t testing.TB) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(corpusDir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.Contains(path, "LICENSES") && !strings.HasSuffix(path, ".jsonl") && filepath.Dir(path) != corpusDir {
			paths = append(paths, path)
		}
		return err
	})
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// corpus puts the shared test messages into a folder; the n-th has UID n+1.
func corpus(t *testing.T, mail string) {
	t.Helper()
	for i, path := range corpusFiles(t) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		dropFile(t, filepath.Join(mail, ".Corpus/cur", fmt.Sprintf("%d.corpus:2,S", 1500000000+i)), string(b), i)
	}
}
