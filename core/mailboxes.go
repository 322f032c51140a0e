package core

import (
	"fmt"
	"log/slog"

	"github.com/wafermail/wafer/core/config"
)

// Mailbox is where the mail of a user lies, "local@domain", as a configuration has it.
func Mailbox(c *config.Config, user string) (dir string, err error) {
	_, ds, err := loadDomains(c, slog.New(slog.DiscardHandler))
	if err != nil {
		return "", err
	}
	d, local := ds.of(user)
	switch {
	case d == nil:
		return "", fmt.Errorf("%q is not a user of a domain of ours: write local@domain", user)
	case !d.users.Has(local):
		return "", fmt.Errorf("there is no user %s; wafer user list shows them", user)
	}
	return d.dir(local)
}
