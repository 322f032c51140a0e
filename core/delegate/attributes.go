package delegate

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// attribute is one line of a request or an answer.
type attribute struct{ name, value string }

// The faults of what the other side sends.
var (
	errTooLong = errors.New("more than was agreed on")
	errGarbage = errors.New("not lines of name=value")
)

// readAttributes reads lines up to and with the empty one, in all at most octets
// octets and maxLines lines. The error is io.EOF if the other side has closed
// before the first octet, io.ErrUnexpectedEOF if it has later. A line may end in
// CR LF, for daemons that are written with line libraries.
func readAttributes(r *bufio.Reader, octets int) ([]attribute, error) {
	var all []attribute
	read := 0
	for {
		line, err := readLine(r, min(maxLine, octets-read))
		read += len(line)
		if err != nil {
			if errors.Is(err, io.EOF) && read > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		text := string(bytes.TrimSuffix(line[:len(line)-1], []byte("\r")))
		if text == "" {
			return all, nil
		}
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" || strings.ContainsAny(text, "\x00\r") {
			return nil, fmt.Errorf("line %d: %w", len(all)+1, errGarbage)
		}
		if len(all) == maxLines {
			return nil, fmt.Errorf("%w: %d lines", errTooLong, maxLines)
		}
		all = append(all, attribute{name, value})
	}
}

// readLine reads a line with its LF, at most limit octets. With an error comes
// what was read of it.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return part, fmt.Errorf("%w: %d octets", errTooLong, limit)
		}
		if line == nil && err == nil {
			return part, nil
		}
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// appendAttribute adds a line. Postfix has replaced by then what cannot stand in
// one; here control characters become "?".
func appendAttribute(b []byte, name, value string) []byte {
	b = append(append(b, name...), '=')
	at := len(b)
	b = append(b, value...)
	for i, c := range b[at:] {
		if c < ' ' || c == 0x7f {
			b[at+i] = '?'
		}
	}
	return append(b, '\n')
}
