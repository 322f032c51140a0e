// Package proxy reads the header that a load balancer puts in front of a
// connection to say who the client is: HAProxy's PROXY protocol, versions 1 and
// 2. It reads exactly the header, so that TLS can follow on the bare socket.
// Who may send one is the caller's to know.
//
// # BUGS
//
// TLVs of version 2 are passed over, and so is its checksum.
package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// Signature begins a header of version 2.
const Signature = "\r\n\r\n\x00\r\nQUIT\n"

const (
	maxV1 = 107  // octets with CR LF
	maxV2 = 2048 // octets after the fixed part, with the TLVs
)

// ErrMalformed means that what came is no PROXY header.
var ErrMalformed = errors.New("malformed PROXY header")

// Header is what a header says. The zero value means that the proxy speaks for
// itself, or for something that is not TCP.
type Header struct{ Client, Server netip.AddrPort }

// Read reads one header from r, to its last octet and no further. It returns
// ErrMalformed or the error of r; a deadline is the caller's.
func Read(r io.Reader) (Header, error) {
	var b [maxV2]byte
	if _, err := io.ReadFull(r, b[:len(Signature)]); err != nil {
		return Header{}, err
	}
	if string(b[:len(Signature)]) == Signature {
		var fixed [4]byte
		if _, err := io.ReadFull(r, fixed[:]); err != nil {
			return Header{}, err
		}
		n := binary.BigEndian.Uint16(fixed[2:])
		if n > maxV2 {
			return Header{}, ErrMalformed
		}
		if _, err := io.ReadFull(r, b[:n]); err != nil {
			return Header{}, err
		}
		return parseV2(fixed[0], fixed[1], b[:n])
	}
	if !bytes.HasPrefix(b[:], []byte("PROXY ")) {
		return Header{}, ErrMalformed
	}
	// Octet by octet: one too many would belong to the client.
	for n := len(Signature); n < maxV1; n++ {
		if _, err := io.ReadFull(r, b[n:n+1]); err != nil {
			return Header{}, err
		}
		if b[n] == '\n' {
			return parseV1(b[:n+1])
		}
	}
	return Header{}, ErrMalformed
}

// parseV1 parses "PROXY TCP4 source destination port port CR LF".
func parseV1(line []byte) (Header, error) {
	text, ok := strings.CutSuffix(string(line), "\r\n")
	words := strings.Split(text, " ")
	switch {
	case !ok || words[0] != "PROXY" || len(words) < 2:
		return Header{}, ErrMalformed
	case words[1] == "UNKNOWN":
		return Header{}, nil
	case len(words) != 6 || words[1] != "TCP4" && words[1] != "TCP6":
		return Header{}, ErrMalformed
	}
	client, ok := parseAddrPort(words[2], words[4], words[1] == "TCP4")
	if !ok {
		return Header{}, ErrMalformed
	}
	server, ok := parseAddrPort(words[3], words[5], words[1] == "TCP4")
	if !ok {
		return Header{}, ErrMalformed
	}
	return Header{client, server}, nil
}

func parseAddrPort(addr, port string, v4 bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Is4() != v4 || a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), err == nil && port[0] != '+'
}

// parseV2 parses what follows the signature: version and command, family,
// and the addresses with the TLVs, which are not used.
func parseV2(command, family byte, b []byte) (Header, error) {
	switch command {
	case 0x20: // LOCAL: the proxy's own health check
		return Header{}, nil
	case 0x21:
	default:
		return Header{}, ErrMalformed
	}
	size := 0
	switch family {
	case 0x11: // TCP over IPv4
		size = 4
	case 0x21: // TCP over IPv6
		size = 16
	case 0x00, 0x12, 0x22, 0x31, 0x32: // UDP, UNIX: no address that means anything here
		return Header{}, nil
	default:
		return Header{}, ErrMalformed
	}
	if len(b) < 2*size+4 {
		return Header{}, ErrMalformed
	}
	src, _ := netip.AddrFromSlice(b[:size])
	dst, _ := netip.AddrFromSlice(b[size : 2*size])
	ports := b[2*size:]
	return Header{
		netip.AddrPortFrom(src.Unmap(), binary.BigEndian.Uint16(ports)),
		netip.AddrPortFrom(dst.Unmap(), binary.BigEndian.Uint16(ports[2:])),
	}, nil
}
