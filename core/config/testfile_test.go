package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// MarshalJSON shows a pattern as it was written, for the golden files.
func (p Pattern) MarshalJSON() ([]byte, error) {
	kind := "text"
	if p.re != nil {
		kind = "regexp"
	}
	return json.Marshal(kind + " " + p.String())
}

// shown is what tests say in a form that JSON can hold.
func shown(tests []Test) (all []any) {
	type given struct {
		Given
		Sender  string
		Rcpts   []string
		Message *string
	}
	type step struct {
		Step
		After string
		Given given
	}
	type test struct {
		Test
		Steps []step
	}
	for _, t := range tests {
		show := test{Test: t}
		for _, s := range t.Steps {
			g := given{Given: s.Given, Sender: "<" + s.Given.Sender.String() + ">"}
			for _, p := range s.Given.Rcpts {
				g.Rcpts = append(g.Rcpts, p.String())
			}
			if s.Given.Message != nil {
				m := string(s.Given.Message)
				g.Message = &m
			}
			show.Steps = append(show.Steps, step{s, s.After.String(), g})
		}
		all = append(all, show)
	}
	return all
}

// TestGoldenTests reads each testdata/tests/NAME.hcl as a test file and compares
// what it says with NAME.json, or every diagnostic with NAME.err.
func TestGoldenTests(t *testing.T) {
	files, err := filepath.Glob("testdata/tests/*.hcl")
	if err != nil || len(files) < 2 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	here, err := filepath.Abs("testdata/tests")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(file, ".hcl")
		t.Run(filepath.Base(name), func(t *testing.T) {
			tests, err := LoadTests([]string{file})
			var got []byte
			golden := name + ".json"
			var faults *Error
			switch {
			case errors.As(err, &faults):
				golden, got = name+".err", []byte(err.Error()+"\n")
			case err != nil:
				t.Fatal(err)
			default:
				if got, err = json.MarshalIndent(shown(tests), "", "  "); err != nil {
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

// TestEveryFaultOfATestHasARemedy: file, line and what to write instead.
func TestEveryFaultOfATestHasARemedy(t *testing.T) {
	_, err := LoadTests([]string{"testdata/tests/bad.hcl"})
	var faults *Error
	if !errors.As(err, &faults) {
		t.Fatal(err)
	}
	src, err := os.ReadFile("testdata/tests/bad.hcl")
	if err != nil {
		t.Fatal(err)
	}
	lines := map[int]bool{}
	for _, f := range faults.Faults {
		lines[f.Line] = true
		if filepath.Base(f.File) != "bad.hcl" || f.Line < 1 || f.Detail == "" {
			t.Errorf("fault %+v lacks its place or its remedy", f)
		}
	}
	// Every line within the blocks that list one fault a line has one.
	inner := regexp.MustCompile(`(?s)test "(?:given|expect)" \{.*?\n\}\n`)
	for _, at := range inner.FindAllIndex(src, -1) {
		first := bytes.Count(src[:at[0]], []byte("\n")) + 1
		for i, l := range strings.Split(string(src[at[0]:at[1]]), "\n") {
			if strings.Contains(l, " = ") && !strings.Contains(l, "expect {") && !lines[first+i] {
				t.Errorf("line %d has no fault: %s", first+i, l)
			}
		}
	}
}

// loadTest reads one test file with this text.
func loadTest(t testing.TB, text string) ([]Test, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "x_test.hcl")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return LoadTests([]string{name})
}

// TestGivenMerges: what a block does not say stays as the block around it has
// it; maps add up; no step changes another.
func TestGivenMerges(t *testing.T) {
	tests, err := loadTest(t, `
given {
  helo  = "file"
  rcpt  = ["a@file.example", "b@file.example"]
  dns   = { "A x" = "192.0.2.1", "A y" = "192.0.2.1" }
  state = { c = { k = "file", l = "file" } }
}
test "first" {
  given {
    dns   = { "A y" = "192.0.2.2" }
    state = { c = { l = "first" } }
  }
  step "one" {
    given {
      helo  = "one"
      rcpt  = "c@one.example"
      dns   = { "A z" = "192.0.2.3" }
      state = { c = { m = "one" }, d = { k = "one" } }
    }
    expect { code = 250 }
  }
  step "two" {
    expect { code = 250 }
  }
}
test "second" {
  expect { code = 250 }
}
`)
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name string
		g    Given
		want string
	}{
		{"first, step one", tests[0].Steps[0].Given, "one 1 map[A x:[192.0.2.1] A y:[192.0.2.2] A z:[192.0.2.3]] map[c:map[k:file l:first m:one] d:map[k:one]]"},
		{"first, step two", tests[0].Steps[1].Given, "file 2 map[A x:[192.0.2.1] A y:[192.0.2.2]] map[c:map[k:file l:first]]"},
		{"second", tests[1].Steps[0].Given, "file 2 map[A x:[192.0.2.1] A y:[192.0.2.1]] map[c:map[k:file l:file]]"},
	}
	for _, row := range rows {
		if got := fmt.Sprint(row.g.Helo, " ", len(row.g.Rcpts), " ", row.g.DNS, " ", row.g.State); got != row.want {
			t.Errorf("%s: %s\nwant %s", row.name, got, row.want)
		}
	}
}

// TestEach: a test of every row, in the order of their names.
func TestEach(t *testing.T) {
	var text strings.Builder
	text.WriteString("test \"t\" {\n each = {\n")
	for n := range maxRows {
		fmt.Fprintf(&text, "r%05d = { n = %d }\n", n, n)
	}
	tests, err := loadTest(t, text.String()+"}\n given { size = each.n }\n expect { code = 250 }\n}\n")
	if err != nil || len(tests) != maxRows {
		t.Fatalf("%d tests, %v", len(tests), err)
	}
	for n, test := range tests {
		if test.Name != fmt.Sprintf("t/r%05d", n) || test.Steps[0].Given.Size != int64(n) {
			t.Fatalf("test %d is %s with size %d", n, test.Name, test.Steps[0].Given.Size)
		}
	}
	if _, err := loadTest(t, text.String()+"more = { n = 1 }\n}\n given { size = each.n }\n expect { code = 250 }\n}\n"); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("%d rows: %.200v", maxRows+1, err)
	}
	if _, err := loadTest(t, "test \"t\" {\n given { helo = each.x }\n expect { code = 250 }\n}\n"); err == nil {
		t.Error("each is known in a test without rows")
	}
}

func TestPattern(t *testing.T) {
	rows := []struct {
		name, pattern string
		good, bad     []string
	}{
		{"text", "Access denied", []string{"Access denied"}, []string{"access denied", "Access denied.", ""}},
		{"empty text", "", []string{""}, []string{"x"}},
		{"special characters in a text", "a.c (x)", []string{"a.c (x)"}, []string{"abc (x)"}},
		{"expression", "~ ^Access .*ied$", []string{"Access denied"}, []string{"No Access denied"}},
		{"expression without a blank", "~den", []string{"denied"}, []string{"nothing"}},
		{"empty expression", "~", []string{"", "x"}, nil},
	}
	for _, row := range rows {
		tests, err := loadTest(t, "test \"t\" {\n expect { text = "+fmt.Sprintf("%q", row.pattern)+" }\n}\n")
		if err != nil || tests[0].Steps[0].Expect.Text == nil {
			t.Fatalf("%s: no text, %v", row.name, err)
		}
		p := *tests[0].Steps[0].Expect.Text
		if p.String() != row.pattern {
			t.Errorf("%s: written as %q", row.name, p)
		}
		for _, s := range row.good {
			if !p.Match(s) {
				t.Errorf("%s does not match %q", row.name, s)
			}
		}
		for _, s := range row.bad {
			if p.Match(s) {
				t.Errorf("%s matches %q", row.name, s)
			}
		}
	}
}

// TestLoadTestsFails: what is not a fault of the file's text.
func TestLoadTestsFails(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadTests([]string{filepath.Join(dir, "none_test.hcl")}); err == nil || !strings.Contains(err.Error(), "read tests: "+dir) {
		t.Errorf("no file: %v", err)
	}
	if _, err := LoadTests([]string{dir}); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Errorf("a folder: %v", err)
	}
	for _, files := range [][]string{nil, {filepath.Join(dir, "empty_test.hcl")}} {
		for _, name := range files {
			if err := os.WriteFile(name, []byte("given { helo = \"x\" }\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := LoadTests(files); !errors.Is(err, ErrNoTests) {
			t.Errorf("tests of %v: %v", files, err)
		}
	}
}

// TestLoadTestsOfFiles: every file has its own given, its own folder, and its faults.
func TestLoadTestsOfFiles(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for _, name := range []string{"a", "b"} {
		sub := filepath.Join(dir, name)
		file := filepath.Join(sub, name+"_test.hcl")
		text := "given {\n helo = \"" + name + "\"\n message_file = \"m\"\n}\ntest \"same\" {\n expect { code = 250 }\n}\n"
		if err := errors.Join(os.Mkdir(sub, 0o700), os.WriteFile(file, []byte(text), 0o600), os.WriteFile(filepath.Join(sub, "m"), []byte(name+"\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	tests, err := LoadTests(files)
	if err != nil || len(tests) != 2 {
		t.Fatalf("%d tests, %v", len(tests), err)
	}
	for i, want := range []string{"a", "b"} {
		g := tests[i].Steps[0].Given
		if g.Helo != want || string(g.Message) != want+"\r\n" || tests[i].File != files[i] || tests[i].Where != want+"_test.hcl:5" {
			t.Errorf("test %d: %+v", i, tests[i])
		}
	}
}

// TestDefaults: a test that gives nothing is a mail that nobody has anything against.
func TestDefaults(t *testing.T) {
	tests, err := loadTest(t, "test \"t\" {\n expect { code = 250 }\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	s := tests[0].Steps[0]
	g := s.Given
	if g.Client.String() != "192.0.2.1" || g.Port != 40000 || g.Helo != "client.example.net" || !g.Extended || g.TLS != "" || g.User != "" || !g.AuthOK ||
		g.Mechanism != "PLAIN" || g.Sender.String() != "sender@example.net" || fmt.Sprint(g.Rcpts) != "[recipient@example.test]" || g.Hostname != "mail.example.test" ||
		!g.Clock.Equal(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)) || g.ClientName != nil || g.ReverseName != nil || g.Message != nil || s.Times != 1 || s.After != 0 || s.SameSession {
		t.Errorf("%+v", s)
	}
}

// TestLoadPolicies: a folder of policies, without a server around it.
func TestLoadPolicies(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("b.hcl", "policy \"b\" {\n on = [\"mx\"]\n check \"helo\" {\n at = \"helo\"\n }\n}\n")
	write("a.hcl", "policy \"a\" {\n on = [\"mx\"]\n check \"helo\" {\n at = \"helo\"\n }\n}\n")
	write("a_test.hcl", "no HCL at all {{{")
	c, err := LoadPolicies(dir)
	if err != nil || len(c.Policy) != 2 || c.Policy[0].Name != "a" || c.Policy[1].Name != "b" || c.Policies != dir {
		t.Fatalf("%+v, %v", c, err)
	}
	write("c.hcl", "policy \"a\" {\n on = [\"mxx\"]\n}\n")
	var faults *Error
	if _, err = LoadPolicies(dir); !errors.As(err, &faults) || len(faults.Faults) != 2 {
		t.Errorf("faulty: %v", err)
	}
	if _, err = LoadPolicies(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "read policies: ") || errors.As(err, &faults) {
		t.Errorf("no folder: %v", err)
	}
	if c, err := LoadPolicies(t.TempDir()); err != nil || len(c.Policy) != 0 {
		t.Errorf("empty folder: %+v, %v", c, err)
	}
}

// FuzzLoadTests: no file makes the loader panic; what it takes can fail, and
// every fault has a remedy.
func FuzzLoadTests(f *testing.F) {
	for _, name := range []string{"testdata/tests/good.hcl", "testdata/tests/bad.hcl"} {
		src, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(src))
	}
	f.Fuzz(func(t *testing.T, src string) {
		if len(src) > 16<<10 {
			return
		}
		tests, err := loadTest(t, src)
		if (len(tests) == 0) == (err == nil) {
			t.Fatalf("%d tests with error %v", len(tests), err)
		}
		var faults *Error
		if err != nil && !errors.Is(err, ErrNoTests) && !errors.As(err, &faults) {
			t.Fatalf("error %v has no place", err)
		}
		for _, test := range tests {
			if test.Name == "" || len(test.Steps) == 0 {
				t.Fatalf("test %+v", test)
			}
			for _, s := range test.Steps {
				if s.Times < 1 || !s.Given.Client.IsValid() || s.Given.Port == 0 {
					t.Fatalf("step %+v", s)
				}
			}
		}
	})
}
