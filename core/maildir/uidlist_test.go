package maildir

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// damagedLists are lists for a folder with the messages 1.a to 6.a.
var damagedLists = map[string]string{
	"version 1":                "1 1300000000 20\n3 1.a\n5 2.a:2,S\n9 3.a,x\n12 4.a\n",
	"version 1, highest UID":   "1 1300000000 20\n3 1.a\n19 2.a\n",
	"version 1, UID is next":   "1 1300000000 20\n3 1.a\n20 2.a\n4 3.a\n",
	"version 1, name with sp":  "1 1300000000 20\n3   1.a\n",
	"version 1, short header":  "1 1300000000\n3 1.a\n",
	"version 1, zero validity": "1 0 20\n3 1.a\n",
	"version 1, long header":   "1 1300000000 20 77\n3 1.a\n5 2.a\n",
	"version 1, v3 lines":      "1 1300000000 20\n3 :1.a\n5 S4 :2.a\n",
	"version 2":                "2 V1300000000 N20\n3 :1.a\n",
	"version 3":                "3 V1300000000 N20 G0123456789abcdef0123456789abcdef\n3 :1.a\n5 S4 W4 :2.a:2,S\n",
	"no guid":                  "3 V1300000000 N20\n3 :1.a\n",
	"bad guid":                 "3 V1300000000 N20 Gxyz\n3 :1.a\n",
	"no next":                  "3 V1300000000\n3 :1.a\n",
	"zero next":                "3 V1300000000 N0\n3 :1.a\n",
	"no validity":              "3 N20\n3 :1.a\n",
	"next too low":             "3 V1300000000 N2\n3 :1.a\n7 :2.a\n",
	"unordered":                "3 V1300000000 N20\n3 :1.a\n7 :2.a\n5 :3.a\n9 :4.a\n",
	"same UID twice":           "3 V1300000000 N20\n3 :1.a\n3 :2.a\n9 :4.a\n",
	"same name twice":          "3 V1300000000 N20\n3 :1.a\n7 :1.a\n9 :4.a\n",
	"UID 0":                    "3 V1300000000 N20\n0 :1.a\n3 :2.a\n",
	"UID too high":             "3 V1300000000 N20\n3 :1.a\n4294967295 :2.a\n",
	"no UID":                   "3 V1300000000 N20\n3 :1.a\ngarbage\n9 :3.a\n",
	"empty line":               "3 V1300000000 N20\n3 :1.a\n\n9 :3.a\n",
	"slash":                    "3 V1300000000 N20\n3 :1.a\n5 :../2.a\n9 :3.a\n",
	"no colon":                 "3 V1300000000 N20\n3 :1.a\n5 2.a\n9 :3.a\n",
	"no name":                  "3 V1300000000 N20\n3 :1.a\n5 :\n9 :3.a\n",
	"bad field":                "3 V1300000000 N20\n3 :1.a\n5 1x S4 :2.a\n9 :3.a\n",
	"cut short":                "3 V1300000000 N20\n3 :1.a\n5 :2.",
	"no last LF":               "3 V1300000000 N20\n3 :1.a\n5 :2.a",
	"CRLF":                     "3 V1300000000 N20\r\n3 :1.a\r\n5 :2.a\r\n",
	"NULs":                     "3 V1300000000 N20\n3 :1.a\n\x00\x00\x00\x00\n9 :3.a\n",
	"empty":                    "",
	"header only":              "3 V1300000000 N20\n",
	"not a list":               "hello\n3 :1.a\n",
}

// TestDovecotDamagedLists shows damaged lists to Dovecot and to us.
func TestDovecotDamagedLists(t *testing.T) {
	for name, list := range damagedLists {
		t.Run(name, func(t *testing.T) {
			theirs := newOracle(t)
			p, path := testPool(t)
			for i := 1; i <= 6; i++ {
				for _, box := range []string{theirs.box, path} {
					n := fmt.Sprintf("%s/cur/%d.a:2,", box, i)
					if i == 3 && strings.Contains(list, "3.a,x") {
						n = box + "/cur/3.a,x:2,"
					}
					put(t, n, "a: b\r\n\r\nx\r\n")
				}
			}
			put(t, theirs.box+"/"+uidlistName, list)
			put(t, path+"/"+uidlistName, list)
			theirs.owns()
			theirs.lenient = true
			want := theirs.uids("INBOX")
			validity, next := theirs.status("INBOX")
			f := openFolder(t, openStore(t, p, path), "INBOX")
			var got []string
			for _, m := range f.Messages() {
				got = append(got, fmt.Sprintf("%d %s", m.UID, m.Key))
			}
			st := f.Status()
			t.Logf("dovecot: %q V%s N%s", want, validity, next)
			t.Logf("wafer:   %q V%d N%d", got, st.UIDValidity, st.UIDNext)
			if strings.Join(got, ",") != strings.Join(want, ",") {
				t.Errorf("UIDs differ")
			}
			if (validity == "1300000000") != (st.UIDValidity == 1300000000) {
				t.Errorf("UIDVALIDITY differs")
			}
			if next != strconv.Itoa(int(st.UIDNext)) {
				t.Errorf("UIDNEXT differs")
			}
			data, err := os.ReadFile(path + "/" + uidlistName)
			if err != nil || !strings.HasPrefix(string(data), "3 V") {
				t.Errorf("our list is %q, %v", data, err)
			}
		})
	}
}
