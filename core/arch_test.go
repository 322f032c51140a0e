package core_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/wafermail/wafer/"

// arrows says which packages of the project each package may import, besides
// the standard library. A new arrow is argued in RATIONALE.md.
var arrows = map[string][]string{
	"core/mail":            {},
	"core/proxy":           {},
	"core/dns":             {"core/mail"},
	"core/auth":            {"core/mail", "core/dns"},
	"core/policy":          {"core/mail", "core/dns"},
	"core/durable":         {},
	"core/spill":           {},
	"core/maildir":         {"core/mail", "core/durable", "core/spill"},
	"core/queue":           {"core/mail", "core/durable", "core/spill", "core/policy", "core/bounce"},
	"core/relay":           {"core/mail", "core/dns", "core/dane", "core/mtasts"},
	"core/postfixtest":     {},
	"core/relay/relaytest": {},
	"core/dane":            {"core/dns"},
	"core/mtasts":          {"core/mail", "core/dns"},
	"core/bounce":          {"core/mail"},
	"core/srs":             {"core/mail"},
	"core/downgrade":       {"core/mail"},
	"core/config":          {"core/mail", "core/policy", "core/maildir", "core/bundle"},
	"core/wasm":            {"core/mail", "core/dns", "core/policy", "sdk/abi"},
	"core/smtpd":           {"core/mail", "core/dns", "core/policy", "core/auth", "core/maildir", "core/proxy"},
	"core/imapd":           {"core/mail", "core/dns", "core/policy", "core/auth", "core/maildir", "core/proxy"},
	"core/pop3d":           {"core/mail", "core/dns", "core/policy", "core/auth", "core/maildir", "core/proxy"},
	"core/admin":           {"core/mail", "core/queue"},
	"core": {
		"core/mail", "core/dns", "core/auth", "core/policy", "core/maildir", "core/config", "core/wasm",
		"core/smtpd", "core/imapd", "core/pop3d", "core/admin", "core/lists", "core/durable", "core/queue", "core/relay", "core/bounce", "core/mtasts", "core/srs", "core/downgrade", "core/spill", "core/state", "core/decisions", "core/delegate", "core/milter", "core/replay", "plugins",
	},
	"core/lists":        {"core/policy"},
	"core/state":        {"core/policy"},
	"core/decisions":    {"core/policy", "core/mail"},
	"core/delegate":     {"core/mail", "core/policy"},
	"core/rehearse":     {"core/mail", "core/dns", "core/policy"},
	"core/policytest":   {"core", "core/mail", "core/dns", "core/policy", "core/config", "core/rehearse"},
	"core/oracle":       {},
	"core/milter":       {"core/mail", "core/policy"},
	"core/tape":         {"core/durable"},
	"core/bundle":       {"core/durable"},
	"core/arc":          {"core/mail", "core/dns", "core/dkim", "core/authres"},
	"core/mbox":         {},
	"core/replay":       {"core/mail", "core/policy", "core/tape"},
	"core/dkim":         {"core/mail", "core/dns"},
	"core/dmarc":        {"core/mail", "core/dns"},
	"core/dmarc/report": {"core/mail", "core/dns", "core/dmarc"},
	"core/authres":      {"core/mail"},
	"core/migrate":      {"core/maildir", "core/mbox", "core/spill"},
	"core/takeover":     {},
	"core/bench":        {},
	"cmd/wafer":         {"core", "core/mail", "core/config", "core/auth", "core/admin", "core/maildir", "core/migrate", "core/policy", "core/wasm", "core/decisions", "core/rehearse", "core/policytest", "core/replay", "core/tape", "core/bundle", "core/dns", "sdk", "plugins", "policies"},
	"sdk/abi":           {},
	"sdk":               {"sdk/abi"},
	"plugins":           {},
	"policies":          {},
}

// only says which package alone may import a third party's.
var only = map[string][]string{
	"github.com/tetratelabs/wazero":    {"core/wasm"},
	"github.com/hashicorp/hcl/v2":      {"core/config"},
	"github.com/zclconf/go-cty":        {"core/config"},
	"github.com/emersion/go-smtp":      {"core/smtpd"},
	"github.com/emersion/go-imap/v2":   {"core/imapd"},
	"github.com/klauspost/compress":    {"core/imapd", "core/maildir", "core/tape"},
	"github.com/emersion/go-sasl":      {"core/auth"},
	"github.com/xdg-go/scram":          {"core/auth"},
	"github.com/go-crypt/crypt":        {"core/auth"},
	"github.com/miekg/dns":             {"core/dns", "core/bench"},
	"github.com/alecthomas/kong":       {"cmd/wafer"},
	"github.com/coreos/go-systemd/v22": {"core"},
	"github.com/prometheus":            {"core"},
	"go.etcd.io/bbolt":                 {"core/state"},
	"github.com/rogpeppe/go-internal":  {"cmd/wafer"},
	"golang.org/x/term":                {"cmd/wafer"},
}

// TestImportArrows holds the import diagram of the project.
func TestImportArrows(t *testing.T) {
	for file, imports := range imports(t) {
		from := path.Dir(file)
		if strings.HasPrefix(from, "plugins/") {
			for _, imp := range imports {
				to, ours := strings.CutPrefix(imp, module)
				shared := strings.HasPrefix(to, "plugins/internal/") || path.Dir(to) == from
				if ours && to != "sdk" && !shared {
					t.Errorf("%s imports %s; a plugin may import sdk, its own packages and plugins/internal only", file, to)
				}
			}
			continue
		}
		allowed, known := arrows[from]
		if !known && !isTest(file) {
			t.Errorf("%s: package %s is not in the import diagram", file, from)
			continue
		}
		for _, imp := range imports {
			to, ours := strings.CutPrefix(imp, module)
			switch {
			case ours && isTest(file): // tests may use what they like of ours
			case ours:
				if !contains(allowed, to) {
					t.Errorf("%s imports %s; %s may import %s", file, to, from, strings.Join(allowed, ", "))
				}
			case isTest(file):
			default:
				for third, owners := range only {
					if (imp == third || strings.HasPrefix(imp, third+"/")) && !contains(owners, from) {
						t.Errorf("%s imports %s; only %s may", file, imp, strings.Join(owners, ", "))
					}
				}
			}
		}
	}
}

// TestTopLevel holds the names that may stand at the top of the repository.
func TestTopLevel(t *testing.T) {
	allowed := []string{"cmd", "core", "plugins", "sdk", "policies", "config.hcl", "go.mod", "go.sum", "README.md", "Makefile", "LICENSE"}
	names, err := filepath.Glob("../*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if base := filepath.Base(name); base[0] != '.' && !contains(allowed, base) {
			t.Errorf("the top level holds %s", base)
		}
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func isTest(file string) bool { return strings.HasSuffix(file, "_test.go") }

// imports lists the imports of every Go file, by path from the top.
func imports(t *testing.T) map[string][]string {
	all := map[string][]string{}
	err := filepath.WalkDir("..", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); name == "testdata" || name != ".." && name[0] == '.' {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(p) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		file := filepath.ToSlash(strings.TrimPrefix(p, "../"))
		all[file] = nil
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			all[file] = append(all[file], imp)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
