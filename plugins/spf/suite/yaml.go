package suite

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// pair is one entry of a mapping. Mappings keep their order and repeated keys.
type pair struct {
	key   string
	value any // string, []any or []pair
}

// source is the lines of one YAML document.
type source struct {
	lines []string
	at    int
}

var errEnd = errors.New("unexpected end of document")

// parseYAML reads the documents of a YAML file, as far as the suites use YAML:
// block mappings and sequences, plain, quoted and block scalars, and sequences
// in brackets on one line. Scalars are strings.
func parseYAML(text string) (documents []any, err error) {
	var s source
	flush := func() error {
		defer func() { s = source{} }()
		indent, ok := s.peek()
		if !ok {
			return nil
		}
		v, err := s.node(indent)
		if err == nil {
			if _, more := s.peek(); more {
				err = errors.New("text behind the end of the document")
			}
		}
		if err != nil {
			return fmt.Errorf("document %d, line %d %q: %w", len(documents)+1, s.at+1, s.line(), err)
		}
		documents = append(documents, v)
		return nil
	}
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRight(line, "\r")
		if strings.HasPrefix(line, "---") {
			if err := flush(); err != nil {
				return nil, err
			}
			continue
		}
		s.lines = append(s.lines, line)
	}
	return documents, flush()
}

func (s *source) line() string {
	if s.at < len(s.lines) {
		return s.lines[s.at]
	}
	return ""
}

