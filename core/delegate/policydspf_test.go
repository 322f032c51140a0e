package delegate

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// policydSPF runs Debian's postfix-policyd-spf-python behind a Unix socket, one
// process for each connection, as Postfix's spawn does. It skips clients in
// 127.0.0.0/8, so that no name has to be looked up.
func policydSPF(t testing.TB) string {
	t.Helper()
	const program = "/usr/bin/policyd-spf"
	if _, err := os.Stat(program); err != nil {
		t.Skip("there is no policyd-spf (apt-get install postfix-policyd-spf-python)")
	}
	conf := filepath.Join(t.TempDir(), "policyd-spf.conf")
	if err := os.WriteFile(conf, []byte("debugLevel = 0\nTestOnly = 1\nHELO_reject = Fail\nMail_From_reject = Fail\nskip_addresses = 127.0.0.0/8\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return daemon(t, func(_ int, c net.Conn, _ *bufio.Reader) {
		f, err := c.(*net.UnixConn).File() // the process gets the socket itself
		if err != nil {
			return
		}
		defer f.Close()
		cmd := exec.Command(program, conf)
		cmd.Stdin, cmd.Stdout = f, f
		if err := cmd.Start(); err != nil {
			t.Errorf("%s: %v", program, err)
			return
		}
		_ = cmd.Wait() // it ends with the connection
	})
}

func localEvent(t testing.TB, n int) *policy.Event {
	ev := rcptEvent(t)
	ev.Client, ev.Helo, ev.Sender = netip.MustParseAddrPort("127.0.0.1:4711"), "h.example", path4(t, "a@b.example")
	ev.QueueID = mail.ID(fmt.Sprintf("Q%d", n))
	return ev
}

// TestPolicydSPF: the existing daemon is asked, and it knows a transaction by its
// instance: the header field comes once for each.
func TestPolicydSPF(t *testing.T) {
	p := open(t, Options{Address: policydSPF(t)})
	for n := range 3 {
		v, err := p.Call(t.Context(), localEvent(t, n), &policy.Table{})
		if err != nil {
			t.Fatal(err)
		}
		if f := v.Effects.Prepend; v.Action != policy.Next || len(f) != 1 || f[0].Name != "X-Comment" || !strings.Contains(f[0].Value, "client-ip=127.0.0.1; helo=h.example; envelope-from=a@b.example") {
			t.Errorf("first recipient: %+v", v)
		}
		v, err = p.Call(t.Context(), localEvent(t, n), &policy.Table{})
		if err != nil || len(v.Effects.Prepend) != 0 || v.Action != policy.Next {
			t.Errorf("second recipient: %+v, %v", v, err)
		}
	}
}

// BenchmarkPolicydSPF is one decision of policyd-spf's over its Unix socket, for
// a client that it skips: neither names nor SPF are in it.
func BenchmarkPolicydSPF(b *testing.B) {
	p := open(b, Options{Address: policydSPF(b)})
	n := 0
	for b.Loop() {
		n++
		if _, err := p.Call(b.Context(), localEvent(b, n), &policy.Table{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkClient is one decision of our own Server over a Unix socket, with a
// check in Go that says next: what a policy daemon costs at least.
func BenchmarkClient(b *testing.B) {
	set := setOf(plugin(func(*policy.Event) policy.Verdict { return policy.Verdict{} }), policy.Rcpt)
	_, at := start(b, ServerConfig{Policies: always(set)})
	p := open(b, Options{Address: "unix:" + at})
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		if _, err := p.Call(b.Context(), localEvent(b, n), &policy.Table{}); err != nil {
			b.Fatal(err)
		}
	}
}
