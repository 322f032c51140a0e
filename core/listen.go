package core

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/config"
)

// door is one listener with the protocol engine behind it.
type door struct {
	name    string // of the listener block
	profile string
	block   config.Listener
	ln      net.Listener
	engine  engine
	stats   func() admin.Listener // without name, profile and address
}

// engine is what every protocol package's Server is.
type engine interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

// listeners opens sockets: those that systemd passed, by the name of the
// listener block (FileDescriptorName=), else new ones.
type listeners struct {
	passed map[string][]net.Listener
}

func inherit() (*listeners, error) {
	passed, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("take sockets from systemd: %w", err)
	}
	return &listeners{passed: passed}, nil
}

// open returns the socket for a listener block: name and one of its addresses,
// "HOST:PORT" or "unix:PATH".
func (l *listeners) open(name, address string) (net.Listener, error) {
	if have := l.passed[name]; len(have) > 0 {
		l.passed[name] = have[1:]
		return have[0], nil
	}
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
