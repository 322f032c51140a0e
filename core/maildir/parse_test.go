package maildir

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestEncodeName(t *testing.T) {
	for plain, coded := range map[string]string{
		"INBOX": "INBOX", "R&D": "R&-D", "Tést": "T&AOk-st", "台北": "&U,BTFw-", "~peter.mail.台北.日本語": "~peter.mail.&U,BTFw-.&ZeVnLIqe-",
		"😀": "&2D3eAA-", "&": "&-", "a\x7f": "a&AH8-",
	} {
		if got := encodeName(plain); got != coded {
			t.Errorf("encode %q: %q, want %q", plain, got, coded)
		}
		if got, ok := decodeName(coded); !ok || got != plain {
			t.Errorf("decode %q: %q %v, want %q", coded, got, ok, plain)
		}
	}
	for _, bad := range []string{"&", "a&b", "&AGE-", "&AOk", "&AO-", "&2D0-", "é", "&AOk-&AOk-", "&!-", "a\x01"} {
		if got, ok := decodeName(bad); ok {
			t.Errorf("decode %q: %q, want an error", bad, got)
		}
	}
}

func TestCompareArrival(t *testing.T) {
	order := []string{"99.M5P1.h", "100.M9P1.h", "100.M10P1.h", "100.M10P2.h", "100.M12345678901234567890.h", "100.a.h", "100.b.h", "1234567890123456789012.x"}
	for i := range order {
		for j := range order {
			if got := compareArrival(order[i], order[j]); (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("compare %q and %q: %d", order[i], order[j], got)
			}
			sameOrder(t, order[i], order[j])
		}
	}
}

// sameOrder checks that what was parsed once compares as the names do.
func sameOrder(t *testing.T, a, b string) {
	t.Helper()
	if got, want := arrivedAt(found{base: a}).compare(arrivedAt(found{base: b})), compareArrival(a, b); (got < 0) != (want < 0) || (got == 0) != (want == 0) {
		t.Errorf("%q and %q compare as %d, want %d", a, b, got, want)
	}
}

func TestParseKeywords(t *testing.T) {
	k := parseKeywords("0 $Junk\n3 foo\r\n3 bar\n4 FOO\n26 no\n-1 no\nx y\n5 two words\n6 a]b\n7 a(b\n")
	want := keywords{0: "$Junk", 3: "foo", 6: "a]b"}
	if k != want {
		t.Errorf("got %q", k)
	}
	if got := string(k.bytes()); got != "0 $Junk\n3 foo\n6 a]b\n" {
		t.Errorf("written %q", got)
	}
}

func sampleIndex() *index {
	return &index{
		validity: 7, next: 12, modseq: 1 << 50, floor: 3, cur: 5, list: stamp{1, 2, 3},
		gone: []gone{{4, 9}},
		msgs: []Message{
			{UID: 2, Flags: Seen | KeywordBit(25), ModSeq: 8, Size: 99, Date: time.Unix(5, 6), Key: "1.a", UIDL: "u", Order: 4},
			{UID: 11, Size: 1, Date: time.Unix(7, 0), Key: "2.b"},
		},
		odd: map[uint32]string{11: "new/2.b"},
	}
}

func TestIndex(t *testing.T) {
	want := sampleIndex()
	data := encodeIndex(want)
	got, err := decodeIndex(data)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(encodeIndex(got), data) || got.msgs[0] != want.msgs[0] || got.odd[11] != "new/2.b" || got.gone[0] != want.gone[0] {
		t.Errorf("got %+v", got)
	}
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 0x40
		if _, err := decodeIndex(bad); err == nil {
			t.Errorf("octet %d changed: no error", i)
		}
		if _, err := decodeIndex(data[:i]); err == nil {
			t.Errorf("cut after %d: no error", i)
		}
	}
}

func FuzzUIDList(f *testing.F) {
	f.Add("3 V100 N9 Gb15bd2214ce4036b5a45000083ecc375\n4 :1.a\n6 S3 W4 P0001 O2 :2.b:2,S\n")
	f.Add("1 100 9\n4 1.a\n6 2.b:2,S\n")
	f.Add("3 V1 N4294967294\n4294967294 :x\n4294967295 :y\n")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := parseUIDList(s)
		if err != nil {
			return
		}
		again, err := parseUIDList(string(l.bytes()))
		if err != nil || again.damaged || len(again.recs) != len(l.recs) || again.validity != l.validity || again.next != l.next {
			t.Fatalf("%q is read as %+v, then as %+v, %v", s, l, again, err)
		}
		for i, r := range l.recs {
			if r != again.recs[i] || r.uid >= l.next || r.name == "" {
				t.Fatalf("%q: line %+v, then %+v, next %d", s, r, again.recs[i], l.next)
			}
		}
	})
}

func FuzzKeywords(f *testing.F) {
	f.Add("0 $Junk\n25 foo\n")
	f.Fuzz(func(t *testing.T, s string) {
		k := parseKeywords(s)
		if again := parseKeywords(string(k.bytes())); again != k {
			t.Fatalf("%q then %q", k, again)
		}
	})
}

func FuzzFileName(f *testing.F) {
	f.Add("1.a,S=3,W=4:2,SPFab!,ext")
	f.Add("1.a:1,x")
	f.Fuzz(func(t *testing.T, name string) {
		base, info := splitName(name)
		if base+info != name || strings.Contains(base, ":") {
			t.Fatalf("%q splits into %q %q", name, base, info)
		}
		sizesOf(base)
		flags, extra, tail := parseInfo(info)
		b2, info2 := splitName(makeName(base, flags, extra, tail))
		f2, e2, t2 := parseInfo(info2)
		if b2 != base || f2 != flags || len(e2) != len(extra) || t2 != tail {
			t.Fatalf("%q is %x %q %q, then %x %q %q", name, flags, extra, tail, f2, e2, t2)
		}
		sameOrder(t, name, base)
		sameOrder(t, base, "100.M5P1.h")
		if compareArrival(name, base) != -compareArrival(base, name) && name != base {
			if (compareArrival(name, base) < 0) == (compareArrival(base, name) < 0) {
				t.Fatalf("order of %q and %q", name, base)
			}
		}
	})
}

func FuzzDecodeName(f *testing.F) {
	f.Add("T&AOk-st")
	f.Add("&2D3eAA-.&-")
	f.Fuzz(func(t *testing.T, s string) {
		name, ok := decodeName(s)
		if ok && (encodeName(name) != s || !utf8.ValidString(name)) {
			t.Fatalf("%q is %q is %q", s, name, encodeName(name))
		}
		if clean, err := cleanName(s); err == nil {
			if back, ok := decodeName(encodeName(clean)); !ok || back != clean {
				t.Fatalf("%q becomes %q", clean, back)
			}
			if strings.ContainsAny(encodeName(clean), "/\x00") || strings.Contains(clean, "..") {
				t.Fatalf("%q is allowed", clean)
			}
		}
		shownName(s)
	})
}

func FuzzIndex(f *testing.F) {
	f.Add(encodeIndex(sampleIndex()))
	f.Add([]byte(indexMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4 { // give it a right checksum
			data = append([]byte(indexMagic), data[min(len(indexMagic), len(data)):]...)
			data = binary.LittleEndian.AppendUint32(data, crc32.Checksum(data, castagnoli))
		}
		x, err := decodeIndex(data)
		if err != nil {
			return
		}
		if _, err := decodeIndex(encodeIndex(x)); err != nil {
			t.Fatal(err)
		}
	})
}
