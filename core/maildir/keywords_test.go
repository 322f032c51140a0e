package maildir

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestFurtherKeywords: what dovecot-keywords names beyond the letter z is told,
// and is still there after a keyword was made.
func TestFurtherKeywords(t *testing.T) {
	p, path := testPool(t)
	file := path + "/" + keywordsName
	put(t, path+"/cur/1.a:2,Sb", "a: b\r\n\r\n")
	put(t, file, "0 $Junk\n1 b\n26 past-z\n27 and more\r\n28\nx y\n400 far\n")
	f := openFolder(t, openStore(t, p, path), "INBOX")
	want := []string{"past-z", "and more", "far"}
	for range 2 {
		got, err := f.FurtherKeywords()
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
		if _, ok := f.Keyword("fresh", true); !ok {
			t.Fatal("no keyword was made")
		}
	}
	data, err := os.ReadFile(file)
	if err != nil || string(data) != "0 $Junk\n1 b\n2 fresh\n26 past-z\n27 and more\n400 far\n" {
		t.Errorf("%q, %v", data, err)
	}
	if got := f.Keywords(); !slices.Equal(got, []string{"$Junk", "b", "fresh"}) {
		t.Errorf("%q", got)
	}
}

// TestLongKeywordFile: a file that is not read is not written over either.
func TestLongKeywordFile(t *testing.T) {
	p, path := testPool(t)
	var b strings.Builder
	for i := range 9000 {
		fmt.Fprintf(&b, "%d keyword%d\n", i, i)
	}
	put(t, path+"/"+keywordsName, b.String())
	f := openFolder(t, openStore(t, p, path), "INBOX")
	if _, err := f.FurtherKeywords(); err == nil {
		t.Error("no error")
	}
	if _, ok := f.Keyword("fresh", true); ok {
		t.Error("a keyword was made")
	}
	if data, err := os.ReadFile(path + "/" + keywordsName); err != nil || string(data) != b.String() {
		t.Errorf("it has %d octets now, %v", len(data), err)
	}
}
