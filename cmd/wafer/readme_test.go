package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/config"
)

// fence is a code block of README.md.
type fence struct{ info, text string }

// fences lists the code blocks of a Markdown file.
func fences(t *testing.T, name string) (all []fence) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^```([^\n]*)\n(.*?)^```$").FindAllStringSubmatch(string(b), -1) {
		all = append(all, fence{m[1], m[2]})
	}
	if len(all) == 0 {
		t.Fatalf("%s has no code blocks", name)
	}
	return all
}

// TestReadme does what README.md tells a stranger to do: make run, then every
// command, in the order in which they stand there.
func TestReadme(t *testing.T) {
	for _, program := range []string{"make", "swaks", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("README.md's commands need %s, which is not installed", program)
		}
	}
	for _, port := range []int{2525, 2587, 2465, 2143, 2993, 2110, 2995} {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Skipf("the demo's port %d is taken: %v", port, err)
		}
		ln.Close()
	}
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(top, ".build"), filepath.Join(dir, ".build")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(top, "policies"), filepath.Join(dir, "policies")); err != nil {
		t.Fatal(err)
	}
	var sent []string
	for round := range 2 { // the second start finds the first one's mail
		out := startDemo(t, top, filepath.Join(dir, ".demo"))
		for _, f := range fences(t, "../../README.md") {
			if f.info != "sh demo" && f.info != "sh users" && f.info != "sh policy" {
				continue
			}
			got := shell(t, dir, top, f.text)
			if strings.Contains(f.text, "imaps://") {
				if n := strings.Count(got, "Subject: first mail"); n < 2 { // over IMAP and over POP3
					t.Errorf("reading the mail back printed\n%s", got)
				}
			}
			sent = append(sent, f.text)
		}
		for _, line := range strings.Split(out.String(), "\n") { // what make run itself printed
			if cmd, ok := strings.CutPrefix(line, "    "); ok && !strings.HasPrefix(cmd, "user ") && !strings.HasPrefix(cmd, "password ") {
				got, err := shellErr(dir, top, cmd)
				if refused := strings.Contains(cmd, "--xclient"); refused != (err != nil) || refused && !strings.Contains(got, "504 5.5.2") {
					t.Errorf("round %d: make run printed %q, which ends with %v:\n%s", round, cmd, err, got)
				}
				sent = append(sent, cmd)
			}
		}
		out.stop()
	}
	if len(sent) < 10 {
		t.Errorf("only %d commands were found", len(sent))
	}
}

// demo is a running "make run".
type demo struct {
	bytes.Buffer
	stop func()
}

func startDemo(t *testing.T, top, dir string) *demo {
	t.Helper()
	d := &demo{}
	cmd := exec.Command("make", "-s", "run", "DEMO="+dir)
	cmd.Dir = top
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	d.stop = func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		<-ended
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // the first one compiles everything
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		b, err := os.ReadFile(log.Name())
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.Index(b, []byte("wafer serves a demo")); i >= 0 && bytes.Contains(b, []byte("wafer status -c")) {
			d.Write(b[i:])
			return d
		}
		select {
		case err := <-ended:
			t.Fatalf("make run ended: %v\n%s", err, b)
		case <-ctx.Done():
			d.stop()
			t.Fatalf("make run printed only\n%s", b)
		case <-tick.C:
		}
	}
}

func shell(t *testing.T, dir, top, text string) string {
	t.Helper()
	out, err := shellErr(dir, top, text)
	if err != nil {
		t.Errorf("%s\nends with %v:\n%s", text, err, out)
	}
	return out
}

func shellErr(dir, top, text string) (string, error) {
	cmd := exec.Command("sh", "-ec", text)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(top, ".build")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestReadmePlugin goes the author's way as README.md has it.
func TestReadmePlugin(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(t.TempDir(), "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(bin, "wafer")); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range fences(t, "../../README.md") {
		if f.info != "sh plugin" {
			continue
		}
		found++
		cmd := exec.Command("sh", "-ec", f.text)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "GOPROXY=off", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s\nends with %v:\n%s", f.text, err, out)
		}
	}
	if found == 0 {
		t.Error("README.md does not show how a plugin is written")
	}
}

