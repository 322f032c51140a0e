package maildir

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// oracle runs Debian's doveadm on a Maildir with a configuration of its own.
type oracle struct {
	t    *testing.T
	conf string
	box  string
	uid  int

	lenient bool // Dovecot may complain
}

// newOracle skips the test where there is no doveadm, or where it would refuse
// the user.
func newOracle(t *testing.T) *oracle {
	if _, err := exec.LookPath("doveadm"); err != nil {
		t.Skip("doveadm is not installed (Debian package dovecot-imapd)")
	}
	dir, err := os.MkdirTemp("", "wafer-dovecot")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	o := &oracle{t: t, conf: filepath.Join(dir, "conf"), box: filepath.Join(dir, "box"), uid: os.Getuid()}
	if o.uid == 0 { // Dovecot reads no mail as root
		o.uid = 65534
	}
	put(t, o.conf, fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = /dev/stderr
mail_location = maildir:%[1]s/box
first_valid_uid = 0
first_valid_gid = 0
ssl = no
`, dir))
	for _, p := range []string{dir, o.conf} {
		if err := os.Chown(p, o.uid, -1); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(o.conf, 0o644); err != nil {
		t.Fatal(err)
	}
	return o
}

// configure adds settings.
func (o *oracle) configure(settings string) {
	o.t.Helper()
	conf, err := os.ReadFile(o.conf)
	if err == nil {
		err = os.WriteFile(o.conf, append(conf, settings...), 0o644)
	}
	if err != nil {
		o.t.Fatal(err)
	}
}

// owns gives everything in the box to the user whom Dovecot runs as.
func (o *oracle) owns() {
	o.t.Helper()
	err := filepath.WalkDir(o.box, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, o.uid, o.uid)
	})
	if err != nil {
		o.t.Fatal(err)
	}
}

// uids lists Dovecot's messages as "<uid> <base name>".
func (o *oracle) uids(folder string) (list []string) {
	o.t.Helper()
	lines := strings.Split(strings.TrimSpace(o.run("", "-f", "tab", "fetch", "uid storageid", "mailbox", folder, "all")), "\n")
	for _, line := range lines[1:] {
		list = append(list, strings.ReplaceAll(line, "\t", " "))
	}
	return list
}

// run runs doveadm and returns what it prints.
func (o *oracle) run(stdin string, args ...string) string {
	o.t.Helper()
	cmd := exec.Command("doveadm", append([]string{"-c", o.conf}, args...)...)
	cmd.Env = []string{"USER=nobody", "HOME=" + filepath.Dir(o.box), "PATH=" + os.Getenv("PATH")}
	if o.uid != os.Getuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.uid)}}
	}
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		o.t.Fatalf("doveadm %q: %v\n%s", args, err, errs.String())
	}
	if s := errs.String(); !o.lenient && strings.Contains(s, "Error") || strings.Contains(s, "Panic") {
		o.t.Errorf("doveadm %q says:\n%s", args, s)
	}
	return out.String()
}

// seen is a message as either program sees it.
type seen struct {
	uid   int
	flags string
	size  int
}

// messages is Dovecot's view of a folder.
func (o *oracle) messages(folder string) (list []seen) {
	o.t.Helper()
	lines := strings.Split(strings.TrimSpace(o.run("", "-f", "tab", "fetch", "uid flags size.virtual", "mailbox", folder, "all")), "\n")
	for _, line := range lines[1:] {
		f := strings.Split(line, "\t")
		uid, _ := strconv.Atoi(f[0])
		size, _ := strconv.Atoi(f[2])
		flags := slices.DeleteFunc(strings.Fields(f[1]), func(s string) bool { return s == `\Recent` })
		slices.Sort(flags)
		list = append(list, seen{uid, strings.Join(flags, " "), size})
	}
	return list
}

// status is Dovecot's UIDVALIDITY and UIDNEXT.
func (o *oracle) status(folder string) (validity, next string) {
	o.t.Helper()
	for _, f := range strings.Fields(o.run("", "-f", "flow", "mailbox", "status", "uidvalidity uidnext", folder)) {
		if v, ok := strings.CutPrefix(f, "uidvalidity="); ok {
			validity = v
		}
		if v, ok := strings.CutPrefix(f, "uidnext="); ok {
			next = v
		}
	}
	return validity, next
}

// ours is our view of a folder.
func ours(f *Folder) (list []seen) {
	kw := f.Keywords()
	for _, m := range messages(f) {
		var flags []string
		for bit, name := range map[Flags]string{Seen: `\Seen`, Answered: `\Answered`, Flagged: `\Flagged`, Deleted: `\Deleted`, DraftFlag: `\Draft`} {
			if m.Flags&bit != 0 {
				flags = append(flags, name)
			}
		}
		for i, name := range kw {
			if m.Flags&KeywordBit(i) != 0 {
				flags = append(flags, name)
			}
		}
		slices.Sort(flags)
		list = append(list, seen{int(m.UID), strings.Join(flags, " "), int(m.Size)})
	}
	return list
}

// agree checks that both see the same, and both orders of looking.
func agree(t *testing.T, o *oracle, f *Folder, what string) {
	t.Helper()
	refresh(t, f)
	mine := ours(f)
	his := o.messages(f.Name())
	if !slices.Equal(mine, his) {
		t.Fatalf("after %s in %s\nwafer   %v\ndovecot %v", what, f.Name(), mine, his)
	}
	st := f.Status()
	v, n := o.status(f.Name())
	if fmt.Sprint(st.UIDValidity) != v || fmt.Sprint(st.UIDNext) != n {
		t.Fatalf("after %s in %s: wafer UIDVALIDITY %d UIDNEXT %d, dovecot %s %s", what, f.Name(), st.UIDValidity, st.UIDNext, v, n)
	}
}

// pool is one that gives what it makes to the user that doveadm runs as.
func (o *oracle) pool() *Pool {
	p := newPool(Options{Sync: func(string) error { return nil }, UID: o.uid, GID: o.uid, Hostname: "wafer.example"}, osOps())
	o.t.Cleanup(func() { p.Close() })
	return p
}

func TestDovecotThenWafer(t *testing.T) {
	ctx := context.Background()
	o := newOracle(t)
	const lf = "From: a@b\nSubject: x\n\nhi\n"
	for range 5 {
		o.run(lf, "save", "-m", "INBOX")
	}
	o.run("", "mailbox", "create", "A.B", "Tést")
	o.run("", "mailbox", "subscribe", "A.B", "Tést")
	o.run("", "flags", "add", `\Flagged $Junk foo`, "mailbox", "INBOX", "uid", "2,4")
	o.run("", "expunge", "mailbox", "INBOX", "uid", "3,5")
	s := openStore(t, o.pool(), o.box)
	subs, err := s.Subscriptions()
	if err != nil || !slices.Equal(subs, []string{"A.B", "Tést"}) {
		t.Errorf("subscriptions %q, %v", subs, err)
	}
	f := openFolder(t, s, "INBOX")
	wantUIDs(t, f, 1, 2, 4)
	agree(t, o, f, "dovecot alone")
	if got := text(t, f, 1); got != strings.ReplaceAll(lf, "\n", "\r\n") {
		t.Errorf("text %q", got)
	}
	appendText(t, f, "a: b\r\n\r\nx\r\n", Seen)
	agree(t, o, f, "append")
	if got := o.run("", "fetch", "text", "mailbox", "INBOX", "uid", "6"); !strings.Contains(got, "a: b\n") && !strings.Contains(got, "a: b\r\n") {
		t.Errorf("dovecot reads %q", got)
	}
	bar, _ := f.Keyword("bar", true)
	if _, _, err := f.SetFlags(ctx, []uint32{1, 4}, FlagAdd, bar|DraftFlag, 0); err != nil {
		t.Fatal(err)
	}
	agree(t, o, f, "flags")
	g := openFolder(t, s, "A.B")
	if _, err := f.Copy(ctx, []uint32{1, 2, 6}, g); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Move(ctx, []uint32{4}, g); err != nil {
		t.Fatal(err)
	}
	agree(t, o, f, "move")
	agree(t, o, g, "move")
	if err := s.Create("Ñew.One"); err != nil {
		t.Fatal(err)
	}
	if err := s.Subscribe("Ñew.One"); err != nil {
		t.Fatal(err)
	}
	if err := s.Unsubscribe("A.B"); err != nil {
		t.Fatal(err)
	}
	h := openFolder(t, s, "Ñew.One")
	agree(t, o, h, "create")
	if got := strings.Fields(o.run("", "mailbox", "list", "-s")); !slices.Equal(sortedStrings(got), []string{"Tést", "Ñew.One"}) {
		t.Errorf("dovecot's subscriptions %q", got)
	}
	if err := s.Rename("A.B", "Moved"); err != nil {
		t.Fatal(err)
	}
	agree(t, o, openFolder(t, s, "Moved"), "rename")
}

func sortedStrings(s []string) []string {
	slices.Sort(s)
	return s
}

// TestAlternate lets Dovecot and wafer change the same folders in turn.
func TestAlternate(t *testing.T) {
	ctx := context.Background()
	o := newOracle(t)
	seed := uint64(os.Getpid())
	r := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	p := o.pool()
	s := openStore(t, p, o.box)
	if err := s.Create("Other"); err != nil {
		t.Fatal(err)
	}
	in, out := openFolder(t, s, "INBOX"), openFolder(t, s, "Other")
	pick := func(f *Folder) uint32 {
		msgs := f.Messages()
		if len(msgs) == 0 {
			return 1
		}
		return msgs[r.IntN(len(msgs))].UID
	}
	flags := []string{`\Seen`, `\Flagged`, `\Deleted`, "k1", "k2", "k3"}
	var log []string
	for step := range 60 {
		uid := pick(in)
		u := fmt.Sprint(uid)
		var what string
		switch r.IntN(11) {
		case 0, 1:
			what = "dovecot save"
			o.run("a: b\n\nx\n", "save", "-m", "INBOX")
		case 2, 3:
			what = "wafer append"
			appendText(t, in, "a: b\r\n\r\nbody\r\n", Seen)
		case 4:
			fl := flags[r.IntN(len(flags))]
			what = "dovecot flags " + fl
			o.run("", "flags", "add", fl, "mailbox", "INBOX", "uid", u)
		case 5:
			what = "wafer flags " + u
			kw, _ := in.Keyword(flags[3+r.IntN(3)], true)
			if _, _, err := in.SetFlags(ctx, []uint32{uid}, FlagOp(1+r.IntN(2)), kw|Flagged, 0); err != nil {
				t.Fatal(err)
			}
		case 6:
			what = "dovecot expunge " + u
			o.run("", "expunge", "mailbox", "INBOX", "uid", u)
		case 7:
			what = "wafer expunge " + u
			if _, err := in.Expunge(ctx, []uint32{uid}); err != nil {
				t.Fatal(err)
			}
		case 8:
			what = "wafer move " + u
			if _, err := in.Move(ctx, []uint32{uid}, out); err != nil {
				t.Fatal(err)
			}
		case 9:
			what = "dovecot move " + u
			o.run("", "move", "Other", "mailbox", "INBOX", "uid", u)
		case 10:
			what = "foreign delivery"
			n := fmt.Sprintf("%s/new/%d.foreign%d", o.box, 1700000000+step, step)
			put(t, n, "a: b\n\nforeign\n")
			if err := os.Chown(n, o.uid, o.uid); err != nil {
				t.Fatal(err)
			}
		}
		log = append(log, what)
		if step%2 == 0 || step > 55 {
			agree(t, o, in, strings.Join(log, ", "))
			agree(t, o, out, strings.Join(log, ", "))
		}
	}
}
