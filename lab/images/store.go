package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// Store is the folder that keeps what was built: one folder per artifact, named
// after what it is and the hash of its recipe, outside of any checkout. All of
// it may be deleted at any time; what is needed again is built again.
type Store struct{ root string }

// OpenStore returns the store in root, or, where root is empty, in the user's
// cache folder. It makes the folder.
func OpenStore(root string) (*Store, error) {
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
		root = filepath.Join(cache, "fedlab")
	}
	s := &Store{root: root}
	for _, dir := range []string{s.builds(), s.logs(), s.locks()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	return s, nil
}

// Root returns the store's folder.
func (s *Store) Root() string { return s.root }

func (s *Store) builds() string { return filepath.Join(s.root, "builds") }
func (s *Store) logs() string   { return filepath.Join(s.root, "logs") }
func (s *Store) locks() string  { return filepath.Join(s.root, "locks") }

// slug names an artifact in the store.
func slug(name, key string) string { return name + "-" + key }

// Path returns the folder of an artifact, and whether it is there.
func (s *Store) Path(name, key string) (string, bool) {
	dir := filepath.Join(s.builds(), slug(name, key))
	_, err := os.Stat(dir)
	return dir, err == nil
}

// partial marks what is being made or was left by a build that was killed.
const partial = ".partial"

// Make returns the folder of an artifact, and lets fill make it where it is not
// there. The folder gets its name only when fill has ended well, so a killed
// build leaves nothing that could be taken for a good one. Of several processes
// that want the same artifact one makes it and the others wait. The log is kept
// and named in the error.
func (s *Store) Make(ctx context.Context, name, key string, fill func(ctx context.Context, dir string, log *os.File) error) (_ string, err error) {
	final, there := s.Path(name, key)
	if there {
		return final, nil
	}
	lock := flock.New(filepath.Join(s.locks(), slug(name, key)))
	if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
		return "", fmt.Errorf("wait for another process that makes %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	if _, there := s.Path(name, key); there {
		return final, nil
	}

	dir := final + partial
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	logPath := filepath.Join(s.logs(), slug(name, key)+".log")
	log, err := os.Create(logPath)
	if err != nil {
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if err := fill(ctx, dir, log); err != nil {
		return "", fmt.Errorf("make %s (log: %s): %w", name, logPath, err)
	}
	if err := syncTree(dir); err != nil {
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	if err := os.Rename(dir, final); err != nil {
		return "", fmt.Errorf("make %s: %w", name, err)
	}
	return final, nil
}

// syncTree makes sure that files have reached the disk before the folder gets
// the name that vouches for them.
func syncTree(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

// Prune removes all artifacts but those in keep (as name and key), and what
// killed builds left; it returns the names of what it removed.
func (s *Store) Prune(keep map[string]string) ([]string, error) {
	entries, err := os.ReadDir(s.builds())
	if err != nil {
		return nil, fmt.Errorf("prune image store: %w", err)
	}
	kept := make(map[string]bool, len(keep))
	for name, key := range keep {
		kept[slug(name, key)] = true
	}
	var removed []string
	for _, e := range entries {
		if kept[e.Name()] {
			continue
		}
		lock := flock.New(filepath.Join(s.locks(), strings.TrimSuffix(e.Name(), partial)))
		free, err := lock.TryLock()
		if err != nil {
			return removed, fmt.Errorf("prune %s: %w", e.Name(), err)
		}
		if !free { // somebody is making it just now
			continue
		}
		err = errors.Join(os.RemoveAll(filepath.Join(s.builds(), e.Name())), lock.Unlock())
		if err != nil {
			return removed, fmt.Errorf("prune %s: %w", e.Name(), err)
		}
		removed = append(removed, e.Name())
	}
	return removed, nil
}
