package abi

import (
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// constants reads the constants of abi.go.
func constants(t *testing.T) map[string]constant.Value {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "abi.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := (&types.Config{Importer: importer.Default()}).Check("abi", fset, []*ast.File{f}, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]constant.Value{}
	for _, name := range pkg.Scope().Names() {
		if c, ok := pkg.Scope().Lookup(name).(*types.Const); ok {
			out[name] = c.Val()
		}
	}
	return out
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// prefixes are how abi.go calls the fields of each message of wafer.proto.
var prefixes = map[string]string{
	"Event": "Event", "Verdict": "Verdict", "Mod": "Mod", "Manifest": "Manifest", "Grant": "Grant", "Field": "Field",
	"Config": "Config", "Entry": "Entry", "DNSRequest": "DNS", "DNSResponse": "DNS", "Question": "Question", "Answer": "Answer",
	"Sighting": "Sighting",
}

// names are fields that abi.go calls otherwise than by their CamelCase.
var names = map[string]string{
	"EventRecipientCount": "EventRcptCount", "ManifestId": "ManifestID", "EventQueueId": "EventQueueID",
	"VerdictMods": "VerdictMod", "ManifestStages": "ManifestStage", "ManifestGrants": "ManifestGrant", "ManifestFields": "ManifestField",
	"FieldChoices": "FieldChoice", "ConfigEntries": "ConfigEntry", "ConfigGrants": "ConfigGrant", "EntryValues": "EntryValue",
	"DNSItems": "DNSItem", "AnswerRecords": "AnswerRecord",
}

// others are constants that begin like a field and are none.
var others = map[string]bool{
	"EventNext": true, "EventError": true, "GrantDNS": true, "GrantCount": true, "GrantMessage": true, "GrantState": true, "GrantList": true,
	"DNSOK": true, "DNSNotFound": true, "DNSTemp": true,
}

func camel(s string) string {
	var b strings.Builder
	for _, part := range strings.Split(s, "_") {
		b.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return b.String()
}

// TestProto holds wafer.proto and abi.go against each other, field by field.
func TestProto(t *testing.T) {
	have := constants(t)
	seen := map[string]bool{}
	var open []string
	message := regexp.MustCompile(`^\s*message (\w+) \{`)
	field := regexp.MustCompile(`^\s*(?:repeated )?(\w+) (\w+) = (\d+)(?: \[[^]]*\])?;`)
	for line := range strings.Lines(read(t, "wafer.proto")) {
		if m := message.FindStringSubmatch(line); m != nil {
			open = append(open, m[1])
			continue
		}
		if strings.TrimSpace(line) == "}" {
			open = open[:len(open)-1]
			continue
		}
		m := field.FindStringSubmatch(line)
		if m == nil || len(open) == 0 {
			continue
		}
		prefix, ok := prefixes[open[len(open)-1]]
		if !ok {
			t.Errorf("message %s is not in abi.go", open[len(open)-1])
			continue
		}
		name := prefix + camel(m[2])
		if other, ok := names[name]; ok {
			name = other
		}
		seen[name] = true
		if v, ok := have[name]; !ok || v.ExactString() != m[3] {
			t.Errorf("wafer.proto has %s.%s = %s; abi.go has %s = %v", open[len(open)-1], m[2], m[3], name, v)
		}
	}
	for name := range have {
		for _, prefix := range prefixes {
			if rest, ok := strings.CutPrefix(name, prefix); ok && rest != "" && rest[0] <= 'Z' && !seen[name] && !others[name] {
				t.Errorf("abi.go has %s; wafer.proto has no such field", name)
				break
			}
		}
	}
	if len(seen) < 50 {
		t.Errorf("only %d fields found", len(seen))
	}
}

// TestDocument holds the tables of ABI.md against abi.go. Which action is legal
// where, and the imports' signatures, are compared with the server by core/wasm.
func TestDocument(t *testing.T) {
	have := constants(t)
	doc := read(t, "ABI.md")
	number := func(name string) string {
		v, ok := have[name]
		if !ok {
			t.Fatalf("abi.go has no %s", name)
		}
		return v.ExactString()
	}
	text := func(name string) string { return constant.StringVal(have[name]) }
	rows := map[string]bool{}
	for line := range strings.Lines(doc) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			rows[strings.TrimSpace(cells[1])] = true
		}
	}
	row := func(want string) {
		t.Helper()
		for first := range rows {
			if first == want || strings.HasPrefix(first, want+":") || strings.HasPrefix(first, want+" ") {
				return
			}
		}
		t.Errorf("ABI.md has no row %q", want)
	}
	counts := map[string]int{}
	for name, v := range have {
		for prefix, words := range map[string]string{"Import": "", "Export": "", "Fact": ""} {
			if strings.HasPrefix(name, prefix) && name != "ExportStart" {
				row("`" + constant.StringVal(v) + words + "`")
				counts[prefix]++
			}
		}
		if word, ok := strings.CutPrefix(name, "Stage"); ok {
			row(v.ExactString() + " " + strings.ToLower(word))
			counts["Stage"]++
		}
		if word, ok := strings.CutPrefix(name, "Op"); ok {
			row(v.ExactString() + " " + strings.ToLower(word))
			counts["Op"]++
		}
		if word, ok := strings.CutPrefix(name, "Action"); ok {
			row(v.ExactString() + " " + strings.ToLower(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(word, "${1}_$2")))
			counts["Action"]++
		}
		if grant, ok := strings.CutPrefix(name, "Grant"); ok && others[name] && !strings.Contains(doc, "`"+constant.StringVal(v)+"`") {
			t.Errorf("ABI.md does not name the grant %s", grant)
		}
	}
	for prefix, want := range map[string]int{"Import": 13, "Export": 7, "Fact": 15, "Stage": LastStage, "Op": LastOp, "Action": LastAction + 1} {
		if counts[prefix] != want {
			t.Errorf("abi.go has %d constants %s…, want %d", counts[prefix], prefix, want)
		}
	}
	for name, word := range map[string]string{
		"NotFound": "not found", "Denied": "denied", "Timeout": "timeout", "BadArg": "bad argument", "Temporary": "temporary failure",
		"Quota": "quota", "NoList": "no list",
	} {
		row(strings.Replace(number(name), "-", "−", 1) + " " + word)
	}
	for _, want := range []string{
		"version " + number("Major") + "." + number("Minor"), "`" + text("Module") + "`", "`" + text("WASI") + "`",
		"`cap` must be " + number("MaxSighting") + " or more", "at most " + grouped(t, number("MaxTarpit")),
		number("MaxText") + " octets", number("MaxReason") + " octets", number("MaxName") + " octets", number("MaxMods") + " modifications",
		number("MaxDNSQuestion") + " DNS questions", number("MaxStateOps") + " calls of `count`", grouped(t, number("MaxKey")) + " octets",
		grouped(t, number("MaxRandom")), number("MaxMetrics") + " labels", "at most " + number("MaxLabel") + " octets",
	} {
		if !strings.Contains(doc, want) {
			t.Errorf("ABI.md does not say %q", want)
		}
	}
	for name, want := range map[string]string{
		"MaxModule": "at most 16 MiB", "MaxEvent": "an `Event` 64 KiB", "MaxConfig": "a `Config` 1 MiB", "MaxResult": "a result 64 KiB",
		"MaxLog": "8 KiB of log", "MaxValue": "8 KiB)", "MaxState": "at most 16 KiB",
	} {
		words := strings.Fields(regexp.MustCompile(`\d+ [KM]iB`).FindString(want))
		n, _ := strconv.Atoi(words[0])
		octets := n << map[string]int{"KiB": 10, "MiB": 20}[words[1]]
		if number(name) != strconv.Itoa(octets) || !strings.Contains(doc, want) {
			t.Errorf("%s is %s; ABI.md should say %q", name, number(name), want)
		}
	}
	if MaxWindow != 31*24*3600*1000 || !strings.Contains(doc, "at most 31 days") || MaxStateTTL != 90*24*3600*1000 || !strings.Contains(doc, "at most 90 days") {
		t.Error("ABI.md has other windows than abi.go")
	}
}

// grouped writes a number with commas.
func grouped(t *testing.T, s string) string {
	t.Helper()
	if len(s) > 3 {
		return s[:len(s)-3] + "," + s[len(s)-3:]
	}
	return s
}
