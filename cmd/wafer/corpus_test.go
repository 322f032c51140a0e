package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"
)

// letter is one message of the corpus and what became of it.
type letter struct {
	name   string
	sent   string // as it goes over the wire, without transparency dots
	binary bool   // it went by BDAT, because DATA must refuse it
}

// The messages that people have collected to break mail programs.
const corpusFolder = "../../../shared/testdata/eml"

// corpus reads the messages. Files with bare LF get CRLF first, as a client's
// file system would have it; a file that mixes line ends is taken as it is.
func corpus(t *testing.T) []*letter {
	t.Helper()
	var all []*letter
	err := filepath.WalkDir(corpusFolder, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(path, "LICENSES") || strings.HasSuffix(path, ".jsonl") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text := string(b)
		if !strings.Contains(text, "\r") {
			text = strings.ReplaceAll(text, "\n", "\r\n")
		}
		name, err := filepath.Rel(corpusFolder, path)
		all = append(all, &letter{name: name, sent: text})
		return err
	})
	if os.IsNotExist(err) {
		t.Skipf("the corpus %s is not on this machine", corpusFolder)
	}
	must(t, err)
	sort.Slice(all, func(i, j int) bool { return all[i].name < all[j].name })
	if len(all) == 0 {
		t.Fatalf("no message in %s", corpusFolder)
	}
	return all
}

// torn reports whether text has a CR or LF outside of CRLF.
func torn(text string) bool {
	rest := strings.ReplaceAll(text, "\r\n", "")
	return strings.ContainsAny(rest, "\r\n")
}

// sender delivers the corpus over as few connections as the refusals allow.
type sender struct {
	s    *server
	p    *peer
	dial int
}

// fresh opens a new session from a client that is not known yet.
func (c *sender) fresh() error {
	if c.p != nil {
		c.p.close()
	}
	c.dial++
	p, err := c.s.reach("mx", c.dial)
	if err != nil {
		return err
	}
	c.p = p
	return p.greeted()
}

// data sends one message by DATA.
func (c *sender) data(to, text string) (int, string, error) {
	options := " BODY=7BIT"
	if strings.ContainsFunc(text, func(r rune) bool { return r >= 0x80 }) {
		options = " BODY=8BITMIME"
	}
	return c.p.deliver("sender@example.net", []string{to}, options, text)
}

// bdat sends one message in chunks of an odd size, in BODY=BINARYMIME.
func (c *sender) bdat(to, text string) error {
	if _, err := c.p.want(250, "MAIL FROM:<sender@example.net> BODY=BINARYMIME"); err != nil {
		return err
	}
	if _, err := c.p.want(250, "RCPT TO:<"+to+">"); err != nil {
		return err
	}
	const chunk = 1021
	for ; len(text) > chunk; text = text[chunk:] {
		if err := c.chunk(text[:chunk], ""); err != nil {
			return err
		}
	}
	return c.chunk(text, " LAST")
}

// chunk sends one BDAT command with its octets.
func (c *sender) chunk(octets, last string) error {
	command := fmt.Sprintf("BDAT %d%s", len(octets), last)
	if err := c.p.send(command + "\r\n" + octets); err != nil {
		return err
	}
	code, text, err := c.p.reply()
	if err == nil && code != 250 {
		err = fmt.Errorf("%s: got %q", command, text)
	}
	return err
}

// TestCorpus sends every message in by SMTP and takes it out by IMAP and POP3:
// nothing may be different but trace fields on top. A message that has a bare
// CR or LF must be refused after DATA; it goes again in BINARYMIME, which has
// no lines.
func TestCorpus(t *testing.T) {
	letters := corpus(t)
	w := newWorld(t, setup{})
	s := w.start()
	c := &sender{s: s}
	must(t, c.fresh())
	refused, binary := 0, 0
	stored := map[string]*letter{} // by the detail of the address that it went to
	for i, l := range letters {
		detail := fmt.Sprintf("n%04d", i)
		to := "ann+" + detail + "@" + testDomain
		code, text, err := c.data(to, l.sent)
		if err != nil {
			t.Fatalf("%s: %v", l.name, err)
		}
		switch {
		case torn(l.sent):
			refused++
			if code != 550 {
				t.Errorf("%s: a bare CR or LF was answered with %q, want 550", l.name, text)
			}
			must(t, c.fresh())
			if err := c.bdat(to, l.sent); err != nil {
				t.Errorf("%s: %v", l.name, err)
				must(t, c.fresh())
				continue
			}
			l.binary = true
			binary++
		case code != 250:
			t.Errorf("%s: refused with %q", l.name, text)
			must(t, c.fresh())
			continue
		case !strings.HasSuffix(l.sent, "\r\n") && l.sent != "":
			l.sent += "\r\n" // DATA cannot say it otherwise
		}
		stored[detail] = l
	}
	c.p.close()
	t.Logf("%d messages: %d by DATA, %d refused after DATA and sent by BDAT in BINARYMIME (%d taken)", len(letters), len(stored)-binary, refused, binary)
	t.Run("imap", func(t *testing.T) { compare(t, stored, overIMAP(t, s)) })
	for _, l := range stored { // POP3 cannot say that a last line has no end
		if l.sent != "" && !strings.HasSuffix(l.sent, "\r\n") {
			l.sent += "\r\n"
		}
	}
	t.Run("pop3", func(t *testing.T) { compare(t, stored, overPOP3(t, s)) })
	s.stop()
}

