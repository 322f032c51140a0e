package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/policy"
)

// frame is a configuration with a gap in one block.
type frame struct {
	name   string
	before string
	after  string
	keys   []keyCase
}

// keyCase is a key with a value that is good and one that is not.
type keyCase struct{ key, good, bad, fault string }

const (
	frameHost   = "hostname = \"mail.example.org\"\n"
	frameTLS    = "tls {\n  cert = \"files/cert.pem\"\n  key  = \"files/key.pem\"\n}\n"
	frameDomain = "domain \"example.org\" {\n  maildir = \"mail/%n\"\n  users   = \"files/users\"\n}\n"
	frameDoor   = "listener \"mx\" {\n  profile = \"mx\"\n  address = \":25\"\n}\n"
	frameList   = "list \"blocked\" {\n  values = [\"x\"]\n}\n"
	frameGroup  = "group \"g\" {\n  check \"c\" {\n    at = \"helo\"\n  }\n}\n"
	framePolicy = "policy \"p\" {\n  on = [\"mx\"]\n"
)

var frames = []frame{
	{"the configuration", frameDomain + frameDoor, "", []keyCase{
		{"hostname", `"mx.example.org"`, `"mx"`, "is not a full host name"},
		{"state", `"state"`, `["state"]`, "state is not a text"},
		{"policies", `"files"`, `"polices"`, "policies cannot be read"},
		{"sync", `"syncfs"`, `"sometimes"`, `sync cannot be "sometimes"`},
		{"trusted_networks", `["10.0.0.0/8", "fc00::/7"]`, `["10.0.0.0/8", "0.0.0.0/0"]`, "0.0.0.0/0 is too much of the world"},
		{"proxy_networks", `["2001:db8::1"]`, `["::/0"]`, "::/0 is too much of the world"},
		{"xclient_networks", `"192.0.2.1"`, `"::ffff:192.0.2.1"`, "would match nobody"},
		{"resolvers", `["127.0.0.1", "[::1]:5353"]`, `["localhost"]`, "is no name server"},
		{"dnssec", `true`, `"yes"`, "dnssec is not true or false"},
		{"policy_keys", `[]`, `{}`, "policy_keys"},
		{"metrics", `"127.0.0.1:9464"`, `"9464"`, "is not an address to listen on"},
	}},
	{"tls", frameHost + frameDomain + frameDoor + "tls {\n", "}\n", []keyCase{
		{"cert", `"files/cert.pem"`, `"files"`, "cert cannot be read"},
		{"key", `"files/key.pem"`, `"files/nokey.pem"`, "key cannot be read"},
		{"min_version", `"1.3"`, `"1.1"`, `min_version cannot be "1.1"`},
	}},
	{`certificate "a.example.org"`, frameHost + frameDomain + frameDoor + "tls {\n  cert = \"files/cert.pem\"\n  key  = \"files/key.pem\"\n  certificate \"a.example.org\" {\n", "  }\n}\n", []keyCase{
		{"cert", `"files/cert.pem"`, `""`, "cert is empty"},
		{"key", `"files/key.pem"`, `1`, "key is not a text"},
	}},
	{`domain "example.org"`, frameHost + frameDoor + "domain \"example.org\" {\n", "}\n", []keyCase{
		{"maildir", `"/var/mail/%d/%n"`, `"/var/mail/%d"`, "every user would share one Maildir"},
		{"users", `"files/users"`, `"files/nobody"`, "users cannot be read"},
		{"aliases", `{ sales = ["ann"] }`, `{ sales = [] }`, `alias "sales" is not a list`},
		{"catch_all", `"ann"`, `"ann@"`, "catch_all leads to"},
		{"separator", `"-"`, `"@"`, "separator must be one character"},
		{"detail_folders", `false`, `true`, "detail_folders needs a separator"},
	}},
	{`quota`, frameHost + frameDoor + "domain \"example.org\" {\n  maildir = \"mail/%n\"\n  users = \"files/users\"\n  quota {\n", "  }\n}\n", []keyCase{
		{"storage", `"2GiB"`, `"much"`, "storage is not a size"},
		{"messages", `100000`, `-1`, "messages is not a whole number"},
		{"grace", `"20%"`, `"some"`, "is no size"},
		{"rules", `["Trash:storage=+100M", "Junk:ignore"]`, `["Trash"]`, "write FOLDER:storage"},
		{"warn", `[80, 95]`, `[0]`, "warn is not a list of whole numbers"},
		{"over", `"permanent"`, `"never"`, `over cannot be "never"`},
	}},
	{`listener "mx"`, frameHost + frameTLS + frameDomain + "listener \"mx\" {\n", "}\n", []keyCase{
		{"profile", `"mx"`, `"smtp"`, `no profile "smtp"`},
		{"address", `"127.0.0.1:2525"`, `"mail.example.org:25"`, "is not an address to listen on"},
		{"addresses", `["[::1]:2525", "[fe80::1%eth0]:25"]`, `["[::1]:2525", "[::1]:70000"]`, `"[::1]:70000" is not an address`},
		{"tls", `"required"`, `"maybe"`, `tls cannot be "maybe"`},
		{"without", `["chunking", "SMTPUTF8"]`, `["STARTTLS"]`, `no extension "STARTTLS" that can be left out`},
		{"allow_plaintext_auth_on_loopback", `true`, `"yes"`, "is not true or false"},
	}},
	{"limits", frameHost + frameDomain + frameDoor + "limits {\n", "}\n", []keyCase{
		{"message_size", `"10MiB"`, `"10 apples"`, "message_size is not a size"},
		{"recipients", `5`, `1.5`, "recipients is not a whole number"},
		{"connections_per_client", `5`, `0`, "connections_per_client is not a whole number"},
		{"connection_rate", `5`, `-1`, "connection_rate is not a whole number"},
		{"connection_rate_per", `"2m"`, `60`, "connection_rate_per is not a duration"},
		{"connections", `5`, `"many"`, "connections is not a whole number"},
		{"connections_per_user", `5`, `1e30`, "connections_per_user is not a whole number"},
		{"errors_soft", `5`, `0`, "errors_soft is not a whole number"},
		{"errors_hard", `50`, `9`, "errors_hard is less than errors_soft"},
		{"idle", `"1m"`, `"1 minute"`, "idle is not a duration"},
		{"data", `"1d"`, `"2d"`, "data is not a duration"},
		{"min_rate", `"1KiB"`, `0`, "min_rate is not a size"},
		{"session", `"1h30m"`, `"-1h"`, "session is not a duration"},
		{"greet_delay", `"0s"`, `"2m"`, "greet_delay is not a duration"},
		{"shutdown", `"5s"`, `"2h"`, "shutdown is not a duration"},
		{"reload_grace", `"1h"`, `"25h"`, "reload_grace is not a duration"},
	}},
	{"tape", frameHost + frameDomain + frameDoor + "tape {\n", "}\n", []keyCase{
		{"size", `"2GiB"`, `"1MiB"`, "size is not a size"},
		{"keep", `"7d"`, `"5m"`, "keep is not a duration"},
		{"bodies", `"contents"`, `"all"`, `bodies cannot be "all"`},
		{"mask", `"hash"`, `true`, "mask is not a text"},
		{"key", `"0123456789abcdef"`, `"short"`, "key of the tape is too short"},
	}},
	{"log", frameHost + frameDomain + frameDoor + "log {\n", "}\n", []keyCase{
		{"format", `"json"`, `"xml"`, `format cannot be "xml"`},
		{"level", `"warn"`, `"warning"`, `level cannot be "warning"`},
		{"decisions", `true`, `1`, "decisions is not true or false"},
		{"decisions_mask", `"hash"`, `"md5"`, `decisions_mask cannot be "md5"`},
		{"decisions_keep", `"90d"`, `"5m"`, "decisions_keep is not a duration"},
		{"decisions_size", `"100MiB"`, `"100KiB"`, "decisions_size is not a size"},
	}},
	{"run_as", frameHost + frameDomain + frameDoor + "run_as {\n", "}\n", []keyCase{
		{"user", `"vmail"`, `"root"`, "the server should not serve as root"},
		{"group", `"mail"`, `5`, "group is not a text"},
		{"allow_root", `true`, `"true"`, "allow_root is not true or false"},
	}},
	{`policy "p"`, frameHost + frameDomain + frameDoor + "policy \"p\" {\n", "}\n", []keyCase{
		{"soft_bounce", `true`, `"on"`, "soft_bounce is not true or false"},
		{"on", `["mx", "imap"]`, `["mx", "mx"]`, "door mx is there twice"},
		{"reply_at", `"mail"`, `"message"`, `reply_at cannot be "message"`},
	}},
	{"exempt", frameHost + frameDomain + frameDoor + framePolicy + "  exempt {\n", "  }\n}\n", []keyCase{
		{"networks", `["0.0.0.0/0"]`, `["192.0.2.1/24"]`, "has bits after its prefix"},
		{"authenticated", `true`, `[]`, "authenticated is not true or false"},
	}},
	{`check "helo"`, frameHost + frameDomain + frameDoor + frameList + framePolicy + "  check \"helo\" {\n", "  }\n}\n", []keyCase{
		{"plugin", `"files/x.wasm"`, `"files/y.wasm"`, "plugin cannot be read"},
		{"at", `["helo", "rcpt"]`, `["helo", "quit"]`, `no stage "quit"`},
		{"allow", `["dns", "count", "state", "list", "message"]`, `["disk"]`, `nothing called "disk" can be allowed`},
		{"lists", "[\"blocked\"]\nallow = [\"list\"]", "[\"bloked\"]\nallow = [\"list\"]", `no list "bloked"`},
		{"delegate", `"unix:/run/policyd"`, `"unix:policyd"`, "is no policy daemon"},
		{"milter", `"unix:/run/rspamd/milter.sock"`, `"rspamd"`, "is no milter"},
		{"timeout", `"25s"`, `25`, "timeout is not a duration"},
		{"on_error", `"reject"`, `"discard"`, `on_error cannot be "discard"`},
		{"mode", `"observe"`, `"off"`, `mode cannot be "off"`},
		{"reply_at", `"connect"`, `"auth"`, `reply_at cannot be "auth"`},
		{"with", `{ a = { b = [1, true, "x"] } }`, `{ a = 1, a = 2 }`, "a is there twice"},
		{"when", `size > 10 && !tls`, `size > "x"`, "Invalid operand"},
	}},
}

