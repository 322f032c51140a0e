package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/user"
	"slices"
	"strings"

	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/config"
)

// Exit codes of sysexits.h, which programs that call sendmail look at.
const (
	exUsage       = 64
	exDataErr     = 65
	exNoUser      = 67
	exUnavailable = 69
	exTempFail    = 75
	exConfig      = 78
)

// classic runs the commands that mail programs expect of a mail server, by the
// names that they know: sendmail, mailq, newaliases.
func classic(name string, args []string, std streams) (code int, ok bool) {
	switch name {
	case "sendmail":
		return sendmail(args, std), true
	case "mailq":
		return sendmail(append([]string{"-bp"}, args...), std), true
	case "newaliases":
		return sendmail(append([]string{"-bi"}, args...), std), true
	}
	return 0, false
}

// handover is what a command line of sendmail asks for.
type handover struct {
	mode    string // "m" send, "p" list, "i" aliases, "s" SMTP
	flush   bool
	config  string
	from    string
	hasFrom bool
	name    string // full name of the sender
	extract bool   // recipients are in the header
	dots    bool   // a lone dot is text
	rcpts   []string
	notify  string
	ret     string
	envid   string
}

// parseSendmail reads the options of sendmail. Those that say how other servers
// should work are passed over.
func parseSendmail(args []string) (l handover, err error) {
	l = handover{mode: "m", config: os.Getenv("WAFER_CONFIG")}
	if l.config == "" {
		l.config = "/etc/wafer/config.hcl"
	}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			l.rcpts = append(l.rcpts, args...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			l.rcpts = append(l.rcpts, arg)
			continue
		}
		for opts := arg[1:]; opts != ""; {
			o := opts[0]
			opts = opts[1:]
			value := func() (string, error) {
				if opts != "" {
					v := opts
					opts = ""
					return v, nil
				}
				if len(args) == 0 {
					return "", fmt.Errorf("option -%c needs a value", o)
				}
				v := args[0]
				args = args[1:]
				return v, nil
			}
			switch o {
			case 't':
				l.extract = true
			case 'i':
				l.dots = true
			case 'f', 'r':
				l.from, err = value()
				l.hasFrom = true
			case 'F':
				l.name, err = value()
			case 'C':
				l.config, err = value()
			case 'N':
				l.notify, err = value()
			case 'R':
				l.ret, err = value()
			case 'V':
				l.envid, err = value()
			case 'B', 'h', 'L', 'O', 'p', 'X', 'A', 'd':
				_, err = value()
			case 'b':
				if l.mode, err = value(); err == nil && !slices.Contains([]string{"m", "p", "i"}, l.mode) {
					err = fmt.Errorf("-b%s is not supported: -bm sends, -bp lists the queue, -bi does nothing here", l.mode)
				}
			case 'o':
				if opts == "i" {
					l.dots = true
				}
				opts = ""
			case 'q': // with or without a time or an id
				l.flush, opts = true, ""
			case 'e', 'M', 'S': // how errors are told
				opts = ""
			case 'v', 'n', 'm', 'U', 'G', 'x', 'c', 'I', 'T':
			default:
				err = fmt.Errorf("no option -%c", o)
			}
			if err != nil {
				return l, err
			}
		}
	}
	for i, r := range l.rcpts {
		l.rcpts[i] = strings.TrimSuffix(strings.TrimPrefix(r, "<"), ">")
	}
	l.from = strings.TrimSuffix(strings.TrimPrefix(l.from, "<"), ">")
	return l, nil
}

// sendmail does what /usr/sbin/sendmail does.
func sendmail(args []string, std streams) int {
	fail := func(code int, err error) int {
		fmt.Fprintln(std.err, "sendmail:", err)
		return code
	}
	l, err := parseSendmail(args)
	if err != nil {
		return fail(exUsage, err)
	}
	if l.mode == "i" { // aliases are in the configuration, and need no database
		return 0
	}
	cfg, err := config.Load(l.config)
	if err != nil {
		return fail(exConfig, err)
	}
	switch {
	case l.mode == "p":
		if err := listQueue(std, cfg.State, url.Values{}); err != nil {
			return fail(exUnavailable, err)
		}
		return 0
	case l.flush && len(l.rcpts) == 0 && !l.extract:
		if _, err := admin.Post(context.Background(), cfg.State, "/queue/flush"); err != nil {
			return fail(exUnavailable, err)
		}
		return 0
	}
	if code, err := l.submit(cfg, std); err != nil {
		return fail(code, err)
	}
	return 0
}

// submit hands the message on standard input to the running server.
func (l *handover) submit(cfg *config.Config, std streams) (int, error) {
	in := bufio.NewReaderSize(std.in, 64<<10)
	section, err := readSection(in, l.dots)
	if err != nil {
		return exDataErr, err
	}
	who := "root"
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	home := cfg.Hostname
	if len(cfg.Domains) > 0 {
		home = cfg.Domains[0].Name
	}
	if !l.hasFrom {
		l.from = who
	}
	whole := func(a string) string {
		if a != "" && !strings.Contains(a, "@") {
			return a + "@" + home
		}
		return a
	}
	if l.extract {
		l.rcpts = append(l.rcpts, section.recipients()...)
		section.remove("bcc", "resent-bcc")
	}
	if len(l.rcpts) == 0 {
		return exNoUser, errors.New("nobody to send it to: name recipients, or write -t to take them from the message")
	}
	v := url.Values{"from": {whole(l.from)}}
	for _, r := range l.rcpts {
		v.Add("rcpt", whole(r))
	}
	section.complete(whole(l.from), l.name, cfg.Hostname)
	for name, value := range map[string]string{"notify": l.notify, "ret": l.ret, "envid": l.envid, "login": who} {
		if value != "" {
			v.Set(name, value)
		}
	}
	body := io.MultiReader(bytes.NewReader(section.text()), &crlf{r: in, dots: l.dots, over: section.ended})
	_, err = admin.Send(context.Background(), cfg.State, v, body)
	var refused *admin.Refused
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &refused) && refused.Status.Permanent():
		return exUnavailable, err
	}
	return exTempFail, err
}
