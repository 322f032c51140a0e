package takeover

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// model is what a mailbox must hold.
type model struct {
	t          *testing.T
	r          *rand.Rand
	folders    map[string]*modelFolder
	subscribed map[string]bool
	validities map[string]bool // name and UIDVALIDITY of all folders that there ever were
	marks      int
	sessions   []*conn
	log        []string
}

type modelFolder struct {
	validity string
	last     int // highest UID given so far
	messages map[int]modelMessage
}

type modelMessage struct {
	mark  string
	flags map[string]bool
}

var (
	modelFlags = []string{`\Seen`, `\Answered`, `\Flagged`, `\Deleted`, `\Draft`, "$Junk", "k1", "k2", "k3", "$Forwarded"}
	modelNames = []string{"A", "B", "A.sub", "A.sub.sub", "B.x", "INBOX.c", "&AOQ-", "D E"}
	appendUID  = regexp.MustCompile(`\[APPENDUID (\d+) (\d+)\]`)
	copyUID    = regexp.MustCompile(`\[COPYUID (\d+) (\S+) (\S+)\]`)
	markOf     = regexp.MustCompile(`mark-\w+`)
)

func newModel(t *testing.T, r *rand.Rand, sessions ...*conn) *model {
	m := &model{t: t, r: r, folders: map[string]*modelFolder{}, subscribed: map[string]bool{}, validities: map[string]bool{}, sessions: sessions}
	m.found(sessions[0], "INBOX")
	return m
}

// found notes a folder that has been made.
func (m *model) found(c *conn, name string) {
	m.t.Helper()
	s := c.look(name, "FLAGS")
	if key := name + "/" + s.validity; m.validities[key] {
		m.t.Fatalf("%s: %s was made with UIDVALIDITY %s once more%s", c.name, name, s.validity, m.tail())
	} else {
		m.validities[key] = true
	}
	m.folders[name] = &modelFolder{validity: s.validity, messages: map[int]modelMessage{}}
}

// tail is what was done last.
func (m *model) tail() string {
	return "\n" + strings.Join(m.log[max(0, len(m.log)-40):], "\n")
}

// names are the folders in order, so that a seed repeats.
func (m *model) names() []string { return slices.Sorted(maps.Keys(m.folders)) }

func (m *model) folder() string {
	names := m.names()
	return names[m.r.IntN(len(names))]
}

// some picks up to n neighbours of a folder's messages.
func (m *model) some(name string, n int) []int {
	uids := slices.Sorted(maps.Keys(m.folders[name].messages))
	if len(uids) == 0 {
		return nil
	}
	from := m.r.IntN(len(uids))
	return uids[from:min(len(uids), from+1+m.r.IntN(n))]
}

// add notes a new message.
func (m *model) add(name string, uid int, mark string, flags map[string]bool) {
	m.t.Helper()
	f := m.folders[name]
	if uid <= f.last {
		m.t.Fatalf("UID %d of %s was given before%s", uid, name, m.tail())
	}
	f.last = uid
	f.messages[uid] = modelMessage{mark, flags}
}

// run runs a command that must succeed and notes it.
func (m *model) run(c *conn, command string) (tagged string) {
	m.t.Helper()
	m.log = append(m.log, fmt.Sprintf("%s: %.100q", c.name, command))
	_, tagged = c.try(command)
	if !strings.HasPrefix(tagged, "OK") {
		m.t.Fatalf("%s: %.100q: %s%s", c.name, command, tagged, m.tail())
	}
	return tagged
}

// step does something through c.
func (m *model) step(c *conn) {
	m.t.Helper()
	name := m.folder()
	switch n := m.r.IntN(40); {
	case n < 10:
		m.append(c, name)
	case n < 19:
		m.store(c, name)
	case n < 24:
		m.copy(c, name, false)
	case n < 29:
		m.copy(c, name, true)
	case n < 32:
		m.expunge(c, name)
	case n < 34:
		m.subscribe(c)
	default:
		m.arrange(c)
	}
}

