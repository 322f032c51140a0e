package arc

import (
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/authres"
	"github.com/wafermail/wafer/core/dkim"
)

// Trusted looks in a chain that passes for a sealer that is believed and says that the
// message was authenticated when it came there. sealers is asked for the domain of
// seals, in lower case with A-labels. The newest such sealer wins; its domain and what
// it found out are returned.
//
// A sealer is listened to only if what it sealed is what lies before us: if the chain's
// newer seals are all of believed domains, or if its own message signature still
// verifies. Otherwise somebody in between may have written the message anew and put a
// set of their own on top of an honest chain. A message signature that leaves one of
// several From fields unsigned counts for nothing.
//
// What the sealer found out counts if it has dmarc=pass and no other verdict of DMARC;
// or if it has no verdict of DMARC and spf=pass or dkim=pass. In the latter case it is
// up to the caller to compare the domains of those with that of From, and always to see
// to it that there is one From field with one address.
func Trusted(r Result, sealers func(domain string) bool) (domain string, found authres.Field, ok bool) {
	if r.CV != Pass || len(r.Sets) == 0 {
		return "", authres.Field{}, false
	}
	if !sound(r.Sets[len(r.Sets)-1].Message) {
		return "", authres.Field{}, false
	}
	handed := true // all newer sets are of believed sealers
	for _, s := range slices.Backward(r.Sets) {
		believed := sealers(s.Domain)
		if believed && (handed || sound(s.Message)) && authenticated(s.AuthResults) {
			return s.Domain, s.AuthResults, true
		}
		handed = handed && believed
	}
	return "", authres.Field{}, false
}

// sound reports whether a message signature verified and covers each From field.
func sound(c Check) bool {
	return c.Status == dkim.Pass && !slices.Contains(c.UnsignedFields, "from")
}

// authenticated reports whether a sealer says that it knows who sent the message.
func authenticated(f authres.Field) bool {
	dmarc, other := false, false
	for _, r := range f.Results {
		pass := strings.EqualFold(r.Value, "pass")
		switch strings.ToLower(r.Method) {
		case "dmarc":
			switch {
			case pass:
				dmarc = true
			case strings.EqualFold(r.Value, "none"), strings.EqualFold(r.Value, "bestguesspass"): // there is no policy
			default:
				return false
			}
		case "spf", "dkim":
			other = other || pass
		}
	}
	return dmarc || other
}
