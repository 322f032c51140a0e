package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"

	"golang.org/x/term"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/config"
	"github.com/wafermail/wafer/core/mail"
)

// userCmd manages users files. The running server sees changes at once.
type userCmd struct {
	Add    userAddCmd    `cmd:"" help:"Add a user; the password is read from the terminal or from standard input."`
	Passwd userPasswdCmd `cmd:"" help:"Change a user's password."`
	List   userListCmd   `cmd:"" help:"List users."`
	Remove userRemoveCmd `cmd:"" help:"Remove a user. The mail stays."`
}

type userAddCmd struct {
	configFlag
	User   string `arg:"" help:"Address: local@domain."`
	Scheme string `default:"SCRAM-SHA-256" help:"Scheme of the password's hash (${default}, which serves all ways to log in; others leave out SCRAM)."`
}

// Run adds the user.
func (c *userAddCmd) Run(std streams) error {
	f, err := c.users(std, c.User)
	if err != nil {
		return err
	}
	if f.Has(c.User) {
		return fmt.Errorf("user %s exists already; wafer user passwd changes the password", c.User)
	}
	hash, err := newHash(std, c.Scheme)
	if err != nil {
		return err
	}
	return f.Add(c.User, hash)
}

type userPasswdCmd struct {
	configFlag
	User   string `arg:"" help:"Address: local@domain."`
	Scheme string `default:"SCRAM-SHA-256" help:"Scheme of the password's hash (${default}, which serves all ways to log in; others leave out SCRAM)."`
}

// Run changes the password.
func (c *userPasswdCmd) Run(std streams) error {
	f, err := c.users(std, c.User)
	if err != nil {
		return err
	}
	if !f.Has(c.User) {
		return fmt.Errorf("there is no user %s; wafer user list shows who there is", c.User)
	}
	hash, err := newHash(std, c.Scheme)
	if err != nil {
		return err
	}
	return f.SetPassword(c.User, hash)
}

type userListCmd struct {
	configFlag
	Domain string `arg:"" optional:"" help:"Only users of this domain."`
}

// Run prints one address on a line.
func (c *userListCmd) Run(std streams) error {
	cfg, err := c.load(std)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	var names []string
	for _, d := range cfg.Domains {
		f, err := openUsers(cfg, d.Name)
		if err != nil {
			return err
		}
		for _, r := range f.List() {
			at := strings.LastIndexByte(r.User, '@')
			if !seen[r.User] && (c.Domain == "" || mail.DomainKey(c.Domain) == r.User[at+1:]) {
				seen[r.User] = true
				names = append(names, r.User)
			}
		}
	}
	sort.Strings(names)
	for _, n := range names {
		fmt.Fprintln(std.out, n)
	}
	return nil
}

type userRemoveCmd struct {
	configFlag
	User string `arg:"" help:"Address: local@domain."`
}

// Run removes the user from the users file.
func (c *userRemoveCmd) Run(std streams) error {
	f, err := c.users(std, c.User)
	if err != nil {
		return err
	}
	if err := f.Remove(c.User); errors.Is(err, auth.ErrNoUser) {
		return fmt.Errorf("there is no user %s; wafer user list shows who there is", c.User)
	} else if err != nil {
		return err
	}
	return nil
}

// users opens the file that holds, or would hold, a user.
func (f configFlag) users(std streams, user string) (*auth.File, error) {
	p, err := mail.ParsePath(user, true)
	if err != nil || p.Domain() == "" {
		return nil, fmt.Errorf("%q is not an address: write local@domain", user)
	}
	cfg, err := f.load(std)
	if err != nil {
		return nil, err
	}
	return openUsers(cfg, p.Domain())
}

func openUsers(cfg *config.Config, domain string) (*auth.File, error) {
	var path string
	var names []string
	for _, d := range cfg.Domains {
		if mail.DomainKey(d.Name) == mail.DomainKey(domain) {
			path = d.Users
		}
	}
	if path == "" {
		return nil, fmt.Errorf("the configuration has no domain %s", domain)
	}
	for _, d := range cfg.Domains {
		if d.Users == path {
			names = append(names, d.Name)
		}
	}
	return auth.Open(path, auth.Options{Domains: names})
}

// newHash reads a new password and hashes it.
func newHash(std streams, scheme string) (string, error) {
	password, err := readPassword(std)
	if err != nil {
		return "", err
	}
	return auth.Hash(scheme, password)
}

// readPassword asks on a terminal twice, or takes the first line of standard
// input. It never takes a password from the command line, which every user of
// the machine can read.
func readPassword(std streams) (string, error) {
	if in, ok := std.in.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		ask := func(prompt string) (string, error) {
			fmt.Fprint(std.err, prompt)
			b, err := term.ReadPassword(int(in.Fd()))
			fmt.Fprintln(std.err)
			return string(b), err
		}
		first, err := ask("New password: ")
		if err != nil {
			return "", err
		}
		second, err := ask("Once more: ")
		if err != nil {
			return "", err
		}
		if first != second {
			return "", errors.New("the two passwords differ")
		}
		return nonEmpty(first)
	}
	line, err := bufio.NewReader(io.LimitReader(std.in, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return nonEmpty(strings.TrimRight(line, "\r\n"))
}

func nonEmpty(password string) (string, error) {
	if password == "" {
		return "", errors.New("the password is empty: write it on standard input, or run the command on a terminal")
	}
	return password, nil
}
