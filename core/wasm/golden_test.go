package wasm

import (
	"context"
	"encoding/hex"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/sdk/abi"
)

const abiDir = "../../sdk/abi/"

// golden reads a message of version 1, which nothing may change.
func golden(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(abiDir + "testdata/" + name + ".hex")
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// future appends fields that no version has yet, one of each wire type.
func future(b []byte) []byte {
	b = appendUint(b, 1000, 1<<40)
	b = appendElement(b, 1001, "from the future")
	b = append(appendTag(b, 1002, wireFixed64), 1, 2, 3, 4, 5, 6, 7, 8)
	return append(appendTag(b, 1003, wireFixed32), 1, 2, 3, 4)
}

// TestGoldenWire holds what this server writes to the octets of version 1.
func TestGoldenWire(t *testing.T) {
	ev := &policy.Event{
		Stage: policy.Rcpt, Time: time.UnixMilli(1795000000123), Session: "01ARZ3NDEKTSV4RRF", Door: "mx", Protocol: "smtp",
		Client: netip.MustParseAddrPort("[2001:db8::7]:4711"), ClientName: "client.example.net", Trusted: true, EarlyTalker: true, Extended: true,
		TLS: mail.TLS{Version: "TLSv1.3"}, AuthOK: true, HasSender: true, Helo: "mail.example.com", User: "ann",
		Sender: path(t, "alice@example.com"), Recipient: path(t, `"b b"@local.example`), Rcpts: make([]mail.Path, 2), Size: 52428800,
		Hostname: "mx.local.example", QueueID: "01BX5ZZKBKACTAV9WEVGEMMVRZ",
	}
	rows := map[string][]byte{
		"event":       appendEvent(nil, ev),
		"config":      encodeConfig(map[string][]string{"reject": {"a", ""}, "limit": {"30"}}, []string{"dns", "state"}, "inbound/golden"),
		"dnsresponse": encodeAnswers([]policy.Answer{{Records: []string{"10 mx.example.com", "0 ."}}, {Status: policy.DNSTemp}}),
		"sighting":    encodeSighting(policy.Sighting{First: time.UnixMilli(1795000000123), Last: time.UnixMilli(1795000300000), Count: 3}),
	}
	for name, got := range rows {
		if want := golden(t, name); string(got) != string(want) {
			t.Errorf("%s is\n%x\nwant\n%x", name, got, want)
		}
	}
}

// TestGoldenRead reads what plugins of version 1 write, also with the fields of
// a later minor version, which are skipped.
func TestGoldenRead(t *testing.T) {
	wantVerdict := policy.Verdict{
		Action: policy.DeferIfPermit, Reason: "helo-unknown",
		Status: mail.Status{Code: 450, Enhanced: "4.7.1", Text: "<x>: Helo command rejected: Host not found"},
		Effects: policy.Effects{
			Prepend: []policy.Field{{Name: "X-Policy", Value: "seen"}}, Tags: []string{"slow"}, Score: -1.5,
			Redirect: []mail.Path{path(t, "jail@example.com")}, BCC: []mail.Path{path(t, "log@example.com")}, Tarpit: 2500 * time.Millisecond,
		},
	}
	wantManifest := &Manifest{
		ID: "org.example.golden", Version: "1.2.3", Help: "says what it is told", Stages: []policy.Stage{policy.Connect, policy.Message},
		Grants: []Grant{{Name: "dns", Help: "to look names up"}, {Name: "state", Optional: true}},
		Fields: []Field{
			{Name: "reject", Type: List, Default: []string{"a", "b"}, Choices: []string{"a", "b", "c"}, Help: "what to refuse"},
			{Name: "limit", Type: Int, Required: true, Help: "how many"},
		},
	}
	wantQuestions := []policy.Question{{Type: "MX", Name: "example.com"}, {Type: "PTR", Name: "192.0.2.1"}}
	for name, later := range map[string]func([]byte) []byte{"golden": func(b []byte) []byte { return b }, "of a later minor": future} {
		if v, err := decodeVerdict(later(golden(t, "verdict")), policy.Mail); err != nil || !reflect.DeepEqual(v, wantVerdict) {
			t.Errorf("%s: verdict %+v, %v", name, v, err)
		}
		if m, err := decodeManifest(later(golden(t, "manifest"))); err != nil || !reflect.DeepEqual(m, wantManifest) {
			t.Errorf("%s: manifest %+v, %v", name, m, err)
		}
		if qs, err := decodeQuestions(later(golden(t, "dnsrequest"))); err != nil || !reflect.DeepEqual(qs, wantQuestions) {
			t.Errorf("%s: questions %+v, %v", name, qs, err)
		}
	}
}

// TestDocumentedTables holds ABI.md's tables against what the server does:
// signatures, grants, and what is legal at which stage.
func TestDocumentedTables(t *testing.T) {
	doc, err := os.ReadFile(abiDir + "ABI.md")
	if err != nil {
		t.Fatal(err)
	}
	imports, actions, effects := 0, 0, 0
	table := ""
	for line := range strings.Lines(string(doc)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if len(cells) < 2 {
			table = ""
			continue
		}
		if table == "" {
			table = cells[0]
			continue
		}
		number, _, _ := strings.Cut(cells[0], " ")
		n, err := strconv.Atoi(number)
		switch {
		case table == "import" && cells[0] != "---":
			f, ok := hostFunctions[abi.Module+"."+strings.Trim(cells[0], "`")]
			if !ok || f.signature != signatureOf(cells[1]) || f.grant != strings.Trim(cells[2], "`") {
				t.Errorf("import %s: %s with grant %q, the server has %s with %q", cells[0], signatureOf(cells[1]), cells[2], f.signature, f.grant)
			}
			imports++
		case table == "action" && err == nil:
			actions++
			if want := [2]int{400, 599}; cells[1] != "none" {
				from, to, _ := strings.Cut(cells[1], "–")
				want[0], _ = strconv.Atoi(from)
				want[1], _ = strconv.Atoi(to)
				if codes[n] != want {
					t.Errorf("action %d: codes %v, the server has %v", n, want, codes[n])
				}
			} else if codes[n] != [2]int{} {
				t.Errorf("action %d: no codes, the server has %v", n, codes[n])
			}
			for stage := policy.Connect; stage <= policy.LastStage; stage++ {
				if documented := cells[1+stage] == "yes"; documented != policy.Legal(stage, policy.Action(n)) {
					t.Errorf("action %d at %s: documented as legal %v", n, stage, documented)
				}
			}
		case table == "modification" && err == nil:
			effects++
			for stage := policy.Connect; stage <= policy.LastStage; stage++ {
				documented := cells[1+stage] == "yes"
				if documented != policy.LegalEffect(stage, policy.Effect(n)) {
					t.Errorf("modification %d at %s: documented as legal %v", n, stage, documented)
				}
				if _, err := decodeVerdict(appendElement(nil, abi.VerdictMod, string(goldenMod(n))), stage); (err == nil) != documented {
					t.Errorf("modification %d at %s: %v", n, stage, err)
				}
			}
		}
	}
	if imports != 13 || actions != abi.LastAction+1 || effects != abi.LastOp {
		t.Errorf("ABI.md has %d imports, %d actions, %d modifications", imports, actions, effects)
	}
	for name := range hostFunctions {
		if rest, ok := strings.CutPrefix(name, abi.Module+"."); ok && !strings.Contains(string(doc), "| `"+rest+"` |") {
			t.Errorf("ABI.md has no import %s", rest)
		}
	}
}

// goldenMod is a modification that is right but for where it is asked for.
func goldenMod(op int) []byte {
	switch op {
	case abi.OpPrepend:
		return mod(abi.OpPrepend, "X-A", "b")
	case abi.OpRoute:
		return mod(abi.OpRoute, "hub", "[192.0.2.1]:25")
	case abi.OpTarpit, abi.OpDelay, abi.OpLimit:
		return appendUint(appendUint(nil, abi.ModOp, uint64(op)), abi.ModNumber, 5)
	}
	return mod(uint64(op), "", "a@b.example")
}

// signatureOf turns "`(p, n, delta i64) → i32`" into the server's letters.
func signatureOf(s string) string {
	params, result, _ := strings.Cut(strings.Trim(s, "`"), "→")
	var b strings.Builder
	if list := strings.Trim(params, "() "); list != "" {
		for _, p := range strings.Split(list, ",") {
			if strings.HasSuffix(p, " i64") {
				b.WriteByte('I')
			} else {
				b.WriteByte('i')
			}
		}
	}
	b.WriteByte('>')
	switch strings.TrimSpace(result) {
	case "i32":
		b.WriteByte('i')
	case "i64":
		b.WriteByte('I')
	}
	return b.String()
}

// TestNewerVersion: a newer major is refused with words that say so; a newer
// minor loads as long as it uses nothing that this server lacks.
func TestNewerVersion(t *testing.T) {
	module := func(version int64) []byte {
		b := new(builder)
		b.completeWith(version, future(manifestOf("org.example.later", 2)), []byte{opI64Const, 0})
		return b.bytes()
	}
	for version, want := range map[int64]string{(abi.Major + 1) << 16: "version 2.0 of the ABI; this server has 1.0", 0: "version 0.0"} {
		if err := mustRefuse(t, module(version)); !strings.Contains(err.Error(), want) {
			t.Errorf("version %#x: %v", version, err)
		}
	}
	p := load(t, shared(t), module(abi.Version+7), LoadOptions{})
	if v, err := p.Call(context.Background(), event(t, policy.Helo, "x"), newWorld()); err != nil || v.Action != policy.Next {
		t.Errorf("a later minor: %+v, %v", v, err)
	}
}
