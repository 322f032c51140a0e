package imapd

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/wafermail/wafer/core/maildir"
)

// seenBatch is how many messages get \Seen in one step of the store. A client
// that goes away in the midst of a long FETCH has not read what it did not get.
const seenBatch = 64

// cmdFetch is FETCH and UID FETCH.
func (s *session) cmdFetch(p *parser, byUID bool) (done, error) {
	q, err := p.fetchQuery()
	if err != nil {
		return done{}, err
	}
	if byUID {
		if !q.wants(fetchUID) {
			q.items = append([]fetchItem{{kind: fetchUID}}, q.items...)
		}
	}
	if q.vanished && (!byUID || !s.qresync) {
		return done{}, bad("VANISHED is for UID FETCH after ENABLE QRESYNC")
	}
	if q.partial != nil && !byUID {
		return done{}, bad("PARTIAL is for UID FETCH")
	}
	if q.wants(fetchModSeq) {
		s.useCondstore()
	}
	s.arrivals()
	if q.vanished {
		s.vanishedSince(q.set, q.changedSince)
	}
	seqs, err := s.view.pick(q.set, byUID)
	if err != nil {
		return done{}, err
	}
	if q.partial != nil {
		seqs = q.partial.window(seqs)
	}
	run := fetchRun{s: s, q: &q, opens: q.opens(), seen: q.marksSeen() && !s.view.readOnly, flags: q.wants(fetchFlags), byUID: byUID}
	if run.opens {
		defer s.view.noted()
	}
	look := ahead{v: s.view, headers: q.asksHeaders(), structure: q.wants(fetchBody) || q.wants(fetchBodyStructure), rev2: s.rev2}
	if look.headers || look.structure {
		look.uids = s.view.uids(seqs)
		defer look.end()
	}
	reached := 0
	for _, sp := range seqs {
		for n := sp.lo; n <= sp.hi; n++ {
			i := int(n - 1)
			look.reach(reached)
			reached++
			if run.seen && run.marked <= i {
				if err := run.markSeen(i, int(min(sp.hi, n+seenBatch-1))); err != nil {
					return done{}, err
				}
			}
			if err := run.message(i); err != nil {
				return done{}, err
			}
			if s.out.err != nil {
				return done{}, s.out.err
			}
		}
	}
	switch {
	case run.failed:
		return done{}, no("UNAVAILABLE", "Some messages could not be read")
	case run.expunged:
		return done{}, no("EXPUNGEISSUED", textExpunged)
	case run.unknown:
		return done{}, no("UNKNOWN-CTE", "Transfer encoding of a part is unknown")
	}
	return done{}, nil
}

// dateTimeLayout is how dates go over the wire (RFC 9051 §9, date-time).
const dateTimeLayout = "02-Jan-2006 15:04:05 -0700"

// fetchRun is one FETCH under way.
type fetchRun struct {
	s      *session
	q      *fetchQuery
	opens  bool
	seen   bool
	flags  bool // FLAGS are asked for
	byUID  bool
	marked int // messages below this index have been given \Seen

	expunged, unknown, failed bool
}

// markSeen sets \Seen on the messages from index i up to but not with end.
func (r *fetchRun) markSeen(i, end int) error {
	v := r.s.view
	r.marked = end
	var uids []uint32
	for ; i < end; i++ {
		if v.msgs[i].Flags&maildir.Seen == 0 && !v.isGone(i) {
			uids = append(uids, v.msgs[i].UID)
		}
	}
	if len(uids) == 0 {
		return nil
	}
	if _, _, err := v.folder.SetFlags(r.s.ctx, uids, maildir.FlagAdd, maildir.Seen, 0); err != nil {
		return r.s.storeError("store flags", v.name, err)
	}
	r.s.view.merge()
	return nil
}

