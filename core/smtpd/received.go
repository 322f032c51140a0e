package smtpd

import (
	"strings"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

const dateForm = "Mon, 2 Jan 2006 15:04:05 -0700" // RFC 5322 §3.3

// trace is what goes on top of a message: the policy's fields, our Received
// field and, on submission, the fields that this one lacks.
func (s *session) trace(d Disposition) []byte {
	tx := s.tx
	b := make([]byte, 0, 512)
	for _, list := range [2][]outcome{s.kept, tx.kept} {
		for _, o := range list {
			for _, f := range o.effects.Prepend {
				b = appendField(b, f.Name, f.Value)
			}
		}
	}
	b = appendReceived(b, &tx.env, s.srv.c.Hostname, d, s.srv.c.HideClient && s.srv.c.Profile.submits())
	if s.srv.c.Profile.submits() {
		b = s.addFields(b)
	}
	return b
}

// appendReceived appends the Received field of RFC 5321 §4.4 with the "tls"
// clause of RFC 8314 §4.3. The recipient is named only if there is one alone:
// recipients must not learn of each other. A hidden client looks like a program
// on this host, as Postfix's users have it look with header_checks.
func appendReceived(b []byte, env *mail.Envelope, host string, d Disposition, hide bool) []byte {
	b = append(b, "Received: from "...)
	if hide {
		b = append(b, "localhost (localhost [127.0.0.1])"...)
	} else {
		b = append(b, printableHelo(env.Client.Helo)...)
	}
	if addr := env.Client.Addr.Addr(); addr.IsValid() && !hide {
		b = append(b, " ("...)
		if mail.ValidDomain(env.Client.Name) {
			b = append(append(b, env.Client.Name...), ' ')
		}
		b = append(b, '[')
		if addr.Is6() {
			b = append(b, "IPv6:"...)
		}
		b = addr.AppendTo(b)
		b = append(b, "])"...)
	}
	b = append(b, "\r\n\tby "...)
	b = append(b, host...)
	b = append(b, " with "...)
	b = append(b, env.Protocol...)
	b = append(b, " id "...)
	b = append(b, env.ID...)
	if len(env.Rcpts) == 1 && len(d.BCC) == 0 && !env.Rcpts[0].To.IsNull() {
		b = append(b, "\r\n\tfor <"...)
		b = append(b, env.Rcpts[0].To.String()...)
		b = append(b, '>')
	}
	if env.Client.TLS.On() {
		b = append(b, "\r\n\ttls "...)
		b = append(b, env.Client.TLS.Cipher...)
	}
	b = append(b, ";\r\n\t"...)
	b = time.Now().AppendFormat(b, dateForm)
	return append(b, '\r', '\n')
}

// printableHelo is the HELO argument as a word that cannot break the field: a
// domain or literal as it is, else with "?" for what a name cannot have.
func printableHelo(helo string) string {
	if helo == "" {
		return "unknown"
	}
	const longest = 255 // octets of a domain (RFC 5321 §4.5.3.1.2)
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("-._:[]", r):
			return r
		}
		return '?'
	}, helo[:min(len(helo), longest)])
}

const (
	foldAt  = 78  // octets of a line, where a space allows it (RFC 5322 §2.1.1)
	foldMax = 998 // octets of a line, whatever it takes
)

// appendField appends a header field, folded at its spaces. Control characters
// become spaces; a name that is none is made one.
func appendField(b []byte, name, value string) []byte {
	line := len(b)
	for i := 0; i < len(name) && i < 76; i++ {
		if c := name[i]; c > ' ' && c < 0x7f && c != ':' {
			b = append(b, c)
		}
	}
	if len(b) == line {
		b = append(b, "X-Policy"...)
	}
	b = append(b, ':')
	value = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, value)
	for _, word := range strings.Fields(value) {
		if len(b)-line+1+len(word) > foldAt && len(b)-line > len(name)+1 {
			b = append(b, '\r', '\n')
			line = len(b)
		}
		b = append(b, ' ')
		for len(b)-line+len(word) > foldMax {
			n := foldMax - (len(b) - line)
			b = append(append(b, word[:n]...), "\r\n "...)
			line, word = len(b)-1, word[n:]
		}
		b = append(b, word...)
	}
	return append(b, '\r', '\n')
}
