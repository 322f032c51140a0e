package tape

import (
	"slices"
	"testing"
)

// FuzzFile reads files that anybody may have made. None is sealed, so no entry may
// come out of one that claims to be, but those of the seeds.
func FuzzFile(f *testing.F) {
	for _, kind := range secrets {
		b, _ := small(f, kind.secret)
		at := chunksOf(f, b)
		f.Add(b, kind.secret != nil, false)
		f.Add(b[:at[1]+20], kind.secret != nil, true)
		f.Add(slices.Delete(slices.Clone(b), at[1], at[2]), kind.secret != nil, false)
		f.Add(b[fileHead:], kind.secret != nil, false)
	}
	f.Add([]byte(magic), false, true)
	f.Fuzz(func(t *testing.T, b []byte, sealed, newest bool) {
		o := ReadOptions{}
		if sealed {
			o.Secret = secret
		}
		got, stats := readOctets(t, b, newest, Filter{}, o)
		if !newest && len(got) == 0 && len(stats.Problems) == 0 && len(b) > fileHead+chunkHead {
			t.Errorf("nothing is read, and nothing is said of it")
		}
		if sealed {
			for _, s := range got {
				if len(s) < 6 || s[:6] != "entry " {
					t.Errorf("forged entry %q", s)
				}
			}
		}
	})
}

// FuzzHeader holds that what is read of a header is what was written.
func FuzzHeader(f *testing.F) {
	b, _ := small(f, nil)
	f.Add(b[fileHead : fileHead+chunkHead])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < chunkHead {
			return
		}
		b = b[:chunkHead]
		h, ok := parseHeader(b)
		if !ok || h.tag != (tag{}) {
			return
		}
		if again := h.appendRest(h.appendBody(nil), nil); !slices.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}
