//go:build !wasip1

package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/wafermail/wafer/sdk"
)

// otherwise are cases of the mail-auth set whose expectation RFC 7208 does not
// share, by "file, scenario, what is asked".
var otherwise = map[string]string{
	// "ip:10.0.0.1" is no mechanism, and errors count wherever they stand (§4.6).
	"all.yml, All test, sender@test.org from 10.0.0.1": "permerror",
	// exists asks for A records, whatever the client's address is (§5.7).
	"exists.yml, Exists, sender@ip6.test.org from 167.1.2.3":                         "fail",
	"macro.yml, Macro expansion 2, strong-bad@email.example.com from 2001:db8::cb01": "fail",
	// A client with an IPv4 address is in no IPv6 network (§5, §5.6).
	"ip.yml, IPv6 match, sender@test.org from 10.1.2.3": "fail",
}

// TestMailAuth runs the cases of the mail-auth set: keys that repeat, in order,
// with "expect" as the question.
func TestMailAuth(t *testing.T) {
	files, _ := filepath.Glob(suites + "mail-auth/*.yml")
	if len(files) == 0 {
		t.Skip("no suite here: ", suites)
	}
	count := 0
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var zone map[string]sdk.Answer
		scenario := ""
		asked := map[string]string{}
		for line := range strings.SplitSeq(string(b), "\n") {
			line = strings.TrimPrefix(strings.TrimLeft(line, " "), "- ")
			key, value, ok := strings.Cut(line, ":")
			value = strings.TrimSpace(value)
			switch {
			case !ok || strings.HasPrefix(line, "#"):
			case key == "name":
				scenario = value
			case key == "records":
				zone, asked = map[string]sdk.Answer{}, map[string]string{}
			case key == "tests":
			case key == "expect":
				count++
				name := filepath.Base(file) + ", " + scenario + ", " + asked["sender"] + " from " + asked["ip"]
				t.Run(name, func(t *testing.T) { checkMailAuth(t, name, zone, asked, value) })
			case key == "sender" || key == "domain" || key == "ip":
				asked[key] = value
			default:
				addRecord(t, zone, key, value)
			}
		}
	}
	if count < 100 {
		t.Errorf("%d cases only", count)
	}
}

// addRecord takes "a: name address, address" and the like. An MX lists
// addresses, which get a host each.
func addRecord(t *testing.T, zone map[string]sdk.Answer, kind, value string) {
	name, data, _ := strings.Cut(value, " ")
	name = strings.ToLower(name)
	var records []string
	for part := range strings.SplitSeq(data, ",") {
		records = append(records, strings.TrimSuffix(strings.TrimSpace(part), "."))
	}
	switch kind {
	case "spf", "exp":
		zone["TXT "+name] = sdk.Answer{Records: []string{data}}
	case "a", "aaaa":
		for i, r := range records {
			records[i] = netip.MustParseAddr(r).String()
		}
		zone[strings.ToUpper(kind)+" "+name] = sdk.Answer{Records: records}
	case "ptr":
		zone["PTR "+netip.MustParseAddr(name).String()] = sdk.Answer{Records: records}
	case "mx":
		var hosts []string
		for i, r := range records {
			host := "mx" + strconv.Itoa(i) + "." + name
			a := netip.MustParseAddr(r)
			zone[addressType(a)+" "+host] = sdk.Answer{Records: []string{a.String()}}
			hosts = append(hosts, "10 "+host)
		}
		zone["MX "+name] = sdk.Answer{Records: hosts}
	default:
		t.Fatalf("record of unknown type %s", kind)
	}
}

// checkMailAuth asks for both identities, as the set does: the domain is HELO's.
func checkMailAuth(t *testing.T, name string, zone map[string]sdk.Answer, asked map[string]string, want string) {
	for _, n := range []string{asked["domain"], asked["sender"][strings.LastIndexByte(asked["sender"], '@')+1:]} {
		if strings.HasPrefix(n, "_dns_error.") {
			zone["TXT "+n] = sdk.Answer{Status: sdk.DNSTemp}
		}
	}
	zone["TXT _dns_error.test.org"] = sdk.Answer{Status: sdk.DNSTemp}
	got := ""
	for _, identity := range []string{"helo", "mail"} { // a fail of HELO decides
		if got == "" || !strings.HasPrefix(got, "fail") {
			got = askMailAuth(t, zone, asked, identity)
		}
	}
	if other, ok := otherwise[name]; ok {
		want = other
	}
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func askMailAuth(t *testing.T, zone map[string]sdk.Answer, asked map[string]string, identity string) string {
	f := sdk.NewFake(&plugin)
	f.Zone = zone
	// Its zones leave out the names of which only the number matters.
	if err := f.Configure(map[string][]string{"identities": {identity}, "reason": {"{explanation}"}, "void_limit": {"10"}}); err != nil {
		t.Fatal(err)
	}
	v, err := f.Call(sdk.Facts{Stage: sdk.Mail, Client: asked["ip"], Helo: asked["domain"], Sender: asked["sender"], HasSender: true})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.TrimPrefix(strings.TrimPrefix(v.Reason, "spf-"), "helo-")
	if v.Text != "" {
		got += " " + v.Text
	}
	return got
}
