package imapd

import (
	"fmt"
	"strings"
	"testing"
)

const simpleMessage = "From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: Hello\r\nDate: Mon, 2 Nov 2026 10:00:00 +0100\r\nMessage-ID: <1@example.org>\r\n\r\nHi Bob\r\n"

// TestDialogue plays what a client says and compares each reply. A step "A"
// appends simpleMessage; "…" stands for anything.
func TestDialogue(t *testing.T) {
	rows := []struct {
		name  string
		steps string
	}{
		{"capability", `
C: a CAPABILITY
S: * CAPABILITY IMAP4rev1 IMAP4rev2 SASL-IR LITERAL+ ID ENABLE IDLE…APPENDLIMIT=52428800
S: a OK CAPABILITY completed`},
		{"noop", "C: a noop\nS: a OK NOOP completed"},
		{"unknown command", "C: a FROB x\nS: a BAD Unknown command\nC: b NOOP\nS: b OK NOOP completed"},
		{"bad tags", "C: (((\nS: * BAD Expected a tag…\nC: A88345\nS: * BAD Expected a tag…\nC: + NOOP\nS: * BAD Expected a tag…\nC: b NOOP\nS: b OK …"},
		{"no command", "C: a (\nS: a BAD Expected a command after the tag"},
		{"wrong state", "C: a FETCH 1 FLAGS\nS: a BAD No mailbox is selected\nC: a LOGIN a b\nS: a BAD Not possible in this state"},
		{"text behind", "C: a NOOP x\nS: a BAD Unexpected text…"},
		{"id", "C: a ID NIL\nS: * ID (\"name\" \"wafer\")\nS: a OK ID completed\nC: b ID (\"name\" \"x\" \"version\" NIL)\nS: * ID …\nS: b OK ID completed"},
		{"namespace", "C: a NAMESPACE\nS: * NAMESPACE ((\"\" \".\")) NIL NIL\nS: a OK NAMESPACE completed"},
		{"enable", "C: a ENABLE CONDSTORE X-FOO IMAP4rev2\nS: * ENABLED CONDSTORE IMAP4rev2\nS: a OK ENABLE completed"},
		{"select an empty inbox", `
C: a SELECT inbox
S: * FLAGS (\Answered \Flagged \Deleted \Seen \Draft)
S: * OK [PERMANENTFLAGS (\Answered \Flagged \Deleted \Seen \Draft \*)] Flags that are kept
S: * 0 EXISTS
S: * 0 RECENT
S: * OK [UIDVALIDITY …] UIDs are valid
S: * OK [UIDNEXT 1] Next UID
S: * OK [HIGHESTMODSEQ …] Highest
S: * OK [MAILBOXID …] Identity
S: a OK [READ-WRITE] SELECT completed
C: b FETCH 1:* FLAGS
S: b OK FETCH completed
C: c FETCH 1 FLAGS
S: c BAD Message number is out of range: the mailbox is empty
C: d UID FETCH 1:* FLAGS
S: d OK UID FETCH completed
C: e SEARCH ALL
S: * SEARCH
S: e OK SEARCH completed
C: f CLOSE
S: f OK CLOSE completed
C: g CLOSE
S: g BAD No mailbox is selected`},
		{"select nothing", "C: a SELECT nosuch\nS: a NO [NONEXISTENT] No such mailbox\nC: b CHECK\nS: b BAD No mailbox is selected"},
		{"a failed select leaves the old mailbox", "C: a SELECT INBOX\nS: …\nS: …\nS: …\nS: …\nS: …\nS: …\nS: …\nS: a OK …\nC: b SELECT nosuch\nS: b NO …\nC: c CHECK\nS: c BAD No mailbox is selected"},
		{"fetch", `
A
C: a SELECT INBOX
S: * FLAGS …
S: * OK [PERMANENTFLAGS …
S: * 1 EXISTS
S: * 1 RECENT
S: * OK [UNSEEN 1] First unseen
S: * OK [UIDVALIDITY …
S: * OK [UIDNEXT 2] Next UID
S: * OK [HIGHESTMODSEQ …
S: a OK [READ-WRITE] SELECT completed
C: b FETCH 1 (UID RFC822.SIZE FLAGS)
S: * 1 FETCH (UID 1 RFC822.SIZE 143 FLAGS (\Recent))
S: b OK FETCH completed
C: c FETCH 1 ENVELOPE
S: * 1 FETCH (ENVELOPE ("Mon, 2 Nov 2026 10:00:00 +0100" "Hello" (("Ann" NIL "ann" "example.org")) (("Ann" NIL "ann" "example.org")) (("Ann" NIL "ann" "example.org")) ((NIL NIL "bob" "example.org")) NIL NIL NIL "<1@example.org>"))
S: c OK FETCH completed
C: d FETCH 1 (BODY BODYSTRUCTURE)
S: * 1 FETCH (BODY ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 8 1) BODYSTRUCTURE ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 8 1 NIL NIL NIL NIL))
S: d OK FETCH completed
C: e FETCH 1 (BODY.PEEK[HEADER.FIELDS (Subject x-none)] BODY.PEEK[TEXT]<1.4>)
S: * 1 FETCH (BODY[HEADER.FIELDS (Subject x-none)] {18}|Subject: Hello||} BODY[TEXT]<1> {4}|i Bo)
S: e OK FETCH completed
C: f FETCH 1 (BODY[1] BODY[2] BODY[1.1])
S: * 1 FETCH (BODY[1] {8}|Hi Bob|} BODY[2] NIL BODY[1.1] NIL FLAGS (\Seen \Recent))
S: f OK FETCH completed
C: g FETCH 1 RFC822.HEADER
S: * 1 FETCH (RFC822.HEADER {135}|…
S: g OK FETCH completed
C: h FETCH 2 FLAGS
S: h BAD Message number is out of range: there are 1 messages
C: i UID FETCH 4294967295 FLAGS
S: i OK UID FETCH completed
C: j UID FETCH 4294967295:* FLAGS
S: * 1 FETCH (UID 1 FLAGS (\Seen \Recent))
S: j OK UID FETCH completed
C: k FETCH 1 BODY[]<999.5>
S: * 1 FETCH (BODY[]<999> {0}|)
S: k OK FETCH completed
C: l FETCH 1 (BINARY.SIZE[1] BINARY.PEEK[1]<0.2>)
S: * 1 FETCH (BINARY.SIZE[1] 8 BINARY[1]<0> {2}|Hi)
S: l OK FETCH completed
C: m FETCH 4294967296 FLAGS
S: m BAD Number is too big
C: n FETCH 0 FLAGS
S: n BAD Message numbers begin at 1
C: o FETCH 1 (FLAGS) (CHANGEDSINCE 9000000000000000000)
S: * OK [HIGHESTMODSEQ …
S: o OK FETCH completed`},
		{"examine is read-only", `
A
C: a EXAMINE INBOX
S: * FLAGS …
S: * OK [PERMANENTFLAGS ()] Nothing can be changed
S: * 1 EXISTS
S: * 1 RECENT
S: * OK [UNSEEN 1] First unseen
S: …
S: …
S: …
S: a OK [READ-ONLY] EXAMINE completed
C: b STORE 1 +FLAGS (\Deleted)
S: b NO [READ-ONLY] Mailbox is open for reading only
C: c EXPUNGE
S: c NO [READ-ONLY] …
C: d MOVE 1 INBOX
S: d NO [READ-ONLY] …
C: e FETCH 1 BODY[TEXT]
S: * 1 FETCH (BODY[TEXT] {8}|Hi Bob|})
S: e OK FETCH completed
C: f CLOSE
S: f OK CLOSE completed
C: g STATUS INBOX (MESSAGES UNSEEN)
S: * STATUS "INBOX" (MESSAGES 1 UNSEEN 1)
S: g OK STATUS completed`},
		{"store", `
A
A
C: a SELECT INBOX
S: …
S: …
S: * 2 EXISTS
S: …
S: …
S: …
S: …
S: …
S: a OK …
C: b STORE 1 FLAGS (\Seen $Work)
S: * FLAGS (\Answered \Flagged \Deleted \Seen \Draft $Work)
S: * OK [PERMANENTFLAGS …
S: * 1 FETCH (FLAGS (\Seen $Work \Recent))
S: b OK STORE completed
C: c STORE 1:2 +FLAGS.SILENT \Flagged
S: c OK STORE completed
C: d UID STORE 2 -FLAGS (\Flagged)
S: * 2 FETCH (UID 2 FLAGS (\Recent))
S: d OK UID STORE completed
C: e STORE 1 +FLAGS (\Bogus)
S: e BAD Unknown system flag \Bogus
C: f STORE 1 FLAGZ (\Seen)
S: f BAD Expected FLAGS…
C: g STORE 1:2 (UNCHANGEDSINCE 0) +FLAGS.SILENT (\Deleted)
S: * OK [HIGHESTMODSEQ …
S: g OK [MODIFIED 1:2] Some messages had been changed
C: h STORE 2 +FLAGS.SILENT (\Deleted)
S: * 2 FETCH (UID 2 MODSEQ (…))
S: h OK STORE completed
C: i EXPUNGE
S: * 2 EXPUNGE
S: i OK [HIGHESTMODSEQ …] EXPUNGE completed`},
		{"copy and move", `
A
A
A
C: a CREATE Work
S: a OK [MAILBOXID …] CREATE completed
C: b SELECT INBOX
S: …
S: …
S: * 3 EXISTS
S: …
S: …
S: …
S: …
S: …
S: b OK …
C: c COPY 1,3 Work
S: c OK [COPYUID … 1,3 1:2] COPY completed
C: d COPY 1 Nowhere
S: d NO [TRYCREATE] No such mailbox
C: e MOVE 2 Work
S: * OK [COPYUID … 2 3] Moved
S: * 2 EXPUNGE
S: e OK MOVE completed
C: f UID COPY 999 Work
S: f OK UID COPY completed
C: g STATUS Work (MESSAGES UIDNEXT SIZE DELETED)
S: * STATUS "Work" (MESSAGES 3 UIDNEXT 4 SIZE 429 DELETED 0)
S: g OK STATUS completed
C: h UID STORE 1,3 +FLAGS.SILENT \Deleted
S: h OK …
C: i UID EXPUNGE 3:*
S: * 2 EXPUNGE
S: i OK UID EXPUNGE completed
C: j CLOSE
S: j OK CLOSE completed
C: k STATUS INBOX (MESSAGES)
S: * STATUS "INBOX" (MESSAGES 0)
S: k OK STATUS completed`},
		{"mailboxes", `
C: a CREATE INBOX
S: a NO [ALREADYEXISTS] INBOX is always there
C: b CREATE A.B
S: b OK [MAILBOXID …] CREATE completed
C: c CREATE A.B
S: c NO [ALREADYEXISTS] Mailbox exists already
C: d LIST "" %
S: * LIST (\HasNoChildren) "." "INBOX"
S: * LIST (\Noselect \HasChildren) "." "A"
S: d OK LIST completed
C: e LIST "" "*"
S: * LIST (\HasNoChildren) "." "INBOX"
S: * LIST (\Noselect \HasChildren) "." "A"
S: * LIST (\HasNoChildren) "." "A.B"
S: e OK LIST completed
C: f LIST "A" %
S: * LIST (\HasNoChildren) "." "A.B"
S: f OK LIST completed
C: g LIST "" ""
S: * LIST (\Noselect) "." ""
S: g OK LIST completed
C: h SUBSCRIBE A.B
S: h OK SUBSCRIBE completed
C: i LSUB "" %
S: * LSUB (\Noselect) "." "A"
S: i OK LSUB completed
C: j LIST (SUBSCRIBED) "" * RETURN (CHILDREN STATUS (MESSAGES))
S: * LIST (\Subscribed \HasNoChildren) "." "A.B"
S: * STATUS "A.B" (MESSAGES 0)
S: j OK LIST completed
C: k LIST (SUBSCRIBED RECURSIVEMATCH) "" %
S: * LIST (\NonExistent) "." "A" ("CHILDINFO" ("SUBSCRIBED"))
S: k OK LIST completed
C: l RENAME A.B C
S: l OK RENAME completed
C: m SELECT A.B
S: m NO [NONEXISTENT] No such mailbox
C: n DELETE C
S: n OK DELETE completed
C: o DELETE INBOX
S: o NO [CANNOT] INBOX cannot be deleted
C: p CREATE "a/b"
S: p NO [CANNOT] …
C: q UNSUBSCRIBE A.B
S: q OK UNSUBSCRIBE completed
C: r LIST () "" (INBOX nosuch) RETURN (SUBSCRIBED)
S: * LIST () "." "INBOX"
S: r OK LIST completed
C: s LIST (FOO) "" *
S: s BAD Unknown selection option FOO`},
		{"names in UTF-7 and UTF-8", `
C: a CREATE "Entw&APw-rfe"
S: a OK [MAILBOXID …] CREATE completed
C: b LIST "" E*
S: * LIST (\HasNoChildren) "." "Entw&APw-rfe"
S: b OK LIST completed
C: c ENABLE IMAP4rev2
S: * ENABLED IMAP4rev2
S: c OK ENABLE completed
C: d LIST "" E*
S: * LIST (\HasNoChildren) "." "Entwürfe"
S: d OK LIST completed
C: e STATUS "Entwürfe" (MESSAGES)
S: * STATUS "Entwürfe" (MESSAGES 0)
S: e OK STATUS completed
C: f CREATE "a&b"
S: f OK [MAILBOXID …] CREATE completed`},
		{"bad UTF-7", "C: a CREATE \"a&b\"\nS: a NO [CANNOT] Mailbox name is not valid modified UTF-7\nC: b CREATE \"&AGE-\"\nS: b NO …"},
		{"special use", `
C: a CREATE Sent
S: a OK [MAILBOXID …] CREATE completed
C: b LIST "" Sent
S: * LIST (\HasNoChildren \Sent) "." "Sent"
S: b OK LIST completed
C: c LIST (SPECIAL-USE) "" *
S: * LIST (\Sent) "." "Sent"
S: c OK LIST completed`},
		{"search", `
A
A
C: a SELECT INBOX
S: …
S: …
S: …
S: …
S: …
S: …
S: …
S: …
S: a OK …
C: b STORE 2 +FLAGS.SILENT (\Seen)
S: b OK …
C: c SEARCH UNSEEN
S: * SEARCH 1
S: c OK SEARCH completed
C: d UID SEARCH RETURN (MIN MAX COUNT ALL) ALL
S: * ESEARCH (TAG "d") UID MIN 1 MAX 2 ALL 1:2 COUNT 2
S: d OK UID SEARCH completed
C: e SEARCH OR (SUBJECT hell SEEN) NOT FROM ann
S: * SEARCH 2
S: e OK SEARCH completed
C: f SEARCH TEXT "HI bOB" BODY hi HEADER message-id "" SENTON 2-Nov-2026
S: * SEARCH 1 2
S: f OK SEARCH completed
C: g SEARCH RETURN (SAVE) SEEN
S: g OK SEARCH completed
C: h FETCH $ UID
S: * 2 FETCH (UID 2)
S: h OK FETCH completed
C: i SEARCH CHARSET x-none ALL
S: i NO [BADCHARSET (US-ASCII UTF-8)] Character set is unknown
C: j SEARCH FROB
S: j BAD …
C: k SEARCH RETURN (COUNT) LARGER 100000
S: * ESEARCH (TAG "k") COUNT 0
S: k OK SEARCH completed
C: l ENABLE IMAP4rev2
S: * ENABLED IMAP4rev2
S: l OK ENABLE completed
C: m SEARCH 1,2 NOT 1
S: * ESEARCH (TAG "m") ALL 2
S: m OK SEARCH completed
C: n SEARCH SINCE 1-Jan-2020 YOUNGER 1000
S: * ESEARCH (TAG "n") ALL 1:2
S: n OK SEARCH completed
C: o SEARCH KEYWORD $None
S: * ESEARCH (TAG "o")
S: o OK SEARCH completed
C: p SEARCH ((((1))))
S: * ESEARCH (TAG "p") ALL 1
S: p OK SEARCH completed`},
		{"logout", "C: a LOGOUT\nS: * BYE Good bye\nS: a OK LOGOUT completed\nEND"},
		{"idle", "C: a IDLE\nS: + idling\nC: DONE\nS: a OK IDLE completed\nC: b IDLE\nS: + idling\nC: NOOP\nS: b BAD Expected DONE"},
		{"unselect keeps deleted", `
A
C: a SELECT INBOX
S: …
S: …
S: …
S: …
S: …
S: …
S: …
S: …
S: a OK …
C: b STORE 1 +FLAGS.SILENT \Deleted
S: b OK …
C: c UNSELECT
S: c OK UNSELECT completed
C: d STATUS INBOX (MESSAGES DELETED HIGHESTMODSEQ APPENDLIMIT UIDVALIDITY)
S: * STATUS "INBOX" (MESSAGES 1 DELETED 1 HIGHESTMODSEQ … APPENDLIMIT 52428800 UIDVALIDITY …)
S: d OK STATUS completed`},
		{"append", `
C: a APPEND nosuch {5}
S: a NO [TRYCREATE] No such mailbox
C: b APPEND INBOX {99999999}
S: b NO [TOOBIG] Message is larger than 52428800 octets
C: c APPEND INBOX (\Seen) "17-Jul-1996 02:44:25 -0700" {5+}
C: x: y
S: c OK [APPENDUID … 1] APPEND completed
C: d EXAMINE INBOX
S: …
S: …
S: * 1 EXISTS
S: …
S: …
S: …
S: …
S: d OK …
C: e FETCH 1 (INTERNALDATE FLAGS)
S: * 1 FETCH (INTERNALDATE "…-Jul-1996 …" FLAGS (\Seen))
S: e OK …
C: f APPEND INBOX "bogus" {5}
S: f BAD Date and time are malformed
C: g APPEND INBOX
S: g BAD Missing argument`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) { playDialogue(t, row.steps) })
	}
}

