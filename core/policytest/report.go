package policytest

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/rehearse"
)

// Text writes the report for people, in the manner of go test: what failed, with
// what each check said; with verbose also what did not.
func (r *Report) Text(w io.Writer, verbose bool) {
	for i := range r.Results {
		t := &r.Results[i]
		switch {
		case t.Failed():
			fmt.Fprintf(w, "--- FAIL: %s (%s)\n", t.Test.Name, seconds(t.Took))
		case verbose:
			fmt.Fprintf(w, "--- PASS: %s (%s)\n", t.Test.Name, seconds(t.Took))
		default:
			continue
		}
		for _, s := range t.Steps {
			s.text(w, verbose)
		}
	}
	failed := r.Failed()
	word := "ok"
	if failed > 0 {
		word = "FAIL"
	}
	fmt.Fprintf(w, "%s: %d of %s good, %s\n", word, len(r.Results)-failed, count(len(r.Results), "test"), seconds(r.Took))
}

func (s *StepResult) text(w io.Writer, verbose bool) {
	if len(s.Failures) == 0 && !verbose {
		return
	}
	where, indent := s.Step.Where, "    "
	if s.Step.Name != "" {
		fmt.Fprintf(w, "    step %q\n", s.Step.Name)
	}
	for _, f := range s.Failures {
		fmt.Fprintf(w, "%s%s: %s\n", indent, where, f)
	}
	fmt.Fprintf(w, "%s%s\n", indent, summary(&s.Outcome))
	rehearse.Trace(w, s.Records, verbose)
}

// summary is how a step ended, in one line.
func summary(o *rehearse.Outcome) string {
	d := &o.Decisive
	if d.Status.Code == 0 {
		if d.By != "" {
			return fmt.Sprintf("%s by %s (%s)", o.Verdict, d.By, d.Reason)
		}
		return o.Verdict
	}
	return fmt.Sprintf("%s at %s by %s: %d %s %s", o.Verdict, d.Stage, d.By, d.Status.Code, d.Status.Enhanced, Text(d.Status, d.ID))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3fs", d.Seconds()) }

func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// jsonTest is one test in JSON.
type jsonTest struct {
	Name    string     `json:"name"`
	Where   string     `json:"where"`
	Pass    bool       `json:"pass"`
	Seconds float64    `json:"seconds"`
	Steps   []jsonStep `json:"steps"`
}

type jsonStep struct {
	Name     string   `json:"name,omitempty"`
	Where    string   `json:"where"`
	Verdict  string   `json:"verdict"`
	Code     int      `json:"code"`
	Enhanced string   `json:"enhanced,omitempty"`
	Text     string   `json:"text,omitempty"`
	By       string   `json:"by,omitempty"`
	At       string   `json:"at"`
	Reason   string   `json:"reason,omitempty"`
	Failures []string `json:"failures,omitempty"`
}

// JSON writes the report as one object: tests, failed, and coverage if it is asked for.
func (r *Report) JSON(w io.Writer, cover bool) error {
	out := struct {
		Tests    []jsonTest `json:"tests"`
		Failed   int        `json:"failed"`
		Seconds  float64    `json:"seconds"`
		Coverage *Coverage  `json:"coverage,omitempty"`
	}{Failed: r.Failed(), Seconds: r.Took.Seconds()}
	if cover {
		out.Coverage = &r.Coverage
	}
	for i := range r.Results {
		t := &r.Results[i]
		j := jsonTest{Name: t.Test.Name, Where: t.Test.Where, Pass: !t.Failed(), Seconds: t.Took.Seconds()}
		for _, s := range t.Steps {
			d := &s.Outcome.Decisive
			j.Steps = append(j.Steps, jsonStep{
				Name: s.Step.Name, Where: s.Step.Where, Verdict: s.Outcome.Verdict, Code: code(d), Enhanced: d.Status.Enhanced,
				Text: Text(d.Status, d.ID), By: d.By, At: d.Stage.String(), Reason: d.Reason, Failures: s.Failures,
			})
		}
		out.Tests = append(out.Tests, j)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(out)
}

// JUnit's report format, as CI servers read it.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Time     string       `xml:"time,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		File    string        `xml:"file,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitFailure `xml:"failure"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

// JUnit writes the report as JUnit's XML: a suite for each file, a case for each test.
func (r *Report) JUnit(w io.Writer) error {
	all := junitSuites{Time: fmt.Sprintf("%.6f", r.Took.Seconds())}
	took := time.Duration(0)
	for i := range r.Results {
		t := &r.Results[i]
		name := filepath.Base(t.Test.File)
		if n := len(all.Suites); n == 0 || all.Suites[n-1].Name != name {
			all.Suites, took = append(all.Suites, junitSuite{Name: name}), 0
		}
		suite := &all.Suites[len(all.Suites)-1]
		took += t.Took
		c := junitCase{Name: legal(t.Test.Name), Class: "policy." + strings.TrimSuffix(name, ".hcl"), File: t.Test.File, Time: fmt.Sprintf("%.6f", t.Took.Seconds())}
		if t.Failed() {
			var text strings.Builder
			message := ""
			for _, s := range t.Steps {
				s.text(&text, false)
				if message == "" && len(s.Failures) > 0 {
					message = s.Failures[0]
				}
			}
			c.Failure = &junitFailure{Message: legal(message), Type: "expectation", Text: legal(text.String())}
			suite.Failures++
			all.Failures++
		}
		suite.Cases = append(suite.Cases, c)
		suite.Tests++
		all.Tests++
		suite.Time = fmt.Sprintf("%.6f", took.Seconds())
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// legal is s without the characters that XML 1.0 cannot hold.
func legal(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' || r == '\r' || r >= 0x20 && r != 0xfffe && r != 0xffff {
			return r
		}
		return -1
	}, strings.ToValidUTF8(s, "\ufffd"))
}
