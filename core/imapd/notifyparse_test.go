package imapd

import (
	"strings"
	"testing"
)

// TestNotifyArguments checks what NOTIFY accepts (RFC 5465 §3.1, §5, §6.1, §8).
func TestNotifyArguments(t *testing.T) {
	ts := startServer(t, func(c *Config) { c.Limits.BadCommands = 100 })
	c := ts.login(t)
	c.ok("CREATE box")
	const events = "[BADEVENT (MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange MailboxMetadataChange ServerMetadataChange)]"
	long := "NOTIFY SET" + strings.Repeat(" (personal (MailboxName))", maxNotifyGroups+1)
	for _, row := range []struct{ name, command, want string }{
		{"none", "NOTIFY NONE", "OK …"},
		{"case does not matter", "notify set (SELECTED-Delayed (messagenew MESSAGEEXPUNGE flagchange))", "OK …"},
		{"selected", "NOTIFY SET (selected (MessageNew MessageExpunge))", "OK …"},
		{"selected none", "NOTIFY SET (selected NONE)", "OK …"},
		{"fetch items", "NOTIFY SET (selected (MessageNew (UID BODY.PEEK[HEADER.FIELDS (From To Subject)]) MessageExpunge))", "OK …"},
		{"several groups", "NOTIFY SET (selected (MessageNew MessageExpunge)) (inboxes (MailboxName)) (subtree (a b) NONE)", "OK …"},
		{"every event", "NOTIFY SET (personal (MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange MailboxMetadataChange ServerMetadataChange))", "OK …"},
		{"one mailbox without parentheses", "NOTIFY SET (mailboxes box (MailboxName))", "OK …"},
		{"subtree", `NOTIFY SET (subtree "box" (MailboxName))`, "OK …"},
		{"subscribed", "NOTIFY SET (subscribed (MessageNew MessageExpunge))", "OK …"},
		{"a mailbox that does not exist is left out", "NOTIFY SET STATUS (mailboxes nowhere (MessageNew MessageExpunge))", "OK …"},
		{"no wildcards", "NOTIFY SET STATUS (mailboxes {1+}\r\n* (MessageNew MessageExpunge))", "OK …"},

		{"no arguments", "NOTIFY", "BAD …"},
		{"neither SET nor NONE", "NOTIFY GET", "BAD …"},
		{"text after NONE", "NOTIFY NONE x", "BAD …"},
		{"no group", "NOTIFY SET", "BAD …"},
		{"no group after STATUS", "NOTIFY SET STATUS", "BAD …"},
		{"another word for STATUS", "NOTIFY SET STATE (personal (MailboxName))", "BAD …"},
		{"unknown specifier", "NOTIFY SET (elsewhere (MailboxName))", "BAD …"},
		{"no events", "NOTIFY SET (personal)", "BAD …"},
		{"empty events", "NOTIFY SET (personal ())", "BAD …"},
		{"no names", "NOTIFY SET (mailboxes () (MailboxName))", "BAD …"},
		{"empty items", "NOTIFY SET (selected (MessageNew () MessageExpunge))", "BAD …"},
		{"unknown item", "NOTIFY SET (selected (MessageNew (COLOUR) MessageExpunge))", "BAD …"},
		{"a group that does not end", "NOTIFY SET (personal (MailboxName)", "BAD …"},
		{"text after the groups", "NOTIFY SET (personal (MailboxName)) x", "BAD …"},
		{"FlagChange alone", "NOTIFY SET (personal (FlagChange))", "BAD …"},
		{"FlagChange without MessageExpunge", "NOTIFY SET (personal (FlagChange MessageNew))", "BAD …"},
		{"MessageNew alone", "NOTIFY SET (selected (MessageNew))", "BAD …"},
		{"MessageExpunge alone", "NOTIFY SET (mailboxes box (MessageExpunge))", "BAD …"},
		{"MailboxName of the selected mailbox", "NOTIFY SET (selected (MessageNew MessageExpunge MailboxName))", "BAD …"},
		{"selected twice", "NOTIFY SET (selected NONE) (selected-delayed (MessageNew MessageExpunge))", "BAD …"},

		{"unknown event", "NOTIFY SET (personal (MailboxName Tea))", "NO " + events + " …"},
		{"annotations of messages", "NOTIFY SET (selected (MessageNew MessageExpunge AnnotationChange))", "NO " + events + " …"},
		{"too many groups", long, "NO [NOTIFICATIONOVERFLOW] …"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, tagged := c.cmd(row.command)
			if !matchLine(row.want, tagged) || len(got) > 0 {
				t.Errorf("%s\n got %q %s\nwant %s", row.command, got, tagged, row.want)
			}
		})
	}
}

