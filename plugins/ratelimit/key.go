package main

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/wafermail/wafer/sdk"
)

// parts are the facts that a key may be made of.
const parts = "client, client-net, client-name, helo, user, sender, sender-domain, recipient, recipient-domain, door, global"

// maxParts is how many facts fit into a key, with the time of a reset behind them.
const maxParts = 6

// keys makes the keys of one configuration.
type keys struct {
	parts        []string
	bits4, bits6 int
}

// parseKeys reads the fields key, prefix4 and prefix6.
func parseKeys(c *sdk.Config) (k keys, err error) {
	k = keys{parts: strings.Split(c.String("key"), "+"), bits4: int(c.Int("prefix4")), bits6: int(c.Int("prefix6"))}
	for i, part := range k.parts {
		part = strings.TrimSpace(part)
		if _, known := k.fact(&sdk.Event{}, part); !known {
			return k, c.Errorf("key", strconv.Quote(part), "is none of", parts)
		}
		if slices.Contains(k.parts[:i], part) {
			return k, c.Errorf("key", strconv.Quote(part), "is there twice")
		}
		k.parts[i] = part
	}
	switch {
	case len(k.parts) > maxParts:
		return k, c.Errorf("key", "has more than", strconv.Itoa(maxParts), "parts")
	case k.bits4 < 1 || k.bits4 > 32:
		return k, c.Errorf("prefix4", "must be between 1 and 32")
	case k.bits6 < 1 || k.bits6 > 128:
		return k, c.Errorf("prefix6", "must be between 1 and 128")
	}
	return k, nil
}

// of joins the facts that the limit is about. ok is false if one of them is
// not there: a limit on users says nothing about a client without one.
func (k *keys) of(e *sdk.Event) (key string, ok bool) {
	if len(k.parts) == 1 {
		key, _ = k.fact(e, k.parts[0])
		return clip(key), key != ""
	}
	for i, part := range k.parts {
		f, _ := k.fact(e, part)
		if f == "" {
			return "", false
		}
		if i > 0 {
			key += "\x00" // in none of them
		}
		key += clip(f)
	}
	return key, true
}

// clip keeps what a peer chose within what a counter's key may be.
func clip(s string) string { return s[:min(len(s), sdk.MaxKey/8-1)] }

// fact is one part of a key in its canonical form, "" if the event has none.
func (k *keys) fact(e *sdk.Event, name string) (value string, known bool) {
	switch name {
	case "client":
		return e.Client(), true
	case "client-net":
		return k.network(e.Client()), true
	case "client-name":
		return strings.ToLower(e.ClientName()), true
	case "helo":
		return strings.ToLower(e.Helo()), true
	case "sender":
		if e.HasSender() && e.Sender() == "" {
			return "<>", true
		}
		return strings.ToLower(e.Sender()), true
	case "sender-domain":
		if e.HasSender() && e.Sender() == "" {
			return "<>", true
		}
		return domain(e.Sender()), true
	case "user":
		return strings.ToLower(e.User()), true
	case "recipient":
		return strings.ToLower(e.Recipient()), true
	case "recipient-domain":
		return domain(e.Recipient()), true
	case "door":
		return e.Door(), true
	case "global":
		return "global", true
	}
	return "", false
}

// network is the network of an address, "" if it is none.
func (k *keys) network(client string) string {
	a, err := netip.ParseAddr(client)
	if err != nil {
		return ""
	}
	a = a.Unmap().WithZone("")
	bits := k.bits6
	if a.Is4() {
		bits = k.bits4
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}

func domain(address string) string {
	return strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
}