func (m *model) append(c *conn, name string) {
	m.t.Helper()
	flags := map[string]bool{}
	for range m.r.IntN(4) {
		flags[modelFlags[m.r.IntN(len(modelFlags))]] = true
	}
	m.marks++
	mark := fmt.Sprintf("mark-%d", m.marks)
	text := "Subject: " + mark + "\r\n\r\n" + strings.Repeat("x\r\n", m.r.IntN(30))
	tagged := m.run(c, fmt.Sprintf("APPEND %s (%s) {%d+}\r\n%s", quote(name), strings.Join(slices.Sorted(maps.Keys(flags)), " "), len(text), text))
	code := appendUID.FindStringSubmatch(tagged)
	if code == nil || code[1] != m.folders[name].validity {
		m.t.Fatalf("%s: APPEND to %s with UIDVALIDITY %s: %s%s", c.name, name, m.folders[name].validity, tagged, m.tail())
	}
	uid, _ := strconv.Atoi(code[2])
	m.add(name, uid, mark, flags)
}

func (m *model) store(c *conn, name string) {
	m.t.Helper()
	uids := m.some(name, 5)
	if uids == nil {
		return
	}
	flags := map[string]bool{}
	for range 1 + m.r.IntN(3) {
		flags[modelFlags[m.r.IntN(len(modelFlags))]] = true
	}
	how := []string{"+", "-", ""}[m.r.IntN(3)]
	m.run(c, "SELECT "+quote(name))
	m.run(c, fmt.Sprintf("UID STORE %s %sFLAGS.SILENT (%s)", uidSet(uids), how, strings.Join(slices.Sorted(maps.Keys(flags)), " ")))
	for _, uid := range uids {
		now := map[string]bool{}
		if how != "" {
			now = maps.Clone(m.folders[name].messages[uid].flags)
		}
		for f := range flags {
			if how == "-" {
				delete(now, f)
			} else {
				now[f] = true
			}
		}
		m.folders[name].messages[uid] = modelMessage{m.folders[name].messages[uid].mark, now}
	}
}

func (m *model) copy(c *conn, name string, move bool) {
	m.t.Helper()
	uids, to := m.some(name, 4), m.folder()
	if uids == nil || move && to == name {
		return
	}
	m.run(c, "SELECT "+quote(name))
	command := "COPY"
	if move {
		command = "MOVE"
	}
	m.log = append(m.log, fmt.Sprintf("%s: UID %s %s %s", c.name, command, uidSet(uids), to))
	untagged, tagged := c.try(fmt.Sprintf("UID %s %s %s", command, uidSet(uids), quote(to)))
	code := copyUID.FindStringSubmatch(strings.Join(untagged, "\n") + "\n" + tagged)
	if code == nil || code[1] != m.folders[to].validity {
		m.t.Fatalf("%s: %s to %s with UIDVALIDITY %s: %q %s%s", c.name, command, to, m.folders[to].validity, untagged, tagged, m.tail())
	}
	from, given := numbers(m.t, code[2]), numbers(m.t, code[3])
	if !slices.Equal(slices.Sorted(slices.Values(from)), uids) || len(given) != len(from) {
		m.t.Fatalf("%s: %s of %v says %s%s", c.name, command, uids, code[0], m.tail())
	}
	order := map[int]int{}
	for i := range from {
		order[given[i]] = from[i]
	}
	for _, uid := range sortedKeys(order) {
		msg := m.folders[name].messages[order[uid]]
		m.add(to, uid, msg.mark, maps.Clone(msg.flags))
		if move {
			delete(m.folders[name].messages, order[uid])
		}
	}
}

func (m *model) expunge(c *conn, name string) {
	m.t.Helper()
	uids := m.some(name, 3)
	if uids == nil {
		return
	}
	m.run(c, "SELECT "+quote(name))
	m.run(c, "UID STORE "+uidSet(uids)+` +FLAGS.SILENT (\Deleted)`)
	m.run(c, "UID EXPUNGE "+uidSet(uids))
	for _, uid := range uids {
		delete(m.folders[name].messages, uid)
	}
}

