package takeover

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// snapshot is what a client sees of a folder.
type snapshot struct {
	validity, next string
	messages       map[int]map[string]string
}

var (
	validityCode = regexp.MustCompile(`\[UIDVALIDITY (\d+)\]`)
	nextCode     = regexp.MustCompile(`\[UIDNEXT (\d+)\]`)
)

// look examines a folder and fetches items of all its messages.
func (c *conn) look(folder, items string) (s snapshot) {
	c.t.Helper()
	told := strings.Join(c.ok("EXAMINE "+quote(folder)), "\n")
	for re, to := range map[*regexp.Regexp]*string{validityCode: &s.validity, nextCode: &s.next} {
		if m := re.FindStringSubmatch(told); m != nil {
			*to = m[1]
		}
	}
	s.messages = map[int]map[string]string{}
	if !strings.Contains(told, "* 0 EXISTS") {
		s.messages = fetched(c.t, c.ok("UID FETCH 1:* ("+items+")"))
	}
	return s
}

const allItems = "FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE"

// same compares two views of a folder in the items named.
func same(t *testing.T, what string, wafer, dovecot snapshot, items string) {
	t.Helper()
	if wafer.validity != dovecot.validity || wafer.next != dovecot.next {
		t.Errorf("%s: wafer UIDVALIDITY %s UIDNEXT %s, dovecot %s %s", what, wafer.validity, wafer.next, dovecot.validity, dovecot.next)
	}
	for _, item := range strings.Fields(items) {
		sameLines(t, what+" "+item, facts(wafer.messages, item), facts(dovecot.messages, item))
	}
}

var listLine = regexp.MustCompile(`^\* (LIST|LSUB) \((.*?)\) (\S+) (.*)$`)

// listed runs a LIST or LSUB command; the names and attributes come sorted. \Recent's
// kin \Marked and \UnMarked, which only Dovecot tells, are left out, and so are special
// uses, which it has to be configured for.
func (c *conn) listed(command string) (out []string) {
	c.t.Helper()
	for _, l := range c.ok(command) {
		m := listLine.FindStringSubmatch(l)
		if m == nil {
			continue
		}
		var attrs []string
		for _, a := range strings.Fields(m[2]) {
			switch strings.ToLower(a) {
			case `\marked`, `\unmarked`, `\drafts`, `\sent`, `\junk`, `\trash`, `\archive`:
			case `\nonexistent`: // what Dovecot says in extended LISTs; it means the same (RFC 5258 §3.1)
				attrs = append(attrs, `\Noselect`)
			default:
				attrs = append(attrs, a)
			}
		}
		slices.Sort(attrs)
		out = append(out, fmt.Sprintf("%s (%s) %s %s", m[1], strings.Join(attrs, " "), m[3], canonicalName(c.t, m[4])))
	}
	slices.Sort(out)
	return out
}

// canonicalName is a mailbox name as a quoted string whether it came as one or not,
// with what an extended LIST says after it.
func canonicalName(t testing.TB, s string) string {
	name, rest := value(t, s)
	if !strings.HasPrefix(name, `"`) {
		name = fmt.Sprintf("%q", name)
	}
	return name + strings.ReplaceAll(rest, `"CHILDINFO"`, "CHILDINFO") // RFC 5258 §6: the tag is an astring
}

// names are all folders that can be selected.
func (c *conn) names() (names []string) {
	c.t.Helper()
	for _, l := range c.ok(`LIST "" *`) {
		m := listLine.FindStringSubmatch(l)
		if m == nil || strings.Contains(strings.ToLower(m[2]), `\noselect`) || strings.Contains(strings.ToLower(m[2]), `\nonexistent`) {
			continue
		}
		name := strings.TrimSuffix(strings.TrimPrefix(canonicalName(c.t, m[4]), `"`), `"`)
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
