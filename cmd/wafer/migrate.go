package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"text/tabwriter"

	"github.com/wafermail/wafer/core/maildir"
	"github.com/wafermail/wafer/core/migrate"
)

// migrateCmd takes over what other servers have left.
type migrateCmd struct {
	Dovecot migrateDovecotCmd `cmd:"" help:"Say what a takeover of Dovecot's Maildirs where they stand would bring and lose; --apply keeps what can be kept."`
}

type migrateDovecotCmd struct {
	Dir   string `arg:"" help:"A Maildir, or a directory with those of many users."`
	Apply bool   `help:"Give letters to keywords that are in Dovecot's index alone, and make the server's indexes. Stop Dovecot before. Mail stays as it is."`
	JSON  bool   `help:"Print JSON."`
}

// Run surveys, and applies if that is wanted. It exits with 2 if something would be lost.
func (c *migrateDovecotCmd) Run(std streams) error {
	ctx, bar := context.Background(), newProgress(std.err)
	r, err := migrate.Survey(ctx, c.Dir, bar.tell)
	bar.end()
	if err != nil {
		return err
	}
	if c.Apply {
		err := migrate.Apply(ctx, r, func(dir string) (*maildir.Pool, error) {
			return poolFor(dir, func(string) bool { return true })
		}, bar.tell)
		bar.end()
		if err != nil {
			return err
		}
	}
	if c.JSON {
		enc := json.NewEncoder(std.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = c.print(std, r)
	}
	if err == nil && r.Lost() {
		return exit(2)
	}
	return err
}

func (c *migrateDovecotCmd) print(std streams, r *migrate.Report) error {
	if len(r.Users)+len(r.Items) == 0 {
		return fmt.Errorf("there is no mail in %s: give the directory above the users' Maildirs, such as /var/mail/vhosts", c.Dir)
	}
	w := tabwriter.NewWriter(std.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "folders\tmessages\toctets\tkeywords\tsubscribed\tPOP3 UIDLs\tMaildir")
	for _, u := range r.Users {
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%d\t%s\n", len(u.Folders), u.Messages, u.Octets, u.Keywords, u.Subscriptions, u.UIDLs, u.Dir)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	sections := []struct {
		title string
		want  func(migrate.Issue) bool
	}{
		{"\nKept:", func(i migrate.Issue) bool { return i.Kept }},
		{"\nWould be lost:", func(i migrate.Issue) bool { return i.Lost && !i.Kept }},
		{"\nTo know:", func(i migrate.Issue) bool { return !i.Lost && !i.Kept }},
	}
	for _, s := range sections {
		title := s.title
		for _, i := range r.Items {
			if !s.want(i) {
				continue
			}
			if title != "" {
				fmt.Fprintln(std.out, title)
				title = ""
			}
			where := i.Path
			if i.Folder != "" {
				where += " (" + i.Folder + ")"
			}
			fmt.Fprintf(std.out, "  %s: %s\n", where, i.What)
			if i.Remedy != "" && !i.Kept {
				fmt.Fprintf(std.out, "    %s\n", i.Remedy)
			}
		}
	}
	if template := r.Template(); template != "" {
		fmt.Fprintf(std.out, "\nIn config.hcl: maildir = %q\n", template)
	}
	if !c.Apply {
		_, err := fmt.Fprintf(std.out, "\nNothing was changed. wafer migrate dovecot --apply %s keeps what can be kept.\n", filepath.Clean(c.Dir))
		return err
	}
	return nil
}
