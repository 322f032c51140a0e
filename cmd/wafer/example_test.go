package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestExampleConfig: the example names every key, so it must be good but for
// the files and accounts of a machine that is not this one.
func TestExampleConfig(t *testing.T) {
	b, err := os.ReadFile("../../config.hcl")
	must(t, err)
	w := newWorld(t, setup{})
	text := string(b)
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 || f[1] != "=" {
			continue
		}
		if file, ok := map[string]string{"cert": "cert.pem", "key": "key.pem", "users": "users"}[f[0]]; ok {
			text = strings.Replace(text, line, fmt.Sprintf("%s = %q\n", f[0], file), 1)
		}
	}
	text = regexp.MustCompile(`(?m)^(\s*)user( *)= ".*"$`).ReplaceAllString(text, `${1}user${2}= "nobody"`)
	text = regexp.MustCompile(`(?m)^(\s*)group( *)= ".*"$`).ReplaceAllString(text, `${1}group${2}= ""`)
	w.write("example.hcl", text)
	w.write("policies/placeholder", "")
	if out, code := w.run("", "check", "example.hcl"); code != 0 {
		t.Errorf("config.hcl of the source tree is broken:\n%s", out)
	}
	var paths []string
	for _, name := range []string{"../../config.hcl", "../../policies"} {
		abs, err := filepath.Abs(name)
		must(t, err)
		paths = append(paths, abs)
	}
	if out, code := w.run("", append([]string{"fmt", "-check"}, paths...)...); code != 0 {
		t.Errorf("not in the canonical form: %s", out)
	}
}
