package maildir

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// keywords looks at dovecot-keywords.
func (c *checked) keywords() error {
	data, err := readBounded(c.file(keywordsName), maxKeywordFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if errors.Is(err, errTooLong) {
		c.fault(Finding{File: keywordsName, Fault: err.Error()}, nil)
		return nil
	}
	if err != nil {
		return err
	}
	good := parseKeywords(string(data))
	further := furtherKeywords(string(data))
	seen := map[int64]bool{}
	at := 0
	for line := range strings.Lines(string(data)) {
		at++
		num, name, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		i := number(num)
		switch {
		case !strings.HasSuffix(line, "\n"):
		case i >= MaxKeywords && name != "":
			continue
		case i >= 0 && i < MaxKeywords && good[i] == name && name != "" && !seen[i]:
			seen[i] = true
			continue
		}
		why := "the line is broken"
		if i >= 0 && i < MaxKeywords && seen[i] {
			why = "the number has a name already"
		} else if name != "" && good.find(name) >= 0 {
			why = "the name has a number already"
		}
		c.fault(Finding{File: fmt.Sprintf("%s:%d", keywordsName, at), Fault: fmt.Sprintf("%s: %.60q", why, strings.TrimRight(line, "\r\n")), Mend: "leaves it out"}, c.rekey)
	}
	if len(further) > 0 {
		c.fault(Finding{File: keywordsName, Note: true, Fault: fmt.Sprintf("%d keywords have no letter in file names: which messages have them is known to Dovecot's index alone", len(further))}, nil)
	}
	return nil
}

// rekey writes dovecot-keywords anew, with the lines that make sense.
func (c *checked) rekey() error {
	unlock, err := c.p.lock(c.ctx, c.file(keywordsName))
	if err != nil {
		return err
	}
	defer unlock()
	data, err := readBounded(c.file(keywordsName), maxKeywordFile)
	if err != nil {
		return absent(err)
	}
	good := parseKeywords(string(data))
	out := good.bytes()
	for _, line := range furtherKeywords(string(data)) {
		out = append(append(out, line...), '\n')
	}
	return c.p.replace(c.file(keywordsName), c.file(keywordsName)+".tmp", out)
}

// index looks at wafer.index.
func (c *checked) index() error {
	data, err := readBounded(c.file(indexName), maxIndexFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil && !errors.Is(err, errTooLong) {
		return err
	}
	if err == nil {
		_, err = decodeIndex(data)
	}
	if err != nil {
		c.fault(Finding{File: indexName, Fault: "it is damaged, or of another version", Mend: "makes it anew"}, func() error { return absent(c.p.ops.remove(c.file(indexName))) })
	}
	return nil
}

// facts looks at wafer.facts.
func (c *checked) facts() error {
	f, err := os.Open(c.file(factsName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() // only read
	why, err := badFacts(f)
	if err != nil {
		return err
	}
	if why != "" {
		c.fault(Finding{File: factsName, Fault: why, Mend: "removes it: it is made anew as clients ask"}, func() error { return absent(c.p.ops.remove(c.file(factsName))) })
	}
	return nil
}

// badFacts says what is wrong with the contents of a wafer.facts, "" for nothing.
// Half a record at the end is what a killed server leaves, and no fault.
func badFacts(r io.Reader) (why string, err error) {
	in := bufio.NewReaderSize(r, 2*maxFact)
	head, err := in.Peek(factsHead)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if len(head) < factsHead || string(head[:len(factsMagic)]) != factsMagic {
		return "it does not begin as such a file does", nil
	}
	off, _ := in.Discard(factsHead)
	le := binary.LittleEndian
	for {
		head, err := in.Peek(recordHead)
		if errors.Is(err, io.EOF) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		size, uid, kind := int(le.Uint32(head)), le.Uint32(head[4:]), head[8]
		if size > maxFact || uid == 0 || kind == 0 || kind > FactKinds {
			return fmt.Sprintf("what stands at octet %d is no record", off), nil
		}
		record, err := in.Peek(recordHead + size)
		if errors.Is(err, io.EOF) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		if le.Uint32(record[9:]) != recordSum(record) {
			return fmt.Sprintf("the record at octet %d is damaged", off), nil
		}
		n, _ := in.Discard(len(record))
		off += n
	}
}

// annotations looks at a file of annotations, whose path is relative to the Maildir.
func (c *check) annotations(folder, file string) error {
	name := filepath.Join(c.root, file)
	data, err := readBounded(name, maxMetadata)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil && !errors.Is(err, errTooLong) {
		return err
	}
	var m map[string]string
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		c.fault(Finding{Folder: folder, File: file, Fault: "annotations cannot be read: " + err.Error(), Mend: "puts it aside as " + file + ".damaged"}, func() error {
			return errors.Join(c.p.ops.rename(name, name+".damaged"), c.p.ops.sync(filepath.Dir(name)))
		})
	}
	return nil
}

// subscriptions looks at the file of that name.
func (c *check) subscriptions() error {
	name := filepath.Join(c.root, subscriptionsName)
	data, err := readBounded(name, maxSubscriptions)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if errors.Is(err, errTooLong) {
		c.fault(Finding{File: subscriptionsName, Fault: err.Error()}, nil)
		return nil
	}
	if err != nil {
		return err
	}
	_, faults := goodSubscriptions(string(data))
	for _, f := range faults {
		f.File = subscriptionsName + f.File
		c.fault(f, func() error { return c.resubscribe(name) })
	}
	return nil
}

// resubscribe writes the subscriptions anew, with the lines that make sense.
func (c *check) resubscribe(name string) error {
	unlock, err := c.p.lock(c.ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	data, err := readBounded(name, maxSubscriptions)
	if err != nil {
		return absent(err)
	}
	good, faults := goodSubscriptions(string(data))
	if len(faults) == 0 {
		return nil
	}
	return c.p.replace(name, filepath.Join(c.root, "tmp", c.p.names.base(c.o.Now)), good)
}

// goodSubscriptions is the file data without the lines that make no sense.
func goodSubscriptions(data string) (good []byte, faults []Finding) {
	body, v2 := strings.CutPrefix(data, subscriptionsV2)
	first := 1
	if v2 {
		first = 3
	}
	var names []string
	seen := map[string]bool{}
	for line := range strings.Lines(body) {
		at := fmt.Sprintf(":%d", first)
		first++
		text, whole := strings.CutSuffix(line, "\n")
		text = strings.TrimSuffix(text, "\r")
		if v2 {
			text = strings.ReplaceAll(text, "\t", ".")
		}
		name, ok := decodeName(text)
		if !ok {
			name = text
		}
		_, err := cleanName(name)
		switch {
		case text == "":
			faults = append(faults, Finding{File: at, Fault: "the line is empty", Mend: "leaves it out"})
		case seen[text]:
			faults = append(faults, Finding{File: at, Fault: fmt.Sprintf("%.100q stands there twice", text), Mend: "leaves it out"})
		case err != nil:
			faults = append(faults, Finding{File: at, Fault: fmt.Sprintf("%.100q: %v", text, err), Mend: "leaves it out"})
		case !whole:
			faults = append(faults, Finding{File: at, Fault: "the last line has no end", Mend: "gives it one"})
			fallthrough
		default:
			seen[text] = true
			names = append(names, text)
		}
	}
	return formatSubscriptions(names, v2), faults
}

// maildirsize compares what the file of that name says with what there is.
func (c *check) maildirsize() error {
	l := c.p.ledger(c.root)
	data, err := readBounded(l.file(), maildirsizeRead)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil && !errors.Is(err, errTooLong) {
		return err
	}
	t, ok := parseTally(data)
	used, still, err := l.count()
	if err != nil {
		return err
	}
	why := ""
	switch {
	case !ok:
		why = "it makes no sense"
	case still && t.used != used:
		why = fmt.Sprintf("it tells %d octets in %d messages, and there are %d in %d", t.used.Storage, t.used.Messages, used.Storage, used.Messages)
	default:
		return nil
	}
	c.fault(Finding{File: maildirsizeName, Fault: why, Mend: "counts anew"}, func() error {
		if !ok && t.limit == (Usage{}) && !l.quota.limited() { // nobody would write it anew
			return absent(c.p.ops.remove(l.file()))
		}
		_, err := l.recount(t)
		return err
	})
	return nil
}

var errTooLong = errors.New("it is longer than any such file may be")

// readBounded reads a file of at most limit octets.
func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = errTooLong
	}
	return data, err
}
