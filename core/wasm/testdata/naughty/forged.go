package main

import (
	"strings"

	"github.com/wafermail/wafer/sdk"
)

// forged is a verdict that the SDK's functions would never make.
func forged(do string, times int) (v sdk.Verdict, ok bool) {
	mod := func(op int, name, value string) []sdk.Mod { return []sdk.Mod{{Op: op, Name: name, Value: value}} }
	switch do {
	case "forge text":
		v = sdk.Verdict{Action: sdk.ActionReject, Code: 550, Text: "no\r\n250 2.0.0 yes"}
	case "forge code":
		v = sdk.Verdict{Action: sdk.ActionReject, Code: 250}
	case "forge action":
		v = sdk.Verdict{Action: 200}
	case "forge header":
		v.Mods = mod(1, "X-A", "b\r\nBcc: eve@example.net")
	case "forge name":
		v.Mods = mod(1, "X-A: b\r\nX-C", "d")
	case "forge address":
		v = sdk.Verdict{Action: sdk.ActionNext, Mods: mod(4, "", "a@b.example>\r\nDATA")}
	case "forge operation":
		v.Mods = mod(99, "", "")
	case "giant text":
		v = sdk.Verdict{Action: sdk.ActionReject, Code: 550, Text: strings.Repeat("x", times)}
	case "illegal action":
		v = sdk.Hold()
	case "illegal effect":
		v = sdk.Next().BCC("log@example.com")
	default:
		return v, false
	}
	return v, true
}
