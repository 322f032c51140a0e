//go:build !wasip1

package sdk

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// blocks are the Go files in README.md, in their order, grouped into projects: a
// second file of a name begins the next one.
func blocks(t *testing.T) (projects []map[string]string) {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?s)\n```go\n(.*?)```\n").FindAllStringSubmatch(string(text), -1) {
		first, _, _ := strings.Cut(m[1], "\n")
		name, ok := strings.CutPrefix(first, "// ")
		if !ok || filepath.Ext(name) != ".go" {
			t.Fatalf("a block begins with %q, want the name of its file", first)
		}
		if n := len(projects); n == 0 || projects[n-1][name] != "" {
			projects = append(projects, map[string]string{})
		}
		projects[len(projects)-1][name] = m[1]
	}
	return projects
}

// TestReadmeCompiles: what the manual shows is Go that compiles, natively and for
// the sandbox, in a project like those that wafer plugin new writes, without a
// network; and its tests are good.
func TestReadmeCompiles(t *testing.T) {
	projects := blocks(t)
	if len(projects) < 2 {
		t.Fatalf("%d projects", len(projects))
	}
	for i, files := range projects {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			dir := t.TempDir()
			files["go.mod"] = "module example\n\ngo 1.26\n\nrequire github.com/wafermail/wafer v0.0.0\n"
			files["vendor/modules.txt"] = "# github.com/wafermail/wafer v0.0.0\n## explicit; go 1.26\ngithub.com/wafermail/wafer/sdk\ngithub.com/wafermail/wafer/sdk/abi\n"
			err := fs.WalkDir(Source, ".", func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				b, err := Source.ReadFile(path)
				files["vendor/github.com/wafermail/wafer/sdk/"+path] = string(b)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			for name, text := range files {
				path := filepath.Join(dir, filepath.FromSlash(name))
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			run := func(env []string, args ...string) {
				t.Helper()
				cmd := exec.Command("go", args...)
				cmd.Dir = dir
				cmd.Env = append(append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=vendor", "GOWORK=off"), env...)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("go %s %v: %v\n%s", strings.Join(args, " "), env, err, out)
				}
			}
			run(nil, "vet", ".")
			run([]string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"}, "build", "-buildmode=c-shared", "-o", os.DevNull, ".")
			if files["main_test.go"] != "" {
				run(nil, "test", ".")
			}
			for name := range files {
				if filepath.Dir(name) != "." || filepath.Ext(name) != ".go" {
					continue
				}
				out, err := exec.Command("gofmt", "-l", filepath.Join(dir, name)).CombinedOutput()
				if err != nil || len(out) > 0 {
					t.Errorf("%s is not formatted: %v, %s", name, err, out)
				}
			}
		})
	}
	main := strings.Count(projects[0]["main.go"], "\n")
	if main > 35 {
		t.Errorf("the first plugin has %d lines", main)
	}
}

// TestReadmeTables: what is legal where is what the ABI's specification says.
func TestReadmeTables(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	spec, err := os.ReadFile(filepath.Join("abi", "ABI.md"))
	if err != nil {
		t.Fatal(err)
	}
	// Each row's name in the specification, and the function that stands for it.
	names := map[string]string{
		"next": "Next", "accept": "Accept", "reject": "Reject", "defer": "Defer", "disconnect": "Disconnect", "discard": "Discard",
		"hold": "Hold", "quarantine": "Quarantine", "defer_if_permit": "DeferIfPermit", "defer_if_reject": "DeferIfReject",
		"prepend": "AddHeader", "tag": "Tag", "redirect": "Redirect", "bcc": "BCC", "tarpit": "Tarpit", "route": "SendBy", "delay": "Delay", "limit": "Limit",
	}
	// The stages' columns are the last eleven of a row.
	columns := func(line string) string {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		var last []string
		for _, c := range cells[max(0, len(cells)-11):] {
			last = append(last, strings.TrimSpace(c))
		}
		return strings.Join(last, ",")
	}
	for name, function := range names {
		row := func(text []byte, form string) string {
			rows := regexp.MustCompile(`(?m)^`+form+`.*$`).FindAll(text, -1)
			if rows == nil {
				t.Errorf("no row %s", form)
				return ""
			}
			return columns(string(rows[len(rows)-1])) // a stage may have an effect's name, and comes before it
		}
		got, want := row(readme, `\| `+"`"+function+"`: "), row(spec, `\| [0-9]+ `+name+`( |:)`)
		if got != want || !strings.Contains(want, "yes") {
			t.Errorf("%s: %s, want %s", function, got, want)
		}
	}
}
