package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/wafermail/wafer/core/maildir"
	"github.com/wafermail/wafer/core/migrate"
)

type mailboxImportCmd struct {
	mailboxFlag
	From   string `required:"" placeholder:"PATH" help:"An mbox file, a directory of mbox files, or a Maildir. It is only read."`
	Folder string `help:"The folder that one mbox file goes to, in place of one of its name."`
}

// Run imports.
func (c *mailboxImportCmd) Run(std streams) (err error) {
	s, done, err := c.open(std)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	bar := newProgress(std.err)
	list, err := migrate.Import(context.Background(), s, c.From, migrate.TransferOptions{Folder: c.Folder, Tell: bar.tell})
	bar.end()
	return errors.Join(c.printTransfer(std, list, "from"), err)
}

type mailboxExportCmd struct {
	mailboxFlag
	To     string   `required:"" placeholder:"DIR" help:"Directory for the mbox files, or the new Maildir; it is made if it is missing."`
	Format string   `enum:"mbox,maildir" default:"mbox" help:"mbox: a file for each folder. maildir: a Maildir (${default})."`
	Folder []string `help:"Only these folders; may be repeated."`
}

// Run exports.
func (c *mailboxExportCmd) Run(std streams) (err error) {
	bar := newProgress(std.err)
	o := migrate.TransferOptions{Folders: c.Folder, Tell: bar.tell}
	var list []migrate.Transferred
	if c.Format == "mbox" {
		s, done, err := c.open(std)
		if err != nil {
			return err
		}
		list, err = migrate.Export(context.Background(), s, c.To, o)
		bar.end()
		return errors.Join(c.printTransfer(std, list, "to"), err, done())
	}
	dir, source, err := c.find(std)
	if err == nil {
		err = source.Close() // it is read as any other Maildir
	}
	if err != nil {
		return err
	}
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(c.To, sub), 0o700); err != nil {
			return err
		}
	}
	pool := maildir.NewPool(maildir.Options{UID: -1, GID: -1})
	s, err := pool.Open(c.To)
	if err != nil {
		return errors.Join(err, pool.Close())
	}
	list, err = migrate.Import(context.Background(), s, dir, o)
	bar.end()
	s.Close()
	return errors.Join(c.printTransfer(std, list, "to"), err, pool.Close())
}

// printTransfer says what has been brought where.
func (f *mailboxFlag) printTransfer(std streams, list []migrate.Transferred, preposition string) error {
	if f.JSON {
		if list == nil {
			list = []migrate.Transferred{}
		}
		return f.print(std, list)
	}
	for _, t := range list {
		line := fmt.Sprintf("%s: %d messages, %d octets, %s %s", t.Folder, t.Messages, t.Octets, preposition, t.Source)
		if t.Present > 0 {
			line += fmt.Sprintf("; %d were there already", t.Present)
		}
		if t.Keywords > 0 {
			line += fmt.Sprintf("; %d keywords were left out: the folder has %d, and file names have letters for no more", t.Keywords, maildir.MaxKeywords)
		}
		if t.Skipped > 0 {
			line += fmt.Sprintf("; %d were left out: they changed meanwhile, or cannot be unpacked", t.Skipped)
		}
		if _, err := fmt.Fprintln(std.out, line); err != nil {
			return err
		}
	}
	return nil
}
