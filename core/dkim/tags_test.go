package dkim_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/dkim"
)

func TestTags(t *testing.T) {
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "t%d=x;", i)
		}
		return b.String()
	}
	for _, row := range []struct {
		name, text string
		want       string // "name=value|…", "" for an error
	}{
		{"plain", "v=1; a=b", "v=1|a=b"},
		{"last semicolon", "v=1;", "v=1"},
		{"blanks after the last semicolon", "v=1; \r\n ", "v=1"},
		{"folded", " v = 1 ;\r\n\ta\r\n =\r\n b\r\n c;", "v=1|a=b\r\n c"},
		{"empty value", "p=;q=", "p=|q="},
		{"equals in a value", "b=ab==; c=d", "b=ab==|c=d"},
		{"case of names", "a=1;A=2", "a=1|A=2"},
		{"UTF-8", "d=ä", "d=ä"},
		{"many", many(dkim.MaxTags), "t0=x"},

		{"nothing", "", ""},
		{"only blanks", " \r\n ", ""},
		{"only a semicolon", ";", ""},
		{"empty tag", "v=1;;a=b", ""},
		{"two last semicolons", "v=1;;", ""},
		{"no value", "v=1; abc", ""},
		{"no name", "=1", ""},
		{"name begins with a digit", "1a=b", ""},
		{"blank in a name", "a b=c", ""},
		{"hyphen in a name", "a-b=c", ""},
		{"twice", "v=1; a=b; v=1", ""},
		{"NUL", "v=\x00", ""},
		{"DEL", "v=\x7f", ""},
		{"bare CR", "v=a\rb", ""},
		{"line end that is not folded", "v=a\r\nb", ""},
		{"not UTF-8", "v=\xff", ""},
		{"too many", many(dkim.MaxTags + 1), ""},
	} {
		tags, err := dkim.ParseTags(row.text)
		var got []string
		for _, tag := range tags {
			got = append(got, tag.Name+"="+tag.Value)
		}
		text := strings.Join(got, "|")
		if row.want == "" {
			if err == nil {
				t.Errorf("%s: %q parsed as %q", row.name, row.text, text)
			}
			continue
		}
		if err != nil || !strings.HasPrefix(text, row.want) {
			t.Errorf("%s: %q parsed as %q, error %v; want %q", row.name, row.text, text, err, row.want)
		}
	}
}

func FuzzTags(f *testing.F) {
	for _, s := range []string{"v=1; a=rsa-sha256;\r\n b=ab==", "p=", ";;", "a=1;a=2", "v=\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tags, err := dkim.ParseTags(text)
		if err != nil {
			return
		}
		var b strings.Builder
		for _, tag := range tags {
			fmt.Fprintf(&b, "%s=%s;", tag.Name, tag.Value)
		}
		again, err := dkim.ParseTags(b.String())
		if err != nil || len(again) != len(tags) {
			t.Fatalf("%q was written as %q, which parses as %v, %v", text, b.String(), again, err)
		}
		for i := range tags {
			if again[i].Name != tags[i].Name || again[i].Value != tags[i].Value {
				t.Fatalf("%q: tag %d was %v and is %v", text, i, tags[i], again[i])
			}
		}
	})
}

const edKey = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="

func TestRecord(t *testing.T) {
	for _, row := range []struct {
		name, record string
		reason       dkim.Reason
	}{
		{"ed25519", "v=DKIM1; k=ed25519; p=" + edKey, ""},
		{"folded p", "v=DKIM1;k=ed25519;p=" + edKey[:10] + " \t" + edKey[10:], ""},
		{"no padding", "k=ed25519; p=" + strings.TrimSuffix(edKey, "="), ""},
		{"unknown tags and flags", "v=DKIM1; k=ed25519; t=y:q; x_1=2; p=" + edKey, ""},
		{"revoked", "v=DKIM1; p=", dkim.KeyRevoked},
		{"revoked with blanks", "v=DKIM1; p= \t;", dkim.KeyRevoked},
		{"no p", "v=DKIM1; k=rsa", dkim.KeySyntax},
		{"other version", "v=DKIM2; p=" + edKey, dkim.KeySyntax},
		{"version in lower case", "v=dkim1; k=ed25519; p=" + edKey, dkim.KeySyntax},
		{"SPF", "v=spf1 -all", dkim.KeySyntax},
		{"unknown type", "k=ed448; p=" + edKey, dkim.KeyType},
		{"type in upper case", "k=ED25519; p=" + edKey, dkim.KeyType},
		{"not base64", "k=ed25519; p=***", dkim.KeySyntax},
		{"too short", "k=ed25519; p=AAAA", dkim.KeySyntax},
		{"no RSA key", "k=rsa; p=" + edKey, dkim.KeySyntax},
		{"two p", "k=ed25519; p=" + edKey + "; p=" + edKey, dkim.KeySyntax},
		{"empty", "", dkim.KeySyntax},
		{"garbage", "\x00\xff\xfe", dkim.KeySyntax},
		{"long", "k=ed25519; p=" + edKey + "; n=" + strings.Repeat("x", 20<<10), dkim.KeySyntax},
	} {
		key, fault := dkim.ParseRecord(row.record)
		switch {
		case row.reason == "" && fault != nil:
			t.Errorf("%s: got %+v, want a key", row.name, fault)
		case row.reason != "" && (fault == nil || fault.Reason != row.reason):
			t.Errorf("%s: got %+v, %+v, want %s", row.name, key, fault, row.reason)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add("v=DKIM1; k=ed25519; p=" + edKey)
	f.Add("v=DKIM1; h=sha1:sha256; s=email:*; t=y:s; n=note; p=")
	f.Add("k=rsa; p=MIGJAoGBALVI635dLK4cJJAH3Lx6upo3X/Lm1tQz3mezcWTA3BUBnyIsdnRf57aD5BtNmhPrYYDlWlzw3UgnKisIxktkk5+iMQMlFtAS10JB8L3YadXNJY+JBcbeSi5TgJe4WFzNgW95FWDAuSTRXSWZfA/8xjflbTLDx0euFZOM7C4T0GwLAgMBAAE=")
	f.Fuzz(func(t *testing.T, record string) {
		key, fault := dkim.ParseRecord(record)
		if (key == nil) == (fault == nil) {
			t.Fatalf("%q: key %v, fault %v", record, key, fault)
		}
		if key == nil {
			return
		}
		text, err := dkim.Record(key.Key)
		if err != nil {
			t.Fatalf("%q: the key cannot be written: %v", record, err)
		}
		if again, fault := dkim.ParseRecord(text); fault != nil || again.Bits != key.Bits {
			t.Fatalf("%q was written as %q: %+v", record, text, fault)
		}
	})
}
