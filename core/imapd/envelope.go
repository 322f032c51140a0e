package imapd

import (
	"strings"

	"github.com/wafermail/wafer/core/mail"
)

// envelopeFields are the fields of ENVELOPE in their order (RFC 9051 §7.5.2).
var envelopeFields = [...]string{"date", "subject", "from", "sender", "reply-to", "to", "cc", "bcc", "in-reply-to", "message-id"} // never changed

const (
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
			switch v := f.Value(); {
			case v == "":
			case values[i] == nil:
				values[i] = []byte(v)
			case i >= envelopeFrom && i <= envelopeBcc:
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
		if i < envelopeFrom || i > envelopeBcc {
			w.orNIL(v)
			continue
		}
		if (i == envelopeFrom+1 || i == envelopeReplyTo) && !hasAddress(v) {
			v = string(values[envelopeFrom]) // Sender and Reply-To are From where they are missing or empty
		}
		writeAddresses(w, v)
	}
	w.byte(')')
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
		w.orNIL(a.name)
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
