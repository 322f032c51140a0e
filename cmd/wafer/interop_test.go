package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// account is how programs log in as ann.
const account = "ann@" + testDomain

// sendings are the ways in which programs send the sample. Each takes the
// message of the file name, whose line ends are LF for swaks.
var sendings = []struct {
	name, program string
	crlf          bool // the program wants CRLF in the file
	args          func(s *server, file string) []string
}{
	{"swaks, mx, STARTTLS", "swaks", false, func(s *server, file string) []string {
		return []string{"--server", s.addr["mx"], "--tls", "--tls-verify", "--tls-ca-path", "cert.pem", "--ehlo", "client.example.net",
			"--from", "sender@example.net", "--to", account, "--data", "@" + file}
	}},
	{"swaks, mx, HELO without TLS", "swaks", false, func(s *server, file string) []string {
		return []string{"--server", s.addr["mx"], "--protocol", "SMTP", "--helo", "client.example.net",
			"--from", "<>", "--to", account, "--data", "@" + file}
	}},
	{"swaks, submission, STARTTLS and AUTH PLAIN", "swaks", false, func(s *server, file string) []string {
		return []string{"--server", s.addr["submission"], "--tls", "--tls-verify", "--tls-ca-path", "cert.pem", "--auth", "PLAIN",
			"--auth-user", account, "--auth-password", testPassword, "--from", account, "--to", account, "--data", "@" + file}
	}},
	{"swaks, submissions, TLS and AUTH LOGIN", "swaks", false, func(s *server, file string) []string {
		return []string{"--server", s.addr["submissions"], "--tls-on-connect", "--tls-verify", "--tls-ca-path", "cert.pem", "--auth", "LOGIN",
			"--auth-user", account, "--auth-password", testPassword, "--from", account, "--to", account, "--data", "@" + file}
	}},
	{"swaks, mx, pipelined", "swaks", false, func(s *server, file string) []string {
		return []string{"--server", s.addr["mx"], "--pipeline", "--ehlo", "client.example.net",
			"--from", "sender@example.net", "--to", account, "--data", "@" + file}
	}},
	{"curl, mx, STARTTLS", "curl", true, func(s *server, file string) []string {
		return []string{"-sS", "--ssl-reqd", "--cacert", "cert.pem", "--url", "smtp://" + s.addr["mx"] + "/client.example.net",
			"--mail-from", "sender@example.net", "--mail-rcpt", account, "-T", file}
	}},
	{"curl, submissions, AUTH", "curl", true, func(s *server, file string) []string {
		return []string{"-sS", "--cacert", "cert.pem", "--url", "smtps://" + s.addr["submissions"] + "/client.example.net", "-u", account + ":" + testPassword,
			"--mail-from", account, "--mail-rcpt", account, "-T", file}
	}},
}

// TestSend sends the sample in every way and reads each back with curl, over
// IMAP and POP3.
func TestSend(t *testing.T) {
	need(t, "curl")
	w := newWorld(t, setup{top: "submission {\n  own_sender = \"off\"\n}\n"}) // the sample is somebody else's
	s := w.start()
	sent := 0
	for i, way := range sendings {
		t.Run(way.name, func(t *testing.T) {
			need(t, way.program)
			tag := fmt.Sprintf("s%d", i)
			text := sampleNumber(tag)
			file := tag + ".eml"
			if way.crlf {
				w.write(file, text)
			} else {
				w.write(file, strings.TrimSuffix(lf(text), "\n")) // swaks adds one
			}
			works(t, w, "", way.program, way.args(s, file)...)
			sent++
			user := []string{"-sS", "--cacert", "cert.pem", "-u", account + ":" + testPassword}
			arrived(t, "curl over imaps", works(t, w, "", "curl", append(user, fmt.Sprintf("imaps://%s/INBOX;MAILINDEX=%d", s.addr["imaps"], sent))...), text)
			arrived(t, "curl over imap with STARTTLS", works(t, w, "", "curl", append(user, "--ssl-reqd", fmt.Sprintf("imap://%s/INBOX;MAILINDEX=%d", s.addr["imap"], sent))...), text)
			arrived(t, "curl over pop3s", works(t, w, "", "curl", append(user, fmt.Sprintf("pop3s://%s/%d", s.addr["pop3s"], sent))...), text)
			arrived(t, "curl over pop3 with STLS", works(t, w, "", "curl", append(user, "--ssl-reqd", fmt.Sprintf("pop3://%s/%d", s.addr["pop3"], sent))...), text)
		})
	}
	if sent == 0 {
		return
	}
	user := []string{"-sS", "--cacert", "cert.pem", "-u", account + ":" + testPassword}
	if out := works(t, w, "", "curl", append(user, "imaps://"+s.addr["imaps"]+"/")...); !strings.Contains(out, "INBOX") {
		t.Errorf("curl lists %q", out)
	}
	if out := works(t, w, "", "curl", append(user, "imaps://"+s.addr["imaps"]+"/INBOX?HEADER%20X-FOLDED%20s0")...); !strings.HasPrefix(out, "* SEARCH 1") {
		t.Errorf("curl finds %q", out)
	}
	if out := works(t, w, "", "curl", append(user, "pop3s://"+s.addr["pop3s"]+"/")...); strings.Count(out, "\n") != sent {
		t.Errorf("curl lists over POP3 %q, want %d messages", out, sent)
	}
	s.stop()
}

