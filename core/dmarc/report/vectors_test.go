package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const vectors = "../../../../shared/testdata/reports/"

// outside lists files of test data from outside the project.
func outside(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(vectors + pattern)
	if err != nil || len(files) == 0 {
		t.Skipf("no outside test data %s%s", vectors, pattern)
	}
	return files
}

// read reads a report, or a message with one.
func read(t *testing.T, file string) (Report, error) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Ext(file) != ".eml" {
		return Read(bytes.NewReader(b), Limits{})
	}
	all, err := FromMessage(bytes.NewReader(b), int64(len(b)), Limits{})
	if err != nil {
		return Report{}, err
	}
	if len(all) != 1 {
		return Report{}, fmt.Errorf("%d reports", len(all))
	}
	return all[0], nil
}

// word turns the words of the JSON, the names of some program's constants, into those
// of the reports.
func word(s string) string {
	switch s {
	case "Unspecified", "":
		return ""
	case "MailFrom":
		return "mfrom"
	case "Relaxed", "Strict":
		return strings.ToLower(s[:1])
	}
	var b strings.Builder
	for i, c := range s {
		if i > 0 && c >= 'A' && c <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(c)
	}
	return strings.ToLower(b.String())
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

type wantFeedback struct {
	Version  float64
	Metadata struct {
		Org     string `json:"org_name"`
		Email   string
		Contact *string `json:"extra_contact_info"`
		ID      string  `json:"report_id"`
		Dates   struct{ Begin, End int64 }
		Range   struct{ Begin, End int64 } `json:"date_range"`
		Error   []string
	} `json:"report_metadata"`
	Policy struct {
		Domain, ADKIM, ASPF, P, SP string
		NP                         string
		Testing                    bool
		FO                         *string
		Discovery                  string `json:"discovery_method"`
	} `json:"policy_published"`
	Record []struct {
		Row struct {
			Source    string `json:"source_ip"`
			Count     int64
			Evaluated struct {
				Disposition, DKIM, SPF string
				Reason                 []struct {
					Type    string `json:"type_"`
					Comment *string
				}
			} `json:"policy_evaluated"`
		}
		Identifiers struct {
			To     *string `json:"envelope_to"`
			From   string  `json:"envelope_from"`
			Header string  `json:"header_from"`
		}
		Results struct {
			DKIM []struct {
				Domain, Selector, Result string
				Human                    *string `json:"human_result"`
			}
			SPF []struct {
				Domain, Scope, Result string
				Human                 *string `json:"human_result"`
			}
		} `json:"auth_results"`
		Extensions []Extension
	}
	Extensions []Extension
}

// feedback is the JSON in our form.
func (w wantFeedback) feedback() Feedback {
	f := Feedback{
		Org: w.Metadata.Org, Email: w.Metadata.Email, Contact: text(w.Metadata.Contact), ID: w.Metadata.ID,
		Begin: time.Unix(w.Metadata.Range.Begin, 0).UTC(), End: time.Unix(w.Metadata.Range.End, 0).UTC(),
		Policy: Published{
			Domain: w.Policy.Domain, ADKIM: word(w.Policy.ADKIM), ASPF: word(w.Policy.ASPF), P: word(w.Policy.P),
			SP: word(w.Policy.SP), FO: text(w.Policy.FO),
		},
		Errors: w.Metadata.Error, Extensions: w.Extensions,
	}
	if w.Version != 0 {
		f.Version = fmt.Sprintf("%.1f", w.Version)
	}
	for _, r := range w.Record {
		got := Record{
			Source: r.Row.Source, Count: r.Row.Count, Disposition: word(r.Row.Evaluated.Disposition),
			DKIM: word(r.Row.Evaluated.DKIM), SPF: word(r.Row.Evaluated.SPF),
			HeaderFrom: r.Identifiers.Header, EnvelopeFrom: r.Identifiers.From, EnvelopeTo: text(r.Identifiers.To),
			Extensions: r.Extensions,
		}
		for _, x := range r.Row.Evaluated.Reason {
			got.Reasons = append(got.Reasons, Reason{word(x.Type), text(x.Comment)})
		}
		for _, x := range r.Results.DKIM {
			got.DKIMResults = append(got.DKIMResults, DKIMResult{x.Domain, x.Selector, word(x.Result), text(x.Human)})
		}
		for _, x := range r.Results.SPF {
			got.SPFResults = append(got.SPFResults, SPFResult{x.Domain, word(x.Scope), word(x.Result), text(x.Human)})
		}
		f.Records = append(f.Records, got)
	}
	return f
}

// flat prints a value in a form in which nil and empty lists are alike.
func flat(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), "null", "[]")
}

