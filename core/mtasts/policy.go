package mtasts

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// Policy is what a domain says about its mail exchangers (RFC 8461 §3.2).
type Policy struct {
	ID      string        `json:"id"`   // of the record that announced it
	Mode    string        `json:"mode"` // "enforce", "testing" or "none"
	MX      []string      `json:"mx"`   // names, or "*." and a name
	MaxAge  time.Duration `json:"max_age"`
	Fetched time.Time     `json:"fetched"`
}

// Bounds of a policy.
const (
	maxPolicy = 64 << 10 // octets
	maxMX     = 256
	maxMaxAge = 31557600 * time.Second // RFC 8461 §3.2
	maxID     = 32                     // characters of an id, and of the name of a field
	maxRecord = 4 << 10                // octets of a TXT record
)

// letters and digits are what names and ids are made of.
const (
	digits  = "0123456789"
	letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// ParsePolicy reads a policy file (RFC 8461 §3.2), of at most 64 KiB and 256 mail
// exchangers. Fields that are not known are passed over; of one that stands twice the
// first counts. A max_age of more than a year is taken for a year. ID and Fetched are
// left empty.
func ParsePolicy(r io.Reader) (Policy, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxPolicy+1))
	if err != nil {
		return Policy{}, err
	}
	if len(b) > maxPolicy {
		return Policy{}, fmt.Errorf("more than %d octets", maxPolicy)
	}
	var p Policy
	seen := make(map[string]bool, 4)
	for line := range strings.SplitSeq(string(b), "\n") {
		line = strings.TrimRight(strings.TrimSuffix(line, "\r"), " \t")
		if line == "" {
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok || !isField(key) || strings.ContainsFunc(value, isControl) {
			return Policy{}, fmt.Errorf("line %.60q is no field", line)
		}
		value = strings.Trim(value, " \t")
		switch key {
		case "version", "mode", "max_age":
			if seen[key] {
				continue
			}
			seen[key] = true
		}
		if err := p.set(key, value); err != nil {
			return Policy{}, err
		}
	}
	for _, key := range []string{"version", "mode", "max_age"} {
		if !seen[key] {
			return Policy{}, fmt.Errorf("there is no %s", key)
		}
	}
	return p, p.check()
}

// set takes one field.
func (p *Policy) set(key, value string) error {
	switch key {
	case "version":
		if value != "STSv1" {
			return fmt.Errorf("version %.20q is not known", value)
		}
	case "mode":
		p.Mode = value
	case "max_age":
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil || len(value) > 10 {
			return fmt.Errorf("max_age %.20q is no number of seconds", value)
		}
		p.MaxAge = time.Duration(min(n, uint64(maxMaxAge/time.Second))) * time.Second
	case "mx":
		p.MX = append(p.MX, value)
	}
	return nil
}

// check says what is wrong with a policy.
func (p Policy) check() error {
	switch {
	case p.Mode != "enforce" && p.Mode != "testing" && p.Mode != "none":
		return fmt.Errorf("mode %.20q is not known", p.Mode)
	case p.MaxAge < 0 || p.MaxAge > maxMaxAge:
		return errors.New("max_age is out of bounds")
	case p.Mode != "none" && len(p.MX) == 0:
		return errors.New("there is no mx")
	case len(p.MX) > maxMX:
		return fmt.Errorf("more than %d mx", maxMX)
	}
	for _, mx := range p.MX {
		if !isHost(mail.DomainKey(plain(mx))) {
			return fmt.Errorf("mx %.60q is no host", mx)
		}
	}
	return nil
}

// plain is a pattern without its wildcard and last dot.
func plain(mx string) string { return strings.TrimSuffix(strings.TrimPrefix(mx, "*."), ".") }

// Match reports whether the policy names host (RFC 8461 §4.1), in any case and with or
// without its last dot. "*." stands for one label. It does not look at Mode.
func (p Policy) Match(host string) bool {
	host = mail.DomainKey(strings.TrimSuffix(host, "."))
	first, parent, _ := strings.Cut(host, ".")
	for _, mx := range p.MX {
		want := mail.DomainKey(plain(mx))
		if strings.HasPrefix(mx, "*.") {
			if first != "" && parent != "" && parent == want {
				return true
			}
		} else if host != "" && host == want {
			return true
		}
	}
	return false
}

// ParseRecord finds the policy's id among the TXT records of _mta-sts.DOMAIN (RFC
// 8461 §3.1). Other records may stand beside it; with two, or one that is malformed,
// the domain has no policy.
func ParseRecord(txts []string) (id string, ok bool) {
	for _, t := range txts {
		version, fields, more := strings.Cut(t, ";")
		if !more || strings.TrimRight(version, " \t") != "v=STSv1" {
			continue
		}
		if id != "" {
			return "", false
		}
		if id = recordID(fields); id == "" {
			return "", false
		}
	}
	return id, id != ""
}

// recordID reads what follows the version; "" if that is malformed or without an id.
func recordID(fields string) (id string) {
	if len(fields) > maxRecord {
		return ""
	}
	// One semicolon may stand at the end.
	fields = strings.TrimRight(strings.TrimSuffix(strings.TrimRight(fields, " \t"), ";"), " \t")
	for f := range strings.SplitSeq(fields, ";") {
		key, value, ok := strings.Cut(strings.Trim(f, " \t"), "=")
		switch {
		case !ok || !isField(key) || value == "" || strings.ContainsFunc(value, notInValue):
			return ""
		case key == "id" && id == "":
			if id = value; len(id) > maxID || strings.Trim(id, letters+digits) != "" {
				return ""
			}
		}
	}
	return id
}

// isField reports whether s can be the name of a field (RFC 8461 §3.1, §3.2).
func isField(s string) bool {
	return s != "" && len(s) <= maxID && strings.ContainsAny(s[:1], letters+digits) && strings.Trim(s, letters+digits+"_-.") == ""
}

// notInValue reports what no value of a record has: anything but visible ASCII, and
// "=" and ";".
func notInValue(r rune) bool { return r <= ' ' || r > '~' || r == '=' || r == ';' }

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// isHost reports whether s is a host's name in A-labels, as it can stand in a URL.
func isHost(s string) bool {
	return mail.ValidDomain(s) && strings.Trim(s, letters+digits+"-_.") == ""
}
