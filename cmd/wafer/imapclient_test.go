package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// TestIMAPClient walks through a session with go-imap's client, whose parser is
// not ours.
func TestIMAPClient(t *testing.T) {
	w := newWorld(t, setup{})
	s := w.start()
	seed(t, s, "c1", "c2", "c3")
	news := make(chan uint32, 100)
	c, err := imapclient.DialTLS(s.addr["imaps"], &imapclient.Options{
		TLSConfig: w.tls(),
		UnilateralDataHandler: &imapclient.UnilateralDataHandler{Mailbox: func(d *imapclient.UnilateralDataMailbox) {
			if d.NumMessages != nil {
				news <- *d.NumMessages
			}
		}},
	})
	must(t, err)
	defer c.Close()
	must(t, c.Login(account, testPassword).Wait())
	list, err := c.List("", "*", nil).Collect()
	must(t, err)
	if len(list) == 0 || list[0].Mailbox != "INBOX" || list[0].Delim != '.' {
		t.Errorf("LIST: %+v", list)
	}
	sel, err := c.Select("INBOX", nil).Wait()
	must(t, err)
	if sel.NumMessages != 3 || sel.UIDValidity == 0 || sel.UIDNext <= 3 {
		t.Errorf("SELECT: %+v", sel)
	}

	section := &imap.FetchItemBodySection{Peek: true}
	part := &imap.FetchItemBodySection{Peek: true, Specifier: imap.PartSpecifierText, Partial: &imap.SectionPartial{Offset: 3, Size: 4}}
	msgs, err := c.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{
		UID: true, Flags: true, Envelope: true, InternalDate: true, RFC822Size: true,
		BodyStructure: &imap.FetchItemBodyStructure{Extended: true}, BodySection: []*imap.FetchItemBodySection{section, part},
	}).Collect()
	must(t, err)
	if len(msgs) != 1 {
		t.Fatalf("FETCH 1 gave %d messages", len(msgs))
	}
	m := msgs[0]
	body := m.FindBodySection(section)
	arrived(t, "BODY[]", string(body), sampleNumber("c1"))
	if m.RFC822Size != int64(len(body)) {
		t.Errorf("RFC822.SIZE is %d, BODY[] has %d", m.RFC822Size, len(body))
	}
	if got := m.FindBodySection(part); string(got) != sample[strings.Index(sample, "\r\n\r\n")+4:][3:7] {
		t.Errorf("BODY[TEXT]<3.4> is %q", got)
	}
	if e := m.Envelope; e.Subject != "sämple" || len(e.From) != 1 || e.From[0].Addr() != "sender@example.net" || e.MessageID != "sample.c1@example.net" {
		t.Errorf("envelope: %+v", e)
	}
	if single, ok := m.BodyStructure.(*imap.BodyStructureSinglePart); !ok || single.MediaType() != "text/plain" || single.Encoding != "8bit" || single.Params["charset"] != "utf-8" {
		t.Errorf("body structure: %+v", m.BodyStructure)
	}
	if since := time.Since(m.InternalDate); since < -time.Minute || since > time.Hour {
		t.Errorf("INTERNALDATE is %s", m.InternalDate)
	}
	if len(m.Flags) > 1 { // \Recent is none that must be there
		t.Errorf("PEEK changed the flags: %q", m.Flags)
	}

	stored, err := c.Store(imap.SeqSetNum(1, 2), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagSeen, "$Custom"}}, nil).Collect()
	must(t, err)
	if len(stored) != 2 {
		t.Errorf("STORE answered for %d messages", len(stored))
	}
	found, err := c.UIDSearch(&imap.SearchCriteria{NotFlag: []imap.Flag{imap.FlagSeen}}, nil).Wait()
	must(t, err)
	if got := fmt.Sprint(found.AllUIDs()); got != "[3]" {
		t.Errorf("SEARCH UNSEEN: %s", got)
	}
	found, err = c.Search(&imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "X-Folded", Value: "c2"}}, Body: []string{"你好"}}, nil).Wait()
	must(t, err)
	if got := fmt.Sprint(found.AllSeqNums()); got != "[2]" {
		t.Errorf("SEARCH HEADER BODY: %s", got)
	}

	must(t, c.Create("Work.Größe", nil).Wait())
	copied, err := c.Copy(imap.SeqSetNum(1), "Work.Größe").Wait()
	must(t, err)
	if copied == nil || copied.UIDValidity == 0 {
		t.Errorf("COPY told no COPYUID: %+v", copied)
	}
	_, err = c.Move(imap.SeqSetNum(2), "Work.Größe").Wait()
	must(t, err)
	status, err := c.Status("Work.Größe", &imap.StatusOptions{NumMessages: true, NumUnseen: true}).Wait()
	must(t, err)
	if *status.NumMessages != 2 || *status.NumUnseen != 0 {
		t.Errorf("STATUS after COPY and MOVE: %d messages, %d unseen", *status.NumMessages, *status.NumUnseen)
	}

	date := time.Date(2020, 2, 29, 12, 0, 0, 0, time.UTC)
	ap := c.Append("INBOX", int64(len(sample)), &imap.AppendOptions{Flags: []imap.Flag{imap.FlagDraft}, Time: date})
	_, err = ap.Write([]byte(sample))
	must(t, err)
	must(t, ap.Close())
	appended, err := ap.Wait()
	must(t, err)
	msgs, err = c.Fetch(imap.UIDSetNum(appended.UID), &imap.FetchOptions{InternalDate: true, Flags: true, BodySection: []*imap.FetchItemBodySection{section}}).Collect()
	must(t, err)
	if len(msgs) != 1 || !bytes.Equal(msgs[0].FindBodySection(section), []byte(sample)) || !msgs[0].InternalDate.Equal(date) {
		t.Errorf("APPEND came back as %+v", msgs)
	}

	// IDLE hears of a delivery.
	for len(news) > 0 {
		<-news
	}
	idle, err := c.Idle()
	must(t, err)
	seed(t, s, "c4")
	limit := time.After(patience)
	for heard := uint32(0); heard != 4; { // c1, c3, the appended one and this one
		select {
		case heard = <-news:
		case <-limit:
			t.Fatalf("IDLE did not tell of the new message (last EXISTS %d)", heard)
		}
	}
	must(t, idle.Close())
	must(t, idle.Wait())

	_, err = c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Collect()
	must(t, err)
	gone, err := c.Expunge().Collect()
	must(t, err)
	if fmt.Sprint(gone) != "[1]" {
		t.Errorf("EXPUNGE: %v", gone)
	}
	must(t, c.Logout().Wait())
	s.stop()
	if n := len(mailIn(t, w.maildir("ann"))); n != 3 {
		t.Errorf("ann's INBOX has %d files, want 3", n)
	}
}
