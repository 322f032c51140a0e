//go:build !linux

package maildir

import "log/slog"

// eyes would watch directories; here changes are found by Folder.Refresh alone.
type eyes struct{}

func openEyes(log *slog.Logger) *eyes { return nil }

func (e *eyes) close() error   { return nil }
func (e *eyes) watch(b *box)   {}
func (e *eyes) unwatch(b *box) {}
