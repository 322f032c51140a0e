package arc_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// entry is a key of a mapping in its file's order, with a text or a mapping.
type entry struct {
	key     string
	text    string
	entries mapping
}

type mapping []entry

func (m mapping) get(key string) entry {
	for _, e := range m {
		if e.key == key {
			return e
		}
	}
	return entry{}
}

// readYAML reads the documents of a file in the part of YAML that the outside vectors
// are written in: mappings of mappings and texts, the latter plain, in quotes or as
// literal blocks.
func readYAML(text string) ([]mapping, error) {
	var documents []mapping
	for _, document := range strings.Split("\n"+text, "\n---\n") {
		r := yamlReader{lines: strings.Split(strings.TrimSuffix(strings.TrimPrefix(document, "\n"), "\n"), "\n")}
		m, err := r.mapping(0)
		if err == nil && r.at < len(r.lines) {
			err = fmt.Errorf("line %d: %q does not belong here", r.at, r.lines[r.at])
		}
		if err != nil {
			return nil, err
		}
		documents = append(documents, m)
	}
	return documents, nil
}

type yamlReader struct {
	lines []string
	at    int
}

func blank(line string) bool { return strings.TrimSpace(line) == "" }

func indent(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

func (r *yamlReader) mapping(depth int) (mapping, error) {
	var m mapping
	for r.at < len(r.lines) {
		line := r.lines[r.at]
		if blank(line) {
			r.at++
			continue
		}
		if indent(line) < depth {
			return m, nil
		}
		key, value, ok := strings.Cut(line[depth:], ":")
		if !ok || indent(line) > depth || value != "" && value[0] != ' ' {
			return nil, fmt.Errorf("line %d: %q is no key of depth %d", r.at, line, depth)
		}
		r.at++
		e := entry{key: key}
		var err error
		switch value = strings.TrimSpace(value); {
		case value == "":
			e.entries, err = r.mapping(depth + 2)
		case value[0] == '|':
			e.text = r.block(depth, value[1:])
		case value[0] == '"':
			e.text, err = r.double(value[1:])
		case value[0] == '\'':
			e.text = strings.ReplaceAll(strings.Trim(r.plain(depth, value), "'"), "''", "'")
		default:
			e.text = r.plain(depth, value)
		}
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", key, err)
		}
		m = append(m, e)
	}
	return m, nil
}

// block reads a literal block. Its indentation is what its head or its first line says.
func (r *yamlReader) block(depth int, head string) string {
	var lines []string
	inner := 0
	if n, err := strconv.Atoi(head); err == nil {
		inner = depth + n
	}
	for ; r.at < len(r.lines); r.at++ {
		line := r.lines[r.at]
		if !blank(line) {
			if inner == 0 {
				inner = indent(line)
			}
			if indent(line) < inner {
				break
			}
		}
		lines = append(lines, line[min(inner, len(line)):])
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n") + "\n"
}

// plain reads a text without quotes and joins its lines.
func (r *yamlReader) plain(depth int, first string) string {
	words := []string{first}
	for r.at < len(r.lines) && !blank(r.lines[r.at]) && indent(r.lines[r.at]) > depth {
		words = append(words, strings.TrimSpace(r.lines[r.at]))
		r.at++
	}
	return strings.Join(words, " ")
}

// double reads a text in double quotes. A backslash at the end of a line joins it to the
// next one, otherwise a blank does.
func (r *yamlReader) double(line string) (string, error) {
	var b strings.Builder
	for {
		for i := 0; i < len(line); i++ {
			if line[i] == '"' {
				return b.String(), nil
			}
			if line[i] != '\\' {
				b.WriteByte(line[i])
				continue
			}
			if i++; i == len(line) {
				break
			}
			switch line[i] {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case 'r':
				b.WriteByte('\r')
			case ' ', '"', '\\', '/':
				b.WriteByte(line[i])
			default:
				return "", fmt.Errorf("escape \\%c is unknown", line[i])
			}
		}
		if !strings.HasSuffix(line, `\`) {
			b.WriteByte(' ')
		}
		if r.at == len(r.lines) {
			return "", fmt.Errorf("a text in quotes never ends")
		}
		line = strings.TrimSpace(r.lines[r.at])
		r.at++
	}
}

func TestReadYAML(t *testing.T) {
	got, err := readYAML("a: b c\n  d\nm:\n  x: |\n    1\n\n      2\n  y: |2\n\n    z\n  e: ''\n  q: \"a\\n\\\n    \\ b \\\"c\\\"\"\n---\nn: 1\n")
	want := `[[{a b c d []} {m  [{x 1

  2
 []} {y 
z
 []} {e  []} {q a
 b "c" []}]}] [{n 1 []}]]`
	if err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v (%v), want %s", got, err, want)
	}
}
