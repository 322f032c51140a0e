package mbox_test

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mbox"
)

type read struct {
	mbox.Envelope
	Text     string
	Internal bool
}

func readAll(t testing.TB, text string) (list []read, err error) {
	t.Helper()
	r := mbox.NewReader(strings.NewReader(text))
	for {
		m, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		b, err := io.ReadAll(m)
		if err != nil {
			return list, err
		}
		list = append(list, read{m.Envelope, string(b), m.Internal})
	}
}

var day = time.Date(2026, 5, 1, 9, 30, 0, 0, time.UTC)

func TestReader(t *testing.T) {
	const from = "From ann@example.org Fri May  1 09:30:00 2026\n"
	ann := mbox.Envelope{Sender: "ann@example.org", Date: day}
	with := func(f mbox.Flags) mbox.Envelope { e := ann; e.Flags = f; return e }
	for _, c := range []struct {
		name, text string
		want       []read
	}{
		{"empty", "", nil},
		{"one", from + "Subject: a\n\nhello\n\n", []read{{ann, "Subject: a\n\nhello\n", false}}},
		{"two", from + "A: 1\n\nx\n\n" + from + "A: 2\n\ny\n", []read{{ann, "A: 1\n\nx\n", false}, {ann, "A: 2\n\ny\n", false}}},
		{"no empty line before", from + "A: 1\n\nx\n" + from + "A: 2\n\ny\n", []read{{ann, "A: 1\n\nx\n", false}, {ann, "A: 2\n\ny\n", false}}},
		{"no end of the last line", from + "A: 1\n\nx", []read{{ann, "A: 1\n\nx\n", false}}},
		{"CRLF", strings.ReplaceAll(from+"A: 1\n\nx\n\n", "\n", "\r\n"), []read{{ann, "A: 1\r\n\r\nx\r\n", false}}},
		{"quoted", from + "A: 1\n\n>From me\n>>From you\n> From\n\n", []read{{ann, "A: 1\n\nFrom me\n>From you\n> From\n", false}}},
		{"From in a text", from + "A: 1\n\nFrom here to there\n\n", []read{{ann, "A: 1\n\nFrom here to there\n", false}}},
		{"empty lines at the end", from + "A: 1\n\nx\n\n\n\n" + from + "\ny\n", []read{{ann, "A: 1\n\nx\n\n\n", false}, {ann, "\ny\n", false}}},
		{"header only", from + "A: 1\n" + from + "B: 2\n\n", []read{{ann, "A: 1\n", false}, {ann, "B: 2\n", false}}},
		{"flags", from + "Status: RO\nX-Status: AFT\nX-Keywords: $Work x\nX-UID: 7\nA: 1\n\nx\n", []read{{with(mbox.Flags{Seen: true, Answered: true, Flagged: true, Draft: true, Keywords: []string{"$Work", "x"}}), "A: 1\n\nx\n", false}}},
		{"Status of another kind", from + "Status: in progress\nA: 1\n\nx\n", []read{{ann, "Status: in progress\nA: 1\n\nx\n", false}}},
		{"Status in the body", from + "A: 1\n\nStatus: RO\n", []read{{ann, "A: 1\n\nStatus: RO\n", false}}},
		{"notes of c-client", from + "Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\nX-IMAP: 1 2\n\nx\n\n" + from + "A: 1\n\ny\n", []read{{ann, "Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n\nx\n", true}, {ann, "A: 1\n\ny\n", false}}},
		{"no sender", "From MAILER-DAEMON Fri May  1 09:30:00 2026\nA: 1\n\nx\n", []read{{mbox.Envelope{Date: day}, "A: 1\n\nx\n", false}}},
		{"date with a zone", "From ann@example.org Fri May  1 11:30:00 2026 +0200\nA: 1\n\nx\n", []read{{ann, "A: 1\n\nx\n", false}}},
		{"no date", "From ann@example.org\nA: 1\n\nx\n", []read{{mbox.Envelope{Sender: "ann@example.org"}, "A: 1\n\nx\n", false}}},
		{"UUCP", "From ann Fri May  1 09:30:00 2026 remote from host\nA: 1\n\nx\n", []read{{mbox.Envelope{Sender: "ann", Date: day}, "A: 1\n\nx\n", false}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := readAll(t, c.text)
			if err != nil {
				t.Fatal(err)
			}
			for i := range got {
				got[i].Date = got[i].Date.UTC()
				if got[i].Date.IsZero() {
					got[i].Date = time.Time{}
				}
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestNoMbox(t *testing.T) {
	for _, text := range []string{"hello\n", "Return-Path: <a@b>\n\nx\n", "\x00\x01\x02", "from a\n"} {
		if _, err := readAll(t, text); !errors.Is(err, mbox.ErrFormat) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestRoundTrip writes messages that try to end early, and reads them back.
func TestRoundTrip(t *testing.T) {
	long := strings.Repeat("x", 200_000)
	texts := []string{
		"Subject: a\r\n\r\nhello\r\n",
		"Subject: b\r\n\r\nFrom eve@example.org Fri May  1 09:30:00 2026\r\n>From x\r\n",
		"From: a\r\nStatus: RO\r\nX-Status: D\r\nX-Keywords: no\r\n\r\nStatus: RO\r\n",
		"\r\nno header\r\n",
		"A: " + long + "\r\n\r\n" + long + "\r\nFrom " + long + "\r\n",
		"Subject: folded\r\n From here\r\n\r\n",
		"no end",
		"",
	}
	var b strings.Builder
	w := mbox.NewWriter(&b)
	flags := mbox.Flags{Seen: true, Flagged: true, Keywords: []string{"$Work"}}
	for _, text := range texts {
		if err := w.Write(mbox.Envelope{Sender: "ann@example.org", Date: day, Flags: flags}, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	got, err := readAll(t, b.String())
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(texts) {
		t.Fatalf("%d messages, want %d", len(got), len(texts))
	}
	for i, text := range texts {
		want := strings.ReplaceAll(text, "\r\n", "\n")
		if i == 2 { // fields that would be taken for the flags are not written
			want = "From: a\n\nStatus: RO\n"
		}
		if want != "" && !strings.HasSuffix(want, "\n") {
			want += "\n"
		}
		if got[i].Text != want {
			t.Errorf("message %d: %.120q, want %.120q", i, got[i].Text, want)
		}
		if !reflect.DeepEqual(got[i].Flags, flags) || got[i].Sender != "ann@example.org" || !got[i].Date.Equal(day) {
			t.Errorf("message %d: %+v", i, got[i].Envelope)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add("From a Fri May  1 09:30:00 2026\nStatus: R\n\n>From x\n\n")
	f.Add("From \n\r\n\x00")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := readAll(t, text)
		if err != nil {
			return
		}
		// What has been read is written, and read again as the same.
		var b strings.Builder
		w := mbox.NewWriter(&b)
		for _, m := range got {
			if err := w.Write(m.Envelope, strings.NewReader(m.Text)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		again, err := readAll(t, b.String())
		if err != nil || len(again) != len(got) {
			t.Fatalf("%d messages, then %d: %v\n%q", len(got), len(again), err, b.String())
		}
	})
}
