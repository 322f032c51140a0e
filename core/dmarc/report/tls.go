package report

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// TLS is an SMTP TLS report (RFC 8460 §4.4).
type TLS struct {
	Org        string      `json:"organization-name"`
	Begin, End time.Time   `json:"-"`
	Contact    string      `json:"contact-info"`
	ID         string      `json:"report-id"`
	Policies   []TLSPolicy `json:"policies"`
}

// TLSPolicy is what happened under one policy.
type TLSPolicy struct {
	Type      string   // "tlsa", "sts" or "no-policy-found"
	Strings   []string // the policy's lines, or TLSA records
	Domain    string
	MX        []string // patterns of an MTA-STS policy
	Successes int64    // sessions
	Failures  int64
	Details   []TLSFailure
}

// TLSFailure counts sessions that failed in the same way.
type TLSFailure struct {
	Result        string `json:"result-type"` // RFC 8460 §4.3: "certificate-expired" and so on
	SendingIP     string `json:"sending-mta-ip,omitempty"`
	ReceivingMX   string `json:"receiving-mx-hostname,omitempty"`
	ReceivingHelo string `json:"receiving-mx-helo,omitempty"`
	ReceivingIP   string `json:"receiving-ip,omitempty"`
	Sessions      int64  `json:"failed-session-count"`
	More          string `json:"additional-information,omitempty"`
	Reason        string `json:"failure-reason-code,omitempty"`
}

// Gzip writes the report as RFC 8460 §5.1 wants it, compressed.
func (t TLS) Gzip(w io.Writer) error {
	type dates struct {
		Begin string `json:"start-datetime"`
		End   string `json:"end-datetime"`
	}
	type policy struct {
		Type    string   `json:"policy-type"`
		Strings []string `json:"policy-string,omitempty"`
		Domain  string   `json:"policy-domain"`
		MX      []string `json:"mx-host,omitempty"`
	}
	type summary struct {
		Successes int64 `json:"total-successful-session-count"`
		Failures  int64 `json:"total-failure-session-count"`
	}
	type result struct {
		Policy  policy       `json:"policy"`
		Summary summary      `json:"summary"`
		Details []TLSFailure `json:"failure-details,omitempty"`
	}
	type whole struct {
		TLS
		Dates    dates    `json:"date-range"`
		Policies []result `json:"policies"`
	}
	all := whole{TLS: t, Policies: []result{}}
	all.Dates = dates{t.Begin.UTC().Format(time.RFC3339), t.End.UTC().Format(time.RFC3339)}
	for _, p := range t.Policies {
		all.Policies = append(all.Policies, result{
			policy{p.Type, p.Strings, p.Domain, p.MX}, summary{p.Successes, p.Failures}, p.Details,
		})
	}
	z := gzip.NewWriter(w)
	err := json.NewEncoder(z).Encode(all)
	if e := z.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("write TLS report: %w", err)
	}
	return nil
}

// readTLS reads JSON.
func readTLS(r *bufio.Reader, l Limits) (*TLS, error) {
	j := &jsonReader{d: json.NewDecoder(r), limits: l}
	j.d.UseNumber()
	t := new(TLS)
	err := j.object(func(key string) error {
		switch key {
		case "organization-name":
			return j.text(&t.Org)
		case "contact-info":
			return j.text(&t.Contact)
		case "report-id":
			return j.text(&t.ID)
		case "date-range":
			return j.object(func(key string) error {
				switch key {
				case "start-datetime":
					return j.time(&t.Begin)
				case "end-datetime":
					return j.time(&t.End)
				}
				return j.skip()
			})
		case "policies":
			return j.array(func() error {
				var p TLSPolicy
				err := j.policy(&p)
				t.Policies = append(t.Policies, p)
				return err
			})
		}
		return j.skip()
	})
	if err != nil {
		return nil, unexpected(err)
	}
	return t, nil
}

func (j *jsonReader) policy(p *TLSPolicy) error {
	return j.object(func(key string) error {
		switch key {
		case "policy":
			return j.object(func(key string) error {
				switch key {
				case "policy-type":
					return j.text(&p.Type)
				case "policy-string":
					return j.texts(&p.Strings)
				case "policy-domain":
					return j.text(&p.Domain)
				case "mx-host":
					return j.texts(&p.MX)
				}
				return j.skip()
			})
		case "summary":
			return j.object(func(key string) error {
				switch key {
				case "total-successful-session-count":
					return j.number(&p.Successes)
				case "total-failure-session-count":
					return j.number(&p.Failures)
				}
				return j.skip()
			})
		case "failure-details":
			return j.array(func() error {
				var f TLSFailure
				err := j.failure(&f)
				p.Details = append(p.Details, f)
				return err
			})
		}
		return j.skip()
	})
}

