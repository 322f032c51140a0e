package core

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
)

// listeners opens sockets: those that systemd passed, by the name of the
// listener block (FileDescriptorName=), else new ones.
type listeners struct {
	passed  map[string][]net.Listener
	counted map[string]int // addresses of each listener block so far
}

func inherit() (*listeners, error) {
	passed, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("take sockets from systemd: %w", err)
	}
	return &listeners{passed: passed}, nil
}

// bind opens a socket before anybody asks for it, unless systemd has passed one.
func (l *listeners) bind(name, address string) error {
	if l.counted == nil {
		l.counted = map[string]int{}
	}
	if l.counted[name]++; l.counted[name] <= len(l.passed[name]) {
		return nil
	}
	ln, err := l.listen(name, address)
	if err == nil {
		if l.passed == nil {
			l.passed = map[string][]net.Listener{}
		}
		l.passed[name] = append(l.passed[name], ln)
	}
	return err
}

// open returns the socket for a listener block: name and one of its addresses,
// "HOST:PORT" or "unix:PATH".
func (l *listeners) open(name, address string) (net.Listener, error) {
	if have := l.passed[name]; len(have) > 0 {
		l.passed[name] = have[1:]
		return have[0], nil
	}
	return l.listen(name, address)
}

func (l *listeners) listen(name, address string) (net.Listener, error) {
	network, addr := "tcp", address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, addr = "unix", path
		if fi, err := os.Lstat(path); err == nil && fi.Mode()&os.ModeSocket != 0 {
			if err := os.Remove(path); err != nil {
				return nil, fmt.Errorf("listener %q: %w", name, err)
			}
		}
	}
	ln, err := net.Listen(network, addr)
	switch {
	case err == nil:
		return ln, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listener %q: another program has %s; stop it or write another address (ss -ltnp shows who)", name, address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listener %q: %s needs the superuser's rights: start as root with run_as, or let systemd open the socket", name, address)
	}
	return nil, fmt.Errorf("listener %q: %w", name, err)
}

// close closes what nobody took.
func (l *listeners) close() {
	for _, lns := range l.passed {
		for _, ln := range lns {
			ln.Close() // never served
		}
	}
}
