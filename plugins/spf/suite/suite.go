// Package suite reads SPF test suites in the form of the openspf suite: YAML
// documents, each a scenario with zone data and tests. Tests of the plugin use
// it natively and through the Wasm host, so it knows neither.
//
//	scenarios, err := suite.Read("../../../shared/testdata/spf/rfc7208-tests.yml")
//	for _, s := range scenarios {
//		for _, t := range s.Tests {
//			a := s.Lookup("TXT", "example.com")
//
// # BUGS
//
// Only the part of YAML that the known suites use is read. CNAME chains are
// followed within the scenario; one that ends nowhere is a lookup that fails.
package suite

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// Scenario is zone data with the tests that use it.
type Scenario struct {
	Name  string // description, comment or number
	Tests []Test
	zone  map[string][]entry
}

// Test is one run of check_host().
type Test struct {
	Name        string
	Spec        string // section of the RFC that it is about
	Helo        string
	Host        string // the client's address
	MailFrom    string
	Results     []string // any of them is right; the first is preferred
	Explanation string   // "" where any is right, "DEFAULT" where the domain gives none
	Receiver    string   // with Header: our name
	Header      string   // body of Received-SPF, "" where any is right
}

// Answer is the outcome of one lookup. Records are addresses, "10 host", joined
// strings or names without the last dot.
type Answer struct {
	Records []string
	Exists  bool // the name exists, with records of this type or not
	Fails   bool // no answer: timeout, server failure
}

// entry is one record of a name. Kind "TIMEOUT" fails every lookup that has no
// other answer.
type entry struct{ kind, data string }

// Read reads a suite.
func Read(path string) ([]Scenario, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	documents, err := parseYAML(string(b))
	if err != nil {
		return nil, fmt.Errorf("read suite %s: %w", path, err)
	}
	var list []Scenario
	for i, d := range documents {
		m, ok := d.([]pair)
		if !ok {
			return nil, fmt.Errorf("read suite %s: document %d is no mapping", path, i+1)
		}
		s, err := scenario(m)
		if err != nil {
			return nil, fmt.Errorf("read suite %s: document %d: %w", path, i+1, err)
		}
		if s.Name == "" {
			s.Name = fmt.Sprint("scenario ", i+1)
		}
		list = append(list, s)
	}
	return list, nil
}

func scenario(m []pair) (Scenario, error) {
	s := Scenario{zone: make(map[string][]entry)}
	for _, p := range m {
		switch v := p.value.(type) {
		case string:
			if p.key == "description" || p.key == "comment" && s.Name == "" {
				s.Name = strings.Join(strings.Fields(v), " ")
			}
		case []pair:
			for _, q := range v {
				var err error
				switch p.key {
				case "tests":
					err = s.addTest(q)
				case "zonedata":
					err = s.addName(q)
				}
				if err != nil {
					return s, err
				}
			}
		}
	}
	if len(s.Tests) == 0 {
		return s, errors.New("no tests")
	}
	return s, nil
}

func (s *Scenario) addTest(p pair) error {
	m, ok := p.value.([]pair)
	if !ok {
		return fmt.Errorf("test %s is no mapping", p.key)
	}
	t := Test{Name: p.key}
	for _, q := range m {
		text, _ := q.value.(string)
		switch q.key {
		case "spec":
			t.Spec = text
			if list, ok := q.value.([]any); ok {
				t.Spec = fmt.Sprint(list...)
			}
		case "helo":
			t.Helo = text
		case "host":
			t.Host = text
		case "mailfrom":
			t.MailFrom = text
		case "explanation":
			t.Explanation = text
		case "receiver":
			t.Receiver = text
		case "header":
			t.Header = text
		case "result":
			t.Results = []string{text}
			if list, ok := q.value.([]any); ok {
				t.Results = nil
				for _, r := range list {
					t.Results = append(t.Results, fmt.Sprint(r))
				}
			}
		}
	}
	if t.Host == "" || len(t.Results) == 0 {
		return fmt.Errorf("test %s has no host or no result", p.key)
	}
	s.Tests = append(s.Tests, t)
	return nil
}

