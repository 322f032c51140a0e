package imapd

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// imaptestSkips are the scripts that are not played, and why.
var imaptestSkips = map[string]string{
	"urlauth-binary":         "URLAUTH is not offered",
	"search-context-update":  "CONTEXT=SEARCH is not offered",
	"search-context-update2": "CONTEXT=SEARCH is not offered",
	"catenate":               "CATENATE is not offered",
	"catenate-multiappend":   "CATENATE and MULTIAPPEND are not offered",
}

// TestImaptest plays the scripted tests of Dovecot's imaptest.
func TestImaptest(t *testing.T) {
	dir := outside(t, "imaptest")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := e.Name()
		if filepath.Ext(name) != "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			if why, skip := imaptestSkips[name]; skip {
				t.Skip(why)
			}
			runImaptest(t, dir, name)
		})
	}
}

// imaptestRun is one script being played.
type imaptestRun struct {
	t       *testing.T
	vars    map[string]string
	clients []*client
	seqs    [][]int // by client: the original numbers of the messages it counts
	mbox    []mboxMessage
	next    int
}

func runImaptest(t *testing.T, dir, name string) {
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(raw), "\n")
	head := map[string]string{"connections": "1", "state": "selected", "messages": "0"}
	for len(lines) > 0 && lines[0] != "" {
		if k, v, ok := strings.Cut(lines[0], ":"); ok {
			head[k] = strings.TrimSpace(v)
		}
		lines = lines[1:]
	}
	ts := startServer(t, nil)
	r := &imaptestRun{t: t, vars: map[string]string{"mailbox": "imaptest", "mailbox_url": "imaptest"}, mbox: readMbox(t, dir, name)}
	n, _ := strconv.Atoi(head["connections"])
	for range n {
		if head["state"] == "nonauth" {
			c := ts.dial(t)
			c.reply()
			r.clients = append(r.clients, c)
			continue
		}
		r.clients = append(r.clients, ts.login(t))
	}
	r.seqs = make([][]int, n)
	for _, want := range strings.Fields(head["capabilities"]) {
		have := strings.Join(r.clients[0].ok("CAPABILITY"), " ")
		if !regexp.MustCompile(`(?i)[ ]` + regexp.QuoteMeta(want) + `\b`).MatchString(have) {
			t.Skipf("needs %s, which is not offered", want)
		}
	}
	if s := head["state"]; s == "created" || s == "selected" {
		r.clients[0].ok("CREATE imaptest")
		count, err := strconv.Atoi(head["messages"])
		if err != nil {
			count = len(r.mbox)
		}
		for range count {
			date, text := r.message()
			if got := r.clients[0].appendMessage("imaptest", date, text); !strings.HasPrefix(got, "OK") {
				t.Fatal(got)
			}
		}
		if s == "selected" {
			for i, c := range r.clients {
				c.ok("SELECT imaptest")
				for k := range count {
					r.seqs[i] = append(r.seqs[i], k+1)
				}
			}
		}
	}
	r.play(lines)
}

// mboxMessage is a message of a script's mailbox, and the date on its From_ line as
// APPEND has it.
type mboxMessage struct{ date, text string }

func readMbox(t *testing.T, dir, name string) (msgs []mboxMessage) {
	raw, err := os.ReadFile(filepath.Join(dir, name+".mbox"))
	if err != nil {
		if raw, err = os.ReadFile(filepath.Join(dir, "default.mbox")); err != nil {
			t.Fatal(err)
		}
	}
	line := regexp.MustCompile(`(?m)^From .*\n`)
	heads := line.FindAllString(string(raw), -1)
	for i, m := range line.Split(string(raw), -1)[1:] {
		if i+1 < len(heads) || strings.HasSuffix(m, "\n\n") { // the blank line before the next one
			m = strings.TrimSuffix(m, "\n")
		}
		date := ""
		if f := strings.Fields(heads[i]); len(f) >= 6 {
			if at, err := time.Parse(time.ANSIC, strings.Join(f[len(f)-5:], " ")); err == nil {
				date = at.Format(`"` + dateTimeLayout + `"`)
			}
		}
		msgs = append(msgs, mboxMessage{date, crlf([]byte(m))})
	}
	return msgs
}

func (r *imaptestRun) message() (date, text string) {
	m := r.mbox[r.next%len(r.mbox)]
	r.next++
	return m.date, m.text
}

// group is a command with what it must be answered with.
type imaptestGroup struct {
	at       int
	conn     int
	status   string // "ok", "no", "bad", `""`
	command  string
	tagged   string // rest of the status line
	expected []string
}

