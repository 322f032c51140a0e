//go:build !wasip1

package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/wafermail/wafer/plugins/spf/suite"
	"github.com/wafermail/wafer/sdk"
)

// suites is where SPF test suites of others are: see SOURCES.md there.
const suites = "../../../shared/testdata/spf/"

// TestSuites runs the suites of others natively.
func TestSuites(t *testing.T) {
	rows := []struct {
		file    string
		count   int
		config  map[string][]string
		differs map[string]string // test → the result that RFC 7208 asks for
	}{
		{"rfc7208-tests.yml", 203, nil, nil},
		{"rfc4408-tests.yml", 191, nil, nil},
		// An unknown modifier changes no result (RFC 7208 §6); "ambiguous" is none.
		{"pyspf-tests.yml", 16, nil, map[string]string{"default-modifier": "neutral", "default-modifier-harsh": "neutral"}},
		// Its senders and targets of one label have no policy in RFC 7208 §4.3 and §7.1.
		{"blitirispf-tests.yml", 21, map[string][]string{"single_label": {"true"}}, nil},
	}
	for _, r := range rows {
		t.Run(r.file, func(t *testing.T) {
			scenarios, err := suite.Read(suites + r.file)
			if err != nil {
				t.Skip("no suite here: ", err)
			}
			count := 0
			for _, s := range scenarios {
				zone := zoneOf(&s)
				for _, test := range s.Tests {
					count++
					if result, ok := r.differs[test.Name]; ok {
						test.Results = []string{result}
					}
					t.Run(s.Name+"/"+test.Name, func(t *testing.T) { check(t, r.config, zone, test) })
				}
			}
			if count != r.count {
				t.Errorf("%d tests, want %d", count, r.count)
			}
		})
	}
}

// check compares what the plugin says with what a test expects: the header
// field where nothing is refused, the explanation where a fail is.
func check(t *testing.T, extra map[string][]string, zone map[string]sdk.Answer, test suite.Test) {
	config := map[string][]string{"identities": {"mail"}, "skip": {}, "fail": {"next"}}
	for k, v := range extra {
		config[k] = v
	}
	hostname := test.Receiver
	if hostname == "" {
		hostname = "receiver.com"
	}
	facts := sdk.Facts{Stage: sdk.Mail, Client: test.Host, Helo: test.Helo, Sender: test.MailFrom, HasSender: true, Hostname: hostname}
	call := func() sdk.Verdict {
		f := sdk.NewFake(&plugin)
		f.Zone = zone
		if err := f.Configure(config); err != nil {
			t.Fatal(err)
		}
		v, err := f.Call(facts)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v := call()
	if len(v.Mods) != 1 || v.Mods[0].Name != "Received-SPF" {
		t.Fatalf("got %+v, want Received-SPF", v)
	}
	header := v.Mods[0].Value
	got, _, _ := strings.Cut(header, " ")
	if !slices.Contains(test.Results, strings.ToLower(got)) {
		t.Errorf("%s: HELO %s, MAIL FROM %q from %s: got %s, want %s", test.Spec, test.Helo, test.MailFrom, test.Host, header, test.Results)
	}
	if test.Header != "" && header != test.Header {
		t.Errorf("header\n got %s\nwant %s", header, test.Header)
	}
	if test.Explanation == "" {
		return
	}
	config["fail"], config["reason"] = []string{"reject"}, []string{"{explanation}"}
	want := test.Explanation
	if want == "DEFAULT" {
		want = ""
	}
	if v := call(); v.Text != want {
		t.Errorf("explanation: got %q, want %q", v.Text, want)
	}
}

// zoneOf is a scenario as the Fake's table.
func zoneOf(s *suite.Scenario) map[string]sdk.Answer {
	zone := make(map[string]sdk.Answer)
	for _, name := range s.Names() {
		for _, kind := range []string{"A", "AAAA", "MX", "TXT", "PTR"} {
			a := s.Lookup(kind, name)
			answer := sdk.Answer{Records: a.Records}
			switch {
			case a.Fails:
				answer.Status = sdk.DNSTemp
			case !a.Exists:
				answer.Status = sdk.DNSNotFound
			}
			zone[kind+" "+name] = answer
		}
	}
	return zone
}
