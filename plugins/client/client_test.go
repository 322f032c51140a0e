//go:build !wasip1

package main

import (
	"strings"
	"testing"

	"github.com/wafermail/wafer/sdk"
)

func TestLook(t *testing.T) {
	rows := []struct {
		name, reject string
		facts        sdk.Facts
		reverse      string
		code         int
		enhanced     string
		text         string
	}{
		{"verified", unknown, sdk.Facts{ClientName: "a.example"}, "a.example", 0, "", ""},
		{"not verified", unknown, sdk.Facts{}, "a.example", 450, "4.7.25", "Client host rejected: cannot find your hostname, [203.0.113.9]"},
		{"a name is enough", unknownReverse, sdk.Facts{}, "a.example", 0, "", ""},
		{"no name", unknownReverse, sdk.Facts{}, "", 450, "4.7.1", "Client host rejected: cannot find your reverse hostname, [203.0.113.9]"},
		{"polite", earlyTalker, sdk.Facts{}, "", 0, "", ""},
		{"early", earlyTalker, sdk.Facts{EarlyTalker: true}, "", 503, "5.5.0", "Improper use of SMTP command pipelining"},
		{"plain", plaintext, sdk.Facts{}, "", 450, "4.7.1", "Session encryption is required"},
		{"encrypted", plaintext, sdk.Facts{TLS: true}, "", 0, "", ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			f := sdk.NewFake(&plugin)
			if err := f.Configure(map[string][]string{"reject": {r.reject}}); err != nil {
				t.Fatal(err)
			}
			r.facts.Stage, r.facts.Client = sdk.Connect, "203.0.113.9"
			r.facts.Rare = map[string]string{sdk.FactReverseName: r.reverse}
			v, err := f.Call(r.facts)
			if err != nil || v.Code != r.code || v.Enhanced != r.enhanced || v.Text != r.text && !strings.HasSuffix(v.Text, r.text) {
				t.Errorf("got %d %s %q, %v", v.Code, v.Enhanced, v.Text, err)
			}
		})
	}
	f := sdk.NewFake(&plugin)
	if err := f.Configure(map[string][]string{"reject": {unknown}, "unknown_code": {"550"}}); err != nil {
		t.Fatal(err)
	}
	if v, err := f.Call(sdk.Facts{Stage: sdk.Connect, Client: "203.0.113.9"}); err != nil || v.Code != 550 || v.Enhanced != "5.7.25" {
		t.Errorf("with 550: %+v, %v", v, err)
	}
	if err := f.Configure(map[string][]string{"unknown_code": {"99"}}); err == nil {
		t.Error("a code of 99 was taken")
	}
}