func indentOf(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

// peek goes to the next line with contents and returns its indent.
func (s *source) peek() (indent int, ok bool) {
	for ; s.at < len(s.lines); s.at++ {
		if t := strings.TrimSpace(s.lines[s.at]); t != "" && t[0] != '#' {
			return indentOf(s.lines[s.at]), true
		}
	}
	return 0, false
}

// node reads what begins on the next line, which stands at indent.
func (s *source) node(indent int) (any, error) {
	line := s.line()[indent:]
	if line == "-" || strings.HasPrefix(line, "- ") {
		return s.sequence(indent)
	}
	if _, _, ok := cutKey(line); ok {
		return s.mapping(indent)
	}
	s.lines[s.at] = strings.Repeat(" ", indent) + line
	s.at++
	return s.scalar(line, indent-1)
}

func (s *source) sequence(indent int) (any, error) {
	list := []any{}
	for {
		at, ok := s.peek()
		line := s.line()
		if !ok || at != indent || line[indent:] != "-" && !strings.HasPrefix(line[indent:], "- ") {
			return list, nil
		}
		rest := strings.TrimLeft(line[indent+1:], " ")
		if rest == "" || rest[0] == '#' {
			s.at++
			at, ok := s.peek()
			if !ok || at <= indent {
				list = append(list, "")
				continue
			}
			v, err := s.node(at)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
			continue
		}
		// The entry begins on the dash's line: read it as if it stood alone.
		inner := len(line) - len(rest)
		s.lines[s.at] = strings.Repeat(" ", inner) + rest
		v, err := s.node(inner)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
}

func (s *source) mapping(indent int) (any, error) {
	m := []pair{}
	for {
		at, ok := s.peek()
		if !ok || at < indent {
			return m, nil
		}
		key, rest, ok := cutKey(s.line()[indent:])
		if at > indent || !ok {
			return nil, errors.New("not an entry of the mapping")
		}
		s.at++
		v, err := s.value(rest, indent)
		if err != nil {
			return nil, err
		}
		m = append(m, pair{key, v})
	}
}

// value reads what stands behind a key at indent.
func (s *source) value(rest string, indent int) (any, error) {
	if rest != "" && rest[0] != '#' {
		return s.scalar(rest, indent)
	}
	at, ok := s.peek()
	switch {
	case ok && at > indent:
		return s.node(at)
	case ok && at == indent && strings.HasPrefix(s.line()[indent:], "-"):
		return s.sequence(indent)
	}
	return "", nil
}

// scalar reads a scalar or a sequence in brackets whose first line is text. It
// goes on over the lines that stand further right than indent.
func (s *source) scalar(text string, indent int) (any, error) {
	switch text[0] {
	case '|', '>':
		return s.block(text[0] == '>', indent), nil
	case '\'', '"':
		for {
			v, _, err := unquote(text)
			if !errors.Is(err, errEnd) {
				return v, err
			}
			if at, ok := s.peek(); !ok || at <= indent {
				return nil, err
			}
			text += " " + strings.TrimSpace(s.line())
			s.at++
		}
	case '[':
		return flow(text)
	}
	parts := []string{withoutComment(text)}
	for {
		at, ok := s.peek()
		if !ok || at <= indent {
			return strings.Join(parts, " "), nil
		}
		if _, _, isKey := cutKey(strings.TrimSpace(s.line())); isKey {
			return nil, errors.New("a mapping where a scalar goes on")
		}
		parts = append(parts, withoutComment(strings.TrimSpace(s.line())))
		s.at++
	}
}

// block reads a literal or folded block scalar.
func (s *source) block(folded bool, indent int) string {
	var lines []string
	depth := -1
	for ; s.at < len(s.lines); s.at++ {
		line := s.lines[s.at]
		if strings.TrimSpace(line) == "" {
			lines = append(lines, "")
			continue
		}
		if indentOf(line) <= indent {
			break
		}
		if depth < 0 {
			depth = indentOf(line)
		}
		lines = append(lines, line[min(depth, indentOf(line)):])
	}
	by := "\n"
	if folded {
		by = " "
	}
	return strings.TrimRight(strings.Join(lines, by), " \n")
}

// cutKey splits "key: rest" and "key:".
func cutKey(line string) (key, rest string, ok bool) {
	if line != "" && (line[0] == '"' || line[0] == '\'') {
		v, after, err := unquote(line)
		if err != nil || !strings.HasPrefix(after, ":") || len(after) > 1 && after[1] != ' ' {
			return "", "", false
		}
		return v, strings.TrimSpace(after[1:]), true
	}
	if line == "" || strings.IndexByte("[{|>#", line[0]) >= 0 {
		return "", "", false
	}
	if n := strings.Index(line, ": "); n > 0 {
		return line[:n], strings.TrimSpace(line[n+1:]), true
	}
	t := strings.TrimRight(withoutComment(line), " ")
	if strings.HasSuffix(t, ":") && len(t) > 1 {
		return t[:len(t)-1], "", true
	}
	return "", "", false
}

func withoutComment(s string) string {
	if n := strings.Index(s, " #"); n >= 0 {
		s = s[:n]
	}
	return strings.TrimSpace(s)
}

// unquote reads a quoted scalar and returns what is behind it.
func unquote(s string) (value, after string, err error) {
	quote := s[0]
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		c := s[i]
		switch {
		case c == quote && quote == '\'' && i+1 < len(s) && s[i+1] == quote:
			i++
			b.WriteByte(c)
		case c == quote:
			return b.String(), s[i+1:], nil
		case c != '\\' || quote == '\'':
			b.WriteByte(c)
		case i+1 == len(s):
			return "", "", errEnd
		default:
			i++
			if s[i] == 'x' && i+2 < len(s) {
				n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
				if err != nil {
					return "", "", fmt.Errorf("malformed escape: %w", err)
				}
				b.WriteRune(rune(n))
				i += 2
				continue
			}
			n := strings.IndexByte(`0nrt"\ /`, s[i])
			if n < 0 {
				return "", "", fmt.Errorf("unknown escape \\%c", s[i])
			}
			b.WriteByte("\x00\n\r\t\"\\ /"[n])
		}
	}
	return "", "", errEnd
}

// flow reads "[a, 'b', c]".
func flow(s string) (any, error) {
	list := []any{}
	s = strings.TrimSpace(s[1:])
	for {
		switch {
		case s == "":
			return nil, errEnd
		case s[0] == ']':
			return list, nil
		case s[0] == ',':
			s = s[1:]
		case s[0] == '"' || s[0] == '\'':
			v, after, err := unquote(s)
			if err != nil {
				return nil, err
			}
			list, s = append(list, v), after
		default:
			n := strings.IndexAny(s, ",]")
			if n < 0 {
				return nil, errEnd
			}
			list, s = append(list, strings.TrimSpace(s[:n])), s[n:]
		}
		s = strings.TrimLeft(s, " ")
	}
}
