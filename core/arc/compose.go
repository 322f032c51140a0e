package arc

import (
	"crypto/sha256"
	"strings"

	"github.com/wafermail/wafer/core/authres"
	"github.com/wafermail/wafer/core/dkim"
)

// lineLength is how long a line may become (RFC 5322 §2.1.1 asks for 78 at most).
const lineLength = 77

// tag is a tag of a field that is being made.
type tag struct{ name, value string }

// compose writes a field with tags in lines of at most columns octets, as long as its
// parts allow. What b= holds does not change how the other tags are folded, so that the
// signature can be put in afterwards.
func compose(name string, tags []tag, columns int) []byte {
	out := append(make([]byte, 0, 1024), name...)
	out = append(out, ':')
	column := len(out)
	fold := func() {
		out = append(out, "\r\n "...)
		column = 1
	}
	write := func(s string) {
		out = append(out, s...)
		column += len(s)
	}
	for i, t := range tags {
		end := ";"
		if i == len(tags)-1 {
			end = ""
		}
		text := t.name + "=" + t.value + end
		switch {
		case t.name == "b":
			for fold(); len(text) > columns-1; fold() {
				write(text[:columns-1])
				text = text[columns-1:]
			}
			write(text)
			column = columns // the next tag begins a line
		case column+1+len(text) <= columns:
			write(" " + text)
		case t.name == "h" && 1+len(text) > columns:
			fold()
			for part := range strings.SplitAfterSeq(text, ":") {
				if column+len(part) > columns && column > 1 {
					fold()
				}
				write(part)
			}
		default:
			fold()
			write(text)
		}
	}
	return append(out, '\r', '\n')
}

// digest is the SHA-256 that a signature signs: of fields and of the signature's own
// with an empty b=, all in relaxed form, without the last line end (RFC 6376 §3.7).
func digest(fields [][]byte, own []byte) [sha256.Size]byte {
	var data []byte
	for _, f := range fields {
		data = dkim.Relaxed.AppendField(data, f)
	}
	data = dkim.Relaxed.AppendField(data, own)
	return sha256.Sum256(data[:len(data)-2])
}

// resultsField makes an ARC-Authentication-Results field (RFC 8617 §4.1.1).
func resultsField(instance string, found authres.Field) []byte {
	rest := strings.TrimPrefix(found.Format(), authres.Name+":")
	head := FieldResults + ": i=" + instance + ";"
	if line := strings.IndexByte(rest, '\r'); len(head)+line > lineLength && rest[0] == ' ' {
		head += "\r\n"
	}
	return []byte(head + rest)
}
