package migrate

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/core/maildir"
)

const maxKeywordFile = 64 << 10 // octets

// keywordFile is what can be saved of a dovecot-keywords, and what is wrong with it.
type keywordFile struct {
	names   [maildir.MaxKeywords]string
	further []string // lines of later keywords, as they stand
	wrong   []string
}

// readKeywordFile takes what makes sense in data. used are the letters that file
// names have.
func readKeywordFile(data []byte, used maildir.Flags) (k keywordFile) {
	if len(data) > maxKeywordFile {
		k.wrong = append(k.wrong, fmt.Sprintf("it is longer than %d octets", maxKeywordFile))
		data = data[:maxKeywordFile]
	}
	seen := map[string]bool{}
	n := 0
	for line := range strings.SplitSeq(string(data), "\n") {
		n++
		line = strings.TrimSuffix(line, "\r")
		if line == "" {
			continue
		}
		id, name, _ := strings.Cut(line, " ")
		i, err := strconv.Atoi(id)
		key := strings.ToLower(name)
		switch {
		case err != nil || i < 0 || !atom(name):
			k.wrong = append(k.wrong, fmt.Sprintf("line %d, %.40q, names no keyword", n, line))
		case seen[key]:
			k.wrong = append(k.wrong, fmt.Sprintf("line %d: %s has two letters", n, name))
		case i >= len(k.names):
			k.further = append(k.further, line)
		case k.names[i] != "":
			k.wrong = append(k.wrong, fmt.Sprintf("line %d: the letter %c stands for %s and %s", n, 'a'+i, k.names[i], name))
		default:
			k.names[i], seen[key] = name, true
		}
	}
	for i, name := range k.names {
		if name == "" && used&maildir.KeywordBit(i) != 0 {
			k.wrong = append(k.wrong, fmt.Sprintf("files have the letter %c, which has no name", 'a'+i))
			k.names[i] = fmt.Sprintf("unknown-%d", i)
		}
	}
	return k
}

// atom reports whether s can be a keyword; Dovecot lets clients put "]" into them.
func atom(s string) bool {
	return s != "" && len(s) <= 200 && strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`(){%*"\`, r)
	}) < 0
}

// bytes is the file.
func (k *keywordFile) bytes() []byte {
	b := []byte{}
	for i, name := range k.names {
		if name != "" {
			b = fmt.Appendf(b, "%d %s\n", i, name)
		}
	}
	for _, l := range k.further {
		b = append(append(b, l...), '\n')
	}
	return b
}

// fold is what keywords are compared by (RFC 9051 §2.3.2).
func fold(s string) string { return strings.ToLower(s) }

// used is every flag that some file name has.
func (f *folder) used() (used maildir.Flags) {
	for _, m := range f.files {
		used |= m.Flags
	}
	return used
}
