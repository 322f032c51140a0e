package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/mail"
)

// Submission is a message that a program on this machine hands over, as sendmail
// does: from whom, to whom.
type Submission struct {
	From   mail.Path
	Rcpts  []mail.Recipient
	Return string // RET
	EnvID  string
	Login  string // name of the account, as the program says
}

// Submit is what takes submissions. An error that is a *Refused has a reply's code.
type Submit func(ctx context.Context, s Submission, message io.Reader) (mail.ID, error)

// Refused is why a submission was not taken.
type Refused struct{ Status mail.Status }

// Error is the reply.
func (r *Refused) Error() string {
	return fmt.Sprintf("%d %s %s", r.Status.Code, r.Status.Enhanced, r.Status.Text)
}

func serveSubmit(mux *http.ServeMux, submit Submit, answer func(http.ResponseWriter, any, error)) {
	mux.HandleFunc("POST /submit", func(w http.ResponseWriter, r *http.Request) {
		s, err := submissionOf(r.URL.Query())
		var id mail.ID
		if err == nil {
			id, err = submit(r.Context(), s, r.Body)
		}
		var refused *Refused
		if errors.As(err, &refused) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusConflict)
			answer(w, refused.Status, nil)
			return
		}
		answer(w, map[string]mail.ID{"id": id}, err)
	})
}

func submissionOf(v url.Values) (s Submission, err error) {
	path := func(a string) (mail.Path, error) {
		p, err := mail.ReadPath(a, true)
		if err != nil {
			return p, &Refused{mail.Status{Code: 501, Enhanced: "5.1.3", Text: "<" + a + ">: " + err.Error()}}
		}
		return p, nil
	}
	if from := v.Get("from"); from != "" {
		if s.From, err = path(from); err != nil {
			return s, err
		}
	}
	notify, err := notifyOf(v.Get("notify"))
	if err != nil {
		return s, err
	}
	for _, a := range v["rcpt"] {
		to, err := path(a)
		if err != nil {
			return s, err
		}
		s.Rcpts = append(s.Rcpts, mail.Recipient{To: to, Notify: notify})
	}
	switch ret := v.Get("ret"); ret {
	case "":
	case "full", "FULL":
		s.Return = "FULL"
	case "hdrs", "HDRS":
		s.Return = "HDRS"
	default:
		return s, fmt.Errorf("ret is %q: write full or hdrs", ret)
	}
	s.EnvID, s.Login = v.Get("envid"), v.Get("login")
	return s, nil
}

// notifyOf reads NOTIFY (RFC 3461 §4.1).
func notifyOf(s string) (list []string, err error) {
	if s == "" {
		return nil, nil
	}
	for _, word := range strings.Split(strings.ToUpper(s), ",") {
		if !slices.Contains([]string{"NEVER", "SUCCESS", "FAILURE", "DELAY"}, word) {
			return nil, fmt.Errorf("notify is %q: write never, or some of success, failure and delay", s)
		}
		list = append(list, word)
	}
	if len(list) > 1 && slices.Contains(list, "NEVER") {
		return nil, errors.New("notify is never, and nothing else besides")
	}
	return list, nil
}

// Send hands a message to the running server. Errors: *Refused, ErrNotRunning.
func Send(ctx context.Context, state string, v url.Values, message io.Reader) (mail.ID, error) {
	resp, err := request(ctx, http.MethodPost, state, "/submit?"+v.Encode(), message)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() // only read
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		var done struct{ ID mail.ID }
		return done.ID, json.Unmarshal(b, &done)
	case http.StatusConflict:
		refused := &Refused{}
		if err := json.Unmarshal(b, &refused.Status); err != nil {
			return "", err
		}
		return "", refused
	}
	return "", fault("/submit", resp.Status, b)
}
