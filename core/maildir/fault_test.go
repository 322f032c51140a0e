package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var errFault = errors.New("injected fault")

// faults fails the step number at of file operations, and if dead is set every
// step after it too, as if the process had been killed there.
type faults struct {
	at, n int
	dead  bool
	what  string // the step that failed
}

func (x *faults) step(what string) error {
	x.n++
	if x.at > 0 && (x.n == x.at || x.dead && x.n > x.at) {
		if x.n == x.at {
			x.what = what
		}
		return fmt.Errorf("%s: %w", what, errFault)
	}
	return nil
}

func (x *faults) ops() fileOps {
	real := osOps()
	two := func(what string, f func(a, b string) error) func(a, b string) error {
		return func(a, b string) error {
			if err := x.step(what); err != nil {
				return err
			}
			return f(a, b)
		}
	}
	one := func(what string, f func(a string) error) func(a string) error {
		return func(a string) error {
			if err := x.step(what); err != nil {
				return err
			}
			return f(a)
		}
	}
	return fileOps{
		create: func(name string) (outFile, error) {
			if err := x.step("create"); err != nil {
				return nil, err
			}
			f, err := real.create(name)
			return tornFile{f, x}, err
		},
		appendTo: func(name string, data []byte) error {
			if err := x.step("append"); err != nil {
				_ = real.appendTo(name, data[:len(data)/2]) // torn
				return err
			}
			return real.appendTo(name, data)
		},
		rename: two("rename", real.rename), renameNew: two("renameNew", real.renameNew), link: two("link", real.link),
		remove: one("remove", real.remove), removeAll: one("removeAll", real.removeAll), mkdir: one("mkdir", real.mkdir),
		chtimes: func(name string, t time.Time) error {
			if err := x.step("chtimes"); err != nil {
				return err
			}
			return real.chtimes(name, t)
		},
		sync: func(...string) error { return x.step("sync") },
	}
}

type tornFile struct {
	outFile
	x *faults
}

func (f tornFile) Write(p []byte) (int, error) {
	if err := f.x.step("write"); err != nil {
		n, _ := f.outFile.Write(p[:len(p)/2])
		return n, err
	}
	return f.outFile.Write(p)
}

func (f tornFile) Close() error {
	return errors.Join(f.outFile.Close(), f.x.step("close"))
}

// TestFaults fails, one after the other, every file operation of each change:
// alone and with all that follow. Afterwards a new process looks at what is on
// disk: nothing that was acknowledged is missing, nothing is there in part, and
// no UID means another message than before.
func TestFaults(t *testing.T) {
	ctx := context.Background()
	const body = "Subject: %d\r\n\r\ntext of this message\r\n"
	msg := func(i int) string { return fmt.Sprintf(body, i) }
	changes := []struct {
		name string
		// do makes a change; in and out are the numbers of the messages that INBOX
		// and Other hold when it went well
		do      func(in, out *Folder) error
		in, out []int
	}{
		{name: "append", do: func(in, out *Folder) error {
			m := msg(9)
			_, err := in.Append(ctx, strings.NewReader(m), AppendOptions{Size: int64(len(m))})
			return err
		}, in: []int{0, 1, 2, 9}},
		{name: "flags", do: func(in, out *Folder) error {
			_, _, err := in.SetFlags(ctx, []uint32{1, 2}, FlagAdd, Flagged, 0)
			return err
		}, in: []int{0, 1, 2}},
		{name: "expunge", do: func(in, out *Folder) error {
			_, err := in.Expunge(ctx, []uint32{1, 3})
			return err
		}, in: []int{1}},
		{name: "copy", do: func(in, out *Folder) error {
			_, err := in.Copy(ctx, []uint32{1, 3}, out)
			return err
		}, in: []int{0, 1, 2}, out: []int{0, 2}},
		{name: "move", do: func(in, out *Folder) error {
			_, err := in.Move(ctx, []uint32{1, 3}, out)
			return err
		}, in: []int{1}, out: []int{0, 2}},
		{name: "keyword", do: func(in, out *Folder) error {
			if _, ok := in.Keyword("fresh", true); !ok {
				return errFault
			}
			return nil
		}, in: []int{0, 1, 2}},
	}
	contents := func(f *Folder) (list []int) {
		for _, m := range f.Messages() {
			c, err := f.Open(m.UID)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(c)
			c.Close()
			i := -1
			_, serr := fmt.Sscanf(string(data), "Subject: %d", &i)
			if err != nil || serr != nil || string(data) != msg(i) {
				t.Fatalf("message %d of %s is partial: %q", m.UID, f.Name(), data)
			}
			list = append(list, i)
		}
		return list
	}
	for _, c := range changes {
		for _, dead := range []bool{false, true} {
			for at := 1; ; at++ {
				x := &faults{dead: dead}
				p, path := testPool(t, x.ops())
				s := openStore(t, p, path)
				if err := s.Create("Other"); err != nil {
					t.Fatal(err)
				}
				in, out := openFolder(t, s, "INBOX"), openFolder(t, s, "Other")
				for i := range 3 {
					appendText(t, in, msg(i), 0)
				}
				uids := map[uint32]string{}
				for _, m := range in.Messages() {
					uids[m.UID] = m.Key
				}
				x.at = x.n + at
				err := c.do(in, out)
				hit := x.what != ""
				x.at, x.dead = 0, false
				locks, _ := filepath.Glob(path + "/*.lock")
				more, _ := filepath.Glob(path + "/.*/*.lock")
				for _, l := range append(locks, more...) { // they name this process, which lives
					if err := os.Remove(l); err != nil {
						t.Fatal(err)
					}
				}
				q, _ := testPool(t)
				s2 := openStore(t, q, path)
				in2, out2 := openFolder(t, s2, "INBOX"), openFolder(t, s2, "Other")
				gotIn, gotOut := contents(in2), contents(out2)
				where := fmt.Sprintf("%s, %s fails at step %d (dead %v, err %v): INBOX %v, Other %v", c.name, x.what, at, dead, err, gotIn, gotOut)
				for _, m := range in2.Messages() {
					if key, ok := uids[m.UID]; ok && key != m.Key {
						t.Errorf("%s: UID %d is another message now", where, m.UID)
					}
				}
				sortInts := func(s []int) []int { s = slices.Clone(s); slices.Sort(s); return s }
				switch {
				case err == nil:
					if !slices.Equal(sortInts(gotIn), c.in) || !slices.Equal(sortInts(gotOut), c.out) {
						t.Errorf("%s: acknowledged, but not so on disk", where)
					}
				case c.name == "move":
					if all := sortInts(append(slices.Clone(gotIn), gotOut...)); !slices.Equal(all, []int{0, 1, 2}) {
						t.Errorf("%s: lost or doubled", where)
					}
				case c.name == "expunge":
					if !slices.Contains(gotIn, 1) {
						t.Errorf("%s: lost", where)
					}
				default:
					for i := range 3 {
						if !slices.Contains(gotIn, i) {
							t.Errorf("%s: lost %d", where, i)
						}
					}
					if !dead && len(gotOut) > 0 && x.what != "remove" && x.what != "sync" {
						t.Errorf("%s: copies stayed", where)
					}
				}
				if !hit {
					break
				}
			}
		}
	}
}
