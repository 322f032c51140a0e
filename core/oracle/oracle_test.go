package oracle

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/wafermail/wafer/core/dns"
)

// workers is how many sessions are replayed at once.
const workers = 16

// TestRestrictions replays the suites in which one answer is recorded for each
// session, and compares verdict, code, enhanced code and text.
func TestRestrictions(t *testing.T) {
	var rows []row
	for _, suite := range []string{"client", "helo", "sender", "recipient"} {
		rows = append(rows, load(t, suite)...)
	}
	b, err := os.ReadFile(folder + "configs.json")
	if err != nil {
		t.Fatal(err)
	}
	var rec recording
	if err := json.Unmarshal(b, &rec); err != nil {
		t.Fatal(err)
	}
	zone, err := dns.LoadZone(folder + "zone.json")
	if err != nil {
		t.Fatal(err)
	}
	byConfig := map[string][]*row{}
	for i := range rows {
		byConfig[rows[i].Config] = append(byConfig[rows[i].Config], &rows[i])
	}
	sum := newTally(t)
	root := t.TempDir()
	for name, rows := range byConfig {
		t.Run(name, func(t *testing.T) {
			s := settings{}
			for k, v := range rec.Main {
				s[k] = v
			}
			for k, v := range rec.Configs[name] {
				s[k] = v
			}
			addr, missing := serve(t, root, s, zone)
			if len(missing) > 0 {
				t.Errorf("nothing stands for %q", missing)
			}
			var mu sync.Mutex
			var g sync.WaitGroup
			queue := make(chan *row)
			for range workers {
				g.Go(func() {
					for r := range queue {
						got, err := replay(addr, r, rec.Clients[r.Client])
						if err != nil {
							got.text = err.Error()
						}
						mu.Lock()
						sum.add(r, got)
						mu.Unlock()
					}
				})
			}
			for _, r := range rows {
				queue <- r
			}
			close(queue)
			g.Wait()
		})
	}
	sum.report(t)
}

// exception is a kind of difference that is meant.
type exception struct {
	suite     string
	value     *regexp.Regexp
	want, got *regexp.Regexp // of "code text"
	reason    string
	met       int
}

// tally counts what is equal, by suite.
type tally struct {
	suites     map[string]*count
	exceptions []*exception
}

type count struct {
	rows, verdict, code, text, meant int // of meant, those whose verdict or codes differ too: unlike
	unlike                           int
	differ                           []string
}

// newTally reads the exceptions: suite, value, what Postfix says, what we say, and
// why, with tabs between them.
func newTally(t *testing.T) *tally {
	t.Helper()
	b, err := os.ReadFile("testdata/exceptions.tsv")
	if err != nil {
		t.Fatal(err)
	}
	s := &tally{suites: map[string]*count{}}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 5 || len(f[4]) < 20 {
			t.Fatalf("exception %q does not have suite, value, want, got and a reason", line)
		}
		whole := func(s string) *regexp.Regexp { return regexp.MustCompile("^(?:" + s + ")$") }
		s.exceptions = append(s.exceptions, &exception{
			suite: f[0], value: whole(f[1]), want: whole(f[2]), got: whole(f[3]), reason: f[4],
		})
	}
	return s
}

func (s *tally) add(r *row, got answer) {
	c := s.suites[r.Suite]
	if c == nil {
		c = &count{}
		s.suites[r.Suite] = c
	}
	c.rows++
	want := answer{r.Verdict, r.Code, r.Enh, string(r.Text)}
	same := got.verdict == want.verdict
	if same {
		c.verdict++
	}
	if same = same && got.code == want.code && got.enh == want.enh; same {
		c.code++
	}
	if same && (want.verdict == "accept" || got.text == want.text) {
		c.text++
		return
	}
	w, g := fmt.Sprint(want.code, " ", want.text), fmt.Sprint(got.code, " ", got.text)
	for _, e := range s.exceptions {
		if strings.Contains(e.suite, r.Suite) && e.value.MatchString(string(r.Value)) && e.want.MatchString(w) && e.got.MatchString(g) {
			e.met++
			c.meant++
			if !same {
				c.unlike++
			}
			return
		}
	}
	c.differ = append(c.differ, fmt.Sprintf("%s\t%s\t%s\t%s\t%q\twant %q\tgot %q", r.ID, r.Config, r.Client, r.Class, r.Value, w, g))
}

func (s *tally) report(t *testing.T) {
	for suite, c := range s.suites {
		of := func(n int) float64 { return 100 * float64(n) / float64(c.rows) }
		t.Logf("%s: %d sessions; equal verdict %.2f %%, and codes %.2f %%, and text %.2f %%; %d differ as meant, %d of them by more than the text", suite, c.rows, of(c.verdict), of(c.code), of(c.text), c.meant, c.unlike)
		if of(c.code) < 98 {
			t.Errorf("%s: verdict and codes are equal in %.2f %% of the sessions, want 98", suite, of(c.code))
		}
		for i, d := range c.differ {
			if i == 20 {
				t.Errorf("%s: and %d more", suite, len(c.differ)-i)
				break
			}
			t.Errorf("differs: %.400s", d)
		}
		if name := os.Getenv("WAFER_ORACLE_DIFF"); name != "" { // for who writes exceptions
			if err := os.WriteFile(name+"."+suite, []byte(strings.Join(c.differ, "\n")), 0o600); err != nil {
				t.Error(err)
			}
		}
	}
	for _, e := range s.exceptions {
		if e.met == 0 {
			t.Errorf("no session meets the exception %q, %q, %q any more", e.suite, e.want, e.got)
		}
	}
}
