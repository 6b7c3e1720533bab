//go:build !linux

package lock

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gofrs/flock"
)

// folder is where the files of locks are. It is one for all users, which the
// folder for temporary files is not everywhere.
const folder = "/tmp"

// take locks a file, which the kernel unlocks when the process ends. The file
// stays: a lock on a file that somebody removes is a lock on nothing.
func take(name string, says self) (func() error, error) {
	path := filepath.Join(folder, "fedlab-"+filepath.Base(name)+".lock")
	// Whoever puts a link there decides nothing.
	lock := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW), flock.SetPermissions(0o666))
	free, err := lock.TryLock()
	if err != nil {
		return nil, err
	}
	if !free {
		held := &HeldError{Name: name}
		if data, err := os.ReadFile(path); err == nil {
			says := heard(data)
			held.Holder = Holder{PID: says.PID, Command: says.Command, Since: says.Since}
		}
		return nil, held
	}
	says.PID = os.Getpid()
	answer, err := json.Marshal(says)
	if err == nil {
		err = os.WriteFile(path, answer, 0o666)
	}
	if err == nil {
		// The mask of new files is the user's own; the file is everybody's. Only
		// its owner may say so, and has.
		if open := os.Chmod(path, 0o666); !errors.Is(open, os.ErrPermission) {
			err = open
		}
	}
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	return func() error { return errors.Join(os.Truncate(path, 0), lock.Unlock()) }, nil
}
