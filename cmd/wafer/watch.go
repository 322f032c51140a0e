package main

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// calm is how long nothing may happen before what has changed is looked at: editors and
// deployments change several files in turn.
const calm = 300 * time.Millisecond

// watchFiles calls changed after files of the configuration have changed, appeared or
// gone. Their directories are watched, so that a file which is replaced by another is
// seen, and so are the links of Kubernetes' volumes, where "..data" is what changes.
func watchFiles(files func() []string, changed func(), log *slog.Logger) (stop func(), err error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch files: %w", err)
	}
	watched := map[string]bool{}
	look := func() {
		for _, file := range files() {
			dirs := []string{filepath.Dir(file)}
			if real, err := filepath.EvalSymlinks(file); err == nil {
				dirs = append(dirs, filepath.Dir(real))
			}
			for _, dir := range dirs {
				if watched[dir] {
					continue
				}
				if err := w.Add(dir); err != nil {
					log.Warn("a folder is not watched", "folder", dir, "err", err)
					continue
				}
				watched[dir] = true
			}
		}
	}
	look()
	done := make(chan struct{})
	go func() {
		defer close(done)
		var due <-chan time.Time
		for {
			select {
			case e, ok := <-w.Events:
				if !ok {
					return
				}
				if e.Has(fsnotify.Remove) && watched[e.Name] { // a watched folder has gone; another may come in its place
					delete(watched, e.Name)
				}
				if concerns(e) {
					due = time.After(calm)
				}
			case err, ok := <-w.Errors:
				if !ok {
					return
				}
				log.Warn("watch files", "err", err)
				due = time.After(calm) // events may have been lost
			case <-due:
				due = nil
				changed()
				look()
			}
		}
	}()
	return func() {
		_ = w.Close() // nothing was written
		<-done
	}, nil
}

// concerns reports whether an event may change a configuration: something about an HCL
// file, a module, a list, or a link that leads to them. What editors leave beside them
// does not count.
func concerns(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod {
		return false
	}
	name := filepath.Base(e.Name)
	switch filepath.Ext(name) {
	case ".swp", ".swx", ".tmp", ".lock", ".new":
		return false
	}
	return name == "..data" || name[0] != '.' && name[len(name)-1] != '~' && name != "4913" // vim's probe
}
