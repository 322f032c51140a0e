package imapd

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/maildir"
)

// emailID is the message's EMAILID (RFC 8474 §5.1): a digest of its octets, which
// stays with it through COPY, MOVE and a change of servers.
func (m *message) emailID() (string, error) {
	f := m.v.getFacts()
	if b, ok := f.Get(m.uid, emailFact); ok {
		return string(b), nil
	}
	if err := m.open(); err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(m.content, 0, m.content.Size())); err != nil {
		return "", err
	}
	id := "M" + base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18])
	f.Note(m.uid, emailFact, []byte(id))
	return id, nil
}

// mailboxID is a mailbox's MAILBOXID (RFC 8474 §4): UIDVALIDITY, which no two
// mailboxes of a user share, and which a renamed one keeps.
func mailboxID(validity uint32) string { return fmt.Sprintf("F%d", validity) }

// saveDate is when a message came into its mailbox (RFC 8514): the beginning of its
// file's name says so. ok is false where the name was made in another way.
func saveDate(m *maildir.Message) (saved time.Time, ok bool) {
	digits := len(m.Key) - len(strings.TrimLeft(m.Key, "0123456789"))
	if digits < 9 || digits > 11 || digits == len(m.Key) || m.Key[digits] != '.' {
		return time.Time{}, false
	}
	var n int64
	for i := range digits {
		n = n*10 + int64(m.Key[i]-'0')
	}
	return time.Unix(n, 0), true
}
