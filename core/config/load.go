package config

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
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

	from      Files // read these in place of the disk; nil: the disk
	candidate bool  // the policies are those of a rollout

	files Files // all that was read; nil: nobody wants to know

	seen map[string]string // what env and file said, since it was last emptied

	domains    []domainPlaces // of Config.Domains
	listeners  []listenerPlaces
	policiesAt hcl.Range
	policyKeys []string // files of public keys that must have signed the policies; nil: anybody may
	dnssec     bool     // Config.DNSSEC

	grouped map[string]*group // by name
	wanted  []wantedList      // by checks
	later   []func()          // reads a file's policies, once every group is known
}

// domainPlaces is where a domain says what others have to agree with.
type domainPlaces struct {
	block, catchAll hcl.Range
	aliases         map[string]hcl.Range // by local part in lower case
}

// listenerPlaces is where a listener names each of its addresses.
type listenerPlaces []hcl.Range

// Load reads the configuration file and the policies that it names. On error,
// which is an *Error unless a file cannot be read, there is no Config.
func Load(file string) (*Config, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	return load(file, nil, "", false)
}

// LoadWith is Load with another folder of policies than the file names.
func LoadWith(file, policies string) (*Config, error) {
	file, err := filepath.Abs(file)
	if err == nil {
		policies, err = filepath.Abs(policies)
	}
	if err != nil {
		return nil, err
	}
	return load(file, nil, policies, false)
}

// LoadFiles is Load with the contents of files as Config.Files had them, in place of
// what is on disk now.
func LoadFiles(file string, files Files) (*Config, error) { return load(file, files, "", false) }

// Files is the contents of files by their absolute paths.
type Files map[string][]byte

func load(file string, from Files, policies string, candidate bool) (*Config, error) {
	r := &reader{parser: hclparse.NewParser(), dir: filepath.Dir(file), seen: map[string]string{}, grouped: map[string]*group{}, from: from, files: Files{}, candidate: candidate}
	src, err := r.read(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no configuration file %s; name one with -c, or copy the example config.hcl there", file)
	}
	if err != nil {
		return nil, err
	}
	r.eval = &hcl.EvalContext{Functions: functions(r.outside)}
	c := &Config{File: file, Files: r.files}
	if body := r.parse(file, src); body != nil {
		r.server(c, r.node(body, "the configuration"))
	}
	if policies != "" {
		c.Policies = policies
	}
	r.bundled(c, r.policyKeys)
	r.judge(c)
	c.Digest = fmt.Sprintf("%x", sha256.Sum256(r.digest))[:12]
	if err := r.err(); err != nil {
		return nil, err
	}
	if err := r.tried(c, file); err != nil {
		return nil, err
	}
	return c, nil
}

// read reads a file of the configuration.
func (r *reader) read(name string) (b []byte, err error) {
	if r.from == nil {
		b, err = readFile(name)
	} else if src, ok := r.from[name]; ok {
		b = src
	} else {
		err = &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	if err == nil && r.files != nil {
		r.files[name] = b
	}
	return b, err
}

// readOther is read for a file that another one names.
func (r *reader) readOther(name string) ([]byte, error) {
	if r.from == nil {
		if err := readable(name); err != nil {
			return nil, err
		}
	}
	return r.read(name)
}

// folder returns the names of the files in a folder, in their order.
func (r *reader) folder(dir string) (names []string, err error) {
	if r.from != nil {
		for name := range r.from {
			if filepath.Dir(name) == dir {
				names = append(names, filepath.Base(name))
			}
		}
		slices.Sort(names)
		return names, nil
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
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

// readRegular reads a file that is not unreasonably large, and no device or pipe.
func readRegular(name string) ([]byte, error) {
	if err := readable(name); err != nil {
		return nil, err
	}
	return readFile(name)
}

// readable reports why a file cannot be read. It does not open what might block.
func readable(name string) error {
	fi, err := os.Stat(name)
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return errNotFile
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return f.Close()
}

var errNotFile = errors.New("not a file")

// cause is a sentence about what went wrong with a file.
func cause(name string, err error) string {
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	return name + ": " + err.Error() + "."
}

// Bounds of an expression: HCL reads and evaluates by recursion, and Go's stack
// ends the process when it is full.
const (
	maxDepth     = 100
	maxOperators = 1_000
)

// tooDeep reports where src goes beyond the bounds.
func tooDeep(src []byte, name string) (at hcl.Range, deep bool) {
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos)
	depth, operators := 0, 0
	before := hclsyntax.TokenNewline
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp:
			depth++
		case hclsyntax.TokenTemplateControl: // nests without brackets
			depth++
			operators++
		case hclsyntax.TokenOBrack:
			depth++
			switch before {
			case hclsyntax.TokenIdent, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCBrace, hclsyntax.TokenCQuote:
				operators++ // an index; a chain of them is as deep as it is long
			}
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd:
			depth = max(depth-1, 0)
		case hclsyntax.TokenStar, hclsyntax.TokenSlash, hclsyntax.TokenPlus, hclsyntax.TokenMinus, hclsyntax.TokenPercent,
			hclsyntax.TokenEqualOp, hclsyntax.TokenNotEqual, hclsyntax.TokenLessThan, hclsyntax.TokenLessThanEq,
			hclsyntax.TokenGreaterThan, hclsyntax.TokenGreaterThanEq, hclsyntax.TokenAnd, hclsyntax.TokenOr,
			hclsyntax.TokenBang, hclsyntax.TokenQuestion:
			operators++
		}
		if depth > maxDepth || operators > maxOperators {
			return t.Range, true
		}
		before = t.Type
	}
	return hcl.Range{}, false
}

