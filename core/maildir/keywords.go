package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
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

// furtherKeywords are the lines of s, whole and in their order, that name
// keywords for which file names have no letter.
func furtherKeywords(s string) (lines []string) {
	for s != "" {
		var line string
		line, s, _ = strings.Cut(s, "\n")
		line = strings.TrimSuffix(line, "\r")
		num, name, ok := strings.Cut(line, " ")
		if ok && number(num) >= MaxKeywords && name != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// FurtherKeywords returns the names of keywords that dovecot-keywords has and
// file names have no letter for: the 27th and later ones. Which messages have
// them is known to Dovecot's binary index alone, which is not read; their lines
// stay in the file.
func (f *Folder) FurtherKeywords() ([]string, error) {
	lines, err := readFurther(f.b.dir)
	if err != nil {
		return nil, fmt.Errorf("read keywords of %s: %w", f.name, err)
	}
	for i := range lines {
		_, lines[i], _ = strings.Cut(lines[i], " ")
	}
	return lines, nil
}

func readFurther(dir string) ([]string, error) {
	name := filepath.Join(dir, keywordsName)
	st, err := stampOf(name)
	if err != nil || st == (stamp{}) {
		return nil, err
	}
	if st.size > maxKeywordFile {
		return nil, fmt.Errorf("%s is longer than %d octets", name, maxKeywordFile)
	}
	data, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return furtherKeywords(string(data)), err
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
	further, err := readFurther(dir)
	if err != nil { // it is not to be written over
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
	data := k.bytes()
	for _, line := range further {
		data = append(append(data, line...), '\n')
	}
	if err := p.replace(file, filepath.Join(dir, "tmp", keywordsName+"."+strconv.Itoa(os.Getpid())), data); err != nil {
		return -1, k, st, err
	}
	if err := laterSecond(file, st); err != nil {
		return -1, k, st, err
	}
	st, err = stampOf(file)
	return i, k, st, err
}

// laterSecond gives a file that has been replaced an mtime in a later second than that
// of before: Dovecot looks at whole seconds, would miss the change, and would give the
// same letter to another keyword.
func laterSecond(file string, before stamp) error {
	now, err := stampOf(file)
	if err != nil {
		return err
	}
	was := time.Unix(0, before.mtime).Truncate(time.Second)
	if before == (stamp{}) || time.Unix(0, now.mtime).Truncate(time.Second).After(was) {
		return nil
	}
	at := was.Add(time.Second)
	if err := os.Chtimes(file, at, at); err != nil {
		return fmt.Errorf("date keywords: %w", err)
	}
	return nil
}
