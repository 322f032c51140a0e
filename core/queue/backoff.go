package queue

import "time"

// Schedule says when messages are tried again and for how long.
type Schedule struct {
	Min, Max       time.Duration // between attempts; 300 s and 4000 s
	Lifetime       time.Duration // of a message; 5 days
	BounceLifetime time.Duration // of a message with the null reverse-path; 5 days
	Delay          time.Duration // after which the sender is told; 4 h, negative: never
}

func (s Schedule) withDefaults() Schedule {
	or := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	or(&s.Min, 300*time.Second)
	or(&s.Max, 4000*time.Second)
	or(&s.Lifetime, 5*24*time.Hour)
	or(&s.BounceLifetime, 5*24*time.Hour)
	or(&s.Delay, 4*time.Hour)
	return s
}

// jitter is how far an interval may be from its mean, as a part of it: messages
// that were deferred together are not tried together.
const jitter = 0.1

// wait is the time between attempt n, from 1, and the next: Min, doubled with
// each attempt up to Max, times 1±jitter, and never outside of Min and Max.
// random is in [0, 1).
func (s Schedule) wait(n int, random float64) time.Duration {
	d := float64(s.Min)
	for ; n > 1 && d < float64(s.Max); n-- {
		d *= 2
	}
	d = min(d, float64(s.Max)) * (1 - jitter + 2*jitter*random)
	return time.Duration(min(max(d, float64(s.Min)), float64(s.Max)))
}

// lifetime is how long m may wait.
func (s Schedule) lifetime(m *Message) time.Duration {
	if m.Envelope.From.IsNull() {
		return s.BounceLifetime
	}
	return s.Lifetime
}
