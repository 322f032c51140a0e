package imapd

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mptDiffers are replies in which we differ on purpose from the scripts and
// Dovecot: "script tag" and why.
var mptDiffers = map[string]string{
	"XList.test 10": "XLIST is not offered: SPECIAL-USE has taken its place",
}

// mptResults are search results that we do not share, and why.
var mptResults = map[string]string{
	"UidSearchAtoms.test A109": "the script says itself that 25 belongs there, as it does here",
	"Uid.test a":               "follows from a STORE that is BAD here and with Dovecot",
	"SearchOptionSave.test c":  "RETURN (SAVE) alone has no result (RFC 5182 §2.1)",
}

// mptSkips are scripts that test what is not offered.
var mptSkips = map[string]string{
	"Metadata.test":               "METADATA is not offered",
	"MetadataWithLimitation.test": "METADATA is not offered",
	"Replace.test":                "REPLACE is not offered",
	"SearchSaveDate.test":         "SAVEDATE is not offered",
	"FetchNILSaveDate.test":       "SAVEDATE is not offered",
}

type mptReply struct{ Tag, Script, Dovecot string }

// TestMPT plays the scripts of James's protocol tester. Their texts are that
// server's own, so only the status of the tagged replies is compared, and only
// where the script and Dovecot agree.
func TestMPT(t *testing.T) {
	dir := outside(t, "mpt")
	f, err := os.Open(filepath.Join(dir, "imap-dovecot-status.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	total, agreed := 0, 0
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var row struct {
			Script, State string
			Agree         int
			Stopped       *string
			Replies       []mptReply
		}
		if err := json.Unmarshal(in.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		if row.Agree == 0 || row.State == "non" {
			continue
		}
		t.Run(row.Script, func(t *testing.T) {
			if why, skip := mptSkips[row.Script]; skip {
				t.Skip(why)
			}
			raw, err := os.ReadFile(filepath.Join(dir, "imap", row.Script))
			if err != nil {
				t.Skipf("no script: %v", err)
			}
			n, same := playMPT(t, row.Script, row.State, string(raw), row.Replies)
			total += n
			agreed += same
		})
	}
	t.Logf("%d replies on which script and Dovecot agree, %d the same here", total, agreed)
}

var mptTagged = regexp.MustCompile(`^([A-Za-z0-9.]+) (OK|NO|BAD)`)

// mptSearch is a result that any server has to give.
var mptSearch = regexp.MustCompile(`^\* SEARCH[ 0-9]*$`)

func playMPT(t *testing.T, name, state, script string, known []mptReply) (total, same int) {
	ts := startServer(t, func(c *Config) { c.Limits.BadCommands = 1000 })
	sessions := map[string]*client{}
	session := func(id string) *client {
		c := sessions[id]
		if c == nil {
			c = ts.login(t)
			sessions[id] = c
			switch state {
			case "inbox":
				c.ok("SELECT INBOX")
			case "selected":
				if id == "1" {
					c.ok("CREATE selected")
				}
				c.ok("SELECT selected")
			}
		}
		return c
	}
	c := session("1")
	next := 0
	search := ""
	for _, line := range strings.Split(script, "\n") {
		line = strings.TrimSuffix(line, "\r")
		switch {
		case strings.HasPrefix(line, "SESSION: "):
			c = session(strings.TrimSpace(line[9:]))
		case strings.HasPrefix(line, "C:"):
			c.send(strings.TrimPrefix(line[2:], " ") + "\r\n")
		case strings.HasPrefix(line, `S: \+`):
			for r := c.reply(); !strings.HasPrefix(r, "+"); r = c.reply() {
				if r == "" || mptTagged.MatchString(r) {
					t.Logf("no continuation but %q", r)
					return total, same
				}
			}
		case strings.HasPrefix(line, "S: "):
			m := mptTagged.FindStringSubmatch(line[3:])
			if m == nil {
				if plain := strings.ReplaceAll(line[3:], `\`, ""); mptSearch.MatchString(plain) {
					search = strings.TrimSpace(plain)
				}
				continue
			}
			if next == len(known) {
				return total, same // Dovecot went no further
			}
			k := known[next]
			next++
			untagged, got := c.until(m[1])
			if search != "" && !strings.Contains(strings.Join(untagged, "\n")+"\n", search+"\n") {
				if why := mptResults[name+" "+m[1]]; why == "" {
					t.Errorf("%s: %s: %q, want %s", name, m[1], untagged, search)
				}
			}
			search = ""
			if got == "" {
				t.Errorf("%s: connection ended at %s", name, m[1])
				return total, same
			}
			if k.Script != k.Dovecot {
				continue
			}
			total++
			if status, _, _ := strings.Cut(got, " "); status == k.Dovecot {
				same++
			} else if why := mptDiffers[name+" "+k.Tag]; why == "" {
				t.Errorf("%s: %s %s, want %s", name, m[1], got, k.Dovecot)
			}
		}
	}
	return total, same
}
