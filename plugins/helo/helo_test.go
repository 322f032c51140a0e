//go:build !wasip1

package main

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/wafermail/wafer/sdk"
)

func configured(t *testing.T, reject ...string) *sdk.Fake {
	t.Helper()
	f := sdk.NewFake(&plugin)
	if err := f.Configure(map[string][]string{"reject": reject}); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestJudge(t *testing.T) {
	rows := []struct {
		name, reject, helo, client string
		code                       int
		enhanced                   string
	}{
		{"no greeting", missing, "", "198.51.100.7", 503, "5.5.1"},
		{"greeting", missing, "a", "198.51.100.7", 0, ""},
		{"no greeting is not invalid", invalid, "", "198.51.100.7", 0, ""},
		{"space in name", invalid, "my pc", "198.51.100.7", 501, "5.5.2"},
		{"bad literal", notFQDN, "[192.0.2.256]", "198.51.100.7", 501, "5.5.2"},
		{"bare name", notFQDN, "mailhost", "198.51.100.7", 504, "5.5.2"},
		{"literal", literal, "[192.0.2.9]", "198.51.100.7", 554, "5.7.1"},
		{"address without brackets", literal, "192.0.2.9", "198.51.100.7", 554, "5.7.1"},
		{"a name is no literal", literal, "mail.example.com", "198.51.100.7", 0, ""},
		{"our name", ownName, "MX.local.example", "198.51.100.7", 554, "5.7.1"},
		{"our name with a dot", ownName, "mx.local.example.", "198.51.100.7", 554, "5.7.1"},
		{"our bare name", ownName, "mx", "198.51.100.7", 554, "5.7.1"},
		{"our address", ownName, "[192.0.2.1]", "198.51.100.7", 554, "5.7.1"},
		{"our name from here", ownName, "mx.local.example", "127.0.0.1", 0, ""},
		{"our name from our address", ownName, "mx.local.example", "192.0.2.1", 0, ""},
		{"another name", ownName, "mx.example.com", "198.51.100.7", 0, ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			v, err := configured(t, r.reject).Call(sdk.Facts{
				Stage: sdk.Helo, Helo: r.helo, Client: r.client, Hostname: "mx.local.example",
				Rare: map[string]string{sdk.FactServer: "192.0.2.1:25"},
			})
			if err != nil || v.Code != r.code || v.Enhanced != r.enhanced {
				t.Errorf("HELO %q: got %d %s %q, %v; want %d %s", r.helo, v.Code, v.Enhanced, v.Text, err, r.code, r.enhanced)
			}
		})
	}
}

func TestConfigErrors(t *testing.T) {
	f := sdk.NewFake(&plugin)
	f.Grants = nil
	err := f.Configure(map[string][]string{"reject": {unknown}})
	if err == nil || !strings.Contains(err.Error(), `reject: "unknown" looks the name up: write allow = ["dns"]`) {
		t.Errorf("unknown without dns: %v", err)
	}
	if err := f.Configure(map[string][]string{"reject": {"everything"}}); err == nil {
		t.Error("a fault that does not exist was accepted")
	}
}

// oracle is what Postfix said: see ../shared/testdata/SOURCES.md.
const oracle = "../../../shared/testdata/postfix-oracle/"

type row struct {
	ID, Config, Value, Enh, Text, Verdict string
	Code                                  int
}

// TestPostfix compares the plugin with every recorded session whose config is
// one restriction that it implements.
func TestPostfix(t *testing.T) {
	file, err := os.Open(oracle + "helo.jsonl")
	if err != nil {
		t.Skip("no record of Postfix's answers here: ", err)
	}
	defer file.Close()
	zone := readZone(t)
	restriction := map[string]string{
		"helo-invalid": invalid, "helo-invalid-now": invalid,
		"helo-nonfqdn": notFQDN, "helo-nonfqdn-now": notFQDN,
		"helo-unknown": unknown, "helo-unknown-now": unknown,
	}
	compared := 0
	for s := bufio.NewScanner(file); s.Scan(); {
		var r row
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		what, ok := restriction[r.Config]
		if !ok {
			continue
		}
		compared++
		f := configured(t, what)
		f.Zone = zone
		v, err := f.Call(sdk.Facts{Stage: sdk.Helo, Helo: r.Value, Client: "198.51.100.7", Hostname: "mx.local.example"})
		if err != nil {
			t.Fatal(r.ID, err)
		}
		want, wantEnhanced := r.Code, r.Enh
		if r.Verdict == "accept" {
			want, wantEnhanced = 0, ""
		}
		if v.Code != want || v.Enhanced != wantEnhanced {
			t.Errorf("%s %s HELO %q: got %d %s %q, Postfix %d %s %q", r.ID, r.Config, r.Value, v.Code, v.Enhanced, v.Text, r.Code, r.Enh, r.Text)
			continue
		}
		// At once, Postfix echoes the name as it came; at RCPT what it kept of it.
		// Octets outside ASCII are "?" here: see Bugs in the README.
		if want != 0 && !strings.HasSuffix(r.Config, "-now") && isASCII(r.Value) && len(r.Value) < 400 && r.Enh+" "+v.Text != r.Text {
			t.Errorf("%s %s HELO %q:\n got %q\nwant %q", r.ID, r.Config, r.Value, r.Enh+" "+v.Text, r.Text)
		}
	}
	if compared < 1000 {
		t.Errorf("compared %d sessions only", compared)
	}
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}

// readZone makes the Fake's table of the oracle's zone: for every name that is
// asked for, also through CNAMEs and the one wildcard.
func readZone(t *testing.T) map[string]sdk.Answer {
	t.Helper()
	b, err := os.ReadFile(oracle + "zone.json")
	if err != nil {
		t.Skip("no zone here: ", err)
	}
	raw := make(map[string]json.RawMessage)
	if err := json.Unmarshal(b, &raw); err != nil {
		t.Fatal(err)
	}
	nodes := make(map[string]map[string]any)
	for name, v := range raw {
		var m map[string]any
		if json.Unmarshal(v, &m) == nil {
			nodes[name] = m
		}
	}
	nodes["any.wild.example.com"] = nodes["*.wild.example.com"]
	var resolve func(name, typ string, depth int) sdk.Answer
	resolve = func(name, typ string, depth int) sdk.Answer {
		m, ok := nodes[name]
		if !ok {
			return sdk.Answer{Status: sdk.DNSNotFound}
		}
		if m["RCODE"] != nil || m["RCODE:"+typ] != nil || depth > 4 {
			return sdk.Answer{Status: sdk.DNSTemp}
		}
		if c, ok := m["CNAME"].([]any); ok {
			return resolve(strings.TrimSuffix(c[0].(string), "."), typ, depth+1)
		}
		var a sdk.Answer
		records, _ := m[typ].([]any)
		for _, r := range records {
			a.Records = append(a.Records, strings.TrimSuffix(r.(string), "."))
		}
		return a
	}
	zone := make(map[string]sdk.Answer)
	for name := range nodes {
		for _, typ := range []string{"A", "AAAA", "MX"} {
			zone[typ+" "+strings.ToLower(name)] = resolve(name, typ, 0)
		}
	}
	return zone
}
