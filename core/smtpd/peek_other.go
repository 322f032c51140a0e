//go:build !unix

package smtpd

import "net"

// unread cannot look into a socket here: early talkers show only with GreetDelay.
func unread(net.Conn) bool { return false }
