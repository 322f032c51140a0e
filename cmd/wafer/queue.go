package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/config"
)

// queueCmd shows and steers the queue of the running server.
type queueCmd struct {
	List    queueListCmd    `cmd:"" help:"List what waits."`
	Show    queueShowCmd    `cmd:"" help:"Show one message: envelope, attempts, last replies, header."`
	Shape   queueShapeCmd   `cmd:"" help:"Count what waits by domain and age."`
	Flush   queueFlushCmd   `cmd:"" help:"Try messages at once."`
	Hold    queueHoldCmd    `cmd:"" help:"Keep messages back until they are released."`
	Release queueReleaseCmd `cmd:"" help:"Let held messages go."`
	Drop    queueDropCmd    `cmd:"" help:"Remove messages for good. Nobody is told."`
	Reroute queueRerouteCmd `cmd:"" help:"Send messages by another way."`
}

// queueFilter chooses messages. A flag that is nil was not given.
type queueFilter struct {
	Destination *string `help:"Domain of a recipient that waits, or the host it is sent to." placeholder:"DOMAIN"`
	Sender      *string `help:"Sender: an address, @domain, or <> for notices." placeholder:"ADDRESS"`
	Recipient   *string `help:"A recipient that waits: an address or @domain." placeholder:"ADDRESS"`
	Reason      *string `help:"Part of the last reply, in any case." placeholder:"TEXT"`
	Older       *string `help:"At least that old: 2h, 1d12h." placeholder:"TIME"`
	Younger     *string `help:"At most that old." placeholder:"TIME"`
	Held        bool    `help:"Only what is held."`
	Deferred    bool    `help:"Only what waits for another attempt."`
}

// query is the filter as the server reads it. none says that it chooses everything.
// A value that is empty or no time is an error: what a script's unset variable leaves
// must not choose more than was meant.
func (f *queueFilter) query(ids []string) (v url.Values, none bool, err error) {
	v = url.Values{}
	for _, x := range []struct {
		name  string
		value *string
		time  bool
	}{
		{"destination", f.Destination, false}, {"sender", f.Sender, false}, {"recipient", f.Recipient, false}, {"reason", f.Reason, false},
		{"older", f.Older, true}, {"younger", f.Younger, true},
	} {
		if x.value == nil {
			continue
		}
		value := strings.TrimSpace(*x.value)
		if x.time {
			d, err := config.ParseDuration(value)
			if err != nil || d <= 0 {
				return nil, false, fmt.Errorf("--%s %q is no time: write 90s, 10m, 2h or 1d12h", x.name, *x.value)
			}
			value = d.String()
		}
		if value == "" {
			return nil, false, fmt.Errorf("--%s is empty", x.name)
		}
		v.Set(x.name, value)
	}
	if f.Held {
		v.Set("held", "1")
	}
	if f.Deferred {
		v.Set("deferred", "1")
	}
	for _, id := range ids {
		v.Add("id", queueID(id))
	}
	return v, len(v) == 0, nil
}

// queueID is an id as it was typed, or copied with the mark of a list.
func queueID(s string) string { return strings.ToUpper(strings.TrimRight(strings.TrimSpace(s), "*!")) }

type queueListCmd struct {
	configFlag
	queueFilter
	IDs  []string `arg:"" optional:"" name:"id" help:"Only these."`
	JSON bool     `help:"Print a JSON object for each message, with the names of postqueue -j."`
}

// Run prints a paragraph for each message, as mailq does.
func (c *queueListCmd) Run(std streams) error {
	v, _, err := c.query(c.IDs)
	if err != nil {
		return err
	}
	state, err := c.state(std)
	if err != nil {
		return err
	}
	if c.JSON {
		return admin.Stream(context.Background(), state, "/queue?"+v.Encode(), func(r io.Reader) error {
			_, err := io.Copy(std.out, r)
			return err
		})
	}
	return listQueue(std, state, v)
}

// eachQueued calls f with what the filter v chooses, the oldest first.
func eachQueued(state string, v url.Values, f func(admin.Queued)) error {
	return admin.Stream(context.Background(), state, "/queue?"+v.Encode(), func(r io.Reader) error {
		for d := json.NewDecoder(r); ; {
			var q admin.Queued
			if err := d.Decode(&q); err == io.EOF {
				return nil
			} else if err != nil {
				return fmt.Errorf("read the server's answer: %w", err)
			}
			f(q)
		}
	})
}

// listQueue prints what the filter v chooses.
func listQueue(std streams, state string, v url.Values) error {
	n, octets := 0, int64(0)
	out := bufio.NewWriter(std.out)
	err := eachQueued(state, v, func(q admin.Queued) {
		if n == 0 {
			fmt.Fprintln(out, "-Queue ID-          --Size-- ----Arrival Time---- -Sender/Recipient-------")
		}
		n++
		octets += q.MessageSize
		printQueued(out, q)
	})
	switch {
	case err != nil:
	case n == 0:
		fmt.Fprintln(out, "Mail queue is empty")
	default:
		fmt.Fprintf(out, "-- %d Kbytes in %s.\n", (octets+1023)/1024, count(n, "Request", "Requests"))
	}
	return errors.Join(err, out.Flush())
}

