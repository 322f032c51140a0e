package arc_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/arc"
	"github.com/wafermail/wafer/core/dkim"
)

// FuzzVerify: a defined result whatever the message, and what is sealed upon it is
// judged as it was.
func FuzzVerify(f *testing.F) {
	r := zone(records(f))
	one := seal(f, plain, listDomain, "dmarc=pass")
	f.Add([]byte(plain))
	f.Add([]byte(one))
	f.Add([]byte(seal(f, one, schoolDomain, "arc=pass")))
	f.Add([]byte(forge(f, plain, []string{"-c", "l=3", "h=from::to"}, []string{"s=rsa"})))
	f.Add([]byte("ARC-Seal: i=1; cv=none\r\nARC-Message-Signature: i=1\r\nARC-Authentication-Results: (i) i (=) = 1 ; x\r\nFrom: a\r\n\r\n"))
	sealer := sealer(f, listDomain)
	f.Fuzz(func(t *testing.T, message []byte) {
		got := arc.Verify(context.Background(), bytes.NewReader(message), int64(len(message)), arc.VerifyOptions{Resolver: r, Now: clock, MaxHeader: 8 << 10})
		switch {
		case len(got.Sets) > arc.MaxSets,
			got.CV == arc.None && (len(got.Sets) > 0 || got.Reason != "" || got.OldestPass != -1),
			got.CV == arc.Pass && (len(got.Sets) == 0 || got.Reason != "" || got.OldestPass < 0 || got.OldestPass > len(got.Sets)),
			got.CV == arc.Fail && (got.Reason == "" || got.Text == "" || got.OldestPass != -1),
			got.CV != arc.None && got.CV != arc.Pass && got.CV != arc.Fail:
			t.Fatalf("got %+v", got)
		}
		for i, s := range got.Sets {
			if got.CV == arc.Pass && (s.Instance != i+1 || s.Seal.Status != dkim.Pass || s.Message.Status == "") {
				t.Fatalf("got %+v", got)
			}
		}
		arc.Trusted(got, func(string) bool { return true })
		fields, err := sealer.Seal(bytes.NewReader(message), int64(len(message)), got, found("arc="+string(got.CV)))
		if err != nil {
			if !errors.Is(err, arc.ErrRefused) {
				t.Fatalf("%+v is not sealed: %v", got, err)
			}
			return
		}
		again := verify(string(fields)+string(message), r)
		if got.CV == arc.Fail && again.Reason != arc.Ended || got.CV != arc.Fail && again.CV != arc.Pass {
			t.Fatalf("%+v was sealed with\n%s and is now %+v", got, fields, again)
		}
	})
}

func FuzzResults(f *testing.F) {
	for _, s := range []string{" i=1; x; spf=pass", "i=50;x", " (a(b)\\)) i(=) = 07 ;", "i=1", "i=1; (((", "I=1;x", "i=001;x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		instance, results, ok := arc.ReadResults([]byte(arc.FieldResults + ":" + value))
		if ok && (instance < 0 || instance > 99 || !strings.Contains(value, "i")) || !ok && results.ServID != "" {
			t.Fatalf("got %d, %+v, %v", instance, results, ok)
		}
	})
}

func TestReadResults(t *testing.T) {
	for _, row := range []struct {
		value    string
		instance int
		server   string
		ok       bool
	}{
		{" i=1; mx.example.org; spf=pass", 1, "mx.example.org", true},
		{"i=50;mx", 50, "mx", true},
		{"\r\n\ti\r\n =\t2 ; mx", 2, "mx", true},
		{" (hop) i (is) = (one) 1 (ha\\) ) ; mx", 1, "mx", true},
		{" i=01; mx", 1, "mx", true},
		{" i=1; ;;", 1, "", true},
		{" i=1;", 1, "", true},
		{" i=001; mx", 0, "", false},
		{" i=; mx", 0, "", false},
		{" i=-1; mx", 0, "", false},
		{" i=1 mx", 0, "", false},
		{" I=1; mx", 0, "", false},
		{" mx; i=1", 0, "", false},
		{" (i=1; mx", 0, "", false},
		{"", 0, "", false},
	} {
		instance, results, ok := arc.ReadResults([]byte(arc.FieldResults + ":" + row.value))
		if ok != row.ok || ok && instance != row.instance || results.ServID != row.server {
			t.Errorf("%q: got %d, %+v, %v, want %d, %q, %v", row.value, instance, results, ok, row.instance, row.server, row.ok)
		}
	}
}
