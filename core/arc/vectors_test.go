package arc_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wafermail/wafer/core/arc"
	"github.com/wafermail/wafer/core/authres"
	"github.com/wafermail/wafer/core/dkim"
	"github.com/wafermail/wafer/core/dns"
)

const outside = "../../../shared/testdata/arc"

func vectors(t testing.TB, name string) []mapping {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(outside, name))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("outside vectors are not here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	documents, err := readYAML(string(data))
	if err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	return documents
}

func crlf(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\n", "\r\n")
}

// zone is a resolver with TXT records.
func zone(records map[string]string) *dns.Zone {
	names := map[string]map[string][]string{}
	for name, txt := range records {
		names[name] = map[string][]string{"TXT": {txt}}
	}
	return dns.NewZone(names)
}

// zoneOf is the DNS of one document.
func zoneOf(document mapping) *dns.Zone {
	records := map[string]string{}
	for _, e := range document.get("txt-records").entries {
		records[e.key] = strings.ReplaceAll(e.text, "\n", "")
	}
	return zone(records)
}

// clock stands at the time when the outside vectors were already made.
func clock() time.Time { return time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC) }

func verify(message string, r dns.Resolver) arc.Result {
	return arc.Verify(context.Background(), strings.NewReader(message), int64(len(message)), arc.VerifyOptions{Resolver: r, Now: clock})
}

func TestValidationVectors(t *testing.T) {
	rows := 0
	for _, document := range vectors(t, "arc-draft-validation-tests.yml") {
		for _, row := range document.get("tests").entries {
			rows++
			want := strings.ToLower(row.entries.get("cv").text)
			message := crlf(row.entries.get("message").text)
			got := verify(message, zoneOf(document))
			// The suite gives no status to chains that have failed before; RFC 8617 §5.2, step
			// 2, says that they fail.
			ended := want == "" && got.CV == arc.Fail && got.Reason == arc.Ended
			if string(got.CV) != want && !ended {
				t.Errorf("%s (%s): got %s (%s: %s), want %q for\n%s", row.key, row.entries.get("description").text, got.CV, got.Reason, got.Text, want, message)
			}
			if (got.CV == arc.Fail) != (got.Reason != "") {
				t.Errorf("%s: %s has the reason %q", row.key, got.CV, got.Reason)
			}
		}
	}
	t.Logf("%d rows", rows)
	if rows < 90 {
		t.Errorf("only %d rows were found", rows)
	}
}

// canonical is a field's value in relaxed form.
func canonical(field string) string {
	return string(dkim.Relaxed.AppendField(nil, []byte(field)))
}

// resultsOf joins the results that a message has from one server.
func resultsOf(t *testing.T, message, server string) authres.Field {
	t.Helper()
	m, err := dkim.Read(strings.NewReader(message), int64(len(message)), dkim.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	all := authres.Field{}
	for _, f := range m.Fields {
		if f.Name != "authentication-results" {
			continue
		}
		_, value, _ := bytes.Cut(f.Raw, []byte(":"))
		one, err := authres.Parse(string(value))
		if err != nil {
			t.Fatal(err)
		}
		if one.ServID == server {
			all.Results = append(all.Results, one.Results...)
		}
	}
	return all
}

func TestSignVectors(t *testing.T) {
	rows := 0
	for _, document := range vectors(t, "arc-draft-sign-tests.yml") {
		key, err := dkim.ParseKey([]byte(document.get("privatekey").text))
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range document.get("tests").entries {
			rows++
			e := row.entries
			seconds, err := strconv.ParseInt(e.get("t").text, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sealer, err := arc.NewSealer(arc.SealOptions{
				Domain: document.get("domain").text, Selector: document.get("sel").text, Key: key,
				AuthServID: e.get("srv-id").text, Headers: strings.Split(e.get("sig-headers").text, ":"), Oversign: []string{},
				Now: func() time.Time { return time.Unix(seconds, 0) },
			})
			if err != nil {
				t.Fatal(err)
			}
			// Where the vectors' message signature is folded in its b= cannot be told from
			// them, but their seals cover it without any folding.
			sealer.SetColumns(900)
			message := crlf(e.get("message").text)
			fields, err := sealer.Seal(strings.NewReader(message), int64(len(message)), verify(message, zoneOf(document)),
				resultsOf(t, message, e.get("srv-id").text))
			if e.get("AS").text == "" {
				if !errors.Is(err, arc.ErrRefused) {
					t.Errorf("%s: got %q (%v), want to be refused", row.key, fields, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", row.key, err)
				continue
			}
			got, err := dkim.Read(bytes.NewReader(fields), int64(len(fields)), dkim.Limits{})
			if err != nil || len(got.Fields) != 3 {
				t.Fatalf("%s: %v: %q", row.key, err, fields)
			}
			for i, kind := range []struct{ key, name string }{{"AS", arc.FieldSeal}, {"AMS", arc.FieldMessage}, {"AAR", arc.FieldResults}} {
				got, want := string(got.Fields[i].Raw), kind.name+": "+strings.ReplaceAll(e.get(kind.key).text, "\n", "\n ")
				if sameTags(canonical(got)) != sameTags(canonical(want)) {
					t.Errorf("%s %s: got\n%s, want\n%s", row.key, kind.key, got, want)
				}
			}
		}
	}
	t.Logf("%d rows", rows)
	if rows < 10 {
		t.Errorf("only %d rows were found", rows)
	}
}

// sameTags drops the blanks inside of base64, which may be folded anywhere.
func sameTags(s string) string {
	tags := strings.Split(s, ";")
	for i, t := range tags {
		if strings.HasPrefix(strings.TrimSpace(t), "b=") {
			tags[i] = " " + strings.ReplaceAll(t, " ", "")
		}
	}
	return strings.Join(tags, ";")
}

// verifyNow verifies what others sealed by their clocks.
func verifyNow(message string, records map[string]string) arc.Result {
	return arc.Verify(context.Background(), strings.NewReader(message), int64(len(message)), arc.VerifyOptions{Resolver: zone(records)})
}
