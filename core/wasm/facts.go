package wasm

import (
	"strconv"
	"strings"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
	"github.com/wafermail/wafer/sdk/abi"
)

// factOf is the rare fact called name, "" where the event has none.
func factOf(ev *policy.Event, name string) string {
	if ev == nil {
		return ""
	}
	switch name {
	case abi.FactServer:
		if ev.Server.IsValid() {
			return ev.Server.String()
		}
	case abi.FactReverseName:
		return ev.ReverseName
	case abi.FactMechanism:
		return ev.Mechanism
	case abi.FactTLSVersion:
		return ev.TLS.Version
	case abi.FactTLSCipher:
		return ev.TLS.Cipher
	case abi.FactTLSSNI:
		return ev.TLS.SNI
	case abi.FactRecipients:
		var b strings.Builder
		for i, p := range ev.Rcpts {
			if i > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(p.String())
		}
		return b.String()
	case abi.FactRecipientClass:
		return classOf(ev, ev.Recipient)
	case abi.FactSenderClass:
		if ev.HasSender {
			return classOf(ev, ev.Sender)
		}
	case abi.FactSenderOwners:
		if ev.Directory != nil && ev.HasSender && !ev.Sender.IsNull() {
			return strings.Join(ev.Directory.Owners(ev.Sender), "\n")
		}
	case abi.FactTags:
		return strings.Join(ev.Tags, "\n")
	case abi.FactScore:
		return strconv.FormatFloat(ev.Score, 'f', -1, 64)
	case abi.FactAttempts:
		if ev.Stage == policy.Route || ev.Stage == policy.Bounce {
			return strconv.Itoa(ev.Attempts)
		}
	case abi.FactReply:
		return ev.Reply
	case abi.FactNotice:
		return ev.Notice
	}
	return ""
}

func classOf(ev *policy.Event, p mail.Path) string {
	if ev.Directory == nil || p.IsNull() {
		return ""
	}
	return ev.Directory.Class(p)
}
