package oracle

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const folder = "../../../shared/testdata/postfix-oracle/"

// octets is a JSON string, or {"b64": …} where it is not UTF-8.
type octets string

func (o *octets) UnmarshalJSON(b []byte) error {
	var coded struct{ B64 string }
	if json.Unmarshal(b, &coded) == nil && coded.B64 != "" {
		raw, err := base64.StdEncoding.DecodeString(coded.B64)
		*o = octets(raw)
		return err
	}
	return json.Unmarshal(b, (*string)(o))
}

// reply is one SMTP reply.
type reply struct {
	Code int      `json:"code"`
	Enh  string   `json:"enh"`
	Text []octets `json:"text"`
}

type row struct {
	ID, Suite, Class, Config, Client, Name, Verdict, At string

	Value octets
	Steps []struct {
		Send    octets
		Replies []reply
	}
	Code     int
	Enh      string
	Text     octets
	Accepted int `json:"accepted_messages"`
}

// recording is configs.json.
type recording struct {
	Main    settings
	Configs map[string]settings
	Clients map[string]map[string]string
}

func load(t *testing.T, suite string) (rows []row) {
	t.Helper()
	f, err := os.Open(folder + suite + ".jsonl")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("the recordings are not here: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		var r row
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, r)
	}
	if s.Err() != nil {
		t.Fatal(s.Err())
	}
	return rows
}

// talk is a client's side of one session.
type talk struct {
	c net.Conn
	r *bufio.Reader
}

// begin connects as the named client of the recordings.
func begin(addr string, attributes map[string]string) (*talk, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &talk{c, bufio.NewReader(c)}
	if _, err := s.reply(20 * time.Second); err != nil {
		return s, err
	}
	command := "XCLIENT"
	for _, name := range []string{"NAME", "REVERSE_NAME", "ADDR", "LOGIN"} {
		if v := attributes[name]; v != "" {
			command += " " + name + "=" + v
		}
	}
	if _, err := fmt.Fprint(c, command+"\r\n"); err != nil {
		return s, err
	}
	a, err := s.reply(20 * time.Second)
	if err == nil && a.Code != 220 {
		err = fmt.Errorf("%s: %d %q", command, a.Code, a.Text)
	}
	return s, err
}

var enhanced = regexp.MustCompile(`^([245]\.\d{1,3}\.\d{1,3}) `)

// reply reads one reply.
func (s *talk) reply(patience time.Duration) (a reply, err error) {
	if err := s.c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return a, err
	}
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			return a, err
		}
		line = strings.TrimRight(line, "\r\n")
		if len(line) < 3 {
			return a, fmt.Errorf("short reply %q", line)
		}
		if a.Code, err = strconv.Atoi(line[:3]); err != nil {
			return a, fmt.Errorf("reply %q", line)
		}
		if len(line) > 4 {
			a.Text = append(a.Text, octets(line[4:]))
			if m := enhanced.FindString(line[4:]); m != "" {
				a.Enh = strings.TrimSpace(m)
			}
		}
		if len(line) < 4 || line[3] != '-' {
			return a, nil
		}
	}
}

// decisionID is what our refusals end with.
var decisionID = regexp.MustCompile(` \([0-9A-Z]{17}\)$`)

// answer is what decided a session: the first refusal, else the last reply.
type answer struct {
	verdict   string
	code      int
	enh, text string
}

// noQueue is how a server without a queue answers mail for other hosts that
// every rule allows.
const noQueue = "this server does not send mail to other hosts yet"

func answerOf(a reply) answer {
	text := ""
	if len(a.Text) > 0 {
		text = decisionID.ReplaceAllString(string(a.Text[len(a.Text)-1]), "")
	}
	if strings.HasSuffix(text, noQueue) { // what the policy lets pass
		return answer{"accept", 250, "2.1.5", "Ok"}
	}
	v := "accept"
	switch a.Code / 100 {
	case 4:
		v = "tempfail"
	case 5:
		v = "reject"
	}
	return answer{v, a.Code, a.Enh, text}
}

// replay says what a row's client said, up to the first refusal.
func replay(addr string, r *row, attributes map[string]string) (a answer, err error) {
	s, err := begin(addr, attributes)
	if s != nil {
		defer s.c.Close()
	}
	if err != nil {
		return a, err
	}
	for _, step := range r.Steps {
		if _, err := fmt.Fprint(s.c, string(step.Send)); err != nil {
			return a, err
		}
		for range step.Replies {
			got, err := s.reply(20 * time.Second)
			if err != nil {
				return a, fmt.Errorf("after %.60q: %w", step.Send, err)
			}
			if a = answerOf(got); got.Code >= 400 {
				return a, nil
			}
		}
	}
	return a, nil
}
