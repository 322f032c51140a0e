package report

import (
	"bufio"
	"compress/gzip"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxSignatures is how many DKIM results a record has at most (RFC 9990 §3.1.3).
const maxSignatures = 100

// Writer writes an aggregate report as it comes, in gzip. Close it after use.
type Writer struct {
	z       *gzip.Writer
	b       *bufio.Writer
	records int
	err     error
	closed  bool
}

// NewWriter begins a report with all of head but its Records, Version and Extensions.
func NewWriter(w io.Writer, head Feedback) *Writer {
	z := gzip.NewWriter(w)
	f := &Writer{z: z, b: bufio.NewWriter(z)}
	f.raw(xml.Header + `<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0">` + "\n")
	f.text(1, "version", "1.0")
	f.open(1, "report_metadata")
	f.text(2, "org_name", head.Org)
	f.text(2, "email", head.Email)
	f.optional(2, "extra_contact_info", head.Contact)
	f.text(2, "report_id", head.ID)
	f.open(2, "date_range")
	f.text(3, "begin", strconv.FormatInt(max(head.Begin.Unix(), 0), 10))
	f.text(3, "end", strconv.FormatInt(max(head.End.Unix(), 0), 10))
	f.shut(2, "date_range")
	f.optional(2, "error", strings.Join(head.Errors, "\n")) // there may be one
	f.optional(2, "generator", head.Generator)
	f.shut(1, "report_metadata")
	p := head.Policy
	f.open(1, "policy_published")
	f.text(2, "domain", p.Domain)
	f.optional(2, "discovery_method", p.Discovery)
	f.text(2, "p", p.P)
	f.optional(2, "sp", p.SP)
	f.optional(2, "np", p.NP)
	f.optional(2, "fo", p.FO)
	f.optional(2, "adkim", p.ADKIM)
	f.optional(2, "aspf", p.ASPF)
	f.optional(2, "testing", p.Testing)
	f.shut(1, "policy_published")
	return f
}

// Write adds a record. Of more than 100 DKIM results the first 100 are written: put
// those that passed and aligned first.
func (f *Writer) Write(r Record) error {
	f.records++
	f.open(1, "record")
	f.open(2, "row")
	f.text(3, "source_ip", r.Source)
	f.text(3, "count", strconv.FormatInt(r.Count, 10))
	f.open(3, "policy_evaluated")
	f.text(4, "disposition", r.Disposition)
	f.text(4, "dkim", r.DKIM)
	f.text(4, "spf", r.SPF)
	for _, why := range r.Reasons {
		f.open(4, "reason")
		f.text(5, "type", why.Type)
		f.optional(5, "comment", why.Comment)
		f.shut(4, "reason")
	}
	f.shut(3, "policy_evaluated")
	f.shut(2, "row")
	f.open(2, "identifiers")
	f.text(3, "header_from", r.HeaderFrom)
	f.text(3, "envelope_from", r.EnvelopeFrom) // empty for the null reverse-path
	f.optional(3, "envelope_to", r.EnvelopeTo)
	f.shut(2, "identifiers")
	f.open(2, "auth_results")
	for _, d := range r.DKIMResults[:min(len(r.DKIMResults), maxSignatures)] {
		f.open(3, "dkim")
		f.text(4, "domain", d.Domain)
		f.text(4, "selector", d.Selector)
		f.text(4, "result", d.Result)
		f.optional(4, "human_result", d.Human)
		f.shut(3, "dkim")
	}
	for _, s := range r.SPFResults[:min(len(r.SPFResults), 1)] {
		f.open(3, "spf")
		f.text(4, "domain", s.Domain)
		f.optional(4, "scope", s.Scope)
		f.text(4, "result", s.Result)
		f.optional(4, "human_result", s.Human)
		f.shut(3, "spf")
	}
	f.shut(2, "auth_results")
	f.shut(1, "record")
	return f.err
}

// ErrNoRecords is the error of Writer.Close after no Write: such a report may not be
// sent (RFC 9990 §3.1.2).
var ErrNoRecords = errors.New("aggregate report has no record")

// Close ends the report. It does not close what the report is written to.
func (f *Writer) Close() error {
	if f.closed {
		return f.err
	}
	f.closed = true
	f.raw("</feedback>\n")
	if f.err == nil {
		f.err = f.b.Flush()
	}
	if err := f.z.Close(); f.err == nil {
		f.err = err
	}
	if f.err == nil && f.records == 0 {
		f.err = ErrNoRecords
	}
	if f.err != nil {
		f.err = fmt.Errorf("write aggregate report: %w", f.err)
	}
	return f.err
}

func (f *Writer) raw(parts ...string) {
	for _, s := range parts {
		if f.err == nil {
			_, f.err = f.b.WriteString(s)
		}
	}
}

// blanks are the indents of the deepest level.
const blanks = "          "

func (f *Writer) open(level int, name string) { f.raw(blanks[:2*level], "<", name, ">\n") }
func (f *Writer) shut(level int, name string) { f.raw(blanks[:2*level], "</", name, ">\n") }

// text writes an element with a text. Octets that XML cannot have become U+FFFD.
func (f *Writer) text(level int, name, s string) {
	f.raw(blanks[:2*level], "<", name, ">")
	if f.err == nil {
		f.err = xml.EscapeText(f.b, []byte(s))
	}
	f.raw("</", name, ">\n")
}

func (f *Writer) optional(level int, name, s string) {
	if s != "" {
		f.text(level, name, s)
	}
}
