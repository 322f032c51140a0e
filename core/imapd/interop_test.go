package imapd

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// program returns the path of an installed program, or skips the test.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

func runProgram(t *testing.T, home, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "HOME="+home)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func TestCurl(t *testing.T) {
	curl := program(t, "curl")
	ts := startServer(t, nil)
	login := fmt.Sprintf("%s:%s", testUser, testPassword)
	url := "imap://" + ts.addr + "/"
	home := t.TempDir()
	file := filepath.Join(home, "message")
	if err := os.WriteFile(file, []byte(simpleMessage), 0o600); err != nil {
		t.Fatal(err)
	}
	runProgram(t, home, curl, "-sS", "-u", login, "-T", file, url+"INBOX")
	if got := runProgram(t, home, curl, "-sS", "-u", login, url+"INBOX;UID=1"); got != simpleMessage {
		t.Errorf("message came back as %q", got)
	}
	if got := runProgram(t, home, curl, "-sS", "-u", login, url); !strings.Contains(got, `"INBOX"`) {
		t.Errorf("list: %q", got)
	}
	if got := runProgram(t, home, curl, "-sS", "-u", login, url+"INBOX?SUBJECT%20Hello"); !strings.Contains(got, "* SEARCH 1") {
		t.Errorf("search: %q", got)
	}
	if got := runProgram(t, home, curl, "-sS", "-u", login, url+"INBOX;UID=1;SECTION=HEADER.FIELDS%20(SUBJECT)"); !strings.Contains(got, "Subject: Hello") {
		t.Errorf("section: %q", got)
	}
}

