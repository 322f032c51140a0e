package takeover

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// value reads one IMAP value and rewrites it so that equal values are equal texts:
// strings are quoted in Go's way whether they came as literals or not.
func value(t testing.TB, s string) (out, rest string) {
	t.Helper()
	switch {
	case s == "":
		t.Fatal("a value is missing")
	case s[0] == '(':
		var b strings.Builder
		b.WriteByte('(')
		for s = s[1:]; ; {
			if s == "" {
				t.Fatalf("a list has no end: %.200q", b.String())
			}
			if s[0] == ')' {
				b.WriteByte(')')
				return b.String(), s[1:]
			}
			if s[0] == ' ' {
				s = s[1:]
			}
			out, s = value(t, s)
			if b.Len() > 1 {
				b.WriteByte(' ')
			}
			b.WriteString(out)
		}
	case s[0] == '"':
		var b strings.Builder
		for i := 1; i < len(s); i++ {
			switch s[i] {
			case '\\':
				i++
				b.WriteByte(s[i])
			case '"':
				return strconv.Quote(b.String()), s[i+1:]
			default:
				b.WriteByte(s[i])
			}
		}
		t.Fatalf("a string has no end: %.200q", s)
	case s[0] == '{':
		head, text, _ := strings.Cut(s[1:], "}\r\n")
		n, err := strconv.Atoi(head)
		if err != nil || n > len(text) {
			t.Fatalf("bad literal %.60q", s)
		}
		return strconv.Quote(text[:n]), text[n:]
	}
	end := strings.IndexAny(s, " ()")
	if end < 0 {
		end = len(s)
	}
	if end == 0 {
		t.Fatalf("no value at %.60q", s)
	}
	return s[:end], s[end:]
}

// fetched reads FETCH responses: by UID, then by item.
func fetched(t testing.TB, lines []string) map[int]map[string]string {
	t.Helper()
	all := map[int]map[string]string{}
	for _, line := range lines {
		_, rest, ok := strings.Cut(line, " FETCH (")
		if !ok || strings.HasPrefix(line, "* OK") {
			continue
		}
		items := map[string]string{}
		for rest != ")" {
			key, after, _ := strings.Cut(strings.TrimPrefix(rest, " "), " ")
			out, after := value(t, after)
			if key == "FLAGS" {
				out = flags(out)
			}
			if key == "INTERNALDATE" {
				out = instant(t, out)
			}
			items[key], rest = out, after
		}
		uid, err := strconv.Atoi(items["UID"])
		if err != nil {
			t.Fatalf("no UID in %.200q", line)
		}
		if all[uid] == nil {
			all[uid] = map[string]string{}
		}
		maps.Copy(all[uid], items) // a change of flags may be told beside
	}
	return all
}

// instant is an INTERNALDATE in UTC: a file's mtime has no zone, and what either program
// remembers of one is its own.
func instant(t testing.TB, date string) string {
	t.Helper()
	at, err := time.Parse(`"_2-Jan-2006 15:04:05 -0700"`, date)
	if err != nil {
		t.Fatalf("INTERNALDATE: %v", err)
	}
	return at.UTC().Format(time.DateTime)
}

// flags sorts flags and leaves \Recent out, which is told to one session only.
func flags(list string) string {
	f := slices.DeleteFunc(strings.Fields(strings.Trim(list, "()")), func(s string) bool { return s == `\Recent` })
	slices.Sort(f)
	return strings.Join(f, " ")
}

// sameLines compares lists of lines, and shows the first difference.
func sameLines(t testing.TB, what string, wafer, dovecot []string) {
	t.Helper()
	if slices.Equal(wafer, dovecot) {
		return
	}
	for i := range max(len(wafer), len(dovecot)) {
		a, b := "(nothing)", "(nothing)"
		if i < len(wafer) {
			a = wafer[i]
		}
		if i < len(dovecot) {
			b = dovecot[i]
		}
		if a != b {
			from := max(0, common(a, b)-60)
			t.Errorf("%s: %d and %d lines; line %d differs at octet %d\nwafer   %.300s\ndovecot %.300s", what, len(wafer), len(dovecot), i+1, from, a[from:], b[from:])
			return
		}
	}
}

// common is how many octets a and b begin with in common.
func common(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// kept are the lines that begin with a word, such as "* SORT".
func kept(lines []string, prefix string) (out []string) {
	for _, l := range lines {
		if strings.HasPrefix(l, prefix) {
			out = append(out, strings.TrimSpace(l))
		}
	}
	return out
}

// sortedKeys are the keys of m in order.
func sortedKeys[V any](m map[int]V) []int {
	keys := make([]int, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// facts turns what was fetched into lines, one for each message.
func facts(all map[int]map[string]string, items ...string) (lines []string) {
	for _, uid := range sortedKeys(all) {
		line := fmt.Sprint(uid)
		for _, item := range items {
			line += " " + item + " " + all[uid][item]
		}
		lines = append(lines, line)
	}
	return lines
}