func (r *imaptestRun) play(lines []string) {
	var groups []*imaptestGroup
	for i := 0; i < len(lines); i++ {
		at, line := i+1, lines[i]
		for strings.Count(line, "{{{") > strings.Count(line, "}}}") && i+1 < len(lines) {
			i++
			line += "\n" + lines[i]
		}
		if line == "" || line[0] == '#' {
			continue
		}
		if (line[0] == '*' || line[0] == '!') && len(groups) > 0 {
			g := groups[len(groups)-1]
			g.expected = append(g.expected, line)
			continue
		}
		g := &imaptestGroup{at: at, conn: 1}
		if len(line) > 2 && line[0] >= '1' && line[0] <= '9' && line[1] == ' ' {
			g.conn, line = int(line[0]-'0'), line[2:]
		}
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "ok", "no", "bad", `""`:
			if len(groups) > 0 && groups[len(groups)-1].status == "" && (rest == "" || rest[0] == '[') {
				last := groups[len(groups)-1]
				last.status, last.tagged = word, rest
				continue
			}
			g.status, g.command = word, rest
		default:
			g.command = line
		}
		groups = append(groups, g)
	}
	for _, g := range groups {
		r.run(g)
	}
}

func (r *imaptestRun) expand(s string) string {
	return regexp.MustCompile(`\$\$|\$\{\w+\}|\$[a-z]\w*`).ReplaceAllStringFunc(s, func(v string) string {
		if v == "$$" {
			return "$"
		}
		if value, ok := r.vars[strings.Trim(v, "${}")]; ok {
			return value
		}
		return v
	})
}

func (r *imaptestRun) run(g *imaptestGroup) {
	r.t.Helper()
	c := r.clients[g.conn-1]
	command := r.expand(g.command)
	var replies []string
	var tagged string
	if fields := strings.Fields(command); strings.EqualFold(fields[0], "append") && len(fields) < 3 && !strings.Contains(command, "{{{") {
		box := r.vars["mailbox"]
		if len(fields) == 2 {
			box = fields[1]
		}
		date, msg := r.message()
		replies, tagged = c.cmd(fmt.Sprintf("APPEND %s%s {%d+}\r\n%s", box, strings.TrimSuffix(" "+date, " "), len(msg), msg))
	} else {
		command = regexp.MustCompile(`(?s)\{\{\{\n(.*?)\n?\}\}\}`).ReplaceAllStringFunc(command, func(lit string) string {
			body := crlf([]byte(strings.TrimSuffix(lit[4:len(lit)-3], "\n")))
			return fmt.Sprintf("{%d+}\r\n%s", len(body), body)
		})
		replies, tagged = c.cmd(command)
	}
	where := fmt.Sprintf("line %d: %s", g.at, g.command)
	if g.status != `""` && g.status != "" && !strings.EqualFold(strings.SplitN(tagged, " ", 2)[0], g.status) {
		r.t.Fatalf("%s\n got %q %s", where, replies, tagged)
	}
	if g.tagged != "" && !r.match(g.tagged, strings.SplitN(tagged, " ", 2)[1], 0) {
		r.t.Fatalf("%s\n got %s\nwant %s %s", where, tagged, g.status, g.tagged)
	}
	r.vars["tag"] = fmt.Sprintf("t%d", c.tag)
	for i := range r.seqs[g.conn-1] { // "$2" is the message that is number 2 before the replies
		r.seqs[g.conn-1][i] = i + 1
	}
	origin := make([]int, len(replies))
	for i, reply := range replies {
		origin[i] = r.track(g.conn-1, reply)
	}
	used := make([]bool, len(replies))
	for _, want := range g.expected {
		hit := false
		for i, reply := range replies {
			if (want[0] == '!' || !used[i]) && r.match(want[2:], strings.TrimPrefix(reply, "* "), origin[i]) {
				hit, used[i] = true, true
				break
			}
		}
		if hit != (want[0] == '*') {
			r.t.Fatalf("%s\n got %q %s\nwant %s\nvars %v", where, replies, tagged, want, r.vars)
		}
	}
}

var numbered = regexp.MustCompile(`(?i)^\* (\d+) (EXPUNGE|FETCH|EXISTS)`)

// track follows a client's numbering and returns a message's first number.
func (r *imaptestRun) track(conn int, reply string) int {
	m := numbered.FindStringSubmatch(reply)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	seqs := r.seqs[conn]
	if strings.EqualFold(m[2], "EXISTS") {
		for len(seqs) < n {
			seqs = append(seqs, 1000+len(seqs))
		}
		r.seqs[conn] = seqs
		return 0
	}
	if n > len(seqs) {
		return 0
	}
	orig := seqs[n-1]
	if strings.EqualFold(m[2], "EXPUNGE") {
		r.seqs[conn] = append(append([]int(nil), seqs[:n-1]...), seqs[n:]...)
	}
	return orig
}

// node is an atom or string, or a list.
type node struct {
	text string
	list []node
	isL  bool
}

