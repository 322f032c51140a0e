package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

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

// maxIDs is how many ids one request names, whose length is bounded.
const maxIDs = 1000

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
	state, err := c.state(std)
	if err != nil {
		return err
	}
	done, rows := admin.Changed{IDs: []mail.ID{}, Dry: c.DryRun}, map[mail.ID]string{}
	ids := v["id"]
	for first := true; first || len(ids) > 0; first = false {
		part := maps.Clone(v)
		if n := min(len(ids), maxIDs); n > 0 {
			part["id"], ids = ids[:n], ids[n:]
		}
		maps.Copy(part, more)
		if c.DryRun {
			part.Set("dry", "1")
		}
		b, err := admin.Post(context.Background(), state, "/queue/"+verb+"?"+part.Encode())
		if err != nil {
			return err
		}
		var some admin.Changed
		if err := json.Unmarshal(b, &some); err != nil {
			return fmt.Errorf("read the server's answer: %w", err)
		}
		done.IDs = append(done.IDs, some.IDs...)
		if !c.DryRun || c.JSON {
			continue
		}
		if err := eachQueued(state, part, func(q admin.Queued) { rows[mail.ID(q.QueueID)] = oneRow(q) }); err != nil {
			return err
		}
	}
	if err := c.report(std, past, done, rows); err != nil {
		return err
	}
	return c.missing(std, state, verb, v["id"], done.IDs)
}

// report says what was done, or would be, with a row for each message.
func (c *queueChange) report(std streams, past string, done admin.Changed, rows map[mail.ID]string) error {
	if c.JSON {
		enc := json.NewEncoder(std.out)
		enc.SetIndent("", "  ")
		return enc.Encode(done)
	}
	if c.DryRun {
		past = "would be " + past
		w := tabwriter.NewWriter(std.out, 0, 4, 2, ' ', 0)
		for _, id := range done.IDs {
			fmt.Fprintf(w, "%s\t%s\n", id, rows[id])
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(std.out, "%s %s\n", count(len(done.IDs), "message", "messages"), past)
	return err
}

// oneRow is a message in short: its sender, and the first of its recipients.
func oneRow(q admin.Queued) string {
	row := oneLine(q.Sender) + "\t"
	if len(q.Recipients) > 0 {
		row += oneLine(q.Recipients[0].Address)
	}
	if n := len(q.Recipients) - 1; n > 0 {
		row += fmt.Sprintf(" and %d more", n)
	}
	return row
}

// missing is an error about those of ids that are not among done because the queue
// does not have them. It tells of those that a filter or their state left out; that is
// no error unless they are to be tried and held.
func (c *queueChange) missing(std streams, state, verb string, ids []string, done []mail.ID) error {
	seen := map[string]bool{}
	for _, id := range done {
		seen[string(id)] = true
	}
	var rest []string
	for _, id := range ids {
		if !seen[id] {
			seen[id] = true
			rest = append(rest, id)
		}
	}
	there := map[string]string{}
	for part := range slices.Chunk(rest, maxIDs) {
		if err := eachQueued(state, url.Values{"id": part}, func(q admin.Queued) { there[q.QueueID] = q.QueueName }); err != nil {
			return err
		}
	}
	var gone, held []string
	for _, id := range rest {
		switch name, ok := there[id]; {
		case !ok:
			gone = append(gone, oneLine(id))
		case name == "hold" && verb == "flush":
			held = append(held, id)
		default:
			fmt.Fprintf(std.err, "wafer: %s is left as it is (%s)\n", id, name)
		}
	}
	var errs []string
	if len(gone) > 0 {
		errs = append(errs, "not in the queue: "+strings.Join(gone, ", "))
	}
	if len(held) > 0 {
		errs = append(errs, "held, and not tried until they are released: "+strings.Join(held, ", "))
	}
	if len(errs) == 0 {
		return nil
	}
	return errors.New(strings.Join(errs, "; "))
}

// confirm asks whether everything is meant.
func confirm(std streams, verb string) error {
	if f, ok := std.in.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		return fmt.Errorf("%s all messages? Write --yes where nobody can be asked", verb)
	}
	return ask(std, verb)
}

// ask reads the answer of who sits at the terminal.
func ask(std streams, verb string) error {
	fmt.Fprintf(std.err, "This will %s ALL messages of the queue. Type ALL to go on: ", verb)
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
