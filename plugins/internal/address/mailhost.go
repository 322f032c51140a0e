package address

import (
	"strings"

	"github.com/wafermail/wafer/sdk"
)

// Mail says whether a domain can receive mail.
type Mail uint8

// The answers of Exchanger.
const (
	Found     Mail = iota // it has a mail exchanger or an address
	NotFound              // it has neither
	NullMX                // it says that it takes no mail (RFC 7505)
	Temporary             // DNS does not answer
)

// Exchanger looks up whether mail can be sent to domain (RFC 5321 §5.1). It asks
// one batch: MX, A and AAAA.
func Exchanger(e *sdk.Event, domain string) (Mail, error) {
	as, err := e.DNS(sdk.Question{Type: "MX", Name: domain}, sdk.Question{Type: "A", Name: domain}, sdk.Question{Type: "AAAA", Name: domain})
	if err != nil {
		return Temporary, err
	}
	for _, r := range as[0].Records {
		if preference, host, _ := strings.Cut(r, " "); preference == "0" && (host == "" || host == ".") {
			return NullMX, nil
		}
	}
	temporary := false
	for _, a := range as {
		if a.Status == sdk.DNSOK && len(a.Records) > 0 {
			return Found, nil
		}
		temporary = temporary || a.Status == sdk.DNSTemp
	}
	if temporary {
		return Temporary, nil
	}
	return NotFound, nil
}

// UnknownDomain refuses an address whose domain takes no mail, as Postfix's
// reject_unknown_sender_domain and reject_unknown_recipient_domain do. Without
// an answer the refusal stands only if nothing else refuses.
func UnknownDomain(e *sdk.Event, kind Kind, mailbox string, code int) sdk.Verdict {
	_, domain := Split(mailbox)
	if domain == "" || domain[0] == '[' {
		return sdk.Next()
	}
	found, err := Exchanger(e, WithoutDot(domain))
	if err != nil {
		return sdk.Fail("look up " + domain + ": " + err.Error())
	}
	enhanced, nullCode, nullEnhanced := "4.1.8", 550, "5.7.27"
	if kind == Recipient {
		enhanced, nullCode, nullEnhanced = "4.1.2", 556, "5.1.10"
	}
	switch found {
	case NullMX:
		return Refuse(kind, nullCode, nullEnhanced, mailbox, "Domain "+domain+" does not accept mail (nullMX)").Because("null-mx")
	case NotFound:
		return Refuse(kind, code, enhanced, mailbox, "Domain not found").Because("unknown-domain")
	case Temporary:
		return sdk.DeferIfPermit(450, enhanced, Text(kind, mailbox, "Domain not found")).Because("unknown-domain-tempfail")
	}
	return sdk.Next()
}
