package mtasts

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxFile is the most octets of a file; a policy with its escapes is far shorter.
const maxFile = 8 * maxPolicy

// saved is a policy on disk.
type saved struct {
	Domain string `json:"domain"`
	Policy
}

// file is where a domain's policy is kept; the name holds nothing of what a peer has
// chosen.
func (c *Cache) file(domain string) string {
	sum := sha256.Sum256([]byte(domain))
	return filepath.Join(c.o.Dir, hex.EncodeToString(sum[:16])+".json")
}

// load reads the folder. A file that is no valid policy is removed: it can be fetched
// again.
func (c *Cache) load() error {
	if err := os.MkdirAll(c.o.Dir, 0o700); err != nil {
		return fmt.Errorf("open MTA-STS folder: %w", err)
	}
	files, err := os.ReadDir(c.o.Dir)
	if err != nil {
		return fmt.Errorf("open MTA-STS folder: %w", err)
	}
	now := c.o.Now()
	for _, f := range files {
		name := filepath.Join(c.o.Dir, f.Name())
		if strings.HasSuffix(name, ".tmp") {
			c.remove(name) // what a crash has left
		}
		if !strings.HasSuffix(name, ".json") {
			continue
		}
		s, err := read(name)
		if err == nil && c.file(s.Domain) != name {
			err = errors.New("it is another domain's")
		}
		if err != nil {
			c.o.Logger.Warn("MTA-STS policy on disk is dropped", "file", name, "err", err)
		}
		if s.Fetched.After(now) {
			s.Fetched = now // the clock was wrong: it must not outlive its age by more
		}
		if _, force := s.inForce(now); err != nil || !force || c.with.Len() >= c.o.Max {
			c.remove(name)
			continue
		}
		e := c.add(s.Domain)
		e.policy = s.Policy
		c.settle(e)
	}
	return nil
}

func read(name string) (s saved, err error) {
	h, err := os.Open(name)
	if err != nil {
		return s, err
	}
	defer h.Close() // only read
	b, err := io.ReadAll(io.LimitReader(h, maxFile+1))
	if err != nil {
		return s, err
	}
	if len(b) > maxFile {
		return s, errors.New("it is too long")
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, err
	}
	if !isHost(s.Domain) {
		return s, errors.New("it has no domain")
	}
	return s, s.check()
}

// keep writes what was fetched. A policy that could not be written is only in memory.
func (c *Cache) keep(domain string, p Policy) {
	if p.Mode == "none" {
		c.discard(domain)
		return
	}
	b, err := json.Marshal(saved{domain, p})
	if err == nil {
		err = write(c.file(domain), b)
	}
	if err != nil {
		c.o.Logger.Error("MTA-STS policy could not be kept", "domain", domain, "err", err)
	}
}

// write puts a file into place at once or not at all.
func write(name string, b []byte) error {
	h, err := os.CreateTemp(filepath.Dir(name), "*.tmp")
	if err != nil {
		return err
	}
	_, err = h.Write(b)
	if err == nil {
		err = h.Sync()
	}
	if err = errors.Join(err, h.Close()); err == nil {
		err = os.Rename(h.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(h.Name()))
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// discard removes the file of a domain, if there is one.
func (c *Cache) discard(domain string) { c.remove(c.file(domain)) }

func (c *Cache) remove(name string) {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.o.Logger.Warn("MTA-STS policy could not be removed", "file", name, "err", err)
	}
}
