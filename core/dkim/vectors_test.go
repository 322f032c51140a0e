package dkim_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/dkim"
)

const outside = "../../../shared/testdata/dkim"

func vector(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(outside, name))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("outside vectors are not here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func withCRLF(b []byte) []byte {
	b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
}

// TestGenerated: messages signed by two programs, changed, and judged by both.
func TestGenerated(t *testing.T) {
	// Rows that nobody settled, and what this package says.
	contested := []struct {
		id   *regexp.Regexp
		pass bool
		why  string
	}{
		{regexp.MustCompile(`^signed/dkimpy-.*-no-final-crlf$`), true, "RFC 6376 §3.4.3: a CRLF is added to a body without one"},
		{regexp.MustCompile(`^signed/mail-dkim-.*-no-final-crlf$`), false, "likewise: the signer did not add it"},
		{regexp.MustCompile(`drop-final-crlf$`), true, "likewise"},
		{regexp.MustCompile(`-colon-space$`), true, "RFC 5322 §4.5: blanks before the colon are obsolete, but the field is one"},
		{regexp.MustCompile(`^mutated/relaxed-.*space-before-colon$`), true, "RFC 6376 §3.4.2: white space before the colon is deleted"},
		{regexp.MustCompile(`hdr-dup-from-top$`), true, "RFC 6376 §5.4.2: the last From is the signed one; UnsignedFields tells of the other"},
		{regexp.MustCompile(`^keyrecord/g-alice$`), true, "g= is gone since RFC 6376, unknown tags are ignored"},
		{regexp.MustCompile(`^keyrecord/pkcs1$`), true, "RFC 6376 §3.6.1 asks for RSAPublicKey"},
	}
	rows, open := 0, 0
	lines := bufio.NewScanner(bytes.NewReader(vector(t, "generated/dkim.jsonl")))
	lines.Buffer(nil, 1<<22)
	for lines.Scan() {
		var row struct {
			ID       string
			Class    string
			Message  []byte `json:"message_b64"`
			DNS      map[string][]string
			Expected *string
		}
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		results := verify(t, row.Message, zone(row.DNS))
		got := passes(results)
		if row.Expected != nil {
			rows++
			if got != (*row.Expected == "pass") {
				t.Errorf("%s: got %+v, want %s", row.ID, results, *row.Expected)
			}
			continue
		}
		open++
		known := false
		for _, c := range contested {
			if c.id.MatchString(row.ID) {
				known = true
				if got != c.pass {
					t.Errorf("%s: got %+v, want pass %v: %s", row.ID, results, c.pass, c.why)
				}
				break
			}
		}
		if !known {
			t.Errorf("%s: contested, and nothing is said about it; got %+v", row.ID, results)
		}
	}
	t.Logf("%d settled rows, %d contested", rows, open)
}

// TestMailDKIM: the corpus of Mail::DKIM as a verifier must see it that refuses
// rsa-sha1, keys under 1024 bits and signatures without v=1. None of it can pass.
func TestMailDKIM(t *testing.T) {
	records := map[string][]string{}
	for line := range strings.Lines(string(vector(t, "mail-dkim/dns.txt"))) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		name, record, _ := strings.Cut(line, " ")
		if record = strings.TrimSpace(record); record != "" && record != "NXDOMAIN" {
			records[name] = append(records[name], record)
		}
	}
	r := zone(records)
	rows := 0
	for line := range strings.Lines(string(vector(t, "mail-dkim/expected.jsonl"))) {
		var row struct{ File, RFC8301 string }
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		rows++
		results := verify(t, vector(t, "mail-dkim/"+row.File), r)
		if passes(results) != (row.RFC8301 == "pass") {
			t.Errorf("%s: got %+v, want %s", row.File, results, row.RFC8301)
		}
	}
	t.Logf("%d rows", rows)
}

// TestMailAuth: messages with their DNS in front.
func TestMailAuth(t *testing.T) {
	for name, want := range map[string]int{"001.txt": 2, "002.txt": 1} {
		head, message, _ := bytes.Cut(withCRLF(vector(t, "mail-auth/"+name)), []byte("\r\n\r\n"))
		records := map[string][]string{}
		for line := range strings.Lines(string(head)) {
			name, record, _ := strings.Cut(strings.TrimSpace(line), " ")
			records[name] = []string{record}
		}
		results := verify(t, message, zone(records))
		if len(results) != want {
			t.Fatalf("%s: got %d results, want %d", name, len(results), want)
		}
		for _, r := range results {
			if r.Status != dkim.Pass {
				t.Errorf("%s: got %+v, want pass", name, r)
			}
		}
	}
}

// TestDKIMPy: the example of RFC 8463 Appendix A, and the records of the corpus
// against a message that is signed here with its key.
func TestDKIMPy(t *testing.T) {
	text := func(name string) string { return strings.TrimSpace(string(vector(t, "dkimpy/"+name))) }
	ed := "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
	t.Run("rfc6376.signed", func(t *testing.T) {
		r := zone(map[string][]string{
			"brisbane._domainkey.football.example.com": {ed},
			"test._domainkey.football.example.com":     {text("test.txt")},
		})
		for _, got := range verify(t, withCRLF(vector(t, "dkimpy/rfc6376.signed.msg")), r) {
			if got.Status != dkim.Pass {
				t.Errorf("got %+v, want pass", got)
			}
		}
	})

	key, err := dkim.ParseKey(vector(t, "dkimpy/test.private"))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := dkim.NewSigner(dkim.SignerOptions{Keys: []dkim.Key{{Domain: "example.com", Selector: "test", Private: key}}, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	message := withCRLF(vector(t, "dkimpy/test.message"))
	fields, err := signer.Sign(bytes.NewReader(message), int64(len(message)))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		record string
		reason dkim.Reason
	}{
		{"test.txt", ""},
		{"test2.txt", ""},
		{"badk.txt", dkim.KeyType},
		{"badversion.txt", dkim.KeySyntax},
		{"test_bad.txt", dkim.KeySyntax},
		{"test_tlsrpt.txt", dkim.KeyService},
		{"ed25519test.dns", dkim.KeyType},
		{"eximtest.dns", dkim.KeyType},
	} {
		t.Run(row.record, func(t *testing.T) {
			r := zone(map[string][]string{"test._domainkey.example.com": {text(row.record)}})
			got := verify(t, append(bytes.Clone(fields), message...), r)
			if len(got) != 1 || got[0].Reason != row.reason {
				t.Errorf("got %+v, want reason %q", got, row.reason)
			}
		})
	}
}
