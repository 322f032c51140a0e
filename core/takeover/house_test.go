package takeover

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/imapd"
	"github.com/wafermail/wafer/core/maildir"
	"github.com/wafermail/wafer/core/pop3d"
)

// nobody is the user whom Dovecot runs as and whom all mail belongs to.
const nobody = 65534

const libexec = "/usr/lib/dovecot"

// house is a directory with mailboxes, and both programs to look at them.
type house struct {
	t    testing.TB
	dir  string
	conf string
	pool *maildir.Pool
	imap string // wafer's addresses
	pop3 string
}

type users struct{}

func (users) Lookup(user string) (auth.Record, error) {
	return auth.Record{User: user, Hash: "{PLAIN}x"}, nil
}

// newHouse skips the test where there is no Dovecot or no right to run it.
func newHouse(t testing.TB) *house {
	t.Helper()
	for _, name := range []string{"imap", "pop3"} {
		if _, err := os.Stat(filepath.Join(libexec, name)); err != nil {
			t.Skipf("Dovecot's %s is not installed (Debian packages dovecot-imapd and dovecot-pop3d)", name)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("only root can run Dovecot and wafer on the same files")
	}
	dir, err := os.MkdirTemp("", "wafer-takeover")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &house{t: t, dir: dir, conf: filepath.Join(dir, "conf")}
	h.put("conf", fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/state
mail_location = maildir:~/mail
first_valid_uid = 0
first_valid_gid = 0
ssl = no
mail_fsync = never
`, dir))
	h.own(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(h.conf, 0o644); err != nil {
		t.Fatal(err)
	}
	h.serve()
	return h
}

// configure adds settings to Dovecot's.
func (h *house) configure(settings string) {
	h.t.Helper()
	conf, err := os.ReadFile(h.conf)
	if err == nil {
		err = os.WriteFile(h.conf, append(conf, settings...), 0o644)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// serve starts wafer's servers.
func (h *house) serve() {
	h.t.Helper()
	h.pool = maildir.NewPool(maildir.Options{Sync: func(string) error { return nil }, UID: nobody, GID: nobody, Watch: true, Hostname: "wafer.example"})
	logins := auth.NewService(auth.Config{Users: users{}})
	open := func(_ context.Context, user string) (*maildir.Store, error) { return h.pool.Open(h.mail(user)) }
	mail, err := imapd.New(imapd.Config{Hostname: "wafer.example", AuthLoopback: true, Auth: logins, Mailbox: open})
	if err != nil {
		h.t.Fatal(err)
	}
	post, err := pop3d.New(pop3d.Config{Hostname: "wafer.example", AuthLoopback: true, Auth: logins, Mailbox: open})
	if err != nil {
		h.t.Fatal(err)
	}
	listen := func(serve func(net.Listener) error) string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			h.t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- serve(ln) }()
		h.t.Cleanup(func() { <-served })
		return ln.Addr().String()
	}
	h.t.Cleanup(func() {
		if err := h.pool.Close(); err != nil {
			h.t.Error(err)
		}
	})
	h.imap, h.pop3 = listen(mail.Serve), listen(post.Serve)
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := mail.Shutdown(ctx); err != nil {
			h.t.Errorf("imap shutdown: %v", err)
		}
		if err := post.Shutdown(ctx); err != nil {
			h.t.Errorf("pop3 shutdown: %v", err)
		}
		if n := mail.Stats().Panics + post.Stats().Panics; n > 0 {
			h.t.Errorf("%d panics", n)
		}
	})
}

// mail is the Maildir of a user.
func (h *house) mail(user string) string { return filepath.Join(h.dir, user, "mail") }

// put writes a file with a path below the house, and the directories above it.
func (h *house) put(name, text string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// own gives everything below path to the user whom Dovecot runs as.
func (h *house) own(path string) {
	h.t.Helper()
	err := filepath.WalkDir(path, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobody, nobody)
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// maildir makes an empty Maildir, or a folder of one.
func (h *house) maildir(path string) {
	h.t.Helper()
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(path, sub), 0o700); err != nil {
			h.t.Fatal(err)
		}
	}
}

// clone copies a user's mailbox with times and owners.
func (h *house) clone(from, to string) {
	h.t.Helper()
	out, err := exec.Command("cp", "-a", filepath.Join(h.dir, from), filepath.Join(h.dir, to)).CombinedOutput()
	if err != nil {
		h.t.Fatalf("copy %s to %s: %v\n%s", from, to, err, out)
	}
}

// quiet is Dovecot's stderr without what it says of every session, and of messages that
// came back under the names that they had: their old lines stand in dovecot-uidlist
// until it is written anew, and the later one counts.
func quiet(log string) string {
	var b strings.Builder
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "Info: ") && !strings.Contains(line, "Debug: ") && !strings.Contains(line, "Duplicate file entry at line") && !strings.Contains(line, "Expunged message reappeared") {
			b.WriteString(line)
		}
	}
	return b.String()
}
