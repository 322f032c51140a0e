package imapd

import (
	"bytes"
	"strings"

	"github.com/wafermail/wafer/core/mail"
)

// envelopeFields are the fields of ENVELOPE in their order (RFC 9051 §7.5.2).
var envelopeFields = [...]string{"date", "subject", "from", "sender", "reply-to", "to", "cc", "bcc", "in-reply-to", "message-id"} // never changed

const (
	envelopeSubject = 1
	envelopeFrom    = 2
	envelopeReplyTo = 4
	envelopeBcc     = 7
)

// writeEnvelope writes the ENVELOPE of a header. Values are raw: encoded words
// stay. Of a text field the first one counts; address fields are joined.
func writeEnvelope(w *writer, header []byte) {
	var values [len(envelopeFields)][]byte
	for f := range mail.HeaderFields(header) {
		for i, name := range envelopeFields {
			if !f.Is(name) {
				continue
			}
			var v string
			if isText(i) && i != envelopeSubject {
				v = laidOut(f.Raw)
			} else {
				v = f.Value()
			}
			switch {
			case len(values[i]) == 0:
				values[i] = append([]byte{}, v...)
			case v != "" && !isText(i):
				values[i] = append(append(values[i], ", "...), v...)
			}
			break
		}
	}
	w.byte('(')
	for i := range values {
		v := string(values[i])
		if i > 0 {
			w.byte(' ')
		}
		if isText(i) {
			switch {
			case values[i] == nil:
				w.str("NIL")
			case i == envelopeSubject:
				w.text(singleSpaced(v))
			default:
				w.text(v) // present but empty is not NIL (RFC 9051 §7.5.2)
			}
			continue
		}
		if (i == envelopeFrom+1 || i == envelopeReplyTo) && !hasAddress(v) {
			v = string(values[envelopeFrom]) // Sender and Reply-To are From where they are missing or empty
		}
		writeAddresses(w, v)
	}
	w.byte(')')
}

// isText tells fields of text from those with addresses.
func isText(i int) bool { return i < envelopeFrom || i > envelopeBcc }

// laidOut is a field's body without line ends, but with its other blanks, except those
// on the first line before anything else. Dovecot shows such fields so, and clients
// compare what they have kept.
func laidOut(raw []byte) string {
	_, body, _ := bytes.Cut(raw, []byte{':'})
	body = bytes.TrimRight(bytes.TrimLeft(body, " \t"), "\r\n")
	if bytes.IndexByte(body, '\n') < 0 {
		return string(body)
	}
	return strings.ReplaceAll(strings.ReplaceAll(string(body), "\r\n", ""), "\n", "")
}

// singleSpaced is what people read: without blanks at the ends, and each run of them
// one space, as Dovecot shows subjects and names. How a line was folded says nothing.
func singleSpaced(s string) string {
	if !strings.ContainsRune(s, '\t') && !strings.Contains(s, "  ") && strings.Trim(s, " ") == s {
		return s
	}
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\t' }), " ")
}

// hasAddress reports whether an address field names anybody.
func hasAddress(field string) (has bool) {
	if strings.IndexByte(field, '@') >= 0 {
		return true
	}
	addresses(field, func(address) { has = true })
	return has
}

// writeAddresses writes the addresses of a field, or NIL if there are none.
func writeAddresses(w *writer, field string) {
	open := false
	addresses(field, func(a address) {
		if !open {
			w.byte('(')
			open = true
		}
		w.byte('(')
		w.orNIL(singleSpaced(a.name))
		w.byte(' ')
		w.orNIL(a.route)
		w.byte(' ')
		w.orNIL(a.mailbox)
		w.byte(' ')
		w.orNIL(a.host)
		w.byte(')')
	})
	if !open {
		w.str("NIL")
		return
	}
	w.byte(')')
}
