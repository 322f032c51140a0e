package dkim

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"strings"

	"github.com/wafermail/wafer/core/dns"
	"github.com/wafermail/wafer/core/mail"
)

// CheckRecord looks the record of a key up and says in plain words what is wrong with
// it: nothing there, another key, revoked, not for mail, doubled, and so on. A nil
// error means that what the key signs can be verified by everybody.
func CheckRecord(ctx context.Context, r dns.Resolver, key Key) error {
	key.Domain, key.Selector = mail.DomainKey(key.Domain), mail.DomainKey(key.Selector)
	if err := checkKey(key); err != nil {
		return err
	}
	name := KeyName(key.Domain, key.Selector)
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("TXT record at %s: %w", name, fmt.Errorf(format, args...))
	}
	a := r.Lookup(ctx, dns.Question{Type: "TXT", Name: name})
	switch a.Status {
	case dns.Found:
	case dns.NXDomain:
		return wrong("it is not there: the name does not exist")
	case dns.NoData:
		return wrong("it is not there: the name has no TXT record")
	default:
		return wrong("it cannot be looked up now: %w", errors.Join(errors.New(a.Status.String()), a.Err))
	}
	if len(a.Records) > 1 {
		return wrong("there are %d records where one should be; verifiers may take any of them", len(a.Records))
	}
	record := a.Records[0]
	public, fault := ParseRecord(record)
	if fault != nil {
		return wrong("%s%s", fault.Text, hint(record))
	}
	algorithm, err := algorithm(key.Private)
	if err != nil {
		return err
	}
	if fault := public.fits(&Signature{Algorithm: algorithm, Domain: key.Domain}); fault != nil {
		return wrong("%s", fault.Text)
	}
	if own, ok := key.Private.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !own.Equal(public.Key) {
		return wrong("it has another %s key than ours; the tag p differs", public.Type)
	}
	if public.Testing {
		return wrong("it has the flag t=y (testing), so verifiers take no notice of our signatures")
	}
	return nil
}

// hint names a likely slip in a record that cannot be read.
func hint(record string) string {
	switch {
	case strings.Contains(record, `"`):
		return `; there are quotation marks in it, which belong around the strings of a zone file only`
	case strings.Contains(record, `\;`):
		return `; there are backslashes before its semicolons`
	case !strings.Contains(record, "p="):
		return "; a key record looks like v=DKIM1; k=rsa; p=…"
	}
	return ""
}
