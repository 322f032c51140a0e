package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden reads each testdata/NAME.hcl and compares the configuration with
// NAME.json, or every diagnostic with NAME.err.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.hcl")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	here, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(file, ".hcl")
		t.Run(filepath.Base(name), func(t *testing.T) {
			c, err := Load(file)
			var got []byte
			golden := name + ".json"
			var faults *Error
			switch {
			case errors.As(err, &faults):
				golden, got = name+".err", []byte(err.Error()+"\n")
			case err != nil:
				t.Fatal(err)
			default:
				if got, err = json.MarshalIndent(c, "", "  "); err != nil {
					t.Fatal(err)
				}
				got = append(got, '\n')
			}
			got = bytes.ReplaceAll(got, []byte(here), []byte("HERE"))
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestEveryFaultNamesItsPlace: file, line and what to write instead.
func TestEveryFaultNamesItsPlace(t *testing.T) {
	for _, file := range []string{"testdata/many.hcl", "testdata/policyfaults.hcl", "testdata/syntax.hcl", "testdata/empty.hcl"} {
		_, err := Load(file)
		var faults *Error
		if !errors.As(err, &faults) {
			t.Fatalf("%s: %v", file, err)
		}
		for _, f := range faults.Faults {
			if filepath.Base(f.File) != filepath.Base(file) || f.Line < 1 || f.Detail == "" {
				t.Errorf("fault %+v of %s lacks its place or its remedy", f, file)
			}
		}
	}
}

func TestPoliciesFolder(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	base, err := os.ReadFile("testdata/defaults.hcl")
	if err != nil {
		t.Fatal(err)
	}
	write("config.hcl", "policies = \"policies\"\n"+string(base))
	write("files/users", "")
	policy := func(name string) string {
		return "policy \"" + name + "\" {\n  on = [\"mx\"]\n  check \"helo\" {\n    at = \"helo\"\n  }\n}\n"
	}
	write("policies/20-second.hcl", policy("second"))
	write("policies/10-first.hcl", policy("first"))
	write("policies/10-first_test.hcl", "this is no policy")
	c, err := Load(filepath.Join(dir, "config.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Policy) != 2 || c.Policy[0].Name != "first" || c.Policy[1].Name != "second" {
		t.Errorf("policies %+v, want first and second", c.Policy)
	}
	digest := c.Digest
	write("policies/20-second.hcl", policy("other"))
	if c, err = Load(filepath.Join(dir, "config.hcl")); err != nil || c.Digest == digest {
		t.Errorf("a policy has changed, its digest has not: %v", err)
	}
	write("policies/30-third.hcl", policy("first"))
	if _, err = Load(filepath.Join(dir, "config.hcl")); err == nil || !strings.Contains(err.Error(), "10-first.hcl:1") {
		t.Errorf("two policies of a name: %v", err)
	}
}

func TestWhen(t *testing.T) {
	ev := &policy.Event{Stage: policy.Rcpt, Helo: "mx.example.org", Size: 5}
	ev.Sender, _ = mail.ParsePath("a@Bücher.example", true)
	rows := []struct {
		expr string
		want bool
	}{
		{`helo == "mx.example.org"`, true},
		{`endswith(helo, ".org") && !tls`, true},
		{`size > 5 || authenticated`, false},
		{`sender_domain == "xn--bcher-kva.example"`, true},
		{`contains(["rcpt", "data"], stage)`, true},
	}
	for _, row := range rows {
		dir := t.TempDir()
		src, err := os.ReadFile("testdata/defaults.hcl")
		if err != nil {
			t.Fatal(err)
		}
		text := string(src) + "policy \"p\" {\n on = [\"mx\"]\n check \"helo\" {\n at = \"rcpt\"\n when = " + row.expr + "\n }\n}\n"
		if err := errors.Join(os.Mkdir(dir+"/files", 0o755), os.WriteFile(dir+"/files/users", nil, 0o644), os.WriteFile(dir+"/c.hcl", []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
		c, err := Load(dir + "/c.hcl")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Policy[0].Checks[0].When(ev); got != row.want || err != nil {
			t.Errorf("%s = %v, %v; want %v", row.expr, got, err, row.want)
		}
	}
}

func TestDelivered(t *testing.T) {
	for _, name := range []string{"../../config.hcl", "../../policies/inbound.hcl"} {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if out, changed, err := Format(name, src); err != nil || changed {
			t.Errorf("%s is not formatted (%v):\n%s", name, err, out)
		}
	}
	// The example names files of a real server; that is all that is wrong with it here.
	_, err := Load("../../config.hcl")
	var faults *Error
	if err != nil && !errors.As(err, &faults) {
		t.Fatal(err)
	}
	if faults != nil {
		for _, f := range faults.Faults {
			if !strings.Contains(f.Summary, "cannot be read") {
				t.Errorf("config.hcl:%d: %s: %s", f.Line, f.Summary, f.Detail)
			}
		}
	}
}

func TestSizes(t *testing.T) {
	rows := map[string]int64{"50MiB": 52428800, "50 MiB": 52428800, "1KB": 1000, "3": 3, "2G": 2 << 30, "": -1, "x": -1, "-1": -1, "9999999999TiB": -1}
	for in, want := range rows {
		got, ok := parseSize(in)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("size %q = %d, want %d", in, got, want)
		}
	}
}

// FuzzLoad: no file makes the loader panic, and every fault has a remedy.
func FuzzLoad(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.hcl")
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		name := filepath.Join(t.TempDir(), "config.hcl")
		if err := os.WriteFile(name, src, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(name)
		if (c == nil) == (err == nil) {
			t.Fatalf("config %v with error %v", c, err)
		}
		if _, _, err := Format(name, src); err == nil && len(src) > 0 {
			out, _, _ := Format(name, src)
			if _, changed, err := Format(name, out); err != nil || changed {
				t.Fatalf("formatting twice differs: %v", err)
			}
		}
	})
}
