// Package report reads and writes the reports about a domain's mail that receivers send
// to its owner: DMARC aggregate reports (RFC 9990, RFC 7489 Appendix C), SMTP TLS
// reports (RFC 8460) and failure reports (RFC 5965, RFC 6591).
//
//	w, err := report.NewWriter(file, report.Feedback{Org: "example.net", …})
//	err = w.Write(report.Record{Source: addr, Count: 3, …})
//	err = w.Close()
//
//	all, err := report.FromMessage(message, size, report.Limits{})
//	one, err := report.Read(file, report.Limits{})
//
// Aggregate reports are written record by record, and never held as a whole. What is
// read may be gzip, zip or neither, whatever its name says.
//
// Reports come from strangers, and their addresses are public. Octets before and after
// unpacking, texts, nesting and entries are all bounded by Limits, and a report beyond
// them is refused with an error that says which. Texts are as the sender wrote them:
// quote them before they are shown.
//
// # BUGS
//
// Of a zip archive with several files the first report is read. Extensions of RFC 9990
// are listed by name, not kept. An aggregate report is not compared with its schema:
// what is missing is empty, and what is unknown is passed over. Only the fields of a
// failure report are read, not the message that it is about.
package report

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Limits bounds what is read. The zero value is good for reports of the largest
// senders.
type Limits struct {
	Packed  int64 // octets of a compressed file; 8 MiB
	Octets  int64 // of a file once it is unpacked; 32 MiB
	Text    int   // octets of one text, with the markup around it; 64 KiB
	Depth   int   // levels of nesting; 32
	Entries int   // records, and the results, reasons and so on within them; 200,000
	Parts   int   // reports in one message; 8
}

func (l Limits) filled() Limits {
	if l.Packed <= 0 {
		l.Packed = 8 << 20
	}
	if l.Octets <= 0 {
		l.Octets = 32 << 20
	}
	if l.Text <= 0 {
		l.Text = 64 << 10
	}
	if l.Depth <= 0 {
		l.Depth = 32
	}
	if l.Entries <= 0 {
		l.Entries = 200000
	}
	if l.Parts <= 0 {
		l.Parts = 8
	}
	return l
}

// ErrLimit is wrapped by the errors about a report beyond its Limits.
var ErrLimit = errors.New("report is beyond its limits")

func beyond(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrLimit, fmt.Sprintf(format, args...))
}

// Report is a report of one of the kinds; the others are nil.
type Report struct {
	Feedback *Feedback
	TLS      *TLS
	Failure  *Failure
}

// Read reads an aggregate report or a TLS report: gzip, zip or plain.
func Read(r io.Reader, l Limits) (Report, error) {
	l = l.filled()
	plain, err := unpack(r, l)
	if err != nil {
		return Report{}, fmt.Errorf("unpack report: %w", err)
	}
	b := bufio.NewReader(plain)
	first, err := firstOctet(b)
	switch {
	case err != nil:
		return Report{}, fmt.Errorf("read report: %w", err)
	case first == '{':
		t, err := readTLS(b, l)
		if err != nil {
			return Report{}, fmt.Errorf("read TLS report: %w", err)
		}
		return Report{TLS: t}, nil
	case first == '<':
		f, err := readFeedback(b, l)
		if err != nil {
			return Report{}, fmt.Errorf("read aggregate report: %w", err)
		}
		return Report{Feedback: f}, nil
	}
	return Report{}, errors.New("read report: it is neither XML nor JSON")
}

// firstOctet peeks at what comes after a byte order mark and white space.
func firstOctet(b *bufio.Reader) (byte, error) {
	if p, _ := b.Peek(3); bytes.Equal(p, []byte("\xef\xbb\xbf")) {
		if _, err := b.Discard(3); err != nil {
			return 0, err
		}
	}
	for {
		c, err := b.ReadByte()
		if errors.Is(err, io.EOF) {
			return 0, errors.New("it is empty")
		}
		if err != nil {
			return 0, err
		}
		if !strings.ContainsRune(" \t\r\n", rune(c)) {
			return c, b.UnreadByte()
		}
	}
}

// FileName is the name of an attachment (RFC 9990 §3.5.2, RFC 8460 §5.1), for ext
// "xml.gz", "json.gz" and so on: of the domain that reports, on the domain whose policy
// it is, for the time from begin to end. id may be empty; only letters and digits of it
// are used.
func FileName(receiver, policyDomain string, begin, end time.Time, id, ext string) string {
	id = strings.Map(func(c rune) rune {
		if c < 0x80 && (c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z') {
			return c
		}
		return -1
	}, id)
	if id != "" {
		id = "!" + id
	}
	return fmt.Sprintf("%s!%s!%d!%d%s.%s", safeName(receiver), safeName(policyDomain), begin.Unix(), end.Unix(), id, ext)
}

// Subject is the value of the Subject field of a message with a report (RFC 9990
// §3.5.2, RFC 8460 §5.3), folded.
func Subject(receiver, policyDomain, id string) string {
	return fmt.Sprintf("Report Domain: %s\r\n Submitter: %s\r\n Report-ID: <%s>", safeName(policyDomain), safeName(receiver), safeID(id))
}

// safeName keeps of a domain what may stand in a file name and a header.
func safeName(domain string) string {
	return strings.Map(func(c rune) rune {
		if c == '.' || c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' {
			return c
		}
		if c >= 'A' && c <= 'Z' {
			return c | 0x20
		}
		return -1
	}, strings.Trim(domain, "."))
}

// safeID keeps of a report's id what may stand in a Subject: dot-atom-text with perhaps
// an "@" (RFC 9990 §3.5.1).
func safeID(id string) string {
	at := false
	id = strings.Map(func(c rune) rune {
		switch {
		case c == '@' && !at:
			at = true
			return c
		case c > ' ' && c < 0x7f && !strings.ContainsRune("()<>[]:;@\\,\"", c):
			return c
		}
		return '-'
	}, strings.Trim(id, "<> "))
	return id[:min(len(id), 200)]
}