// needed are keys without which a block is a fault of its own.
var needed = map[string]string{
	"the configuration hostname": `"mail.example.org"`, "tls cert": `"files/cert.pem"`, "tls key": `"files/key.pem"`,
	`certificate "a.example.org" cert`: `"files/cert.pem"`, `certificate "a.example.org" key`: `"files/key.pem"`,
	`domain "example.org" maildir`: `"mail/%n"`, `domain "example.org" users`: `"files/users"`,
	`listener "mx" profile`: `"mx"`, `listener "mx" address`: `"192.0.2.1:25"`, `policy "p" on`: `["mx"]`,
	`check "helo" at`: `"helo"`, "run_as user": `"vmail"`,
}

// text is a frame with key set to value and what else is needed.
func (f frame) text(key, value string) string {
	lines := []string{key + " = " + value}
	for what, v := range needed {
		if k, ok := strings.CutPrefix(what, f.name+" "); ok && k != key {
			lines = append(lines, k+" = "+v)
		}
	}
	slices.Sort(lines)
	return f.before + strings.Join(lines, "\n") + "\n" + f.after
}

// folder is a place with the files that configurations here name.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "files"), os.DirFS("testdata/files")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// loadText loads a configuration that stands in text.
func loadText(t *testing.T, dir, text string) (*Config, []Fault) {
	t.Helper()
	name := filepath.Join(dir, "config.hcl")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(name)
	var faults *Error
	if err != nil && !errors.As(err, &faults) {
		t.Fatal(err)
	}
	if faults == nil {
		return c, nil
	}
	return c, faults.Faults
}

