package dns

import (
	"context"
	"net/netip"
	"strings"

	"github.com/wafermail/wafer/core/mail"
)

// maxPTR is how many names of one address are tried (RFC 7208 §5.5 has the
// same bound).
const maxPTR = 10

// Names says what an address is called.
type Names struct {
	Reverse  string // the first name that the address maps to, verified or not; "" if none
	Verified string // the first name that also maps to the address; "" if none
	Status   Status // Found: Verified is set; Temporary: it might be, another time; NXDomain, NoData: it has no such name
}

// Reverse looks up the names of addr and confirms them (RFC 8601 §2.7.3, what
// Postfix calls the verified client name): a name counts as verified if its own
// addresses contain addr. At most ten names are tried, in parallel.
func Reverse(ctx context.Context, r Resolver, addr netip.Addr) Names {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() {
		return Names{Status: NoData}
	}
	ptr := r.Lookup(ctx, Question{"PTR", addr.String()})
	if ptr.Status != Found {
		return Names{Status: ptr.Status}
	}
	kind := "AAAA"
	if addr.Is4() {
		kind = "A"
	}
	var qs []Question
	for _, name := range ptr.Records {
		if isHostname(name) && len(qs) < maxPTR {
			qs = append(qs, Question{kind, name})
		}
	}
	if len(qs) == 0 {
		return Names{Status: NoData}
	}
	n := Names{Reverse: qs[0].Name, Status: NoData}
	for i, a := range LookupAll(ctx, r, qs) {
		if a.Status == Temporary {
			n.Status = Temporary
		}
		for _, rec := range a.Records {
			if got, err := netip.ParseAddr(rec); err == nil && got.Unmap() == addr {
				return Names{n.Reverse, qs[i].Name, Found}
			}
		}
	}
	return n
}

// isHostname refuses what must not be printed as a name: PTR records are
// written by whoever owns the address.
func isHostname(s string) bool {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 || r == '[' }) {
		return false
	}
	return mail.ValidDomain(s)
}
