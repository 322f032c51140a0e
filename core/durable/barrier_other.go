//go:build !linux

package durable

import (
	"errors"
	"os"
)

func syncfsReports() bool { return false }

func syncWide(dir *os.File) error {
	return &os.PathError{Op: "syncfs", Path: dir.Name(), Err: errors.ErrUnsupported}
}

// DeviceOf says which file system holds path.
func DeviceOf(string) (uint64, error) { return 0, nil }

// BootID is unknown here: every start counts as one after a power cut.
func BootID() string { return "" }
