package maildir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// wafer.metadata in a folder holds its annotations (RFC 5464), one JSON object;
// those of the whole tree are in wafer.metadata.server beside the INBOX.
const (
	metadataName   = "wafer.metadata"
	serverMetadata = "wafer.metadata.server"
	maxMetadata    = 1 << 20 // octets of the file
	// SpecialUseEntry is the annotation that says what a folder is for (RFC 6154 §4).
	SpecialUseEntry = "/private/specialuse"
)

// ErrMetadataFull says that there is no room for another annotation.
var ErrMetadataFull = errors.New("too many annotations")

// metadataFile is the file of a folder's annotations.
func (s *Store) metadataFile(name string) (string, error) {
	if name == "" {
		return filepath.Join(s.t.path, serverMetadata), nil
	}
	name, err := cleanName(name)
	if err != nil {
		return "", err
	}
	dir := dirOf(s.t.path, name)
	if !isDir(filepath.Join(dir, "cur")) {
		return "", fmt.Errorf("annotations of folder %q: %w", name, ErrNoFolder)
	}
	return filepath.Join(dir, metadataName), nil
}

// Metadata returns the annotations of a folder, or with "" for a name those of the
// whole tree. A file that makes no sense has none.
func (s *Store) Metadata(name string) (map[string]string, error) {
	file, err := s.metadataFile(name)
	if err != nil {
		return nil, err
	}
	return s.p.readMetadata(file)
}

func (p *Pool) readMetadata(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	b, err := io.ReadAll(io.LimitReader(f, maxMetadata+1))
	if err != nil {
		return nil, err
	}
	var m map[string]string
	if err := json.Unmarshal(b, &m); err != nil {
		p.log.Warn("ignored annotations", "file", file, "err", err)
		return nil, nil
	}
	return m, nil
}

// SetMetadata changes annotations of a folder, or with "" for a name of the whole
// tree, durably and all at once; nil removes one. It returns ErrMetadataFull,
// ErrNoFolder or ErrBadName.
func (s *Store) SetMetadata(name string, changes map[string]*string) error {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	return s.setMetadata(name, changes)
}

// setMetadata is SetMetadata; t.mu is held.
func (s *Store) setMetadata(name string, changes map[string]*string) error {
	file, err := s.metadataFile(name)
	if err != nil {
		return err
	}
	old, err := s.p.readMetadata(file)
	if err != nil {
		return err
	}
	m := maps.Clone(old)
	if m == nil {
		m = map[string]string{}
	}
	for entry, value := range changes {
		if value == nil {
			delete(m, entry)
		} else {
			m[entry] = *value
		}
	}
	if maps.Equal(m, old) {
		return nil
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if len(b) > maxMetadata {
		return ErrMetadataFull
	}
	temp := filepath.Join(filepath.Dir(file), "tmp", s.p.names.base(time.Now()))
	if err := s.p.replace(file, temp, append(b, '\n')); err != nil {
		return fmt.Errorf("store annotations: %w", err)
	}
	s.p.changedTree(s.t.path)
	return nil
}

// CreateFor is Create for a folder with a special use (RFC 6154 §3), such as `\Sent`.
func (s *Store) CreateFor(name, use string) error {
	name, err := cleanName(name)
	if err != nil {
		return err
	}
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	defer s.p.changedTree(s.t.path)
	if err := s.create(name); err != nil {
		return err
	}
	return s.setMetadata(name, map[string]*string{SpecialUseEntry: &use})
}

// useOf is the special use of a folder in dir: what its annotation says, or its name.
func (s *Store) useOf(name, dir string) string {
	file := filepath.Join(dir, metadataName)
	if _, err := os.Lstat(file); err == nil {
		if m, err := s.p.readMetadata(file); err == nil {
			if use, ok := m[SpecialUseEntry]; ok {
				return SpecialUse(use)
			}
		}
	}
	return specialUse(name)
}

// SpecialUse is the attribute s as it is written, "" if there is no such special use.
func SpecialUse(s string) string {
	for _, use := range []string{`\All`, `\Archive`, `\Drafts`, `\Flagged`, `\Important`, `\Junk`, `\Sent`, `\Trash`} {
		if strings.EqualFold(s, use) {
			return use
		}
	}
	return ""
}
