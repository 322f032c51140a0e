package policy

// Bounds of what accumulates over a session's checks.
const (
	maxFields = 64
	maxTags   = 64
	maxPaths  = 100
)

// add joins effects, up to their bounds.
func (e *Effects) add(more Effects) {
	e.Prepend = bounded(e.Prepend, more.Prepend, maxFields)
	e.Tags = bounded(e.Tags, more.Tags, maxTags)
	e.Redirect = bounded(e.Redirect, more.Redirect, maxPaths)
	e.BCC = bounded(e.BCC, more.BCC, maxPaths)
	e.Score += more.Score
	e.Tarpit = max(e.Tarpit, more.Tarpit)
	e.Delay = max(e.Delay, more.Delay)
	if e.Transport == "" { // the first check that says so decides
		e.Transport, e.Hop = more.Transport, more.Hop
	}
	if e.Limit == 0 || more.Limit > 0 && more.Limit < e.Limit {
		e.Limit = more.Limit
	}
}

func bounded[T any](have, more []T, limit int) []T {
	if room := limit - len(have); len(more) > room {
		more = more[:max(room, 0)]
	}
	return append(have, more...)
}
