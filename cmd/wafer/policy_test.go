package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The policy of these tests. Who comes from loopback is exempt, until XCLIENT
// says that it is another.
const strictPolicy = `policy "inbound" {
  on       = ["mx"]
  reply_at = "rcpt"

  exempt {
    networks = ["127.0.0.0/8"]
  }

  check "rate" {
    plugin   = "ratelimit"
    at       = "connect"
    reply_at = "connect"
    allow    = ["count"]
    with     = { key = "client", limit = 3, per = "1h" }
  }

  check "helo" {
    at   = "helo"
    with = { reject = ["invalid", "not-fqdn"] }
  }
}
`

const xclientNetworks = "xclient_networks = [\"127.0.0.0/8\"]\n"

// decisionID is how a policy's refusal ends.
var decisionID = regexp.MustCompile(`\(([0-9A-Za-z_-]{8,})\)`)

// as runs swaks at the MX door as another client.
func as(t *testing.T, s *server, client, helo string) (out string, code int) {
	t.Helper()
	return tool(t, s.w, "", "swaks", "--server", s.addr["mx"], "--ehlo", helo, "--xclient-addr", client,
		"--xclient-name", "[UNAVAILABLE]", "--from", "sender@example.net", "--to", "ann@"+testDomain, "--body", "hello")
}

// refusedWith looks for a refusal in swaks's transcript whose decision is in
// the server's log too.
func refusedWith(t *testing.T, s *server, out, want string) {
	t.Helper()
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "<**") || !strings.Contains(line, want) {
			continue
		}
		m := decisionID.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("the refusal %q has no decision id", line)
		} else if log := s.log.String(); !strings.Contains(log, m[1]) {
			t.Errorf("decision %s is not in the log:\n%s", m[1], tail(log, 3000))
		}
		return
	}
	t.Errorf("no refusal with %q in:\n%s", want, out)
}

// TestPolicyRefuses shows what a client sees of a refusal by each of the two
// plugins, and that others pass.
func TestPolicyRefuses(t *testing.T) {
	need(t, "swaks")
	w := newWorld(t, setup{top: xclientNetworks, policies: map[string]string{"inbound.hcl": strictPolicy}})
	s := w.start()

	out, code := as(t, s, "192.0.2.1", "laptop")
	if code == 0 {
		t.Errorf("swaks was content with:\n%s", out)
	}
	refusedWith(t, s, out, "<** 504 5.5.2 <laptop>: Helo command rejected: need fully-qualified hostname (")
	if !strings.Contains(out, "-> RCPT TO:<ann@example.test>") {
		t.Errorf("it was refused before RCPT, against reply_at:\n%s", out)
	}

	if out, code := as(t, s, "192.0.2.2", "host.example.net"); code != 0 {
		t.Errorf("a good client was refused:\n%s", out)
	}
	for range 3 {
		as(t, s, "192.0.2.3", "host.example.net")
	}
	out, code = as(t, s, "192.0.2.3", "host.example.net")
	if code == 0 {
		t.Errorf("the fourth connection passed:\n%s", out)
	}
	refusedWith(t, s, out, "<** 4")
	if strings.Contains(out, "-> RCPT") {
		t.Errorf("it got to RCPT, against reply_at:\n%s", out)
	}
	if out, code := as(t, s, "192.0.2.4", "host.example.net"); code != 0 {
		t.Errorf("another client was refused too:\n%s", out)
	}

	st := s.status()
	if tally := st.Checks["inbound/helo"]; tally.Refuse != 1 || tally.Errors != 0 {
		t.Errorf("status counts for inbound/helo: %+v", tally)
	}
	if tally := st.Checks["inbound/rate"]; tally.Refuse != 1 || tally.Errors != 0 {
		t.Errorf("status counts for inbound/rate: %+v", tally)
	}
	s.stop()
	if n := len(mailIn(t, w.maildir("ann"))); n != 5 {
		t.Errorf("ann has %d messages, want 5", n)
	}
}

