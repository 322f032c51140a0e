package auth

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func openText(t *testing.T, text string) *File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path, Options{Domains: []string{"x.test"}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestOpen(t *testing.T) {
	f := openText(t, strings.Join([]string{
		"# users of x.test",
		"",
		"alice:{PLAIN}one:1000:1000:Alice A.:/home/alice:/bin/sh:userdb_quota_rule=*:storage=1G allow_nets=192.0.2.0/24,2001:db8::/32",
		"Bob@X.TEST:{PLAIN}two",
		"carol:",
		"dave:!{PLAIN}x:::",
		"erin:{PLAIN.b64}YTpi\r",
		"jürgen:{PLAIN}three",
	}, "\n"))
	for _, row := range []struct{ name, want, hash string }{
		{"alice@x.test", "alice@x.test", "{PLAIN}one"},
		{"ALICE", "alice@x.test", "{PLAIN}one"},
		{"bob@x.test", "bob@x.test", "{PLAIN}two"},
		{"carol@x.test", "carol@x.test", ""},
		{"dave", "dave@x.test", "!{PLAIN}x"},
		{"erin", "erin@x.test", "{PLAIN.b64}YTpi"},
		{"JÜRGEN@x.test", "jürgen@x.test", "{PLAIN}three"},
	} {
		rec, err := f.Lookup(row.name)
		if err != nil || rec.User != row.want || rec.Hash != row.hash || !f.Has(row.name) {
			t.Errorf("Lookup(%q) = %+v, %v; want %s with %q", row.name, rec, err, row.want, row.hash)
		}
	}
	for _, name := range []string{"frank", "alice@y.test", "", "@x.test", "alice@@x.test", "#", "users"} {
		if rec, err := f.Lookup(name); !errors.Is(err, ErrNoUser) || f.Has(name) {
			t.Errorf("Lookup(%q) = %+v, %v", name, rec, err)
		}
	}
	rec, _ := f.Lookup("alice")
	if rec.UID != "1000" || rec.Home != "/home/alice" || rec.Fields["userdb_quota_rule"] != "*:storage=1G" ||
		rec.Fields["allow_nets"] != "192.0.2.0/24,2001:db8::/32" {
		t.Errorf("alice = %+v", rec)
	}
	if list := f.List(); len(list) != 6 || list[1].User != "bob@x.test" {
		t.Errorf("List = %v", list)
	}
}

func TestOpenReportsEveryMistake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	lines := []struct{ line, want string }{
		{"good:{PLAIN}secretpw", ""},
		{"noseparator", `no ":"`},
		{":{PLAIN}secretpw", "empty"},
		{"good:{PLAIN}secretpw", "already on line 1"},
		{"GOOD@x.test:{PLAIN}secretpw", "already on line 1"},
		{"a:secretpw", "no scheme"},
		{"b:{MD5}secretpw", "too weak"},
		{"c:{ROT13}secretpw", "unknown password scheme"},
		{"d@y.test:{PLAIN}secretpw", "domain y.test"},
		{"../e:{PLAIN}secretpw", "cannot hold"},
		{"f g:{PLAIN}secretpw", "cannot hold"},
		{"h..i:{PLAIN}secretpw", "empty element"},
		{"j\x01:{PLAIN}secretpw", "control"},
		{"k:{PLAIN}secretpw::::::nopassword", `"nopassword" is not supported`},
		{"l:{PLAIN}secretpw::::::allow_nets=10.0.0.0/99", "no network"},
		{"m:" + strings.Repeat("x", maxLine), "longer than"},
		{"n\xff:{PLAIN}secretpw", "UTF-8"},
		{"last:{PLAIN}secretpw", ""},
	}
	var text strings.Builder
	for _, l := range lines {
		text.WriteString(l.line + "\n")
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path, Options{Domains: []string{"x.test"}})
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatalf("Open = %v", err)
	}
	byLine := make(map[int]string)
	for _, p := range problems {
		byLine[p.Line] = p.Error()
	}
	for i, l := range lines {
		got := byLine[i+1]
		if l.want == "" && got != "" || !strings.Contains(got, l.want) {
			t.Errorf("line %d %q: problem %q, want %q", i+1, l.line, got, l.want)
		}
		if l.want != "" && !strings.HasPrefix(got, fmt.Sprintf("%s:%d: ", path, i+1)) {
			t.Errorf("problem %q has no file and line", got)
		}
	}
	if strings.Contains(err.Error(), "secretpw") {
		t.Errorf("a password is quoted:\n%v", err)
	}
	if !f.Has("good") || !f.Has("last") || len(f.List()) != 2 {
		t.Errorf("good lines are not used: %v", f.List())
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none"), Options{Domains: []string{"x"}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func TestReload(t *testing.T) {
	f := openText(t, "a:{PLAIN}1\n")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(f.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("b:{PLAIN}1\n") // same size, within the clock's grain
	if f.Has("a") || !f.Has("b") {
		t.Error("a change of equal size was not seen")
	}
	write("b:{PLAIN}1\nc:{ROT13}x\nd:{PLAIN}1\n")
	if !f.Has("b") || f.Has("d") || len(f.Problems()) != 1 || f.Problems()[0].Line != 2 {
		t.Errorf("with a broken line: %v, problems %v", f.List(), f.Problems())
	}
	if err := f.Add("e", "{PLAIN}1"); err == nil || !strings.Contains(err.Error(), ":2:") {
		t.Errorf("Add to a broken file: %v", err)
	}
	write("d:{PLAIN}1\n")
	if f.Has("b") || !f.Has("d") || len(f.Problems()) != 0 {
		t.Errorf("mended: %v, problems %v", f.List(), f.Problems())
	}
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	if !f.Has("d") {
		t.Error("a missing file took its users down")
	}
	write("z:{PLAIN}1\n")
	if !f.Has("z") {
		t.Error("the file came back unseen")
	}
}

func TestEdit(t *testing.T) {
	const before = "# head\nalice:{PLAIN}1:::x y:/h::nologin\n\n# about bob\nbob@x.test:{PLAIN}2\r\n# foot"
	f := openText(t, before)
	if err := os.Chmod(f.path, 0o640); err != nil {
		t.Fatal(err)
	}
	text := func() string {
		t.Helper()
		b, err := os.ReadFile(f.path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	steps := []struct {
		name string
		do   func() error
		want string
		err  error
	}{
		{"set", func() error { return f.SetPassword("ALICE@x.test", "{PLAIN}9") },
			"# head\nalice:{PLAIN}9:::x y:/h::nologin\n\n# about bob\nbob@x.test:{PLAIN}2\r\n# foot", nil},
		{"set with CR", func() error { return f.SetPassword("bob", "{PLAIN}8") },
			"# head\nalice:{PLAIN}9:::x y:/h::nologin\n\n# about bob\nbob@x.test:{PLAIN}8\r\n# foot", nil},
		{"add", func() error { return f.Add("carol", "{PLAIN}3") },
			"# head\nalice:{PLAIN}9:::x y:/h::nologin\n\n# about bob\nbob@x.test:{PLAIN}8\r\n# foot\ncarol:{PLAIN}3\n", nil},
		{"add full name", func() error { return f.Add("Dave@X.test", "") },
			"# head\nalice:{PLAIN}9:::x y:/h::nologin\n\n# about bob\nbob@x.test:{PLAIN}8\r\n# foot\ncarol:{PLAIN}3\ndave@x.test:\n", nil},
		{"remove", func() error { return f.Remove("bob") },
			"# head\nalice:{PLAIN}9:::x y:/h::nologin\n\n# about bob\n# foot\ncarol:{PLAIN}3\ndave@x.test:\n", nil},
		{"add again", func() error { return f.Add("CAROL", "{PLAIN}3") }, "", ErrUserExists},
		{"set unknown", func() error { return f.SetPassword("bob", "{PLAIN}3") }, "", ErrNoUser},
		{"remove unknown", func() error { return f.Remove("bob") }, "", ErrNoUser},
	}
	last := ""
	for _, s := range steps {
		err := s.do()
		if !errors.Is(err, s.err) {
			t.Errorf("%s: %v", s.name, err)
		}
		if s.want != "" {
			last = s.want
		}
		if text() != last {
			t.Errorf("%s: file is now %q, want %q", s.name, text(), last)
		}
	}
	if info, err := os.Stat(f.path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode is now %v, %v", info.Mode(), err)
	}
	for _, row := range []struct{ name, user, hash string }{
		{"newline in name", "a\nroot", "{PLAIN}x"},
		{"colon in name", "a:b", "{PLAIN}x"},
		{"comment", "#a", "{PLAIN}x"},
		{"slash", "../a", "{PLAIN}x"},
		{"space", "a b", "{PLAIN}x"},
		{"empty", "", "{PLAIN}x"},
		{"other domain", "a@y.test", "{PLAIN}x"},
		{"newline in hash", "a", "{PLAIN}x\nroot:{PLAIN}y"},
		{"colon in hash", "a", "{PLAIN}x:y"},
		{"no scheme", "a", "x"},
	} {
		if err := f.Add(row.user, row.hash); err == nil || text() != last {
			t.Errorf("%s: Add = %v", row.name, err)
		}
	}
	names, err := os.ReadDir(filepath.Dir(f.path))
	if err != nil || len(names) != 1 {
		t.Errorf("folder holds %v, %v", names, err)
	}
}

func TestEditThroughSymlink(t *testing.T) {
	f := openText(t, "a:{PLAIN}1\n")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(f.path, link); err != nil {
		t.Fatal(err)
	}
	l, err := Open(link, Options{Domains: []string{"x.test"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Add("b", ""); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 || !f.Has("b") {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
}

// A write that goes wrong at any step leaves the old file or the new one, and
// no litter; a success is only reported after the last step.
func TestEditFaults(t *testing.T) {
	broken := errors.New("broken")
	for _, step := range []string{"create", "write", "owner", "mode", "sync", "close", "rename", "folder"} {
		f := openText(t, "a:{PLAIN}1\n")
		hit := false
		f.fault = func(s string) error {
			if s == step {
				hit = true
				return broken
			}
			return nil
		}
		if err := f.Add("b", "{PLAIN}1"); !errors.Is(err, broken) || !hit {
			t.Errorf("%s: Add = %v", step, err)
		}
		if !f.Has("a") || f.Has("b") != (step == "folder") {
			t.Errorf("%s: users are %v", step, f.List())
		}
		if names, _ := os.ReadDir(filepath.Dir(f.path)); len(names) != 1 {
			t.Errorf("%s: folder holds %v", step, names)
		}
	}
}

func TestTwoWriters(t *testing.T) {
	f := openText(t, "")
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			own, err := Open(f.path, Options{Domains: []string{"x.test"}})
			if err != nil {
				t.Error(err)
				return
			}
			for i := range 10 {
				if err := own.Add(fmt.Sprintf("u%d-%d", w, i), "{PLAIN}1"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if n := len(f.List()); n != 40 {
		t.Errorf("%d users, want 40", n)
	}
}

func TestCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	f, err := Create(path, Options{Domains: []string{"x.test"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Add("a", "{PLAIN}1"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if f, err = Create(path, Options{Domains: []string{"x.test"}}); err != nil || !f.Has("a") {
		t.Errorf("Create of an existing file: %v", err)
	}
}

func TestDomains(t *testing.T) {
	x := openText(t, "a:{PLAIN}1\n")
	d := NewDomains(map[string]*File{"X.test": x, "münchen.test": x})
	d.Default = "x.test"
	for _, row := range []struct {
		user string
		want bool
	}{
		{"a@x.test", true},
		{"A@X.TEST", true},
		{"a", true},
		{"b@x.test", false},
		{"a@y.test", false},
		{"a@" + strings.Repeat("y", 300), false},
		{"a+b@x.test", false},
		{"", false},
	} {
		if got := d.Has(row.user); got != row.want {
			t.Errorf("Has(%q) = %v", row.user, got)
		}
		if _, err := d.Lookup(row.user); (err == nil) != row.want {
			t.Errorf("Lookup(%q): %v", row.user, err)
		}
	}
	if d.File("MÜNCHEN.test") != x || d.File("xn--mnchen-3ya.test") != x || d.File("y.test") != nil {
		t.Error("File does not find what it should")
	}
}

// Dovecot itself must read the file that we write.
func TestDovecotReadsOurFile(t *testing.T) {
	doveadm, err := exec.LookPath("doveadm")
	if err != nil {
		t.Skip("doveadm is not installed")
	}
	f := openText(t, "# ours\n")
	hash, err := Hash("", "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Add("alice@x.test", hash); err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	field := strings.Split(strings.Split(string(line), "\n")[1], ":")[1]
	if out, err := exec.Command(doveadm, "pw", "-t", field, "-p", "correct horse").CombinedOutput(); err != nil {
		t.Errorf("doveadm pw -t: %v, %s", err, out)
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add("a:{PLAIN}b\n# c\n\nd@x.test:{ARGON2ID}$argon2id$v=19$m=64,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA\n")
	f.Add("a:$6$rounds=1000$s$x:::::/:allow_nets=::1/128 nologin\r\n")
	f.Add("a:{BLF-CRYPT.hex}2432\nA:!\n:\n::::::::::")
	f.Fuzz(func(t *testing.T, text string) {
		domains := []string{"x.test", "y.test"}
		table, problems := parseFile("users", text, domains)
		if len(table.inOrder) != len(table.byName) {
			t.Fatalf("%d users by name, %d in order", len(table.byName), len(table.inOrder))
		}
		if n := strings.Count(text, "\n") + 1; len(table.inOrder)+len(problems) > n {
			t.Fatalf("%d users and %d problems from %d lines", len(table.inOrder), len(problems), n)
		}
		for name, rec := range table.byName {
			if rec.User != name || canonicalName(name) != name || strings.ContainsAny(name, "/:\r\n") {
				t.Fatalf("name %q is not canonical", name)
			}
			h, err := parsePasswordField(rec.Hash)
			if err != nil {
				t.Fatalf("accepted hash %q: %v", rec.Hash, err)
			}
			if h.cost() != "" {
				if d, err := parseHash(h.decoy()); err != nil || d.cost() != h.cost() {
					t.Fatalf("decoy of %q: %v", rec.Hash, err)
				}
			}
		}
	})
}
