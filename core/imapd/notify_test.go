package imapd

import (
	"bufio"
	"compress/flate"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/maildir"
)

// expect reads the next replies, which nobody has asked for.
func (c *client) expect(patterns ...string) {
	c.t.Helper()
	for _, want := range patterns {
		if got := c.reply(); !matchLine(want, got) {
			c.t.Fatalf("\n got %q\nwant %q", got, want)
		}
	}
}

// answers runs a command and compares its untagged replies.
func (c *client) answers(command string, patterns ...string) {
	c.t.Helper()
	got := c.ok(command)
	same := len(got) == len(patterns)
	for i := 0; same && i < len(got); i++ {
		same = matchLine(patterns[i], got[i])
	}
	if !same {
		c.t.Fatalf("%s\n got %q\nwant %q", command, got, patterns)
	}
}

// drop puts a message into a folder ("" is the INBOX) as another program does.
func (ts *testServer) drop(t *testing.T, folder, name string) {
	t.Helper()
	dir := filepath.Join(ts.dir, testUser, folder)
	if err := os.WriteFile(filepath.Join(dir, "tmp", name), []byte(strings.ReplaceAll(simpleMessage, "\r\n", "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "tmp", name), filepath.Join(dir, "new", name)); err != nil {
		t.Fatal(err)
	}
}

// notifyPair is a session that watches and one that works.
func notifyPair(t *testing.T) (ts *testServer, watcher, worker *client) {
	t.Helper()
	ts = startServer(t, nil)
	return ts, ts.login(t), ts.login(t)
}

// TestNotifyOtherMailboxes tells of mailboxes that are not selected, by STATUS,
// while the client neither idles nor runs a command.
func TestNotifyOtherMailboxes(t *testing.T) {
	ts, c, w := notifyPair(t)
	w.ok("CREATE box")
	w.ok("CREATE quiet")
	w.appendMessage("box", "", simpleMessage)
	c.answers("NOTIFY SET STATUS (mailboxes box (MessageNew MessageExpunge)) (mailboxes (flags) (MessageNew MessageExpunge FlagChange))",
		"* STATUS \"box\" (MESSAGES 1 UIDNEXT 2 UIDVALIDITY …)")
	w.appendMessage("box", "", simpleMessage)
	c.expect("* STATUS \"box\" (MESSAGES 2 UIDNEXT 3 UIDVALIDITY …)")
	w.appendMessage("quiet", "", simpleMessage) // not asked for
	ts.drop(t, ".box", "1.x.y")                 // by another program
	c.expect("* STATUS \"box\" (MESSAGES 3 UIDNEXT 4 UIDVALIDITY …)")
	w.ok("SELECT box")
	w.ok(`STORE 1 +FLAGS (\Deleted)`) // no FlagChange
	w.ok("EXPUNGE")
	c.expect("* STATUS \"box\" (MESSAGES 2 UIDNEXT 4 UIDVALIDITY …)")
	if err := os.Remove(firstFile(t, filepath.Join(ts.dir, testUser, ".box", "cur"))); err != nil {
		t.Fatal(err)
	}
	c.expect("* STATUS \"box\" (MESSAGES 1 UIDNEXT 4 UIDVALIDITY …)")

	c.answers("NOTIFY SET STATUS (subtree box (MessageNew MessageExpunge FlagChange))",
		"* STATUS \"box\" (MESSAGES 1 UIDNEXT 4 UIDVALIDITY … HIGHESTMODSEQ …)")
	w.ok(`STORE 1 +FLAGS (\Seen)`)
	c.expect("* STATUS \"box\" (MESSAGES 1 UIDNEXT 4 UIDVALIDITY … HIGHESTMODSEQ …)")
	c.ok("NOTIFY SET (mailboxes box (MessageNew MessageExpunge))")
	c.ok("ENABLE CONDSTORE")
	w.appendMessage("box", "", simpleMessage)
	c.expect("* STATUS \"box\" (MESSAGES 2 UIDNEXT 5 UIDVALIDITY … HIGHESTMODSEQ …)")
}

func firstFile(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Fatal(dir, entries, err)
	}
	return filepath.Join(dir, entries[0].Name())
}

// TestNotifyOwnMessages does not tell the client of what it has done itself
// (RFC 5465 §5).
func TestNotifyOwnMessages(t *testing.T) {
	_, c, w := notifyPair(t)
	w.ok("CREATE box")
	c.ok("NOTIFY SET (selected (MessageNew (UID ENVELOPE) MessageExpunge)) (personal (MessageNew MessageExpunge))")
	c.appendMessage("box", "", simpleMessage)
	c.ok("SELECT INBOX")
	c.send(fmt.Sprintf("a APPEND INBOX {%d+}\r\n%s\r\n", len(simpleMessage), simpleMessage))
	untagged, _ := c.until("a")
	if got := strings.Join(untagged, "|"); got != "* 1 EXISTS|* 1 RECENT" {
		t.Errorf("after an APPEND of its own: %q", got)
	}
	c.ok("COPY 1 box")
	w.appendMessage("box", "", simpleMessage)
	c.expect("* STATUS \"box\" (MESSAGES 3 UIDNEXT 4 UIDVALIDITY …)")
	c.ok(`STORE 1 +FLAGS (\Deleted)`)
	c.ok("CLOSE")
	w.appendMessage("box", "", simpleMessage)
	c.expect("* STATUS \"box\" (MESSAGES 4 UIDNEXT 5 UIDVALIDITY …)")
	w.appendMessage("INBOX", "", simpleMessage)
	c.expect("* STATUS \"INBOX\" (MESSAGES 1 UIDNEXT 3 UIDVALIDITY …)")
}

// TestNotifySelected tells of the selected mailbox at once.
func TestNotifySelected(t *testing.T) {
	ts, c, w := notifyPair(t)
	for range 3 {
		w.appendMessage("INBOX", "", simpleMessage)
	}
	c.ok("SELECT INBOX")
	w.ok("SELECT INBOX")
	w.appendMessage("INBOX", "", simpleMessage)
	c.answers("NOTIFY SET (selected (MessageNew (BODY.PEEK[HEADER.FIELDS (Subject)]) MessageExpunge FlagChange)) (personal (MessageNew MessageExpunge))",
		"* 4 EXISTS", "* … RECENT") // it is a NOOP too
	ts.drop(t, "", "1.x.y")
	c.expect("* 5 EXISTS", "* … RECENT", "* 5 FETCH (UID 5 BODY[HEADER.FIELDS (Subject)] {…}\r\n…)")
	w.ok(`STORE 2 +FLAGS (\Flagged)`)
	c.expect(`* 2 FETCH (UID 2 FLAGS (\Flagged…))`)
	w.ok(`STORE 2 +FLAGS.SILENT (\Deleted)`)
	c.expect(`* 2 FETCH (UID 2 FLAGS (\Flagged \Deleted…))`)
	w.ok("EXPUNGE")
	c.expect("* 2 EXPUNGE")
	c.answers("UID FETCH 3 UID", "* 2 FETCH (UID 3)")

	c.ok("ENABLE QRESYNC")
	w.ok(`STORE 1 +FLAGS.SILENT (\Deleted)`)
	c.expect(`* 1 FETCH (UID 1 FLAGS (\Deleted…) MODSEQ (…))`)
	w.ok("EXPUNGE")
	c.expect("* VANISHED 1")

	c.send("i IDLE\r\n") // the same in IDLE
	c.expect("+ idling")
	w.appendMessage("INBOX", "", simpleMessage)
	c.expect("* 4 EXISTS", "* … RECENT", "* 4 FETCH (UID 6 …)")
	c.send("DONE\r\n")
	c.expect("i OK …")
	w.appendMessage("INBOX", "", simpleMessage)
	c.expect("* 5 EXISTS", "* … RECENT", "* 5 FETCH (UID 7 …)")
}

// TestNotifySelectedDelayed keeps EXPUNGE back until a command allows it.
func TestNotifySelectedDelayed(t *testing.T) {
	_, c, w := notifyPair(t)
	for range 3 {
		w.appendMessage("INBOX", "", simpleMessage)
	}
	c.ok("NOTIFY SET (selected-delayed (MessageNew MessageExpunge))")
	c.ok("SELECT INBOX")
	w.ok("SELECT INBOX")
	w.ok(`STORE 1 +FLAGS (\Deleted)`) // no FlagChange
	w.ok("EXPUNGE")
	w.appendMessage("INBOX", "", simpleMessage)
	c.expect("* 4 EXISTS", "* … RECENT")
	c.answers("FETCH 2:4 UID", "* 2 FETCH (UID 2)", "* 3 FETCH (UID 3)", "* 4 FETCH (UID 4)")
	c.answers("NOOP", "* 1 EXPUNGE")
	c.send("i IDLE\r\n")
	c.expect("+ idling")
	w.ok(`STORE 1 +FLAGS.SILENT (\Deleted)`)
	w.ok("EXPUNGE")
	c.expect("* 1 EXPUNGE")
}

// TestNotifyNotSelected does not tell of the selected mailbox what was not asked
// for, not even with NOOP, and keeps message numbers right (RFC 5465 §3.1).
func TestNotifyNotSelected(t *testing.T) {
	for _, command := range []string{"NOTIFY NONE", "NOTIFY SET (selected NONE)", "NOTIFY SET (personal (MessageNew MessageExpunge))"} {
		t.Run(command, func(t *testing.T) {
			_, c, w := notifyPair(t)
			for range 3 {
				w.appendMessage("INBOX", "", simpleMessage)
			}
			c.ok("SELECT INBOX")
			c.ok(command)
			w.ok("SELECT INBOX")
			w.ok(`STORE 1 +FLAGS (\Deleted)`)
			w.ok("EXPUNGE")
			w.ok(`STORE 1 +FLAGS (\Flagged)`)
			w.appendMessage("INBOX", "", simpleMessage)
			c.answers("NOOP")
			c.answers("SEARCH ALL", "* SEARCH 1 2 3") // 1 has its number still, 4 not yet
			c.answers("FETCH * UID", "* 3 FETCH (UID 3)")
			c.answers(`STORE 3 +FLAGS (\Deleted)`, `* 3 FETCH (FLAGS (\Deleted…))`)
			c.answers("EXPUNGE", "* 1 EXPUNGE", "* 2 EXPUNGE")
			c.answers("NOTIFY SET (selected (MessageNew MessageExpunge FlagChange))", "* 2 EXISTS", "* … RECENT", `* 1 FETCH (UID 2 FLAGS (\Flagged…))`)
			w.appendMessage("INBOX", "", simpleMessage)
			c.expect("* 3 EXISTS", "* … RECENT")
		})
	}
}

// TestNotifyNames tells of mailboxes that come, go and are renamed, and of
// subscriptions and annotations.
func TestNotifyNames(t *testing.T) {
	ts, c, w := notifyPair(t)
	w.ok("CREATE a.b")
	c.ok("NOTIFY SET (personal (MailboxName SubscriptionChange MailboxMetadataChange ServerMetadataChange MessageNew MessageExpunge))")
	w.ok("CREATE new")
	c.expect(`* LIST (\HasNoChildren) "." "new"`)
	w.ok("SUBSCRIBE new")
	c.expect(`* LIST (\HasNoChildren \Subscribed) "." "new"`)
	w.ok("UNSUBSCRIBE new")
	c.expect(`* LIST (\HasNoChildren) "." "new"`)
	w.ok("RENAME new newer")
	c.expect(`* LIST (\HasNoChildren) "." "newer" ("OLDNAME" ("new"))`)
	w.ok("CREATE a") // its child is not told of when it is renamed
	c.expect(`* LIST (\HasChildren) "." "a"`)
	w.ok("RENAME a z")
	c.expect(`* LIST (\HasChildren) "." "z" ("OLDNAME" ("a"))`)
	w.ok("DELETE z")
	c.expect(`* LIST (\NonExistent \HasChildren) "." "z"`)
	w.ok("DELETE newer")
	c.expect(`* LIST (\NonExistent) "." "newer"`)
	w.ok("SUBSCRIBE nowhere")
	c.expect(`* LIST (\NonExistent \Subscribed) "." "nowhere"`)
	w.ok(`SETMETADATA z.b (/private/comment "x" /private/color "y")`)
	c.expect(`* METADATA "z.b" /private/color /private/comment`)
	w.ok(`SETMETADATA z.b (/private/comment NIL)`)
	c.expect(`* METADATA "z.b" /private/comment`)
	w.ok(`SETMETADATA "" (/shared/comment "x")`)
	c.expect(`* METADATA "" /shared/comment`)

	// What the client does itself it knows.
	c.answers("CREATE mine")
	c.answers("RENAME mine mine2")
	c.answers("SUBSCRIBE mine2")
	c.answers(`SETMETADATA mine2 (/private/comment "x")`)
	c.answers("DELETE mine2")

	// By another program, with a message in it.
	root := filepath.Join(ts.dir, testUser)
	made := filepath.Join(root, "tmp", "made")
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(made, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(made, "maildirfolder"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(made, filepath.Join(root, ".ext")); err != nil {
		t.Fatal(err)
	}
	c.expect(`* LIST (\HasNoChildren) "." "ext"`)
	ts.drop(t, ".ext", "1.x.y")
	c.expect(`* STATUS "ext" (MESSAGES 1 UIDNEXT 2 UIDVALIDITY …)`)
	if err := os.Rename(filepath.Join(root, ".ext"), filepath.Join(root, ".ext2")); err != nil {
		t.Fatal(err)
	}
	c.expect(`* LIST (\HasNoChildren) "." "ext2" ("OLDNAME" ("ext"))`)
	ts.drop(t, ".ext2", "2.x.y")
	c.expect(`* STATUS "ext2" (MESSAGES 2 UIDNEXT 3 UIDVALIDITY …)`)
	if err := os.WriteFile(filepath.Join(root, "subscriptions"), []byte("V\t2\n\next2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.expect(`* LIST (\HasNoChildren \Subscribed) "." "ext2"`, `* LIST (\NonExistent) "." "mine2"`, `* LIST (\NonExistent) "." "nowhere"`)
	if err := os.RemoveAll(filepath.Join(root, ".ext2")); err != nil {
		t.Fatal(err)
	}
	c.expect(`* LIST (\NonExistent \Subscribed) "." "ext2"`)
}

// TestNotifySteps sees a folder that another program makes step by step, and one that
// takes the place of another.
func TestNotifySteps(t *testing.T) {
	ts, c, w := notifyPair(t)
	w.ok("CREATE box")
	c.ok("NOTIFY SET (personal (MailboxName MessageNew MessageExpunge))")
	root := filepath.Join(ts.dir, testUser)
	if err := os.Mkdir(filepath.Join(root, ".ext"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.appendMessage("box", "", simpleMessage)
	c.expect(`* STATUS "box" (MESSAGES 1 …)`) // no mailbox is there yet
	for _, sub := range []string{"new", "tmp", "cur"} {
		if err := os.Mkdir(filepath.Join(root, ".ext", sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	c.expect(`* LIST (\HasNoChildren) "." "ext"`)
	w.ok("RENAME box old")
	w.ok("CREATE box")
	c.expect(`* LIST …`, `* LIST …`)
	c.ok("NOOP")
	ts.drop(t, ".box", "1.x.y")
	c.expect(`* STATUS "box" (MESSAGES 1 …)`)
	ts.drop(t, ".old", "2.x.y")
	c.expect(`* STATUS "old" (MESSAGES 2 …)`)
	w.ok("DELETE old")
	c.expect(`* LIST (\NonExistent) "." "old"`)
}

// TestNotifyWithoutInotify looks from time to time.
func TestNotifyWithoutInotify(t *testing.T) {
	dir := t.TempDir()
	pool := maildir.NewPool(maildir.Options{Sync: func(string) error { return nil }, UID: -1, GID: -1})
	ts := startServer(t, func(c *Config) {
		c.Mailbox = func(_ context.Context, user string) (*maildir.Store, error) {
			return pool.Open(filepath.Join(dir, user))
		}
	})
	ts.dir = dir
	ts.notifyLook = 50 * time.Millisecond
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	c, w := ts.login(t), ts.login(t)
	w.ok("CREATE box")
	c.ok("SELECT INBOX")
	c.ok("NOTIFY SET (selected (MessageNew MessageExpunge)) (personal (MessageNew MessageExpunge MailboxName))")
	ts.drop(t, ".box", "1.x.y")
	c.expect(`* STATUS "box" (MESSAGES 1 …)`)
	ts.drop(t, "", "1.x.y")
	c.expect("* 1 EXISTS", "* 1 RECENT")
	if err := os.Rename(filepath.Join(dir, testUser, ".box"), filepath.Join(dir, testUser, ".box2")); err != nil {
		t.Fatal(err)
	}
	c.expect(`* LIST (\HasNoChildren) "." "box2" ("OLDNAME" ("box"))`)
}

// TestNotifySubscribed follows subscriptions (RFC 5465 §6.4).
func TestNotifySubscribed(t *testing.T) {
	_, c, w := notifyPair(t)
	w.ok("CREATE one")
	w.ok("CREATE two")
	w.ok("SUBSCRIBE one")
	c.ok("NOTIFY SET (subscribed (MessageNew MessageExpunge SubscriptionChange))")
	w.appendMessage("two", "", simpleMessage)
	w.appendMessage("one", "", simpleMessage)
	c.expect(`* STATUS "one" (MESSAGES 1 …)`)
	w.ok("SUBSCRIBE two")
	c.expect(`* LIST (\HasNoChildren \Subscribed) "." "two"`)
	w.ok("UNSUBSCRIBE one")
	c.expect(`* LIST (\HasNoChildren) "." "one"`)
	w.appendMessage("one", "", simpleMessage)
	w.appendMessage("two", "", simpleMessage)
	c.expect(`* STATUS "two" (MESSAGES 2 …)`)
}

// TestNotifyDuringCommands is not disturbed by news, and does not lose them.
func TestNotifyDuringCommands(t *testing.T) {
	ts, c, w := notifyPair(t)
	w.ok("CREATE box")
	c.ok("NOTIFY SET (mailboxes box (MessageNew MessageExpunge))")
	c.send("x NO")
	w.appendMessage("box", "", simpleMessage)
	c.expect(`* STATUS "box" (MESSAGES 1 …)`) // in the midst of a line
	c.send("OP\r\n")
	c.expect("x OK …")
	c.send(fmt.Sprintf("y APPEND INBOX {%d}\r\n", len(simpleMessage)))
	c.expect("+ …")
	c.send(simpleMessage[:10])
	ts.drop(t, ".box", "1.x.y") // not in the midst of a literal
	w.ok("STATUS box (MESSAGES)")
	c.send(simpleMessage[10:] + "\r\n")
	c.expect("y OK …", `* STATUS "box" (MESSAGES 2 …)`)
}

// TestNotifyBurst: whatever happens at once, the last that is told of a mailbox is true.
func TestNotifyBurst(t *testing.T) {
	ts, c, w := notifyPair(t)
	const boxes, each = 4, 50
	for i := range boxes {
		w.ok(fmt.Sprintf("CREATE box%d", i))
	}
	c.ok("NOTIFY SET (personal (MessageNew MessageExpunge))")
	var others sync.WaitGroup
	others.Go(func() {
		for n := range each {
			for i := range boxes {
				file := filepath.Join(ts.dir, testUser, fmt.Sprintf(".box%d", i), "new", fmt.Sprintf("%d.x.y", n))
				if err := os.WriteFile(file, []byte("Subject: x\n\nx\n"), 0o600); err != nil {
					t.Error(err)
				}
			}
		}
	})
	others.Go(func() {
		for n := range each * boxes {
			w.appendMessage(fmt.Sprintf("box%d", n%boxes), "", simpleMessage)
		}
	})
	known := map[string]int{}
	for done := 0; done < boxes; {
		var name string
		var n int
		if _, err := fmt.Sscanf(c.reply(), "* STATUS %q (MESSAGES %d", &name, &n); err != nil {
			t.Fatal(err)
		}
		if n == known[name] {
			t.Errorf("%s: told of %d messages twice", name, n)
		}
		if known[name] = n; n == 2*each {
			done++
		}
	}
	others.Wait()
}

// TestNotifyCompressed works over a compressed connection.
func TestNotifyCompressed(t *testing.T) {
	_, c, w := notifyPair(t)
	w.ok("CREATE box")
	c.ok("NOTIFY SET (mailboxes box (MessageNew MessageExpunge))")
	c.ok("COMPRESS DEFLATE")
	deflate, err := flate.NewWriter(c.conn, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	c.r, c.w = bufio.NewReader(flate.NewReader(c.r)), flushing{deflate}
	c.ok("NOOP")
	w.appendMessage("box", "", simpleMessage)
	c.expect(`* STATUS "box" (MESSAGES 1 …)`)
	c.answers("NOOP")
	w.appendMessage("box", "", simpleMessage)
	c.expect(`* STATUS "box" (MESSAGES 2 …)`)
}

// TestNotifyOverflow bounds the mailboxes of a session (RFC 5465 §3.1, §5.8).
func TestNotifyOverflow(t *testing.T) {
	ts, c, w := notifyPair(t)
	root := filepath.Join(ts.dir, testUser)
	for i := range maxWatched - 1 { // INBOX is one too
		dir := filepath.Join(root, fmt.Sprintf(".f%d", i))
		for _, sub := range []string{"", "cur", "new", "tmp"} {
			if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.ok("SELECT INBOX")
	c.ok("NOTIFY SET (selected (MessageNew MessageExpunge)) (personal (MessageNew MessageExpunge))")
	w.ok("CREATE more")
	c.expect("* OK [NOTIFICATIONOVERFLOW] …")
	w.appendMessage("more", "", simpleMessage)
	w.appendMessage("INBOX", "", simpleMessage)
	c.answers("NOOP") // as after NOTIFY NONE
	if got, tagged := c.cmd("NOTIFY SET (personal (MessageNew MessageExpunge))"); !matchLine("NO [NOTIFICATIONOVERFLOW] …", tagged) {
		t.Errorf("%q %s", got, tagged)
	}
	c.ok("NOTIFY SET (subtree more (MessageNew MessageExpunge))")
	w.appendMessage("more", "", simpleMessage)
	c.expect(`* STATUS "more" (MESSAGES 2 …)`)
}

// watches counts what this process has asked the system to watch.
func watches(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil || len(files) == 0 {
		t.Skip("needs /proc")
	}
	n := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil {
			n += strings.Count(string(b), "inotify wd:")
		}
	}
	return n
}

// TestNotifyLeavesNothing ends goroutines and watches with NOTIFY NONE, with
// UNAUTHENTICATE and with the connection.
func TestNotifyLeavesNothing(t *testing.T) {
	_, c, w := notifyPair(t)
	w.ok("CREATE box")
	c.ok("SELECT INBOX")
	routines, watched := runtime.NumGoroutine(), watches(t)
	back := func(what string, routines int) {
		t.Helper()
		until := time.Now().Add(10 * time.Second)
		for runtime.NumGoroutine() > routines || watches(t) > watched {
			if time.Now().After(until) {
				t.Fatalf("%s: %d goroutines, were %d; %d watches, were %d", what, runtime.NumGoroutine(), routines, watches(t), watched)
			}
			runtime.Gosched()
		}
	}
	const all = "NOTIFY SET (selected (MessageNew MessageExpunge FlagChange)) (personal (MessageNew MessageExpunge FlagChange MailboxName))"
	for range 3 {
		c.ok(all)
	}
	if got := watches(t); got != watched+5 { // cur and new of two folders, and the root
		t.Errorf("%d watches more", got-watched)
	}
	if got := runtime.NumGoroutine(); got > routines+1 {
		back("NOTIFY three times", routines+1)
	}
	c.ok("NOTIFY NONE")
	back("NOTIFY NONE", routines)
	c.ok(all)
	c.ok("UNSELECT")
	w.appendMessage("INBOX", "", simpleMessage)
	c.expect(`* STATUS "INBOX" (MESSAGES 1 …)`)
	c.ok("UNAUTHENTICATE")
	back("UNAUTHENTICATE", routines)
	c.ok(fmt.Sprintf("LOGIN %s %q", testUser, testPassword))
	c.ok("SELECT INBOX")
	w.appendMessage("INBOX", "", simpleMessage)
	c.answers("NOOP", "* 2 EXISTS", "* … RECENT") // as before the first NOTIFY
	c.ok(all)
	c.conn.Close()
	back("close", routines-1)
}

// TestNotifyShutdown says BYE to a session that waits.
func TestNotifyShutdown(t *testing.T) {
	ts, c, _ := notifyPair(t)
	c.ok("NOTIFY SET (personal (MessageNew MessageExpunge))")
	ended := make(chan error, 1)
	go func() { ended <- ts.Shutdown(t.Context()) }()
	c.expect("* BYE …")
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
