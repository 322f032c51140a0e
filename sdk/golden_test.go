//go:build !wasip1

package sdk

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// golden reads a message of version 1. Nothing may change these files: they are
// what plugins of today say and hear. core/wasm compares with the same ones.
func golden(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("abi", "testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func same(t *testing.T, name string, got []byte) {
	t.Helper()
	if want := golden(t, name); string(got) != string(want) {
		t.Errorf("%s is\n%x\nwant\n%x", name, got, want)
	}
}

// future is what a later minor version may add to any message: fields of each
// wire type with numbers that nobody knows.
func future(b []byte) []byte {
	b = appendUint(b, 1000, 1<<40)
	b = appendString(b, 1001, "from the future")
	b = appendDouble(b, 1002, 1.5)
	return append(appendVarint(b, 1003<<3|wireFixed32), 1, 2, 3, 4)
}

// goldenFacts are the facts of the golden Event.
var goldenFacts = Facts{
	Stage: Rcpt, Session: "01ARZ3NDEKTSV4RRF", Door: "mx", Protocol: "smtp", Client: "2001:db8::7", ClientPort: 4711,
	ClientName: "client.example.net", Trusted: true, EarlyTalker: true, Extended: true, TLS: true, AuthOK: true, HasSender: true,
	Helo: "mail.example.com", User: "ann", Sender: "alice@example.com", Recipient: `"b b"@local.example`, RecipientCount: 2, Size: 52428800,
	Hostname: "mx.local.example", QueueID: "01BX5ZZKBKACTAV9WEVGEMMVRZ",
}

func TestGoldenEvent(t *testing.T) {
	f := NewFake(&echo)
	f.Clock = time.UnixMilli(1795000000123)
	f.facts = goldenFacts
	same(t, "event", f.encode())
	for name, b := range map[string][]byte{"golden": golden(t, "event"), "of a later minor": future(golden(t, "event"))} {
		var e Event
		if err := e.index(b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := Facts{
			Stage: e.Stage(), Session: e.Session(), Door: e.Door(), Protocol: e.Protocol(), Client: e.Client(), ClientPort: e.ClientPort(),
			ClientName: e.ClientName(), Trusted: e.Trusted(), EarlyTalker: e.EarlyTalker(), Extended: e.Extended(), TLS: e.TLS(),
			AuthOK: e.AuthOK(), HasSender: e.HasSender(), Helo: e.Helo(), User: e.User(), Sender: e.Sender(), Recipient: e.Recipient(),
			RecipientCount: e.RecipientCount(), Size: e.Size(), Hostname: e.Hostname(), QueueID: e.QueueID(),
		}
		if !reflect.DeepEqual(got, goldenFacts) || e.Time().UnixMilli() != 1795000000123 {
			t.Errorf("%s: got %+v at %v", name, got, e.Time())
		}
	}
}

func TestGoldenVerdict(t *testing.T) {
	v := DeferIfPermit(450, "4.7.1", "<x>: Helo command rejected: Host not found").Because("helo-unknown").
		AddHeader("X-Policy", "seen").Tag("slow").Redirect("jail@example.com").BCC("log@example.com").Tarpit(2500 * time.Millisecond).AddScore(-1.5)
	same(t, "verdict", v.append(nil))
}

func TestGoldenManifest(t *testing.T) {
	p := Plugin{
		ID: "org.example.golden", Version: "1.2.3", Help: "says what it is told", Stages: []Stage{Connect, Message},
		Grants: []Grant{{Name: GrantDNS, Help: "to look names up"}, {Name: GrantState, Optional: true}},
		Fields: []Field{
			{Name: "reject", Type: List, Default: []string{"a", "b"}, Choices: []string{"a", "b", "c"}, Help: "what to refuse"},
			{Name: "limit", Type: Int, Required: true, Help: "how many"},
		},
	}
	same(t, "manifest", p.manifest())
}

func TestGoldenConfig(t *testing.T) {
	for name, b := range map[string][]byte{"golden": golden(t, "config"), "of a later minor": future(golden(t, "config"))} {
		c, err := decodeConfig(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := &Config{values: map[string][]string{"limit": {"30"}, "reject": {"a", ""}}, grants: []string{"dns", "state"}, check: "inbound/golden"}
		if !reflect.DeepEqual(c, want) {
			t.Errorf("%s: got %+v, want %+v", name, c, want)
		}
	}
}

func TestGoldenDNS(t *testing.T) {
	var asked []byte
	for _, q := range []Question{{"MX", "example.com"}, {"PTR", "192.0.2.1"}} {
		asked = appendBytes(asked, 1, appendString(appendString(nil, 1, q.Type), 2, q.Name))
	}
	same(t, "dnsrequest", asked)
	want := []Answer{{Records: []string{"10 mx.example.com", "0 ."}}, {Status: DNSTemp}}
	for name, b := range map[string][]byte{"golden": golden(t, "dnsresponse"), "of a later minor": future(golden(t, "dnsresponse"))} {
		if as, err := decodeAnswers(b, 2); err != nil || !reflect.DeepEqual(as, want) {
			t.Errorf("%s: got %+v, %v", name, as, err)
		}
	}
}

func TestGoldenSighting(t *testing.T) {
	want := Sighting{First: time.UnixMilli(1795000000123), Last: time.UnixMilli(1795000300000), Count: 3}
	for name, b := range map[string][]byte{"golden": golden(t, "sighting"), "of a later minor": future(golden(t, "sighting"))} {
		if got, err := decodeSighting(b); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	if got, err := decodeSighting(nil); err != nil || got != (Sighting{}) {
		t.Errorf("never seen: got %+v, %v", got, err)
	}
}
