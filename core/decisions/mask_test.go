package decisions

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// harmless are the fields of a record that hold no address: what the server or
// the configuration says, IP addresses, and words of plugins that are checked.
var harmless = []string{
	".Version",
	".ID", ".Session", ".Door", ".Stage", ".Client", ".TLS", ".QueueID", ".Check", ".Where", ".Plugin", ".Digest", ".Mode",
	".Skipped", ".Action", ".Enhanced", ".Reason", ".Calls[].Call",
}

// fill sets every string below v to text, and lists to one element.
func fill(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), text)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), text)
			}
		}
	}
}

// eachText calls f with every string below v and its path.
func eachText(v reflect.Value, path string, f func(path, s string)) {
	switch v.Kind() {
	case reflect.String:
		f(path, v.String())
	case reflect.Pointer:
		eachText(v.Elem(), path, f)
	case reflect.Slice:
		for i := range v.Len() {
			eachText(v.Index(i), path+"[]", f)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				eachText(v.Field(i), path+"."+v.Type().Field(i).Name, f)
			}
		}
	}
}

// TestEveryFieldIsMasked: a new field of a record is either masked, or it is
// listed above why it need not be.
func TestEveryFieldIsMasked(t *testing.T) {
	const address = "Ann.Secret@example.org"
	dir := t.TempDir()
	for _, mask := range []Mask{MaskNone, MaskHash, MaskDrop} {
		m, err := newMasker(dir, mask)
		if err != nil {
			t.Fatal(err)
		}
		var r policy.Record
		fill(reflect.ValueOf(&r).Elem(), address)
		before := r
		m.record(&r)
		n := 0
		eachText(reflect.ValueOf(r), "", func(path, s string) {
			n++
			listed := false
			for _, h := range harmless {
				listed = listed || h == path
			}
			want := address
			if !listed {
				want = m.address(address)
			}
			if s != want {
				t.Errorf("mask %s: %s is %q, want %q", mask, path, s, want)
			}
		})
		if n < 30 {
			t.Errorf("only %d texts were seen", n)
		}
		// The record of which this is a copy is not written to.
		eachText(reflect.ValueOf(struct {
			E *policy.RecordEffects
			C []policy.HostCall
		}{before.Effects, before.Calls}), "", func(path, s string) {
			if s != address {
				t.Errorf("mask %s has written %q into the shared %s", mask, s, path)
			}
		})
	}
}

func TestMaskText(t *testing.T) {
	m := masker{mask: MaskDrop}
	rows := []struct{ name, in, want string }{
		{"none", "no address", "no address"},
		{"one", "ann@example.org", "*@example.org"},
		{"two", "ann@example.org bob@example.net", "*@example.org *@example.net"},
		{"angle brackets", "<ann@example.org>: no", "<*@example.org>: no"},
		{"end of a sentence", "Mail of ann@example.org.", "Mail of *@example.org."},
		{"list", "ann@a.example,bob@b.example;carl@c.example", "*@a.example,*@b.example;*@c.example"},
		{"quoted", `x "ann smith"@example.org y`, `x *@example.org y`},
		{"quoted with an at", `"ann smith@work"@example.org`, `*@example.org`},
		{"quoted with a quote", `"ann \"the boss\" smith"@example.org`, `*@example.org`},
		{"quotes that are none", `he said "ann@example.org" twice`, `he said "*@example.org" twice`},
		{"a quote in front", `5" disk for "ann@work"@example.org`, `5" disk for *@example.org`},
		{"without its quotes", "<ann smith@work@example.org>: no", "<*@example.org>: no"},
		{"two ats", "ann@work@example.org", "*@example.org"},
		{"bracket that does not end", "<ann@example.org", "<*@example.org"},
		{"bracket in quotes", `<"a>b@c"@example.org>`, `<*@example.org>`},
		{"literal", "ann@[192.0.2.1] and bob@[IPv6:::1]", "*@[192.0.2.1] and *@[IPv6:::1]"},
		{"no local part", "@example.org, @", "@example.org, @"},
		{"no domain", "ann@ is looked up", "*@ is looked up"},
		{"outside ASCII", "jürgen@bücher.example", "*@bücher.example"},
		{"SRS", "SRS0=ab=cd=example.org=ann@forward.example", "*@forward.example"},
		{"field", "Received-SPF: Pass (ann@example.org) envelope-from=\"ann@example.org\"; x", "Received-SPF: Pass (*@example.org) envelope-from=\"*@example.org\"; x"},
		{"control characters", "\x1b[1mann@example.org\x00bob@example.org", "\x1b[*@example.org\x00*@example.org"},
		{"no UTF-8", "\xff\xfe@example.org", "*@example.org"},
		{"longer than an address may be", `"` + strings.Repeat("a", 4000) + ` b"@example.org`, "*@example.org"},
	}
	for _, row := range rows {
		if got := m.text(row.in); got != row.want {
			t.Errorf("%s: %.200q became %.200q, want %q", row.name, row.in, got, row.want)
		}
	}
}