// TestSendRefused: what must not pass does not, with the right words.
func TestSendRefused(t *testing.T) {
	need(t, "swaks")
	w := newWorld(t, setup{})
	s := w.start()
	rows := []struct {
		name string
		args []string
		want string
	}{
		{"relay", []string{"--server", s.addr["mx"], "--to", "someone@elsewhere.example"}, "554 5.7.1 <someone@elsewhere.example>: Relay access denied"},
		{"unknown user", []string{"--server", s.addr["mx"], "--to", "nobody@" + testDomain}, "550 5.1.1 <nobody@example.test>: "},
		{"submission without AUTH", []string{"--server", s.addr["submission"], "--tls", "--to", account}, "530 5.7.0 "},
		{"AUTH without TLS", []string{"--server", s.addr["submission"], "--auth", "PLAIN", "--auth-user", account, "--auth-password", testPassword, "--to", account}, "*** "},
		{"wrong password", []string{"--server", s.addr["submissions"], "--tls-on-connect", "--auth", "PLAIN", "--auth-user", account, "--auth-password", "wrong", "--to", account}, "535 5.7.8 "},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			args := append([]string{"--ehlo", "client.example.net", "--from", "sender@example.net"}, row.args...)
			out, code := tool(t, w, "", "swaks", args...)
			if code == 0 || !strings.Contains(out, row.want) {
				t.Errorf("exit code %d, want a failure with %q:\n%s", code, row.want, out)
			}
		})
	}
	if mail := mailIn(t, w.maildir("ann")); len(mail) != 0 {
		t.Errorf("something came through: %q", mail)
	}
	s.stop()
}

