package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/queue"
)

// Queued is a message of the queue. The names up to Recipients are those of
// Postfix's postqueue -j.
type Queued struct {
	QueueName     string            `json:"queue_name"` // "active", "deferred" or "hold"
	QueueID       string            `json:"queue_id"`
	ArrivalTime   int64             `json:"arrival_time"` // Unix time
	MessageSize   int64             `json:"message_size"` // octets
	ForcedExpire  bool              `json:"forced_expire"`
	Sender        string            `json:"sender"` // "MAILER-DAEMON" for the null reverse-path
	Recipients    []QueuedRecipient `json:"recipients"`
	Next          time.Time         `json:"next_attempt,omitzero"`
	Tries         int               `json:"attempts"`
	Hold          string            `json:"hold_reason,omitempty"`
	User          string            `json:"user,omitempty"`
	Client        string            `json:"client,omitempty"`
	Session       string            `json:"session,omitempty"`
	EnvelopeID    string            `json:"envelope_id,omitempty"`
	DelayNotified bool              `json:"delay_notified,omitempty"`
}

// QueuedRecipient is a recipient that is not settled, or with "queue show" any.
type QueuedRecipient struct {
	Address     string    `json:"address"`
	DelayReason string    `json:"delay_reason,omitempty"`
	State       string    `json:"state,omitempty"` // "waiting", "sent", "failed"
	Original    string    `json:"original,omitempty"`
	From        string    `json:"from,omitempty"` // reverse-path towards it, if it is not the sender
	Transport   string    `json:"transport,omitempty"`
	Hop         string    `json:"hop,omitempty"`
	Status      string    `json:"status,omitempty"` // "450 4.2.0"
	Reply       string    `json:"reply,omitempty"`  // word for word
	Remote      string    `json:"remote,omitempty"`
	Tried       time.Time `json:"tried,omitzero"`
	Notify      []string  `json:"notify,omitempty"`
}

// ShapeTable is the answer of the verb shape.
type ShapeTable struct {
	Ages []int            `json:"ages_minutes"` // upper bounds of the columns; there is one more
	Rows []queue.ShapeRow `json:"rows"`
}

// queued shows an entry; with all also the recipients that are settled.
func queued(e queue.Entry, all bool) Queued {
	q := Queued{
		QueueName: e.Name, QueueID: string(e.Envelope.ID), ArrivalTime: e.Envelope.Received.Unix(), MessageSize: e.Size + int64(len(e.Head)),
		Sender: e.Envelope.From.String(), Next: e.Next, Tries: e.Tries, Hold: e.Hold, User: e.Envelope.User, Session: e.Envelope.Session,
		EnvelopeID: e.Envelope.EnvID, DelayNotified: e.Warned, Recipients: []QueuedRecipient{},
	}
	if e.Tried.IsZero() {
		q.Tries = 0
	}
	if e.Envelope.From.IsNull() {
		q.Sender = "MAILER-DAEMON"
	}
	if e.Envelope.Client.Addr.IsValid() {
		q.Client = e.Envelope.Client.Addr.Addr().String()
	}
	for i := range e.Rcpts {
		r := &e.Rcpts[i]
		if r.State != queue.Waiting && !all {
			continue
		}
		x := QueuedRecipient{Address: r.To.String()}
		if r.State == queue.Waiting {
			x.DelayReason = reason(e.Hold, r)
		}
		if all {
			x.State = [...]string{"waiting", "sent", "failed"}[r.State]
			x.Remote, x.Reply, x.Tried, x.Notify = r.Outcome.Remote, r.Outcome.Status.Text, r.At, r.Notify
			if r.Outcome.Status.Code != 0 {
				x.Status = fmt.Sprintf("%d %s", r.Outcome.Status.Code, r.Outcome.Status.Enhanced)
			}
			if !r.Original.IsNull() {
				x.Original = r.Original.String()
			}
			if r.From != e.Envelope.From {
				x.From = r.From.String()
			}
			if r.Route != nil {
				x.Transport, x.Hop = r.Route.Transport, r.Route.Hop
			}
		}
		q.Recipients = append(q.Recipients, x)
	}
	return q
}

