package dmarc

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/wafermail/wafer/core/dns"
)

// LookupOptions says how records are found.
type LookupOptions struct {
	Mode Mode
}

// Discovery is what is known of a domain.
type Discovery struct {
	// Domain is where the record was found that applies, "" if none does.
	Domain string
	Record Record
	// Org is the organizational domain; the domain itself if nothing says otherwise.
	Org string
	// Notes says what was passed over on the way, for logs and reports.
	Notes []string
}

// Lookup finds the record that applies to mail from domain, and its organizational
// domain: with at most 8 questions for the tree walk (RFC 9989 §4.10), with 2 for PSL
// (RFC 7489 §6.6.3). No record is no error. The errors are a domain that cannot exist,
// and a question that had no answer this time; the Discovery then holds what could be
// found out nevertheless.
func Lookup(ctx context.Context, r dns.Resolver, domain string, o LookupOptions) (Discovery, error) {
	name, ok := canonical(domain)
	if !ok {
		return Discovery{}, fmt.Errorf("look up DMARC of %.80q: no domain name", domain)
	}
	w := newWalker(r, o.Mode)
	d, _, err := w.policy(ctx, name)
	if err != nil {
		return d, err
	}
	d.Org, err = w.org(ctx, name)
	d.Notes = w.notes
	return d, err
}

// RegisteredDomain is a domain's organizational domain by the public suffix list (RFC
// 7489 §3.2), canonical; "" for a public suffix and for what is no domain.
func RegisteredDomain(domain string) string {
	name, ok := canonical(domain)
	if !ok {
		return ""
	}
	org, err := publicsuffix.EffectiveTLDPlusOne(name)
	if err != nil {
		return ""
	}
	return org
}

// walker asks for records and remembers them, for as long as one evaluation takes.
type walker struct {
	r     dns.Resolver
	mode  Mode
	known map[string]found
	notes []string
}

// found is what stands at a name.
type found struct {
	record Record
	ok     bool // there is one record
	err    error
	exists bool // the name below which we asked is certain to exist
}

func newWalker(r dns.Resolver, mode Mode) *walker {
	return &walker{r: r, mode: mode, known: make(map[string]found, 8)}
}

const maxNotes = 20

func (w *walker) note(format string, args ...any) {
	if len(w.notes) < maxNotes {
		w.notes = append(w.notes, fmt.Sprintf(format, args...))
	}
}

// ask sees to it that the records at all names are known.
func (w *walker) ask(ctx context.Context, names ...string) {
	var qs []dns.Question
	var of []string
	for _, n := range names {
		if _, ok := w.known[n]; ok {
			continue
		}
		if len(n)+len("_dmarc.") > maxName {
			w.known[n] = found{} // a name too long for the DNS has no record
			continue
		}
		qs = append(qs, dns.Question{Type: "TXT", Name: "_dmarc." + n})
		of = append(of, n)
	}
	switch len(qs) {
	case 0:
	case 1:
		w.known[of[0]] = w.read(of[0], w.r.Lookup(ctx, qs[0]))
	default:
		for i, a := range dns.LookupAll(ctx, w.r, qs) {
			w.known[of[i]] = w.read(of[i], a)
		}
	}
}

// read makes sense of an answer (RFC 9989 §4.10, step 2).
func (w *walker) read(name string, a dns.Answer) found {
	switch a.Status {
	case dns.Temporary:
		err := a.Err
		if err == nil {
			err = fmt.Errorf("no answer")
		}
		return found{err: fmt.Errorf("look up _dmarc.%s: %w", name, err)}
	case dns.NXDomain:
		return found{}
	case dns.NoData:
		return found{exists: true}
	}
	f := found{exists: true}
	n := 0
	for _, txt := range a.Records {
		if r, ok := parseRecord(txt); ok {
			f.record = r
			n++
		}
	}
	if n > 1 {
		w.note("_dmarc.%s has %d DMARC records, so none", name, n)
		return found{exists: true}
	}
	f.ok = n == 1
	if f.ok {
		for _, s := range f.record.Flaws {
			w.note("_dmarc.%s: %s", name, s)
		}
	}
	return f
}

