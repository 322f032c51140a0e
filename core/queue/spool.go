package queue

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/wafermail/wafer/core/durable"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/spill"
)

// spool is the queue on disk.
//
//	format           "wafer-queue 1"
//	boot             id of the boot in which the spool was last open
//	tmp/             messages that are being written
//	0/ … Z/          ID.m, the body as it was received, and ID.e, the envelope file
//	aside/           what cannot be read, for a person to look at
//
// A message is written to tmp/, made durable, and then renamed into place, body
// first; that is when it is accepted. After a mere kill, what is still in tmp/, or
// is a body without an envelope, was never acknowledged, and goes. After a power
// cut renames may be lost, so a message that is whole, wherever its two files
// are, is taken for accepted. When a message is done its envelope is moved to tmp/
// before the body goes, so that nobody takes that for a body without an envelope.
type spool struct {
	dir     string
	barrier *durable.Barrier
	disk    disk
	log     *slog.Logger
}

const (
	bodySuffix     = ".m"
	envelopeSuffix = ".e"
	doneSuffix     = ".x" // in tmp/: the envelope of a message that is done
	formatLine     = "wafer-queue 1\n"
	alphabet       = "0123456789ABCDEFGHJKMNPQRSTVWXYZ" // of ids
)

// disk is the file system as the spool changes it; tests fail its steps.
type disk struct {
	create func(name string) (file, error) // new, mode 0600
	append func(name string) (file, error)
	rename func(old, new string) error
	remove func(name string) error
}

type file interface {
	spill.File
}

func osDisk() disk {
	open := func(flags int) func(string) (file, error) {
		return func(name string) (file, error) {
			f, err := os.OpenFile(name, flags, 0o600)
			if err != nil {
				return nil, err // not a nil *os.File in an interface
			}
			return f, nil
		}
	}
	return disk{
		create: open(os.O_CREATE | os.O_EXCL | os.O_RDWR), append: open(os.O_WRONLY | os.O_APPEND),
		rename: os.Rename, remove: os.Remove,
	}
}

func (s *spool) tmp(name string) string { return filepath.Join(s.dir, "tmp", name) }

func (s *spool) path(id mail.ID, suffix string) string {
	return filepath.Join(s.dir, string(id[len(id)-1:]), string(id)+suffix)
}

