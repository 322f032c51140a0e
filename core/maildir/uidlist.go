package maildir

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// dovecot-uidlist gives each base name its UID. Version 3 begins with
//
//	3 V<uidvalidity> N<next uid> G<folder's guid> …
//
// and goes on with one line per message, UIDs ascending:
//
//	<uid> [<letter><value> …] :<file name>
//
// where S and W are sizes, P is the POP3 UIDL and O the POP3 order. The file name may have
// stale flags. Lines are appended; N is a floor, the last line may be beyond
// it. Version 1 is "1 <uidvalidity> <next uid>" and "<uid> <file name>".
// Fields that are not known here are kept.
const (
	uidlistName = "dovecot-uidlist"
	maxUIDList  = 1 << 30 // octets read; a thousand times what a big folder has
	maxUID      = 1<<32 - 2
)

// uidlist is the contents of a dovecot-uidlist.
type uidlist struct {
	validity uint32
	next     uint32   // above every UID that was ever given out
	head     []string // header fields other than V and N
	recs     []uidRec // ascending UIDs, each base name once
	damaged  bool     // something was left out: write it anew before appending
}

type uidRec struct {
	uid    uint32
	fields string // "S12 W14 Pabc", "" in most
	name   string // base name
}

var errNotUIDList = errors.New("not a dovecot-uidlist")

// parseUIDList reads s up to the first line that makes no sense, as Dovecot
// does: messages of later lines get new UIDs, above all that stand there. An
// error means that not even the header makes sense.
func parseUIDList(s string) (uidlist, error) {
	line, rest, ok := strings.Cut(s, "\n")
	if !ok {
		return uidlist{}, errNotUIDList
	}
	l, v1, err := parseUIDHeader(strings.TrimSuffix(line, "\r"))
	if err != nil {
		return uidlist{}, err
	}
	l.recs = make([]uidRec, 0, strings.Count(rest, "\n"))
	l.damaged = v1
	var last uint32
	floor := l.next
	for rest != "" {
		line, rest, ok = strings.Cut(rest, "\n")
		if !ok { // cut short: what was appended after the last sync
			l.damaged = true
			break
		}
		r, good := l.parseLine(strings.TrimSuffix(line, "\r"), v1)
		if good && r.uid > last && (!v1 || r.uid < floor) {
			last = r.uid
			l.recs = append(l.recs, r)
			continue
		}
		l.damaged = true
		l.skip(line+"\n"+rest, v1)
		break
	}
	l.next = max(l.next, last+1)
	l.unique()
	return l, nil
}

// skip passes over lines without taking them, but their UIDs are not given out again.
func (l *uidlist) skip(rest string, v1 bool) {
	for rest != "" {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		if r, good := l.parseLine(line, v1); good {
			l.next = max(l.next, r.uid+1)
		}
	}
}

// unique keeps of each base name the last line, which has the highest UID.
func (l *uidlist) unique() {
	at := make(map[string]uint32, len(l.recs))
	for _, r := range l.recs {
		at[r.name] = r.uid
	}
	if len(at) == len(l.recs) {
		return
	}
	l.damaged = true
	kept := l.recs[:0]
	for _, r := range l.recs {
		if at[r.name] == r.uid {
			kept = append(kept, r)
		}
	}
	l.recs = kept
}

func parseUIDHeader(line string) (l uidlist, v1 bool, err error) {
	f := strings.Fields(line)
	if len(f) < 2 {
		return l, false, errNotUIDList
	}
	var validity, next int64
	switch f[0] {
	case "1":
		if len(f) < 3 {
			return l, false, errNotUIDList
		}
		v1, validity, next = true, number(f[1]), number(f[2])
	case "3":
		for _, field := range f[1:] {
			switch value := field[1:]; field[0] {
			case 'V':
				validity = number(value)
			case 'N':
				next = number(value)
			default:
				if field[0] == 'G' && !validGUID(value) {
					return l, false, errNotUIDList
				}
				l.head = append(l.head, field)
			}
		}
	}
	if validity <= 0 || validity > 1<<32-1 || next <= 0 || next > maxUID+1 {
		return l, false, errNotUIDList
	}
	l.validity, l.next = uint32(validity), uint32(next)
	return l, v1, nil
}

func validGUID(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == 16
}

// parseLine reads a line without its end. Fields that are none are left out.
func (l *uidlist) parseLine(line string, v1 bool) (r uidRec, ok bool) {
	id, name, ok := strings.Cut(line, " ")
	uid := number(id)
	if !ok || uid <= 0 || uid > maxUID {
		return r, false
	}
	r.uid = uint32(uid)
	name = strings.TrimLeft(name, " ")
	if !v1 {
		if name == "" {
			return r, false
		}
		if name[0] == ':' {
			name = name[1:]
		} else if r.fields, name, ok = strings.Cut(name, " :"); !ok {
			return r, false
		} else if !validFields(r.fields) {
			l.damaged = true
			r.fields = strings.Join(slices.DeleteFunc(strings.Fields(r.fields), func(f string) bool { return !validFields(f) }), " ")
		}
	}
	r.name, _ = splitName(name)
	return r, r.name != "" && strings.IndexByte(name, '/') < 0
}

