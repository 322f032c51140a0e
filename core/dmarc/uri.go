package dmarc

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/core/mail"
)

// URI is where reports go (RFC 9989 §4.6).
type URI struct {
	Text   string    // without the size
	Scheme string    // in lower case
	Mail   mail.Path // of a mailto URI
	// Max is the octets of the largest report that is wanted, 0 if it was not said.
	// RFC 9989 §4.8 says to ignore it; RFC 7489 §6.2 does not.
	Max uint64
}

// Host is the domain that the reports go to, canonical; "" if the URI has none.
func (u URI) Host() string {
	host := u.Mail.Domain()
	if u.Scheme != "mailto" {
		if p, err := url.Parse(u.Text); err == nil {
			host = p.Hostname()
		}
	}
	host, _ = canonical(host)
	return host
}

// maxURI is the octets of a URI.
const maxURI = 2048

// ParseURI reads a URI of rua or ruf: any URI with a scheme, and behind it perhaps a
// size as in "!10m", with k, m, g or t for powers of 1024. A mailto URI must have
// exactly one address; what follows a question mark is not looked at.
func ParseURI(s string) (URI, error) {
	s = strings.Trim(s, wsp)
	if len(s) > maxURI {
		return URI{}, fmt.Errorf("URI is longer than %d octets", maxURI)
	}
	text, size, sized := strings.Cut(s, "!")
	u := URI{Text: text}
	if sized {
		var err error
		if u.Max, err = parseSize(size); err != nil {
			return URI{}, err
		}
	}
	p, err := url.Parse(text)
	switch {
	case err != nil:
		return URI{}, fmt.Errorf("%.60q is no URI", text)
	case p.Scheme == "":
		return URI{}, fmt.Errorf("%.60q has no scheme", text)
	case p.Scheme != "mailto" && p.Host == "" && p.Opaque == "" && p.Path == "":
		return URI{}, fmt.Errorf("%.60q names nothing", text)
	}
	u.Scheme = p.Scheme
	if u.Scheme != "mailto" {
		return u, nil
	}
	address, err := url.PathUnescape(p.Opaque)
	if err != nil || strings.ContainsFunc(address, isControl) {
		return URI{}, fmt.Errorf("%.60q has no address", text)
	}
	if u.Mail, err = mail.ParsePath(address, true); err != nil {
		return URI{}, fmt.Errorf("%.60q has no address: %w", text, err)
	}
	if u.Mail.Domain() == "" {
		return URI{}, fmt.Errorf("%.60q has an address without a domain", text)
	}
	return u, nil
}

func isControl(c rune) bool { return c < ' ' || c == 0x7f }

// parseSize reads "10m".
func parseSize(s string) (uint64, error) {
	if s == "" {
		return 0, errors.New("size of a URI is empty")
	}
	shift := 0
	if i := strings.IndexByte("kmgt", s[len(s)-1]|0x20); i >= 0 {
		shift, s = 10*(i+1), s[:len(s)-1]
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("size %.20q of a URI is no number", s)
	}
	if n > math.MaxUint64>>shift {
		return math.MaxUint64, nil
	}
	return n << shift, nil
}

// parseURIs adds the valid ones of a list with commas between. It is false if there
// was another among them.
func parseURIs(list string, to *[]URI) bool {
	good := true
	for s := range strings.SplitSeq(list, ",") {
		if len(*to) == maxURIs {
			return false
		}
		u, err := ParseURI(s)
		if err != nil {
			good = false
			continue
		}
		*to = append(*to, u)
	}
	return good
}
