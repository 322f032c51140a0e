package replay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// version begins every entry. An entry of another version cannot be read.
const version = 1

// writer appends values.
type writer struct{ b []byte }

func (w *writer) u(n uint64)       { w.b = binary.AppendUvarint(w.b, n) }
func (w *writer) i(n int64)        { w.b = binary.AppendVarint(w.b, n) }
func (w *writer) s(s string)       { w.u(uint64(len(s))); w.b = append(w.b, s...) }
func (w *writer) raw(b []byte)     { w.u(uint64(len(b))); w.b = append(w.b, b...) }
func (w *writer) f(f float64)      { w.b = binary.LittleEndian.AppendUint64(w.b, math.Float64bits(f)) }
func (w *writer) path(p mail.Path) { w.s(p.String()) }

func (w *writer) flags(all ...bool) {
	var n uint64
	for i, on := range all {
		if on {
			n |= 1 << i
		}
	}
	w.u(n)
}

// t is a time in UTC; the zero time is kept as such.
func (w *writer) t(t time.Time) {
	if t.IsZero() {
		w.i(0)
		w.u(0)
		return
	}
	w.i(t.Unix())
	w.u(uint64(t.Nanosecond()) + 1)
}

func (w *writer) texts(list []string) {
	w.u(uint64(len(list)))
	for _, s := range list {
		w.s(s)
	}
}

func (w *writer) paths(list []mail.Path) {
	w.u(uint64(len(list)))
	for _, p := range list {
		w.path(p)
	}
}

func (w *writer) addr(a netip.AddrPort) {
	if !a.IsValid() {
		w.s("")
		return
	}
	w.s(a.String())
}

func (w *writer) status(s mail.Status) {
	w.u(uint64(s.Code))
	w.s(s.Enhanced)
	w.s(s.Text)
}

// Encode appends a to b.
func Encode(b []byte, a *policy.Asked) []byte {
	w := &writer{append(b, version)}
	w.event(&a.Event)
	w.flags(a.Content, a.Directory)
	w.u(uint64(a.Generation))
	w.decision(&a.Decision)
	w.u(uint64(len(a.Calls)))
	for i := range a.Calls {
		w.called(&a.Calls[i])
	}
	w.u(uint64(len(a.Facts)))
	for _, f := range a.Facts {
		w.path(f.Path)
		w.flags(f.Owners)
		w.texts(f.Texts)
	}
	w.u(uint64(len(a.Fields)))
	for _, f := range a.Fields {
		w.s(f.Name)
		w.u(uint64(f.Index))
		w.s(f.Value)
		w.flags(f.OK)
	}
	w.u(uint64(len(a.Reads)))
	for i := range a.Reads {
		r := &a.Reads[i]
		w.i(r.Off)
		w.u(uint64(r.Want))
		w.u(uint64(r.N))
		w.flags(r.End, r.Data != nil)
		w.b = append(w.b, r.Sum[:]...)
		if r.Data != nil {
			w.raw(r.Data)
		}
	}
	return w.b
}

func (w *writer) event(e *policy.Event) {
	w.u(uint64(e.Stage))
	w.t(e.Time)
	w.s(e.Session)
	w.s(e.Door)
	w.s(e.Protocol)
	w.addr(e.Server)
	w.s(e.Hostname)
	w.addr(e.Client)
	w.s(e.ClientName)
	w.s(e.ReverseName)
	w.flags(e.Trusted, e.EarlyTalker, e.Extended, e.AuthOK, e.HasSender)
	w.s(e.Helo)
	w.s(e.TLS.Version)
	w.s(e.TLS.Cipher)
	w.s(e.TLS.SNI)
	w.s(e.User)
	w.s(e.Mechanism)
	w.s(string(e.QueueID))
	w.path(e.Sender)
	w.path(e.Recipient)
	w.paths(e.Rcpts)
	w.i(e.Size)
	w.u(uint64(e.Attempts))
	w.s(e.Reply)
	w.s(e.Notice)
}

