package takeover

import (
	"strings"
	"testing"
)

// TestTakeover lets each program look at its own copy of a tree that neither has seen
// in this state, so that both have to give UIDs to what was delivered and damaged.
func TestTakeover(t *testing.T) {
	h := newHouse(t)
	oldTree(t, h, "ann", messageCount(t))
	h.clone("ann", "his")
	h.clone("ann", "mine")
	d, w := h.dovecot("his"), h.wafer("mine")
	defer d.close()
	defer w.close()
	for _, command := range []string{
		`LIST "" *`, `LIST "" %`, `LIST "" INBOX*`, `LIST "" "Work.%"`, `LIST "Work." %`, `LIST "" "&ZeVnLIqe-*"`, `LIST "" "*e*"`, `LIST (SUBSCRIBED) "" *`, `LIST (SUBSCRIBED RECURSIVEMATCH) "" %`,
		`LIST "" * RETURN (CHILDREN SUBSCRIBED)`, `LSUB "" *`, `LSUB "" %`, `LSUB "" INBOX*`, `LSUB "" "Work.%"`, `LIST "" ""`, `LIST "" ("INBOX" "Work*")`,
	} {
		sameLines(t, command, w.listed(command), d.listed(command))
	}
	names := d.names()
	sameLines(t, "folders", w.names(), names)
	for _, name := range names {
		same(t, name, w.look(name, allItems), d.look(name, allItems), compared(name))
	}
	sameCorpus(t, w, d)
	finds(t, w, d)
	samePOP3(t, h.waferPOP3("mine"), h.dovecotPOP3("his"))
}

// compared are the items that must be equal in a folder; those of the test data are
// looked at by sameCorpus.
func compared(folder string) string {
	if folder == "Corpus" {
		return "FLAGS INTERNALDATE RFC822.SIZE"
	}
	return allItems
}

// finds compares searching and sorting in the folder that is selected, and the INBOX.
func finds(t *testing.T, w, d *conn) {
	t.Helper()
	for _, folder := range []string{"INBOX", "Work"} {
		w.ok("EXAMINE " + folder)
		d.ok("EXAMINE " + folder)
		for _, c := range []string{
			"SEARCH ALL", "SEARCH SEEN", "SEARCH UNSEEN FLAGGED", "SEARCH KEYWORD $Junk", "SEARCH KEYWORD kw4", "SEARCH UNKEYWORD $Forwarded ANSWERED", "SEARCH LARGER 400", "SEARCH SMALLER 300",
			"SEARCH SINCE 5-Jan-2020 BEFORE 1-Jan-2021", "SEARCH ON 7-Jan-2021", "SEARCH SUBJECT re", "SEARCH TEXT café", "UID SEARCH RETURN (MIN MAX COUNT) NOT DELETED", "UID SEARCH HEADER Message-ID m1",
			"SORT (ARRIVAL) UTF-8 ALL", "SORT (SIZE REVERSE ARRIVAL) UTF-8 ALL", "SORT (REVERSE DATE) UTF-8 ALL", "SORT (SUBJECT FROM) UTF-8 ALL", "UID SORT (DISPLAYTO CC) UTF-8 UNSEEN",
			"THREAD REFERENCES UTF-8 UNSEEN", "THREAD ORDEREDSUBJECT UTF-8 ALL",
		} {
			equalResults(t, w, d, strings.Replace(c, "TEXT café", "CHARSET UTF-8 TEXT {5+}\r\ncafé", 1))
		}
	}
}

// samePOP3 compares numbers, sizes and unique ids, and ends both sessions.
func samePOP3(t *testing.T, w, d *conn) {
	t.Helper()
	for _, command := range []string{"UIDL", "LIST"} {
		sameLines(t, "POP3 "+command, w.pop3List(command), d.pop3List(command))
	}
	w.close()
	d.close()
}
