package report

import (
	"bufio"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/encoding/htmlindex"
)

// readFeedback reads XML.
func readFeedback(r *bufio.Reader, l Limits) (*Feedback, error) {
	m := &meter{r: r, most: l.Text}
	x := &xmlReader{m: m, d: xml.NewDecoder(m), limits: l}
	x.d.CharsetReader = func(label string, in io.Reader) (io.Reader, error) {
		e, err := htmlindex.Get(label)
		if err != nil {
			return nil, fmt.Errorf("character set %.40q is not known", label)
		}
		return e.NewDecoder().Reader(in), nil
	}
	for {
		t, err := x.token()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it has no element feedback")
		}
		if err != nil {
			return nil, err
		}
		start, ok := t.(xml.StartElement)
		switch {
		case !ok:
			continue
		case start.Name.Local != "feedback":
			return nil, fmt.Errorf("element %.40q is where feedback should be", start.Name.Local)
		}
		f := new(Feedback)
		if err := x.feedback(f); err != nil {
			return nil, err
		}
		return f, nil // whatever comes after it
	}
}

// meter bounds how many octets make one token, which the decoder holds as a whole.
type meter struct {
	r    *bufio.Reader
	n    int
	most int
}

func (m *meter) ReadByte() (byte, error) {
	if m.n++; m.n > m.most {
		return 0, beyond("a text of more than %d octets", m.most)
	}
	return m.r.ReadByte()
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if m.n += n; m.n > m.most {
		return 0, beyond("a text of more than %d octets", m.most)
	}
	return n, err
}

// xmlReader goes down the elements of a document.
type xmlReader struct {
	m       *meter
	d       *xml.Decoder
	limits  Limits
	depth   int
	entries int
}

func (x *xmlReader) token() (xml.Token, error) {
	x.m.n = 0
	t, err := x.d.Token()
	if err != nil {
		return nil, err
	}
	switch t.(type) {
	case xml.StartElement:
		if x.depth++; x.depth > x.limits.Depth {
			return nil, beyond("more than %d levels of elements", x.limits.Depth)
		}
	case xml.EndElement:
		x.depth--
	}
	return t, nil
}

// entry counts what takes room.
func (x *xmlReader) entry() error {
	if x.entries++; x.entries > x.limits.Entries {
		return beyond("more than %d entries", x.limits.Entries)
	}
	return nil
}

// each calls f for each child of the element that was begun, until that ends. f must
// read the child to its end.
func (x *xmlReader) each(f func(xml.StartElement) error) error {
	for {
		t, err := x.token()
		if err != nil {
			return unexpected(err)
		}
		switch t := t.(type) {
		case xml.EndElement:
			return nil
		case xml.StartElement:
			if err := f(t); err != nil {
				return err
			}
		}
	}
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// skip reads an element to its end.
func (x *xmlReader) skip() error {
	for depth := x.depth; x.depth >= depth; {
		if _, err := x.token(); err != nil {
			return unexpected(err)
		}
	}
	return nil
}

// text reads an element that has a text. Elements in it are passed over.
func (x *xmlReader) text(to *string) error {
	var b strings.Builder
	for depth := x.depth; x.depth >= depth; {
		t, err := x.token()
		if err != nil {
			return unexpected(err)
		}
		if c, ok := t.(xml.CharData); ok && x.depth == depth {
			if b.Len()+len(c) > x.limits.Text {
				return beyond("a text of more than %d octets", x.limits.Text)
			}
			b.Write(c)
		}
	}
	*to = strings.TrimSpace(b.String())
	return nil
}

// texts reads the children whose texts are asked for, and passes over the others.
func (x *xmlReader) texts(to map[string]*string) error {
	return x.each(func(e xml.StartElement) error {
		if s := to[e.Name.Local]; s != nil {
			return x.text(s)
		}
		return x.skip()
	})
}

// number reads an element that has a number.
func (x *xmlReader) number(name string, to *int64) error {
	var s string
	if err := x.text(&s); err != nil {
		return err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return fmt.Errorf("%s is %.40q, which is no number", name, s)
	}
	*to = n
	return nil
}

func (x *xmlReader) feedback(f *Feedback) error {
	return x.each(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "version":
			return x.text(&f.Version)
		case "report_metadata":
			return x.metadata(f)
		case "policy_published":
			return x.published(&f.Policy)
		case "record":
			if err := x.entry(); err != nil {
				return err
			}
			var r Record
			err := x.record(&r)
			f.Records = append(f.Records, r)
			return err
		case "extension", "extensions":
			return x.extensions(&f.Extensions)
		}
		return x.skip()
	})
}