// addName takes a name's records. Those of type SPF stand in for TXT records of
// a name that has none; "NONE" says that it has none all the same.
func (s *Scenario) addName(p pair) error {
	list, ok := p.value.([]any)
	if !ok {
		return fmt.Errorf("records of %s are no sequence", p.key)
	}
	var entries, policies []entry
	hasTXT := false
	for _, item := range list {
		if text, ok := item.(string); ok {
			entries = append(entries, entry{kind: text})
			continue
		}
		m, _ := item.([]pair)
		for _, q := range m {
			data, err := rdata(q)
			if err != nil {
				return fmt.Errorf("record of %s: %w", p.key, err)
			}
			switch {
			case q.key == "TIMEOUT" || q.key == "SERVFAIL":
				entries = append(entries, entry{kind: "TIMEOUT"})
			case q.key == "SPF":
				policies = append(policies, entry{"TXT", data})
			case q.key == "TXT" && data == "NONE":
				hasTXT = true
			default:
				hasTXT = hasTXT || q.key == "TXT"
				entries = append(entries, entry{q.key, data})
			}
		}
	}
	if !hasTXT {
		entries = append(entries, policies...)
	}
	s.zone[strings.ToLower(p.key)] = entries
	return nil
}

// rdata is the contents of one record as an Answer has them.
func rdata(q pair) (string, error) {
	switch v := q.value.(type) {
	case string:
		switch q.key {
		case "PTR", "CNAME":
			return strings.TrimSuffix(v, "."), nil
		case "A", "AAAA":
			a, err := netip.ParseAddr(v)
			if err != nil {
				return "", err
			}
			return a.String(), nil
		}
		return v, nil
	case []any:
		if q.key == "MX" && len(v) == 2 {
			host := strings.TrimSuffix(fmt.Sprint(v[1]), ".")
			if host == "" {
				host = "."
			}
			return fmt.Sprint(v[0], " ", host), nil
		}
		joined := ""
		for _, part := range v {
			joined += fmt.Sprint(part)
		}
		return joined, nil
	}
	return "", fmt.Errorf("type %s has a value of an unknown form", q.key)
}

// Lookup answers a question. For PTR, name may be an address.
func (s *Scenario) Lookup(kind, name string) Answer {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if a, err := netip.ParseAddr(name); err == nil && kind == "PTR" {
		name = reverse(a)
	}
	return s.lookup(kind, name, 0)
}

func (s *Scenario) lookup(kind, name string, depth int) Answer {
	entries, ok := s.zone[name]
	if !ok {
		return Answer{Fails: strings.HasPrefix(name, "error.")}
	}
	a := Answer{Exists: true}
	timeout := false
	for _, e := range entries {
		switch {
		case e.kind == kind && e.data == "TIMEOUT":
			return Answer{Fails: true}
		case e.kind == kind:
			a.Records = append(a.Records, e.data)
		case e.kind == "TIMEOUT":
			timeout = true
		case e.kind == "CNAME" && depth > 8:
			return Answer{Fails: true}
		case e.kind == "CNAME":
			return s.lookup(kind, strings.ToLower(e.data), depth+1)
		}
	}
	if len(a.Records) == 0 && timeout {
		return Answer{Fails: true}
	}
	return a
}

// Names are the names and, for those of reverse zones, the addresses that the
// scenario has records of, sorted.
func (s *Scenario) Names() []string {
	var names []string
	for name := range s.zone {
		if a, ok := forward(name); ok {
			name = a.String()
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// reverse is the name that has an address's PTR records (RFC 1035 §3.5, RFC 3596 §2.5).
func reverse(a netip.Addr) string {
	if a = a.Unmap(); a.Is4() {
		v := a.As4()
		return fmt.Sprintf("%d.%d.%d.%d.in-addr.arpa", v[3], v[2], v[1], v[0])
	}
	var b strings.Builder
	v := a.As16()
	for i := 15; i >= 0; i-- {
		fmt.Fprintf(&b, "%x.%x.", v[i]&15, v[i]>>4)
	}
	return b.String() + "ip6.arpa"
}

// forward is the address that a name of a reverse zone belongs to.
func forward(name string) (netip.Addr, bool) {
	labels, four := strings.CutSuffix(name, ".in-addr.arpa")
	if !four {
		var six bool
		if labels, six = strings.CutSuffix(name, ".ip6.arpa"); !six {
			return netip.Addr{}, false
		}
	}
	parts := strings.Split(labels, ".")
	slices.Reverse(parts)
	text := strings.Join(parts, ".")
	if !four {
		var b strings.Builder
		for i, p := range parts {
			if i > 0 && i%4 == 0 {
				b.WriteByte(':')
			}
			b.WriteString(p)
		}
		text = b.String()
	}
	a, err := netip.ParseAddr(text)
	return a, err == nil
}