// TestMbsync synchronises both ways with isync.
func TestMbsync(t *testing.T) {
	mbsync := program(t, "mbsync")
	ts := startServer(t, nil)
	c := ts.login(t)
	for i := range 5 {
		c.appendMessage("INBOX", "", strings.Replace(simpleMessage, "<1@", fmt.Sprintf("<%d@", i+1), 1))
	}
	c.ok("CREATE Work.Plans")
	c.appendMessage("Work.Plans", `(\Flagged)`, simpleMessage)
	home := t.TempDir()
	host, port, _ := net.SplitHostPort(ts.addr)
	rc := fmt.Sprintf(`IMAPAccount a
Host %s
Port %s
User %s
Pass %q
SSLType None
AuthMechs LOGIN

IMAPStore far
Account a

MaildirStore near
Path %s/mail/
Inbox %s/mail/INBOX
SubFolders Verbatim

Channel c
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
SyncState *
`, host, port, testUser, testPassword, home, home)
	if err := os.WriteFile(filepath.Join(home, "rc"), []byte(rc), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(home, "mail"), 0o700); err != nil {
		t.Fatal(err)
	}
	sync := func() string { return runProgram(t, home, mbsync, "-V", "-c", filepath.Join(home, "rc"), "-a") }
	count := func(dir string) (files []string) {
		for _, sub := range []string{"cur", "new"} {
			m, err := filepath.Glob(filepath.Join(home, "mail", dir, sub, "*"))
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, m...)
		}
		return files
	}
	out := sync()
	inbox := count("INBOX")
	if len(inbox) != 5 || len(count("Work/Plans")) != 1 {
		t.Fatalf("pulled %d and %d messages\n%s", len(inbox), len(count("Work/Plans")), out)
	}
	// Both sides change: a new message here and there, flags, a deletion.
	if err := os.WriteFile(filepath.Join(home, "mail/INBOX/new/1.here"), bytes.ReplaceAll([]byte(simpleMessage), []byte("\r\n"), []byte("\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	c.ok("SELECT INBOX")
	c.ok(`STORE 1 +FLAGS (\Seen)`)
	c.ok(`STORE 2 +FLAGS (\Deleted)`)
	c.ok("EXPUNGE")
	out = sync()
	if got := c.ok("STATUS INBOX (MESSAGES UNSEEN)"); !strings.Contains(strings.Join(got, ""), "(MESSAGES 5 UNSEEN 4)") {
		t.Errorf("after the second run: %q\n%s", got, out)
	}
	if n := len(count("INBOX")); n != 5 {
		t.Errorf("near side has %d messages\n%s", n, out)
	}
}

// TestImapclient drives the server with go-imap's client, which parses every
// reply with a grammar that is not ours.
func TestImapclient(t *testing.T) {
	ts := startServer(t, nil)
	events := make(chan uint32, 10)
	cl, err := imapclient.DialInsecure(ts.addr, &imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Mailbox: func(d *imapclient.UnilateralDataMailbox) {
			if d.NumMessages != nil {
				events <- *d.NumMessages
			}
		}}})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(cl.Login(testUser, testPassword).Wait())
	if !cl.Caps().Has(imap.CapIMAP4rev2) || !cl.Caps().Has(imap.CapCondStore) {
		t.Errorf("capabilities %v", cl.Caps())
	}
	_, err = cl.Enable(imap.CapIMAP4rev2).Wait()
	check(err)
	_, err = cl.ID(&imap.IDData{Name: "test"}).Wait()
	check(err)
	_, err = cl.Namespace().Wait()
	check(err)
	check(cl.Create("Ä & ö", nil).Wait())
	check(cl.Subscribe("Ä & ö").Wait())
	list, err := cl.List("", "*", &imap.ListOptions{ReturnChildren: true, ReturnSubscribed: true, ReturnStatus: &imap.StatusOptions{NumMessages: true, Size: true}}).Collect()
	check(err)
	if len(list) != 2 || list[1].Mailbox != "Ä & ö" || list[1].Status == nil {
		t.Errorf("list %+v", list)
	}
	for range 3 {
		app := cl.Append("INBOX", int64(len(simpleMessage)), &imap.AppendOptions{Flags: []imap.Flag{imap.FlagFlagged, "$Work"}, Time: time.Unix(1e9, 0)})
		_, err = app.Write([]byte(simpleMessage))
		check(err)
		check(app.Close())
		data, err := app.Wait()
		check(err)
		if data.UID == 0 {
			t.Error("no APPENDUID")
		}
	}
	sel, err := cl.Select("INBOX", &imap.SelectOptions{CondStore: true}).Wait()
	check(err)
	if sel.NumMessages != 3 || sel.UIDNext != 4 || sel.HighestModSeq == 0 {
		t.Errorf("select %+v", sel)
	}
	set := imap.SeqSetNum(1, 2, 3)
	msgs, err := cl.Fetch(set, &imap.FetchOptions{Envelope: true, Flags: true, InternalDate: true, RFC822Size: true, UID: true, ModSeq: true,
		BodySection:       []*imap.FetchItemBodySection{{Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"Subject"}, Peek: true}, {Part: []int{1}, Partial: &imap.SectionPartial{Offset: 3, Size: 3}}},
		BinarySection:     []*imap.FetchItemBinarySection{{Part: []int{1}, Peek: true}},
		BinarySectionSize: []*imap.FetchItemBinarySectionSize{{Part: []int{1}}},
		BodyStructure:     &imap.FetchItemBodyStructure{Extended: true}}).Collect()
	check(err)
	m := msgs[2]
	if len(msgs) != 3 || m.UID != 3 || m.Envelope.Subject != "Hello" || m.Envelope.From[0].Addr() != "ann@example.org" || !m.InternalDate.Equal(time.Unix(1e9, 0)) ||
		m.RFC822Size != int64(len(simpleMessage)) || m.ModSeq == 0 || string(m.BodySection[1].Bytes) != "Bob" || string(m.BinarySection[0].Bytes) != "Hi Bob\r\n" {
		t.Errorf("fetched %+v", m)
	}
	found, err := cl.UIDSearch(&imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "Subject", Value: "ell"}}, Flag: []imap.Flag{"$Work"},
		Or: [][2]imap.SearchCriteria{{{Body: []string{"bob"}}, {Larger: 99999}}}, Not: []imap.SearchCriteria{{UID: []imap.UIDSet{imap.UIDSetNum(2)}}}},
		&imap.SearchOptions{ReturnAll: true, ReturnCount: true, ReturnMin: true}).Wait()
	check(err)
	if fmt.Sprint(found.AllUIDs()) != "[1 3]" || found.Count != 2 || found.Min != 1 {
		t.Errorf("search %+v", found)
	}
	copied, err := cl.Copy(imap.UIDSetNum(1, 3), "Ä & ö").Wait()
	check(err)
	if copied.SourceUIDs.String() != "1,3" || copied.DestUIDs.String() != "1:2" {
		t.Errorf("copy %+v", copied)
	}
	_, err = cl.Move(imap.UIDSetNum(1), "Ä & ö").Wait()
	check(err)
	stored, err := cl.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Collect()
	check(err)
	if len(stored) != 1 || len(stored[0].Flags) != 4 {
		t.Errorf("store %+v", stored)
	}
	gone, err := cl.UIDExpunge(imap.UIDSetNum(2)).Collect()
	check(err)
	if fmt.Sprint(gone) != "[1]" {
		t.Errorf("expunged %v", gone)
	}
	idle, err := cl.Idle()
	check(err)
	other := ts.login(t)
	other.appendMessage("INBOX", "", simpleMessage)
	for n := range events {
		if n == 2 {
			break
		}
	}
	check(idle.Close())
	check(idle.Wait())
	check(cl.UnselectAndExpunge().Wait())
	check(cl.Rename("Ä & ö", "Other", nil).Wait())
	status, err := cl.Status("Other", &imap.StatusOptions{NumMessages: true, UIDNext: true, UIDValidity: true, NumUnseen: true, NumDeleted: true, Size: true, HighestModSeq: true}).Wait()
	check(err)
	if *status.NumMessages != 3 {
		t.Errorf("status %+v", status)
	}
	check(cl.Delete("Other").Wait())
	check(cl.Logout().Wait())
}

// TestFetchmail takes the mail away with fetchmail.
func TestFetchmail(t *testing.T) {
	fetchmail := program(t, "fetchmail")
	ts := startServer(t, nil)
	c := ts.login(t)
	c.appendMessage("INBOX", "", simpleMessage)
	c.appendMessage("INBOX", "", simpleMessage)
	home := t.TempDir()
	host, port, _ := net.SplitHostPort(ts.addr)
	out := filepath.Join(home, "out")
	rc := fmt.Sprintf("poll %s port %s protocol imap auth password user %q password %q sslproto '' mda \"cat >> %s\"\n", host, port, testUser, testPassword, out)
	if err := os.WriteFile(filepath.Join(home, "rc"), []byte(rc), 0o600); err != nil {
		t.Fatal(err)
	}
	said := runProgram(t, home, fetchmail, "-v", "-f", filepath.Join(home, "rc"), "--pidfile", filepath.Join(home, "pid"), "--nosyslog")
	got, err := os.ReadFile(out)
	if err != nil || strings.Count(string(got), "Hi Bob") != 2 {
		t.Errorf("%d octets, %v\n%s", len(got), err, said)
	}
	if got := c.ok("STATUS INBOX (MESSAGES)"); !strings.Contains(got[0], "MESSAGES 0") {
		t.Errorf("%q\n%s", got, said)
	}
}
