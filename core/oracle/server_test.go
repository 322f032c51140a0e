package oracle

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/wafermail/wafer/core"
	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/dns"
)

// users files: who has a mailbox in the recordings.
var users = map[string]string{
	"local.example": "alice:{PLAIN}wonderland\nbob:{PLAIN}wonderland\nbob.smith:{PLAIN}x\nmailer-daemon:{PLAIN}x\n",
	"also.example":  "alice:{PLAIN}wonderland\nbob:{PLAIN}wonderland\nbob.smith:{PLAIN}x\nmailer-daemon:{PLAIN}x\n",
	"also2.example": "alice:{PLAIN}wonderland\nbob:{PLAIN}wonderland\nbob.smith:{PLAIN}x\nmailer-daemon:{PLAIN}x\n",
	"also3.example": "alice:{PLAIN}wonderland\nbob:{PLAIN}wonderland\n",
	"relay.example": "carol:{PLAIN}x\npostmaster:{PLAIN}x\n",
	"any.example":   "any:{PLAIN}x\n",
	"vmail.example": "dave:{PLAIN}x\nerin:{PLAIN}x\n",
}

// configText is config.hcl for a Postfix configuration: the same domains and
// networks. Without smtpd_reject_unlisted_recipient every address in them is known.
func configText(s settings) string {
	catch := ""
	if s.or("smtpd_reject_unlisted_recipient", "yes") == "no" && !isRecipientUnlisted(s) {
		catch = "  catch_all = \"alice@local.example\"\n"
	}
	text := `hostname         = "mx.local.example"
state            = "state"
policies         = "policies"
sync             = "fsync"
trusted_networks = ["127.0.0.0/8", "::1", "10.20.0.0/16", "2001:db8:20::/48"]
xclient_networks = ["127.0.0.0/8"]

limits {
  message_size           = 102400
  connections_per_client = 10000
  connection_rate        = 1000000
}

run_as {
  allow_root = true
}

listener "mx" {
  profile                          = "mx"
  address                          = "127.0.0.1:0"
  allow_plaintext_auth_on_loopback = true
  without                          = [` + without(s) + `]
}
`
	domain := func(name, file, extra string) {
		text += fmt.Sprintf("\ndomain %q {\n  maildir   = \"mail/%%d/%%n\"\n  users     = \"users.%s\"\n  separator = \"+\"\n%s%s}\n", name, file, extra, catch)
	}
	local := "  aliases = {\n    postmaster = [\"alice\"]\n    abuse      = [\"alice\"]\n    \"john doe\" = [\"alice\"]\n    shared     = [\"alice\"]\n  }\n"
	if s["smtpd_sender_login_maps"] == "" {
		local = "  aliases = {\n    postmaster = [\"alice\"]\n    abuse      = [\"alice\"]\n    \"john doe\" = [\"alice\"]\n  }\n"
	}
	domain("local.example", "local.example", local)
	domain("localhost.local.example", "also.example", local)
	domain("localhost", "also2.example", local)
	domain("[192.0.2.1]", "also3.example", local) // inet_interfaces
	domain("relay.example", "relay.example", "")
	any := catch
	catch = ""
	domain("relayany.example", "any.example", "  catch_all = \"any@relayany.example\"\n")
	catch = any
	domain("vmail.example", "vmail.example", "")
	domain("valias.example", "any.example", "  aliases = {\n    info = [\"alice@local.example\"]\n    sales = [\"bob@local.example\"]\n  }\n")
	return text
}

// without are the extensions that the Postfix does not have.
func without(s settings) string {
	if s["smtputf8_enable"] == "no" {
		return `"BINARYMIME", "SMTPUTF8"`
	}
	return `"BINARYMIME"`
}

func isRecipientUnlisted(s settings) bool {
	return s["smtpd_recipient_restrictions"] == "reject_unlisted_recipient"
}

// serve starts a server for a Postfix configuration and returns its address.
func serve(t *testing.T, dir string, s settings, zone dns.Resolver) (addr string, missing []string) {
	t.Helper()
	policies, missing := translate(s)
	files := map[string]string{"config.hcl": configText(s), "policies/p.hcl": policies}
	for name, text := range users {
		files["users."+name] = text
	}
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := config.Load(filepath.Join(dir, "config.hcl"))
	if err != nil {
		t.Fatalf("%v\n%s", err, policies)
	}
	ctx, cancel := context.WithCancel(context.Background())
	srv, err := core.Open(ctx, c, core.Options{Logger: slog.New(slog.DiscardHandler), Resolver: zone})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	var running sync.WaitGroup
	running.Go(func() {
		if err := srv.Run(ctx, func(s *core.Server) { ready <- s.Status().Listeners[0].Address }); err != nil {
			t.Error(err)
			close(ready)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return <-ready, missing
}
