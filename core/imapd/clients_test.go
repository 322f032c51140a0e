package imapd

import (
	"net"
	"os/exec"
	"strings"
	"testing"
)

// TestPythonImaplib walks through a session with Python's imaplib.
func TestPythonImaplib(t *testing.T) {
	python := program(t, "python3")
	ts := startServer(t, nil)
	host, port, _ := net.SplitHostPort(ts.addr)
	out := runProgram(t, t.TempDir(), python, "-c", `
import imaplib, sys, time
m = imaplib.IMAP4(sys.argv[1], int(sys.argv[2]))
def ok(r):
    assert r[0] in ("OK", "BYE"), r
    return r[1]
ok(m.login(sys.argv[3], sys.argv[4]))
ok(m.create("Work"))
text = b"From: a@example.org\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nDate: Mon, 2 Nov 2026 10:00:00 +0100\r\n\r\nHello\r\n"
now = time.time() - 10
for i in range(3):
    ok(m.append("Work", r"(\Seen)" if i else "", imaplib.Time2Internaldate(now + i), text))
assert ok(m.select("Work")) == [b"3"]
assert ok(m.search(None, "UNSEEN")) == [b"1"]
assert ok(m.sort("(REVERSE ARRIVAL)", "UTF-8", "ALL")) == [b"3 2 1"]
assert ok(m.thread("REFERENCES", "UTF-8", "ALL")), "no threads"
assert ok(m.fetch("1", "(BODY.PEEK[])"))[0][1] == text
assert b"ENVELOPE" in ok(m.fetch("1:3", "(UID ENVELOPE BODYSTRUCTURE INTERNALDATE)"))[0]
ok(m.store("2", "+FLAGS", r"(\Deleted $Label1)"))
assert ok(m.expunge()) == [b"2"]
ok(m.copy("1:2", "INBOX"))
ok(m.uid("MOVE", "1:*", "INBOX"))
assert ok(m.status("INBOX", "(MESSAGES UIDNEXT UNSEEN)"))[0].endswith(b"(MESSAGES 4 UIDNEXT 5 UNSEEN 2)"), m.status("INBOX", "(MESSAGES UIDNEXT UNSEEN)")
ok(m.rename("Work", "Done")); ok(m.subscribe("Done")); assert b"Done" in ok(m.lsub())[0]
ok(m.delete("Done")); ok(m.namespace()); ok(m.getquotaroot("INBOX")); ok(m.logout())
print("well")
`, host, port, testUser, testPassword)
	if !strings.Contains(out, "well") {
		t.Error(out)
	}
}

// TestImapflow walks through a session with imapflow, which uses CONDSTORE, QRESYNC,
// COMPRESS, IDLE and what else is offered. It needs the module where node finds it,
// such as by NODE_PATH.
func TestImapflow(t *testing.T) {
	if exec.Command("node", "-e", "require('imapflow')").Run() != nil {
		t.Skip("imapflow is not installed")
	}
	ts := startServer(t, nil)
	host, port, _ := net.SplitHostPort(ts.addr)
	out := runProgram(t, t.TempDir(), "node", "-e", `
const { ImapFlow } = require('imapflow');
const assert = require('assert');
const [host, port, user, pass] = process.argv.slice(1);
const open = (more) => new ImapFlow({ host, port: +port, secure: false, doSTARTTLS: false, auth: { user, pass }, logger: false, ...more });
const text = n => 'From: Ann <a@example.org>\r\nTo: b@example.org\r\nSubject: message ' + n + '\r\nMessage-ID: <' + n + '@x>\r\nDate: Mon, 2 Nov 2026 10:00:00 +0100\r\nContent-Type: text/plain\r\n\r\nHello ' + n + '\r\n';
(async () => {
  const c = open({ qresync: true });
  await c.connect();
  assert(c.capabilities.has('QRESYNC') && c.enabled.has('QRESYNC'), 'no QRESYNC');
  await c.mailboxCreate(['Arbeit', 'Pläne']);
  for (let i = 0; i < 5; i++) { const r = await c.append('INBOX', text(i), i % 2 ? ['\\Seen'] : []); assert(r.uid === i + 1, 'APPENDUID'); }
  const lock = await c.getMailboxLock('INBOX');
  const before = c.mailbox.highestModseq;
  assert(c.mailbox.exists === 5 && before > 0n);
  let n = 0;
  for await (const m of c.fetch('1:*', { uid: true, flags: true, envelope: true, bodyStructure: true, source: true, size: true, threadId: true, internalDate: true })) {
    assert(m.source.toString() === text(n) && m.envelope.subject === 'message ' + n && m.bodyStructure.type === 'text/plain' && m.emailId, require("util").inspect(m)); n++;
  }
  assert(n === 5);
  assert.deepEqual(await c.search({ seen: false }, { uid: true }), [1, 3, 5]);
  await c.messageFlagsAdd('1:2', ['\\Flagged', '$MDNSent'], { uid: true });
  n = 0;
  for await (const m of c.fetch('1:*', { flags: true }, { changedSince: before })) { assert(m.flags.has('\\Flagged')); n++; }
  assert(n === 2, 'CHANGEDSINCE gave ' + n);
  await c.messageMove('4:5', 'Arbeit.Pläne', { uid: true });
  await c.messageDelete('3', { uid: true });
  const news = new Promise(resolve => c.once('exists', resolve));
  const other = open({});
  await other.connect();
  await c.noop(); const idle = c.idle();
  await other.append('INBOX', text(9));
  await news; await other.logout();
  const st = await c.status('Arbeit.Pläne', { messages: true, uidNext: true, highestModseq: true });
  assert(st.messages === 2, require("util").inspect(st));
  lock.release();
  const boxes = await c.list();
  assert(boxes.some(b => b.path === 'Arbeit.Pläne'), require("util").inspect(boxes));
  await c.getQuota('INBOX');
  await c.logout();
  console.log('well');
})().catch(err => { console.error(err); process.exit(1); });
`, host, port, testUser, testPassword)
	if !strings.Contains(out, "well") {
		t.Error(out)
	}
}
