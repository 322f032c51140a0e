package report

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

// sample is a report with everything that is written.
func sample() Feedback {
	return Feedback{
		Org: "Example & Söhne <x>", Email: "dmarc@example.net", Contact: "https://example.net/", ID: "2026-11-05_example.com@example.net",
		Begin: time.Unix(1793836800, 0).UTC(), End: time.Unix(1793923199, 0).UTC(), Errors: []string{"two records"}, Generator: "wafer",
		Policy: Published{Domain: "example.com", P: "reject", SP: "none", NP: "quarantine", ADKIM: "r", ASPF: "s", FO: "1:d", Testing: "n", Discovery: "treewalk"},
		Records: []Record{
			{
				Source: "2001:db8::1", Count: 7, Disposition: "pass", DKIM: "pass", SPF: "fail",
				HeaderFrom: "example.com", EnvelopeFrom: "b.example.org", EnvelopeTo: "example.net",
				DKIMResults: []DKIMResult{{"example.com", "s1", "pass", ""}, {"example.org", "s2", "fail", "body hash"}},
				SPFResults:  []SPFResult{{"b.example.org", "mfrom", "softfail", "~all"}},
			},
			{
				Source: "192.0.2.1", Count: 1, Disposition: "none", DKIM: "fail", SPF: "fail", HeaderFrom: "a.example.com",
				Reasons: []Reason{{"mailing_list", "list\n<b>"}, {"other", ""}},
			},
		},
	}
}

