// Command naughty is a plugin for tests that does what its check's config says,
// which is rarely good.
package main

import (
	"os"
	"strings"
	"time"

	"github.com/wafermail/wafer/sdk"
)

var plugin = sdk.Plugin{
	ID:      "org.example.naughty",
	Version: "1.0.0",
	Help:    "misbehaves on request",
	Stages:  []sdk.Stage{sdk.Connect, sdk.Helo, sdk.Mail, sdk.Rcpt, sdk.Message},
	Grants: []sdk.Grant{
		{Name: "dns", Optional: true, Help: "to ask too much"},
		{Name: "count", Optional: true, Help: "to count too much"},
		{Name: "message", Optional: true, Help: "to read too much"},
		{Name: "state", Optional: true, Help: "to remember too much"},
		{Name: "list", Optional: true, Help: "to look too much up"},
	},
	Fields: []sdk.Field{
		{Name: "do", Type: sdk.String, Default: []string{"nothing"}, Help: "what to do"},
		{Name: "times", Type: sdk.Int, Default: []string{"3"}, Help: "how often"},
		{Name: "words", Type: sdk.List, Help: "what to say"},
	},
	Configure: configure,
}

var _ = sdk.Serve(&plugin)

func main() {}

var kept [][]byte

func configure(c *sdk.Config) (sdk.Judge, error) {
	do, times, words := c.String("do"), int(c.Int("times")), c.Strings("words")
	if do == "complain" {
		return nil, c.Errorf("do", "this plugin does not complain")
	}
	n := 0
	return func(e *sdk.Event) sdk.Verdict {
		n++
		if v, ok := forged(do, times); ok {
			return v
		}
		if v, ok := world(e, do, times); ok {
			return v
		}
		switch do {
		case "loop":
			for i := 0; ; i++ {
				n ^= i
			}
		case "recurse":
			return sdk.Next().AddScore(float64(deep(n)))
		case "allocate":
			for {
				kept = append(kept, make([]byte, 1<<20))
			}
		case "mutual":
			return sdk.Next().AddScore(float64(even(n)))
		case "pointer":
			var p *int
			*p = n
		case "goroutines":
			for {
				go func() { select {} }()
			}
		case "custom panic":
			panic("line one\r\nline two")
		case "panic":
			var m map[string]int
			m[e.Helo()] = 1
		case "index":
			return sdk.Reject(550, "5.7.1", words[len(e.Helo())])
		case "exit":
			os.Exit(3)
		case "deadlock":
			<-make(chan int)
		case "sleep":
			time.Sleep(time.Hour)
			return sdk.Accept()
		case "file":
			if b, err := os.ReadFile("/etc/passwd"); err == nil {
				return sdk.Reject(550, "5.7.1", string(b))
			}
			return sdk.Reject(550, "5.7.1", "args "+strings.Join(os.Args, ",")+" env "+strings.Join(os.Environ(), ","))
		case "log":
			for range times {
				e.Log(sdk.Info, strings.Repeat("x", 1000))
			}
		case "print":
			for range times {
				os.Stdout.WriteString(strings.Repeat("y", 1000) + "\n")
			}
		case "dns":
			var qs []sdk.Question
			for range times {
				qs = append(qs, sdk.Question{Type: "A", Name: "a.example"})
			}
			as, err := e.DNS(qs...)
			if err != nil {
				return sdk.Defer(450, "4.7.1", err.Error())
			}
			var records []string
			for _, a := range as {
				records = append(records, a.Records...)
			}
			return sdk.Reject(550, "5.7.1", strings.Join(records, " "))
		case "count":
			for range times {
				if _, err := e.Count("k", 1, time.Minute); err != nil {
					return sdk.Defer(450, "4.7.1", err.Error())
				}
			}
		case "facts":
			return sdk.Reject(550, "5.7.1", strings.Join([]string{
				e.Session(), e.Door(), e.Protocol(), e.Client(), e.ClientName(), e.Helo(), e.User(), e.Sender(),
				e.Recipient(), e.Hostname(), e.QueueID(), e.Fact("server"), e.Fact("recipients"), e.Fact("tls-version"),
				e.Fact("nonsense"), e.Now().UTC().Format(time.DateTime), e.Time().UTC().Format(time.DateTime),
			}, "|"))
		case "effects":
			return sdk.Accept().AddHeader("X-Policy", "one\r\ntwo").Tag("seen").AddScore(1.5).BCC("log@example.com").
				Redirect("jail@example.com").Tarpit(2 * time.Second).Because("all-of-it")
		case "mods":
			v := sdk.Next()
			for range times {
				v = v.Tag("t")
			}
			return v
		case "discard":
			return sdk.Discard()
		case "fail":
			return sdk.Fail("no idea")
		case "state":
			return sdk.Next().AddScore(float64(n))
		}
		return sdk.Next()
	}, nil
}

//go:noinline
func deep(n int) int {
	var pad [16]int
	pad[n&15] = n
	return deep(n+1) + pad[(n+1)&15]
}

//go:noinline
func even(n int) int { return odd(n+1) + 1 }

//go:noinline
func odd(n int) int { return even(n+1) + 1 }