// TestEveryKey has a good and a bad value for every key that there is. A key
// that is missing here fails.
func TestEveryKey(t *testing.T) {
	dir := folder(t)
	for _, f := range frames {
		t.Run(f.name, func(t *testing.T) {
			_, faults := loadText(t, dir, f.text("no_such_key", "1"))
			if len(faults) != 1 || faults[0].Summary != "unknown key no_such_key" {
				t.Fatalf("an unknown key gives %+v", faults)
			}
			_, list, _ := strings.Cut(faults[0].Detail, "The keys of "+f.name+" are ")
			var have []string
			for _, k := range f.keys {
				have = append(have, k.key)
			}
			slices.Sort(have)
			if want := strings.Split(strings.TrimSuffix(list, "."), ", "); !slices.Equal(have, want) {
				t.Errorf("tested are\n%v, there are\n%v", have, want)
			}
			for _, k := range f.keys {
				text := f.text(k.key, k.good)
				if _, faults := loadText(t, dir, text); len(faults) > 0 {
					t.Errorf("%s = %s gives %+v in\n%s", k.key, k.good, faults, text)
				}
				text = f.text(k.key, k.bad)
				_, faults := loadText(t, dir, text)
				if len(faults) != 1 || !strings.Contains(faults[0].Summary, k.fault) || faults[0].Detail == "" {
					t.Errorf("%s = %s gives %+v, want %q only", k.key, k.bad, faults, k.fault)
					continue
				}
				if line := strings.Split(text, "\n")[faults[0].Line-1]; !strings.HasPrefix(line, k.key+" = ") {
					t.Errorf("%s = %s is reported at line %d, %q", k.key, k.bad, faults[0].Line, line)
				}
			}
		})
	}
}

