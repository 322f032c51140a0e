package imapd

import (
	"github.com/wafermail/wafer/core/mail"
)

// maxNestedHeader bounds what is read for the envelope of an embedded message.
const maxNestedHeader = 256 << 10

// bodyWriter writes BODY and BODYSTRUCTURE (RFC 9051 §7.5.2).
type bodyWriter struct {
	w        *writer
	msg      *message
	extended bool
	global   bool // message/global is described as a message (IMAP4rev2)
}

func (b *bodyWriter) write(p *mail.Part) error {
	b.w.byte('(')
	var err error
	if p.Parts != nil {
		err = b.multipart(p)
	} else {
		err = b.single(p)
	}
	b.w.byte(')')
	return err
}

func (b *bodyWriter) multipart(p *mail.Part) error {
	for _, child := range p.Parts {
		if err := b.write(child); err != nil {
			return err
		}
	}
	b.w.byte(' ')
	b.w.text(p.Subtype)
	if !b.extended {
		return nil
	}
	b.w.byte(' ')
	b.params(p.Params)
	b.tail(p)
	return nil
}

func (b *bodyWriter) single(p *mail.Part) error {
	w := b.w
	if p.Is("message", "rfc822") { // RFC 9051 §9, media-message: clients look for these words
		w.str(`"message" "rfc822" `)
	} else {
		w.text(p.Type)
		w.byte(' ')
		w.text(p.Subtype)
		w.byte(' ')
	}
	params := p.Params
	text := p.Is("text", "")
	if text && p.Param("charset") == "" { // RFC 2045 §5.2
		params = append(params[:len(params):len(params)], mail.Param{Name: "charset", Value: "us-ascii"})
	}
	b.params(params)
	w.byte(' ')
	w.orNIL(p.ID)
	w.byte(' ')
	w.orNIL(p.Description)
	w.byte(' ')
	if p.Encoding == "" {
		w.str(`"7bit"`)
	} else {
		w.text(p.Encoding)
	}
	w.byte(' ')
	w.num(uint64(p.Body.Size()))
	switch {
	case p.Message != nil && (b.global || p.Is("message", "rfc822")):
		h, err := mail.ReadHeader(b.msg.content, p.Message.Header.Start, p.Message.Header.End, maxNestedHeader)
		if err != nil {
			return err
		}
		w.byte(' ')
		writeEnvelope(w, h)
		w.byte(' ')
		if err := b.write(p.Message); err != nil {
			return err
		}
		w.byte(' ')
		w.num(uint64(p.Lines))
	case text:
		w.byte(' ')
		w.num(uint64(p.Lines))
	}
	if !b.extended {
		return nil
	}
	w.byte(' ')
	w.orNIL(p.MD5)
	b.tail(p)
	return nil
}

// tail writes disposition, language and location.
func (b *bodyWriter) tail(p *mail.Part) {
	w := b.w
	if p.Disposition == "" {
		w.str(" NIL")
	} else {
		w.str(" (")
		w.text(p.Disposition)
		w.byte(' ')
		b.params(p.DispParams)
		w.byte(')')
	}
	if len(p.Language) == 0 {
		w.str(" NIL")
	} else {
		w.str(" (")
		for i, tag := range p.Language {
			if i > 0 {
				w.byte(' ')
			}
			w.text(tag)
		}
		w.byte(')')
	}
	w.byte(' ')
	w.orNIL(p.Location)
}

func (b *bodyWriter) params(params []mail.Param) {
	if len(params) == 0 {
		b.w.str("NIL")
		return
	}
	b.w.byte('(')
	for i, p := range joinSections(params) {
		if i > 0 {
			b.w.byte(' ')
		}
		b.w.text(p.Name)
		b.w.byte(' ')
		b.w.text(p.Value)
	}
	b.w.byte(')')
}
