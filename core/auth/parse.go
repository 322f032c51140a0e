package auth

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/wafermail/wafer/core/mail"
)

// maxLine is the longest line of a users file in octets.
const maxLine = 16 << 10

// Problem is one mistake in a users file.
type Problem struct {
	File string
	Line int    // from 1
	Text string // what is wrong and what to write instead; never a password or hash
}

// Error is "file:line: text".
func (p Problem) Error() string { return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text) }

// Problems are all mistakes of a users file.
type Problems []Problem

// Error has one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

func (ps Problems) orNil() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

// userTable is a users file in memory. It is never changed once made.
type userTable struct {
	byName  map[string]*Record // by canonical name
	inOrder []*Record
	typical stored // a hash of the most common cost, nil if nobody can log in
	shape   shape  // of most SCRAM keys
	keys    int    // users who can use SCRAM
}

// parseFile reads a whole users file. Lines with mistakes are left out of the
// table and described. Domains are canonical.
func parseFile(path, text string, domains []string) (*userTable, Problems) {
	t := &userTable{byName: make(map[string]*Record)}
	var problems Problems
	lines := make(map[string]int)
	costs := make(map[string]int)
	shapes := make(map[shape]int)
	best := 0
	t.shape = shape{newSCRAMRounds, newSCRAMSalt}
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if isComment(line) {
			continue
		}
		rec, hash, err := parseLine(line, domains)
		if err == nil && lines[rec.User] > 0 {
			err = fmt.Errorf("user %s is already on line %d; remove one of the two", rec.User, lines[rec.User])
		}
		if err != nil {
			problems = append(problems, Problem{path, n + 1, err.Error()})
			continue
		}
		lines[rec.User] = n + 1
		t.byName[rec.User] = rec
		t.inOrder = append(t.inOrder, rec)
		if cost := hash.cost(); cost != "" {
			if costs[cost]++; costs[cost] > best {
				best, t.typical = costs[cost], hash
			}
		}
		if s, ok := shapeOf(hash); ok {
			t.keys++
			if shapes[s]++; shapes[s] > shapes[t.shape] {
				t.shape = s
			}
		}
	}
	return t, problems
}

// isComment reports whether a line says nothing: empty, or "#" in front.
func isComment(line string) bool {
	return strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#")
}

// parseLine reads one line that is not a comment.
func parseLine(line string, domains []string) (*Record, stored, error) {
	if len(line) > maxLine {
		return nil, nil, fmt.Errorf("line is longer than %d octets", maxLine)
	}
	if !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return nil, nil, fmt.Errorf("line has control characters or is not UTF-8; retype it")
	}
	fields := strings.SplitN(line, ":", 8)
	if len(fields) < 2 {
		return nil, nil, fmt.Errorf(`line has no ":"; write "name:{SCHEME}hash", as "wafer user add" does, or "#" in front of a comment`)
	}
	name, err := canonicalUser(fields[0], domains)
	if err != nil {
		return nil, nil, err
	}
	hash, err := parsePasswordField(fields[1])
	if err != nil {
		return nil, nil, fmt.Errorf("user %s: %w", name, err)
	}
	fields = append(fields, make([]string, 8-len(fields))...)
	rec := &Record{User: name, Hash: fields[1], UID: fields[2], GID: fields[3], Home: fields[5]}
	if rec.Fields, err = parseExtra(fields[7]); err != nil {
		return nil, nil, fmt.Errorf("user %s: %w", name, err)
	}
	return rec, hash, nil
}

func parsePasswordField(s string) (stored, error) {
	if isLocked(s) {
		return locked{}, nil
	}
	return parseHash(s)
}

// parseExtra reads the last field: "name=value" or "name", separated by spaces.
func parseExtra(s string) (map[string]string, error) {
	var m map[string]string
	for _, word := range strings.Fields(s) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "nopassword", "user", "proxy", "proxy_maybe", "master", "password":
			return nil, fmt.Errorf("extra field %q is not supported; remove it", name)
		case "allow_nets":
			for _, n := range strings.Split(value, ",") {
				if _, err := parseNet(n); err != nil {
					return nil, fmt.Errorf(`allow_nets: %q is no network; write "192.0.2.0/24,2001:db8::/32"`, n)
				}
			}
		}
		if m == nil {
			m = make(map[string]string)
		}
		m[name] = value
	}
	return m, nil
}

// canonicalUser checks a user name of a file that holds domains and returns it
// as "local@domain".
func canonicalUser(name string, domains []string) (string, error) {
	if name == "" {
		return "", fmt.Errorf(`user name is empty; write "name:{SCHEME}hash"`)
	}
	if err := checkName(name); err != nil {
		return "", err
	}
	if !strings.Contains(name, "@") {
		name += "@" + domains[0]
	}
	p, err := mail.ParsePath(name, true)
	if err != nil {
		return "", fmt.Errorf("user name %q: %w", name, err)
	}
	domain := mail.DomainKey(p.Domain())
	for _, d := range domains {
		if d == domain {
			return p.Key(), nil
		}
	}
	return "", fmt.Errorf("user %q is of domain %s, but this file holds %s; move the line to that domain's file", name, domain, strings.Join(domains, ", "))
}

// checkName refuses what may stand in an address but not in this file, or not
// in the path of a mailbox.
func checkName(name string) error {
	for _, r := range name {
		if r <= ' ' || r == 0x7f || strings.ContainsRune(`:/\"#`, r) {
			return fmt.Errorf("user name %q has the character %q, which users files and mailbox paths cannot hold", name, r)
		}
	}
	return nil
}

// canonicalName is user in the form in which names are compared. What is no
// address is only put into lower case: it will not be found.
func canonicalName(user string) string {
	if len(user) > mail.MaxPath {
		return "" // nobody; a long name must not become a long key
	}
	local, domain, ok := cutLast(user)
	if !ok {
		return strings.ToLower(user)
	}
	return strings.ToLower(local) + "@" + canonicalDomain(domain)
}

func canonicalDomain(d string) string { return mail.DomainKey(d) }

// cutLast splits an address at its last "@".
func cutLast(s string) (local, domain string, ok bool) {
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
