package queue

import (
	"context"
	"slices"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// Ages are the upper bounds of the columns of Shape, as in qshape; what is older is
// in one more column.
func Ages() []time.Duration {
	m := time.Minute
	return []time.Duration{5 * m, 10 * m, 20 * m, 40 * m, 80 * m, 160 * m, 320 * m, 640 * m, 1280 * m}
}

// ShapeRow says how many recipients wait for a domain, by age.
type ShapeRow struct {
	Domain string
	Total  int
	ByAge  []int // by column of Ages, and one more
}

// Shape counts waiting recipients of the filter's messages by age and domain of
// recipient, or of sender; the domain with most of them comes first, after a row
// for all, whose Domain is "TOTAL".
func (q *Queue) Shape(ctx context.Context, f Filter, senders bool) ([]ShapeRow, error) {
	ages := Ages()
	row := func(domain string) *ShapeRow { return &ShapeRow{Domain: domain, ByAge: make([]int, len(ages)+1)} }
	total, byDomain := row("TOTAL"), map[string]*ShapeRow{}
	now := time.Now()
	err := q.List(ctx, f, func(e Entry) error {
		col, _ := slices.BinarySearch(ages, now.Sub(e.Envelope.Received))
		for i := range e.Rcpts {
			r := &e.Rcpts[i]
			if r.State != Waiting {
				continue
			}
			domain := mail.DomainKey(r.To.Domain())
			if senders {
				if domain = mail.DomainKey(e.Envelope.From.Domain()); e.Envelope.From.IsNull() {
					domain = "MAILER-DAEMON"
				}
			}
			d := byDomain[domain]
			if d == nil {
				d = row(domain)
				byDomain[domain] = d
			}
			for _, x := range [2]*ShapeRow{d, total} {
				x.Total++
				x.ByAge[col]++
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	rows := make([]ShapeRow, 0, len(byDomain)+1)
	for _, d := range byDomain {
		rows = append(rows, *d)
	}
	slices.SortFunc(rows, func(a, b ShapeRow) int {
		if a.Total != b.Total {
			return b.Total - a.Total
		}
		if a.Domain < b.Domain {
			return -1
		}
		return 1
	})
	return append([]ShapeRow{*total}, rows...), nil
}

// Stats are figures for metrics.
type Stats struct {
	Deferred, Active, Held, Parked                                     int // messages
	Running                                                            int // deliveries
	Destinations, Suspended                                            int
	Oldest                                                             time.Time
	Accepted, Sent, Deferrals, Failed, Expired, Notices, Aside, Panics int64 // since the start; recipients for Sent to Expired
}

// Stats counts. It looks at every message in memory once.
func (q *Queue) Stats() Stats {
	t := &q.tally
	s := Stats{
		Accepted: t.accepted.Load(), Sent: t.sent.Load(), Deferrals: t.deferred.Load(), Failed: t.failed.Load(),
		Expired: t.expired.Load(), Notices: t.notices.Load(), Aside: t.aside.Load(), Panics: t.panics.Load(),
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	oldest := int64(0)
	for _, it := range q.items {
		switch it.state {
		case deferred:
			s.Deferred++
		case active:
			s.Active++
		case held:
			s.Held++
		case parked:
			s.Parked++
		}
		if oldest == 0 || it.arrived < oldest {
			oldest = it.arrived
		}
	}
	if oldest != 0 {
		s.Oldest = time.Unix(0, oldest)
	}
	s.Running, s.Destinations = q.running, len(q.places)
	for _, d := range q.places {
		if d.dead && now.Before(d.until) {
			s.Suspended++
		}
	}
	return s
}