func (j *jsonReader) failure(f *TLSFailure) error {
	return j.object(func(key string) error {
		switch key {
		case "result-type":
			return j.text(&f.Result)
		case "sending-mta-ip":
			return j.text(&f.SendingIP)
		case "receiving-mx-hostname":
			return j.text(&f.ReceivingMX)
		case "receiving-mx-helo":
			return j.text(&f.ReceivingHelo)
		case "receiving-ip":
			return j.text(&f.ReceivingIP)
		case "failed-session-count":
			return j.number(&f.Sessions)
		case "additional-information", "additional-info-uri": // the latter in drafts
			return j.text(&f.More)
		case "failure-reason-code", "failure-error-code":
			return j.text(&f.Reason)
		}
		return j.skip()
	})
}

// jsonReader goes through a document token by token, so that a small one cannot ask
// for much memory.
type jsonReader struct {
	d       *json.Decoder
	limits  Limits
	depth   int
	entries int
}

// token reads the next token. null is nil.
func (j *jsonReader) token() (json.Token, error) {
	t, err := j.d.Token()
	if err != nil {
		return nil, err
	}
	switch v := t.(type) {
	case json.Delim:
		if v == '{' || v == '[' {
			j.depth++
		} else {
			j.depth--
		}
		if j.depth > j.limits.Depth {
			return nil, beyond("more than %d levels", j.limits.Depth)
		}
	case string:
		if len(v) > j.limits.Text {
			return nil, beyond("a text of more than %d octets", j.limits.Text)
		}
	}
	return t, nil
}

// rest reads what remains of a value whose first token is t.
func (j *jsonReader) rest(t json.Token) error {
	if d, ok := t.(json.Delim); !ok || d != '{' && d != '[' {
		return nil
	}
	for depth := j.depth; j.depth >= depth; {
		if _, err := j.token(); err != nil {
			return err
		}
	}
	return nil
}

// skip reads a value.
func (j *jsonReader) skip() error {
	t, err := j.token()
	if err != nil {
		return err
	}
	return j.rest(t)
}

// object calls f for each key of an object. Another value is passed over.
func (j *jsonReader) object(f func(key string) error) error {
	t, err := j.token()
	if err != nil || t != json.Delim('{') {
		return or(err, j.rest, t)
	}
	for {
		t, err := j.token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		if !ok {
			return nil // "}"
		}
		if err := f(key); err != nil {
			return err
		}
	}
}

// array calls f for each value of an array. Another value is passed over.
func (j *jsonReader) array(f func() error) error {
	t, err := j.token()
	if err != nil || t != json.Delim('[') {
		return or(err, j.rest, t)
	}
	for j.d.More() {
		if j.entries++; j.entries > j.limits.Entries {
			return beyond("more than %d entries", j.limits.Entries)
		}
		if err := f(); err != nil {
			return err
		}
	}
	_, err = j.token()
	return err
}

func or(err error, rest func(json.Token) error, t json.Token) error {
	if err != nil {
		return err
	}
	return rest(t)
}

// text reads a string; of a number, its digits. Another value is passed over.
func (j *jsonReader) text(to *string) error {
	t, err := j.token()
	if err != nil {
		return err
	}
	return j.take(t, to)
}

func (j *jsonReader) take(t json.Token, to *string) error {
	switch v := t.(type) {
	case string:
		*to = v
	case json.Number:
		*to = v.String()
	}
	return j.rest(t)
}

// texts reads an array of strings, or one string, as some write it.
func (j *jsonReader) texts(to *[]string) error {
	t, err := j.token()
	if err != nil {
		return err
	}
	if t != json.Delim('[') {
		var s string
		err := j.take(t, &s)
		if s != "" {
			*to = append(*to, s)
		}
		return err
	}
	for j.d.More() {
		if j.entries++; j.entries > j.limits.Entries {
			return beyond("more than %d entries", j.limits.Entries)
		}
		var s string
		if err := j.text(&s); err != nil {
			return err
		}
		*to = append(*to, s)
	}
	_, err = j.token()
	return err
}

func (j *jsonReader) number(to *int64) error {
	var s string
	if err := j.text(&s); err != nil {
		return err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return fmt.Errorf("%.40q is no number", s)
	}
	*to = n
	return nil
}

func (j *jsonReader) time(to *time.Time) error {
	var s string
	if err := j.text(&s); err != nil {
		return err
	}
	t, err := time.Parse(time.RFC3339, strings.TrimSpace(s))
	if err != nil {
		return fmt.Errorf("%.40q is no time", s)
	}
	*to = t.UTC()
	return nil
}
