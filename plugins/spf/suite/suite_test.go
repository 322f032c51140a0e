package suite

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const example = `# comment
---
description: >-
  Two lines
  of text
tests:
  first:
    spec: 4.3/1
    helo: "[192.0.2.1]"   # comment
    host: 192.0.2.1
    mailfrom: 'it''s@a.example'
    result: [fail, permerror]
    explanation: see: this
  second:
    host: 2001:DB8::1
    result: pass
zonedata:
  A.example:
  - SPF: v=spf1 mx:b.example
         -all
  - MX: [10, b.example.]
  - MX: [0, '']
  b.example:
    - SPF: [ "v=spf1 ", 'mx' ]
    - TXT: "\x80\0"
    - AAAA: 2001:DB8::1
  c.example:
    - TXT: NONE
    - SPF: v=spf1
    - TIMEOUT
  "odd: name":
    - CNAME: b.example.
  loop.example:
    - CNAME: LOOP.example
  1.2.0.192.in-addr.arpa:
    - PTR: b.example.
`

func TestRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "suite.yml")
	if err := os.WriteFile(file, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := Read(file)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	s := list[0]
	want := []Test{
		{Name: "first", Spec: "4.3/1", Helo: "[192.0.2.1]", Host: "192.0.2.1", MailFrom: "it's@a.example", Results: []string{"fail", "permerror"}, Explanation: "see: this"},
		{Name: "second", Host: "2001:DB8::1", Results: []string{"pass"}},
	}
	if s.Name != "Two lines of text" || !reflect.DeepEqual(s.Tests, want) {
		t.Errorf("%s: got %+v, want %+v", s.Name, s.Tests, want)
	}
	rows := []struct {
		kind, name string
		want       Answer
	}{
		{"TXT", "a.Example.", Answer{[]string{"v=spf1 mx:b.example -all"}, true, false}},
		{"MX", "a.example", Answer{[]string{"10 b.example", "0 ."}, true, false}},
		{"A", "a.example", Answer{Exists: true}},
		{"TXT", "b.example", Answer{[]string{"\u0080\x00"}, true, false}},
		{"AAAA", "odd: name", Answer{[]string{"2001:db8::1"}, true, false}},
		{"TXT", "c.example", Answer{Fails: true}},
		{"A", "loop.example", Answer{Fails: true}},
		{"PTR", "192.0.2.1", Answer{[]string{"b.example"}, true, false}},
		{"A", "nowhere.example", Answer{}},
		{"A", "error.example", Answer{Fails: true}},
	}
	for _, r := range rows {
		if got := s.Lookup(r.kind, r.name); !reflect.DeepEqual(got, r.want) {
			t.Errorf("%s %s: got %+v, want %+v", r.kind, r.name, got, r.want)
		}
	}
	if names := strings.Join(s.Names(), " "); !strings.HasPrefix(names, "192.0.2.1 a.example") {
		t.Errorf("names: %s", names)
	}
}

func TestMalformed(t *testing.T) {
	for name, text := range map[string]string{
		"unended quote":    "a: \"b",
		"unended brackets": "a: [b",
		"unknown escape":   `a: "\q"`,
		"entry too deep":   "a: b\n  c: d",
		"two roots":        "- a\nb: c",
	} {
		if d, err := parseYAML(text); err == nil {
			t.Errorf("%s: got %v", name, d)
		}
	}
}
