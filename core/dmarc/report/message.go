package report

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/quotedprintable"
	"strings"

	"github.com/wafermail/wafer/core/mail"
)

// ErrNoReport is the error of FromMessage for a message that has none.
var ErrNoReport = errors.New("message has no report")

// FromMessage finds the reports in a message of size octets: attachments whose type or
// file name is that of a report, and the fields of failure reports. Attachments that
// only might be reports and are none are passed over, as long as one is found.
func FromMessage(r io.ReaderAt, size int64, l Limits) ([]Report, error) {
	l = l.filled()
	root, err := mail.ParseStructure(r, size)
	if err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	f := finder{r: r, limits: l}
	f.part(root)
	if len(f.found) == 0 && f.err == nil {
		f.err = ErrNoReport
	}
	if len(f.found) > 0 && !errors.Is(f.err, ErrLimit) {
		return f.found, nil
	}
	return f.found, f.err
}

type finder struct {
	r      io.ReaderAt
	limits Limits
	tried  int
	found  []Report
	err    error // the first
}

// part looks at a part and those in it, but not at a message in the message: that is
// what a report may be about.
func (f *finder) part(p *mail.Part) {
	for _, child := range p.Parts {
		f.part(child)
	}
	if len(p.Parts) > 0 || !likely(p) {
		return
	}
	if f.tried++; f.tried > f.limits.Parts {
		if f.err == nil {
			f.err = beyond("more than %d attachments", f.limits.Parts)
		}
		return
	}
	got, err := f.read(p)
	if err != nil {
		if f.err == nil {
			f.err = err
		}
		return
	}
	f.found = append(f.found, got)
}

func (f *finder) read(p *mail.Part) (Report, error) {
	body := decoded(io.NewSectionReader(f.r, p.Body.Start, p.Body.Size()), p.Encoding)
	if !p.Is("message", "feedback-report") {
		return Read(body, f.limits)
	}
	b, err := io.ReadAll(&capped{r: body, left: int64(f.limits.Text), what: "octets", most: int64(f.limits.Text)})
	if err != nil {
		return Report{}, fmt.Errorf("read failure report: %w", err)
	}
	failure, err := readFailure(b, f.limits)
	if err != nil {
		return Report{}, fmt.Errorf("read failure report: %w", err)
	}
	return Report{Failure: failure}, nil
}

// likely reports whether a part may be a report.
func likely(p *mail.Part) bool {
	switch strings.ToLower(p.Type + "/" + p.Subtype) {
	case "message/feedback-report", "application/tlsrpt+gzip", "application/tlsrpt+json", "application/tlsrpt",
		"application/gzip", "application/x-gzip", "application/zip", "application/x-zip", "application/x-zip-compressed",
		"application/xml", "text/xml":
		return true
	}
	name := p.Param("name")
	for _, d := range p.DispParams {
		if strings.EqualFold(d.Name, "filename") {
			name = d.Value
		}
	}
	name = strings.ToLower(name)
	for _, end := range []string{".xml", ".xml.gz", ".zip", ".json", ".json.gz"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

// decoded undoes a content transfer encoding (RFC 2045 §6).
func decoded(r io.Reader, encoding string) io.Reader {
	switch strings.ToLower(encoding) {
	case "base64":
		return base64.NewDecoder(base64.StdEncoding, &alphabet{r})
	case "quoted-printable":
		return quotedprintable.NewReader(r)
	}
	return r
}

// alphabet leaves out what is not of base64 (RFC 2045 §6.8).
type alphabet struct{ r io.Reader }

func (a *alphabet) Read(p []byte) (int, error) {
	for {
		n, err := a.r.Read(p)
		kept := p[:0]
		for _, c := range p[:n] {
			if c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/' || c == '=' {
				kept = append(kept, c)
			}
		}
		if len(kept) > 0 || err != nil || n == 0 {
			return len(kept), err
		}
	}
}