// message sends one FETCH response.
func (r *fetchRun) message(i int) error {
	s, v := r.s, r.s.view
	m := &v.msgs[i]
	if r.q.changedSince > 0 && m.ModSeq <= r.q.changedSince {
		return nil
	}
	if v.isGone(i) && r.opens {
		r.expunged = true
		return nil
	}
	var msg *message
	if r.opens || m.Size < 0 && r.q.wants(fetchSize) {
		msg = v.message(m.UID)
		msg.size = m.Size
		defer msg.close()
		switch err := r.prepare(msg); {
		case errors.Is(err, maildir.ErrExpunged):
			r.expunged = true
			return nil
		case err != nil:
			s.log.Error("read message", "user", s.user, "mailbox", v.name, "uid", m.UID, "err", err)
			r.failed = true
			return nil
		}
	}
	s.out.str("* ")
	s.out.num(uint64(i + 1))
	s.out.str(" FETCH (")
	for k, it := range r.q.items {
		if k > 0 {
			s.out.byte(' ')
		}
		if err := r.item(it, m, msg); err != nil {
			s.out.flush()
			s.out.fail(err) // in the midst of a reply nothing else can be said
			return err
		}
	}
	if _, changed := v.dirty[m.UID]; changed || r.flags {
		if !r.flags {
			s.out.byte(' ')
			s.writeFlags(m)
			if s.condstore && !r.q.wants(fetchModSeq) {
				s.out.str(" MODSEQ (")
				s.out.num(m.ModSeq)
				s.out.byte(')')
			}
		}
		v.clean(m.UID)
	}
	s.out.byte(')')
	s.out.crlf()
	return nil
}

