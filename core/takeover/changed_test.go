package takeover

import (
	"fmt"
	"testing"
)

// TestChangedByWafer changes an old tree through wafer; Dovecot, which knows the tree
// from before, sees the same as wafer does.
func TestChangedByWafer(t *testing.T) {
	h := newHouse(t)
	oldTree(t, h, "ann", 400)
	h.configure(noListIndex)
	d := h.dovecot("ann")
	for _, name := range d.names() {
		d.look(name, allItems)
	}
	d.close()
	w := h.wafer("ann")
	defer w.close()
	w.ok("SELECT INBOX")
	for _, c := range []string{
		`UID STORE 1:50 +FLAGS (\Seen $Junk new1)`, `UID STORE 20:60 -FLAGS (\Seen kw0)`, `UID STORE 70:80 FLAGS (\Draft new2)`, "UID COPY 1:40 Work", "UID MOVE 41:90 Sent",
		`UID STORE 100:120 +FLAGS (\Deleted)`, "EXPUNGE", "CREATE New.Deep.Down", "CREATE &BB8EQAQ4-", "UID MOVE 121:140 New.Deep.Down", "RENAME Work Office", "RENAME INBOX.children.deep &BB8EQAQ4-.moved",
		`DELETE "with space"`, "SUBSCRIBE New.Deep.Down", "SUBSCRIBE &BB8EQAQ4-", "UNSUBSCRIBE INBOX", "UID COPY 141:160 INBOX",
	} {
		w.ok(c)
	}
	for i := range 20 {
		if got := w.save([]string{"INBOX", "Sent"}[i%2], `(\Flagged new3) "01-Feb-2003 04:05:06 +0700"`, fmt.Sprintf("Subject: %d\r\nFrom: a@b\r\n\r\nx\r\n", i)); got[:2] != "OK" {
			t.Fatal(got)
		}
	}
	d = h.dovecot("ann")
	defer d.close()
	sameLines(t, "LSUB", w.listed(`LSUB "" *`), d.listed(`LSUB "" *`))
	names := d.names()
	sameLines(t, "folders", w.names(), names)
	for _, name := range names {
		same(t, name, w.look(name, allItems), d.look(name, allItems), compared(name))
	}
	samePOP3(t, h.waferPOP3("ann"), h.dovecotPOP3("ann"))
}
