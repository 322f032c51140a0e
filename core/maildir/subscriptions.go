package maildir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"
)

// The file subscriptions lists folders in modified UTF-7, one a line. Dovecot's
// version 2 begins with "V\t2" and an empty line and has a TAB between the
// elements of a name; before that there was no header and the separator was a
// dot. Both are read, and each is written as it was found.
const (
	subscriptionsName = "subscriptions"
	subscriptionsV2   = "V\t2\n\n"
	maxSubscriptions  = 1 << 20 // octets
)

// parseSubscriptions returns the lines of the file, with dots.
func parseSubscriptions(data string) (names []string, v2 bool) {
	seen := map[string]bool{}
	data, v2 = strings.CutPrefix(data, subscriptionsV2)
	for line := range strings.SplitSeq(data, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if v2 {
			line = strings.ReplaceAll(line, "\t", ".")
		}
		if line != "" && !seen[line] {
			seen[line] = true
			names = append(names, line)
		}
	}
	return names, v2
}

// formatSubscriptions is the inverse of parseSubscriptions.
func formatSubscriptions(names []string, v2 bool) []byte {
	var b []byte
	if v2 {
		b = append(b, subscriptionsV2...)
	}
	for _, name := range names {
		if v2 {
			name = strings.ReplaceAll(name, ".", "\t")
		}
		b = append(b, name...)
		b = append(b, '\n')
	}
	return b
}

func (s *Store) readSubscriptions() (names []string, v2 bool, err error) {
	file := filepath.Join(s.t.path, subscriptionsName)
	fi, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	if fi.Size() > maxSubscriptions {
		return nil, false, fmt.Errorf("read %s: it is longer than %d octets", file, maxSubscriptions)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, false, err
	}
	names, v2 = parseSubscriptions(string(data))
	return names, v2 || len(data) == 0, nil
}

// subscribed is the set of subscribed names in UTF-8.
func (s *Store) subscribed() (map[string]bool, error) {
	lines, _, err := s.readSubscriptions()
	if err != nil {
		return nil, err
	}
	set := make(map[string]bool, len(lines))
	for _, line := range lines {
		name, ok := decodeName(line)
		if !ok {
			name = line
		}
		if clean, err := cleanName(name); err == nil {
			set[clean] = true
		}
	}
	return set, nil
}

// Subscriptions returns the subscribed names, sorted. The folders need not exist.
func (s *Store) Subscriptions() ([]string, error) {
	set, err := s.subscribed()
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, name)
	}
	sort.Slice(names, func(i, j int) bool { return before(names[i], names[j]) })
	return names, nil
}

// Subscribe adds a name to the subscriptions, durably. The folder need not exist.
func (s *Store) Subscribe(name string) error { return s.subscription(name, true) }

// Unsubscribe removes a name from the subscriptions, durably. It is no error
// if it was not there.
func (s *Store) Unsubscribe(name string) error { return s.subscription(name, false) }

func (s *Store) subscription(name string, want bool) error {
	name, err := cleanName(name)
	if err != nil {
		return err
	}
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	file := filepath.Join(s.t.path, subscriptionsName)
	unlock, err := s.p.lock(context.Background(), file)
	if err != nil {
		return err
	}
	defer unlock()
	lines, v2, err := s.readSubscriptions()
	if err != nil {
		return err
	}
	line := encodeName(name)
	had := slices.Contains(lines, line)
	if had == want {
		return nil
	}
	if want {
		lines = append(lines, line)
	} else {
		lines = slices.DeleteFunc(lines, func(l string) bool { return l == line || l == name })
	}
	temp := filepath.Join(s.t.path, "tmp", s.p.names.base(time.Now()))
	if err := s.p.replace(file, temp, formatSubscriptions(lines, v2)); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	s.p.changedTree(s.t.path)
	return nil
}