func (w *writer) decision(d *policy.Decision) {
	w.u(uint64(d.Action))
	w.status(d.Status)
	w.flags(d.Hangup)
	w.effects(&d.Effects)
	w.s(d.Check)
	w.s(d.Reason)
	w.s(string(d.ID))
}

func (w *writer) effects(e *policy.Effects) {
	w.u(uint64(len(e.Prepend)))
	for _, f := range e.Prepend {
		w.s(f.Name)
		w.s(f.Value)
	}
	w.texts(e.Tags)
	w.f(e.Score)
	w.paths(e.Redirect)
	w.paths(e.BCC)
	w.i(int64(e.Tarpit))
	w.s(e.Transport)
	w.s(e.Hop)
	w.i(int64(e.Delay))
	w.i(int64(e.Limit))
}

func (w *writer) called(c *policy.Called) {
	w.s(c.Check)
	w.s(c.Digest)
	w.flags(c.Observed)
	w.t(c.Now)
	w.u(uint64(c.Verdict.Action))
	w.status(c.Verdict.Status)
	w.s(c.Verdict.Reason)
	w.effects(&c.Verdict.Effects)
	w.s(c.Err)
	w.i(c.Fuel)
	w.u(uint64(len(c.Answers)))
	for i := range c.Answers {
		a := &c.Answers[i]
		w.u(uint64(a.Kind))
		w.s(a.Key)
		w.i(a.Delta)
		w.i(int64(a.Span))
		w.raw(a.Value)
		w.texts(a.Texts)
		w.i(a.N)
		w.flags(a.OK)
		w.t(a.First)
		w.t(a.Last)
		w.s(a.Failed)
	}
}

// errEntry says that an entry is none, or damaged.
var errEntry = errors.New("the entry is damaged")

// reader takes values; after the first that makes no sense all are zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) u() uint64 {
	n, k := binary.Uvarint(r.b)
	if k <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[k:]
	return n
}

func (r *reader) i() int64 {
	n, k := binary.Varint(r.b)
	if k <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[k:]
	return n
}

func (r *reader) fail() { r.b, r.bad = nil, true }

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) s() string { return string(r.take(r.u())) }

func (r *reader) raw() []byte {
	b := r.take(r.u())
	if len(b) == 0 {
		return nil
	}
	return append([]byte(nil), b...)
}

func (r *reader) f() float64 {
	b := r.take(8)
	if b == nil {
		return 0
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b))
}

func (r *reader) flags(all ...*bool) {
	n := r.u()
	for i, on := range all {
		*on = n&(1<<i) != 0
	}
}

func (r *reader) t() time.Time {
	s, ns := r.i(), r.u()
	if ns == 0 || ns > 1e9 {
		return time.Time{}
	}
	return time.Unix(s, int64(ns-1))
}