func (x *xmlReader) metadata(f *Feedback) error {
	return x.each(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "org_name":
			return x.text(&f.Org)
		case "email":
			return x.text(&f.Email)
		case "extra_contact_info":
			return x.text(&f.Contact)
		case "report_id":
			return x.text(&f.ID)
		case "generator":
			return x.text(&f.Generator)
		case "date_range":
			return x.dates(f)
		case "error":
			if err := x.entry(); err != nil {
				return err
			}
			var s string
			err := x.text(&s)
			f.Errors = append(f.Errors, s)
			return err
		}
		return x.skip()
	})
}

func (x *xmlReader) dates(f *Feedback) error {
	return x.each(func(e xml.StartElement) error {
		to := &f.Begin
		switch e.Name.Local {
		case "begin":
		case "end":
			to = &f.End
		default:
			return x.skip()
		}
		var n int64
		if err := x.number(e.Name.Local, &n); err != nil {
			return err
		}
		if n > 1<<38 { // the year 10680
			return fmt.Errorf("%s is %d, which is no time", e.Name.Local, n)
		}
		*to = time.Unix(n, 0).UTC()
		return nil
	})
}

func (x *xmlReader) published(p *Published) error {
	return x.texts(map[string]*string{
		"domain": &p.Domain, "p": &p.P, "sp": &p.SP, "np": &p.NP, "adkim": &p.ADKIM, "aspf": &p.ASPF,
		"fo": &p.FO, "testing": &p.Testing, "discovery_method": &p.Discovery, "pct": &p.Percent,
	})
}

func (x *xmlReader) record(r *Record) error {
	return x.each(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "row":
			return x.row(r)
		case "identifiers", "identities": // the latter in drafts before RFC 7489
			return x.texts(map[string]*string{"header_from": &r.HeaderFrom, "envelope_from": &r.EnvelopeFrom, "envelope_to": &r.EnvelopeTo})
		case "auth_results":
			return x.results(r)
		case "extension", "extensions":
			return x.extensions(&r.Extensions)
		}
		if err := x.entry(); err != nil {
			return err
		}
		r.Extensions = append(r.Extensions, Extension{Name: e.Name.Local, Definition: e.Name.Space})
		return x.skip()
	})
}

func (x *xmlReader) row(r *Record) error {
	return x.each(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "source_ip":
			return x.text(&r.Source)
		case "count":
			return x.number("count", &r.Count)
		case "policy_evaluated":
			return x.evaluated(r)
		}
		return x.skip()
	})
}

func (x *xmlReader) evaluated(r *Record) error {
	return x.each(func(e xml.StartElement) error {
		switch e.Name.Local {
		case "disposition":
			return x.text(&r.Disposition)
		case "dkim":
			return x.text(&r.DKIM)
		case "spf":
			return x.text(&r.SPF)
		case "reason":
			if err := x.entry(); err != nil {
				return err
			}
			var why Reason
			err := x.texts(map[string]*string{"type": &why.Type, "comment": &why.Comment})
			r.Reasons = append(r.Reasons, why)
			return err
		}
		return x.skip()
	})
}

func (x *xmlReader) results(r *Record) error {
	return x.each(func(e xml.StartElement) error {
		if err := x.entry(); err != nil {
			return err
		}
		switch e.Name.Local {
		case "dkim":
			var d DKIMResult
			err := x.texts(map[string]*string{"domain": &d.Domain, "selector": &d.Selector, "result": &d.Result, "human_result": &d.Human})
			r.DKIMResults = append(r.DKIMResults, d)
			return err
		case "spf":
			var s SPFResult
			err := x.texts(map[string]*string{"domain": &s.Domain, "scope": &s.Scope, "result": &s.Result, "human_result": &s.Human})
			r.SPFResults = append(r.SPFResults, s)
			return err
		}
		return x.skip()
	})
}

func (x *xmlReader) extensions(to *[]Extension) error {
	return x.each(func(e xml.StartElement) error {
		if err := x.entry(); err != nil {
			return err
		}
		ext := Extension{Name: e.Name.Local, Definition: e.Name.Space}
		if e.Name.Local == "extension" {
			ext.Name = ""
			for _, a := range e.Attr {
				switch a.Name.Local {
				case "name":
					ext.Name = a.Value
				case "definition":
					ext.Definition = a.Value
				}
			}
		}
		*to = append(*to, ext)
		return x.skip()
	})
}
