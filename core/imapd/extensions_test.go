package imapd

import (
	"strings"
	"testing"
)

// TestExtensions plays dialogues about extensions, as TestDialogue does.
func TestExtensions(t *testing.T) {
	const opened = "S: * FLAGS …\nS: * OK [PERMANENTFLAGS …\nS: * …EXISTS\nS: * …RECENT\nS: * OK [UNSEEN …\nS: * OK [UIDVALIDITY …\nS: * OK [UIDNEXT …\nS: * OK [HIGHESTMODSEQ …\nS: * OK [MAILBOXID (F…)] Identity\n"
	rows := []struct{ name, steps string }{
		{"qresync has to be enabled", "C: a SELECT INBOX (QRESYNC (1 1))\nS: a BAD Use ENABLE QRESYNC first\nC: b UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)\nS: b BAD No mailbox is selected"},
		{"qresync's arguments", `
C: a ENABLE QRESYNC
S: * ENABLED QRESYNC
S: a OK …
C: b SELECT INBOX (QRESYNC (0 1))
S: b BAD UIDVALIDITY begins at 1
C: c SELECT INBOX (QRESYNC (1 1 *))
S: c BAD Known UIDs are named by number
C: d SELECT INBOX (QRESYNC (1 1 1 (1 *)))
S: d BAD Known messages are named by number
C: e SELECT INBOX (QRESYNC 1)
S: e BAD Expected…`},
		{"vanished in place of expunge", "A\nA\nA\nC: a ENABLE QRESYNC\nS: * ENABLED QRESYNC\nS: a OK …\nC: b SELECT INBOX\n" + opened + `S: b OK …
C: c STORE 1,3 +FLAGS.SILENT (\Deleted)
S: * 1 FETCH (UID 1 MODSEQ (…))
S: * 3 FETCH (UID 3 MODSEQ (…))
S: c OK …
C: d EXPUNGE
S: * VANISHED 1,3
S: d OK [HIGHESTMODSEQ …
C: e UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)
S: * VANISHED (EARLIER) 1,3
S: * 1 FETCH (UID 2 FLAGS (\Recent) MODSEQ (…))
S: e OK …
C: f UID FETCH 2:3 (FLAGS) (CHANGEDSINCE 1 VANISHED)
S: * VANISHED (EARLIER) 3
S: * 1 FETCH (UID 2 …
S: f OK …
C: g FETCH 1 (FLAGS) (CHANGEDSINCE 1 VANISHED)
S: g BAD VANISHED is for UID FETCH after ENABLE QRESYNC
C: h UID FETCH 1 (FLAGS) (VANISHED)
S: h BAD VANISHED needs CHANGEDSINCE`},
		{"partial results", "A\nA\nA\nA\nC: a SELECT INBOX\n" + opened + `S: a OK …
C: b UID SEARCH RETURN (PARTIAL 2:3) ALL
S: * ESEARCH (TAG "b") UID PARTIAL (2:3 2:3)
S: b OK …
C: c UID SEARCH RETURN (PARTIAL -1:-2 COUNT) ALL
S: * ESEARCH (TAG "c") UID PARTIAL (-1:-2 3:4) COUNT 4
S: c OK …
C: d UID SEARCH RETURN (PARTIAL 9:12) ALL
S: * ESEARCH (TAG "d") UID PARTIAL (9:12 NIL)
S: d OK …
C: e UID SEARCH RETURN (PARTIAL 1:2 ALL) ALL
S: e BAD ALL and PARTIAL exclude each other
C: f UID SEARCH RETURN (PARTIAL 0:2) ALL
S: f BAD PARTIAL counts from 1
C: g UID SEARCH RETURN (PARTIAL -1:2) ALL
S: g BAD PARTIAL counts from one end
C: h UID FETCH 1:* (FLAGS) (PARTIAL 2:3)
S: * 2 FETCH (UID 2 …
S: * 3 FETCH (UID 3 …
S: h OK …
C: i UID FETCH 2:* (FLAGS) (PARTIAL -1:-1)
S: * 4 FETCH (UID 4 …
S: i OK …
C: j FETCH 1:* (FLAGS) (PARTIAL 1:2)
S: j BAD PARTIAL is for UID FETCH`},
		{"several messages in one command", `
C: a APPEND INBOX (\Seen) {12+}
C: Subject: a
C:  {12+}
C: Subject: b
C: 
S: a OK [APPENDUID … 1:2] APPEND completed
C: b STATUS INBOX (MESSAGES)
S: * STATUS "INBOX" (MESSAGES 2)
S: b OK …`},
		{"none of several messages when one is refused", `
C: a APPEND INBOX {12+}
C: Subject: a
C:  {0+}
C: 
S: a NO [CANNOT] Message is empty
C: b STATUS INBOX (MESSAGES UIDNEXT)
S: * STATUS "INBOX" (MESSAGES 0 UIDNEXT 2)
S: b OK …`},
		{"replace", "A\nA\nC: a SELECT INBOX\n" + opened + `S: a OK …
C: b REPLACE 1 INBOX (\Seen) {12+}
C: Subject: a
C: 
S: * OK [APPENDUID … 3] Replacement is stored
S: * 1 EXPUNGE
S: * 2 EXISTS
S: * 2 RECENT
S: b OK …
C: c UID REPLACE 9 INBOX {12+}
C: Subject: a
C: 
S: c NO [EXPUNGEISSUED] There is no such message`},
		{"utf8", `
C: a ENABLE UTF8=ACCEPT
S: * ENABLED UTF8=ACCEPT
S: a OK …
C: b CREATE "Entwürfe"
S: b OK [MAILBOXID (F…)] CREATE completed
C: c LIST "" "Ent*"
S: * LIST (\HasNoChildren) "." "Entwürfe"
S: c OK …
C: d APPEND "Entwürfe" UTF8 (~{11+}
C: Subject: ü)
S: d OK [APPENDUID …`},
		{"utf8 has to be enabled", "C: a APPEND INBOX UTF8 (~{10+}\nS: a BAD Use ENABLE UTF8=ACCEPT first"},
		{"identities", "A\nC: a SELECT INBOX\n" + opened + `S: a OK …
C: b FETCH 1 (EMAILID THREADID)
S: * 1 FETCH (EMAILID (M…) THREADID NIL)
S: b OK …
C: c FETCH 1 (SAVEDATE)
S: * 1 FETCH (SAVEDATE "…")
S: c OK …
C: d STATUS INBOX (MAILBOXID)
S: * STATUS "INBOX" (MAILBOXID (F…))
S: d OK …
C: e FETCH 1 PREVIEW
S: * 1 FETCH (PREVIEW "Hi Bob")
S: e OK …
C: f FETCH 1 (PREVIEW (LAZY) UID)
S: * 1 FETCH (PREVIEW "Hi Bob" UID 1)
S: f OK …`},
		{"annotations", `
C: a SETMETADATA INBOX (/private/comment "a note" /shared/X NIL)
S: a OK …
C: b GETMETADATA INBOX /private/comment
S: * METADATA "INBOX" (/private/comment "a note")
S: b OK …
C: c GETMETADATA (DEPTH infinity) INBOX (/private /shared)
S: c BAD Annotations begin with /private/ or /shared/
C: d GETMETADATA "" /shared/admin
S: * METADATA "" (/shared/admin NIL)
S: d OK …
C: e GETMETADATA (MAXSIZE 3) INBOX /private/comment
S: e OK [METADATA LONGENTRIES 6] GETMETADATA completed
C: f SETMETADATA nosuch (/private/comment "x")
S: f NO [NONEXISTENT] …
C: g SETMETADATA INBOX (/private/comment NIL)
S: g OK …
C: h GETMETADATA INBOX (/private/comment)
S: * METADATA "INBOX" (/private/comment NIL)
S: h OK …
C: i SETMETADATA INBOX (/private/a/b "1" /private/a "2" /private/ab "3")
S: i OK …
C: j GETMETADATA (DEPTH 1) INBOX /private/a
S: * METADATA "INBOX" (/private/a "2" /private/a/b "1")
S: j OK …
C: k LIST "" INBOX RETURN (METADATA (/private/ab))
S: * LIST () "." "INBOX"
S: * METADATA "INBOX" (/private/ab "3")
S: k OK …
C: l SETMETADATA INBOX ("/private/bad*" "1")
S: l BAD Malformed name…`},
		{"special use", `
C: a CREATE Gesendet (USE (\Sent))
S: a OK …
C: b LIST (SPECIAL-USE) "" *
S: * LIST (\Sent) "." "Gesendet"
S: b OK …
C: c CREATE x (USE (\Frobnicated))
S: c NO [USEATTR] …
C: d GETMETADATA Gesendet /private/specialuse
S: * METADATA "Gesendet" (/private/specialuse "\\Sent")
S: d OK …`},
		{"a special mailbox is made on its first use", `
C: a APPEND Sent {12+}
C: Subject: a
C: 
S: a OK [APPENDUID …
C: b LSUB "" *
S: * LSUB () "." "Sent"
S: b OK …
C: c APPEND Sentimental {11}
S: c NO [TRYCREATE] …`},
		{"unauthenticate", "A\nC: a SELECT INBOX\n" + opened + `S: a OK …
C: b UNAUTHENTICATE
S: b OK [CAPABILITY IMAP4rev1…
C: c FETCH 1 FLAGS
S: c BAD Log in first
C: d LOGIN ann@example.org "secret word"
S: d OK …
C: e CHECK
S: e BAD No mailbox is selected`},
		{"compression has one name", "C: a COMPRESS GZIP\nS: a NO [CANNOT] DEFLATE is the only compression"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) { playDialogue(t, r.steps) })
	}
}

