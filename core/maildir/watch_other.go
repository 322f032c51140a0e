//go:build !linux

package maildir

import "log/slog"

// eyes would watch directories; here changes are found by Folder.Refresh alone.
type eyes struct{}

func openEyes(log *slog.Logger) *eyes { return nil }

// seer is who would be told.
type seer interface {
	note(event)
	lostEvents()
}

func (e *eyes) close() error                               { return nil }
func (e *eyes) working() bool                              { return false }
func (e *eyes) watch(who seer, dir string, subs ...string) {}
func (e *eyes) unwatch(who seer)                           {}