// prepare reads what the items need, so that errors show before the reply begins.
func (r *fetchRun) prepare(msg *message) error {
	for _, it := range r.q.items {
		var err error
		switch it.kind {
		case fetchSize:
			if msg.size < 0 {
				err = msg.open()
			}
		case fetchEnvelope:
			_, err = msg.envelope()
		case fetchEmailID:
			_, err = msg.emailID()
		case fetchPreview:
			_, err = msg.preview()
		case fetchBody, fetchBodyStructure:
			_, _, err = msg.structure(r.s.rev2)
		case fetchBinary, fetchBinarySize:
			err = msg.parse()
		case fetchSection:
			if _, err = msg.section(it.section); errors.Is(err, errNoSection) {
				err = nil
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// size is a message's size, which is measured when it is asked for the first time.
func (r *fetchRun) size(m *maildir.Message, msg *message) int64 {
	if m.Size < 0 {
		return msg.content.Size()
	}
	return m.Size
}

// item writes one data item.
func (r *fetchRun) item(it fetchItem, m *maildir.Message, msg *message) error {
	w := &r.s.out
	switch it.kind {
	case fetchFlags:
		r.s.writeFlags(m)
	case fetchUID:
		w.str("UID ")
		w.num(uint64(m.UID))
	case fetchDate:
		w.str(`INTERNALDATE "`)
		w.str(m.Date.Format(dateTimeLayout))
		w.byte('"')
	case fetchSize:
		w.str("RFC822.SIZE ")
		w.num(uint64(r.size(m, msg)))
	case fetchModSeq:
		w.str("MODSEQ (")
		w.num(m.ModSeq)
		w.byte(')')
	case fetchSaveDate:
		if saved, ok := saveDate(m); ok {
			w.str(`SAVEDATE "` + saved.Format(dateTimeLayout) + `"`)
		} else {
			w.str("SAVEDATE NIL")
		}
	case fetchThreadID:
		w.str("THREADID NIL")
	case fetchEmailID:
		id, err := msg.emailID()
		w.str("EMAILID (" + id + ")")
		return err
	case fetchPreview:
		text, err := msg.preview()
		w.str("PREVIEW ")
		w.text(text)
		return err
	case fetchEnvelope:
		env, err := msg.envelope()
		w.str("ENVELOPE ")
		w.octets(env)
		return err
	case fetchBody, fetchBodyStructure:
		body, structure, err := msg.structure(r.s.rev2)
		if it.kind == fetchBody {
			w.str("BODY ")
			w.octets(body)
			return err
		}
		w.str("BODYSTRUCTURE ")
		w.octets(structure)
		return err
	case fetchSection:
		return r.section(it.section, msg)
	case fetchBinary, fetchBinarySize:
		return r.binary(it, msg)
	}
	return nil
}

// section writes BODY[…].
func (r *fetchRun) section(sec *section, msg *message) error {
	w := &r.s.out
	w.str(sec.label)
	part, err := msg.section(sec)
	if errors.Is(err, errNoSection) {
		w.str(" NIL")
		return nil
	}
	if err != nil {
		return err
	}
	part = sec.cut(w, part)
	writeLiteral(w, part, false)
	return w.err
}

// cut applies the partial to what a section stands for, and writes its origin.
func (sec *section) cut(w *writer, part slice) slice {
	if !sec.partial {
		return part
	}
	w.byte('<')
	w.num(uint64(sec.offset))
	w.byte('>')
	off := min(sec.offset, part.size)
	return slice{part.r, part.off + off, min(sec.count, part.size-off)}
}

// writeLiteral streams a slice.
func writeLiteral(w *writer, part slice, binary bool) {
	w.byte(' ')
	if binary {
		w.byte('~')
	}
	w.byte('{')
	w.num(uint64(part.size))
	w.str("}\r\n")
	w.bytes(part.r, part.off, part.size)
}

// binary writes BINARY[…] or BINARY.SIZE[…] (RFC 3516). The size has to be known
// before the octets, so a decoded part is read twice rather than kept.
func (r *fetchRun) binary(it fetchItem, msg *message) error {
	w, sec := &r.s.out, it.section
	w.str(sec.label)
	part, err := msg.section(sec)
	if errors.Is(err, errNoSection) {
		if it.kind == fetchBinarySize {
			w.str(" 0")
		} else {
			w.str(" NIL")
		}
		return nil
	}
	if err != nil {
		return err
	}
	encoding := ""
	if len(sec.part) > 0 {
		leaf := findPart(msg.tree, sec.part)
		if leaf.Parts == nil && leaf.Message == nil {
			encoding = leaf.Encoding
		}
	}
	open := func() (io.Reader, bool) {
		return decodeTransfer(encoding, io.NewSectionReader(part.r, part.off, part.size))
	}
	src, known := open()
	if !known {
		r.unknown = true
		if it.kind == fetchBinarySize {
			w.str(" 0")
		} else {
			w.str(" NIL")
		}
		return nil
	}
	count := &octetCounter{}
	if _, err := io.Copy(count, src); err != nil {
		return err
	}
	if it.kind == fetchBinarySize {
		w.str(fmt.Sprintf(" %d", count.n))
		return nil
	}
	off, n := int64(0), count.n
	if sec.partial {
		w.str(fmt.Sprintf("<%d>", sec.offset))
		off = min(sec.offset, count.n)
		n = min(sec.count, count.n-off)
	}
	w.byte(' ')
	if count.nul {
		w.byte('~')
	}
	w.str(fmt.Sprintf("{%d}\r\n", n))
	src, _ = open()
	if _, err := io.CopyN(io.Discard, src, off); err != nil {
		return err
	}
	if _, err := io.CopyN(writerTo{w}, src, n); err != nil {
		return err
	}
	return w.err
}

// octetCounter counts octets and looks for NUL.
type octetCounter struct {
	n   int64
	nul bool
}

func (c *octetCounter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	c.nul = c.nul || bytes.IndexByte(p, 0) >= 0
	return len(p), nil
}

// writerTo makes a writer an io.Writer.
type writerTo struct{ w *writer }

func (t writerTo) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), 4096)
		t.w.room(n)
		t.w.buf = append(t.w.buf, rest[:n]...)
		rest = rest[n:]
	}
	return len(p), t.w.err
}
