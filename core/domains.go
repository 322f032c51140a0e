package core

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/mail"
)

// Bounds of alias expansion. Who needs more wants a mailing list manager.
const (
	maxAliasDepth  = 10
	maxAliasFanOut = 1000
)

// domain is one of our own: its users, and where their mail lies.
type domain struct {
	name      string // key: lower case, A-labels
	maildir   string // template with %d, %n and %u
	users     userList
	aliases   map[string][]mail.Path // by local part in lower case
	catchAll  mail.Path              // null: none
	separator string                 // between user and detail, "" for none
	folders   bool                   // the detail names a folder
	quota     config.Quota
}

// userList is the part of a users file that routing needs.
type userList interface {
	Has(local string) bool
	First() (local string, ok bool)
	Fields(local string) map[string]string // extra fields of a user, may be nil
}

// domains is the directory of everything that is delivered here.
type domains struct {
	byName map[string]*domain
	main   *domain // for the bare postmaster
}

// mailbox is where an address ends.
type mailbox struct {
	user   string // "local@domain"
	addr   mail.Path
	dir    string
	detail string // that names a folder, "" for none
}

// Outcomes of resolve that are no mailbox.
var (
	errNotOurs   = errors.New("not a domain of ours")
	errNoMailbox = errors.New("no such mailbox")
	errAliasLoop = errors.New("aliases lead too far")
)

// forward is an address elsewhere to which an alias leads.
type forward struct {
	to  mail.Path
	via mail.Path // the alias
}

// ends is everything that an address stands for.
type ends struct {
	boxes    []mailbox
	forwards []forward
}

// resolve follows aliases from p to the mailboxes and the addresses elsewhere that
// it stands for, each once, in a fixed order. The bare postmaster is the first
// domain's.
func (ds *domains) resolve(p mail.Path) (ends, error) {
	f := found{boxes: map[string]mailbox{}, forwards: map[string]forward{}, seen: map[string]bool{}}
	if err := ds.follow(ds.route(p), mail.Path{}, 0, &f); err != nil {
		return ends{}, err
	}
	if len(f.boxes)+len(f.forwards) == 0 {
		return ends{}, errAliasLoop // they name only each other
	}
	var e ends
	for _, user := range slices.Sorted(maps.Keys(f.boxes)) {
		e.boxes = append(e.boxes, f.boxes[user])
	}
	for _, key := range slices.Sorted(maps.Keys(f.forwards)) {
		e.forwards = append(e.forwards, f.forwards[key])
	}
	return e, nil
}

// found is what resolve has met so far.
type found struct {
	boxes    map[string]mailbox // by user
	forwards map[string]forward // by key
	seen     map[string]bool    // keys of addresses
}

// maxHops bounds the hosts that a local part may name.
const maxHops = 10

// route is where p leads when its local part names a host, as old addresses do:
// user@host@ours, user%host@ours, host!user (RFC 5321 §4.1.2 leaves it to the
// host of a local part what it means; Postfix follows these). A name that is a
// user's or an alias's means that one. An address without a domain is the first
// domain's. Where it leads to another host, that is what may be relayed or not.
func (ds *domains) route(p mail.Path) mail.Path {
	for range maxHops {
		if p.IsNull() {
			return p
		}
		bare := p.Domain() == ""
		at := p
		if bare {
			at = p.WithDomain(ds.main.name)
		}
		d := ds.byName[mail.DomainKey(at.Domain())]
		if d == nil || !strings.ContainsAny(at.Local(), "@!%") || d.knows(at.Local()) {
			return at
		}
		next, ok := hop(at.Local())
		if !ok {
			return at
		}
		p = next
	}
	return p
}

// hop is the address that a local part stands for if it names a host.
func hop(local string) (mail.Path, bool) {
	user, host := "", ""
	if i := strings.LastIndexByte(local, '@'); i >= 0 {
		user, host = local[:i], local[i+1:]
	} else if i := strings.IndexByte(local, '!'); i >= 0 {
		user, host = local[i+1:], local[:i]
	} else if i := strings.LastIndexByte(local, '%'); i >= 0 {
		user, host = local[:i], local[i+1:]
	}
	if user == "" || !mail.ValidDomain(host) {
		return mail.Path{}, false
	}
	return mail.Path{}.WithLocal(user).WithDomain(host), true
}

