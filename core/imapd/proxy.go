package imapd

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

// The PROXY protocol, versions 1 and 2, as HAProxy's proxy-protocol.txt has
// it. The header is read to its last octet and no further: TLS may follow.

const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyMaxV1     = 107
	proxyMaxV2     = 2048 // octets behind the fixed part
)

var errProxy = errors.New("malformed PROXY header")

// readProxy reads the header of a connection from a proxy. A proxy that sends
// none is misconfigured; to take its address for the client's would be wrong.
func (s *session) readProxy() bool {
	trusted := false
	for _, p := range s.srv.c.ProxyFrom {
		trusted = trusted || p.Contains(s.client.Addr())
	}
	if !trusted {
		return true
	}
	if err := s.wake.arm(time.Until(s.loginBy)); err != nil {
		return false
	}
	client, server, err := proxyHeader(s.raw)
	if err != nil {
		s.srv.refused.Add(1)
		s.log.Warn("no PROXY header from a proxy", "client", s.client.String(), "error", err)
		return false
	}
	if client.IsValid() {
		s.client, s.local = client, server
	}
	return true
}

// proxyHeader reads one header. Without addresses in it (LOCAL, UNKNOWN, not
// TCP) they are invalid: the proxy speaks for itself.
func proxyHeader(r io.Reader) (client, server netip.AddrPort, err error) {
	var b [16]byte
	if _, err = io.ReadFull(r, b[:len(proxySignature)]); err != nil {
		return client, server, err
	}
	if string(b[:len(proxySignature)]) != proxySignature {
		return proxyV1(r, b[:len(proxySignature)])
	}
	if _, err = io.ReadFull(r, b[12:]); err != nil {
		return client, server, err
	}
	n := int(binary.BigEndian.Uint16(b[14:]))
	if b[12]>>4 != 2 || b[12]&15 > 1 || n > proxyMaxV2 {
		return client, server, errProxy
	}
	rest := make([]byte, n)
	if _, err = io.ReadFull(r, rest); err != nil {
		return client, server, err
	}
	size := map[byte]int{0x11: 4, 0x21: 16}[b[13]]
	if b[12]&15 == 0 || size == 0 {
		return client, server, nil
	}
	if n < 2*size+4 {
		return client, server, errProxy
	}
	at := func(addr, port int) netip.AddrPort {
		a, _ := netip.AddrFromSlice(rest[addr : addr+size]) // 4 or 16 octets
		return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(rest[port:]))
	}
	return at(0, 2*size), at(size, 2*size+2), nil
}

// proxyV1 reads the text form, of which b has been read.
func proxyV1(r io.Reader, b []byte) (client, server netip.AddrPort, err error) {
	line := append(make([]byte, 0, proxyMaxV1), b...)
	if !bytes.HasPrefix(line, []byte("PROXY ")) {
		return client, server, errProxy
	}
	for line[len(line)-1] != '\n' {
		if len(line) == proxyMaxV1 {
			return client, server, errProxy
		}
		line = append(line, 0)
		if _, err = io.ReadFull(r, line[len(line)-1:]); err != nil {
			return client, server, err
		}
	}
	text, ok := strings.CutSuffix(string(line), "\r\n")
	if !ok {
		return client, server, errProxy
	}
	f := strings.Split(text, " ")
	if len(f) >= 2 && f[1] == "UNKNOWN" {
		return client, server, nil
	}
	if len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6" {
		return client, server, errProxy
	}
	for i, to := range []*netip.AddrPort{&client, &server} {
		a, err := netip.ParseAddr(f[2+i])
		if err != nil || a.Zone() != "" || a.Is4() != (f[1] == "TCP4") {
			return netip.AddrPort{}, netip.AddrPort{}, errProxy
		}
		port, err := strconv.ParseUint(f[4+i], 10, 16)
		if err != nil {
			return netip.AddrPort{}, netip.AddrPort{}, errProxy
		}
		*to = netip.AddrPortFrom(a.Unmap(), uint16(port))
	}
	return client, server, nil
}
