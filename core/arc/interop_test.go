package arc_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/arc"
)

// letters are the messages that go to and fro.
func letters() map[string]string {
	return map[string]string{
		"plain":        plain,
		"folded":       "From: A\r\n\t<a@example.com>\r\nSubject:  many   blanks\t \r\n  and lines \r\nTo: b@example.net\r\nTo: c@example.net\r\n\r\n \t a  b\t\r\n\r\n\r\n",
		"empty body":   "From: a@example.com\r\nTo: b@example.net\r\nSubject:\r\n\r\n",
		"octets":       "From: \xc3\xa4 <a@example.com>\r\nSubject: \xff\r\n\r\n\xe4\xf6\xfc\r\n.\r\n..\r\n",
		"final blanks": "From: a@example.com\r\nSubject: x\r\n\r\nbody\r\n \t\r\n\r\n",
		"long":         plain + strings.Repeat("The quick brown fox jumps over the lazy dog.  \r\n", 1000),
	}
}

const python = `
import sys, json, base64, dkim
for line in sys.stdin:
    q = json.loads(line)
    message = base64.b64decode(q["message"])
    records = {k.encode(): v.encode() for k, v in (q["dns"] or {}).items()}
    try:
        if q["key"]:
            out = b"".join(dkim.arc_sign(message, q["selector"].encode(), q["domain"].encode(), base64.b64decode(q["key"]), q["server"].encode()))
            print(json.dumps(base64.b64encode(out).decode()))
        else:
            cv, results, reason = dkim.arc_verify(message, dnsfunc=lambda name, **more: records.get(name.rstrip(b".")))
            print(json.dumps("%s: %s" % (cv.decode() if cv else "ended", reason)))
    except Exception as e:
        print(json.dumps("error: %r" % e))
    sys.stdout.flush()
`

// question asks dkimpy to verify, or with a key to seal.
type question struct {
	Message  []byte            `json:"message"`
	DNS      map[string]string `json:"dns"`
	Key      []byte            `json:"key"`
	Domain   string            `json:"domain"`
	Selector string            `json:"selector"`
	Server   string            `json:"server"` // whose Authentication-Results are taken
}

// startPython returns a function that asks dkimpy.
func startPython(t *testing.T) func(question) string {
	t.Helper()
	// Another python3 may come first; the packages belong to Debian's own.
	path := "/usr/bin/python3"
	if _, err := os.Stat(path); err != nil {
		t.Skip("python3 is not installed (Debian package python3)")
	}
	if err := exec.Command(path, "-c", "import dkim, nacl, authres").Run(); err != nil {
		t.Skip("python modules dkim, nacl and authres are not installed (Debian packages python3-dkim, python3-nacl, python3-authres)")
	}
	cmd := exec.Command(path, "-c", python)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("python3: %v\n%s", err, stderr.String())
		}
	})
	encoder, decoder := json.NewEncoder(in), json.NewDecoder(out)
	return func(q question) string {
		t.Helper()
		var answer string
		if err := encoder.Encode(q); err != nil {
			t.Fatalf("ask python3: %v", err)
		}
		if err := decoder.Decode(&answer); err != nil {
			t.Fatalf("ask python3: %v\n%s", err, stderr.String())
		}
		return answer
	}
}

// TestPython: dkimpy verifies what we seal, and the reverse, and each goes on with the
// other's chains.
func TestPython(t *testing.T) {
	if testing.Short() {
		t.Skip("starts another program")
	}
	ask := startPython(t)
	names := records(t)
	now := func() time.Time { return time.Date(2024, 3, 4, 10, 0, 0, 0, time.UTC) } // their clock is past that
	// dkimpy knows chains of RSA only.
	private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(testKey().rsa)})
	ours := newSealer(t, arc.SealOptions{Domain: listDomain, Selector: "rsa", Key: testKey().rsa, Now: now})
	sealed := 0
	for letter, message := range letters() {
		seal := func(message string, cv arc.CV) string {
			result := verifyNow(message, names)
			if result.CV != cv {
				t.Fatalf("%s: got %s (%s), want %s of\n%.3000s", letter, result.CV, result.Text, cv, message)
			}
			fields, err := ours.Seal(strings.NewReader(message), int64(len(message)), result, found("arc="+string(cv)+" dmarc=pass"))
			if err != nil {
				t.Fatal(err)
			}
			return string(fields) + message
		}
		theirs := func(message string, cv arc.CV) string {
			sealed++
			server := fmt.Sprintf("mx%d.%s", sealed, schoolDomain) // it joins those of one name
			message = "Authentication-Results: " + server + "; arc=" + string(cv) + "; spf=pass smtp.mailfrom=a@example.com\r\n" + message
			answer := ask(question{Message: []byte(message), Key: private, Domain: schoolDomain, Selector: "rsa", Server: server})
			fields, err := base64.StdEncoding.DecodeString(answer)
			if err != nil || len(fields) == 0 {
				t.Fatalf("%s: dkimpy does not seal: %s", letter, answer)
			}
			return string(fields) + message
		}
		check := func(name, message, want string) {
			t.Helper()
			if got := ask(question{Message: []byte(message), DNS: names}); !strings.HasPrefix(got, want+":") {
				t.Errorf("%s, %s: dkimpy says %q of\n%.3000s", letter, name, got, message)
			}
			cv := arc.CV(want)
			if want == "ended" {
				cv = arc.Fail
			}
			if got := verifyNow(message, names); got.CV != cv {
				t.Errorf("%s, %s: we say %s (%s) of\n%.3000s", letter, name, got.CV, got.Text, message)
			}
		}
		one, two := seal(message, arc.None), theirs(message, arc.None)
		check("ours", one, "pass")
		check("theirs", two, "pass")
		check("ours, ours", seal(one, arc.Pass), "pass")
		check("ours, theirs", theirs(one, arc.Pass), "pass")
		check("theirs, ours", seal(two, arc.Pass), "pass")
		check("theirs, ours, theirs", theirs(seal(two, arc.Pass), arc.Pass), "pass")
		check("ours, theirs, ours", seal(theirs(one, arc.Pass), arc.Pass), "pass")
		changed := strings.Replace(one, "From: ", "From: x", 1)
		check("ours, changed", changed, "fail")
		check("theirs, changed", strings.Replace(two, "From: ", "From: x", 1), "fail")
		check("ours, changed, ours", seal(changed, arc.Fail), "ended")
		check("ours, changed, theirs", theirs(changed, arc.Fail), "ended")
		check("ours, results changed", strings.Replace(one, "dmarc=pass", "dmarc=fail", 1), "fail")
	}
}
