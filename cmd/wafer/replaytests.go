package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/core/replay"
)

// maxTests bounds what one replay writes.
const maxTests = 1000

// testWriter gathers tests of policies: what was known at a moment, and what was decided
// then.
type testWriter struct {
	dir     string
	tests   []*policy.Asked
	skipped int // moments that a test cannot tell: the message is not on the tape
}

func (w *testWriter) add(d *replay.Difference) {
	switch a := d.Asked; {
	case len(w.tests) >= maxTests, a.Event.Stage > policy.Rcpt, a.Event.Stage == policy.Auth:
		w.skipped++
	default:
		w.tests = append(w.tests, a)
	}
}

// write writes replay_test.hcl. A file that is there is not replaced.
func (w *testWriter) write(std streams) error {
	if len(w.tests) == 0 {
		_, err := fmt.Fprintf(std.out, "no tests were written; %d moments cannot be told by one\n", w.skipped)
		return err
	}
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return err
	}
	file := filepath.Join(w.dir, "replay_test.hcl")
	var b strings.Builder
	for i, a := range w.tests {
		testOf(&b, a, i+1)
	}
	out, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already: rename it, or write into another folder", file)
	}
	if err != nil {
		return err
	}
	_, err = out.WriteString(b.String())
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "%s are in %s; %d moments cannot be told by one\n", count(len(w.tests), "test", "tests"), file, w.skipped)
	return err
}

// testOf writes a test.
func testOf(b *strings.Builder, a *policy.Asked, n int) {
	e := &a.Event
	fmt.Fprintf(b, "test %s {\n  given {\n", config.Literal(fmt.Sprintf("%d: %s at %s, session %s", n, e.Stage, e.Time.UTC().Format(time.RFC3339), e.Session)))
	text := func(key, value string) {
		if value != "" {
			fmt.Fprintf(b, "    %s = %s\n", key, config.Literal(value))
		}
	}
	text("door", e.Door)
	text("clock", e.Time.UTC().Format(time.RFC3339))
	text("client", e.Client.Addr().Unmap().String())
	text("client_name", e.ClientName)
	text("helo", e.Helo)
	if e.Extended {
		b.WriteString("    extended = true\n")
	}
	text("user", e.User)
	if e.HasSender {
		fmt.Fprintf(b, "    sender = %s\n", config.Literal(e.Sender.String()))
	}
	if e.Stage == policy.Rcpt {
		text("rcpt", e.Recipient.String())
	}
	if answers := dnsOf(a); len(answers) > 0 {
		b.WriteString("    dns = {\n")
		for _, key := range slices.Sorted(maps.Keys(answers)) {
			fmt.Fprintf(b, "      %s = %s\n", config.Literal(key), answers[key])
		}
		b.WriteString("    }\n")
	}
	d := &a.Decision
	verdict := "accept"
	switch d.Action {
	case policy.Reject, policy.Defer, policy.Disconnect, policy.Discard, policy.Hold, policy.Quarantine:
		verdict = d.Action.String()
	}
	fmt.Fprintf(b, "  }\n  expect {\n    verdict = %q\n", verdict)
	if d.Refused() {
		fmt.Fprintf(b, "    code = %d\n", d.Status.Code)
	}
	if d.Check != "" {
		fmt.Fprintf(b, "    by = %s\n", config.Literal(d.Check))
	}
	b.WriteString("  }\n}\n\n")
}

// dnsOf is what DNS said at a moment, as tests write it.
func dnsOf(a *policy.Asked) map[string]string {
	table := map[string]string{}
	for i := range a.Calls {
		for k := range a.Calls[i].Answers {
			x := &a.Calls[i].Answers[k]
			if x.Kind != policy.AskedDNS {
				continue
			}
			switch policy.DNSStatus(x.N) {
			case policy.DNSTemp:
				table[x.Key] = `"TIMEOUT"`
			case policy.DNSOK:
				var list []string
				for _, r := range x.Texts {
					list = append(list, config.Literal(r))
				}
				if len(list) > 0 {
					table[x.Key] = "[" + strings.Join(list, ", ") + "]"
				}
			}
		}
	}
	return table
}
