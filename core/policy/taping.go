package policy

import (
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// maxTaped bounds what one moment puts on a tape, in octets, about. What goes beyond it is
// left out, and unknown to a replay.
const maxTaped = 1 << 20

// taping collects an Asked. The zero value of nil collects nothing.
type taping struct {
	asked Asked
	size  int
	full  bool // contents of bodies are kept
}

// room reports whether n octets more fit.
func (t *taping) room(n int) bool {
	t.size += n + 64
	return t.size <= maxTaped
}

// begin starts a moment: checks read ev through the tape from here on.
func (t *taping) begin(ev *Event, generation int) *Event {
	t.asked = Asked{Generation: generation, Calls: t.asked.Calls[:0], Facts: t.asked.Facts[:0], Fields: t.asked.Fields[:0], Reads: t.asked.Reads[:0]}
	t.size = 0
	watched := *ev
	if ev.Directory != nil {
		d := tapedDirectory{t, ev.Directory}
		watched.Directory = d
		// Other versions of the policies may ask what these do not.
		switch {
		case ev.Stage == Mail && !ev.Sender.IsNull():
			d.Class(ev.Sender)
			d.Owners(ev.Sender)
		case ev.Stage == Rcpt && !ev.Recipient.IsNull():
			d.Class(ev.Recipient)
		}
	}
	if ev.Content != nil {
		watched.Content = &tapedContent{t, ev.Content}
	}
	return &watched
}

// call starts a check's part.
func (t *taping) call(c *Check, now time.Time) {
	t.asked.Calls = append(t.asked.Calls, Called{Check: c.label, Digest: c.digest, Observed: c.Observe, Now: now})
}

// answer notes a host's answer.
func (t *taping) answer(a HostAnswer) {
	n := len(t.asked.Calls)
	size := len(a.Key) + len(a.Value)
	for _, s := range a.Texts {
		size += len(s)
	}
	if n > 0 && t.room(size) {
		c := &t.asked.Calls[n-1]
		c.Answers = append(c.Answers, a)
	}
}

// said ends a check's part.
func (t *taping) said(v Verdict, err error, fuel int64) {
	c := &t.asked.Calls[len(t.asked.Calls)-1]
	c.Verdict, c.Fuel = v, fuel
	if err != nil {
		c.Err = err.Error()
	}
}

// skipped takes back the part of a check that was not asked after all.
func (t *taping) skipped() { t.asked.Calls = t.asked.Calls[:len(t.asked.Calls)-1] }

// end is the moment, complete.
func (t *taping) end(ev *Event, d *Decision) *Asked {
	t.asked.Event, t.asked.Decision = *ev, *d
	t.asked.Content, t.asked.Directory = ev.Content != nil, ev.Directory != nil
	t.asked.Event.Directory, t.asked.Event.Content = nil, nil
	return &t.asked
}

func failure(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// tapedDirectory is a Directory whose answers are noted.
type tapedDirectory struct {
	t *taping
	d Directory
}

// Class is the directory's.
func (x tapedDirectory) Class(p mail.Path) string {
	class := x.d.Class(p)
	x.note(Fact{Path: p, Texts: []string{class}})
	return class
}

// Owners are the directory's.
func (x tapedDirectory) Owners(p mail.Path) []string {
	owners := x.d.Owners(p)
	x.note(Fact{Path: p, Owners: true, Texts: owners})
	return owners
}

func (x tapedDirectory) note(f Fact) {
	for i := range x.t.asked.Facts {
		if have := &x.t.asked.Facts[i]; have.Path == f.Path && have.Owners == f.Owners {
			return
		}
	}
	if x.t.room(len(strings.Join(f.Texts, " "))) {
		x.t.asked.Facts = append(x.t.asked.Facts, f)
	}
}

// tapedContent is a Content whose answers are noted.
type tapedContent struct {
	t *taping
	c Content
}

// Header is the content's.
func (x *tapedContent) Header(name string, index int) (string, bool) {
	value, ok := x.c.Header(name, index)
	if x.t.room(len(name) + len(value)) {
		x.t.asked.Fields = append(x.t.asked.Fields, HeaderRead{name, index, value, ok})
	}
	return value, ok
}

// Body is the content's.
func (x *tapedContent) Body(p []byte, off int64) (int, error) {
	n, err := x.c.Body(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, err // a replay will not know
	}
	r := BodyRead{Off: off, Want: len(p), N: max(n, 0), End: err != nil, Sum: sha256.Sum256(p[:max(n, 0)])}
	size := 0
	if x.t.full {
		size = r.N
	}
	if x.t.room(size) {
		if x.t.full {
			r.Data = append([]byte{}, p[:r.N]...)
		}
		x.t.asked.Reads = append(x.t.asked.Reads, r)
	}
	return n, err
}

// RawHeader is the content's; programs outside are shown it, and a replay does not ask
// them.
func (x *tapedContent) RawHeader() []byte {
	if c, ok := x.c.(interface{ RawHeader() []byte }); ok {
		return c.RawHeader()
	}
	return nil
}
