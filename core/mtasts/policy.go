package mtasts

import (
	"bufio"
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
	ID      string        `json:"id"`
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
)

// ParsePolicy reads a policy file. Fields that are not known are passed over.
func ParsePolicy(r io.Reader) (p Policy, err error) {
	in := bufio.NewScanner(io.LimitReader(r, maxPolicy+1))
	in.Buffer(make([]byte, 4096), maxPolicy)
	seen := map[string]bool{}
	size := 0
	for in.Scan() {
		size += len(in.Bytes()) + 1
		line := strings.TrimRight(in.Text(), " \t\r")
		if line == "" {
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			return p, fmt.Errorf("line %.60q is no field", line)
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if key != "mx" && seen[key] {
			continue // the first counts
		}
		seen[key] = true
		switch key {
		case "version":
			if value != "STSv1" {
				return p, fmt.Errorf("version %.20q is not known", value)
			}
		case "mode":
			if value != "enforce" && value != "testing" && value != "none" {
				return p, fmt.Errorf("mode %.20q is not known", value)
			}
			p.Mode = value
		case "max_age":
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil || len(value) > 10 {
				return p, fmt.Errorf("max_age %.20q is no number of seconds", value)
			}
			p.MaxAge = min(time.Duration(n)*time.Second, maxMaxAge)
		case "mx":
			if !mail.ValidDomain(strings.TrimPrefix(value, "*.")) || strings.HasPrefix(value, "[") {
				return p, fmt.Errorf("mx %.60q is no host", value)
			}
			if len(p.MX) < maxMX {
				p.MX = append(p.MX, value)
			}
		}
	}
	switch {
	case in.Err() != nil:
		return p, in.Err()
	case size > maxPolicy:
		return p, fmt.Errorf("a policy of more than %d octets", maxPolicy)
	case !seen["version"]:
		return p, errors.New("there is no version")
	case p.Mode == "":
		return p, errors.New("there is no mode")
	case !seen["max_age"]:
		return p, errors.New("there is no max_age")
	case p.Mode != "none" && len(p.MX) == 0:
		return p, errors.New("there is no mx")
	}
	return p, nil
}

// Match reports whether the policy names host (RFC 8461 §4.1). "*." stands for one
// label.
func (p Policy) Match(host string) bool {
	host = mail.DomainKey(strings.TrimSuffix(host, "."))
	_, parent, _ := strings.Cut(host, ".")
	for _, mx := range p.MX {
		under, wild := strings.CutPrefix(mx, "*.")
		key := mail.DomainKey(strings.TrimSuffix(under, "."))
		if wild && parent == key && parent != "" || !wild && host == key {
			return true
		}
	}
	return false
}

// ParseRecord finds the policy's id among the TXT records of _mta-sts.DOMAIN (RFC
// 8461 §3.1). There must be exactly one record that begins with "v=STSv1".
func ParseRecord(txts []string) (id string, ok bool) {
	n := 0
	for _, t := range txts {
		version, rest, _ := strings.Cut(t, ";")
		if strings.TrimRight(version, " \t") != "v=STSv1" {
			continue
		}
		n++
		for _, f := range strings.Split(rest, ";") {
			key, value, _ := strings.Cut(strings.TrimSpace(f), "=")
			if strings.TrimSpace(key) == "id" && id == "" {
				id = strings.TrimSpace(value)
			}
		}
	}
	if n != 1 || id == "" || len(id) > 32 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
		return "", false
	}
	return id, true
}
