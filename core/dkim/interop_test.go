package dkim_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/dkim"
	"github.com/wafermail/wafer/core/dns"
)

// program finds a program of a Debian package.
func program(t *testing.T, name, debian string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if path := filepath.Join(dir, name); dir != "" {
			if _, err := os.Stat(path); err == nil {
				return path
			}
		}
	}
	t.Skipf("%s is not installed (Debian package %s)", name, debian)
	return ""
}

// letters are the messages that go to and fro.
func letters() map[string]string {
	return map[string]string{
		"plain":        plain,
		"text":         string(letter(20 << 10)),
		"base64":       string(attachment(20 << 10)),
		"folded":       "From: A\r\n\t<a@example.com>\r\nSubject:  many   blanks\t \r\n  and lines \r\nTo: b@example.net\r\nTo: c@example.net\r\n\r\n \t a  b\t\r\n\r\n\r\n",
		"empty body":   "From: a@example.com\r\nTo: b@example.net\r\nSubject:\r\n\r\n",
		"octets":       "From: \xc3\xa4 <a@example.com>\r\nSubject: \xff\r\n\r\n\xe4\xf6\xfc\r\n.\r\n..\r\n",
		"final blanks": "From: a@example.com\r\nSubject: x\r\n\r\nbody\r\n \t\r\n\r\n",
	}
}

// past is a time at which the others' clocks have arrived.
func past() time.Time { return time.Date(2024, 3, 4, 10, 0, 0, 0, time.UTC) }

// verifyNow verifies what others signed by their clocks.
func verifyNow(message []byte, r dns.Resolver) []dkim.Result {
	return dkim.Verify(context.Background(), bytes.NewReader(message), int64(len(message)), dkim.VerifyOptions{Resolver: r})
}

const python = `
import sys, json, base64, dkim
q = json.load(sys.stdin)
message = base64.b64decode(q["message"])
records = {k.encode(): v.encode() for k, v in (q["dns"] or {}).items()}
find = lambda name, **more: records.get(name.rstrip(b"."))
if q["key"]:
    key = base64.b64decode(q["key"])
    c = tuple(x.encode() for x in q["canon"].split("/"))
    sys.stdout.buffer.write(dkim.sign(message, q["selector"].encode(), b"example.com", key, canonicalize=c, signature_algorithm=q["algorithm"].encode()))
else:
    for i in range(q["signatures"]):
        try:
            print(dkim.DKIM(message).verify(i, dnsfunc=find))
        except Exception as e:
            print(e)
`

type question struct {
	Message    []byte            `json:"message"`
	DNS        map[string]string `json:"dns"`
	Key        []byte            `json:"key"`
	Canon      string            `json:"canon"`
	Selector   string            `json:"selector"`
	Algorithm  string            `json:"algorithm"`
	Signatures int               `json:"signatures"`
}

func askPython(t *testing.T, path string, q question) string {
	t.Helper()
	in, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-c", python)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python3: %v\n%s", err, stderr.String())
	}
	return string(out)
}

// TestPythonDKIM: dkimpy verifies what we sign, and the reverse.
func TestPythonDKIM(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many processes")
	}
	path := program(t, "python3", "python3")
	// Another python3 may come first; the packages belong to Debian's own.
	if _, err := os.Stat("/usr/bin/python3"); err == nil {
		path = "/usr/bin/python3"
	}
	if err := exec.Command(path, "-c", "import dkim, nacl").Run(); err != nil {
		t.Skip("python modules dkim and nacl are not installed (Debian packages python3-dkim, python3-nacl)")
	}
	keys, records := bothKeys(t)
	names := map[string]string{}
	for name, txt := range records {
		names[name] = txt[0]
	}
	for name, message := range letters() {
		signed := sign(t, dkim.SignerOptions{Keys: keys, Identity: "@sub.example.com", Now: past}, message) + message
		if got := askPython(t, path, question{Message: []byte(signed), DNS: names, Signatures: 2}); got != "True\nTrue\n" {
			t.Errorf("%s: dkimpy says %q of\n%.1500s", name, got, signed)
		}
		changed := strings.Replace(signed, "From: ", "From: x", 1)
		if got := askPython(t, path, question{Message: []byte(changed), DNS: names, Signatures: 2}); got != "False\nFalse\n" {
			t.Errorf("%s, changed: dkimpy says %q", name, got)
		}
	}

	rsaKey := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(testKey().rsa)})
	edKey := []byte(base64.StdEncoding.EncodeToString(testKey().ed.Seed()))
	for name, message := range letters() {
		for i, canon := range []string{"simple/simple", "relaxed/simple", "simple/relaxed", "relaxed/relaxed"} {
			q := question{Message: []byte(message), Canon: canon, Key: rsaKey, Selector: "rsa", Algorithm: "rsa-sha256"}
			if i%2 == 1 {
				q.Key, q.Selector, q.Algorithm = edKey, "ed", "ed25519-sha256"
			}
			signed := askPython(t, path, q) + message
			if got := verifyNow([]byte(signed), zone(records)); len(got) != 1 || got[0].Status != dkim.Pass {
				t.Errorf("%s %s: got %+v for\n%.1500s", name, canon, got, signed)
			}
		}
	}
}

