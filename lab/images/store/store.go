// Package store keeps what was made on disk: a folder for each artifact, locks by
// which processes share it, and where each artifact came from.
//
// It refuses to know what an artifact is, and how it is made.
package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"github.com/fedlab-dev/fedlab/lab/plan"
)

// Store is the folder that keeps what was built: one folder per artifact, named
// after what it is and the hash of its recipe, outside of any checkout. All of
// it may be deleted at any time; what is needed again is built again.
type Store struct{ root, owner string }

// Open returns the store in root. It makes the folder, and refuses one in which
// other users may write: what is built there runs in the name of the caller.
func Open(root string) (_ *Store, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open image store: %w", err)
		}
	}()
	if root, err = filepath.Abs(root); err != nil {
		return nil, err
	}
	machine, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	s := &Store{root: root, owner: Key(machine, strconv.Itoa(os.Getuid()), root)}
	for _, dir := range []string{s.builds(), s.logs(), s.locks(), s.loaded()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		if err := private(dir); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Root returns the store's folder.
func (s *Store) Root() string { return s.root }

// Owner tells the store from those of other users and machines that share a
// Docker engine.
func (s *Store) Owner() string { return s.owner }

func (s *Store) builds() string { return filepath.Join(s.root, "builds") }
func (s *Store) logs() string   { return filepath.Join(s.root, "logs") }
func (s *Store) locks() string  { return filepath.Join(s.root, "locks") }

// loaded has an empty file for all that came out of an archive.
func (s *Store) loaded() string { return filepath.Join(s.root, "loaded") }

// Key returns a short hash of texts, such as a recipe.
func Key(texts ...string) string {
	h := sha256.New()
	for _, t := range texts {
		fmt.Fprintf(h, "%d\n%s", len(t), t)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// Slug is what an artifact is called in the store.
func Slug(name, key string) string { return name + "-" + key }

// Path returns the folder of an artifact, and whether it is there.
func (s *Store) Path(name, key string) (string, bool, error) {
	dir := filepath.Join(s.builds(), Slug(name, key))
	_, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return dir, false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("look for %s: %w", name, err)
	}
	return dir, true, nil
}

// partial marks what is being made or was left by a build that was killed.
const partial = ".partial"

// Fill puts an artifact's files into a folder, and what there is to say
// about it into a log.
type Fill func(ctx context.Context, dir string, log *os.File) error

// Make returns the folder of an artifact, and lets fill make it where it is not
// there. The folder gets its name only when fill has ended well, so a killed
// build leaves nothing that could be taken for a good one. Of several processes
// that want the same artifact one makes it and the others wait. The log is kept
// and named in the error.
func (s *Store) Make(ctx context.Context, name, key string, fill Fill) (_ string, err error) {
	final, there, err := s.Path(name, key)
	if err != nil || there {
		return final, err
	}
	unlock, err := s.Lock(ctx, Slug(name, key))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if _, there, err := s.Path(name, key); err != nil || there {
		return final, err
	}

	logPath := filepath.Join(s.logs(), Slug(name, key)+".log")
	log, err := os.Create(logPath)
	if err != nil {
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	err = errors.Join(s.fill(ctx, Slug(name, key), fill, log), log.Close())
	if err != nil {
		return "", fmt.Errorf("make %s (log: %s): %w", name, logPath, err)
	}
	return final, s.MarkLoaded(Slug(name, key), false)
}

// fill makes an artifact next to its place and moves it there.
func (s *Store) fill(ctx context.Context, slug string, fill Fill, log *os.File) error {
	final := filepath.Join(s.builds(), slug)
	return inFresh(final+partial, func(dir string) error {
		if err := fill(ctx, dir, log); err != nil {
			return err
		}
		if err := syncTree(dir); err != nil {
			return err
		}
		if err := os.Rename(dir, final); err != nil {
			return err
		}
		return flush(s.builds())
	})
}

// inFresh gives do an empty folder, whatever was there before, and removes it
// afterwards.
func inFresh(dir string, do func(dir string) error) (err error) {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return do(dir)
}

// syncTree makes sure that files have reached the disk before the folder gets
// the name that vouches for them.
func syncTree(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() && !d.IsDir() {
			return err
		}
		return flush(path)
	})
}

func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Lock waits until no other process has the lock of that name, and takes it. The
// caller calls unlock; the system does when this process ends, however that happens.
func (s *Store) Lock(ctx context.Context, name string) (unlock func() error, err error) {
	unlock, free, err := s.TryLock(name)
	if err != nil || free {
		return unlock, err
	}
	plan.Note(ctx, "another process is making it: waiting")
	lock := s.flock(name)
	if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return nil, fmt.Errorf("wait for another process that makes %s: %w", name, err)
	}
	return lock.Unlock, nil
}

