//go:build !linux

package maildir

import (
	"errors"
	"io"
	"os"
)

// readHead reads the first octets of a file into p, as many as there are.
func readHead(name string, p []byte) (n int, err error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close() // only read
	if n, err = f.ReadAt(p, 0); errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}