func (m *model) subscribe(c *conn) {
	m.t.Helper()
	name := m.folder()
	if m.subscribed[name] {
		m.run(c, "UNSUBSCRIBE "+quote(name))
		delete(m.subscribed, name)
		return
	}
	m.run(c, "SUBSCRIBE "+quote(name))
	m.subscribed[name] = true
}

// arrange makes, removes or renames a folder.
func (m *model) arrange(c *conn) {
	m.t.Helper()
	for _, session := range m.sessions {
		m.run(session, "SELECT INBOX") // what goes while it is selected is closed, by Dovecot with the session
	}
	name := modelNames[m.r.IntN(len(modelNames))]
	_, there := m.folders[name]
	switch {
	case !there:
		m.run(c, "CREATE "+quote(name))
		m.found(c, name)
	case m.r.IntN(2) == 0:
		m.run(c, "DELETE "+quote(name))
		delete(m.folders, name)
	default:
		m.marks++
		to := fmt.Sprintf("R%d", m.marks)
		if len(m.folders) > 12 {
			return
		}
		m.run(c, "RENAME "+quote(name)+" "+to)
		for _, old := range m.names() {
			if rest, ok := strings.CutPrefix(old, name); ok && (rest == "" || rest[0] == '.') {
				m.folders[to+rest] = m.folders[old]
				delete(m.folders, old)
				m.validities[to+rest+"/"+m.folders[to+rest].validity] = true
			}
		}
	}
}

// check compares the model with what c sees.
func (m *model) check(c *conn) {
	m.t.Helper()
	if got := c.names(); !slices.Equal(got, m.names()) {
		m.t.Fatalf("%s lists %q, want %q%s", c.name, got, m.names(), m.tail())
	}
	var subscribed []string
	for _, l := range c.listed(`LSUB "" *`) {
		if !strings.Contains(l, `(\Noselect)`) {
			subscribed = append(subscribed, strings.Trim(listLine.FindStringSubmatch("* " + l)[4], `"`))
		}
	}
	if want := slices.Sorted(maps.Keys(m.subscribed)); !slices.Equal(subscribed, want) {
		m.t.Fatalf("%s: subscriptions are %q, want %q%s", c.name, subscribed, want, m.tail())
	}
	for _, name := range m.names() {
		f := m.folders[name]
		s := c.look(name, "FLAGS ENVELOPE")
		var got, want []string
		for _, uid := range sortedKeys(s.messages) {
			got = append(got, fmt.Sprint(uid, " ", markOf.FindString(s.messages[uid]["ENVELOPE"]), " ", s.messages[uid]["FLAGS"]))
		}
		for _, uid := range sortedKeys(f.messages) {
			want = append(want, fmt.Sprint(uid, " ", f.messages[uid].mark, " ", strings.Join(slices.Sorted(maps.Keys(f.messages[uid].flags)), " ")))
		}
		if !slices.Equal(got, want) {
			m.t.Fatalf("%s: %s has\n%s\nwant\n%s%s", c.name, name, strings.Join(got, "\n"), strings.Join(want, "\n"), m.tail())
		}
		if next, _ := strconv.Atoi(s.next); s.validity != f.validity || next <= f.last {
			m.t.Fatalf("%s: %s has UIDVALIDITY %s and UIDNEXT %s, want %s and more than %d%s", c.name, name, s.validity, s.next, f.validity, f.last, m.tail())
		}
	}
}

func uidSet(uids []int) string {
	var s []string
	for _, u := range uids {
		s = append(s, strconv.Itoa(u))
	}
	return strings.Join(s, ",")
}

// numbers reads a set of numbers.
func numbers(t testing.TB, set string) (list []int) {
	t.Helper()
	for part := range strings.SplitSeq(set, ",") {
		first, last, ranged := strings.Cut(part, ":")
		a, err := strconv.Atoi(first)
		b := a
		if ranged && err == nil {
			b, err = strconv.Atoi(last)
		}
		if err != nil || b < a || b-a > 100000 {
			t.Fatalf("bad set %q", set)
		}
		for n := a; n <= b; n++ {
			list = append(list, n)
		}
	}
	return list
}
