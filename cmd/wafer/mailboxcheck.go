package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/wafermail/wafer/core/maildir"
)

type mailboxCheckCmd struct {
	mailboxFlag
	Repair bool `help:"Mend what is found. Without it nothing is changed."`
}

// Run looks for damage. It exits with 2 if something is wrong and was not mended.
func (c *mailboxCheckCmd) Run(std streams) (err error) {
	dir, pool, err := c.find(std)
	if err != nil {
		return err
	}
	bar := newProgress(std.err)
	defer func() { err = errors.Join(err, pool.Close()) }()
	found, left := []maildir.Finding{}, 0
	err = pool.Check(context.Background(), dir, maildir.CheckOptions{Repair: c.Repair, Progress: func(folder string, done, total int) { bar.tell(folder, int64(done), int64(total)) }}, func(f maildir.Finding) {
		found = append(found, f)
		if !f.Mended && !f.Note {
			left++
		}
	})
	bar.end()
	if err != nil {
		return err
	}
	if c.JSON {
		err = c.print(std, found)
	} else {
		err = printFindings(std, found)
	}
	if err == nil && left > 0 {
		return exit(2)
	}
	return err
}

func printFindings(std streams, found []maildir.Finding) error {
	if len(found) == 0 {
		_, err := fmt.Fprintln(std.out, "nothing is wrong")
		return err
	}
	for _, f := range found {
		var end string
		switch {
		case f.Err != "":
			end = "could not be mended: " + f.Err
		case f.Mended:
			end = "mended: " + f.Mend
		case f.Mend != "":
			end = "--repair: " + f.Mend
		default:
			end = "somebody has to look at it"
		}
		if _, err := fmt.Fprintf(std.out, "%s: %s: %s; %s\n", f.Folder, f.File, f.Fault, end); err != nil {
			return err
		}
	}
	return nil
}
