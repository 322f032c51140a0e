package mtasts

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"time"

	"github.com/wafermail/wafer/core/dns"
)

// Bounds of a fetch.
const (
	dialTime  = 10 * time.Second // for each address
	addresses = 8                // of a host that are tried
	maxHeader = 64 << 10         // octets
)

// newClient returns a client that follows no redirect (RFC 8461 §3.3) and keeps no
// cookies.
func newClient(o Options) *http.Client {
	var client http.Client
	if o.Client != nil {
		client = *o.Client
	} else {
		client.Transport = &http.Transport{
			DialContext:            dialer(o.Resolver),
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    20 * time.Second,
			DisableKeepAlives:      true, // there is one file on each host
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeader,
		}
	}
	client.Jar = nil
	client.Timeout = lookTime
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client
}

// dialer connects to the host's addresses one after another, as r has them.
func dialer(r dns.Resolver) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		answers := dns.LookupAll(ctx, r, []dns.Question{{Type: "AAAA", Name: host}, {Type: "A", Name: host}})
		// In turns, so that a host with many dead addresses of one family is reached.
		var found []string
		for i := range addresses {
			for _, a := range answers {
				if i < len(a.Records) && len(found) < addresses {
					found = append(found, a.Records[i])
				}
			}
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("host %s has no address: %w", host, errors.Join(errors.New("lookup: "+answers[1].Status.String()), answers[1].Err))
		}
		var failed error
		for _, address := range found {
			conn, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, network, net.JoinHostPort(address, port))
			if err == nil {
				return conn, nil
			}
			failed = err
		}
		return nil, failed
	}
}

// fetch gets the policy of a domain (RFC 8461 §3.3). Only an answer 200 counts, of type
// text/plain, from a host with a certificate for mta-sts.DOMAIN.
func (c *Cache) fetch(ctx context.Context, domain string) (Policy, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://mta-sts."+domain+"/.well-known/mta-sts.txt", nil)
	if err != nil {
		return Policy{}, fmt.Errorf("ask for policy: %w", err)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return Policy{}, fmt.Errorf("ask for policy: %w", err)
	}
	defer resp.Body.Close() // only read
	if resp.StatusCode != http.StatusOK {
		return Policy{}, fmt.Errorf("ask for policy: HTTP status %d", resp.StatusCode)
	}
	kind := resp.Header.Get("Content-Type")
	if media, _, err := mime.ParseMediaType(kind); media != "text/plain" || err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return Policy{}, fmt.Errorf("policy is of type %.60q, not text/plain", kind)
	}
	p, err := ParsePolicy(resp.Body)
	if err != nil {
		return Policy{}, fmt.Errorf("read policy: %w", err)
	}
	return p, nil
}
