package store

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// private returns nil when nobody but the caller and root can put something into
// a folder or in its place. Folders above it count, too: in one of them the
// folder could be replaced by another.
func private(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	for _, path := range []string{dir, real} {
		for at := path; ; at = filepath.Dir(at) {
			info, err := os.Stat(at)
			if err != nil {
				return err
			}
			if what := openTo(info, at != path); what != "" {
				return fmt.Errorf("folder %s %s: set FEDLAB_CACHE to a folder that is yours alone, below folders that only you and root can change", at, what)
			}
			if at == filepath.Dir(at) {
				break
			}
		}
	}
	return nil
}

// openTo says what lets others change a folder; "" where nothing does. In a folder
// above, the sticky bit keeps them from replacing what is not theirs. The caller's
// own group is taken for the caller, as most systems give each user one.
func openTo(info fs.FileInfo, above bool) string {
	owner, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode()
	switch {
	case !ok:
		return ""
	case owner.Uid != 0 && int(owner.Uid) != os.Geteuid():
		return fmt.Sprintf("belongs to user %d", owner.Uid)
	case above && mode&fs.ModeSticky != 0:
		return ""
	case mode&0o002 != 0:
		return "can be written by every user"
	case mode&0o020 != 0 && int(owner.Gid) != os.Getegid():
		return fmt.Sprintf("can be written by group %d", owner.Gid)
	}
	return ""
}
