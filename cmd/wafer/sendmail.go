package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/config"
)

// Exit codes of sysexits.h, which programs that call sendmail look at.
const (
	exUsage       = 64 // the command line is wrong
	exDataErr     = 65 // the message is
	exNoUser      = 67 // a recipient is unknown
	exNoHost      = 68 // a recipient's domain takes no mail
	exUnavailable = 69 // refused for another reason
	exIOErr       = 74 // the message could not be read
	exTempFail    = 75 // try again later
	exConfig      = 78 // the configuration is broken
)

// maxEnvelope bounds the envelope as it is sent to the server, in octets; that reads
// no more than 1 MiB before a body.
const maxEnvelope = 1000 << 10

// classic runs the commands that mail programs expect of a mail server, by the
// names that they know: sendmail, mailq, newaliases.
func classic(name string, args []string, std streams) (code int, ok bool) {
	switch name {
	case "sendmail":
	case "mailq":
		args = append([]string{"-bp"}, args...)
	case "newaliases":
		args = append([]string{"-bi"}, args...)
	default:
		return 0, false
	}
	err := sendmail(args, std)
	if err == nil {
		return 0, true
	}
	fmt.Fprintf(std.err, "%s: %v\n", name, err)
	var f *failure
	if errors.As(err, &f) {
		return f.code, true
	}
	return exTempFail, true
}

// failure is an error with an exit code.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// sendmail does what /usr/sbin/sendmail does. An error that is no failure is worth
// another try.
func sendmail(args []string, std streams) error {
	l, err := parseSendmail(args)
	if err != nil {
		return &failure{exUsage, err}
	}
	if l.mode == 'i' {
		_, err := fmt.Fprintln(std.out, "aliases are part of the configuration and need no database: there is nothing to do")
		return err
	}
	cfg, err := config.Load(l.config)
	if err != nil {
		return &failure{exConfig, err}
	}
	switch {
	case l.mode == 'p':
		if err := listQueue(std, cfg.State, url.Values{}); err != nil {
			return &failure{exUnavailable, err}
		}
		return nil
	case l.mode == 's':
		return relaySMTP(cfg.State, std)
	case l.flush && len(l.rcpts) == 0 && !l.extract:
		return l.flushQueue(cfg.State)
	}
	return l.submit(cfg, std)
}

// flushQueue tries at once what -q says.
func (l *handover) flushQueue(state string) error {
	v := url.Values{}
	if l.id != "" {
		v.Set("id", queueID(l.id))
	}
	if l.site != "" {
		v.Set("destination", l.site)
	}
	b, err := admin.Post(context.Background(), state, "/queue/flush?"+v.Encode())
	if err != nil {
		return &failure{exUnavailable, err}
	}
	var done admin.Changed
	if err := json.Unmarshal(b, &done); err != nil {
		return &failure{exUnavailable, fmt.Errorf("read the server's answer: %w", err)}
	}
	if l.id != "" && len(done.IDs) == 0 {
		return &failure{exUnavailable, fmt.Errorf("%s does not wait for another attempt", l.id)}
	}
	return nil
}

// submit hands the message on standard input to the running server.
func (l *handover) submit(cfg *config.Config, std streams) error {
	home := cfg.Hostname // the domain of names that have none
	if len(cfg.Domains) > 0 {
		home = cfg.Domains[0].Name
	}
	from, err := l.sender(home)
	if err != nil {
		return err
	}
	var rcpts []string
	for _, arg := range l.rcpts {
		found, err := parseAddresses(arg)
		if err != nil {
			return &failure{exUsage, err}
		}
		for _, a := range found {
			rcpts = append(rcpts, a.whole(home))
		}
	}
	if len(rcpts) == 0 && !l.extract { // said before anything is read
		return &failure{exUsage, errors.New("nobody to send it to: name recipients, or write -t to take them from the message")}
	}
	in := bufio.NewReaderSize(std.in, chunk)
	s, err := readSection(in, l.dots)
	if err != nil {
		return &failure{exDataErr, err}
	}
	if l.extract {
		more, err := s.recipients(home)
		if err != nil {
			return &failure{exDataErr, err}
		}
		if rcpts = append(rcpts, more...); len(rcpts) == 0 {
			return &failure{exDataErr, errors.New("nobody to send it to: the header names no recipient")}
		}
	}
	// Nobody sees a blind copy. The others were true of this message elsewhere.
	s.remove("bcc", "resent-bcc", "return-path", "content-length")
	s.qualify(home)
	author := from
	if author == "" {
		author = "MAILER-DAEMON@" + home
	}
	s.complete(author, l.fullName(), cfg.Hostname, time.Now())

	v := url.Values{"from": {from}, "login": {ownLogin()}}
	seen := map[string]bool{}
	for _, r := range rcpts {
		if !seen[r] {
			seen[r] = true
			v.Add("rcpt", r)
		}
	}
	for name, value := range map[string]string{"notify": l.notify, "ret": l.ret, "envid": l.envid, "body": l.body} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if len(v.Encode()) > maxEnvelope { // which no later attempt would change
		return &failure{exUnavailable, fmt.Errorf("%d recipients are more than one message may have", len(v["rcpt"]))}
	}
	body := s.body(in, l.dots)
	_, err = admin.Send(context.Background(), cfg.State, v, io.MultiReader(bytes.NewReader(s.text()), body))
	var refused *admin.Refused
	switch {
	case err == nil:
		return nil
	case body.err != nil: // which is why the server has nothing
		return &failure{exIOErr, body.err}
	case errors.As(err, &refused):
		return &failure{refusal(refused), err}
	}
	return &failure{exTempFail, err}
}

// refusal is the exit code for a reply.
func refusal(r *admin.Refused) int {
	if !r.Status.Permanent() {
		return exTempFail
	}
	switch r.Status.Enhanced {
	case "5.1.1", "5.1.6":
		return exNoUser
	case "5.1.2", "5.1.10":
		return exNoHost
	case "5.1.3", "5.1.7", "5.3.4", "5.6.0":
		return exDataErr
	}
	return exUnavailable
}

// sender is the reverse-path: that of -f, or the user's who calls; "" is null.
func (l *handover) sender(home string) (string, error) {
	from := l.from
	if !l.hasFrom {
		if from = os.Getenv("LOGNAME"); from == "" || strings.ContainsFunc(from, notInName) {
			from = ownLogin()
		}
	}
	found, err := parseAddresses(from)
	switch {
	case err != nil:
		return "", &failure{exUsage, fmt.Errorf("sender: %w", err)}
	case len(found) > 1:
		return "", &failure{exUsage, fmt.Errorf("%d senders in %.100q", len(found), from)}
	case len(found) == 0:
		return "", nil
	}
	return found[0].whole(home), nil
}

// notInName says which characters a login has not.
func notInName(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune("()<>[]:;@\\,\"", r)
}

// fullName is what the sender is called: by -F, or by the environment.
func (l *handover) fullName() string {
	if l.name != "" {
		return oneLine(l.name)
	}
	return oneLine(os.Getenv("NAME"))
}

// ownLogin is the login of who calls.
func ownLogin() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprint("uid", os.Getuid()) // it has no name
}