// count is a number of things that take at least one octet each.
func (r *reader) count() int {
	n := r.u()
	if n > uint64(len(r.b)) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) small() int {
	n := r.u()
	if n > 1<<40 {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) texts() (list []string) {
	for range r.count() {
		list = append(list, r.s())
	}
	return list
}

func (r *reader) path() mail.Path {
	p, err := mail.ParsePath(r.s(), true)
	if err != nil {
		r.fail()
	}
	return p
}

func (r *reader) paths() (list []mail.Path) {
	for range r.count() {
		list = append(list, r.path())
	}
	return list
}

func (r *reader) addr() netip.AddrPort {
	s := r.s()
	if s == "" {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		r.fail()
	}
	return a
}

func (r *reader) status() mail.Status {
	return mail.Status{Code: r.small(), Enhanced: r.s(), Text: r.s()}
}

// Decode reads an entry that Encode has made.
func Decode(b []byte) (*policy.Asked, error) {
	if len(b) == 0 || b[0] != version {
		return nil, fmt.Errorf("%w: it is of another version", errEntry)
	}
	r := &reader{b: b[1:]}
	a := &policy.Asked{}
	r.event(&a.Event)
	r.flags(&a.Content, &a.Directory)
	a.Generation = r.small()
	r.decision(&a.Decision)
	for range r.count() {
		a.Calls = append(a.Calls, r.called())
	}
	for range r.count() {
		f := policy.Fact{Path: r.path()}
		r.flags(&f.Owners)
		f.Texts = r.texts()
		a.Facts = append(a.Facts, f)
	}
	for range r.count() {
		f := policy.HeaderRead{Name: r.s(), Index: r.small(), Value: r.s()}
		r.flags(&f.OK)
		a.Fields = append(a.Fields, f)
	}
	for range r.count() {
		x := policy.BodyRead{Off: r.i(), Want: r.small(), N: r.small()}
		kept := false
		r.flags(&x.End, &kept)
		copy(x.Sum[:], r.take(uint64(len(x.Sum))))
		if kept {
			x.Data = append([]byte{}, r.raw()...)
		}
		a.Reads = append(a.Reads, x)
	}
	if r.bad || len(r.b) > 0 {
		return nil, errEntry
	}
	return a, nil
}

func (r *reader) event(e *policy.Event) {
	e.Stage = policy.Stage(r.u())
	if e.Stage < policy.Connect || e.Stage > policy.LastStage {
		r.fail()
	}
	e.Time = r.t()
	e.Session, e.Door, e.Protocol = r.s(), r.s(), r.s()
	e.Server, e.Hostname, e.Client = r.addr(), r.s(), r.addr()
	e.ClientName, e.ReverseName = r.s(), r.s()
	r.flags(&e.Trusted, &e.EarlyTalker, &e.Extended, &e.AuthOK, &e.HasSender)
	e.Helo = r.s()
	e.TLS = mail.TLS{Version: r.s(), Cipher: r.s(), SNI: r.s()}
	e.User, e.Mechanism, e.QueueID = r.s(), r.s(), mail.ID(r.s())
	e.Sender, e.Recipient, e.Rcpts = r.path(), r.path(), r.paths()
	e.Size, e.Attempts = r.i(), r.small()
	e.Reply, e.Notice = r.s(), r.s()
}

func (r *reader) decision(d *policy.Decision) {
	d.Action, d.Status = policy.Action(r.u()), r.status()
	r.flags(&d.Hangup)
	r.effects(&d.Effects)
	d.Check, d.Reason, d.ID = r.s(), r.s(), mail.ID(r.s())
}

func (r *reader) effects(e *policy.Effects) {
	for range r.count() {
		e.Prepend = append(e.Prepend, policy.Field{Name: r.s(), Value: r.s()})
	}
	e.Tags, e.Score = r.texts(), r.f()
	e.Redirect, e.BCC = r.paths(), r.paths()
	e.Tarpit = time.Duration(r.i())
	e.Transport, e.Hop = r.s(), r.s()
	e.Delay, e.Limit = time.Duration(r.i()), int(r.i())
}

func (r *reader) called() (c policy.Called) {
	c.Check, c.Digest = r.s(), r.s()
	r.flags(&c.Observed)
	c.Now = r.t()
	c.Verdict.Action, c.Verdict.Status, c.Verdict.Reason = policy.Action(r.u()), r.status(), r.s()
	r.effects(&c.Verdict.Effects)
	c.Err, c.Fuel = r.s(), r.i()
	for range r.count() {
		a := policy.HostAnswer{Kind: policy.HostKind(r.u()), Key: r.s(), Delta: r.i(), Span: time.Duration(r.i()), Value: r.raw(), Texts: r.texts(), N: r.i()}
		r.flags(&a.OK)
		a.First, a.Last, a.Failed = r.t(), r.t(), r.s()
		c.Answers = append(c.Answers, a)
	}
	return c
}
