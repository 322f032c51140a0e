package maildir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// signalled waits for a signal.
func signalled(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(10 * time.Second):
		t.Fatalf("no signal of %s", what)
	}
}

// watchedStore is a store that inotify is used for, with the folder "box".
func watchedStore(t *testing.T) (*Pool, *Store, string) {
	t.Helper()
	dir := t.TempDir()
	p := NewPool(Options{Sync: func(string) error { return nil }, UID: -1, GID: -1, Watch: true})
	s, err := p.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Watched() {
		t.Skip("inotify is not to be had")
	}
	t.Cleanup(func() {
		s.Close()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Create("box"); err != nil {
		t.Fatal(err)
	}
	return p, s, dir
}

// TestWatchTree signals changes of the tree by this process and by others.
func TestWatchTree(t *testing.T) {
	p, s, dir := watchedStore(t)
	c := make(chan struct{}, 1)
	w := s.Watch(c)
	if w.Changed() {
		t.Error("changed before anything has happened")
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	value := "x"
	for _, row := range []struct {
		name string
		do   func() error
	}{
		{"create", func() error { return s.Create("a") }},
		{"rename", func() error { return s.Rename("a", "b") }},
		{"delete", func() error { return s.Delete("b") }},
		{"subscribe", func() error { return s.Subscribe("box") }},
		{"unsubscribe", func() error { return s.Unsubscribe("box") }},
		{"annotation", func() error { return s.SetMetadata("box", map[string]*string{"/private/comment": &value}) }},
		{"annotation of the tree", func() error { return s.SetMetadata("", map[string]*string{"/shared/comment": &value}) }},
		{"create for a use", func() error { return s.CreateFor("c", `\Sent`) }},
		{"mkdir by another program", func() error { return os.Mkdir(filepath.Join(dir, ".x"), 0o700) }},
		{"rename by another program", func() error { return os.Rename(filepath.Join(dir, ".x"), filepath.Join(dir, ".y")) }},
		{"rmdir by another program", func() error { return os.Remove(filepath.Join(dir, ".y")) }},
		{"subscriptions by another program", func() error {
			return os.WriteFile(filepath.Join(dir, "subscriptions"), []byte("V\t2\n\n"), 0o600)
		}},
	} {
		must(row.do())
		for !w.Changed() {
			signalled(t, row.name, c)
		}
	}
	w.Close()
	w.Close()
	if len(p.posts) > 0 || len(p.eyes.sights) > 0 || len(p.eyes.byWD) > 0 {
		t.Errorf("left: %d posts, %d sights, %d watches", len(p.posts), len(p.eyes.sights), len(p.eyes.byWD))
	}
}

// TestWatchFolder signals changes in a folder that is not open, and one that takes
// the place of another.
func TestWatchFolder(t *testing.T) {
	p, s, dir := watchedStore(t)
	drop := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, ".box", "new", name), []byte("Subject: x\n\nx\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := make(chan struct{}, 1)
	w, err := s.WatchFolder("box", c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.WatchFolder("nowhere", c); !errors.Is(err, ErrNoFolder) {
		t.Errorf("a folder that is not there: %v", err)
	}
	drop("1.x.y")
	signalled(t, "a delivery by another program", c)
	f, err := s.Folder(t.Context(), "box")
	if err != nil {
		t.Fatal(err)
	}
	if n := f.Status().Messages; n != 1 {
		t.Errorf("%d messages", n)
	}
	for len(c) > 0 {
		<-c
	}
	if _, _, err := f.SetFlags(t.Context(), []uint32{1}, FlagAdd, Flagged, 0); err != nil {
		t.Fatal(err)
	}
	signalled(t, "a change by this process", c)
	f.Close()

	if err := s.Rename("box", "old"); err != nil {
		t.Fatal(err)
	}
	if err := s.Create("box"); err != nil {
		t.Fatal(err)
	}
	second, err := s.WatchFolder("box", c) // while the first goes on
	if err != nil {
		t.Fatal(err)
	}
	second.Changed()
	drop("2.x.y")
	for !second.Changed() {
		signalled(t, "a delivery into the new folder", c)
	}
	w.Close()
	second.Close()
	if len(p.posts) > 0 || len(p.eyes.sights) > 0 || len(p.eyes.byWD) > 0 {
		t.Errorf("left: %d posts, %d sights, %d watches", len(p.posts), len(p.eyes.sights), len(p.eyes.byWD))
	}
}

// TestWatchMany: one channel serves many watches, each of which knows its own.
func TestWatchMany(t *testing.T) {
	_, s, _ := watchedStore(t)
	if err := s.Create("two"); err != nil {
		t.Fatal(err)
	}
	c := make(chan struct{}, 1)
	one, err := s.WatchFolder("box", c)
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	two, err := s.WatchFolder("two", c)
	if err != nil {
		t.Fatal(err)
	}
	defer two.Close()
	f, err := s.Folder(t.Context(), "two")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cancel := f.WatchInto(c)
	defer cancel()
	f.Keyword("Junk", true)
	signalled(t, "a keyword", c)
	if one.Changed() || !two.Changed() {
		t.Error("the wrong folder has changed")
	}
}

// TestIdentity stays with a folder that is renamed and is another for one that is
// made anew.
func TestIdentity(t *testing.T) {
	_, s, _ := watchedStore(t)
	id := s.Identity("box")
	if id == "" {
		t.Fatal("no identity")
	}
	if err := s.Rename("box", "old"); err != nil {
		t.Fatal(err)
	}
	if got := s.Identity("old"); got != id {
		t.Errorf("renamed: %q, was %q", got, id)
	}
	if err := s.Delete("old"); err != nil {
		t.Fatal(err)
	}
	if err := s.Create("old"); err != nil {
		t.Fatal(err)
	}
	if got := s.Identity("old"); got == id || got == "" {
		t.Errorf("made anew: %q, was %q", got, id)
	}
	if got := s.Identity("nowhere"); got != "" {
		t.Errorf("not there: %q", got)
	}
}