// validFields reports whether each of the fields begins with a capital letter.
func validFields(fields string) bool {
	start := true
	for i := 0; i < len(fields); i++ {
		if start && (fields[i] < 'A' || fields[i] > 'Z') {
			return false
		}
		start = fields[i] == ' '
	}
	return true
}

// field returns the value of the field with the letter c, "" if it is absent.
func (r uidRec) field(c byte) string {
	for rest := r.fields; rest != ""; {
		var f string
		f, rest, _ = strings.Cut(rest, " ")
		if f != "" && f[0] == c {
			return f[1:]
		}
	}
	return ""
}

func (r uidRec) append(b []byte) []byte {
	b = strconv.AppendUint(b, uint64(r.uid), 10)
	b = append(b, ' ')
	if r.fields != "" {
		b = append(b, r.fields...)
		b = append(b, ' ')
	}
	b = append(b, ':')
	b = append(b, r.name...)
	return append(b, '\n')
}

// bytes is the file in version 3.
func (l *uidlist) bytes() []byte {
	b := make([]byte, 0, 64+80*len(l.recs))
	b = append(b, "3 V"...)
	b = strconv.AppendUint(b, uint64(l.validity), 10)
	b = append(b, " N"...)
	b = strconv.AppendUint(b, uint64(l.next), 10)
	for _, f := range l.head {
		b = append(b, ' ')
		b = append(b, f...)
	}
	b = append(b, '\n')
	for _, r := range l.recs {
		b = r.append(b)
	}
	return b
}

// newUIDList is that of a folder without messages.
func newUIDList(validity uint32) uidlist {
	var guid [16]byte
	_, _ = rand.Read(guid[:]) // never fails (crypto/rand)
	return uidlist{validity: validity, next: 1, head: []string{"G" + hex.EncodeToString(guid[:])}}
}

// stamp tells one state of a file from another. The zero stamp is an absent file.
type stamp struct {
	ino   uint64
	size  int64
	mtime int64 // nanoseconds
}

func stampOf(name string) (stamp, error) {
	fi, err := os.Stat(name)
	if errors.Is(err, os.ErrNotExist) {
		return stamp{}, nil
	}
	if err != nil {
		return stamp{}, err
	}
	return stampFrom(fi), nil
}

func stampFrom(fi os.FileInfo) stamp {
	return stamp{ino: inode(fi), size: fi.Size(), mtime: fi.ModTime().UnixNano()}
}

// readUIDList reads the list of the folder in dir. It is an error wrapping
// fs.ErrNotExist if there is none, errNotUIDList if its header is damaged.
func readUIDList(dir string) (uidlist, stamp, error) {
	f, err := os.Open(filepath.Join(dir, uidlistName))
	if err != nil {
		return uidlist{}, stamp{}, err
	}
	defer f.Close() // only read
	fi, err := f.Stat()
	if err != nil {
		return uidlist{}, stamp{}, err
	}
	if fi.Size() > maxUIDList {
		return uidlist{}, stamp{}, fmt.Errorf("read %s: it is longer than %d octets", f.Name(), maxUIDList)
	}
	data := make([]byte, fi.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return uidlist{}, stamp{}, err
	}
	l, err := parseUIDList(string(data))
	return l, stampFrom(fi), err
}

// The file dovecot-uidvalidity in a Maildir's root holds the highest
// UIDVALIDITY of its folders in eight hexadecimal digits. Beside it stands the
// empty file dovecot-uidvalidity.<the same digits>; who renames that to the
// next number owns the number.
const uidvalidityName = "dovecot-uidvalidity"

// nextValidity takes a UIDVALIDITY that no folder of the Maildir root has had.
func (p *Pool) nextValidity(root string, now time.Time) (uint32, error) {
	base := filepath.Join(root, uidvalidityName)
	for range 100 {
		var last uint64
		markers, err := filepath.Glob(globQuote(base) + ".????????")
		if err != nil {
			return 0, err
		}
		old := ""
		for _, m := range markers {
			if n, err := strconv.ParseUint(strings.TrimPrefix(m, base+"."), 16, 32); err == nil && n >= last {
				last, old = n, m
			}
		}
		if data, err := os.ReadFile(base); err == nil && len(data) >= 8 {
			if n, err := strconv.ParseUint(string(data[:8]), 16, 32); err == nil && n > last {
				last, old = n, ""
			}
		}
		next := max(last+1, uint64(now.Unix()))
		if next >= 1<<32 {
			return 0, fmt.Errorf("take a UIDVALIDITY in %s: none is left", root)
		}
		digits := fmt.Sprintf("%08x", next)
		if old != "" {
			err = p.ops.renameNew(old, base+"."+digits)
		} else {
			err = p.write(base+"."+digits, nil)
		}
		if errors.Is(err, os.ErrExist) || errors.Is(err, os.ErrNotExist) {
			continue // another was faster
		}
		if err != nil {
			return 0, fmt.Errorf("take a UIDVALIDITY in %s: %w", root, err)
		}
		temp := filepath.Join(root, "tmp", p.names.base(now))
		return uint32(next), p.replace(base, temp, []byte(digits))
	}
	return 0, fmt.Errorf("take a UIDVALIDITY in %s: others take them too", root)
}

// globQuote makes a path match itself in filepath.Glob.
func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