func written(t testing.TB, f Feedback) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b, f)
	for _, r := range f.Records {
		if err := w.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestFeedbackRoundTrip(t *testing.T) {
	want := sample()
	got, err := Read(bytes.NewReader(written(t, want)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	want.Version = "1.0"
	if got, want := flat(t, got.Feedback), flat(t, want); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestHostileTextsAreWrittenSafely(t *testing.T) {
	f := sample()
	f.Org = "a\x00b\xff]]></org_name><evil/>&#0;"
	f.Records[0].HeaderFrom = "\"><x y='"
	got, err := Read(bytes.NewReader(written(t, f)), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Feedback.Org != "a\ufffdb\ufffd]]></org_name><evil/>&#0;" || got.Feedback.Records[0].HeaderFrom != "\"><x y='" {
		t.Errorf("%q %q", got.Feedback.Org, got.Feedback.Records[0].HeaderFrom)
	}
}

// full is a place where nothing can be written.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestWriterErrors(t *testing.T) {
	w := NewWriter(full{}, sample())
	for range 2000 {
		_ = w.Write(sample().Records[0])
	}
	if err := w.Close(); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("Close: %v", err)
	}
	if err := NewWriter(io.Discard, sample()).Close(); !errors.Is(err, ErrNoRecords) {
		t.Errorf("Close without records: %v", err)
	}
}

func gz(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(b) // to memory
	_ = z.Close()
	return out.Bytes()
}

func zipped(files ...string) []byte {
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for i := 0; i < len(files); i += 2 {
		w, err := z.Create(files[i])
		if err == nil {
			_, _ = w.Write([]byte(files[i+1]))
		}
	}
	_ = z.Close()
	return out.Bytes()
}

const head = `<?xml version="1.0"?><feedback>`

func TestReadForms(t *testing.T) {
	xml := head + `<report_metadata><org_name>Müller</org_name></report_metadata></feedback>`
	latin := strings.ReplaceAll(strings.Replace(xml, `"1.0"`, `"1.0" encoding="ISO-8859-1"`, 1), "ü", "\xfc")
	many := []string{}
	for i := range maxFiles + 1 {
		many = append(many, fmt.Sprint(i, ".xml"), xml)
	}
	for _, row := range []struct {
		name string
		in   []byte
		want string // of the organization, or in the error
	}{
		{"plain", []byte(xml), "Müller"},
		{"blanks first", []byte("\r\n\t " + xml), "Müller"},
		{"byte order mark", []byte("\xef\xbb\xbf" + xml), "Müller"},
		{"gzip", gz([]byte(xml)), "Müller"},
		{"two gzip members", append(gz([]byte(xml[:40])), gz([]byte(xml[40:]))...), "Müller"},
		{"zip", zipped("x.xml", xml), "Müller"},
		{"zip with more", zipped("dir/", "", "readme.txt", "hello", "X.XML", xml), "Müller"},
		{"Latin 1", []byte(latin), "Müller"},
		{"prefix", []byte(`<d:feedback xmlns:d="urn:x"><d:report_metadata><d:org_name>Müller</d:org_name></d:report_metadata></d:feedback>`), "Müller"},
		{"comments and CDATA", []byte(head + `<!-- x --><report_metadata><org_name>M<!-- y -->ü<![CDATA[ller]]></org_name></report_metadata></feedback>`), "Müller"},
		{"junk behind", []byte(xml + "\x00\x00"), "Müller"},

		{"empty", nil, "empty"},
		{"blanks", []byte("  \r\n"), "empty"},
		{"text", []byte("hello"), "neither XML nor JSON"},
		{"HTML", []byte("<html></html>"), "where feedback should be"},
		{"no element", []byte("<!-- x -->"), "no element feedback"},
		{"truncated", []byte(xml[:50]), "unexpected EOF"},
		{"truncated gzip", gz([]byte(strings.Repeat(xml, 100)))[:60], "unexpected EOF"},
		{"gzip of gzip", gz(gz([]byte(xml))), "neither"},
		{"not quite gzip", []byte("\x1f\x8bhello"), "gzip"},
		{"not quite zip", []byte("PK\x03\x04hello"), "zip"},
		{"empty zip of directories", zipped("dir/", ""), "no file"},
		{"many files", zipped(many...), "files"},
		{"unknown character set", []byte(`<?xml version="1.0" encoding="x-none"?><feedback/>`), "character set"},
		{"not UTF-8", []byte(head + "<org_name>\xff</org_name></feedback>"), "UTF-8"},
		{"entity", []byte(`<!DOCTYPE f [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><feedback><version>&b;</version></feedback>`), "entity"},
		{"count", []byte(head + "<record><row><count>many</count></row></record></feedback>"), "no number"},
		{"negative count", []byte(head + "<record><row><count>-1</count></row></record></feedback>"), "no number"},
		{"date", []byte(head + "<report_metadata><date_range><begin>99999999999999</begin></date_range></report_metadata></feedback>"), "no time"},
		{"deep", []byte(head + strings.Repeat("<x>", 1000)), "levels"},
		{"huge text", []byte(head + "<version>" + strings.Repeat("1", 1<<20)), "text of more"},
		{"huge text in pieces", []byte(head + "<version>" + strings.Repeat("1<x/>", 1<<20)), "text of more"},
		{"huge attribute", []byte(head + `<x y="` + strings.Repeat("1", 1<<20)), "text of more"},
		{"huge comment", []byte(head + `<!-- ` + strings.Repeat("1", 1<<20)), "text of more"},
		{"huge name", []byte(`<` + strings.Repeat("x", 1<<20)), "text of more"},
		{"many records", []byte(head + strings.Repeat("<record/>", 30000)), "entries"},
		{"many results", []byte(head + "<record><auth_results>" + strings.Repeat("<dkim/>", 30000)), "entries"},
		{"many reasons", []byte(head + "<record><row><policy_evaluated>" + strings.Repeat("<reason/>", 30000)), "entries"},
		{"many extensions", []byte(head + "<extensions>" + strings.Repeat("<x/>", 30000)), "entries"},
		{"many unknown elements of records", []byte(head + "<record>" + strings.Repeat("<x/>", 30000)), "entries"},
		{"bomb in gzip", gz(append([]byte(head), bytes.Repeat([]byte("<version>1</version>"), 300<<10)...)), "octets"},
		{"bomb in zip", zipped("x.xml", head+strings.Repeat("<version>1</version>", 300<<10)), "octets"},
		{"bomb of blanks", gz(bytes.Repeat([]byte(" "), 6<<20)), "octets"},
		{"huge plain file", bytes.Repeat([]byte(" "), 6<<20), "octets"},
		{"huge packed file", append([]byte("PK\x03\x04"), make([]byte, 2<<20)...), "packed octets"},

		{"JSON: no object", []byte(`{"policies": 1, "date-range": [1], "organization-name": {"a": [1, {}]}, "contact-info": 5}`), "TLS 5"},
		{"JSON: truncated", []byte(`{"policies": [`), "unexpected EOF"},
		{"JSON: deep", []byte(`{"x":` + strings.Repeat("[", 1000)), "levels"},
		{"JSON: huge text", []byte(`{"organization-name":"` + strings.Repeat("x", 1<<20) + `"}`), "text of more"},
		{"JSON: many policies", []byte(`{"policies":[` + strings.Repeat("{},", 30000) + `{}]}`), "entries"},
		{"JSON: many failures", []byte(`{"policies":[{"failure-details":[` + strings.Repeat("{},", 30000) + `{}]}]}`), "entries"},
		{"JSON: many strings", []byte(`{"policies":[{"policy":{"mx-host":[` + strings.Repeat(`"",`, 30000) + `""]}}]}`), "entries"},
		{"JSON: count", []byte(`{"policies":[{"summary":{"total-failure-session-count":1.5}}]}`), "no number"},
		{"JSON: date", []byte(`{"date-range":{"start-datetime":"yesterday"}}`), "no time"},
		{"JSON: syntax", []byte(`{"policies":]`), "invalid"},
	} {
		r, err := Read(bytes.NewReader(row.in), Limits{Octets: 4 << 20, Packed: 1 << 20, Entries: 20000})
		got := fmt.Sprint(err)
		switch {
		case r.Feedback != nil:
			got = r.Feedback.Org
		case r.TLS != nil:
			got = "TLS " + r.TLS.Contact
		}
		if got != row.want && (err == nil || !strings.Contains(got, row.want)) {
			t.Errorf("%s: %.200q, want %q", row.name, got, row.want)
		}
		if strings.Contains(row.want, "octets") && !errors.Is(err, ErrLimit) {
			t.Errorf("%s: %v is no ErrLimit", row.name, err)
		}
	}
}

// TestMemoryIsBounded reads what is small when packed and made to take much room.
func TestMemoryIsBounded(t *testing.T) {
	for name, in := range map[string][]byte{
		"blanks":  gz(bytes.Repeat([]byte(" "), 8<<20)),
		"records": gz([]byte(head + strings.Repeat("<record/>", 50000) + "</feedback>")),
		"text":    gz([]byte(head + "<org_name>" + strings.Repeat("x", 8<<20) + "</org_name></feedback>")),
		"JSON":    gz([]byte(`{"policies":[` + strings.Repeat("{},", 50000) + `{}]}`)),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Read(bytes.NewReader(in), Limits{})
		runtime.ReadMemStats(&after)
		if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 100 {
			t.Errorf("%s: %d octets cost %d MiB in all (%v)", name, len(in), used, err)
		}
	}
}

func TestFromMessage(t *testing.T) {
	const part = "--b\r\nContent-Type: application/gzip\r\nContent-Transfer-Encoding: base64\r\n\r\n%s\r\n"
	good := fmt.Sprintf(part, base64.StdEncoding.EncodeToString(written(t, sample())))
	multi := func(parts ...string) string {
		return "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Join(parts, "") + "--b--\r\n"
	}
	for _, row := range []struct {
		name, in, want string
	}{
		{"attachment", multi("--b\r\n\r\nhello\r\n", good), "1 <nil>"},
		{"two", multi(good, good), "2 <nil>"},
		{"beside something broken", multi(fmt.Sprintf(part, "????"), good), "1 <nil>"},
		{"broken", multi(fmt.Sprintf(part, "H4sIAAAA")), "0 unpack report: gzip: unexpected EOF"},
		{"none", multi("--b\r\n\r\nhello\r\n"), "0 message has no report"},
		{"too many", multi(strings.Repeat(good, 9)), "8 report is beyond its limits: more than 8 attachments"},
		{"no message", "", "0 message has no report"},
		{"by file name", "Content-Type: application/octet-stream; name=X.XML\r\n\r\n<feedback/>", "1 <nil>"},
		{"quoted-printable", "Content-Type: text/xml\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=3Cfeed=\r\nback/>", "1 <nil>"},
		{"failure without a type", "Content-Type: message/feedback-report\r\n\r\nVersion: 1\r\n", "0 read failure report: it has no Feedback-Type"},
		{"huge failure", "Content-Type: message/feedback-report\r\n\r\n" + strings.Repeat("X: y\r\n", 20000), "0 read failure report: report is beyond its limits: more than 65536 octets"},
		{"many fields", "Content-Type: message/feedback-report\r\n\r\n" + strings.Repeat("X: y\r\n", 600), "0 read failure report: report is beyond its limits: more than 500 fields"},
	} {
		all, err := FromMessage(strings.NewReader(row.in), int64(len(row.in)), Limits{})
		if got := fmt.Sprintf("%d %v", len(all), err); got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
}

func TestNames(t *testing.T) {
	begin, end := time.Unix(1013662812, 0), time.Unix(1013749130, 0)
	for _, row := range [][2]string{
		{FileName("mail.receiver.example", "Example.com.", begin, end, "", "xml.gz"), "mail.receiver.example!example.com!1013662812!1013749130.xml.gz"},
		{FileName("a.example", "b.example", begin, end, "7-x/../é", "json.gz"), "a.example!b.example!1013662812!1013749130!7x.json.gz"},
		{FileName("../a", "b\r\n!c/", begin, end, "", "xml"), "a!bc!1013662812!1013749130.xml"},
		{Subject("mail.receiver.example", "example.com", "<2024-03-27_example.com@example.org>"),
			"Report Domain: example.com\r\n Submitter: mail.receiver.example\r\n Report-ID: <2024-03-27_example.com@example.org>"},
		{Subject("a", "b", "x\r\nBcc: y@z@é"), "Report Domain: b\r\n Submitter: a\r\n Report-ID: <x--Bcc--y@z-->"},
	} {
		if row[0] != row[1] {
			t.Errorf("got %q, want %q", row[0], row[1])
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(head + "<record><row><source_ip>192.0.2.1</source_ip><count>1</count><policy_evaluated><reason><type>other</type></reason></policy_evaluated></row></record></feedback>"))
	f.Add([]byte(`{"policies":[{"policy":{"policy-string":["a"],"mx-host":"b"},"summary":{"total-failure-session-count":1},"failure-details":[{"failed-session-count":1}]}]}`))
	f.Add(gz([]byte(head + "</feedback>")))
	f.Add(zipped("a.xml", head+"</feedback>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Read(bytes.NewReader(b), Limits{Octets: 1 << 20})
		if (err == nil) != (r.Feedback != nil || r.TLS != nil) {
			t.Errorf("%+v %v", r, err)
		}
		if r.Feedback == nil || len(r.Feedback.Records) == 0 {
			return
		}
		again, err := Read(bytes.NewReader(written(t, *r.Feedback)), Limits{Text: 1 << 20})
		if err != nil || len(again.Feedback.Records) != len(r.Feedback.Records) {
			t.Errorf("what was written cannot be read: %v", err)
		}
	})
}

func FuzzFromMessage(f *testing.F) {
	f.Add([]byte("Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nArrival-Date: 8 Mar 2005 17:40:36 EDT\r\n--b--\r\n"))
	f.Add([]byte("Content-Type: text/xml\r\nContent-Transfer-Encoding: base64\r\n\r\nPGZlZWRiYWNrLz4=\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := FromMessage(bytes.NewReader(b), int64(len(b)), Limits{Octets: 1 << 20})
		if len(all) == 0 && err == nil {
			t.Error("neither a report nor an error")
		}
	})
}

func BenchmarkRead(b *testing.B) {
	f := sample()
	for range 1000 {
		f.Records = append(f.Records, f.Records[0])
	}
	packed := written(b, f)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(bytes.NewReader(packed), Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