// trace is what delivery puts on top.
var trace = regexp.MustCompile(`^(?:(?i:Return-Path|Delivered-To|Received): [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)+`)

var detailOf = regexp.MustCompile(`(?im)^Delivered-To: ann\+(n\d{4})@`)

// compare looks for every stored letter among the messages that were read.
func compare(t *testing.T, stored map[string]*letter, got [][]byte) {
	seen := map[string]bool{}
	for _, b := range got {
		m := detailOf.FindSubmatch(b)
		if m == nil {
			t.Errorf("a message without our Delivered-To: %.200q", b)
			continue
		}
		detail := string(m[1])
		l := stored[detail]
		if l == nil || seen[detail] {
			t.Errorf("message %s is there and should not be, or twice", detail)
			continue
		}
		seen[detail] = true
		if !bytes.HasSuffix(b, []byte(l.sent)) {
			t.Errorf("%s (binary %v): changed:\n%s", l.name, l.binary, difference(string(b), l.sent))
			continue
		}
		added := b[:len(b)-len(l.sent)]
		if top := trace.Find(added); len(top) != len(added) {
			t.Errorf("%s: more than trace fields was added: %q", l.name, added)
		}
		if n := bytes.Count(added, []byte("\r\nReceived: ")); n != 1 {
			t.Errorf("%s: %d Received fields were added, want 1", l.name, n)
		}
	}
	for detail, l := range stored {
		if !seen[detail] {
			t.Errorf("%s: not there", l.name)
		}
	}
}

// difference shows the end of the longest common suffix of two messages.
func difference(got, want string) string {
	n := 0
	for n < len(got) && n < len(want) && got[len(got)-1-n] == want[len(want)-1-n] {
		n++
	}
	end := func(s string) string { return tail(s[:len(s)-n], 60) }
	return fmt.Sprintf("got  %d octets, before the last %d: %q\nwant %d octets, before the last %d: %q", len(got), n, end(got), len(want), n, end(want))
}

// overIMAP reads ann's INBOX by BODY.PEEK[].
func overIMAP(t *testing.T, s *server) [][]byte {
	p := s.open("imaps", 0)
	must(t, p.imapLogin("ann"))
	_, err := p.imapOK("SELECT INBOX")
	must(t, err)
	a, err := p.imapOK("UID FETCH 1:* (UID RFC822.SIZE BODY.PEEK[])")
	must(t, err)
	sizes := regexp.MustCompile(`RFC822\.SIZE (\d+)`).FindAllSubmatch(a.raw, -1)
	if len(sizes) < len(a.literals) {
		t.Errorf("%d sizes for %d messages", len(sizes), len(a.literals))
	}
	return a.literals
}

// overPOP3 reads ann's mail by RETR.
func overPOP3(t *testing.T, s *server) (all [][]byte) {
	p := s.open("pop3s", 0)
	must(t, p.popLogin("ann"))
	list, err := p.popLines("LIST")
	must(t, err)
	for line := range bytes.Lines(list) {
		var n, size int
		if _, err := fmt.Sscanf(string(line), "%d %d", &n, &size); err != nil {
			t.Fatalf("LIST says %q", line)
		}
		b, err := p.popLines(fmt.Sprintf("RETR %d", n))
		must(t, err)
		all = append(all, b)
	}
	_, err = p.pop("QUIT")
	must(t, err)
	return all
}
