package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/wafermail/wafer/sdk"
)

// A triplet is remembered as the time at which it came first, in ms since 1970,
// and "+" once it has come back. A network is remembered as how often it came
// back and when it did last: "3 1795000000000".

func encodeTriplet(first time.Time, passed bool) []byte {
	b := strconv.AppendInt(nil, first.UnixMilli(), 10)
	if passed {
		b = append(b, '+')
	}
	return b
}

// decodeTriplet reads what encodeTriplet wrote. A time that is not over, as when
// the clock was set back, is now.
func decodeTriplet(value []byte, now time.Time) (first time.Time, passed bool) {
	text, passed := strings.CutSuffix(string(value), "+")
	ms, err := strconv.ParseInt(text, 10, 64)
	if first = time.UnixMilli(ms); err != nil || first.After(now) {
		first = now
	}
	return first, passed
}

// once is how often a network is counted at most: many messages that come back
// together show one queue at work.
const once = time.Hour

// autoAllowed reports whether network has come back often enough to be let
// through, and then keeps it from being forgotten.
func (g *gate) autoAllowed(e *sdk.Event, network string) (bool, error) {
	if g.autoAllow == 0 {
		return false, nil
	}
	count, last, err := g.network(e, network)
	if err != nil || count < g.autoAllow {
		return false, err
	}
	return true, g.count(e, network, count, last)
}

// cameBack counts one success of network.
func (g *gate) cameBack(e *sdk.Event, network string) error {
	if g.autoAllow == 0 {
		return nil
	}
	count, last, err := g.network(e, network)
	if err != nil {
		return err
	}
	return g.count(e, network, count, last)
}

// network returns how often network came back, and when last.
func (g *gate) network(e *sdk.Event, network string) (count int64, last time.Time, err error) {
	value, ok, err := e.StateGet("n" + network)
	if err != nil || !ok {
		return 0, time.Time{}, err
	}
	n, at, _ := strings.Cut(string(value), " ")
	count, _ = strconv.ParseInt(n, 10, 64)
	ms, _ := strconv.ParseInt(at, 10, 64)
	return count, time.UnixMilli(ms), nil
}

// count adds one to count, but for what was counted within the hour.
func (g *gate) count(e *sdk.Event, network string, count int64, last time.Time) error {
	now := e.Now()
	if since := now.Sub(last); count > 0 && since >= 0 && since < once {
		return nil
	}
	value := strconv.FormatInt(count+1, 10) + " " + strconv.FormatInt(now.UnixMilli(), 10)
	return e.StatePut("n"+network, []byte(value), g.maxAge)
}
