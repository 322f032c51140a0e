package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// dovecot-keywords names the letters that stand for keywords in file names:
// "0 $Junk" is the letter a, up to "25 …", the letter z.
const (
	keywordsName   = "dovecot-keywords"
	maxKeywordFile = 64 << 10
	maxKeyword     = 200 // octets of one keyword
)

// keywords are the names of the letters a to z, "" for those without one.
type keywords [MaxKeywords]string

// parseKeywords reads what makes sense in s. A number or a name that comes
// twice counts the first time. Dovecot lets clients put "]" into keywords.
func parseKeywords(s string) (k keywords) {
	for s != "" {
		var line string
		line, s, _ = strings.Cut(s, "\n")
		num, name, ok := strings.Cut(strings.TrimSuffix(line, "\r"), " ")
		i := number(num)
		if !ok || i < 0 || i >= MaxKeywords || k[i] != "" || !validKeyword(strings.ReplaceAll(name, "]", "_")) || k.find(name) >= 0 {
			continue
		}
		k[i] = strings.Clone(name)
	}
	return k
}

func (k *keywords) bytes() []byte {
	var b []byte
	for i, name := range k {
		if name != "" {
			b = strconv.AppendInt(b, int64(i), 10)
			b = append(b, ' ')
			b = append(b, name...)
			b = append(b, '\n')
		}
	}
	return b
}

// find returns the index of a keyword, which is compared without regard to
// case (RFC 9051 §2.3.2), or -1.
func (k *keywords) find(name string) int {
	for i, have := range k {
		if have != "" && strings.EqualFold(have, name) {
			return i
		}
	}
	return -1
}

// name names the letter with index i even if nobody has named it: as Dovecot
// does, "unknown-<i>".
func (k *keywords) name(i int) string {
	name := fmt.Sprintf("unknown-%d", i)
	for k.find(name) >= 0 {
		name += "?"
	}
	return name
}

// validKeyword reports whether s is an atom (RFC 9051 §9), with a sane length.
func validKeyword(s string) bool {
	if s == "" || len(s) > maxKeyword {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] >= 0x7f || strings.IndexByte(`(){%*"\]`, s[i]) >= 0 {
			return false
		}
	}
	return true
}

func readKeywords(dir string) (keywords, stamp, error) {
	name := filepath.Join(dir, keywordsName)
	st, err := stampOf(name)
	if err != nil || st == (stamp{}) || st.size > maxKeywordFile {
		return keywords{}, st, err
	}
	data, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return keywords{}, stamp{}, nil
	}
	return parseKeywords(string(data)), st, err
}

// addKeyword gives name the first free letter, durably. used are the letters
// that occur in file names: those without a name are not free. It returns -1
// if there is no letter left.
func (p *Pool) addKeyword(ctx context.Context, dir, name string, used Flags) (i int, k keywords, st stamp, err error) {
	file := filepath.Join(dir, keywordsName)
	unlock, err := p.lock(ctx, file)
	if err != nil {
		return -1, k, st, err
	}
	defer unlock()
	if k, st, err = readKeywords(dir); err != nil {
		return -1, k, st, err
	}
	if i = k.find(name); i >= 0 {
		return i, k, st, nil
	}
	i = -1
	for j := range k {
		switch {
		case k[j] != "":
		case used&KeywordBit(j) != 0:
			k[j] = k.name(j)
		case i < 0:
			i = j
		}
	}
	if i < 0 {
		return -1, k, st, nil
	}
	k[i] = name
	if err := p.replace(file, filepath.Join(dir, "tmp", keywordsName+"."+strconv.Itoa(os.Getpid())), k.bytes()); err != nil {
		return -1, k, st, err
	}
	st, err = stampOf(file)
	return i, k, st, err
}