// printQueued prints a message and those recipients that wait, with the reason above
// those that share it.
func printQueued(w io.Writer, q admin.Queued) {
	mark := map[string]string{"active": "*", "hold": "!"}[q.QueueName]
	fmt.Fprintf(w, "%-18s %9d %s  %s\n", q.QueueID+mark, q.MessageSize, time.Unix(q.ArrivalTime, 0).Format("Mon Jan _2 15:04:05"), oneLine(q.Sender))
	last := ""
	for _, r := range q.Recipients {
		if r.DelayReason != last && r.DelayReason != "" {
			fmt.Fprintf(w, "%40s\n", "("+oneLine(r.DelayReason)+")")
		}
		last = r.DelayReason
		fmt.Fprintf(w, "%41s%s\n", "", oneLine(r.Address))
	}
	fmt.Fprintln(w)
}

// oneLine is text without line ends and controls: it may be a stranger's, and is
// for a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

type queueShowCmd struct {
	configFlag
	ID   string `arg:"" help:"The message."`
	Raw  bool   `xor:"form" help:"Print the message itself, whole."`
	JSON bool   `xor:"form" help:"Print JSON."`
}

// Run prints what is known of a message.
func (c *queueShowCmd) Run(std streams) error {
	state, err := c.state(std)
	if err != nil {
		return err
	}
	path := "/queue/message/" + url.PathEscape(queueID(c.ID))
	ctx := context.Background()
	if c.Raw {
		return admin.Stream(ctx, state, path+"?raw=1", func(r io.Reader) error {
			_, err := io.Copy(std.out, r)
			return err
		})
	}
	b, err := admin.Ask(ctx, state, path)
	if err != nil {
		return err
	}
	if c.JSON {
		_, err := std.out.Write(b)
		return err
	}
	var q admin.Queued
	if err := json.Unmarshal(b, &q); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	showQueued(std.out, q)
	return admin.Stream(ctx, state, path+"?raw=1", func(r io.Reader) error {
		lines := bufio.NewReaderSize(io.LimitReader(r, 1<<20), 1<<16)
		for {
			line, err := lines.ReadString('\n')
			if text := strings.TrimRight(line, "\r\n"); text != "" {
				fmt.Fprintln(std.out, "  "+oneLine(strings.ReplaceAll(text, "\t", "    ")))
			} else {
				return nil
			}
			if err != nil {
				return nil
			}
		}
	})
}

func showQueued(out io.Writer, q admin.Queued) {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, oneLine(value))
		}
	}
	line("message", q.QueueID)
	line("queue", q.QueueName)
	line("held because", q.Hold)
	line("size", count(int(q.MessageSize), "octet", "octets"))
	line("arrived", time.Unix(q.ArrivalTime, 0).Format(time.RFC3339))
	line("sender", q.Sender)
	line("user", q.User)
	line("client", q.Client)
	line("session", q.Session)
	line("envelope id", q.EnvelopeID)
	line("attempts", fmt.Sprint(q.Tries))
	if q.DelayNotified {
		line("delay", "the sender knows of it")
	}
	if !q.Next.IsZero() {
		line("next attempt", q.Next.Format(time.RFC3339))
	}
	w.Flush() // to memory or a terminal
	for _, r := range q.Recipients {
		fmt.Fprintf(out, "\n%s: %s\n", oneLine(r.Address), r.State)
		w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
		line := func(name, value string) {
			for _, text := range strings.Split(value, "\n") {
				if value != "" {
					fmt.Fprintf(w, "  %s\t%s\n", name, oneLine(text))
				}
				name = "" // of what goes on
			}
		}
		line("given as", r.Original)
		line("sender there", r.From)
		if r.Transport != "" {
			line("by", strings.TrimSpace(r.Transport+" "+r.Hop))
		}
		if !r.Tried.IsZero() {
			line("last attempt", r.Tried.Format(time.RFC3339))
		}
		line("host", r.Remote)
		line("status", r.Status)
		line("said", r.Reply)
		line("notify", strings.Join(r.Notify, ","))
		w.Flush() // to memory or a terminal
	}
	fmt.Fprintln(out)
}

type queueShapeCmd struct {
	configFlag
	queueFilter
	Senders bool `help:"By domain of the sender."`
	JSON    bool `help:"Print JSON."`
}

// Run prints the table of qshape.
func (c *queueShapeCmd) Run(std streams) error {
	v, _, err := c.query(nil)
	if err != nil {
		return err
	}
	if c.Senders {
		v.Set("senders", "1")
	}
	state, err := c.state(std)
	if err != nil {
		return err
	}
	b, err := admin.Ask(context.Background(), state, "/queue/shape?"+v.Encode())
	if err != nil {
		return err
	}
	if c.JSON {
		_, err := std.out.Write(b)
		return err
	}
	var t admin.ShapeTable
	if err := json.Unmarshal(b, &t); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	w := tabwriter.NewWriter(std.out, 0, 0, 1, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "\tT\t")
	for _, a := range t.Ages {
		fmt.Fprintf(w, "%d\t", a)
	}
	if len(t.Ages) > 0 {
		fmt.Fprintf(w, "%d+\t", t.Ages[len(t.Ages)-1])
	}
	fmt.Fprintln(w)
	for _, r := range t.Rows {
		fmt.Fprintf(w, "%s\t%d\t", oneLine(r.Domain), r.Total)
		for _, n := range r.ByAge {
			fmt.Fprintf(w, "%d\t", n)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}