// FuzzNotify reads anything as arguments of NOTIFY and asks what they cover.
func FuzzNotify(f *testing.F) {
	for _, s := range []string{
		" NONE", " SET STATUS (selected (MessageNew (UID ENVELOPE) MessageExpunge FlagChange))",
		" SET (subtree (a b.c) (MailboxName)) (mailboxes INBOX NONE) (subscribed (SubscriptionChange))",
		" SET (personal (ServerMetadataChange MailboxMetadataChange))", " SET (selected-delayed NONE", " SET (mailboxes &AOk- (MailboxName))",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := &parser{line: []byte(s)}
		q, err := p.notifyQuery()
		if err != nil {
			return
		}
		if !q.none && len(q.groups) == 0 || len(q.groups) > maxNotifyGroups {
			t.Fatalf("%q: %d groups", s, len(q.groups))
		}
		for _, name := range []string{"INBOX", "a", "a.b", "b.c.d", ""} {
			events := q.events(name, true)
			if events&messageEvents != 0 && events&(messageNew|messageExpunge) != messageNew|messageExpunge {
				t.Fatalf("%q: %q has events %b", s, name, events)
			}
		}
	})
}

// TestNotifyCovers checks which groups are about a mailbox.
func TestNotifyCovers(t *testing.T) {
	const both = messageNew | messageExpunge
	for _, row := range []struct {
		name, arguments, mailbox string
		subscribed               bool
		want                     notifyEvents
	}{
		{"personal", "(personal (MailboxName))", "a.b", false, mailboxName},
		{"inboxes are all", "(inboxes (MailboxName))", "a.b", false, mailboxName},
		{"subtree itself", "(subtree a (MailboxName))", "a", false, mailboxName},
		{"subtree below", "(subtree (x a) (MailboxName))", "a.b.c", false, mailboxName},
		{"subtree is of whole elements", "(subtree a (MailboxName))", "ab", false, 0},
		{"mailboxes exactly", "(mailboxes (x a) (MailboxName))", "a", false, mailboxName},
		{"mailboxes not below", "(mailboxes a (MailboxName))", "a.b", false, 0},
		{"subscribed", "(subscribed (MailboxName))", "a", true, mailboxName},
		{"not subscribed", "(subscribed (MailboxName))", "a", false, 0},
		{"selected is another matter", "(selected (MessageNew MessageExpunge))", "a", false, 0},
		{"groups add up", "(mailboxes a (MessageNew MessageExpunge)) (personal (MailboxName))", "a", false, both | mailboxName},
		{"NONE before excepts", "(subtree a NONE) (personal (MailboxName))", "a.b", false, 0},
		{"NONE after does not", "(personal (MailboxName)) (subtree a NONE)", "a.b", false, mailboxName},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := &parser{line: []byte(" SET " + row.arguments)}
			q, err := p.notifyQuery()
			if err != nil {
				t.Fatal(err)
			}
			if got := q.events(row.mailbox, row.subscribed); got != row.want {
				t.Errorf("%s: %s has %b, want %b", row.arguments, row.mailbox, got, row.want)
			}
		})
	}
}
