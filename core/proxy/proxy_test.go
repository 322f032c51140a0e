package proxy

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	const v2 = Signature + "\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x04\xd2\x00\x19"
	rows := []struct{ name, header, client string }{
		{"v1", "PROXY TCP4 192.0.2.1 192.0.2.2 1234 25\r\n", "192.0.2.1:1234"},
		{"v1 IPv6", "PROXY TCP6 2001:db8::1 2001:db8::2 1234 25\r\n", "[2001:db8::1]:1234"},
		{"v1 unknown", "PROXY UNKNOWN\r\n", "-"},
		{"v1 unknown with rest", "PROXY UNKNOWN a b c d\r\n", "-"},
		{"v2", v2, "192.0.2.1:1234"},
		{"v2 with TLV", Signature + "\x21\x11\x00\x10\xc0\x00\x02\x01\xc0\x00\x02\x02\x04\xd2\x00\x19\x04\x00\x01x", "192.0.2.1:1234"},
		{"v2 IPv6", Signature + "\x21\x21\x00\x24\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01" + strings.Repeat("\x00", 15) + "\x01\x04\xd2\x00\x19", "[2001:db8::1]:1234"},
		{"v2 local", Signature + "\x20\x00\x00\x00", "-"},
		{"v2 unix", Signature + "\x21\x31\x00\x00", "-"},
		{"none", "EHLO client.example\r\n", ""},
		{"v1 wrong family", "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", ""},
		{"v1 bad port", "PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n", ""},
		{"v1 signed port", "PROXY TCP4 192.0.2.1 192.0.2.2 +1 25\r\n", ""},
		{"v1 bare LF", "PROXY TCP4 192.0.2.1 192.0.2.2 1 25\n", ""},
		{"v1 two spaces", "PROXY TCP4  192.0.2.1 192.0.2.2 1 25\r\n", ""},
		{"v1 too long", "PROXY UNKNOWN " + strings.Repeat("x", 100) + "\r\n", ""},
		{"v2 too long", Signature + "\x21\x11\xff\xff", ""},
		{"v2 too short", Signature + "\x21\x11\x00\x04\x01\x02\x03\x04", ""},
		{"v2 version 3", Signature + "\x31\x11\x00\x00", ""},
		{"v2 command 2", Signature + "\x22\x11\x00\x00", ""},
		{"nothing", "", ""},
		{"half", "PROXY TCP4 192.", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			const next = "\x16\x03\x01 what follows"
			in := row.header
			if row.client != "" {
				in += next
			}
			r := strings.NewReader(in)
			h, err := Read(r)
			got := ""
			switch {
			case err == nil && h.Client.IsValid():
				got = h.Client.String()
			case err == nil:
				got = "-"
			}
			if got != row.client {
				t.Fatalf("client %q, %v; want %q", got, err, row.client)
			}
			if rest, _ := io.ReadAll(r); err == nil && string(rest) != next {
				t.Errorf("%q is left for who reads on, want %q", rest, next)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nEHLO x\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(Signature + "\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x04\xd2\x00\x19EHLO"))
	f.Add([]byte(Signature + "\x21\x21\x00\x24" + strings.Repeat("\x01", 36)))
	f.Add([]byte(Signature + "\x20\x00\x08\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		p, err := Read(r)
		used := len(in) - r.Len()
		if used > len(Signature)+4+maxV2 {
			t.Fatalf("read %d octets", used)
		}
		if err != nil {
			if p.Client.IsValid() {
				t.Fatalf("%v with an error", p)
			}
			return
		}
		if p.Client.IsValid() != p.Server.IsValid() || p.Client.Addr().Zone() != "" || p.Client.Addr().Is4In6() {
			t.Fatalf("%+v", p)
		}
		if bytes.HasPrefix(in, []byte("PROXY")) && in[used-1] != '\n' {
			t.Fatalf("read past the header: %q", in[:used])
		}
	})
}
