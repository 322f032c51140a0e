package authres

import (
	"net/netip"
	"strings"
)

// ReceivedSPF is a Received-SPF field (RFC 7208 §9.1).
type ReceivedSPF struct {
	Result       string // "pass", "fail", "softfail", "neutral", "none", "temperror" or "permerror"
	Comment      string
	ClientIP     netip.Addr
	EnvelopeFrom string
	Helo         string
	Receiver     string // the host that checked
	Identity     string // "mailfrom" or "helo"
	Mechanism    string // the one that matched
	Problem      string // of an error, details
	UTF8         bool   // as in Field
}

// Format is the whole header field, folded, with its name and its last CRLF. What is
// empty is left out.
func (r ReceivedSPF) Format() string {
	w := writer{utf8: r.UTF8}
	w.raw("Received-SPF:")
	w.word(w.keyword(r.Result))
	if r.Comment != "" {
		w.words(w.comment(r.Comment))
	}
	client := ""
	if r.ClientIP.IsValid() {
		client = r.ClientIP.Unmap().WithZone("").String()
	}
	first := true
	for _, pair := range [...][2]string{
		{"receiver", r.Receiver}, {"identity", r.Identity}, {"client-ip", client}, {"envelope-from", r.EnvelopeFrom},
		{"helo", r.Helo}, {"mechanism", r.Mechanism}, {"problem", r.Problem},
	} {
		if pair[1] == "" {
			continue
		}
		if !first {
			w.raw(";")
		}
		first = false
		w.words(pair[0] + "=" + w.dotAtom(pair[1]))
	}
	w.raw("\r\n")
	return w.b.String()
}

// dotAtom is s as a dot-atom or in quotes.
func (w *writer) dotAtom(s string) string {
	s = strings.TrimSpace(w.safe(s))
	if isDotAtom(s) {
		return s
	}
	return quote(s)
}