// TestXClientForNobody: without xclient_networks the command is refused, and
// not offered.
func TestXClientForNobody(t *testing.T) {
	w := newWorld(t, setup{})
	s := w.start()
	p := s.open("mx", 0)
	must(t, p.greeted())
	text, err := p.want(250, "EHLO client.example.net")
	must(t, err)
	if strings.Contains(text, "XCLIENT") {
		t.Errorf("XCLIENT is offered: %q", text)
	}
	_, err = p.want(550, "XCLIENT ADDR=192.0.2.1")
	must(t, err)
	s.stop()
}

// TestModuleByPath takes a plugin from a folder that is not wafer's.
func TestModuleByPath(t *testing.T) {
	need(t, "swaks")
	module, err := os.ReadFile("../../plugins/build/helo.wasm")
	must(t, err)
	elsewhere := t.TempDir()
	must(t, os.WriteFile(filepath.Join(elsewhere, "greeting.wasm"), module, 0o600))
	w := newWorld(t, setup{top: xclientNetworks, policies: map[string]string{"own.hcl": `policy "own" {
  on = ["mx"]
  check "greeting" {
    plugin = "` + elsewhere + `/greeting.wasm"
    at     = "helo"
    with   = { reject = ["not-fqdn"] }
  }
  check "beside" {
    plugin  = "../modules/beside.wasm"
    at      = "helo"
    with    = { reject = ["literal"] }
  }
}
`}})
	w.write("modules/beside.wasm", string(module))
	if out, code := w.run("", "check", "config.hcl"); code != 0 {
		t.Fatalf("check says %d:\n%s", code, out)
	}
	s := w.start()
	out, _ := as(t, s, "192.0.2.1", "laptop")
	refusedWith(t, s, out, "need fully-qualified hostname (")
	out, _ = as(t, s, "192.0.2.1", "[192.0.2.1]")
	refusedWith(t, s, out, "greet with a name, not with an address (")
	s.stop()
}

// TestGrants: a plugin that may not do what it was made for is a fault of the
// configuration, with its place.
func TestGrants(t *testing.T) {
	w := newWorld(t, setup{policies: map[string]string{"inbound.hcl": `policy "inbound" {
  on = ["mx"]

  check "rate" {
    plugin = "ratelimit"
    at     = "connect"
    with   = { limit = 3 }
  }
}
`}})
	out, code := w.run("", "check", "config.hcl")
	if code != 1 || !strings.Contains(out, "inbound.hcl:4") || !strings.Contains(out, "count") {
		t.Errorf("check says %d, want 1 with inbound.hcl:4 and the missing grant:\n%s", code, out)
	}
	out, code = w.run("", "run", "-c", "config.hcl")
	if code != 1 || !strings.Contains(out, "inbound.hcl:4") {
		t.Errorf("run says %d, want 1 with inbound.hcl:4:\n%s", code, out)
	}
}

// TestPluginConfig: a setting that the plugin refuses is shown at its place.
func TestPluginConfig(t *testing.T) {
	w := newWorld(t, setup{policies: map[string]string{"inbound.hcl": strings.Replace(strictPolicy, `"not-fqdn"`, `"unknown"`, 1)}})
	out, code := w.run("", "check", "config.hcl")
	if code != 1 || !strings.Contains(out, "inbound.hcl:19") || !strings.Contains(out, "dns") {
		t.Errorf("check says %d, want 1 with inbound.hcl:19 and the missing grant:\n%s", code, out)
	}
}

// mailIn lists the messages of a Maildir's INBOX by file.
func mailIn(t *testing.T, maildir string) (files []string) {
	t.Helper()
	for _, folder := range []string{"new", "cur"} {
		found, err := filepath.Glob(filepath.Join(maildir, folder, "*"))
		must(t, err)
		files = append(files, found...)
	}
	return files
}