// parse returns a file's top-level body, or nil if it has no meaning.
func (r *reader) parse(name string, src []byte) *hclsyntax.Body {
	r.digest = fmt.Appendf(r.digest, "%s\x00%d\x00%s", filepath.Base(name), len(src), src)
	if at, deep := tooDeep(src, name); deep {
		r.parser.AddFile(name, &hcl.File{Bytes: src})
		r.fault(at, "too much in one expression", fmt.Sprintf("Nest blocks, brackets and templates at most %d deep, and use at most %d operators in a file.", maxDepth, maxOperators))
		return nil
	}
	f, diags := r.parser.ParseHCL(src, name)
	r.diags = append(r.diags, diags...)
	if f == nil {
		return nil
	}
	body, _ := f.Body.(*hclsyntax.Body)
	return body
}

// judge reads the folder of policies, if there is one, and puts together what
// all files say of judging.
func (r *reader) judge(c *Config) {
	if c.Policies != "" {
		r.policies(c)
	}
	for _, read := range r.later {
		read()
	}
	r.unused()
	r.knownLists(c)
}

// policies reads every policy file of the folder, in the order of their names.
// Files that end in _test.hcl are tests, not policies.
//
// A folder that is not there is a fault: mail must not pass unjudged because of
// a misspelt name.
func (r *reader) policies(c *Config) {
	names, err := r.folder(c.Policies)
	if err != nil {
		r.fault(r.policiesAt, "policies cannot be read", cause(c.Policies, err)+" Write the path of a folder of *.hcl files, or leave the line out to judge nothing.")
		return
	}
	for _, base := range names {
		if strings.HasPrefix(base, ".") || !strings.HasSuffix(base, ".hcl") || strings.HasSuffix(base, "_test.hcl") {
			continue
		}
		name := filepath.Join(c.Policies, base)
		src, err := r.readOther(name)
		if err != nil {
			r.fault(r.policiesAt, "policy file cannot be read", cause(name, err)+" Mend the file, or take it out of the folder.")
			continue
		}
		r.dir = c.Policies
		body := r.parse(name, src)
		if body == nil {
			continue
		}
		n := r.node(body, filepath.Base(name))
		r.judging(c, n)
		n.done()
	}
}

// judging reads the blocks of a file that say how mail is judged.
func (r *reader) judging(c *Config, n *node) {
	r.readLists(c, n)
	r.groups(n)
	n.blocks = append(n.blocks, "policy")
	dir := r.dir
	r.later = append(r.later, func() {
		r.dir = dir
		n.named("policy", func(n *node, name string, at hcl.Range) {
			for _, p := range c.Policy {
				if p.Name == name {
					r.fault(at, "a second policy \""+name+"\"", "The first is at "+p.Where+"; give this one another name.")
				}
			}
			c.Policy = append(c.Policy, r.policy(n, name, at))
		})
	})
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
	// What was evaluated twice is told once.
	r.diags = slices.CompactFunc(r.diags, func(a, b *hcl.Diagnostic) bool {
		return a.Summary == b.Summary && a.Detail == b.Detail && a.Subject != nil && b.Subject != nil && *a.Subject == *b.Subject
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

// format is HCL's canonical layout.
func format(src []byte) []byte { return hclwrite.Format(src) }
