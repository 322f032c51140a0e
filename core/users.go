package core

import "github.com/wafermail/wafer/core/auth"

// currentUsers are the users of the current generation (auth.Users). The service that
// asks them, with its memory of failed logins, goes on over generations.
type currentUsers struct{ s *Server }

func (c currentUsers) users() *auth.Domains { return c.s.current.Load().users }

// Lookup implements auth.Users.
func (c currentUsers) Lookup(user string) (auth.Record, error) { return c.users().Lookup(user) }

// Decoy implements auth.Decoyer.
func (c currentUsers) Decoy(user string) string { return c.users().Decoy(user) }

// DecoyKeys implements auth.KeyDecoyer.
func (c currentUsers) DecoyKeys(user string) (name string, rounds, salt int) {
	return c.users().DecoyKeys(user)
}

// HasKeys implements auth.KeyDecoyer.
func (c currentUsers) HasKeys() bool { return c.users().HasKeys() }
