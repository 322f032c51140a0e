package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/wafermail/wafer/sdk"
)

// world calls the host as often as its config says, or says what it heard.
func world(e *sdk.Event, do string, times int) (v sdk.Verdict, ok bool) {
	var said []string
	say := func(parts ...string) { said = append(said, strings.Join(parts, ",")) }
	word := func(err error) string {
		if err != nil {
			return err.Error()
		}
		return "ok"
	}
	switch do {
	case "storm":
		for {
			e.Now()
		}
	case "state storm":
		for {
			_, _ = e.StateSeen("k", time.Hour)
		}
	case "keys":
		for i := range times {
			if err := e.StatePut("k"+strconv.Itoa(i), nil, time.Hour); err != nil {
				return sdk.Defer(450, "4.7.1", err.Error()), true
			}
		}
	case "read":
		for i := 0; ; i++ {
			field, ok, err := e.Header("", i)
			if err != nil {
				say(err.Error())
			}
			if !ok {
				break
			}
			say(field)
		}
		subject, ok, err := e.Header("SUBJECT", 0)
		say(subject, strconv.FormatBool(ok), word(err))
		_, ok, err = e.Header("Subject", 1)
		say(strconv.FormatBool(ok), word(err))
		body := make([]byte, times)
		n, err := e.Body(body, 2)
		say(strconv.Itoa(n), word(err), string(body[:min(n, 8)]))
	case "remember":
		value, ok, err := e.StateGet("k")
		say(strconv.Itoa(len(value)), strconv.FormatBool(ok), word(err))
		say(word(e.StatePut("k", []byte(strings.Repeat("v", times)), time.Hour)))
		value, ok, err = e.StateGet("k")
		say(strconv.Itoa(len(value)), strconv.FormatBool(ok), word(err))
		for range 2 {
			seen, err := e.StateSeen("k", time.Hour)
			say(strconv.FormatInt(seen.Count, 10), strconv.FormatBool(seen.First.IsZero()), word(err))
		}
		say(word(e.StatePut("k", nil, 0)), word(e.StatePut("k", nil, 91*24*time.Hour)), word(e.StatePut(strings.Repeat("k", 1025), nil, time.Hour)))
		_, ok, err = e.StateGet("k")
		say(strconv.FormatBool(ok), word(err))
	case "look up":
		for _, name := range []string{"good", "none"} {
			for _, key := range []string{"known", "other"} {
				value, ok, err := e.List(name, key)
				say(value, strconv.FormatBool(ok), word(err))
			}
		}
		e.Metric("looked-up", 2)
		var p [4]byte
		e.Random(p[:])
		say(string(p[:]))
	case "directory":
		say(e.Fact(sdk.FactSenderClass), e.Fact(sdk.FactRecipientClass), e.Fact(sdk.FactSenderOwners), e.Fact(sdk.FactTags), e.Fact(sdk.FactScore))
	default:
		return v, false
	}
	return sdk.Reject(550, "5.7.1", strings.Join(said, "|")), true
}
