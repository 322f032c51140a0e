//go:build !unix

package relay

import "net"

// alive cannot be known here.
func alive(net.Conn) bool { return true }