func TestFeedbackVectors(t *testing.T) {
	rows := 0
	for _, file := range append(outside(t, "dmarc-feedback/*.xml"), outside(t, "dmarc-feedback/*.eml")...) {
		got, err := read(t, file)
		if err != nil || got.Feedback == nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		b, err := os.ReadFile(strings.TrimSuffix(file, filepath.Ext(file)) + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var w wantFeedback
		if err := json.Unmarshal(b, &w); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if (got.Feedback.Policy.Testing == "y") != w.Policy.Testing {
			t.Errorf("%s: testing %q", file, got.Feedback.Policy.Testing)
		}
		f := *got.Feedback
		// The JSON has these otherwise, or not at all.
		f.Policy.Testing, f.Policy.Percent, f.Generator = "", "", ""
		f.Policy.NP, f.Policy.Discovery = "", ""
		want := w.feedback()
		if filepath.Base(file) == "005.xml" {
			// The report says "sampled_out", a reason of RFC 7489 Appendix C that RFC 9990
			// has no more; the JSON calls it "other". A reader keeps what was written.
			want.Records[0].Reasons[0].Type = "sampled_out"
		}
		if got, want := flat(t, f), flat(t, want); got != want {
			t.Errorf("%s\n got %s\nwant %s", file, got, want)
		}
		rows++
	}
	t.Logf("%d reports", rows)
}

func TestTLSVectors(t *testing.T) {
	rows := 0
	for _, file := range outside(t, "tlsrpt/*") {
		got, err := read(t, file)
		if err != nil || got.TLS == nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		b, err := os.ReadFile(strings.TrimSuffix(file, filepath.Ext(file)) + ".json")
		if err != nil {
			t.Fatal(err)
		}
		// The reports are compared with what we write from what was read.
		var packed bytes.Buffer
		if err := got.TLS.Gzip(&packed); err != nil {
			t.Fatal(err)
		}
		plain, err := unpack(&packed, Limits{}.filled())
		if err != nil {
			t.Fatal(err)
		}
		var ours, theirs any
		if err := json.NewDecoder(plain).Decode(&ours); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &theirs); err != nil {
			t.Fatal(err)
		}
		if ours, theirs := pruned(ours), pruned(theirs); !reflect.DeepEqual(ours, theirs) {
			t.Errorf("%s\n got %s\nwant %s", file, flat(t, ours), flat(t, theirs))
		}
		rows++
	}
	t.Logf("%d reports", rows)
}

// pruned is JSON without what is empty or nought.
func pruned(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := map[string]any{}
		for k, e := range v {
			if e = pruned(e); e != nil {
				m[k] = e
			}
		}
		return m
	case []any:
		for i := range v {
			v[i] = pruned(v[i])
		}
		return v
	case string:
		if v == "" {
			return nil
		}
	case float64:
		if v == 0 {
			return nil
		}
	}
	return v
}

func TestFailureVectors(t *testing.T) {
	rows := 0
	for _, file := range outside(t, "arf/*.eml") {
		got, err := read(t, file)
		if err != nil || got.Failure == nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		b, err := os.ReadFile(strings.TrimSuffix(file, ".eml") + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var w struct {
			Type    string   `json:"feedback_type"`
			Arrival *int64   `json:"arrival_date"`
			Results []string `json:"authentication_results"`
			From    *string  `json:"original_mail_from"`
			Domains []string `json:"reported_domain"`
			URIs    []string `json:"reported_uri"`
			Source  *string  `json:"source_ip"`
			Agent   *string  `json:"user_agent"`
			Auth    string   `json:"auth_failure"`
		}
		if err := json.Unmarshal(b, &w); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		f := *got.Failure
		arrival := int64(0)
		if w.Arrival != nil {
			arrival = *w.Arrival
		}
		have := fmt.Sprintf("%s %q %q %q %q %q %s %d", f.Type, f.MailFrom, f.Domains, f.URIs, f.SourceIP, f.UserAgent, strings.ReplaceAll(f.Auth, "bodyhash", "body_hash"), len(f.Results))
		want := fmt.Sprintf("%s %q %q %q %q %q %s %d", strings.ReplaceAll(word(w.Type), "_", "-"), strings.Trim(text(w.From), "<>"), w.Domains, w.URIs, text(w.Source), text(w.Agent), word(w.Auth), len(w.Results))
		if have != want || arrival != 0 && f.Arrival.Unix() != arrival {
			t.Errorf("%s\n got %s %v\nwant %s %v", file, have, f.Arrival, want, time.Unix(arrival, 0).UTC())
		}
		rows++
	}
	t.Logf("%d reports", rows)
}
