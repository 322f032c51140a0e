package smtpd

import (
	"slices"
	"strings"
)

// extensions are keywords of EHLO in capitals.
type extensions []string

// Extensions are those that a door can do without.
func Extensions() []string {
	return []string{"8BITMIME", "BINARYMIME", "CHUNKING", "DSN", "PIPELINING", "SIZE", "SMTPUTF8"}
}

func (e extensions) has(keyword string) bool { return slices.Contains(e, keyword) }

// refuse reports whether a parameter of MAIL or RCPT belongs to one of e.
func (e extensions) refuse(key, value string) bool {
	if len(e) == 0 {
		return false
	}
	switch key {
	case "SMTPUTF8", "SIZE":
		return e.has(key)
	case "BODY":
		return strings.EqualFold(value, "BINARYMIME") && (e.has("BINARYMIME") || e.has("CHUNKING")) || e.has("8BITMIME")
	case "RET", "ENVID", "NOTIFY", "ORCPT":
		return e.has("DSN")
	}
	return false
}

// appendOffer appends a line of the reply to EHLO, unless the door does without.
func (e extensions) appendOffer(b []byte, keyword string) []byte {
	if e.has(keyword) || keyword == "BINARYMIME" && e.has("CHUNKING") {
		return b
	}
	return append(append(b, "\r\n250-"...), keyword...)
}
