package config

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// maxFile bounds a configuration file, in octets.
const maxFile = 4 << 20

// Error is everything that is wrong with a configuration.
type Error struct {
	Faults []Fault
	text   string
}

// Fault is one diagnostic.
type Fault struct {
	File    string
	Line    int // from 1
	Summary string
	Detail  string // what to write instead
}

// Error is all diagnostics with excerpts, as the postmaster is shown them.
func (e *Error) Error() string { return e.text }

// reader collects what files say and what is wrong with it.
type reader struct {
	parser *hclparse.Parser
	diags  hcl.Diagnostics
	eval   *hcl.EvalContext
	dir    string // of the file being read: paths are relative to it
	digest []byte // of everything read so far

	domains, listeners []hcl.Range // places of Config.Domains and Config.Listeners
}

// Load reads the configuration file and the policies that it names. On error,
// which is an *Error unless a file cannot be read, there is no Config.
func Load(file string) (*Config, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	src, err := readFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no configuration file %s; name one with -c, or copy the example config.hcl there", file)
	}
	if err != nil {
		return nil, err
	}
	r := &reader{parser: hclparse.NewParser(), dir: filepath.Dir(file)}
	r.eval = evalContext(r)
	c := &Config{File: file}
	if body := r.parse(file, src); body != nil {
		r.server(c, r.node(body, "the configuration"))
	}
	if c.Policies != "" {
		if err := r.policies(c); err != nil {
			return nil, err
		}
	}
	c.Digest = fmt.Sprintf("%x", sha256.Sum256(r.digest))[:12]
	if err := r.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// readFile reads a file that is not unreasonably large.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("read %s: it is larger than %d octets", name, maxFile)
	}
	return b, nil
}

// parse returns a file's top-level body, or nil if it has no meaning.
func (r *reader) parse(name string, src []byte) *hclsyntax.Body {
	r.digest = fmt.Appendf(r.digest, "%s\x00%d\x00%s", filepath.Base(name), len(src), src)
	f, diags := r.parser.ParseHCL(src, name)
	r.diags = append(r.diags, diags...)
	if f == nil {
		return nil
	}
	body, _ := f.Body.(*hclsyntax.Body)
	return body
}

// policies reads every policy file of the folder, in the order of their names.
// Files that end in _test.hcl are tests, not policies.
func (r *reader) policies(c *Config) error {
	names, err := filepath.Glob(filepath.Join(c.Policies, "*.hcl"))
	if err != nil {
		return err
	}
	sort.Strings(names)
	seen := map[string]string{}
	for _, p := range c.Policy {
		seen[p.Name] = p.Where
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.hcl") {
			continue
		}
		src, err := readFile(name)
		if err != nil {
			return err
		}
		r.dir = filepath.Dir(name)
		body := r.parse(name, src)
		if body == nil {
			continue
		}
		n := r.node(body, filepath.Base(name))
		n.named("policy", func(n *node, name string, at hcl.Range) {
			if first, ok := seen[name]; ok {
				r.fault(at, "a second policy \""+name+"\"", "The first is at "+first+"; give this one another name.")
			}
			seen[name] = place(at)
			c.Policy = append(c.Policy, r.policy(n, name, at))
		})
		n.done()
	}
	return nil
}

// err renders the diagnostics.
func (r *reader) err() error {
	if !r.diags.HasErrors() {
		return nil
	}
	sort.SliceStable(r.diags, func(i, j int) bool {
		a, b := r.diags[i].Subject, r.diags[j].Subject
		if a == nil || b == nil {
			return a == nil && b != nil
		}
		if a.Filename != b.Filename {
			return a.Filename < b.Filename
		}
		return a.Start.Byte < b.Start.Byte
	})
	e := &Error{}
	for _, d := range r.diags {
		f := Fault{Summary: d.Summary, Detail: d.Detail}
		if d.Subject != nil {
			f.File, f.Line = d.Subject.Filename, d.Subject.Start.Line
		}
		e.Faults = append(e.Faults, f)
	}
	var b bytes.Buffer
	w := hcl.NewDiagnosticTextWriter(&b, r.parser.Files(), 0, false)
	if err := w.WriteDiagnostics(r.diags); err != nil {
		return r.diags
	}
	e.text = strings.TrimRight(b.String(), "\n")
	return e
}

// Format returns source in HCL's canonical layout, and whether that differs.
func Format(name string, src []byte) (formatted []byte, changed bool, err error) {
	r := &reader{parser: hclparse.NewParser()}
	if len(src) > maxFile {
		return nil, false, fmt.Errorf("%s is larger than %d octets", name, maxFile)
	}
	r.parse(name, src)
	if err := r.err(); err != nil {
		return nil, false, err
	}
	formatted = format(src)
	return formatted, !bytes.Equal(formatted, src), nil
}
