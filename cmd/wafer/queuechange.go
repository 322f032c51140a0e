package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"golang.org/x/term"

	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/mail"
)

// queueChange is what the verbs that change the queue have in common.
type queueChange struct {
	configFlag
	queueFilter
	IDs    []string `arg:"" optional:"" name:"id" help:"Messages."`
	All    bool     `help:"All messages."`
	DryRun bool     `help:"Say which messages it would be, and do nothing."`
	Yes    bool     `help:"Do not ask."`
	JSON   bool     `help:"Print JSON."`
}

// run asks the server to do verb, with more of what it needs.
func (c *queueChange) run(std streams, verb, past string, more url.Values) error {
	v, none, err := c.query(c.IDs)
	if err != nil {
		return err
	}
	switch {
	case none && !c.All:
		return errors.New("which messages? Write their ids, a filter such as --destination example.net, or --all")
	case c.All && !none:
		return errors.New("--all goes with no ids and no filter")
	case c.All && !c.DryRun && !c.Yes:
		if err := confirm(std, verb); err != nil {
			return err
		}
	}
	for name, values := range more {
		v[name] = values
	}
	if c.DryRun {
		v.Set("dry", "1")
	}
	state, err := c.state(std)
	if err != nil {
		return err
	}
	b, err := admin.Post(context.Background(), state, "/queue/"+verb+"?"+v.Encode())
	if err != nil {
		return err
	}
	var done admin.Changed
	if err := json.Unmarshal(b, &done); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	if c.JSON {
		if _, err := std.out.Write(b); err != nil {
			return err
		}
	} else {
		if c.DryRun {
			past = "would be " + past
			for _, id := range done.IDs {
				fmt.Fprintln(std.out, id)
			}
		}
		fmt.Fprintf(std.out, "%s %s\n", count(len(done.IDs), "message", "messages"), past)
	}
	var missing []string
	for _, id := range c.IDs {
		if !slices.ContainsFunc(done.IDs, func(x mail.ID) bool { return strings.EqualFold(string(x), id) }) {
			missing = append(missing, id)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("not in the queue, or not in a state for that: %s", strings.Join(missing, ", "))
	}
	return nil
}

// confirm asks whether everything is meant.
func confirm(std streams, verb string) error {
	if f, ok := std.in.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		return fmt.Errorf("%s all messages? Write --yes where nobody can be asked", verb)
	}
	fmt.Fprintf(std.out, "This will %s ALL messages of the queue. Type ALL to go on: ", verb)
	line, _ := bufio.NewReader(std.in).ReadString('\n') // what was typed counts, however it ended
	if strings.TrimSpace(line) != "ALL" {
		return errors.New("nothing was done")
	}
	return nil
}

type queueFlushCmd struct{ queueChange }

// Run tries messages at once.
func (c *queueFlushCmd) Run(std streams) error {
	if _, none, err := c.query(c.IDs); err == nil && none { // it harms nobody
		c.All, c.Yes = true, true
	}
	return c.run(std, "flush", "tried at once", nil)
}

type queueHoldCmd struct {
	queueChange
	Why string `help:"The reason, for those who look at it." placeholder:"TEXT"`
}

// Run holds messages.
func (c *queueHoldCmd) Run(std streams) error {
	return c.run(std, "hold", "held", url.Values{"why": {c.Why}})
}

type queueReleaseCmd struct{ queueChange }

// Run releases held messages.
func (c *queueReleaseCmd) Run(std streams) error { return c.run(std, "release", "released", nil) }

type queueDropCmd struct{ queueChange }

// Run removes messages.
func (c *queueDropCmd) Run(std streams) error { return c.run(std, "drop", "dropped", nil) }

type queueRerouteCmd struct {
	queueChange
	Transport string `help:"Name of a transport: smtp, or one of the configuration." placeholder:"NAME"`
	Hop       string `help:"Host instead of the transport's: a domain, [host]:port." placeholder:"HOST"`
	Default   bool   `help:"As the configuration says, again."`
}

// Run sends messages by another way.
func (c *queueRerouteCmd) Run(std streams) error {
	switch {
	case c.Default == (c.Transport != "" || c.Hop != ""):
		return errors.New("where to? Write --transport NAME, --hop HOST, or --default")
	case c.Default:
		return c.run(std, "reroute", "rerouted", nil)
	case c.Transport == "":
		c.Transport = "smtp"
	}
	return c.run(std, "reroute", "rerouted", url.Values{"transport": {c.Transport}, "hop": {c.Hop}})
}