// knows reports whether a local part is a user's or an alias's name.
func (d *domain) knows(local string) bool {
	for _, name := range d.candidates(local) {
		if _, ok := d.aliases[name]; ok || d.users.Has(name) {
			return true
		}
	}
	return false
}

// follow adds what p, to which via led, stands for. An address that is met again
// adds nothing, so aliases that name each other do no harm; an alias may name its
// own mailbox to keep a copy.
func (ds *domains) follow(p, via mail.Path, depth int, f *found) error {
	d := ds.byName[mail.DomainKey(p.Domain())]
	key := p.Key()
	switch {
	case d == nil && depth == 0:
		return errNotOurs
	case depth > maxAliasDepth || len(f.boxes)+len(f.forwards) > maxAliasFanOut || len(f.seen) > maxAliasFanOut:
		return errAliasLoop
	case d == nil:
		if _, ok := f.forwards[key]; !ok {
			f.forwards[key] = forward{p, via}
		}
		return nil
	}
	again := f.seen[key]
	f.seen[key] = true
	for _, local := range d.candidates(p.Local()) {
		if to, ok := d.aliases[local]; ok && !again {
			for _, next := range to {
				if err := ds.follow(next, p, depth+1, f); err != nil {
					return err
				}
			}
			return nil
		}
		if d.users.Has(local) {
			return d.add(local, p, f.boxes)
		}
	}
	if again {
		return nil
	}
	if strings.EqualFold(p.Local(), "postmaster") { // RFC 5321 §4.5.1: there always is one
		if first, ok := d.users.First(); ok && d.catchAll.IsNull() {
			return d.add(first, p, f.boxes)
		}
	}
	if !d.catchAll.IsNull() {
		return ds.follow(d.catchAll, p, depth+1, f)
	}
	return errNoMailbox
}

// candidates are the names under which a local part is looked up: as it stands,
// then without its detail.
func (d *domain) candidates(local string) []string {
	local = strings.ToLower(local)
	if d.separator != "" {
		if user, _, ok := strings.Cut(local, d.separator); ok && user != "" {
			return []string{local, user}
		}
	}
	return []string{local}
}

func (d *domain) add(local string, p mail.Path, found map[string]mailbox) error {
	dir, err := d.dir(local)
	if err != nil {
		return err
	}
	user := local + "@" + d.name
	if _, ok := found[user]; !ok {
		m := mailbox{user: user, addr: p, dir: dir}
		if _, detail, ok := strings.Cut(p.Local(), d.separator); ok && d.folders && d.separator != "" && len(detail) < len(p.Local()) {
			m.detail = detail
		}
		found[user] = m
	}
	return nil
}

// dir is the Maildir of a user of the domain.
func (d *domain) dir(local string) (string, error) {
	if local == "" || local[0] == '.' || strings.ContainsAny(local, "/\x00") {
		return "", fmt.Errorf("user %q cannot be part of a path", local)
	}
	var b strings.Builder
	for rest := d.maildir; ; {
		text, after, found := strings.Cut(rest, "%")
		b.WriteString(text)
		if !found {
			return b.String(), nil
		}
		if after == "" {
			return b.String() + "%", nil
		}
		switch after[0] {
		case 'd':
			b.WriteString(d.name)
		case 'n':
			b.WriteString(local)
		case 'u':
			b.WriteString(local + "@" + d.name)
		case '%':
			b.WriteByte('%')
		default:
			b.WriteString("%" + after[:1])
		}
		rest = after[1:]
	}
}

// of finds the domain of a user "local@domain", nil if it is not ours.
func (ds *domains) of(user string) (d *domain, local string) {
	at := strings.LastIndexByte(user, '@')
	if at < 0 {
		return nil, ""
	}
	return ds.byName[mail.DomainKey(user[at+1:])], strings.ToLower(user[:at])
}

// mailboxOf is the Maildir of an authenticated user, "local@domain".
func (ds *domains) mailboxOf(user string) (string, error) {
	d, local := ds.of(user)
	if d == nil {
		return "", fmt.Errorf("user %q: %w", user, errNotOurs)
	}
	return d.dir(local)
}