// reason is why a recipient waits, in the form of Postfix's mailq.
func reason(hold string, r *queue.Recipient) string {
	o := r.Outcome
	switch {
	case hold != "":
		return hold
	case o.Status.Code == 0:
		return ""
	case o.Remote != "":
		return fmt.Sprintf("host %s said: %d %s", o.Remote, o.Status.Code, o.Status.Text)
	}
	return o.Status.Text
}

// filterOf reads a filter out of a query.
func filterOf(v url.Values) (f queue.Filter, err error) {
	for _, id := range v["id"] {
		f.IDs = append(f.IDs, mail.ID(id))
	}
	f.Destination, f.Sender, f.Recipient, f.Reason = v.Get("destination"), v.Get("sender"), v.Get("recipient"), v.Get("reason")
	for name, d := range map[string]*time.Duration{"older": &f.Older, "younger": &f.Younger} {
		if s := v.Get(name); s != "" {
			if *d, err = time.ParseDuration(s); err != nil {
				return f, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	f.Held, f.Deferred = v.Has("held"), v.Has("deferred")
	return f, nil
}

// serveQueue adds the queue's verbs.
func serveQueue(mux *http.ServeMux, q *queue.Queue, answer func(http.ResponseWriter, any, error)) {
	mux.HandleFunc("GET /queue", func(w http.ResponseWriter, r *http.Request) {
		f, err := filterOf(r.URL.Query())
		if err != nil {
			answer(w, nil, err)
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		_ = q.List(r.Context(), f, func(e queue.Entry) error { return enc.Encode(queued(e, false)) }) // a client that has gone needs no answer
	})
	mux.HandleFunc("GET /queue/shape", func(w http.ResponseWriter, r *http.Request) {
		f, err := filterOf(r.URL.Query())
		var t ShapeTable
		if err == nil {
			for _, a := range queue.Ages() {
				t.Ages = append(t.Ages, int(a.Minutes()))
			}
			t.Rows, err = q.Shape(r.Context(), f, r.URL.Query().Has("senders"))
		}
		answer(w, t, err)
	})
	mux.HandleFunc("GET /queue/message/{id}", func(w http.ResponseWriter, r *http.Request) {
		e, body, err := q.Show(mail.ID(r.PathValue("id")))
		if err != nil {
			answer(w, nil, err)
			return
		}
		defer body.Close() // only read
		if r.URL.Query().Has("raw") {
			w.Header().Set("Content-Type", "message/rfc822")
			if _, err := w.Write(e.Head); err == nil {
				_, _ = io.Copy(w, body) // a client that has gone needs no answer
			}
			return
		}
		answer(w, queued(*e, true), nil)
	})
	mux.HandleFunc("POST /queue/{verb}", func(w http.ResponseWriter, r *http.Request) {
		v := r.URL.Query()
		f, err := filterOf(v)
		if err != nil {
			answer(w, nil, err)
			return
		}
		ids, err := change(r.Context(), q, r.PathValue("verb"), f, v)
		if ids == nil {
			ids = []mail.ID{}
		}
		answer(w, Changed{IDs: ids, Dry: v.Has("dry")}, err)
	})
}

// Changed is the answer of a verb that changes the queue.
type Changed struct {
	IDs []mail.ID `json:"ids"`
	Dry bool      `json:"dry_run,omitempty"` // nothing was done
}

func change(ctx context.Context, q *queue.Queue, verb string, f queue.Filter, v url.Values) ([]mail.ID, error) {
	dry := v.Has("dry")
	switch verb {
	case "flush":
		return q.Flush(ctx, f, dry)
	case "hold":
		return q.Hold(ctx, f, v.Get("why"), dry)
	case "release":
		return q.Release(ctx, f, dry)
	case "drop":
		return q.Drop(ctx, f, dry)
	case "reroute":
		if v.Get("transport") == "" {
			return q.Reroute(ctx, f, nil, dry)
		}
		return q.Reroute(ctx, f, &mail.Route{Transport: v.Get("transport"), Hop: v.Get("hop")}, dry)
	}
	return nil, errors.New("the queue has no verb " + strconv.Quote(verb))
}

// Stream fetches path and hands its body to read as it comes.
func Stream(ctx context.Context, state, path string, read func(io.Reader) error) error {
	return stream(ctx, http.MethodGet, state, path, read)
}

// Post asks the server to do what path says.
func Post(ctx context.Context, state, path string) ([]byte, error) {
	return do(ctx, http.MethodPost, state, path)
}
