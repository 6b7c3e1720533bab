package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/images/internal/imagestest"
)

// A cache in which somebody else can put a file is not used: a symbolic link in
// the place of a lock would be followed, and a program there would be run.
func TestStoreRefusesAFolderThatOthersMayChange(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(root string) error
		// want follows the folder at which it is seen.
		at, want string
	}{
		"every user":         {func(root string) error { return os.Chmod(root, 0o777) }, "cache", "can be written by every user"},
		"every user, sticky": {func(root string) error { return os.Chmod(root, 0o777|fs.ModeSticky) }, "cache", ""},
		"the locks":          {func(root string) error { return os.Chmod(filepath.Join(root, "locks"), 0o777) }, "cache/locks", "can be written by every user"},
		"the locks, sticky":  {func(root string) error { return os.Chmod(filepath.Join(root, "locks"), 0o777|fs.ModeSticky) }, "cache/locks", "can be written by every user"},
		"the folder above":   {func(root string) error { return os.Chmod(filepath.Dir(root), 0o777) }, ".", "can be written by every user"},
		"the caller's group": {func(root string) error { return os.Chmod(root, 0o775) }, "cache", ""},
		"behind a link": {func(root string) error {
			real := filepath.Join(filepath.Dir(root), "real")
			return errors.Join(os.Rename(root, real), os.Symlink(real, root), os.Chmod(filepath.Join(real, "builds"), 0o777))
		}, "cache/builds", "can be written by every user"},
	} {
		t.Run(name, func(t *testing.T) {
			above := t.TempDir()
			root := filepath.Join(above, "cache")
			if _, err := Open(root); err != nil {
				t.Fatal(err)
			}
			if err := tt.change(root); err != nil {
				t.Fatal(err)
			}
			_, err := Open(root)
			want := ""
			if tt.want != "" {
				want = "open image store: folder " + filepath.Join(above, tt.at) + " " + tt.want + ": set FEDLAB_CACHE to a folder that is yours alone, below folders that only you and root can change"
			}
			if imagestest.ErrorText(err) != want {
				t.Errorf("error %q, want %q", imagestest.ErrorText(err), want)
			}
		})
	}
}

func TestStoreRefusesAFolderOfSomebodyElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a folder away")
	}
	root := filepath.Join(t.TempDir(), "cache")
	if _, err := Open(root); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(root, 4711, 4711); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(root); !strings.HasPrefix(imagestest.ErrorText(err), "open image store: folder "+root+" belongs to user 4711: ") {
		t.Errorf("error %v, want the folder refused", err)
	}
}

func TestStoreFollowsNoLinkInPlaceOfALock(t *testing.T) {
	s := newStore(t)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Symlink(outside, filepath.Join(s.locks(), "etcd-k1")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Make(t.Context(), "etcd", "k1", writes("never")); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("error %v, want the link refused", err)
	}
	if _, err := os.Lstat(outside); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s was made, error %v", outside, err)
	}
}
