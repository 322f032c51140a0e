package maildir

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
)

// Many sessions change two folders at once; in the end both are what the disk
// says, and every message is there once.
func TestConcurrentSessions(t *testing.T) {
	ctx := context.Background()
	p, path := testPool(t)
	s := openStore(t, p, path)
	if err := s.Create("Other"); err != nil {
		t.Fatal(err)
	}
	const workers, rounds = 8, 30
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			in, err := s.Folder(ctx, "INBOX")
			if err != nil {
				t.Error(err)
				return
			}
			defer in.Close()
			out, err := s.Folder(ctx, "Other")
			if err != nil {
				t.Error(err)
				return
			}
			defer out.Close()
			signal, cancel := in.Watch()
			defer cancel()
			for i := range rounds {
				body := fmt.Sprintf("Subject: %d.%d\r\n\r\n", w, i)
				m, err := in.Append(ctx, strings.NewReader(body), AppendOptions{Size: int64(len(body))})
				if err != nil {
					t.Error(err)
					return
				}
				<-signal
				c, err := in.Open(m.UID)
				if err != nil {
					t.Error(err)
					return
				}
				if data, err := io.ReadAll(c); err != nil || string(data) != body {
					t.Errorf("UID %d is %q, %v, want %q", m.UID, data, err, body)
				}
				c.Close()
				if _, _, err = in.SetFlags(ctx, []uint32{m.UID}, FlagAdd, Flags(1<<(i%5)), 0); err != nil {
					t.Error(err)
				}
				switch i % 3 {
				case 0:
					_, err = in.Move(ctx, []uint32{m.UID}, out)
				case 1:
					if _, err = in.Copy(ctx, []uint32{m.UID}, out); err == nil {
						_, err = in.Expunge(ctx, []uint32{m.UID})
					}
				case 2:
					name := fmt.Sprintf("%d.x%d", i, w)
					if err = os.WriteFile(path+"/tmp/"+name, []byte(body), 0o600); err == nil {
						err = os.Rename(path+"/tmp/"+name, path+"/new/"+name)
					}
					p.Delivered(path, "")
				}
				if err != nil {
					t.Error(err)
				}
				if err := in.Refresh(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	in, out := openFolder(t, s, "INBOX"), openFolder(t, s, "Other")
	count := map[string]int{}
	for _, f := range []*Folder{in, out} {
		last := uint32(0)
		for _, m := range messages(f) {
			if m.UID <= last {
				t.Fatalf("UID %d after %d", m.UID, last)
			}
			last = m.UID
			count[text(t, f, m.UID)]++
		}
		q, _ := testPool(t)
		g := openFolder(t, openStore(t, q, path), f.Name())
		if a, b := fmt.Sprint(ours(f)), fmt.Sprint(ours(g)); a != b {
			t.Errorf("%s in memory and on disk:\n%s\n%s", f.Name(), a, b)
		}
	}
	for w := range workers {
		for i := range rounds {
			want := 1
			if i%3 == 2 {
				want = 2
			}
			if body := fmt.Sprintf("Subject: %d.%d\r\n\r\n", w, i); count[body] != want {
				t.Errorf("%q is there %d times, want %d", body, count[body], want)
			}
		}
	}
}

// TestSharedTestdata opens the small Maildir of the shared test data.
func TestSharedTestdata(t *testing.T) {
	src := "../../../shared/testdata/maildir"
	if _, err := os.Stat(src); err != nil {
		t.Skip("shared test data is not here: ", err)
	}
	p, path := testPool(t)
	for _, sub := range []string{"cur", "new"} {
		for _, name := range dirNames(t, src+"/"+sub) {
			data, err := os.ReadFile(src + "/" + sub + "/" + name)
			if err != nil {
				t.Fatal(err)
			}
			put(t, path+"/"+sub+"/"+strings.Replace(name, ";2,", ":2,", 1), string(data))
		}
	}
	f := openFolder(t, openStore(t, p, path), "INBOX")
	wantUIDs(t, f, 1, 2)
	for i, want := range []Flags{Seen | KeywordBit(1), Seen | Deleted | KeywordBit(11) | KeywordBit(13)} {
		m := messages(f)[i]
		if m.Flags != want {
			t.Errorf("%s has flags %x, want %x", m.Key, m.Flags, want)
		}
		if got := text(t, f, m.UID); int64(len(got)) != m.Size {
			t.Errorf("%s has %d octets, want %d", m.Key, len(got), m.Size)
		}
	}
}
