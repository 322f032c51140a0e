package mbox

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Writer writes messages one after another. It is for one goroutine.
type Writer struct {
	w *bufio.Writer
}

// NewWriter returns a Writer.
func NewWriter(w io.Writer) *Writer { return &Writer{w: bufio.NewWriterSize(w, maxLine)} }

// Flush writes what is left in memory.
func (w *Writer) Flush() error { return w.w.Flush() }

// Write adds the message that r gives, whose CRLFs become LFs. Its fields Status,
// X-Status and X-Keywords are left out where they would be taken for those that e
// gives it.
func (w *Writer) Write(e Envelope, r io.Reader) error {
	if _, err := w.w.WriteString(formatFrom(e.Sender, e.Date)); err != nil {
		return fmt.Errorf("write mbox: %w", err)
	}
	_, _ = w.w.WriteString(e.Flags.fields()) // an error stays for the next write
	in := bufio.NewReaderSize(r, maxLine)
	start, header, hide, last := true, true, false, byte('\n')
	for {
		piece, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return fmt.Errorf("write mbox: %w", err)
		}
		end := errors.Is(err, io.EOF)
		if errors.Is(err, bufio.ErrBufferFull) && piece[len(piece)-1] == '\r' { // its LF may follow
			piece = piece[:len(piece)-1]
			if err := in.UnreadByte(); err != nil {
				return fmt.Errorf("write mbox: %w", err)
			}
		}
		if n := len(piece); n > 0 {
			whole := piece[n-1] == '\n'
			if whole && n > 1 && piece[n-2] == '\r' {
				piece = append(piece[:n-2], '\n')
			}
			if start && header {
				header = len(piece) > 1 || !whole
				if piece[0] != ' ' && piece[0] != '\t' {
					if hide = header && hidden(piece); hide {
						piece = bytes.Clone(piece)
						hide = !folded(in)
					}
				}
				hide = hide && header
			}
			if !hide {
				if start && isFrom(piece) {
					_ = w.w.WriteByte('>') // an error stays for the next write
				}
				last = piece[len(piece)-1]
				if _, err := w.w.Write(piece); err != nil {
					return fmt.Errorf("write mbox: %w", err)
				}
			}
			start = whole
		}
		if end {
			break
		}
	}
	if last != '\n' {
		_ = w.w.WriteByte('\n')
	}
	if err := w.w.WriteByte('\n'); err != nil {
		return fmt.Errorf("write mbox: %w", err)
	}
	return nil
}

// isFrom reports whether a line is "From " behind any number of ">".
func isFrom(line []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(line, ">"), []byte("From "))
}

// hidden reports whether reading would take a field for one that holds flags.
func hidden(line []byte) bool {
	f := fields{m: &Message{}}
	return f.take(line)
}

// folded reports whether the next line goes on with the field.
func folded(in *bufio.Reader) bool {
	next, err := in.Peek(1)
	return err == nil && (next[0] == ' ' || next[0] == '\t')
}

// fields are the flags as header fields. Status is always there, so that every
// program sees that the message is not new to the folder.
func (f Flags) fields() string {
	var b strings.Builder
	b.WriteString("Status: ")
	if f.Seen {
		b.WriteByte('R')
	}
	b.WriteString("O\n")
	letters := ""
	for _, l := range []struct {
		set    bool
		letter string
	}{{f.Answered, "A"}, {f.Flagged, "F"}, {f.Draft, "T"}, {f.Deleted, "D"}} {
		if l.set {
			letters += l.letter
		}
	}
	if letters != "" {
		b.WriteString("X-Status: " + letters + "\n")
	}
	var words []string
	for _, k := range f.Keywords {
		if k != "" && strings.IndexFunc(k, func(r rune) bool { return r <= ' ' || r == 0x7f }) < 0 {
			words = append(words, k)
		}
	}
	if len(words) > 0 {
		b.WriteString("X-Keywords: " + strings.Join(words, " ") + "\n")
	}
	return b.String()
}
