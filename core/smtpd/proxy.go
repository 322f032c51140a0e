package smtpd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// The PROXY protocol of HAProxy, versions 1 and 2. The header is read to its
// last octet and no further, so that TLS can follow on the bare socket.

const (
	proxyV2Signature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyV1Max       = 107  // octets with CR LF
	proxyV2Max       = 2048 // octets after the fixed part, with the TLVs
)

var errProxy = errors.New("malformed PROXY header")

// proxied is what a PROXY header says. The zero value means that the proxy
// speaks for itself or for something that is not TCP.
type proxied struct{ client, server netip.AddrPort }

// readProxy reads the header that a peer in ProxyFrom has to send; false means
// close. A proxy that does not send one is misconfigured, and its own address
// must not be taken for the client's.
func (s *session) readProxy() bool {
	if !s.await(time.Now().Add(s.limits.Proxy)) {
		return false
	}
	p, err := readProxyHeader(s.raw)
	s.idle.Store(false)
	if err != nil {
		s.srv.log.Warn("no PROXY header from a proxy", "session", string(s.id), "client", s.client.Addr.String(), "error", err)
		return false
	}
	if p.client.IsValid() {
		s.client.Addr, s.server = p.client, p.server
	}
	return true
}

// readProxyHeader reads one header from r.
func readProxyHeader(r io.Reader) (proxied, error) {
	var b [proxyV2Max]byte
	if _, err := io.ReadFull(r, b[:len(proxyV2Signature)]); err != nil {
		return proxied{}, err
	}
	if string(b[:len(proxyV2Signature)]) == proxyV2Signature {
		var fixed [4]byte
		if _, err := io.ReadFull(r, fixed[:]); err != nil {
			return proxied{}, err
		}
		n := binary.BigEndian.Uint16(fixed[2:])
		if n > proxyV2Max {
			return proxied{}, errProxy
		}
		if _, err := io.ReadFull(r, b[:n]); err != nil {
			return proxied{}, err
		}
		return parseProxyV2(fixed[0], fixed[1], b[:n])
	}
	if !bytes.HasPrefix(b[:], []byte("PROXY ")) {
		return proxied{}, errProxy
	}
	// Octet by octet: one too many would belong to the client.
	for n := len(proxyV2Signature); n < proxyV1Max; n++ {
		if _, err := io.ReadFull(r, b[n:n+1]); err != nil {
			return proxied{}, err
		}
		if b[n] == '\n' {
			return parseProxyV1(b[:n+1])
		}
	}
	return proxied{}, errProxy
}

// parseProxyV1 parses "PROXY TCP4 source destination port port CR LF".
func parseProxyV1(line []byte) (proxied, error) {
	text, ok := strings.CutSuffix(string(line), "\r\n")
	words := strings.Split(text, " ")
	switch {
	case !ok || words[0] != "PROXY" || len(words) < 2:
		return proxied{}, errProxy
	case words[1] == "UNKNOWN":
		return proxied{}, nil
	case len(words) != 6 || words[1] != "TCP4" && words[1] != "TCP6":
		return proxied{}, errProxy
	}
	client, ok := parseAddrPort(words[2], words[4], words[1] == "TCP4")
	if !ok {
		return proxied{}, errProxy
	}
	server, ok := parseAddrPort(words[3], words[5], words[1] == "TCP4")
	if !ok {
		return proxied{}, errProxy
	}
	return proxied{client, server}, nil
}

func parseAddrPort(addr, port string, v4 bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Is4() != v4 || a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), err == nil && port[0] != '+'
}

// parseProxyV2 parses what follows the signature: version and command, family,
// and the addresses with the TLVs, which are not used.
func parseProxyV2(command, family byte, b []byte) (proxied, error) {
	switch command {
	case 0x20: // LOCAL: the proxy's own health check
		return proxied{}, nil
	case 0x21:
	default:
		return proxied{}, errProxy
	}
	size := 0
	switch family {
	case 0x11: // TCP over IPv4
		size = 4
	case 0x21: // TCP over IPv6
		size = 16
	case 0x00, 0x12, 0x22, 0x31, 0x32: // UDP, UNIX: no address that means anything here
		return proxied{}, nil
	default:
		return proxied{}, errProxy
	}
	if len(b) < 2*size+4 {
		return proxied{}, errProxy
	}
	src, _ := netip.AddrFromSlice(b[:size])
	dst, _ := netip.AddrFromSlice(b[size : 2*size])
	ports := b[2*size:]
	return proxied{
		netip.AddrPortFrom(src.Unmap(), binary.BigEndian.Uint16(ports)),
		netip.AddrPortFrom(dst.Unmap(), binary.BigEndian.Uint16(ports[2:])),
	}, nil
}
