package policy

import (
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/wafermail/wafer/core/mail"
)

// Record is what one check said at one moment, as it is written to the decision
// log. The checks that were asked at one moment share its id. Texts that a
// client chose are as it sent them.
type Record struct {
	ID         mail.ID   `json:"id"`
	Time       time.Time `json:"time"`                 // of the event
	Generation int       `json:"generation,omitempty"` // of the configuration; 0: not known
	Version    string    `json:"version,omitempty"`    // name of the rollout or shadow whose policies judged; "": the ordinary ones

	Session    string  `json:"session"`
	Door       string  `json:"door"`   // "mx"
	Stage      string  `json:"stage"`  // "rcpt"
	Client     string  `json:"client"` // IP address
	ClientName string  `json:"client_name,omitempty"`
	Helo       string  `json:"helo,omitempty"`
	TLS        string  `json:"tls,omitempty"` // "TLSv1.3"; "" if the connection is not encrypted
	User       string  `json:"user,omitempty"`
	QueueID    mail.ID `json:"queue_id,omitempty"`
	Sender     string  `json:"sender,omitempty"` // in angle brackets; "" before MAIL
	Recipient  string  `json:"rcpt,omitempty"`
	Recipients int     `json:"rcpts,omitempty"` // accepted so far
	Size       int64   `json:"size,omitempty"`  // octets

	Check  string `json:"check"`            // "policy/check"
	Where  string `json:"where,omitempty"`  // "policies/inbound.hcl:12"
	Plugin string `json:"plugin,omitempty"` // id of the module, "org.example.dnsbl"; "" if the plugin is none
	Digest string `json:"digest,omitempty"` // SHA-256 of the module in hexadecimal
	Mode   string `json:"mode"`             // "enforce" or "observe"

	// Skipped is why the check was not asked: "exempt", "when", "accepted" or
	// "refused" (an earlier check ended the list). "" if it was. Such records
	// are made only if SetOptions.Explain is set.
	Skipped string `json:"skipped,omitempty"`

	Action   string         `json:"action"`         // the verdict: "reject"
	Code     int            `json:"code,omitempty"` // of the reply that the action asks for
	Enhanced string         `json:"enhanced,omitempty"`
	Text     string         `json:"text,omitempty"` // as the plugin gave it
	Reason   string         `json:"reason,omitempty"`
	Effects  *RecordEffects `json:"effects,omitempty"` // nil: none
	Error    string         `json:"error,omitempty"`   // then action is what on_error says

	Calls  []HostCall `json:"calls,omitempty"`
	Fuel   int64      `json:"fuel,omitempty"` // units of the module's budget
	Micros int64      `json:"us"`             // duration in microseconds, with waiting
}

// RecordEffects is Effects as text.
type RecordEffects struct {
	Prepend  []string `json:"prepend,omitempty"` // "Name: value"
	Tags     []string `json:"tags,omitempty"`
	Score    float64  `json:"score,omitempty"`
	Redirect []string `json:"redirect,omitempty"`
	BCC      []string `json:"bcc,omitempty"`
	Tarpit   int64    `json:"tarpit_ms,omitempty"`

	Transport string `json:"transport,omitempty"`
	Hop       string `json:"hop,omitempty"`
	Delay     int64  `json:"delay_ms,omitempty"`
	Limit     int    `json:"limit,omitempty"`
}

// HostCall is one question that a check put to the host. Of one call at most 512
// are recorded, with at most 256 KiB in all; of one question or answer 4 KiB.
// What of a message was read is noted without its contents.
type HostCall struct {
	// Call is the ABI's name: now random get header body dns count state_get
	// state_put state_seen list.
	Call string `json:"call"`
	// Ask is "MX example.org" (dns), "KEY +1 1m0s" (count), KEY (state_get), "KEY
	// TTL VALUE" (state_put), "KEY TTL" (state_seen), "LIST KEY" (list), the
	// fact's name (get), "NAME INDEX" (header), "OFFSET OCTETS" (body).
	Ask string `json:"ask,omitempty"`
	// Answer is the records joined by spaces (dns), the sum (count), the value
	// (state_get, list, get), "COUNT FIRST LAST" of earlier sightings
	// (state_seen), the number of octets (header, body), octets in hexadecimal
	// (random), a time (now).
	Answer string `json:"answer,omitempty"`
	// Status is "ok", "not-found" or "temporary" for dns; "ok" or "not-found"
	// where a key may be missing; the error's text where there was one; else "".
	Status string `json:"status,omitempty"`
}

// DecisionLog takes the record of every decision. It is called by many
// sessions at once and must not block for long.
type DecisionLog interface{ Decided(Record) }

// JSONLog writes records as JSON, one on a line.
type JSONLog struct {
	mu sync.Mutex
	w  io.Writer
}

// NewJSONLog returns a DecisionLog that writes to w.
func NewJSONLog(w io.Writer) *JSONLog { return &JSONLog{w: w} }

// Decided writes one line. What cannot be written is dropped: a full disk must
// not stop mail here.
func (l *JSONLog) Decided(r Record) {
	b, err := json.Marshal(r)
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.w.Write(append(b, '\n'))
}