// TestWithout: an extension that is left out is neither told nor there.
func TestWithout(t *testing.T) {
	ts := startServer(t, func(c *Config) { c.Without = []string{"COMPRESS=DEFLATE", "QRESYNC", "SORT"} })
	c := ts.login(t)
	told := " " + strings.Join(c.ok("CAPABILITY"), "") + " "
	for _, word := range []string{" COMPRESS=DEFLATE ", " QRESYNC ", " SORT "} {
		if strings.Contains(told, word) {
			t.Errorf("CAPABILITY has %s: %s", word, told)
		}
	}
	c.ok("SELECT INBOX")
	for _, command := range []string{"COMPRESS DEFLATE", "SORT (DATE) UTF-8 ALL", "UID SORT (DATE) UTF-8 ALL"} {
		if _, got := c.cmd(command); !strings.HasPrefix(got, "BAD Unknown command") {
			t.Errorf("%s: %s", command, got)
		}
	}
	if got := strings.Join(c.ok("ENABLE QRESYNC CONDSTORE"), ""); !strings.HasSuffix(got, "* ENABLED CONDSTORE") {
		t.Error(got)
	}
	if _, err := New(Config{Hostname: "x", Auth: ts.c.Auth, Mailbox: ts.c.Mailbox, Without: []string{"FROB"}}); err == nil || !strings.Contains(err.Error(), "COMPRESS=DEFLATE") {
		t.Errorf("an unknown extension: %v", err)
	}
}
