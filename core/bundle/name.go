package bundle

import (
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Names of the members that are no files of the bundle's.
const (
	manifestName  = "MANIFEST"
	signatureName = "MANIFEST.sig"
)

const (
	maxName    = 1000 // octets
	maxElement = 255
	maxDepth   = 32
)

// devices are names that Windows takes for devices, with whatever extension.
var devices = strings.Fields("con prn aux nul conin$ conout$ clock$ com0 com1 com2 com3 com4 com5 com6 com7 com8 com9 com¹ com² com³ lpt0 lpt1 lpt2 lpt3 lpt4 lpt5 lpt6 lpt7 lpt8 lpt9 lpt¹ lpt² lpt³")

// wrongWith says why no file in a bundle can have the name; "" if one can.
func wrongWith(name string) string {
	switch {
	case len(name) > maxName:
		return fmt.Sprintf("longer than %d octets", maxName)
	case !utf8.ValidString(name):
		return "not UTF-8"
	case strings.HasPrefix(name, "/"):
		return "an absolute path"
	case !fs.ValidPath(name) || name == ".":
		return `not a path of names without "." and ".." between single slashes`
	case strings.ContainsAny(name, `\:*?"<>|`):
		return `a character of \ : * ? " < > | in it`
	case strings.ContainsFunc(name, invisible):
		return "an invisible character in it"
	case !norm.NFC.IsNormalString(name):
		return "not in Unicode's normal form C"
	case strings.Count(name, "/") >= maxDepth:
		return fmt.Sprintf("more than %d directories deep", maxDepth-1)
	}
	for element := range strings.SplitSeq(name, "/") {
		stem, _, _ := strings.Cut(strings.ToLower(element), ".")
		switch {
		case len(element) > maxElement:
			return fmt.Sprintf("a part of it is longer than %d octets", maxElement)
		case strings.HasSuffix(element, "."), strings.Trim(element, " ") != element:
			return "a part of it ends with a dot, or begins or ends with a space"
		case slices.Contains(devices, strings.TrimRight(stem, " ")):
			return "some systems have a device of that name"
		}
	}
	return ""
}

// invisible is true of what a terminal does not show, or obeys.
func invisible(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co)
}

// checkNames sees that all names can stand side by side on any system: none is
// another's, or another's directory, whether case counts or not.
func checkNames(files []Entry) error {
	fold := cases.Fold()
	type place struct {
		path string
		file bool
	}
	seen := map[string]place{
		key(fold, manifestName):  {manifestName, true},
		key(fold, signatureName): {signatureName, true},
	}
	for _, f := range files {
		if wrong := wrongWith(f.Name); wrong != "" {
			return &Error{ErrName, f.Name, wrong}
		}
		for end, more := 0, true; more; end++ {
			next := strings.IndexByte(f.Name[end:], '/')
			if more = next >= 0; more {
				end += next
			} else {
				end = len(f.Name)
			}
			at := place{f.Name[:end], !more}
			k := key(fold, at.path)
			other, taken := seen[k]
			if taken && (at.file || other != at) {
				return &Error{ErrName, f.Name, "it is the same as " + quoted(other.path) + " where case does not count, or one is a directory"}
			}
			seen[k] = at
		}
	}
	return nil
}

// key is the same for names that some file system takes for the same.
func key(fold cases.Caser, name string) string {
	return norm.NFC.String(fold.String(norm.NFD.String(name)))
}

// quoted is a name as it can be shown, whatever is in it.
func quoted(name string) string {
	if len(name) > 200 {
		name = name[:200] + "…"
	}
	return strconv.QuoteToGraphic(name)
}