func TestMaskAddress(t *testing.T) {
	rows := []struct{ name, in, want string }{
		{"plain", "ann@example.org", "*@example.org"},
		{"brackets", "<ann@example.org>", "<*@example.org>"},
		{"null", "<>", "<>"},
		{"none", "", ""},
		{"login", "ann", "*"},
		{"quoted with an at", `"a@b"@example.org`, "*@example.org"},
		{"no domain", "ann@", "*@"},
	}
	m := masker{mask: MaskDrop}
	for _, row := range rows {
		if got := m.address(row.in); got != row.want {
			t.Errorf("%s: %q became %q, want %q", row.name, row.in, got, row.want)
		}
	}
}

// TestLoginIsMasked: a login is a local part, also where a plugin uses it as a key.
func TestLoginIsMasked(t *testing.T) {
	m, err := newMasker(t.TempDir(), MaskHash)
	if err != nil {
		t.Fatal(err)
	}
	h := m.address("ann")
	r := policy.Record{
		User: "ann", Text: "Error: too many recipients from ann", Error: "user ann: annual report of susann, x@ann.example",
		Effects: &policy.RecordEffects{Prepend: []string{"X-User: ann"}, Tags: []string{"ann"}},
		Calls: []policy.HostCall{
			{Call: "count", Ask: "ann +1 1h0m0s", Answer: "1"},
			{Call: "state_put", Ask: "user=Ann 1h0m0s <ANN>", Status: "no room for ann"},
			{Call: "get", Ask: "sender-owners", Answer: "bob\nann\ncarl@example.org"},
		},
	}
	m.record(&r)
	want := policy.Record{
		User: h, Text: "Error: too many recipients from " + h, Error: "user " + h + ": annual report of susann, " + m.address("x@ann.example"),
		Effects: &policy.RecordEffects{Prepend: []string{"X-User: " + h}, Tags: []string{h}},
		Calls: []policy.HostCall{
			{Call: "count", Ask: h + " +1 1h0m0s", Answer: "1"},
			{Call: "state_put", Ask: "user=" + h + " 1h0m0s <" + h + ">", Status: "no room for " + h},
			{Call: "get", Ask: "sender-owners", Answer: m.address("bob") + "\n" + h + "\n" + m.address("carl@example.org")},
		},
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("got  %+v\nwant %+v", r, want)
	}
}

