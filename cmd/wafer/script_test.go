package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScript runs the stories of testdata/script. Besides testscript's own
// commands they have wafer, and
//
//	start [ARG…]    start the server of config.hcl and wait until it is ready
//	stop            end it by SIGTERM; it must exit with 0. Its log is then in server.log
//	crash           end it by SIGKILL
//	term            send SIGTERM and go on
//	ended           wait for the end after term
//	talk DOOR FILE  have the dialogue of the file: C: lines are sent, the answers
//	                must match the regular expressions of the S: lines, one a line;
//	                "S* re" reads lines until one matches, "C- text" sends without a
//	                line end, END waits for the close
//	open NAME DOOR, say NAME FILE, hang NAME
//	                the same, in pieces, on a connection with a name
//
// Each script's folder has a certificate in cert.pem and key.pem.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("no condition %q", name)
		},
		Setup: func(env *testscript.Env) error {
			tb, ok := env.T().(testing.TB)
			if !ok {
				return fmt.Errorf("scripts need a *testing.T, and have %T", env.T())
			}
			cert, key, pool, err := makePair(testHost)
			if err != nil {
				return err
			}
			w := &world{t: tb, dir: env.WorkDir, trust: pool}
			w.write("cert.pem", string(cert))
			w.write("key.pem", string(key))
			env.Values[storyKey{}] = &story{w: w, peers: map[string]*peer{}}
			for _, name := range []string{"GOCACHE", "GOMODCACHE"} { // what plugins are compiled with
				out, err := exec.Command("go", "env", name).Output()
				if err != nil {
					return fmt.Errorf("go env %s: %w", name, err)
				}
				env.Setenv(name, strings.TrimSpace(string(out)))
			}
			env.Setenv("XDG_CACHE_HOME", os.Getenv("XDG_CACHE_HOME"))
			env.Setenv("PATH", filepath.Dir(binary)+string(os.PathListSeparator)+env.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start": func(ts *testscript.TestScript, _ bool, args []string) {
				st, ok := ts.Value(storyKey{}).(*story)
				if !ok {
					ts.Fatalf("there is no story")
				}
				st.s = st.w.start(args...)
			},
			"stop": command(0, func(st *story, _ *testscript.TestScript, _ []string) {
				st.running().stop()
				st.w.write("server.log", st.s.log.String())
			}),
			"crash": command(0, func(st *story, _ *testscript.TestScript, _ []string) { st.running().kill() }),
			"term":  command(0, func(st *story, _ *testscript.TestScript, _ []string) { st.running().term() }),
			"ended": command(0, func(st *story, _ *testscript.TestScript, _ []string) {
				st.running().ended()
				st.w.write("server.log", st.s.log.String())
			}),
			"talk": command(2, func(st *story, ts *testscript.TestScript, args []string) {
				p := st.running().open(args[0], 0)
				if err := p.talk(ts.ReadFile(args[1])); err != nil {
					ts.Fatalf("%s: %v", args[1], err)
				}
			}),
			"open": command(2, func(st *story, _ *testscript.TestScript, args []string) {
				st.peers[args[0]] = st.running().open(args[1], 0)
			}),
			"say": command(2, func(st *story, ts *testscript.TestScript, args []string) {
				p := st.peers[args[0]]
				if p == nil {
					ts.Fatalf("no connection %q", args[0])
				}
				if err := p.talk(ts.ReadFile(args[1])); err != nil {
					ts.Fatalf("%s: %v", args[1], err)
				}
			}),
			"await": command(2, func(st *story, ts *testscript.TestScript, args []string) {
				st.running().awaitQueue(args[0])
			}),
			"hang": command(1, func(st *story, ts *testscript.TestScript, args []string) {
				p := st.peers[args[0]]
				if p == nil {
					ts.Fatalf("no connection %q", args[0])
				}
				p.close()
			}),
		},
	})
}

// storyKey is where a script keeps its story.
type storyKey struct{}

// story is the state of one script.
type story struct {
	w     *world
	s     *server
	peers map[string]*peer
}

// running is the server, which must have been started.
func (st *story) running() *server {
	if st.s == nil {
		st.w.t.Fatal("the script has not started the server")
	}
	return st.s
}

// command makes a script command of n arguments that cannot be negated.
func command(n int, run func(*story, *testscript.TestScript, []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != n {
			ts.Fatalf("want %d arguments and no !", n)
		}
		st, ok := ts.Value(storyKey{}).(*story)
		if !ok {
			ts.Fatalf("the script has no story")
		}
		run(st, ts, args)
	}
}

// talk has a dialogue (see TestScript).
func (p *peer) talk(script string) error {
	for i, step := range strings.Split(strings.TrimSuffix(script, "\n"), "\n") {
		kind, text, _ := strings.Cut(step, " ")
		fail := func(err error) error { return fmt.Errorf("line %d, %q: %w", i+1, step, err) }
		switch kind {
		case "", "#":
		case "C:":
			if err := p.send(text + "\r\n"); err != nil {
				return fail(err)
			}
		case "C-":
			if err := p.send(text); err != nil {
				return fail(err)
			}
		case "S:", "S*":
			re, err := regexp.Compile("^(?:" + text + ")$")
			if err != nil {
				return fail(err)
			}
			for {
				line, err := p.line()
				if err != nil {
					return fail(err)
				}
				if re.MatchString(line) {
					break
				}
				if kind == "S:" {
					return fail(fmt.Errorf("got %q", line))
				}
			}
		case "END":
			if text, err := p.gone(); err != nil || text != "" {
				return fail(fmt.Errorf("got %q (%v), want the end", text, err))
			}
		default:
			return fail(fmt.Errorf("no step %q", kind))
		}
	}
	return nil
}
