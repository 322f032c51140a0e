package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestSendmailOptions: the command lines that programs use.
func TestSendmailOptions(t *testing.T) {
	t.Setenv("WAFER_CONFIG", "env.hcl")
	type h = handover
	for _, c := range []struct {
		args string // "''" is an empty one
		want handover
	}{
		{"", h{}},
		{"ann@x bob@x", h{rcpts: []string{"ann@x", "bob@x"}}},
		{"-i -f ann@x bob@x", h{dots: true, from: "ann@x", hasFrom: true, rcpts: []string{"bob@x"}}},
		{"-oi -fann@x -- -bob@x", h{dots: true, from: "ann@x", hasFrom: true, rcpts: []string{"-bob@x"}}},
		{"-o i bob@x", h{dots: true, rcpts: []string{"bob@x"}}},
		{"-ti", h{extract: true, dots: true}},
		{"-it -oem -odi -om -oee -o7", h{extract: true, dots: true}},
		{"-t bob@x", h{extract: true, rcpts: []string{"bob@x"}}},
		{"-f <> bob@x", h{from: "<>", hasFrom: true, rcpts: []string{"bob@x"}}},
		{"-f '' bob@x", h{hasFrom: true, rcpts: []string{"bob@x"}}},
		{"-r ann@x -F Ann bob@x", h{from: "ann@x", hasFrom: true, name: "Ann", rcpts: []string{"bob@x"}}},
		{"bob@x -f ann@x", h{from: "ann@x", hasFrom: true, rcpts: []string{"bob@x"}}},
		{"-bm -em -v -G -U -n -m -h 3 -L tag -O a=b -p SMTP:h -X log -Am -Ac -d0.1 bob@x", h{rcpts: []string{"bob@x"}}},
		{"-N never -R hdrs -V id1 bob@x", h{notify: "NEVER", ret: "HDRS", envid: "id1", rcpts: []string{"bob@x"}}},
		{"-Nsuccess,Delay -RFULL bob@x", h{notify: "SUCCESS,DELAY", ret: "FULL", rcpts: []string{"bob@x"}}},
		{"-B8BITMIME bob@x", h{body: "8BITMIME", rcpts: []string{"bob@x"}}},
		{"-B 7bit bob@x", h{body: "7BIT", rcpts: []string{"bob@x"}}},
		{"-bp", h{mode: 'p'}},
		{"-bp -Ac", h{mode: 'p'}},
		{"-bi", h{mode: 'i'}},
		{"-I", h{mode: 'i'}},
		{"-bs", h{mode: 's'}},
		{"-b s", h{mode: 's'}},
		{"-q", h{flush: true}},
		{"-q30m", h{flush: true}},
		{"-qIABC", h{flush: true, id: "ABC"}},
		{"-qRexample.test", h{flush: true, site: "example.test"}},
		{"-qS@example.test", h{flush: true, site: "example.test"}},
		{"-C my.hcl bob@x", h{config: "my.hcl", rcpts: []string{"bob@x"}}},
		{"-Cmy.hcl -- bob@x --", h{config: "my.hcl", rcpts: []string{"bob@x", "--"}}},
	} {
		t.Run(c.args, func(t *testing.T) {
			if c.want.mode == 0 {
				c.want.mode = 'm'
			}
			if c.want.config == "" {
				c.want.config = "env.hcl"
			}
			args := strings.Fields(strings.ReplaceAll(c.args, "''", "\x00"))
			for i := range args {
				args[i] = strings.Trim(args[i], "\x00")
			}
			got, err := parseSendmail(args)
			if err != nil {
				t.Fatal(err)
			}
			if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", c.want); g != w {
				t.Errorf("got  %s\nwant %s", g, w)
			}
		})
	}
}

// TestSendmailUsage: what is not understood is said, and nothing is sent.
func TestSendmailUsage(t *testing.T) {
	for args, want := range map[string]string{
		"-f":                   "option -f needs a value",
		"-tF":                  "option -F needs a value",
		"-b":                   "option -b needs a value",
		"-bv bob@x":            "-bv is not supported",
		"-bd -q5m":             "-bd is not supported",
		"-bz":                  "-bz is not supported",
		"-j bob@x":             "there is no option -j",
		"--help":               "there is no option --",
		"-N sometimes bob@x":   "write never, or some of",
		"-N never,delay bob@x": "write never, or some of",
		"-N delay, bob@x":      "write never, or some of",
		"-R some bob@x":        "write full or hdrs",
		"-V \x01 bob@x":        "printable characters",
		"-B utf8 bob@x":        "write 7bit or 8bitmime",
		"":                     "nobody to send it to",
		"-i":                   "nobody to send it to",
		"Ann,,Ann@@x":          "an @ too many",
		"-f ann@x,bob@x bob@x": "2 senders",
		"-f <ann@x bob@x":      "sender: no > behind an address",
	} {
		t.Run(args, func(t *testing.T) {
			std, _, errs := captured("")
			file := writeConfig(t, t.TempDir())
			if code := wafer(append([]string{"sendmail", "-C", file}, strings.Fields(args)...), std); code != exUsage {
				t.Errorf("exit code %d, want %d", code, exUsage)
			}
			if !strings.Contains(errs.String(), want) {
				t.Errorf("said %q, want %q", errs, want)
			}
		})
	}
}