// parseNodes splits a reply or a pattern of a script.
func parseNodes(s string) (nodes []node, rest string) {
	for {
		s = strings.TrimLeft(s, " ")
		switch {
		case s == "":
			return nodes, ""
		case s[0] == ')' || s[0] == ']':
			return nodes, s[1:]
		case s[0] == '(' || s[0] == '[':
			var n node
			n.isL = true
			n.list, s = parseNodes(s[1:])
			nodes = append(nodes, n)
		case s[0] == '"':
			var b strings.Builder
			i := 1
			for ; i < len(s) && s[i] != '"'; i++ {
				if s[i] == '\\' {
					i++
				}
				b.WriteByte(s[i])
			}
			nodes = append(nodes, node{text: b.String()})
			s = s[min(i+1, len(s)):]
		case strings.HasPrefix(strings.TrimPrefix(s, "~"), "{{{\n"):
			raw := s[0] == '~'
			s = strings.TrimPrefix(s, "~")
			end := strings.Index(s, "}}}")
			text := strings.TrimSuffix(s[4:end], "\n")
			if !raw {
				text = crlf([]byte(text))
			}
			nodes = append(nodes, node{text: text})
			s = s[end+3:]
		case regexp.MustCompile(`^~?\{\d+\}\r\n`).MatchString(s):
			head := regexp.MustCompile(`^~?\{(\d+)\}\r\n`).FindStringSubmatch(s)
			n, _ := strconv.Atoi(head[1])
			nodes = append(nodes, node{text: s[len(head[0]) : len(head[0])+n]})
			s = s[len(head[0])+n:]
		default:
			i, depth := 0, 0
			for ; i < len(s); i++ { // an atom may hold a section in brackets
				if s[i] == '[' {
					depth++
				} else if s[i] == ']' && depth > 0 {
					depth--
				} else if depth == 0 && (s[i] == ' ' || s[i] == ')' || s[i] == '(' || s[i] == ']') {
					break
				}
			}
			nodes = append(nodes, node{text: s[:i]})
			s = s[i:]
		}
	}
}

// match compares a reply with a pattern and binds the pattern's variables if
// all of it matches.
func (r *imaptestRun) match(pattern, reply string, orig int) bool {
	want, _ := parseNodes(pattern)
	got, _ := parseNodes(reply)
	if len(got) > 1 && len(want) > 0 && want[0].isL && got[0].isL { // a response code: the text behind does not matter
		got = got[:1]
	}
	if len(want) > 1 && strings.EqualFold(want[0].text, "ok") && len(got) > 1 {
		want, got = want[:2], got[:2]
	}
	if len(want) != len(got) {
		return false
	}
	bound := map[string]string{}
	for i := range want {
		if i == 0 && regexp.MustCompile(`^\$\d+$`).MatchString(want[0].text) {
			if want[0].text != fmt.Sprintf("$%d", orig) {
				return false
			}
			continue
		}
		if !r.matchNode(want[i], got[i], bound, false) {
			return false
		}
	}
	for k, v := range bound {
		r.vars[k] = v
	}
	return true
}

func (r *imaptestRun) matchNode(want, got node, bound map[string]string, exact bool) bool {
	if !want.isL {
		if name, ok := strings.CutPrefix(want.text, "$"); ok && regexp.MustCompile(`^[a-z]\w*$`).MatchString(name) {
			if _, known := r.vars[name]; !known && bound[name] == "" {
				bound[name] = got.text
				return !got.isL
			}
		}
		text := want.text
		for k, v := range bound {
			text = strings.ReplaceAll(text, "$"+k, v)
		}
		return !got.isL && strings.EqualFold(r.expand(text), got.text)
	}
	if !got.isL {
		return false
	}
	return r.matchList(want.list, got.list, bound, exact)
}

// matchList finds each wanted element, with the value after it where there is
// one, anywhere in the list; flags have to be equal but for \Recent.
func (r *imaptestRun) matchList(want, got []node, bound map[string]string, exact bool) bool {
	var plain []node
	for _, w := range want {
		if !strings.HasPrefix(w.text, "$!") {
			plain = append(plain, w)
		}
	}
	count := 0
	for _, g := range got {
		if !strings.EqualFold(g.text, `\recent`) {
			count++
		}
	}
	wanted := 0
	at := 0
	for i := 0; i < len(plain); i++ {
		w := plain[i]
		if strings.EqualFold(w.text, `\recent`) {
			continue // kept in memory only, see BUGS
		}
		wanted++
		found := false
		for k := 0; k < len(got); k++ {
			j := (at + k) % len(got)
			if !r.matchNode(w, got[j], bound, exact) {
				continue
			}
			pair := i+1 < len(plain) && j+1 < len(got) && isPairKey(w.text)
			if pair {
				if !r.matchNode(plain[i+1], got[j+1], bound, strings.EqualFold(w.text, "flags")) {
					continue
				}
				i++
				j++
			}
			found, at = true, j+1
			break
		}
		if !found {
			return false
		}
	}
	return !exact || wanted == count
}

func isPairKey(s string) bool {
	s = strings.ToLower(s)
	for _, k := range []string{"flags", "uid", "internaldate", "rfc822.size", "envelope", "body", "bodystructure", "modseq", "messages", "recent", "uidnext", "uidvalidity", "unseen", "tag", "binary", "copyuid"} {
		if s == k || strings.HasPrefix(s, "body[") || strings.HasPrefix(s, "binary[") || strings.HasPrefix(s, "binary.size[") {
			return true
		}
	}
	return false
}
