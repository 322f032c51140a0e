package smtpd

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wafermail/wafer/core/auth"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/policy"
)

// oracleUsers are the users that Postfix had: names without a domain.
type oracleUsers struct{}

func (oracleUsers) Lookup(user string) (auth.Record, error) {
	if user == "alice" || user == "bob" {
		return auth.Record{User: user, Hash: "{PLAIN}wonderland"}, nil
	}
	return auth.Record{}, auth.ErrNoUser
}

// oracleRecipient is what configs.json told Postfix about recipients.
func oracleRecipient(env *mail.Envelope, to mail.Recipient) mail.Status {
	known := map[string][]string{
		"":              {"postmaster"},
		"local.example": {"alice", "bob", "bob.smith", "postmaster", "abuse", "mailer-daemon"},
		"localhost":     {"alice", "bob", "bob.smith", "postmaster", "abuse", "mailer-daemon"},
		"relay.example": {"carol", "postmaster"}, "vmail.example": {"dave", "erin"}, "valias.example": {"info", "sales"},
	}
	users, ours := known[mail.DomainKey(to.To.Domain())]
	switch {
	case ours && !slices.Contains(users, strings.ToLower(to.To.Local())):
		return mail.Status{Code: 550, Enhanced: "5.1.1", Text: "User unknown"}
	case !ours && env.User == "":
		return mail.Status{Code: 554, Enhanced: "5.7.1", Text: "Relay access denied"}
	}
	return mail.Status{}
}

type sessionRow struct {
	ID, Class, Config, Name string
	Steps                   []step
	Closed                  bool
}

// TestPostfixSession says to the engine what was said to a real Postfix, and
// compares codes and enhanced codes.
func TestPostfixSession(t *testing.T) {
	row := new(sessionRow)
	seen := map[string]bool{}
	oracle(t, "session.jsonl", row, func() {
		r := *row
		*row = sessionRow{}
		key := r.Config + " " + r.Name
		t.Run(key, func(t *testing.T) {
			got, want := compare(t, r)
			why := postfixDiffers[key]
			seen[key] = true
			switch {
			case got == want && why != "":
				t.Errorf("no difference any more: %s", why)
			case got != want && why == "":
				t.Errorf("%s\n got %s\nwant %s", r.ID, got, want)
			}
		})
	})
	for key := range postfixDiffers {
		if !seen[key] {
			t.Errorf("no row %q", key)
		}
	}
}

// compare returns our replies and Postfix's, as far as the row can be played.
func compare(t *testing.T, r sessionRow) (got, want string) {
	profile := MX
	if r.Class == "auth" {
		profile = Submission
	}
	srv, _ := theatre(t, profile, func(c *Config, k *courier) {
		c.Limits.MessageSize = 102400
		c.Without = []string{"BINARYMIME"} // which that Postfix does not have
		if r.Config == "noutf8" {
			c.Without = append(c.Without, "SMTPUTF8")
		}
		if r.Config == "limits" {
			c.Limits.Recipients, c.Limits.Overshoot, c.Limits.HardErrors, c.Limits.JunkCommands = 3, 2, 5, 4
			c.Limits.CommandLine = 2048
		}
		if strings.HasPrefix(r.Config, "tls") {
			c.TLS = testTLS(t)
		}
		k.recipient = oracleRecipient
		if profile == Submission {
			c.TLS = testTLS(t)
			c.Begin = func(netip.Addr) Rules {
				return Rules{Courier: k, Auth: auth.NewService(auth.Config{Users: oracleUsers{}, Logger: slog.New(slog.DiscardHandler)})}
			}
		}
	})
	// Postfix's two restrictions on pipelining, as policies.
	pipelining := map[string]policy.Stage{"pipelining": policy.Data, "unauthpipe": policy.Helo}
	if stage, ok := pipelining[r.Config]; ok {
		srv.newJudge = func(Rules) judge {
			return &script{ask: func(ev *policy.Event) policy.Decision {
				switch {
				case ev.Stage != stage || !ev.EarlyTalker:
					return policy.Decision{}
				case stage == policy.Data:
					return policy.Decision{Action: policy.Reject, Status: mail.Status{Code: 503, Enhanced: "5.5.0"}}
				}
				return policy.Decision{Action: policy.Disconnect, Hangup: true, Status: mail.Status{Code: 554, Enhanced: "5.5.0"}}
			}}
		}
	}
	var steps [][]byte
	var wants []string
	for _, s := range r.Steps {
		if s.Send == nil {
			break // a TLS handshake
		}
		steps = append(steps, []byte(s.octets(t)))
		var codes []string
		for _, reply := range s.Replies {
			codes = append(codes, strings.TrimSpace(fmt.Sprint(reply.Code, " ", reply.Enh)))
		}
		wants = append(wants, strings.Join(codes, ","))
	}
	nc := newScript(steps...)
	ss := newSession(srv, nc)
	if profile == Submission {
		ss.client.TLS = mail.TLS{Version: "TLSv1.3", Cipher: "TLS_X"} // as if; the script is in the clear
	}
	ss.serve()
	var gots []string
	for i := range wants {
		if i+1 >= len(nc.replies) {
			gots = append(gots, "")
			continue
		}
		gots = append(gots, codes(nc.replies[i+1].String()))
	}
	return strings.Join(gots, " | "), strings.Join(wants, " | ")
}