// steps are the names of a tree walk: the domain, then its parents from the seventh
// level on (RFC 9989 §4.10, step 4).
func steps(domain string) []string {
	names := []string{domain}
	rest := domain
	for n := strings.Count(domain, ".") + 1; n > 1; n-- {
		_, rest, _ = strings.Cut(rest, ".")
		if n-1 <= 7 {
			names = append(names, rest)
		}
	}
	return names
}

// org is the organizational domain (RFC 9989 §4.10.2).
func (w *walker) org(ctx context.Context, domain string) (string, error) {
	if w.mode == PSL {
		if org := RegisteredDomain(domain); org != "" {
			return org, nil
		}
		return domain, nil
	}
	org, _, err := w.walk(ctx, domain)
	return org, err
}

// walk does the tree walk from domain. psd is the public suffix domain above it that
// has a record which says so.
func (w *walker) walk(ctx context.Context, domain string) (org, psd string, err error) {
	names := steps(domain)
	w.ask(ctx, domain)
	if f := w.known[domain]; f.err != nil {
		return "", "", f.err
	} else if f.ok && f.record.PSD != "u" {
		return domain, "", nil // "n" makes it one; "y" stops the walk, and no other record is there
	}
	w.ask(ctx, names[1:]...) // all at once: nearly always all of them are needed
	org = domain
	for i, name := range names {
		f := w.known[name]
		if f.err != nil {
			return "", "", f.err
		}
		if !f.ok {
			continue
		}
		switch {
		case f.record.PSD == "n":
			return name, "", nil
		case f.record.PSD == "y" && i > 0:
			return child(domain, name), name, nil
		}
		org = name
	}
	return org, "", nil
}

// child is the name one label below parent on the way to domain.
func child(domain, parent string) string {
	above := strings.TrimSuffix(domain, "."+parent)
	return above[strings.LastIndexByte(above, '.')+1:] + "." + parent
}

// policy finds the record that applies to domain (RFC 9989 §4.10.1): that of domain,
// of its organizational domain, or of the public suffix domain above it. usable is
// false if there is none, or one that says nothing.
func (w *walker) policy(ctx context.Context, domain string) (d Discovery, usable bool, err error) {
	defer func() { d.Notes = w.notes }()
	d.Org = domain
	w.ask(ctx, domain)
	f := w.known[domain]
	if f.err != nil {
		return d, false, f.err
	}
	at := domain
	if !f.ok {
		var psd string
		if w.mode == PSL {
			at = RegisteredDomain(domain)
		} else {
			at, psd, err = w.walk(ctx, domain)
		}
		if err != nil || at == "" {
			return d, false, err
		}
		d.Org = at
		w.ask(ctx, at)
		if f = w.known[at]; f.err != nil {
			return d, false, f.err
		}
		if !f.ok && psd != "" {
			at = psd
			f = w.known[psd]
		}
	}
	switch {
	case !f.ok:
		return d, false, nil
	case f.record.P == "":
		w.note("_dmarc.%s: %v", at, ErrNoPolicy)
		return d, false, nil
	}
	d.Domain, d.Record = at, f.record
	return d, true, nil
}

// exists reports whether a domain exists (RFC 9989 §3.2.13).
func (w *walker) exists(ctx context.Context, domain string) (bool, error) {
	if w.known[domain].exists {
		return true, nil // there is something below it
	}
	a := w.r.Lookup(ctx, dns.Question{Type: "A", Name: domain})
	if a.Status == dns.Temporary {
		err := a.Err
		if err == nil {
			err = fmt.Errorf("no answer")
		}
		return false, fmt.Errorf("look up whether %s exists: %w", domain, err)
	}
	return a.Status != dns.NXDomain, nil
}
