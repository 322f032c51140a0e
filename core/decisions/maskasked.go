package decisions

import (
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// MaskAsked returns what hides addresses in a moment before it is put on a tape, with the
// pseudonyms of the log in dir: equal addresses stay equal. Contents of bodies are left
// out. It is nil for MaskNone.
func MaskAsked(dir string, mask Mask) (func(*policy.Asked), error) {
	m, err := newMasker(dir, mask)
	if err != nil || m.mask == MaskNone {
		return nil, err
	}
	return m.asked, nil
}

// asked masks a, whose slices belong to others.
func (m masker) asked(a *policy.Asked) {
	e := &a.Event
	login := e.User
	text := func(s string) string { return m.word(m.text(s), login) }
	texts := func(list []string) []string { return each(list, text) }
	e.User = m.address(e.User)
	e.Sender, e.Recipient = m.path(e.Sender), m.path(e.Recipient)
	e.Rcpts = m.paths(e.Rcpts)
	e.Reply, e.Helo, e.ClientName = text(e.Reply), m.text(e.Helo), m.text(e.ClientName)
	a.Decision.Status.Text = text(a.Decision.Status.Text)
	a.Decision.Effects = m.effects(a.Decision.Effects, texts)
	calls := make([]policy.Called, len(a.Calls))
	for i, c := range a.Calls {
		c.Err = text(c.Err)
		c.Verdict.Status.Text = text(c.Verdict.Status.Text)
		c.Verdict.Effects = m.effects(c.Verdict.Effects, texts)
		answers := make([]policy.HostAnswer, len(c.Answers))
		for k, x := range c.Answers {
			x.Key, x.Texts = text(x.Key), texts(x.Texts)
			if x.Kind != policy.AskedRandom && len(x.Value) > 0 {
				x.Value = []byte(text(string(x.Value)))
			}
			answers[k] = x
		}
		c.Answers, calls[i] = answers, c
	}
	a.Calls = calls
	facts := make([]policy.Fact, len(a.Facts))
	for i, f := range a.Facts {
		facts[i] = policy.Fact{Path: m.path(f.Path), Owners: f.Owners, Texts: texts(f.Texts)}
	}
	a.Facts = facts
	fields := make([]policy.HeaderRead, len(a.Fields))
	for i, f := range a.Fields {
		f.Value = text(f.Value)
		fields[i] = f
	}
	a.Fields = fields
	reads := make([]policy.BodyRead, len(a.Reads))
	for i, r := range a.Reads {
		r.Data = nil
		reads[i] = r
	}
	a.Reads = reads
}

func (m masker) effects(e policy.Effects, texts func([]string) []string) policy.Effects {
	var fields []policy.Field
	for _, f := range e.Prepend {
		fields = append(fields, policy.Field{Name: f.Name, Value: texts([]string{f.Value})[0]})
	}
	e.Prepend, e.Tags, e.Redirect, e.BCC = fields, texts(e.Tags), m.paths(e.Redirect), m.paths(e.BCC)
	return e
}

func (m masker) path(p mail.Path) mail.Path {
	if p.IsNull() {
		return p
	}
	return p.WithLocal(m.local(p.Local(), p.Domain()))
}

func (m masker) paths(list []mail.Path) []mail.Path {
	masked := make([]mail.Path, len(list))
	for i, p := range list {
		masked[i] = m.path(p)
	}
	return masked
}