// TestTogether: faults that no key has alone.
func TestTogether(t *testing.T) {
	dir := folder(t)
	door := func(name, profile string, addresses ...string) string {
		return fmt.Sprintf("listener %q {\n  profile = %q\n  addresses = [\"%s\"]\n}\n", name, profile, strings.Join(addresses, `", "`))
	}
	base := frameHost + frameDomain
	rows := []struct {
		name, text string
		want       string // summaries, joined by "; "
	}{
		{"two ports of one address", base + door("a", "mx", "127.0.0.1:25", "127.0.0.1:26"), ""},
		{"one port of two addresses", base + door("a", "mx", "127.0.0.1:25", "127.0.0.2:25", "[::1]:25"), ""},
		{"port 0 twice", base + door("a", "mx", "127.0.0.1:0", "127.0.0.1:0"), ""},
		{"every address twice", base + door("a", "mx", ":25") + door("b", "lmtp", "[::]:25"), "address [::]:25 is taken"},
		{"one of all", base + door("a", "mx", ":25") + door("b", "lmtp", "127.0.0.1:25"), "address 127.0.0.1:25 is taken"},
		{"all of IPv4 and one", base + door("a", "mx", "127.0.0.1:25", "0.0.0.0:25", "[::1]:25"), "address 0.0.0.0:25 is taken"},
		{"one address in two spellings", base + door("a", "mx", "[::1]:25", "[0:0::1]:25"), "address [0:0::1]:25 is taken"},
		{"localhost", base + door("a", "mx", "127.0.0.1:25", "localhost:25"), "address localhost:25 is taken"},
		{"one socket twice", base + door("a", "lmtp", "unix:/run/x", "unix:/run//x"), "address unix:/run//x is taken"},
		{"submission without TLS", base + door("a", "submission", ":587"), `listener "a" needs TLS`},
		{"imaps without TLS", base + door("a", "imaps", ":993"), `listener "a" needs TLS`},
		{"nothing at all", frameHost, "no domain; no listener"},
		{"alias twice", frameHost + frameDoor + "domain \"example.org\" {\n  maildir = \"%n\"\n  users = \"files/users\"\n  aliases = {\n    sales = [\"ann\"]\n    Sales = [\"bob\"]\n  }\n}\n", "sales is there twice"},
		{"a stage that never comes", base + frameDoor + "policy \"p\" {\n  on = [\"imap\", \"pop3s\"]\n  check \"helo\" {\n    at = [\"auth\", \"rcpt\"]\n  }\n}\n", "stage rcpt never comes"},
		{"key for block", base + frameDoor + "limits = {}\n", "limits is a block"},
		{"block for key", base + frameDoor + "state {\n}\n", "state is a key"},
		{"a key twice", base + frameDoor + "state = \"a\"\nstate = \"b\"\n", "Attribute redefined"},
		{"the same fault once", frameHost + frameDomain + frameDoor + "tls {\n  cert = env(\"WAFER_NO_SUCH\")\n  key = \"files/key.pem\"\n}\n", "Error in function call"},
		{"a list of no type", base + frameDoor + "list \"l\" {\n  type = \"hash\"\n  file = \"files/users\"\n}\n", `type cannot be "hash"`},
		{"a list that is not there", base + frameDoor + "list \"l\" {\n  file = \"files/none\"\n}\n", "list cannot be read"},
		{"a list of numbers", base + frameDoor + "list \"l\" {\n  values = [1]\n}\n", `values is not a list of texts, such as ["a", "b"]`},
		{"entries that are no map", base + frameDoor + "list \"l\" {\n  entries = [\"x\"]\n}\n", `entries is not a map, such as { "192.0.2.1" = "REJECT" }`},
		{"a list with an unknown key", base + frameDoor + "list \"l\" {\n  values = [\"x\"]\n  format = \"hash\"\n}\n", "unknown key format"},
		{"a list of nothing", base + frameDoor + "list \"l\" {\n}\n", `list "l" needs one source`},
		{"a list of two things", base + frameDoor + "list \"l\" {\n  values = [\"x\"]\n  file = \"files/users\"\n}\n", `list "l" needs one source`},
		{"a list without order", base + frameDoor + "list \"l\" {\n  type = \"cidr\"\n  values = [\"x\"]\n}\n", "a list of type cidr is a file"},
		{"a list twice", base + frameDoor + frameList + frameList, `a second list "blocked"`},
		{"lists without a grant", base + frameDoor + frameList + framePolicy + "  check \"c\" {\n    at = \"helo\"\n    lists = [\"blocked\"]\n  }\n}\n", "lists cannot be used without a grant"},
		{"a group", base + frameDoor + framePolicy + "  include \"g\" {}\n}\n" + frameGroup, ""},
		{"a group twice in a policy", base + frameDoor + framePolicy + "  include \"g\" {}\n  include \"g\" {}\n}\n" + frameGroup, `a second check "c"`},
		{"a check and a group with the same", base + frameDoor + framePolicy + "  check \"c\" {\n    at = \"helo\"\n  }\n  include \"g\" {}\n}\n" + frameGroup, `a second check "c"`},
		{"no such group", base + frameDoor + framePolicy + "  include \"h\" {}\n}\n" + frameGroup, `no group "h"`},
		{"a group in itself", base + frameDoor + framePolicy + "  include \"g\" {}\n}\ngroup \"g\" {\n  include \"h\" {}\n}\ngroup \"h\" {\n  include \"g\" {}\n}\n", `group "g" includes itself`},
		{"a fault in a group that nobody includes", base + frameDoor + "group \"g\" {\n  check \"c\" {\n  }\n}\n", `check "c" is asked at no stage`},
		{"a key in an include", base + frameDoor + framePolicy + "  include \"g\" {\n    at = \"helo\"\n  }\n}\n" + frameGroup, "an include says nothing of its own"},
		{"a huge number", base + frameDoor + framePolicy + "  check \"helo\" {\n    at = \"helo\"\n    with = { limit = 1e999999 }\n  }\n}\n", "with.limit is a number beyond all measure"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			_, faults := loadText(t, dir, row.text)
			var got []string
			for _, f := range faults {
				got = append(got, f.Summary)
			}
			if s := strings.Join(got, "; "); s != row.want {
				t.Errorf("got %q, want %q: %+v", s, row.want, faults)
			}
		})
	}
}

