package bundle

import (
	"errors"
	"strings"
	"testing"
)

// FuzzManifest opens archives whose checksums fit, with manifests that anybody may
// have made.
func FuzzManifest(f *testing.F) {
	f.Add(begin + line("a", "1") + line("b/c", "2"))
	f.Add(begin + "comment c\n" + "signer " + Fingerprint(publicOf(1)) + "\n" + line("../a", "1"))
	f.Add(begin + line("A/x", "") + line("a/y", ""))
	f.Fuzz(func(t *testing.T, manifest string) {
		m, err := parseManifest([]byte(manifest), 100)
		if err == nil && string(m.encode()) != manifest {
			t.Errorf("%q became %q", manifest, m.encode())
		}
		var files []string
		for _, e := range m.Files {
			files = append(files, e.Name, strings.Repeat("x", int(min(e.Size, 100))))
		}
		_, err = opened(raw(manifest, keyOf(1), files...), OpenOptions{MaxFiles: 100})
		var e *Error
		if err != nil && !errors.As(err, &e) {
			t.Errorf("an error of no kind: %v", err)
		}
		if err != nil && strings.ContainsFunc(err.Error(), invisible) {
			t.Errorf("%q commands terminals", err)
		}
	})
}
