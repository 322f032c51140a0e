package dkim_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/dkim"
	"github.com/wafermail/wafer/core/dns"
)

// zone is a resolver with TXT records.
func zone(records map[string][]string) *dns.Zone {
	names := map[string]map[string][]string{}
	for name, txt := range records {
		names[name] = map[string][]string{"TXT": txt}
	}
	return dns.NewZone(names)
}

// clock stands at the time when the outside vectors were already made.
func clock() time.Time { return time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC) }

func verify(t testing.TB, message []byte, r dns.Resolver) []dkim.Result {
	t.Helper()
	return dkim.Verify(context.Background(), bytes.NewReader(message), int64(len(message)), dkim.VerifyOptions{Resolver: r, Now: clock})
}

func passes(results []dkim.Result) bool {
	for _, r := range results {
		if r.Status == dkim.Pass {
			return true
		}
	}
	return false
}
