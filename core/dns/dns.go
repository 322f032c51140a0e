// Package dns looks names up. A Resolver takes a Question and gives an Answer
// that tells apart what mail has to tell apart: records, a name without such
// records, a name that does not exist, and not knowing (which must defer mail,
// never refuse it).
//
// Live asks recursive servers, Cache remembers what another Resolver said and
// asks it once for many who want to know the same, Zone answers from memory for
// tests and rehearsals. LookupAll asks a batch in parallel; Reverse maps an
// address to a name and back.
//
// Everything is bounded: the time of a lookup, the records of an answer, the
// length of a CNAME chain, lookups under way, and the cache in octets. Names may be
// given with U-labels; answers have A-labels, in lower case and without the
// last dot.
//
// # BUGS
//
// Nothing is validated here. Answer.Authentic repeats what the server says, and
// only where the configuration trusts the path to it; without a validating
// resolver on this host it means nothing. CNAMEs are followed as far as the
// server gives them: a server that is not recursive is of no use. The list of
// servers is read once. Search domains and /etc/hosts are not looked at.
package dns

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// Question is one lookup. Type is one of "A", "AAAA", "MX", "TXT", "PTR", "NS",
// "CNAME", "SOA", "SRV", "TLSA", in capitals. Name is a domain name with or
// without its last dot; for PTR it may be an IP address.
type Question struct{ Type, Name string }

// Status is the outcome of a lookup.
type Status uint8

// The outcomes. The zero value is Temporary, so that an answer which nobody
// filled in is never taken for a fact.
const (
	Temporary Status = iota // SERVFAIL, timeout, nonsense: try later
	Found                   // records follow
	NoData                  // the name exists without records of this type
	NXDomain                // the name does not exist (RFC 1035 §4.1.1, RFC 8020)
)

// String is the outcome in words for logs.
func (s Status) String() string {
	return [...]string{"temporary", "found", "nodata", "nxdomain"}[s&3]
}

// Answer is the result of one Question.
type Answer struct {
	Status  Status
	Records []string // A, AAAA: addresses; MX: "10 host"; TXT: the joined strings (RFC 7208 §3.3); others: as in a zone file, names without the last dot
	Name    string   // canonical name: the end of the CNAME chain
	// Authentic is the AD bit (RFC 4035 §3.2.3) of a server that may be
	// believed; false whenever in doubt.
	Authentic bool
	TTL       time.Duration // how long the answer may be kept
	Err       error         // why Status is Temporary, for the log
}

// Resolver answers questions. It returns when ctx ends at the latest and is
// safe for concurrent use.
type Resolver interface {
	Lookup(ctx context.Context, q Question) Answer
}

// maxParallel is how many questions of one batch are asked at once.
const maxParallel = 16

// LookupAll asks all questions in parallel, at most 16 at once, and returns the
// answers in the questions' order. It returns when all are answered.
func LookupAll(ctx context.Context, r Resolver, qs []Question) []Answer {
	answers := make([]Answer, len(qs))
	if len(qs) == 1 {
		answers[0] = r.Lookup(ctx, qs[0])
		return answers
	}
	var group sync.WaitGroup
	slots := make(chan struct{}, maxParallel)
	for i, q := range qs {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			answers[i] = r.Lookup(ctx, q)
		})
	}
	group.Wait()
	return answers
}

// MX is a mail exchanger (RFC 5321 §5.1).
type MX struct {
	Preference uint16
	Host       string // "." for the null MX (RFC 7505)
}

// ParseMX reads a record of an MX answer.
func ParseMX(record string) (MX, error) {
	pref, host, ok := strings.Cut(record, " ")
	n, err := strconv.ParseUint(pref, 10, 16)
	if !ok || err != nil || host == "" {
		return MX{}, errors.New("malformed MX record")
	}
	return MX{uint16(n), host}, nil
}

// Lookup limits of RFC 1035 §2.3.4, in octets.
const (
	maxName  = 253 // as text, without the last dot
	maxLabel = 63
)

// canonical returns the name of q with A-labels, in lower case and without the
// last dot; an address becomes its name under in-addr.arpa or ip6.arpa. ok is
// false for what cannot be a name, and so cannot exist.
func (q Question) canonical() (name string, ok bool) {
	if q.Type == "PTR" {
		if a, err := netip.ParseAddr(q.Name); err == nil {
			return ReverseName(a), true
		}
	}
	name = strings.TrimSuffix(q.Name, ".")
	if name == "" {
		return "", q.Name == "." // the root
	}
	if len(name) > 2*maxName {
		return "", false
	}
	name = mail.DomainKey(name)
	if len(name) > maxName {
		return "", false
	}
	for _, label := range strings.Split(name, ".") {
		if label == "" || len(label) > maxLabel {
			return "", false
		}
	}
	return name, true
}

// ReverseName is the name under which an address has its PTR records (RFC 1035
// §3.5, RFC 3596 §2.5).
func ReverseName(a netip.Addr) string {
	a = a.Unmap()
	var b strings.Builder
	if a.Is4() {
		v := a.As4()
		for i := 3; i >= 0; i-- {
			b.WriteString(strconv.Itoa(int(v[i])) + ".")
		}
		return b.String() + "in-addr.arpa"
	}
	const digits = "0123456789abcdef"
	v := a.As16()
	for i := 15; i >= 0; i-- {
		b.Write([]byte{digits[v[i]&15], '.', digits[v[i]>>4], '.'})
	}
	return b.String() + "ip6.arpa"
}