// TestHash: equal addresses stay equal within an installation, wherever they
// stand, and mean nothing in another.
func TestHash(t *testing.T) {
	dir := t.TempDir()
	m, err := newMasker(dir, MaskHash)
	if err != nil {
		t.Fatal(err)
	}
	h := m.address("ann@bücher.example")
	local, _, _ := strings.Cut(h, "@")
	if len(local) != len("h-")+2*hashSize || !strings.HasPrefix(h, "h-") {
		t.Errorf("hash %q", h)
	}
	for _, same := range []string{"<ANN@bücher.example>", "ann@BÜCHER.example", "Ann@xn--bcher-kva.example", "from ann@bücher.example.", "(ann@bücher.example)", "<ann@bücher.example> (1)"} {
		if got := m.text(same); !strings.Contains(got, local+"@") {
			t.Errorf("%q became %q, want %s in it", same, got, local)
		}
	}
	for _, other := range []string{"bob@bücher.example", "ann@example.org", "ann"} {
		if got := m.address(other); strings.Contains(got, local) {
			t.Errorf("%q became %q, as ann@bücher.example does", other, got)
		}
	}
	again, err := newMasker(dir, MaskHash)
	if err != nil || again.address("ann@bücher.example") != h {
		t.Errorf("after a restart: %q, %v; want %q", again.address("ann@bücher.example"), err, h)
	}
	elsewhere, err := newMasker(t.TempDir(), MaskHash)
	if err != nil || elsewhere.address("ann@bücher.example") == h {
		t.Errorf("another installation has the same hash (%v)", err)
	}
	fi, err := os.Stat(filepath.Join(dir, keyName))
	if err != nil || fi.Mode().Perm() != 0o600 || fi.Size() != keySize {
		t.Errorf("key: %v, %v", fi, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, keyName+".*")); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// TestNothingReachesTheDisk: of a masked log no octet of a local part is in the files.
func TestNothingReachesTheDisk(t *testing.T) {
	for _, mask := range []Mask{MaskHash, MaskDrop} {
		dir := t.TempDir()
		l := open(t, dir, Options{Mask: mask})
		var r policy.Record
		fill(reflect.ValueOf(&r).Elem(), "x")
		r.ID, r.Sender, r.Recipient, r.User, r.Helo = "ID1", "<zyxwv@example.org>", "zyxwv@example.org", "zyxwv", "zyxwv@here"
		r.Text, r.Error, r.Calls[0].Ask = "<zyxwv@example.org>: no, zyxwv", "of zyxwv@example.org.", "MX zyxwv@example.org"
		r.Effects.BCC = []string{`"zyxwv b"@example.org`}
		l.Decided(r)
		shut(t, l)
		b, err := os.ReadFile(filepath.Join(dir, names(t, dir)[0]))
		if err != nil || bytes.Contains(b, []byte("zyxwv")) || !bytes.Contains(b, []byte("@example.org")) {
			t.Errorf("mask %s: %s, %v", mask, b, err)
		}
	}
}

// FuzzMaskText: no address survives, and what is no address does.
func FuzzMaskText(f *testing.F) {
	for _, s := range []string{"ann@example.org", `"a b@c"@d.example, <e f@g>`, `"\"@"@x`, "a@b@c", "@", `<"a>b"@c>`} {
		f.Add(s, `"ann smith@work"@example.org`)
	}
	f.Fuzz(func(t *testing.T, s, address string) {
		m := masker{mask: MaskDrop}
		out := m.text(s)
		for i := 1; i < len(out); i++ {
			if out[i] == '@' && out[i-1] != '*' && strings.IndexByte(" \t\r\n\x00<>()[]:;,\"@", out[i-1]) < 0 {
				t.Fatalf("%q became %q", s, out)
			}
		}
		if strings.IndexByte(s, '@') < 0 && out != s {
			t.Fatalf("%q became %q", s, out)
		}
		p, err := mail.ReadPath(address, true)
		if err != nil || p.Domain() == "" {
			return
		}
		for _, around := range []string{"<%>: no", "from % at noon", "(%)", "%"} {
			in, want := strings.Replace(around, "%", p.String(), 1), strings.Replace(around, "%", "*@"+p.Domain(), 1)
			if got := m.text(in); got != want {
				t.Fatalf("%q became %q, want %q", in, got, want)
			}
		}
	})
}
