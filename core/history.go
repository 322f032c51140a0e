package core

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/wafermail/wafer/core/admin"
	"github.com/wafermail/wafer/core/config"
)

// keptGenerations is how many generations are kept on disk.
const keptGenerations = 10

// history is the generations that have served, on disk: a folder for each, named by its
// number, with a manifest and the contents of all files that it was made of. Users,
// certificates and lists are not part of it: of these the newest is always right.
type history struct {
	dir  string
	next int // number of the next generation
}

// manifest says what a kept generation is made of.
type manifest struct {
	Number int               `json:"number"`
	Loaded time.Time         `json:"loaded"`
	Digest string            `json:"digest"`
	Origin string            `json:"origin"`
	Config string            `json:"config"` // path of the configuration file
	Files  map[string]string `json:"files"`  // path to SHA-256 in hexadecimal, which is the name of the copy
}

const manifestName = "manifest.json"

// openHistory makes dir if it is missing.
func openHistory(dir string) (*history, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of generations: %w", err)
	}
	h := &history{dir: dir, next: 1}
	numbers, err := h.numbers()
	if err != nil {
		return nil, err
	}
	if n := len(numbers); n > 0 {
		h.next = numbers[n-1] + 1
	}
	return h, nil
}

// numbers lists the generations that are kept, ascending. What was not written to the
// end has no number.
func (h *history) numbers() (list []int, err error) {
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && n > 0 && e.IsDir() {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list, nil
}

func (h *history) folder(n int) string { return filepath.Join(h.dir, strconv.Itoa(n)) }

// keep writes a generation that serves, and removes the oldest beyond keptGenerations.
func (h *history) keep(g *generation) error {
	m := manifest{Number: g.number, Loaded: g.loaded, Digest: g.config.Digest, Origin: g.origin, Config: g.config.File, Files: map[string]string{}}
	temp, err := os.MkdirTemp(h.dir, "new-")
	if err != nil {
		return fmt.Errorf("keep generation %d: %w", g.number, err)
	}
	for path, b := range g.files {
		sum := fmt.Sprintf("%x", sha256.Sum256(b))
		m.Files[path] = sum
		if err == nil {
			err = os.WriteFile(filepath.Join(temp, sum), b, 0o600)
		}
	}
	if err == nil {
		var b []byte
		if b, err = json.MarshalIndent(m, "", "  "); err == nil {
			err = os.WriteFile(filepath.Join(temp, manifestName), b, 0o600)
		}
	}
	if err == nil {
		err = os.Rename(temp, h.folder(g.number))
	}
	if err != nil {
		return fmt.Errorf("keep generation %d: %w", g.number, errors.Join(err, os.RemoveAll(temp)))
	}
	h.next = max(h.next, g.number+1)
	numbers, err := h.numbers()
	if n := len(numbers); n > 1 && h.same(numbers[n-2], m) { // a restart with the same files
		err = os.RemoveAll(h.folder(numbers[n-2]))
		numbers = slices.Delete(numbers, n-2, n-1)
	}
	for len(numbers) > keptGenerations && err == nil {
		err = os.RemoveAll(h.folder(numbers[0]))
		numbers = numbers[1:]
	}
	return err
}

// same reports whether generation n was made of the same files as m.
func (h *history) same(n int, m manifest) bool {
	b, err := os.ReadFile(filepath.Join(h.folder(n), manifestName))
	var other manifest
	return err == nil && json.Unmarshal(b, &other) == nil && other.Config == m.Config && maps.Equal(other.Files, m.Files)
}

// read returns a generation's configuration, and the files that it was made of.
func (h *history) read(n int) (m manifest, files config.Files, err error) {
	fault := func(err error) error { return fmt.Errorf("read generation %d: %w", n, err) }
	b, err := os.ReadFile(filepath.Join(h.folder(n), manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil, fmt.Errorf("there is no generation %d; wafer generations lists those that are kept", n)
	}
	if err != nil {
		return m, nil, fault(err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, nil, fault(err)
	}
	files = config.Files{}
	for path, sum := range m.Files {
		b, err := os.ReadFile(filepath.Join(h.folder(n), filepath.Base(sum)))
		if err != nil {
			return m, nil, fault(err)
		}
		if have := fmt.Sprintf("%x", sha256.Sum256(b)); have != sum {
			return m, nil, fault(fmt.Errorf("the copy of %s is damaged", path))
		}
		files[path] = b
	}
	return m, files, nil
}

// list says what is kept.
func (h *history) list() (all []admin.Kept, err error) {
	numbers, err := h.numbers()
	for _, n := range numbers {
		b, err := os.ReadFile(filepath.Join(h.folder(n), manifestName))
		if err != nil {
			continue // being removed
		}
		var m manifest
		if json.Unmarshal(b, &m) == nil {
			all = append(all, admin.Kept{Number: n, Digest: m.Digest, Loaded: m.Loaded, Origin: m.Origin})
		}
	}
	return all, err
}

// LastGood is the configuration of the newest generation that has served with the state
// directory of c, as it was then.
func LastGood(state string) (*config.Config, error) {
	h := &history{dir: filepath.Join(state, "generations")}
	numbers, err := h.numbers()
	if err != nil || len(numbers) == 0 {
		return nil, fmt.Errorf("no generation has served yet: there is none in %s", h.dir)
	}
	var faults []error
	for _, n := range slices.Backward(numbers) {
		m, files, err := h.read(n)
		if err == nil {
			var c *config.Config
			if c, err = config.LoadFiles(m.Config, files); err == nil {
				maps.Copy(c.Files, files)
				return c, nil
			}
		}
		faults = append(faults, err)
	}
	return nil, errors.Join(faults...)
}
