package report

import (
	"errors"
	"strings"
	"time"

	stdmail "net/mail"

	"github.com/wafermail/wafer/core/mail"
)

// Failure is a report about one message (RFC 5965 §3, RFC 6591 §3).
type Failure struct {
	Type      string // "abuse", "auth-failure", "fraud", "not-spam", "virus", "other"
	UserAgent string
	Version   string
	Auth      string // of an auth-failure: "dmarc", "bodyhash", "signature", "spf" and so on
	Delivery  string // what became of the message: "delivered", "spam", "policy", "reject", "other"
	Identity  string // which results were aligned: "none", "dkim", "spf" or both with a comma
	Arrival   time.Time
	SourceIP  string
	MailFrom  string
	RcptTo    []string
	Domains   []string // that were reported
	URIs      []string
	Results   []string // values of Authentication-Results, folded no more
	Incidents string   // how many there were; "" means one
	Fields    []Field  // all of them, as they were given
}

// Field is a field of a failure report.
type Field struct{ Name, Value string }

// maxFields is how many fields a failure report may have.
const maxFields = 500

// readFailure reads the content of a message/feedback-report part.
func readFailure(b []byte, l Limits) (*Failure, error) {
	f := new(Failure)
	for h := range mail.HeaderFields(b) {
		name, value := h.Name(), h.Value()
		if name == "" {
			continue
		}
		if len(f.Fields) == maxFields {
			return nil, beyond("more than %d fields", maxFields)
		}
		if len(value) > l.Text {
			return nil, beyond("a text of more than %d octets", l.Text)
		}
		f.Fields = append(f.Fields, Field{name, value})
		f.set(strings.ToLower(name), value)
	}
	if f.Type == "" {
		return nil, errors.New("it has no Feedback-Type")
	}
	return f, nil
}

func (f *Failure) set(name, value string) {
	word := strings.ToLower(strings.TrimSpace(value))
	path := strings.TrimSuffix(strings.TrimPrefix(value, "<"), ">")
	switch name {
	case "feedback-type":
		f.Type = word
	case "user-agent":
		f.UserAgent = value
	case "version":
		f.Version = value
	case "auth-failure":
		f.Auth = word
	case "delivery-result":
		f.Delivery = word
	case "identity-alignment":
		f.Identity = word
	case "arrival-date", "received-date":
		f.Arrival = date(value)
	case "source-ip":
		f.SourceIP, _, _ = strings.Cut(value, " ") // some add the name in a comment
	case "original-mail-from":
		f.MailFrom = path
	case "original-rcpt-to":
		f.RcptTo = append(f.RcptTo, path)
	case "reported-domain":
		f.Domains = append(f.Domains, value)
	case "reported-uri":
		f.URIs = append(f.URIs, value)
	case "authentication-results":
		f.Results = append(f.Results, value)
	case "incidents":
		f.Incidents = value
	}
}

// date reads a date and time, with the zones of old (RFC 5322 §4.3) in North America;
// others that have names count as UTC. It is the zero time for what is none.
func date(s string) time.Time {
	for zone, offset := range map[string]string{
		"EDT": "-0400", "EST": "-0500", "CDT": "-0500", "CST": "-0600", "MDT": "-0600", "MST": "-0700", "PDT": "-0700", "PST": "-0800",
	} {
		if at, ok := strings.CutSuffix(strings.TrimSpace(s), " "+zone); ok {
			s = at + " " + offset
			break
		}
	}
	t, err := stdmail.ParseDate(s)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}
