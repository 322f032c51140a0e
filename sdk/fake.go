//go:build !wasip1

package sdk

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/wafermail/wafer/sdk/abi"
)

// Serve does nothing here: natively a plugin is asked through a Fake.
func Serve(*Plugin) struct{} { return struct{}{} }

// Facts is an event as a test writes it; the fields are those of Event.
type Facts struct {
	Stage                               Stage
	Session, Door, Protocol             string
	Client                              string
	ClientPort                          int
	ClientName, Helo, User              string
	Sender, Recipient                   string
	RecipientCount                      int
	Size                                int64
	Hostname, QueueID                   string
	Trusted, EarlyTalker, Extended, TLS bool
	AuthOK, HasSender                   bool
	Rare                                map[string]string // by the Fact constants
}

// Fake is a host for tests: the plugin's whole world. Set the fields before or
// between calls.
type Fake struct {
	Clock   time.Time                    // now; advance it by assignment
	Zone    map[string]Answer            // DNS: "A mail.example.com" → answer; absent means DNSNotFound
	Lists   map[string]map[string]string // by name the list's keys with their values
	Header  []string                     // the message's header fields from the top: "Name: value", unfolded
	Body    []byte                       // the message's octets after the empty line
	Grants  []string                     // what the check is granted
	Lines   []string                     // what the plugin logged: "level text"
	Asked   []Question                   // every DNS question so far
	Metrics map[string]int64             // what the plugin counted with Event.Metric

	plugin *Plugin
	judge  Judge
	facts  Facts
	ops    int // count and state calls of this event
	counts map[string][]counted
	values map[string]kept
	seen   map[string]kept
	drawn  uint64 // random octets so far
}

type counted struct {
	at    time.Time
	delta int64
}

// kept is a value of state or a sighting, until its time is over.
type kept struct {
	value    []byte
	sighting Sighting
	until    time.Time
}

// NewFake returns a host for p that grants all of p's grants and whose clock
// stands at the first of January 2026.
func NewFake(p *Plugin) *Fake {
	f := &Fake{
		Clock:   time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		Zone:    make(map[string]Answer),
		Lists:   make(map[string]map[string]string),
		Metrics: make(map[string]int64),
		plugin:  p,
		counts:  make(map[string][]counted),
		values:  make(map[string]kept),
		seen:    make(map[string]kept),
	}
	for _, g := range p.Grants {
		f.Grants = append(f.Grants, g.Name)
	}
	return f
}

// Configure checks values against the plugin's fields, as the server does, and
// configures the plugin.
func (f *Fake) Configure(values map[string][]string) error {
	if len(f.plugin.manifest()) > abi.MaxResult {
		return fmt.Errorf("manifest is longer than %d octets", abi.MaxResult)
	}
	for name := range values {
		if !slices.ContainsFunc(f.plugin.Fields, func(d Field) bool { return d.Name == name }) {
			return &ConfigError{Field: name, Text: "unknown field"}
		}
	}
	var b []byte
	for i := range f.plugin.Fields {
		d := &f.plugin.Fields[i]
		v, given := values[d.Name]
		if !given {
			if d.Required {
				return &ConfigError{Field: d.Name, Text: "required"}
			}
			if v = d.Default; v == nil {
				continue
			}
		}
		if err := d.check(v); err != nil {
			return err
		}
		m := appendString(nil, abi.EntryKey, d.Name)
		for _, s := range v {
			m = appendBytes(m, abi.EntryValue, []byte(s))
		}
		b = appendBytes(b, abi.ConfigEntry, m)
	}
	for _, g := range f.Grants {
		b = appendString(b, abi.ConfigGrant, g)
	}
	c, err := decodeConfig(b)
	if err != nil {
		return err
	}
	f.judge, err = f.plugin.Configure(c)
	return err
}

// check reports whether v is a value of the field's type.
func (d *Field) check(v []string) error {
	if d.Type != List && len(v) != 1 {
		return &ConfigError{Field: d.Name, Text: "wants one value"}
	}
	for _, s := range v {
		ok := true
		switch d.Type {
		case Int:
			_, err := strconv.ParseInt(s, 10, 64)
			ok = err == nil
		case Bool:
			ok = s == "true" || s == "false"
		case Duration:
			_, ok = parseDuration(s)
		case Size:
			_, ok = parseSize(s)
		}
		if !ok || d.Choices != nil && !slices.Contains(d.Choices, s) {
			return &ConfigError{Field: d.Name, Text: strconv.Quote(s) + " is not allowed here"}
		}
	}
	return nil
}

// Call asks the plugin. It is an error if the plugin is not configured, is not
// asked at this stage, or fails.
func (f *Fake) Call(facts Facts) (Verdict, error) {
	if f.judge == nil {
		return Verdict{}, errors.New("ask plugin: it is not configured")
	}
	if !slices.Contains(f.plugin.Stages, facts.Stage) {
		return Verdict{}, fmt.Errorf("ask plugin: stage %d is not in its manifest", facts.Stage)
	}
	f.facts, f.ops = facts, 0
	e := Event{host: host{f}}
	if err := e.index(f.encode()); err != nil {
		return Verdict{}, err
	}
	v := f.judge(&e)
	if v.Failed != "" {
		return v, errors.New("no verdict: " + v.Failed)
	}
	if !v.empty() && len(v.append(nil)) > abi.MaxResult {
		return v, fmt.Errorf("verdict is longer than %d octets", abi.MaxResult)
	}
	return v, nil
}

func (f *Fake) encode() []byte {
	t := &f.facts
	var flags uint64
	for i, on := range []bool{t.Trusted, t.EarlyTalker, t.Extended, t.TLS, t.AuthOK, t.HasSender} {
		if on {
			flags |= 1 << i
		}
	}
	var b []byte
	b = appendUint(b, abi.EventStage, uint64(t.Stage))
	b = appendUint(b, abi.EventTime, uint64(f.Clock.UnixMilli()))
	b = appendString(b, abi.EventSession, t.Session)
	b = appendString(b, abi.EventDoor, t.Door)
	b = appendString(b, abi.EventProtocol, t.Protocol)
	b = appendString(b, abi.EventClient, t.Client)
	b = appendUint(b, abi.EventClientPort, uint64(t.ClientPort))
	b = appendString(b, abi.EventClientName, t.ClientName)
	b = appendUint(b, abi.EventFlags, flags)
	b = appendString(b, abi.EventHelo, t.Helo)
	b = appendString(b, abi.EventUser, t.User)
	b = appendString(b, abi.EventSender, t.Sender)
	b = appendString(b, abi.EventRecipient, t.Recipient)
	b = appendUint(b, abi.EventRcptCount, uint64(t.RecipientCount))
	b = appendUint(b, abi.EventSize, uint64(t.Size))
	b = appendString(b, abi.EventHostname, t.Hostname)
	return appendString(b, abi.EventQueueID, t.QueueID)
}