// TestOpenDKIM: opendkim verifies what we sign with RSA (it may lack Ed25519), and the
// reverse.
func TestOpenDKIM(t *testing.T) {
	opendkim := program(t, "opendkim", "opendkim")
	keys, records := bothKeys(t)
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	published := write("keys", []byte("rsa._domainkey.example.com "+records["rsa._domainkey.example.com"][0]+"\n"))
	config := write("conf", []byte("Mode v\nTestPublicKeys "+published+"\n"))
	private, err := dkim.MarshalKey(testKey().rsa)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := write("private", private)

	for name, message := range letters() {
		signed := sign(t, dkim.SignerOptions{Keys: keys[:1], Identity: "@sub.example.com", Now: past}, message) + message
		for _, changed := range []bool{false, true} {
			text := signed
			if changed {
				text = strings.Replace(signed, "From: ", "From: x", 1)
			}
			out, err := exec.Command(opendkim, "-x", config, "-t", write("message", []byte(text))).CombinedOutput()
			if good := strings.Contains(string(out), "succeeded"); good == changed {
				t.Errorf("%s, changed %v: opendkim says %s (%v) of\n%.1500s", name, changed, out, err, text)
			}
		}

		for _, canon := range []string{"simple/simple", "relaxed/simple", "simple/relaxed", "relaxed/relaxed"} {
			// A milter sees fields with one blank after the colon, whatever stood there.
			if strings.HasPrefix(canon, "simple") && (strings.Contains(message, ":  ") || strings.Contains(message, ":\r\n")) {
				continue
			}
			config := write("sign", []byte("Mode s\nDomain example.com\nSelector rsa\nKeyFile "+keyFile+
				"\nSignatureAlgorithm rsa-sha256\nCanonicalization "+canon+"\nRequireSafeKeys no\n"))
			out, err := exec.Command(opendkim, "-x", config, "-t", write("message", []byte(message))).Output()
			_, field, found := strings.Cut(string(out), "\n")
			if err != nil || !found {
				t.Errorf("%s %s: opendkim: %v: %s", name, canon, err, out)
				continue
			}
			signed := strings.TrimRight(field, "\r\n") + "\r\n" + message
			if got := verifyNow([]byte(signed), zone(records)); len(got) != 1 || got[0].Status != dkim.Pass {
				t.Errorf("%s %s: got %+v for\n%.1500q", name, canon, got, signed)
			}
		}
	}
}

// TestOpenDKIMGenkey: keys and zone files of others are read.
func TestOpenDKIMGenkey(t *testing.T) {
	path := program(t, "opendkim-genkey", "opendkim-tools")
	dir := t.TempDir()
	if out, err := exec.Command(path, "-b", "2048", "-d", "example.com", "-s", "made", "-D", dir).CombinedOutput(); err != nil {
		t.Fatalf("opendkim-genkey: %v: %s", err, out)
	}
	private, err := dkim.ReadKeyFile(filepath.Join(dir, "made.private"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "made.txt"))
	if err != nil {
		t.Fatal(err)
	}
	zone, err := dns.ReadZone(strings.NewReader("$TTL 60\n$ORIGIN example.com.\n" + string(text)))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if err := dkim.CheckRecord(context.Background(), zone, dkim.Key{Domain: "example.com", Selector: "made", Private: private}); err != nil {
		t.Errorf("%s: %v", text, err)
	}
}
