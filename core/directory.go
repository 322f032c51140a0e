package core

import (
	"errors"
	"slices"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// Class says what kind of address p is (see policy.Directory). An alias counts
// as local whether or not it can be followed to its end.
func (ds *domains) Class(p mail.Path) string {
	if p.IsNull() {
		return ""
	}
	switch _, err := ds.resolve(p); {
	case errors.Is(err, errNotOurs):
		return policy.ClassRelay
	case errors.Is(err, errNoMailbox):
		return policy.ClassUnknown
	}
	return policy.ClassLocal
}

// Owners are the logins that may send as p: the users whose mailboxes it leads
// to. Postfix has smtpd_sender_login_maps for this; aliases say it already.
func (ds *domains) Owners(p mail.Path) []string {
	if p.IsNull() {
		return nil
	}
	e, err := ds.resolve(p)
	if err != nil {
		return nil
	}
	users := make([]string, len(e.boxes))
	for i, b := range e.boxes {
		users[i] = b.user
	}
	return slices.Compact(users)
}
