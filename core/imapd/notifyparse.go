package imapd

import "strings"

// notifyEvents are event types of RFC 5465 §5, as a set.
type notifyEvents uint8

const (
	messageNew notifyEvents = 1 << iota
	messageExpunge
	flagChange
	mailboxName
	subscriptionChange
	mailboxMetadataChange
	serverMetadataChange

	messageEvents = messageNew | messageExpunge | flagChange
)

// notifyEventNames are the event types by their bits.
var notifyEventNames = [...]string{ // never changed
	"MessageNew", "MessageExpunge", "FlagChange", "MailboxName", "SubscriptionChange", "MailboxMetadataChange", "ServerMetadataChange",
}

// notifyFilter says which mailboxes an event group is about (RFC 5465 §6).
type notifyFilter uint8

const (
	forSelected notifyFilter = iota
	forSelectedDelayed
	forPersonal // and inboxes, which may be any: whose mail goes where is for the user to say
	forSubscribed
	forSubtree
	forMailboxes
)

// notifyGroup is an event group.
type notifyGroup struct {
	filter notifyFilter
	names  map[string]bool // of forSubtree and forMailboxes
	events notifyEvents
	fetch  *fetchQuery // what is sent of new messages of the selected mailbox; nil: nothing
}

func (g *notifyGroup) ofSelected() bool {
	return g.filter == forSelected || g.filter == forSelectedDelayed
}

// notifyQuery is what NOTIFY asks for.
type notifyQuery struct {
	none   bool
	status bool // STATUS of every mailbox is to be sent at once
	groups []notifyGroup
}

// maxNotifyGroups bounds the groups of one command.
const maxNotifyGroups = 100

// notifyQuery reads NOTIFY's arguments (RFC 5465 §8).
func (p *parser) notifyQuery() (q notifyQuery, err error) {
	if err = p.space(); err != nil {
		return q, err
	}
	switch word, err := p.keyword(); {
	case err != nil:
		return q, err
	case word == "NONE":
		q.none = true
		return q, p.end()
	case word != "SET":
		return q, bad("Expected SET or NONE")
	}
	if err = p.space(); err != nil {
		return q, err
	}
	if p.peek() != '(' {
		if word, err := p.keyword(); err != nil || word != "STATUS" {
			return q, bad("Expected STATUS or an event group")
		}
		q.status = true
		if err = p.space(); err != nil {
			return q, err
		}
	}
	for {
		if len(q.groups) == maxNotifyGroups {
			return q, no("NOTIFICATIONOVERFLOW", "Too many event groups")
		}
		g, err := p.notifyGroup()
		if err != nil {
			return q, err
		}
		q.groups = append(q.groups, g)
		if p.blanks(); p.peek() != '(' {
			break
		}
	}
	selected := 0
	for i := range q.groups {
		if q.groups[i].ofSelected() {
			selected++
		}
	}
	if selected > 1 {
		return q, bad("The selected mailbox is named more than once")
	}
	return q, p.end()
}

// notifyGroup reads "(filter events)".
func (p *parser) notifyGroup() (g notifyGroup, err error) {
	if err = p.expect('('); err != nil {
		return g, err
	}
	word, err := p.keyword()
	if err != nil {
		return g, err
	}
	if err = p.space(); err != nil {
		return g, err
	}
	switch word {
	case "SELECTED":
		g.filter = forSelected
	case "SELECTED-DELAYED":
		g.filter = forSelectedDelayed
	case "INBOXES", "PERSONAL":
		g.filter = forPersonal
	case "SUBSCRIBED":
		g.filter = forSubscribed
	case "SUBTREE", "MAILBOXES":
		if g.filter = forMailboxes; word == "SUBTREE" {
			g.filter = forSubtree
		}
		if err = p.notifyNames(&g); err != nil {
			return g, err
		}
		if err = p.space(); err != nil {
			return g, err
		}
	default:
		return g, bad("Unknown mailbox specifier %s", clip(word, 40))
	}
	if p.peek() != '(' {
		if word, err := p.keyword(); err != nil || word != "NONE" {
			return g, bad("Expected a list of events or NONE")
		}
		return g, p.expect(')')
	}
	if err = p.list(func() error { return p.notifyEvent(&g) }); err != nil {
		return g, err
	}
	p.blanks()
	if err = p.expect(')'); err != nil {
		return g, err
	}
	switch {
	case g.events == 0:
		return g, bad("No event is named")
	case g.events&flagChange != 0 && g.events&messageEvents != messageEvents:
		return g, bad("FlagChange needs MessageNew and MessageExpunge")
	case (g.events&messageNew != 0) != (g.events&messageExpunge != 0):
		return g, bad("MessageNew and MessageExpunge need each other")
	case g.ofSelected() && g.events&^messageEvents != 0:
		return g, bad("Only message events are possible for the selected mailbox")
	}
	return g, nil
}

// notifyNames reads one mailbox, or several in parentheses.
func (p *parser) notifyNames(g *notifyGroup) error {
	one := func() error {
		name, err := p.mailbox()
		if g.names == nil {
			g.names = map[string]bool{}
		}
		g.names[strings.TrimSuffix(name, ".")] = true
		return err
	}
	if p.peek() != '(' {
		return one()
	}
	if err := p.list(one); err != nil {
		return err
	}
	if len(g.names) == 0 {
		return bad("No mailbox is named")
	}
	return nil
}

// notifyEvent reads one event. What is not known is refused with what is (RFC 5465 §3.1).
func (p *parser) notifyEvent(g *notifyGroup) error {
	word, err := p.atom()
	if err != nil {
		return err
	}
	for i, name := range notifyEventNames {
		if !strings.EqualFold(word, name) {
			continue
		}
		g.events |= 1 << i
		if 1<<i != messageNew || !strings.HasPrefix(string(p.rest()), " (") {
			return nil
		}
		p.pos++
		g.fetch = &fetchQuery{}
		if err := p.list(func() error { return p.fetchItem(g.fetch, false) }); err != nil {
			return err
		}
		if len(g.fetch.items) == 0 {
			return bad("No data item is named")
		}
		return nil
	}
	return no("BADEVENT ("+strings.Join(notifyEventNames[:], " ")+")", "Unknown event")
}

// covers reports whether a group is about a mailbox other than the selected one.
func (g *notifyGroup) covers(name string, subscribed bool) bool {
	switch g.filter {
	case forPersonal:
		return true
	case forSubscribed:
		return subscribed
	case forSubtree:
		for i := len(name) - 1; i > 0; i-- {
			if name[i] == '.' && g.names[name[:i]] {
				return true
			}
		}
		return g.names[name]
	case forMailboxes:
		return g.names[name]
	}
	return false
}

// events are those that the client wants to hear of in a mailbox: what the groups
// that cover it have together, up to one that says NONE.
func (q *notifyQuery) events(name string, subscribed bool) (events notifyEvents) {
	for i := range q.groups {
		g := &q.groups[i]
		if !g.covers(name, subscribed) {
			continue
		}
		if g.events == 0 {
			break
		}
		events |= g.events
	}
	return events
}

// all are the events of every group.
func (q *notifyQuery) all() (events notifyEvents) {
	for i := range q.groups {
		events |= q.groups[i].events
	}
	return events
}

// selected is the group of the selected mailbox; nil: nothing is told of it.
func (q *notifyQuery) selected() *notifyGroup {
	for i := range q.groups {
		if g := &q.groups[i]; g.ofSelected() && g.events != 0 {
			return g
		}
	}
	return nil
}
