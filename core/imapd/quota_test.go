package imapd

import (
	"context"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/maildir"
)

func TestQuota(t *testing.T) {
	ts := startServer(t, nil)
	c := ts.login(t)
	if got := strings.Join(c.ok("GETQUOTAROOT INBOX"), "|"); got != `* QUOTAROOT "INBOX"` {
		t.Errorf("without a quota: %s", got)
	}
	if _, got := c.cmd(`GETQUOTA "User quota"`); !strings.HasPrefix(got, "NO [NONEXISTENT]") {
		t.Errorf("without a quota: %s", got)
	}
	ts2 := startServer(t, func(conf *Config) {
		open := conf.Mailbox
		conf.Mailbox = func(ctx context.Context, user string) (*maildir.Store, error) {
			s, err := open(ctx, user)
			if err == nil {
				s.SetQuota(maildir.Quota{Storage: 10 << 10, Messages: 5})
			}
			return s, err
		}
	})
	c = ts2.login(t)
	big := simpleMessage + strings.Repeat("0123456789abcdef\r\n", 300)
	if got := c.appendMessage("INBOX", "", big); !strings.HasPrefix(got, "OK") {
		t.Fatal(got)
	}
	for command, want := range map[string]string{
		"GETQUOTAROOT INBOX":     `* QUOTAROOT "INBOX" "User quota"|* QUOTA "User quota" (STORAGE 6 10 MESSAGE 1 5)`,
		`GETQUOTA "User quota"`:  `* QUOTA "User quota" (STORAGE 6 10 MESSAGE 1 5)`,
		"GETQUOTAROOT not.there": `* QUOTAROOT "not.there" "User quota"|* QUOTA "User quota" (STORAGE 6 10 MESSAGE 1 5)`,
	} {
		if got := strings.Join(c.ok(command), "|"); got != want {
			t.Errorf("%s: %s", command, got)
		}
	}
	if got := c.appendMessage("INBOX", "", big); !strings.HasPrefix(got, "NO [OVERQUOTA]") {
		t.Errorf("append: %s", got)
	}
	c.ok("CREATE x")
	c.ok("SELECT INBOX")
	if _, got := c.cmd("COPY 1 x"); !strings.HasPrefix(got, "NO [OVERQUOTA]") {
		t.Errorf("copy: %s", got)
	}
	if _, got := c.cmd("MOVE 1 x"); !strings.HasPrefix(got, "OK") {
		t.Errorf("move: %s", got)
	}
	if _, got := c.cmd(`SETQUOTA "User quota" (STORAGE 100)`); !strings.HasPrefix(got, "NO [NOPERM]") {
		t.Errorf("SETQUOTA: %s", got)
	}
	c.ok("SELECT x")
	c.ok(`STORE 1 +FLAGS.SILENT (\Deleted)`)
	if got := strings.Join(c.ok("STATUS x (DELETED DELETED-STORAGE)"), "|"); !strings.Contains(got, "DELETED 1 DELETED-STORAGE 55") {
		t.Error(got)
	}
}
