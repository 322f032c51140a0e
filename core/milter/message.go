package milter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// message tells the milter the message, reads what it wants changed, and ends the
// transaction. It stops where the milter has heard enough.
func (s *session) message(ctx context.Context, ev *policy.Event) (outcome, error) {
	if ev.Content == nil {
		return outcome{}, fmt.Errorf("message: there is no content: %w", errContent)
	}
	for _, part := range []func(context.Context, *policy.Event) (answer, error){s.header, s.endOfHeader, s.body} {
		a, err := part(ctx, ev)
		if err != nil {
			return outcome{}, fmt.Errorf("message: %w", err)
		}
		if !a.goesOn() {
			s.tx.settled = &a
			return outcome{answer: a}, nil
		}
	}
	out, err := s.end(ctx, ev)
	if err != nil {
		return outcome{}, fmt.Errorf("end of message: %w", err)
	}
	s.tx, s.open = nil, false
	return out, nil
}

// header sends the fields, one by one.
func (s *session) header(ctx context.Context, ev *policy.Event) (answer, error) {
	goOn := answer{kind: ansContinue}
	if !s.link.t.wants(cmdHeader) {
		return goOn, nil
	}
	var data []byte
	send := func(name, value string) (answer, error) {
		if s.link.t.steps&leadingSpace == 0 {
			value = trimLeft(value)
		}
		data = appendString(data[:0], name)
		data = appendString(data, value[:min(len(value), maxValue)])
		return s.tell(ctx, ev, cmdHeader, data, mail.Path{})
	}
	a, err := fields(ev.Content, send)
	if a.kind == ansSkip || a.kind == 0 && err == nil {
		return goOn, nil
	}
	return a, err
}

// raw is what a policy.Content may have besides: its header section as it stands,
// up to and with the empty line, as far as Content shows it.
type raw interface{ RawHeader() []byte }

// Bounds of fields that are asked for one by one, which costs their square.
const (
	maxFields = 4000
	maxShown  = 250 << 10 // octets; Content may not show more
)

// errContent says that the milter is not to blame.
var errContent = errors.New("the message cannot be shown to it")

// errHeader says that nobody can tell what the milter would not be told of.
var errHeader = fmt.Errorf("the header section is too long: %w", errContent)

// fields calls send for each field until that does not go on. The value has the
// blanks after the colon, and LF between lines.
func fields(c policy.Content, send func(name, value string) (answer, error)) (a answer, err error) {
	if r, ok := c.(raw); ok {
		block := r.RawHeader()
		if !ends(block) {
			if n, _ := c.Body(make([]byte, 1), 0); n > 0 {
				return a, errHeader
			}
		}
		for f := range mail.HeaderFields(block) {
			name := f.Name()
			if name == "" {
				continue
			}
			_, value, _ := bytes.Cut(f.Raw, []byte{':'})
			value = bytes.TrimSuffix(bytes.TrimSuffix(value, []byte{'\n'}), []byte{'\r'})
			if a, err = send(name, string(bytes.ReplaceAll(value, []byte("\r\n"), []byte{'\n'}))); err != nil || !a.goesOn() {
				return a, err
			}
		}
		return a, nil
	}
	for i, shown := 0, 0; ; i++ {
		field, ok := c.Header("", i)
		if !ok {
			return a, nil
		}
		if shown += len(field) + 2; shown > maxShown || i == maxFields {
			return a, errHeader
		}
		name, value, _ := bytes.Cut([]byte(field), []byte{':'})
		if name = bytes.TrimRight(name, " \t"); len(name) == 0 {
			continue
		}
		if a, err = send(string(name), string(value)); err != nil || !a.goesOn() {
			return a, err
		}
	}
}

// ends reports whether block has the empty line that ends a header section.
func ends(block []byte) bool {
	return bytes.HasSuffix(block, []byte("\n\r\n")) || bytes.HasSuffix(block, []byte("\n\n")) || bytes.Equal(block, []byte("\r\n")) || bytes.Equal(block, []byte("\n"))
}

// trimLeft is s without the blanks and line ends that it begins with.
func trimLeft(s string) string {
	for len(s) > 0 && (s[0] == ' ' || s[0] == '\t' || s[0] == '\n') {
		s = s[1:]
	}
	return s
}

func (s *session) endOfHeader(ctx context.Context, ev *policy.Event) (answer, error) {
	return s.tell(ctx, ev, cmdEOH, nil, mail.Path{})
}

// body sends the body in chunks, as long as the milter wants them.
func (s *session) body(ctx context.Context, ev *policy.Event) (answer, error) {
	goOn := answer{kind: ansContinue}
	if !s.link.t.wants(cmdBody) {
		return goOn, nil
	}
	size := int64(chunkSize)
	if ev.Size > 0 {
		size = min(size, ev.Size+1)
	}
	chunk := make([]byte, size)
	for off := int64(0); ; {
		n, err := ev.Content.Body(chunk, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return answer{}, fmt.Errorf("%w: read the body at %d: %w", errContent, off, err)
		}
		if n > 0 {
			a, err := s.tell(ctx, ev, cmdBody, chunk[:n], mail.Path{})
			if err != nil || !a.goesOn() && a.kind != ansSkip {
				return a, err
			}
			if a.kind == ansSkip {
				return goOn, nil
			}
		}
		if err != nil || n == 0 {
			return goOn, nil
		}
		off += int64(n)
	}
}

// end says that the message is complete, and reads the changes and the last word.
func (s *session) end(ctx context.Context, ev *policy.Event) (out outcome, err error) {
	l, patience := s.link, s.plugin.o.ContentTimeout
	if m := s.plugin.macros.packet(l.t, cmdEOB, ev, mail.Path{}); m != nil {
		if err := l.send(ctx, patience, cmdMacro, m); err != nil {
			return out, err
		}
	}
	if err := l.send(ctx, patience, cmdEOB, nil); err != nil {
		return out, err
	}
	octets, chunks := 0, 0
	for {
		code, data, err := l.receive(ctx, patience)
		if err != nil {
			return outcome{}, err
		}
		c, ok, err := parseChange(code, data)
		if err != nil {
			return outcome{}, err
		}
		if !ok {
			out.answer, err = lastWord(code, data)
			if err == nil && l.r.Buffered() > 0 {
				err = fmt.Errorf("more after the last answer: %w", errGarbage)
			}
			return out, err
		}
		if c.kind == ansReplBody { // no Effect could take it, so it is not kept
			if chunks++; chunks > maxBodySent {
				return outcome{}, fmt.Errorf("a body of more than %d chunks: %w", maxBodySent, errGarbage)
			}
			if chunks > 1 {
				continue
			}
		}
		if octets += c.size(); octets > maxChanged || len(out.changes) == maxChanges {
			return outcome{}, fmt.Errorf("more than %d changes or %d octets of them: %w", maxChanges, maxChanged, errGarbage)
		}
		out.changes = append(out.changes, c)
	}
}

// lastWord reads the answer that ends a message.
func lastWord(code byte, data []byte) (answer, error) {
	a, err := parseAnswer(code, data)
	if err == nil && a.kind == ansSkip {
		err = fmt.Errorf("skip: %w", errGarbage)
	}
	return a, err
}
