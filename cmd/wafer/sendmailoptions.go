package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// handover is what a command line of sendmail asks for.
type handover struct {
	mode    byte // 'm' send, 'p' list, 'i' aliases, 's' SMTP
	flush   bool // -q
	id      string
	site    string // the only one to be flushed
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
	body    string // "", "7BIT", "8BITMIME"
}

// parseSendmail reads the options of sendmail. Those that say how another program
// should work are passed over.
func parseSendmail(args []string) (l handover, err error) {
	l = handover{mode: 'm', config: os.Getenv("WAFER_CONFIG")}
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
			attached := func() string {
				v := opts
				opts = ""
				return v
			}
			value := func() string {
				if opts == "" && err == nil {
					if len(args) == 0 {
						err = fmt.Errorf("option -%c needs a value", o)
						return ""
					}
					opts, args = args[0], args[1:]
				}
				return attached()
			}
			if bad := l.option(o, value, attached); bad != nil || err != nil {
				return l, errors.Join(err, bad)
			}
		}
	}
	return l, l.check()
}

// option takes one option. value fetches its value, attached what is written
// behind it in the same word.
func (l *handover) option(o byte, value, attached func() string) error {
	switch o {
	case 't':
		l.extract = true
	case 'i':
		l.dots = true
	case 'f', 'r':
		l.from, l.hasFrom = value(), true
	case 'F':
		l.name = value()
	case 'C':
		l.config = value()
	case 'N':
		l.notify = strings.ToUpper(value())
	case 'R':
		l.ret = strings.ToUpper(value())
	case 'V':
		l.envid = value()
	case 'B':
		l.body = strings.ToUpper(value())
	case 'b':
		return l.setMode(value())
	case 'I':
		l.mode = 'i'
	case 'o':
		if value() == "i" {
			l.dots = true
		}
	case 'q': // with or without a time, an id or a site
		l.flush = true
		switch v := attached(); {
		case strings.HasPrefix(v, "I"):
			l.id = v[1:]
		case strings.HasPrefix(v, "R"), strings.HasPrefix(v, "S"):
			l.site = strings.TrimPrefix(v[1:], "@")
		}
	case 'A', 'e', 'h', 'L', 'O', 'p', 'X':
		value()
	case 'd', 'M':
		attached()
	case 'v', 'n', 'm', 'U', 'G', 'x', 'c', 'T':
	default:
		return fmt.Errorf("there is no option -%c", o)
	}
	return nil
}

func (l *handover) setMode(mode string) error {
	switch mode {
	case "m", "p", "i", "s":
		l.mode = mode[0]
		return nil
	case "":
		return nil // an option without its value, which is told of
	case "v":
		return fmt.Errorf("-bv is not supported: \"wafer policy explain\" says what becomes of an address")
	case "d", "D", "l":
		return fmt.Errorf("-b%s is not supported: \"wafer run\" serves", mode)
	}
	return fmt.Errorf("-b%s is not supported: -bm sends, -bp lists the queue, -bs speaks SMTP, -bi does nothing here", mode)
}

// check looks at values that the server would refuse.
func (l *handover) check() error {
	words := strings.Split(l.notify, ",")
	for _, w := range words {
		switch {
		case l.notify == "":
		case !slices.Contains([]string{"NEVER", "SUCCESS", "FAILURE", "DELAY"}, w), w == "NEVER" && len(words) > 1:
			return fmt.Errorf("-N %q: write never, or some of success,failure,delay", strings.ToLower(l.notify))
		}
	}
	switch {
	case !slices.Contains([]string{"", "FULL", "HDRS"}, l.ret):
		return fmt.Errorf("-R %q: write full or hdrs", strings.ToLower(l.ret))
	case len(l.envid) > 100 || strings.ContainsFunc(l.envid, func(r rune) bool { return r < '!' || r > '~' }):
		return fmt.Errorf("-V %.120q: write up to 100 printable characters without blanks", l.envid)
	case !slices.Contains([]string{"", "7BIT", "8BITMIME"}, l.body):
		return fmt.Errorf("-B %q: write 7bit or 8bitmime", strings.ToLower(l.body))
	}
	return nil
}