// openSpool makes what is missing and settles what an earlier process left.
func openSpool(s *spool) error {
	made := []string{s.dir}
	for _, sub := range append(strings.Split(alphabet, ""), "tmp", "aside") {
		made = append(made, filepath.Join(s.dir, sub))
	}
	for _, dir := range made {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	name := filepath.Join(s.dir, "format")
	switch b, err := os.ReadFile(name); {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.WriteFile(name, []byte(formatLine), 0o600); err != nil {
			return err
		}
	case err != nil:
		return err
	case string(b) != formatLine:
		return fmt.Errorf("%s says %.40q; this program reads %q", name, b, formatLine)
	}
	boot := filepath.Join(s.dir, "boot")
	old, err := os.ReadFile(boot)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now := durable.BootID()
	if now == "" || string(old) != now {
		err = s.adopt()
	} else {
		err = s.sweep()
	}
	if err != nil {
		return err
	}
	if err := s.barrier.Sync(append(made, name)...); err != nil { // what was adopted is durable before the boot is noted
		return err
	}
	if err := os.WriteFile(boot, []byte(now), 0o600); err != nil {
		return err
	}
	return s.barrier.Sync(boot, s.dir)
}

// sweep removes what a killed process had not acknowledged.
func (s *spool) sweep() error {
	names, err := readDir(s.tmp(""))
	if err != nil {
		return err
	}
	for _, name := range names {
		if suffix := filepath.Ext(name); suffix == envelopeSuffix || suffix == doneSuffix {
			if err := s.leftover(mail.ID(strings.TrimSuffix(name, suffix))); err != nil {
				return err
			}
		}
		if err := s.disk.remove(s.tmp(name)); err != nil {
			return err
		}
	}
	return nil
}

// leftover removes the body of a message whose envelope has no place yet, or no
// more.
func (s *spool) leftover(id mail.ID) error {
	if !validID(string(id)) {
		return nil
	}
	if _, err := os.Lstat(s.path(id, envelopeSuffix)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.disk.remove(s.path(id, bodySuffix)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// adopt takes in what a power cut left in tmp/ and may have been acknowledged: a
// whole envelope file whose body is whole too, wherever the two are.
func (s *spool) adopt() error {
	names, err := readDir(s.tmp(""))
	if err != nil {
		return err
	}
	for _, name := range names { // bodies whose envelope has its place
		id, ok := strings.CutSuffix(name, bodySuffix)
		if !ok || !validID(id) {
			continue
		}
		env := s.path(mail.ID(id), envelopeSuffix)
		if _, err := os.Lstat(env); errors.Is(err, fs.ErrNotExist) {
			env = s.tmp(id + envelopeSuffix)
		}
		if err := s.adoptOne(mail.ID(id), s.tmp(name), env); err != nil {
			return err
		}
	}
	for _, name := range names { // envelopes whose body has its place
		id, ok := strings.CutSuffix(name, envelopeSuffix)
		if !ok || !validID(id) {
			continue
		}
		if err := s.adoptOne(mail.ID(id), s.path(mail.ID(id), bodySuffix), s.tmp(name)); err != nil {
			return err
		}
	}
	return s.sweep()
}

func (s *spool) adoptOne(id mail.ID, body, env string) error {
	m, _, err := readEnvelope(env)
	if err != nil || m.Envelope.ID != id || !bodyIs(body, m.Size, m.sum) {
		return nil // never acknowledged
	}
	for _, f := range [2][2]string{{body, s.path(id, bodySuffix)}, {env, s.path(id, envelopeSuffix)}} {
		if f[0] == f[1] {
			continue
		}
		if err := s.disk.rename(f[0], f[1]); err != nil {
			return err
		}
	}
	s.log.Warn("adopted a message that a power cut had left half filed", "id", id)
	return nil
}

func bodyIs(name string, size int64, sum uint32) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close() // only read
	h := crc32.New(castagnoli)
	n, err := io.Copy(h, f)
	return err == nil && n == size && h.Sum32() == sum
}

// readDir lists a directory's names.
func readDir(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	return names, errors.Join(err, d.Close())
}

// validID reports whether a file's name can be an id.
func validID(id string) bool {
	if len(id) < 12 || len(id) > 32 {
		return false
	}
	return strings.Trim(id, alphabet) == ""
}

// scanned is a message found on disk.
type scanned struct {
	m   *Message
	err error // then it was set aside
	id  mail.ID
}

// scan reads every envelope file with several readers at once and hands what it
// finds to found, one at a time. Pairs that make no sense are set aside.
func (s *spool) scan(ctx context.Context, found func(scanned)) error {
	const readers = 4
	ids := make(chan mail.ID, 64)
	results := make(chan scanned, 64)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	for range readers {
		group.Go(func() {
			for id := range ids {
				r := scanned{id: id}
				if r.m, r.err = s.read(id); r.err == nil {
					r.err = s.sizeIs(r.m)
				}
				results <- r
			}
		})
	}
	var walkErr error
	go func() {
		walkErr = s.walk(ctx, ids)
		close(ids)
		group.Wait()
		close(results)
	}()
	for r := range results {
		if r.err != nil {
			s.aside(r.id, r.err)
		}
		found(r)
	}
	return walkErr
}

// walk sends the id of every envelope file, and sees to bodies without one.
func (s *spool) walk(ctx context.Context, ids chan<- mail.ID) error {
	for _, c := range alphabet {
		names, err := readDir(filepath.Join(s.dir, string(c)))
		if err != nil {
			return err
		}
		envelopes := make(map[string]bool, len(names)/2)
		for _, name := range names {
			if id, ok := strings.CutSuffix(name, envelopeSuffix); ok {
				envelopes[id] = true
			}
		}
		for _, name := range names {
			id, suffix := strings.TrimSuffix(strings.TrimSuffix(name, bodySuffix), envelopeSuffix), filepath.Ext(name)
			switch {
			case !validID(id) || suffix != bodySuffix && suffix != envelopeSuffix:
				s.log.Warn("a file in the queue is not ours", "file", filepath.Join(s.dir, string(c), name))
			case suffix == envelopeSuffix:
				select {
				case ids <- mail.ID(id):
				case <-ctx.Done():
					return ctx.Err()
				}
			case !envelopes[id]:
				s.orphan(mail.ID(id))
			}
		}
	}
	return nil
}

// orphan is a body without an envelope: what is left of a damaged directory.
func (s *spool) orphan(id mail.ID) {
	s.aside(id, errors.New("a body without an envelope"))
}

// read loads a message.
func (s *spool) read(id mail.ID) (*Message, error) {
	if !validID(string(id)) {
		return nil, fs.ErrNotExist
	}
	m, torn, err := readEnvelope(s.path(id, envelopeSuffix))
	if err != nil {
		return nil, err
	}
	if m.Envelope.ID != id {
		return nil, fmt.Errorf("the envelope is that of %s", m.Envelope.ID)
	}
	if torn {
		s.log.Warn("the last record of an envelope was torn off", "id", id)
		return m, s.rewrite(m)
	}
	return m, nil
}

// sizeIs checks that the body's file is there and as long as it should be.
func (s *spool) sizeIs(m *Message) error {
	fi, err := os.Stat(s.path(m.Envelope.ID, bodySuffix))
	if err == nil && fi.Size() != m.Size {
		err = fmt.Errorf("the body has %d octets, not %d", fi.Size(), m.Size)
	}
	return err
}

func readEnvelope(name string) (m *Message, torn bool, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, false, err
	}
	m, size, err := parseMessage(b)
	return m, err == nil && size < len(b), err
}

// write puts a message into the spool. body writes the body. When it returns nil
// the message is there for ever; otherwise it never was.
func (s *spool) write(m *Message, body func(io.Writer) error, filed string) (err error) {
	id := string(m.Envelope.ID)
	bodyTmp, envTmp := s.tmp(id+bodySuffix), s.tmp(id+envelopeSuffix)
	defer func() {
		if err != nil { // the error that counts is err
			for _, name := range []string{bodyTmp, envTmp, s.path(m.Envelope.ID, bodySuffix)} {
				_ = s.disk.remove(name)
			}
		}
	}()
	if filed == "" {
		err = s.create(bodyTmp, body)
	} else {
		err = s.disk.rename(filed, bodyTmp)
	}
	if err != nil {
		return fmt.Errorf("write body: %w", err)
	}
	line, err := (&record{Message: m.first()}).append(nil)
	if err != nil {
		return err
	}
	m.records = 1
	if err := s.create(envTmp, func(w io.Writer) error { _, err := w.Write(line); return err }); err != nil {
		return fmt.Errorf("write envelope: %w", err)
	}
	if err := s.barrier.Sync(bodyTmp, envTmp, s.tmp("")); err != nil {
		return err
	}
	if err := s.disk.rename(bodyTmp, s.path(m.Envelope.ID, bodySuffix)); err != nil {
		return err
	}
	return s.disk.rename(envTmp, s.path(m.Envelope.ID, envelopeSuffix))
}

func (s *spool) create(name string, write func(io.Writer) error) error {
	f, err := s.disk.create(name)
	if err != nil {
		return err
	}
	err = write(f)
	return errors.Join(err, f.Close())
}

// note appends records to a message's envelope file. It survives a kill at once,
// and a power cut when the disk gets to it.
func (s *spool) note(id mail.ID, rs ...record) error {
	var b []byte
	for i := range rs {
		var err error
		if b, err = rs[i].append(b); err != nil {
			return err
		}
	}
	f, err := s.disk.append(s.path(id, envelopeSuffix))
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("note in envelope %s: %w", id, err)
	}
	return nil
}

// rewrite replaces the envelope file by one that says the same in few records.
func (s *spool) rewrite(m *Message) error {
	rs := append([]record{{Message: m.first()}}, m.results()...)
	if m.told() {
		rs = append(rs, record{Told: &toldRecord{At: m.Tried}})
	}
	if m.Warned {
		rs = append(rs, record{Told: &toldRecord{At: m.Tried, Delay: true}})
	}
	rs = append(rs, record{Attempt: &attemptRecord{At: m.Tried, Tries: m.Tries}})
	if !m.open {
		rs = append(rs, record{Result: &resultRecord{At: m.Tried}})
	}
	var b []byte
	for i := range rs {
		var err error
		if b, err = rs[i].append(b); err != nil {
			return err
		}
	}
	name, tmp := s.path(m.Envelope.ID, envelopeSuffix), s.tmp(string(m.Envelope.ID)+envelopeSuffix)
	err := s.create(tmp, func(w io.Writer) error { _, err := w.Write(b); return err })
	if err == nil {
		err = s.barrier.Sync(tmp, s.tmp(""))
	}
	if err == nil {
		err = s.disk.rename(tmp, name)
	}
	if err != nil {
		_ = s.disk.remove(tmp) // the error that counts is err
		return fmt.Errorf("rewrite envelope %s: %w", m.Envelope.ID, err)
	}
	m.records = len(rs)
	return nil
}

// remove forgets a message that is done.
func (s *spool) remove(id mail.ID) error {
	done := s.tmp(string(id) + doneSuffix)
	if err := s.disk.rename(s.path(id, envelopeSuffix), done); err != nil {
		return err
	}
	return errors.Join(s.disk.remove(s.path(id, bodySuffix)), s.disk.remove(done))
}

// aside takes a message out of the queue without losing it.
func (s *spool) aside(id mail.ID, why error) {
	s.log.Error("a message cannot be handled and is set aside", "id", id, "to", filepath.Join(s.dir, "aside"), "err", why)
	for _, suffix := range []string{bodySuffix, envelopeSuffix} {
		from := s.path(id, suffix)
		err := s.disk.rename(from, filepath.Join(s.dir, "aside", string(id)+suffix))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Error("could not set a file aside", "file", from, "err", err)
		}
	}
}

// room is an error if the disk cannot take size octets more and keep some free.
func (s *spool) room(size int64) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * int64(st.Bsize); free < size+minFree {
		return fmt.Errorf("%d octets are free: %w", free, syscall.ENOSPC)
	}
	if st.Files > 0 && st.Ffree < minFiles {
		return fmt.Errorf("%d files are free: %w", st.Ffree, syscall.ENOSPC)
	}
	return nil
}

// What is left free for the queue's own notes.
const (
	minFree  = 16 << 20 // octets
	minFiles = 1000
)

// told reports whether the failures so far are told.
func (m *Message) told() bool {
	for i := range m.Rcpts {
		if m.Rcpts[i].told {
			return true
		}
	}
	return false
}