// TestOpenSSL does a verified handshake with every door.
func TestOpenSSL(t *testing.T) {
	need(t, "openssl")
	w := newWorld(t, setup{})
	s := w.start()
	for door, start := range map[string]string{"mx": "smtp", "submission": "smtp", "imap": "imap", "pop3": "pop3", "submissions": "", "imaps": "", "pop3s": ""} {
		t.Run(door, func(t *testing.T) {
			args := []string{"s_client", "-connect", s.addr[door], "-CAfile", "cert.pem", "-verify_return_error", "-servername", testHost, "-verify_hostname", testHost, "-brief"}
			if start != "" {
				args = append(args, "-starttls", start)
			}
			bye := "QUIT\r\n"
			if strings.HasPrefix(door, "imap") {
				bye = "a LOGOUT\r\n"
			}
			out := works(t, w, bye, "openssl", args...)
			for _, want := range []string{"CONNECTION ESTABLISHED", "Verification: OK", "TLSv1.3"} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
			if out, code := tool(t, w, bye, "openssl", append(args, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")...); code == 0 {
				t.Errorf("TLS 1.1 was taken:\n%s", out)
			}
		})
	}
	s.stop()
}

// seed puts the samples into ann's mailbox.
func seed(t *testing.T, s *server, tags ...string) {
	t.Helper()
	p := s.open("mx", 0)
	must(t, p.greeted())
	for _, tag := range tags {
		code, text, err := p.deliver("sender@example.net", []string{account}, " BODY=8BITMIME", sampleNumber(tag))
		must(t, err)
		if code != 250 {
			t.Fatalf("the sample was refused with %q", text)
		}
	}
	p.close()
}

// TestFetchmail takes mail with fetchmail, over POP3 and over IMAP.
func TestFetchmail(t *testing.T) {
	need(t, "fetchmail")
	for _, protocol := range []string{"pop3", "imap"} {
		t.Run(protocol, func(t *testing.T) {
			w := newWorld(t, setup{})
			s := w.start()
			seed(t, s, "f1", "f2", "f3")
			w.write("fetchmailrc", fmt.Sprintf(`set invisible
poll localhost protocol %s port %s
  user %q password %q
  ssl sslcertck sslcertfile %q
  no rewrite fetchall
  mda "cat >>%s; echo =end= >>%s"
`, protocol, s.port(protocol+"s"), account, testPassword, w.path("cert.pem"), w.path("got"), w.path("got")))
			out := works(t, w, "", "fetchmail", "-f", w.path("fetchmailrc"), "--nodetach", "--nosyslog", "-v")
			got, err := os.ReadFile(w.path("got"))
			if err != nil {
				t.Fatalf("fetchmail delivered nothing:\n%s", out)
			}
			parts := strings.Split(strings.TrimSuffix(string(got), "=end=\n"), "=end=\n")
			if len(parts) != 3 {
				t.Fatalf("fetchmail took %d messages, want 3:\n%s", len(parts), out)
			}
			for i, part := range parts {
				if want := lf(sampleNumber(fmt.Sprintf("f%d", i+1))); !strings.HasSuffix(part, want) {
					t.Errorf("message %d changed:\n%s\nwhole: %q", i+1, difference(part, want), part)
				}
			}
			if mail := mailIn(t, w.maildir("ann")); len(mail) != 0 {
				t.Errorf("fetchmail deleted what it took, but there is %q", mail)
			}
			// A second run finds nothing: exit code 1.
			if out, code := tool(t, w, "", "fetchmail", "-f", w.path("fetchmailrc"), "--nodetach", "--nosyslog"); code != 1 {
				t.Errorf("the second run: exit code %d, want 1:\n%s", code, out)
			}
			s.stop()
		})
	}
}

var tuid = regexp.MustCompile(`(?m)^X-TUID: [^\n]*\n`)

// TestMbsync keeps a copy of the mailbox in step, in both directions.
func TestMbsync(t *testing.T) {
	need(t, "mbsync")
	w := newWorld(t, setup{})
	s := w.start()
	seed(t, s, "m1", "m2", "m3")
	w.write("mbsyncrc", fmt.Sprintf(`IMAPAccount wafer
Host localhost
Port %s
User %s
Pass %q
SSLType IMAPS
CertificateFile %s
SystemCertificates no

IMAPStore far
Account wafer

MaildirStore near
Path %s/
Inbox %s/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
SyncState *
`, s.port("imaps"), account, testPassword, w.path("cert.pem"), w.path("near"), w.path("near")))
	w.write("near/keep", "")
	sync := func() string { return works(t, w, "", "mbsync", "-V", "-c", "mbsyncrc", "all") }

	out := sync()
	here := mailIn(t, w.path("near/INBOX"))
	if len(here) != 3 {
		t.Fatalf("mbsync took %d messages, want 3:\n%s", len(here), out)
	}
	var first string // the file with sample m1
	for _, file := range here {
		b, err := os.ReadFile(file)
		must(t, err)
		text := tuid.ReplaceAllString(string(b), "")
		found := ""
		for _, tag := range []string{"m1", "m2", "m3"} {
			if strings.HasSuffix(text, lf(sampleNumber(tag))) {
				found = tag
			}
		}
		switch found {
		case "":
			t.Errorf("changed on its way: %q", text)
		case "m1":
			first = file
		}
	}
	if first == "" {
		t.FailNow()
	}

	// Read m1, delete m2 and m3, write two of our own, one in a new folder.
	for _, file := range here {
		base, _, _ := strings.Cut(filepath.Base(file), ":2,")
		flags := "ST"
		if file == first {
			flags = "RS"
		}
		must(t, os.Rename(file, w.path("near/INBOX/cur/"+base+":2,"+flags)))
	}
	w.write("near/INBOX/new/1.own", lf(sampleNumber("own")))
	for _, sub := range []string{"cur", "new", "tmp"} {
		must(t, os.MkdirAll(w.path("near/Kept/"+sub), 0o700))
	}
	w.write("near/Kept/cur/2.kept:2,F", lf(sampleNumber("kept")))
	out = sync()

	p := s.open("imaps", 0)
	must(t, p.imapLogin("ann"))
	_, err := p.imapOK("SELECT INBOX")
	must(t, err)
	a, err := p.imapOK("UID FETCH 1:* (FLAGS BODY.PEEK[])")
	must(t, err)
	if len(a.literals) != 2 {
		t.Fatalf("INBOX has %d messages, want m1 and our own:\n%s\n%s", len(a.literals), a.raw, out)
	}
	arrived(t, "m1", string(a.literals[0]), sampleNumber("m1"))
	if text := strings.ReplaceAll(tuid.ReplaceAllString(lf(string(a.literals[1])), ""), "\n", "\r\n"); text != sampleNumber("own") {
		t.Errorf("our own message: got %q", a.literals[1])
	}
	if m := regexp.MustCompile(`FLAGS \(([^)]*)\)`).FindSubmatch(a.raw); m == nil || !strings.Contains(string(m[1]), `\Seen`) || !strings.Contains(string(m[1]), `\Answered`) {
		t.Errorf("m1's flags did not arrive: %q", m)
	}
	st, err := p.imapOK("STATUS Kept (MESSAGES UNSEEN)")
	must(t, err)
	if !strings.Contains(string(st.raw), "MESSAGES 1") {
		t.Errorf("folder Kept: %q", st.raw)
	}

	// A change on the server comes down.
	_, err = p.imapOK(`UID STORE 1:* +FLAGS (\Flagged)`)
	must(t, err)
	out = sync()
	flagged, err := filepath.Glob(w.path("near/INBOX/cur/*:2,*F*"))
	must(t, err)
	if len(flagged) != 2 {
		t.Errorf("%d messages are flagged here, want 2:\n%s", len(flagged), out)
	}
	s.stop()
}

// TestMutt opens the mailbox in mutt, which copies a message to a file.
func TestMutt(t *testing.T) {
	need(t, "mutt", "script")
	w := newWorld(t, setup{})
	s := w.start()
	seed(t, s, "t1")
	w.write("muttrc", fmt.Sprintf(`set imap_user = %q
set imap_pass = %q
set ssl_force_tls = yes
set certificate_file = %q
set ssl_verify_dates = no
set ssl_verify_host = no
set header_cache = ""
set mbox_type = mbox
set confirmappend = no
set wait_key = no
set quit = yes
set copy = no
set save_empty = yes
set pipe_decode = no
folder-hook . 'push "<pipe-message>cat >piped<enter><exit>"'
`, account, testPassword, w.path("cert.pem")))
	w.write("Mail/placeholder", "") // mutt would ask whether to make the folder
	command := fmt.Sprintf("mutt -n -F muttrc -R -f imaps://%s/INBOX", s.addr["imaps"])
	out := works(t, w, "", "script", "-q", "-e", "-c", "TERM=vt100 "+command, "/dev/null")
	b, err := os.ReadFile(w.path("piped"))
	if err != nil {
		t.Fatalf("mutt showed nothing:\n%q", tail(out, 2000))
	}
	if !strings.HasSuffix(string(b), lf(sampleNumber("t1"))) {
		t.Errorf("changed on its way:\n%s", difference(string(b), lf(sampleNumber("t1"))))
	}
	s.stop()
}