// codes are the code and enhanced code of each reply in out.
func codes(out string) string {
	var list []string
	for _, line := range strings.Split(strings.TrimSuffix(out, "\r\n"), "\r\n") {
		if len(line) < 4 || line[3] == '-' {
			continue
		}
		code := line[:3]
		if word, _, _ := strings.Cut(line[4:], " "); len(word) >= 5 && word[1] == '.' && word[0] == line[0] {
			code += " " + word
		}
		list = append(list, code)
	}
	return strings.Join(list, ",")
}

// TestMPT plays the scripts of another server's test suite: the first three
// digits of each reply must be those of the script.
func TestMPT(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "shared", "testdata", "mpt", "smtp")
	files, err := filepath.Glob(filepath.Join(dir, "*.test"))
	if err != nil || len(files) == 0 {
		t.Skip("outside test data is absent")
	}
	differs := map[string]string{
		"authplain.test":                 "AUTH before EHLO is refused",
		"starttls_session_fixation.test": "AUTH on the MX port is not offered",
		"starttls_with_injection.test":   "554, not 451: the attempt will not get better",
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var steps [][]byte
			var want []string
			for _, line := range strings.Split(string(script), "\n") {
				switch {
				case strings.HasPrefix(line, "C:"):
					text := strings.ReplaceAll(strings.TrimPrefix(line[2:], " "), `\r\n`, "\r\n")
					steps = append(steps, []byte(strings.TrimSuffix(text, "\r\n")+"\r\n"))
				case line == "S: 250 STARTTLS", line == "S: 250 8BITMIME", strings.HasPrefix(line, "S: 250-"):
					// the later lines of the reply to EHLO, whose first is "250.*"
				case strings.HasPrefix(line, "S: "):
					want = append(want, line[3:6])
				}
			}
			srv, _ := theatre(t, MX, func(c *Config, _ *courier) {
				if strings.Contains(file, "starttls") {
					c.TLS = testTLS(t)
				}
			})
			nc := newScript(steps...)
			srv.play(nc)
			var got []string
			for _, line := range strings.Split(nc.all(), "\r\n") {
				if len(line) > 3 && line[3] == ' ' {
					got = append(got, line[:3])
				}
			}
			same := fmt.Sprint(got) == fmt.Sprint(want)
			if why := differs[filepath.Base(file)]; same == (why != "") {
				t.Errorf("got %v, want %v (%s)\n%s", got, want, why, nc.all())
			}
		})
	}
}