// flock is the lock of that name. A symbolic link in its place, planted when the
// folder was not yet as private as it is now, is not followed.
func (s *Store) flock(name string) *flock.Flock {
	return flock.New(filepath.Join(s.locks(), name), flock.SetFlag(os.O_CREATE|os.O_RDONLY|syscall.O_NOFOLLOW))
}

// TryLock takes a lock unless another process has it; free says whether it did.
func (s *Store) TryLock(name string) (unlock func() error, free bool, err error) {
	lock := s.flock(name)
	free, err = lock.TryLock()
	if err != nil {
		return nil, false, fmt.Errorf("lock %s: %w", name, err)
	}
	return lock.Unlock, free, nil
}

// MarkLoaded records whether something came out of an archive.
func (s *Store) MarkLoaded(slug string, yes bool) error {
	mark := filepath.Join(s.loaded(), slug)
	err := os.Remove(mark)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if yes {
		err = os.WriteFile(mark, nil, 0o644)
	}
	if err != nil {
		return fmt.Errorf("record where %s is from: %w", slug, err)
	}
	return nil
}

// WasLoaded reports whether something came out of an archive.
func (s *Store) WasLoaded(slug string) (bool, error) {
	_, err := os.Stat(filepath.Join(s.loaded(), slug))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Scratch gives do an empty folder of that name in the store, and removes the folder
// afterwards; of several processes one at a time has it. One that was killed leaves it
// to the next.
func (s *Store) Scratch(ctx context.Context, name string, do func(dir string) error) (err error) {
	unlock, err := s.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return inFresh(filepath.Join(s.builds(), name+partial), do)
}

// Bench gives do a folder of that name in the store, with what was left there before; of
// several processes one at a time has it. Prune removes it.
func (s *Store) Bench(ctx context.Context, name string, do func(dir string) error) (err error) {
	unlock, err := s.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	dir := filepath.Join(s.builds(), name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return do(dir)
}

// Prune removes all artifacts but those whose slugs are in keep, what killed
// builds left, and the logs of both. It returns the names of the artifacts, and
// how many bytes those were. What is being made just now stays.
func (s *Store) Prune(keep map[string]bool) (removed []string, size int64, err error) {
	entries, err := os.ReadDir(s.builds())
	if err != nil {
		return nil, 0, fmt.Errorf("prune image store: %w", err)
	}
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		bytes, gone, err := s.remove(e.Name())
		if err != nil {
			return removed, size, fmt.Errorf("prune %s: %w", e.Name(), err)
		}
		if gone {
			removed, size = append(removed, e.Name()), size+bytes
		}
	}
	return removed, size, s.pruneLogs(keep)
}

// pruneLogs also removes those of builds that failed, and never had an artifact.
func (s *Store) pruneLogs(keep map[string]bool) error {
	entries, err := os.ReadDir(s.logs())
	if err != nil {
		return fmt.Errorf("prune logs: %w", err)
	}
	for _, e := range entries {
		slug := strings.TrimSuffix(e.Name(), ".log")
		if keep[slug] {
			continue
		}
		unlock, free, err := s.TryLock(slug)
		if err == nil && free {
			err = errors.Join(os.Remove(filepath.Join(s.logs(), e.Name())), unlock())
		}
		if err != nil {
			return fmt.Errorf("prune log of %s: %w", slug, err)
		}
	}
	return nil
}

// remove removes an entry of the store unless somebody is making it.
func (s *Store) remove(entry string) (size int64, gone bool, err error) {
	slug := strings.TrimSuffix(entry, partial)
	unlock, free, err := s.TryLock(slug)
	if err != nil || !free {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	path := filepath.Join(s.builds(), entry)
	if size, err = TreeSize(path); err != nil {
		return 0, false, err
	}
	return size, true, errors.Join(os.RemoveAll(path), s.MarkLoaded(slug, false))
}

// TreeSize returns how many bytes the files below a folder have.
func TreeSize(root string) (size int64, err error) {
	err = filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}
