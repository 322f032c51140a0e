package bundle

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	manifestLine = "wafer-bundle 1"
	anyManifest  = "wafer-bundle "
)

// encode is the manifest as it is signed.
func (m *Manifest) encode() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\ncreated %s\n", manifestLine, m.Created.Format(time.RFC3339))
	if m.Comment != "" {
		for line := range strings.SplitSeq(m.Comment, "\n") {
			fmt.Fprintf(&b, "comment %s\n", line)
		}
	}
	if m.Signer != "" {
		fmt.Fprintf(&b, "signer %s\n", m.Signer)
	}
	for _, f := range m.Files {
		fmt.Fprintf(&b, "file %x %d %s\n", f.SHA256, f.Size, f.Name)
	}
	return b.Bytes()
}

// parseManifest reads a manifest. There is one way only to write a manifest: what
// is not what encode would write is none.
func parseManifest(b []byte, limit int) (m Manifest, err error) {
	bad := func(n int, what string) (Manifest, error) {
		return Manifest{}, &Error{ErrFormat, manifestName, fmt.Sprintf("line %d: %s", n, what)}
	}
	var comment []string
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		line, whole := strings.CutSuffix(line, "\n")
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case n == 1 && line != manifestLine:
			if number, ours := strings.CutPrefix(line, anyManifest); ours && number != "" && strings.Trim(number, "0123456789") == "" {
				return m, &Error{ErrVersion, manifestName, "it begins with " + quoted(line)}
			}
			return bad(n, "not a manifest's")
		case n == 1 && whole:
		case !whole:
			return bad(n, "not ended")
		case word == "created" && n == 2:
			if m.Created, err = time.Parse(time.RFC3339, rest); err != nil {
				return bad(n, "not a time")
			}
			m.Created = m.Created.UTC()
		case word == "comment":
			comment = append(comment, rest)
		case word == "signer":
			m.Signer = rest
		case word == "file":
			if len(m.Files) >= limit {
				return m, &Error{ErrTooLarge, "", fmt.Sprintf("more than %d files", limit)}
			}
			f, ok := parseEntry(rest)
			if !ok {
				return bad(n, "not a file's")
			}
			if k := len(m.Files); k > 0 && m.Files[k-1].Name >= f.Name {
				return bad(n, "files are not in order, or one is there twice")
			}
			m.Files = append(m.Files, f)
		default:
			return bad(n, "not known")
		}
	}
	m.Comment = strings.Join(comment, "\n")
	if wrong := wrongComment(m.Comment); wrong != "" {
		return Manifest{}, &Error{ErrFormat, manifestName, "the comment is " + wrong}
	}
	if n < 2 || !bytes.Equal(m.encode(), b) {
		return Manifest{}, &Error{ErrFormat, manifestName, "not as a manifest is written"}
	}
	return m, nil
}

// parseEntry reads "SHA-256 OCTETS NAME".
func parseEntry(s string) (f Entry, ok bool) {
	sum, rest, _ := strings.Cut(s, " ")
	size, name, ok := strings.Cut(rest, " ")
	if !ok || len(sum) != hex.EncodedLen(len(f.SHA256)) {
		return f, false
	}
	if _, err := hex.Decode(f.SHA256[:], []byte(sum)); err != nil {
		return f, false
	}
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n < 0 || n > maxArchive {
		return f, false
	}
	f.Name, f.Size = name, n
	return f, true
}

// wrongComment says why a bundle cannot have the comment; "" if it can. What is
// shown on terminals must not command them.
func wrongComment(s string) string {
	switch {
	case len(s) > maxComment:
		return fmt.Sprintf("longer than %d octets", maxComment)
	case !utf8.ValidString(s):
		return "not UTF-8"
	case strings.ContainsFunc(strings.NewReplacer("\n", "", "\t", "").Replace(s), invisible):
		return "not printable"
	}
	return ""
}