// TestPoliciesReadme runs the tests and the commands that policies/README.md
// shows: the tests against the policies beside it, the commands against a server
// that has refused a mail.
func TestPoliciesReadme(t *testing.T) {
	need(t, "swaks")
	const readme = "../../policies/README.md"
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("../../policies/inbound.hcl")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, setup{top: xclientNetworks + "resolvers = [\"127.0.0.1:1\"]\n", policies: map[string]string{"inbound.hcl": string(b)}})
	s := w.start()
	if err := os.MkdirAll(filepath.Join(w.dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	// The commands of the page use the default configuration file.
	w.write("bin/wafer", "#!/bin/sh\ncase \"$1 $2\" in\n\"policy test\") exec "+binary+" \"$@\" ;;\nesac\nexec "+binary+" \"$@\" -c "+filepath.Join(w.dir, "config.hcl")+"\n")
	if err := os.Chmod(filepath.Join(w.dir, "bin/wafer"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, _ := as(t, s, "203.0.113.9", "laptop")
	id := decisionID.FindStringSubmatch(out)
	if id == nil {
		t.Fatalf("no refusal in:\n%s", out)
	}
	for _, f := range fences(t, readme) {
		switch f.info {
		case "sh":
			text := strings.ReplaceAll(f.text, "210RA9BD3T7K54F1T", id[1])
			cmd := exec.Command("sh", "-ec", text)
			cmd.Dir = top
			cmd.Env = append(os.Environ(), "PATH="+filepath.Join(w.dir, "bin")+":"+os.Getenv("PATH"))
			got, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%s\nends with %v:\n%s", text, err, got)
			}
		case "hcl test":
			dir := t.TempDir()
			for name, text := range map[string]string{"inbound.hcl": string(b), "x_test.hcl": f.text} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var out, errs bytes.Buffer
			if code := wafer([]string{"policy", "test", dir}, streams{out: &out, err: &errs}); code != 0 {
				t.Errorf("%s: ends with %d: %s%s", f.text, code, out.String(), errs.String())
			}
		}
	}
}

// TestReadmePolicies loads every policy and check that a README shows.
func TestReadmePolicies(t *testing.T) {
	const server = `
hostname = "mx.example.test"
policies = "policies"

domain "example.test" {
  maildir = "mail/%n"
  users   = "users"
}

listener "mx" {
  profile = "mx"
  address = ":25"
}

run_as {
  allow_root = true
}
`
	names, err := filepath.Glob("../../plugins/*/README.md")
	if err != nil || len(names) < 2 {
		t.Fatalf("READMEs of plugins: %v, %v", names, err)
	}
	for _, name := range append(names, "../../README.md") {
		found := 0
		for _, f := range fences(t, name) {
			if !strings.HasPrefix(f.info, "hcl") {
				continue
			}
			found++
			if formatted, changed, err := config.Format(name, []byte(f.text)); err != nil || changed {
				t.Errorf("%s: not laid out as wafer fmt would: %v\n%s", name, err, formatted)
			}
			text := f.text
			if strings.HasPrefix(text, "check ") {
				text = "policy \"p\" {\n  on = [\"mx\"]\n" + text + "}\n"
			}
			dir := t.TempDir()
			files := map[string]string{"config.hcl": server, "users": "", "policies/p.hcl": text}
			if f.info == "hcl next" { // it is about another version of the policies
				files["config.hcl"], files["policies/p.hcl"], files["next/p.hcl"] = server+text, "", ""
			}
			for file, b := range files {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, file), []byte(b), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var out, errs bytes.Buffer
			if code := wafer([]string{"check", filepath.Join(dir, "config.hcl")}, streams{out: &out, err: &errs}); code != 0 {
				t.Errorf("%s: wafer check ends with %d: %s\n%s", name, code, errs.String(), text)
			}
		}
		if found == 0 {
			t.Errorf("%s shows no policy", name)
		}
	}
}

// TestReadmeKeys: every key of config.hcl is in README.md's table.
func TestReadmeKeys(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("../../config.hcl")
	if err != nil {
		t.Fatal(err)
	}
	keys := regexp.MustCompile(`(?m)^\s*(?:# )?([a-z_]+)\s*(?:=|\{|")`).FindAllStringSubmatch(string(example), -1)
	if len(keys) < 40 {
		t.Fatalf("only %d keys in config.hcl", len(keys))
	}
	for _, k := range keys {
		if k[1] == "postmaster" || k[1] == "abuse" || k[1] == "sales" { // aliases
			continue
		}
		if !regexp.MustCompile("(?m)^\\| `[^|]*\\b" + k[1] + "\\b").Match(readme) {
			t.Errorf("README.md's table does not explain %s", k[1])
		}
	}
}
