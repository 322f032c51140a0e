package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/admin"
)

// relaySMTP lets a program on standard input and output speak with the mx door of
// the running server, to which it is a client from loopback like any other: mail
// for elsewhere is taken only if that is a trusted network.
func relaySMTP(state string, std streams) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	b, err := admin.Ask(ctx, state, "/status")
	if err != nil {
		return &failure{exTempFail, err}
	}
	var st admin.Status
	if err := json.Unmarshal(b, &st); err != nil {
		return &failure{exTempFail, fmt.Errorf("read the server's status: %w", err)}
	}
	for _, l := range st.Listeners {
		if l.Profile != "mx" {
			continue
		}
		network, address := near(l.Address)
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return &failure{exTempFail, fmt.Errorf("connect to listener %s: %w", l.Name, err)}
		}
		return converse(conn, std)
	}
	return &failure{exUnavailable, errors.New("-bs needs a listener with the profile mx")}
}

// near is where to reach a listener's address from this machine.
func near(address string) (network, at string) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return "unix", path
	}
	a, err := netip.ParseAddrPort(address)
	switch {
	case err != nil: // no address of the internet: that of a socket
		return "unix", address
	case a.Addr().Is4() && a.Addr().IsUnspecified():
		a = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
	case a.Addr().IsUnspecified():
		a = netip.AddrPortFrom(netip.IPv6Loopback(), a.Port())
	}
	return "tcp", a.String()
}

// converse copies both ways until the server hangs up.
func converse(conn net.Conn, std streams) error {
	defer conn.Close() // nothing is left to be written
	// This one ends with its input, which may be after the server has said its
	// last word: then it ends with the process.
	go func() {
		_, err := io.Copy(conn, std.in)
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			_ = half.CloseWrite() // the server may have gone, which the other side sees
		}
	}()
	if _, err := io.Copy(std.out, conn); err != nil {
		return &failure{exTempFail, fmt.Errorf("speak with the server: %w", err)}
	}
	return nil
}
