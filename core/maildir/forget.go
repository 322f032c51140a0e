package maildir

import (
	"errors"
	"fmt"
	"os"
)

// ForgetIndex removes the index files of a folder that nobody of this process has
// open, so that they are made anew when it is opened. Modification sequences begin
// beyond those that were.
func (s *Store) ForgetIndex(name string) error {
	name, err := cleanName(name)
	if err != nil {
		return err
	}
	dir := dirOf(s.t.path, name)
	for _, file := range []string{indexName, factsName} {
		if err := s.p.ops.remove(dir + "/" + file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forget the index of folder %q: %w", name, err)
		}
	}
	return nil
}
