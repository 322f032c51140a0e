package dmarc

import (
	"context"
	"fmt"

	"github.com/wafermail/wafer/core/dns"
)

// ExternalAllowed says where the reports that policyDomain's record sends to dest may
// go (RFC 9990 §4, RFC 7489 §7.1): there, if dest belongs to the same organizational
// domain or says in its DNS that it wants them; to the URIs that it names instead, if
// it does; and nowhere if it does neither, or names a URI of another host. The error is
// a question that had no answer this time.
func ExternalAllowed(ctx context.Context, r dns.Resolver, policyDomain string, dest URI, o LookupOptions) ([]URI, error) {
	domain, ok := canonical(policyDomain)
	host := dest.Host()
	if !ok || host == "" {
		return nil, nil
	}
	if domain == host {
		return []URI{dest}, nil
	}
	w := newWalker(r, o.Mode)
	ours, err := w.org(ctx, domain)
	if err != nil {
		return nil, fmt.Errorf("ask whether %s wants reports on %s: %w", host, domain, err)
	}
	if within(host, ours) {
		theirs, err := w.org(ctx, host)
		if err != nil {
			return nil, fmt.Errorf("ask whether %s wants reports on %s: %w", host, domain, err)
		}
		if theirs == ours {
			return []URI{dest}, nil
		}
	}
	name := domain + "._report._dmarc." + host
	if len(name) > maxName {
		return nil, nil
	}
	a := r.Lookup(ctx, dns.Question{Type: "TXT", Name: name})
	if a.Status == dns.Temporary {
		if a.Err == nil {
			return nil, fmt.Errorf("ask whether %s wants reports on %s: no answer", host, domain)
		}
		return nil, fmt.Errorf("ask whether %s wants reports on %s: %w", host, domain, a.Err)
	}
	allowed := false
	var instead []URI
	for _, txt := range a.Records {
		if rec, ok := parseRecord(txt); ok {
			allowed = true
			if instead == nil {
				instead = rec.RUA
			}
		}
	}
	switch {
	case !allowed:
		return nil, nil
	case len(instead) == 0:
		return []URI{dest}, nil
	}
	for _, u := range instead {
		if u.Host() != host {
			return nil, nil // RFC 9990 §4: neither to the one nor to the other
		}
	}
	return instead, nil
}
