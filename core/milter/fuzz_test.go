package milter

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/wafermail/wafer/core/policy"
)

// FuzzPackets: whatever a milter sends, it is read to an end, and what it comes to
// can be told to a client and written into a header.
func FuzzPackets(f *testing.F) {
	for _, seed := range []string{
		optneg(6, 0xff, 0x7f),
		pack('O', "\x00\x00\x00\x06\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00j {client_ptr}\x00\x00\x00\x00\x02i,{x}\x00"),
		pack('y', "550-5.7.1 one\r\n550 5.7.1 two\x00"),
		pack('i', "\x00\x00\x00\x01X-A\x00b\n c\x00") + pack('m', "\x00\x00\x00\x02From\x00\x00") + pack('c', ""),
		pack('+', "<a@b.example>\x00") + pack('2', "<a@b.example>\x00NOTIFY=NEVER\x00") + pack('e', "<>\x00") + pack('q', "why\x00") + pack('b', "x"),
		"\xff\xff\xff\xff", "\x00\x00\x00\x00",
	} {
		f.Add([]byte(seed))
	}
	ev := &policy.Event{Stage: policy.Message, Content: contentOf(simpleMessage)}
	f.Fuzz(func(t *testing.T, wire []byte) {
		r := bufio.NewReader(bytes.NewReader(wire))
		var changes []change
		for {
			code, data, err := readPacket(r)
			if err != nil {
				break
			}
			if code == cmdOptNeg {
				if terms, err := parseTerms(data); err == nil && (terms.version < oldest || terms.version > newest || len(terms.macros) > maxLists) {
					t.Fatalf("%+v", terms)
				}
				continue
			}
			if c, ok, err := parseChange(code, data); ok && err == nil {
				changes = append(changes, c)
			}
			if a, err := parseAnswer(code, data); err == nil {
				check(t, outcome{answer: a}, ev)
			}
		}
		check(t, outcome{answer: answer{kind: ansContinue}, changes: changes}, ev)
	})
}

// check tests that a verdict is one that can be acted on.
func check(t *testing.T, o outcome, ev *policy.Event) {
	v, _ := o.verdict(ev)
	if !policy.Legal(ev.Stage, v.Action) {
		t.Fatalf("%s is not legal", v.Action)
	}
	if st := v.Status; v.Action.Refuses() != (st.Code >= 400 && st.Code < 600) || len(st.Text) > maxReplyText || strings.ContainsAny(st.Text, "\r\x00") {
		t.Fatalf("%s: %+v", v.Action, st)
	}
	for _, f := range v.Effects.Prepend {
		if !isFieldName(f.Name) || strings.ContainsAny(f.Value, "\r\n\x00") {
			t.Fatalf("%q: %q", f.Name, f.Value)
		}
	}
	for _, p := range v.Effects.BCC {
		if p.Domain() == "" || !utf8.ValidString(p.String()) {
			t.Fatalf("recipient %q", p.String())
		}
	}
}
