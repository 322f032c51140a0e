package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"sort"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/wafermail/wafer/core/admin"
)

// memoryCmd is about what checks remember in the running server.
type memoryCmd struct {
	List  memoryListCmd  `cmd:"" help:"List what checks remember."`
	Reset memoryResetCmd `cmd:"" help:"Forget it."`
}

type (
	policyCounterCmd struct{ memoryCmd }
	policyStateCmd   struct{ memoryCmd }
)

// AfterApply says which kind is meant.
func (c *policyCounterCmd) AfterApply() error { return c.kind(admin.Counters) }

// AfterApply says which kind is meant.
func (c *policyStateCmd) AfterApply() error { return c.kind(admin.State) }

func (c *memoryCmd) kind(kind string) error {
	c.List.kind, c.Reset.kind = kind, kind
	return nil
}

type memoryListCmd struct {
	configFlag
	kind  string
	Check string `arg:"" optional:"" help:"Only of this check (policy/check)."`
	JSON  bool   `help:"Print JSON."`
}

// Run prints a line for each key.
func (c *memoryListCmd) Run(std streams) error {
	state, err := c.state(std)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	b, err := admin.Ask(ctx, state, "/memory/"+c.kind+"?"+url.Values{"check": {c.Check}}.Encode())
	if err != nil {
		return err
	}
	if c.JSON {
		_, err := std.out.Write(b)
		return err
	}
	var items []admin.Item
	if err := json.Unmarshal(b, &items); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	sort.SliceStable(items, func(i, j int) bool {
		if items[i].Check != items[j].Check {
			return items[i].Check < items[j].Check
		}
		return items[i].Sum > items[j].Sum
	})
	w := tabwriter.NewWriter(std.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "CHECK\tKEY\tVALUE\tUNTIL")
	for _, i := range items {
		value, until := fmt.Sprintf("%d in %s", i.Sum, i.Window), ""
		if c.kind == admin.State {
			value, until = strconv.Quote(i.Value), i.Until.Format(time.RFC3339)
			if i.Seen > 0 {
				value = fmt.Sprintf("seen %d times, last %s", i.Seen, i.Last.Format(time.RFC3339))
			}
		}
		fmt.Fprintf(w, "%s\t%q\t%s\t%s\n", i.Check, i.Key, value, until)
	}
	return w.Flush()
}

type memoryResetCmd struct {
	configFlag
	kind  string
	Check string `arg:"" help:"The check (policy/check)."`
	Key   string `arg:"" optional:"" help:"Only this key, as list prints it; all of them without."`
}

// Run forgets, and says how many there were.
func (c *memoryResetCmd) Run(std streams) error {
	state, err := c.state(std)
	if err != nil {
		return err
	}
	key := c.Key
	if unquoted, err := strconv.Unquote(key); err == nil {
		key = unquoted
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	b, err := admin.Delete(ctx, state, "/memory/"+c.kind+"?"+url.Values{"check": {c.Check}, "key": {key}}.Encode())
	if err != nil {
		return err
	}
	var n struct{ Forgotten int }
	if err := json.Unmarshal(b, &n); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	_, err = fmt.Fprintf(std.out, "%s forgotten\n", count(n.Forgotten, "key", "keys"))
	return err
}
