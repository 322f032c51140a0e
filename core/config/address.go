package config

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// checkAddress says what to write instead of a, or "".
func checkAddress(a, profile string) string {
	if path, ok := strings.CutPrefix(a, "unix:"); ok {
		switch {
		case profile != "lmtp" && profile != "policy":
			return "A Unix socket is for the profiles \"lmtp\" and \"policy\" only; write HOST:PORT."
		case !filepath.IsAbs(path):
			return "Write an absolute path: \"unix:/run/wafer/" + profile + "\"."
		}
		return ""
	}
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		return `Write ":25", "192.0.2.1:25" or "[2001:db8::1]:25".`
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "The port must be a number up to 65535."
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && host != "localhost" {
		return "Write an address of this machine, or no host for all of them."
	}
	return ""
}

// claim is what a listener's address keeps others from.
type claim struct {
	text     string // as written
	listener string
	unix     string     // path of a socket
	addr     netip.Addr // the zero Addr: every address
	port     uint64
}

// claimOf reads an address that checkAddress has nothing against. Port 0 claims
// nothing: it is whichever is free.
func claimOf(a string) (claim, bool) {
	if path, ok := strings.CutPrefix(a, "unix:"); ok {
		return claim{text: a, unix: filepath.Clean(path)}, true
	}
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		return claim{}, false
	}
	c := claim{text: a}
	if c.port, err = strconv.ParseUint(port, 10, 16); err != nil || c.port == 0 {
		return claim{}, false
	}
	switch host {
	case "": // every address of IPv4 and IPv6
	case "localhost":
		c.addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	default:
		if c.addr, err = netip.ParseAddr(host); err != nil {
			return claim{}, false
		}
		if c.addr = c.addr.Unmap(); c.addr == netip.IPv6Unspecified() {
			c.addr = netip.Addr{} // takes IPv4 too
		}
	}
	return c, true
}

// clashes reports whether c and other cannot both be listened on.
func (c claim) clashes(other claim) bool {
	if c.unix != "" || other.unix != "" {
		return c.unix == other.unix
	}
	every4 := netip.IPv4Unspecified()
	switch {
	case c.port != other.port:
		return false
	case !c.addr.IsValid() || !other.addr.IsValid() || c.addr == other.addr:
		return true
	}
	return c.addr == every4 && other.addr.Is4() || other.addr == every4 && c.addr.Is4()
}