// TestPoliciesThatAreNotThere: a misspelt folder or a broken file must not let
// mail pass unjudged.
func TestPoliciesThatAreNotThere(t *testing.T) {
	dir := folder(t)
	base := frameHost + frameDomain + frameDoor
	if err := os.MkdirAll(filepath.Join(dir, "[odd]", "sub.hcl"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a.hcl": framePolicy + "}\n", ".#a.hcl": "locked by an editor", "a_test.hcl": "a test", "a.hcl~": "a backup"} {
		if err := os.WriteFile(filepath.Join(dir, "[odd]", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for policies, want := range map[string]string{"polices": "policies cannot be read", "files/users": "bundle of policies cannot be used", "[odd]": "policy file cannot be read"} {
		_, faults := loadText(t, dir, "policies = \""+policies+"\"\n"+base)
		if len(faults) != 1 || faults[0].Summary != want || faults[0].Line != 1 {
			t.Errorf("policies = %q gives %+v, want %q", policies, faults, want)
		}
	}
	if err := os.Remove(filepath.Join(dir, "[odd]", "sub.hcl")); err != nil {
		t.Fatal(err)
	}
	if c, faults := loadText(t, dir, "policies = \"[odd]\"\n"+base); len(faults) > 0 || len(c.Policy) != 1 {
		t.Errorf("a folder with brackets in its name gives %+v", faults)
	}
}

// TestWhenReadsNoFile: what env and file say to a when expression is read with
// the configuration, relative to the file that says it.
func TestWhenReadsNoFile(t *testing.T) {
	dir := folder(t)
	list := filepath.Join(dir, "policies", "list")
	if err := os.Mkdir(filepath.Dir(list), 0o755); err != nil {
		t.Fatal(err)
	}
	rule := func(when string) string {
		return framePolicy + "  check \"helo\" {\n    at = \"helo\"\n    when = " + when + "\n  }\n}\n"
	}
	for name, text := range map[string]string{list: "a.example", filepath.Join(dir, "policies", "p.hcl"): rule(`helo == file("list")`)} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("WAFER_TEST_NAME", "b.example")
	main := "policies = \"policies\"\n" + frameHost + frameDomain + frameDoor + strings.Replace(rule(`tls ? helo == file("files/users") : helo == env("WAFER_TEST_NAME")`), `"p"`, `"q"`, 1)
	c, faults := loadText(t, dir, main)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	first := c.Digest
	if err := os.WriteFile(list, []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("WAFER_TEST_NAME", "changed")
	for i, want := range []string{"b.example", "a.example"} {
		ok, err := c.Policy[i].Checks[0].When(&policy.Event{Stage: policy.Helo, Helo: want})
		if !ok || err != nil {
			t.Errorf("policy %s says %v, %v", c.Policy[i].Name, ok, err)
		}
	}
	if c, faults = loadText(t, dir, main); len(faults) > 0 || c.Digest == first {
		t.Errorf("a file that file() names has changed, the digest has not (%v)", faults)
	}
	for when, want := range map[string]string{
		`file(helo) == "x"`: "file depends on a fact", `env("X_${helo}") == ""`: "env depends on a fact",
		`contains([for f in ["a"] : file(f)], helo)`: "file depends on a fact",
		`helo == file("none")`:                       "Error in function call", `helo == file("/dev/zero")`: "Error in function call",
	} {
		_, faults := loadText(t, dir, frameHost+frameDomain+frameDoor+rule(when))
		if len(faults) != 1 || faults[0].Summary != want {
			t.Errorf("when = %s gives %+v, want %q", when, faults, want)
		}
	}
}

// TestDepth: no file fills the stack, which would end the process.
func TestDepth(t *testing.T) {
	dir := folder(t)
	const many = 100_000
	for name, text := range map[string]string{
		"brackets": "a = " + strings.Repeat("(", many), "lists": "a = " + strings.Repeat("[", many), "blocks": strings.Repeat("b {\n", many/2),
		"not": "a = " + strings.Repeat("!", many) + "true", "templates": "a = " + strings.Repeat(`"${`, many),
		"sums": "a = 1" + strings.Repeat("+1", many), "choices": "a = " + strings.Repeat("true?1:", many/4) + "1",
		"directives": "a = \"" + strings.Repeat("%{if true}", many/4) + "\"", "index": "a = b" + strings.Repeat("[b]", many),
	} {
		t.Run(name, func(t *testing.T) {
			_, faults := loadText(t, dir, text)
			if !slices.ContainsFunc(faults, func(f Fault) bool { return f.Summary == "too much in one expression" }) {
				t.Errorf("%d faults, %+v", len(faults), faults[:min(len(faults), 3)])
			}
		})
	}
	for _, text := range []string{ // what is just within the bounds
		strings.Repeat("!", maxOperators) + "true", "1" + strings.Repeat("+1", maxOperators), strings.Repeat("true?1:", maxOperators) + "1",
		"\"" + strings.Repeat("%{if true}", maxOperators) + "\"", "[1]" + strings.Repeat("[b]", maxOperators-1),
	} {
		if _, faults := loadText(t, dir, "state = "+text+"\n"+frameHost+frameDomain+frameDoor); len(faults) == 0 {
			t.Errorf("state = %.20s is a text", text)
		}
	}
	var aliases strings.Builder // lists are no operators
	for i := range 3 * maxOperators {
		fmt.Fprintf(&aliases, "    a%d = [\"ann\"]\n", i)
	}
	if _, faults := loadText(t, dir, frameHost+frameDoor+"domain \"example.org\" {\n  maildir = \"%n\"\n  users = \"files/users\"\n  aliases = {\n"+aliases.String()+"  }\n}\n"); len(faults) > 0 {
		t.Errorf("many aliases give %+v", faults[:1])
	}
	nested := strings.Repeat("[", maxDepth-1) + strings.Repeat("]", maxDepth-1)
	if _, faults := loadText(t, dir, "a = "+nested+"\n"+frameHost+frameDomain+frameDoor); len(faults) != 1 || faults[0].Summary != "unknown key a" {
		t.Errorf("what is still allowed gives %+v", faults)
	}
}

// TestWithPlaces: the path of a field that a plugin complains of leads to a line.
func TestWithPlaces(t *testing.T) {
	text := frameHost + frameDomain + frameDoor + framePolicy + "  check \"helo\" {\n    at = \"helo\"\n    with = {\n      a = 1\n      \"b\" = {\n        c = [\n          2,\n        ]\n      }\n    }\n  }\n}\n"
	c, faults := loadText(t, folder(t), text)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	check := c.Policy[0].Checks[0]
	if got := fmt.Sprint(check.With, check.WithWhere); got != "map[a:[1] b.c:[2]] map[a:config.hcl:15 b:config.hcl:16 b.c:config.hcl:17]" {
		t.Error(got)
	}
}

func TestDurations(t *testing.T) {
	rows := map[string]time.Duration{"60s": time.Minute, "1h30m": 90 * time.Minute, "2d": 48 * time.Hour, "1d12h": 36 * time.Hour, "1d-1h": -1, "1dx": -1, "": -1, "5": -1, "d": -1, "1.5d": -1, "99999999d": -1}
	for in, want := range rows {
		got, err := ParseDuration(in)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("duration %q = %v, want %v", in, got, want)
		}
	}
}
