package dns

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func testZone() *Zone {
	return NewZone(map[string]map[string][]string{
		"Example.com.":       {"A": {"192.0.2.80"}, "MX": {"10 MX.example.com.", "0 ."}, "TXT": {"v=spf1 -all"}, "AD": {"1"}},
		"mx.example.com":     {"A": {"192.0.2.26"}, "AAAA": {"2001:db8::26"}},
		"alias.example.com":  {"CNAME": {"mx.example.com."}},
		"alias2.example.com": {"CNAME": {"alias.example.com"}},
		"loop.example.com":   {"CNAME": {"loop.example.com"}},
		"gone.example.com":   {"CNAME": {"nothere.example.com"}},
		"bad.example.com":    {"RCODE": {"SERVFAIL"}},
		"drop.example.com":   {"RCODE": {"DROP"}},
		"badmx.example.com":  {"RCODE:MX": {"SERVFAIL"}, "A": {"192.0.2.1"}},
		"*.wild.example.com": {"A": {"192.0.2.34"}},
		"a.b.c.example.com":  {"A": {"192.0.2.35"}},
		"xn--bcher-kva.test": {"A": {"192.0.2.37"}},

		"80.2.0.192.in-addr.arpa": {"PTR": {"example.com."}},
		"1.2.0.192.in-addr.arpa":  {"PTR": {"liar.example.com.", "badmx.example.com."}},
		"2.2.0.192.in-addr.arpa":  {"PTR": {"example.com."}},
		"3.2.0.192.in-addr.arpa":  {"PTR": {"bad.example.com."}},
		"4.2.0.192.in-addr.arpa":  {"PTR": {"evil\r\nname."}},
		"5.2.0.192.in-addr.arpa":  {"RCODE": {"SERVFAIL"}},
		"6.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa": {"PTR": {"mx.example.com."}},
	})
}

type lookupRow struct {
	name    string
	q       Question
	status  Status
	records []string
	canon   string
}

func lookupRows() []lookupRow {
	return []lookupRow{
		{"address", Question{"A", "example.com"}, Found, []string{"192.0.2.80"}, "example.com"},
		{"case and dot", Question{"A", "EXAMPLE.com."}, Found, []string{"192.0.2.80"}, "example.com"},
		{"mx", Question{"MX", "example.com"}, Found, []string{"0 .", "10 mx.example.com"}, "example.com"},
		{"txt", Question{"TXT", "example.com"}, Found, []string{"v=spf1 -all"}, "example.com"},
		{"no data", Question{"AAAA", "example.com"}, NoData, nil, "example.com"},
		{"empty non-terminal", Question{"A", "b.c.example.com"}, NoData, nil, "b.c.example.com"},
		{"no name", Question{"A", "nothere.example.com"}, NXDomain, nil, "nothere.example.com"},
		{"alias", Question{"AAAA", "alias2.example.com"}, Found, []string{"2001:db8::26"}, "mx.example.com"},
		{"alias without data", Question{"TXT", "alias.example.com"}, NoData, nil, "mx.example.com"},
		{"alias to nothing", Question{"A", "gone.example.com"}, NXDomain, nil, "nothere.example.com"},
		{"alias itself", Question{"CNAME", "alias.example.com"}, Found, []string{"mx.example.com"}, "alias.example.com"},
		{"loop", Question{"A", "loop.example.com"}, Temporary, nil, ""},
		{"servfail", Question{"A", "bad.example.com"}, Temporary, nil, ""},
		{"timeout", Question{"A", "drop.example.com"}, Temporary, nil, ""},
		{"servfail of one type", Question{"MX", "badmx.example.com"}, Temporary, nil, ""},
		{"other type", Question{"A", "badmx.example.com"}, Found, []string{"192.0.2.1"}, "badmx.example.com"},
		{"wildcard", Question{"A", "x.y.wild.example.com"}, Found, []string{"192.0.2.34"}, "x.y.wild.example.com"},
		{"U-label", Question{"A", "bücher.test"}, Found, []string{"192.0.2.37"}, "xn--bcher-kva.test"},
		{"PTR", Question{"PTR", "192.0.2.80"}, Found, []string{"example.com"}, "80.2.0.192.in-addr.arpa"},
		{"empty", Question{"A", ""}, NXDomain, nil, ""},
		{"empty label", Question{"A", "a..b"}, NXDomain, nil, ""},
		{"long label", Question{"A", strings.Repeat("a", 64) + ".test"}, NXDomain, nil, ""},
		{"long name", Question{"A", strings.Repeat("a.", 127) + "test"}, NXDomain, nil, ""},
		{"huge name", Question{"A", strings.Repeat("ä", 100000)}, NXDomain, nil, ""},
	}
}

func checkLookups(t *testing.T, r Resolver, rows []lookupRow) {
	t.Helper()
	for _, row := range rows {
		a := r.Lookup(t.Context(), row.q)
		slices.Sort(a.Records)
		if a.Status != row.status || !slices.Equal(a.Records, row.records) || row.canon != "" && a.Name != row.canon {
			t.Errorf("%s: Lookup(%.80q) = %v %q name %q (%v), want %v %q name %q", row.name, row.q, a.Status, a.Records, a.Name, a.Err, row.status, row.records, row.canon)
		}
		if (a.Status == Temporary) && a.Err == nil {
			t.Errorf("%s: temporary without a reason", row.name)
		}
	}
}