// playDialogue plays steps, as TestDialogue has them, with a server of their own.
func playDialogue(t *testing.T, steps string) {
	t.Helper()
	t.Parallel()
	c := startServer(t, nil).login(t)
	for _, step := range strings.Split(strings.TrimSpace(steps), "\n") {
		switch {
		case step == "A":
			if got := c.appendMessage("INBOX", "", simpleMessage); !strings.HasPrefix(got, "OK") {
				t.Fatal(got)
			}
		case step == "END":
			if got := c.next(); got != "" {
				t.Fatalf("got %q after the end", got)
			}
		case strings.HasPrefix(step, "C: "):
			c.send(step[3:] + "\r\n")
		default:
			// In the table "|" is CRLF, and "}" before it is too.
			want := strings.NewReplacer("|}", "\r\n", "|", "\r\n").Replace(step[3:])
			got := c.reply()
			if strings.HasPrefix(got, "* OK [MAILBOXID") && !strings.Contains(want, "MAILBOXID") {
				got = c.reply() // the last line of every SELECT; where it matters the table has it
			}
			if !matchLine(want, got) {
				t.Fatalf("got  %q\nwant %q", got, want)
			}
		}
	}
}

// TestExpungeWaits: no EXPUNGE comes with FETCH, STORE and SEARCH, and numbers
// stay what they are until it comes (RFC 9051 §7.5.1).
func TestExpungeWaits(t *testing.T) {
	ts := startServer(t, nil)
	a, b := ts.login(t), ts.login(t)
	for range 4 {
		a.appendMessage("INBOX", "", simpleMessage)
	}
	a.ok("SELECT INBOX")
	b.ok("SELECT INBOX")
	a.ok("STORE 2 +FLAGS.SILENT \\Deleted")
	a.ok("EXPUNGE")
	for _, line := range []string{"FETCH 1:4 UID", "SEARCH ALL", "STORE 4 +FLAGS (\\Flagged)", "FETCH 3 FLAGS"} {
		got := strings.Join(b.ok(line), "\n")
		if strings.Contains(got, "EXPUNGE") {
			t.Errorf("%s: %s", line, got)
		}
		if line == "FETCH 1:4 UID" && !strings.Contains(got, "* 4 FETCH (UID 4)") {
			t.Errorf("%s: %s", line, got)
		}
	}
	if _, tagged := b.cmd("FETCH 1:4 BODY.PEEK[]"); !strings.HasPrefix(tagged, "NO [EXPUNGEISSUED]") {
		t.Errorf("fetch of an expunged message: %s", tagged)
	}
	if got := fmt.Sprint(b.ok("NOOP")); got != "[* 2 EXPUNGE]" {
		t.Errorf("NOOP: %s", got)
	}
	if got := strings.Join(b.ok("FETCH 3 (UID FLAGS)"), ""); !strings.Contains(got, `UID 4 FLAGS (\Flagged`) {
		t.Errorf("after EXPUNGE: %s", got)
	}
}
