package maildir

import (
	"os"

	"golang.org/x/sys/unix"
)

// readHead reads the first octets of a file into p, as many as there are. It does
// without an os.File, which costs as much as the reading of a small file.
func readHead(name string, p []byte) (n int, err error) {
	fd := -1
	for {
		fd, err = unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd) // only read
	for n < len(p) {
		m, err := unix.Read(fd, p[n:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return n, &os.PathError{Op: "read", Path: name, Err: err}
		case m == 0:
			return n, nil
		}
		n += m
	}
	return n, nil
}