func TestZone(t *testing.T) {
	checkLookups(t, testZone(), lookupRows())
	if !testZone().Lookup(t.Context(), Question{"A", "example.com"}).Authentic || testZone().Lookup(t.Context(), Question{"A", "mx.example.com"}).Authentic {
		t.Error("AD is not what the zone says")
	}
}

func TestReverse(t *testing.T) {
	for _, row := range []struct {
		name, addr string
		want       Names
	}{
		{"verified", "192.0.2.80", Names{"example.com", "example.com", Found}},
		{"mapped", "::ffff:192.0.2.80", Names{"example.com", "example.com", Found}},
		{"second name", "192.0.2.1", Names{"liar.example.com", "badmx.example.com", Found}},
		{"not confirmed", "192.0.2.2", Names{"example.com", "", NoData}},
		{"confirmation fails", "192.0.2.3", Names{"bad.example.com", "", Temporary}},
		{"not a hostname", "192.0.2.4", Names{"", "", NoData}},
		{"servfail", "192.0.2.5", Names{"", "", Temporary}},
		{"none", "192.0.2.99", Names{"", "", NXDomain}},
		{"IPv6 with zone", "2001:db8::26%eth0", Names{"mx.example.com", "mx.example.com", Found}},
	} {
		if got := Reverse(t.Context(), testZone(), netip.MustParseAddr(row.addr)); got != row.want {
			t.Errorf("%s: Reverse(%s) = %+v, want %+v", row.name, row.addr, got, row.want)
		}
	}
	if got := Reverse(t.Context(), testZone(), netip.Addr{}); got.Status != NoData {
		t.Errorf("no address: %+v", got)
	}
}

func TestReadZone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "zone")
	text := `
$ORIGIN example.org.
$TTL 60
@       IN MX 10 mail
@       IN TXT "v=spf1 " "mx -all"
@       IN TXT "octets \200 and \"quotes\""
mail    IN A 192.0.2.1
www     IN CNAME mail
_25._tcp.mail IN TLSA 3 1 1 aabbcc
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	z, err := LoadZone(path)
	if err != nil {
		t.Fatal(err)
	}
	checkLookups(t, z, []lookupRow{
		{"mx", Question{"MX", "example.org"}, Found, []string{"10 mail.example.org"}, ""},
		{"txt", Question{"TXT", "example.org"}, Found, []string{"octets \xc8 and \"quotes\"", "v=spf1 mx -all"}, ""},
		{"cname", Question{"A", "www.example.org"}, Found, []string{"192.0.2.1"}, ""},
		{"tlsa", Question{"TLSA", "_25._tcp.mail.example.org"}, Found, []string{"3 1 1 aabbcc"}, ""},
	})
	if err := os.WriteFile(path, []byte("@ IN MX nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadZone(path); err == nil || !strings.Contains(err.Error(), "line: 1") {
		t.Errorf("broken zone: %v", err)
	}
}

func TestOracleZone(t *testing.T) {
	path := "../../../shared/testdata/postfix-oracle/zone.json"
	if _, err := os.Stat(path); err != nil {
		t.Skipf("outside test data is not here: %v", err)
	}
	z, err := LoadZone(path)
	if err != nil {
		t.Fatal(err)
	}
	checkLookups(t, z, []lookupRow{
		{"mx", Question{"MX", "example.net"}, Found, []string{"10 mx1.example.net", "20 mx2.example.net"}, ""},
		{"mxnxdomain", Question{"MX", "mxnxdomain.example.com"}, NXDomain, nil, ""},
		{"timeout", Question{"A", "timeout.example.com"}, Temporary, nil, ""},
		{"_dmarc", Question{"TXT", "_dmarc.example.com"}, Found, []string{"v=DMARC1; p=none"}, ""},
		{"null mx", Question{"MX", "nullmx.example.com"}, Found, []string{"0 ."}, ""},
		{"inner", Question{"A", "inner.example.com"}, NoData, nil, ""},
		{"dangling", Question{"A", "cnamedangling.example.com"}, NXDomain, nil, ""},
		{"loop", Question{"A", "cnameloop.example.com"}, Temporary, nil, ""},
	})
	if n := Reverse(t.Context(), z, netip.MustParseAddr("10.20.0.9")); n.Verified != "inside.example" {
		t.Errorf("Reverse = %+v", n)
	}
}

func TestParseMX(t *testing.T) {
	for _, row := range []struct {
		record string
		want   MX
		ok     bool
	}{
		{"10 mx.example.com", MX{10, "mx.example.com"}, true},
		{"0 .", MX{0, "."}, true},
		{"65536 x", MX{}, false},
		{"x", MX{}, false},
		{"10 ", MX{}, false},
	} {
		if got, err := ParseMX(row.record); got != row.want || (err == nil) != row.ok {
			t.Errorf("ParseMX(%q) = %v, %v", row.record, got, err)
		}
	}
}
