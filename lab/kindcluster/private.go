package kindcluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// private is how the names of the folders start that hold a cluster's kubeconfig
// for a moment.
const private = "fedlab-kubeconfig-"

// inPrivate calls do with the path of a kubeconfig that nobody else sees and
// that is gone afterwards. kind insists on writing one.
//
// The process locks the folder as long as it needs it, so that Sweep can tell the
// folder from one that a killed process left.
func inPrivate(do func(kubeconfig string) error) (err error) {
	dir, lock, err := privateFolder()
	if err != nil {
		return fmt.Errorf("make folder for kubeconfig: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir), lock.Close()) }()
	return do(filepath.Join(dir, "config"))
}

// privateFolder makes a folder and locks it. A Sweep may take the folder away in
// between; then there is another one.
func privateFolder() (dir string, lock *os.File, err error) {
	for {
		if dir, err = os.MkdirTemp("", private); err != nil {
			return "", nil, err
		}
		lock, err = os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", nil, errors.Join(err, os.RemoveAll(dir))
		}
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
			return "", nil, errors.Join(os.NewSyscallError("flock", err), lock.Close(), os.RemoveAll(dir))
		}
		if _, err := os.Stat(dir); err == nil {
			return dir, lock, nil
		}
		_ = lock.Close() // of a folder that is gone
	}
}

// Sweep removes the kubeconfigs that killed processes left in the folder for
// temporary files. They hold keys. What a process still needs stays, and so does
// what another person left.
func (p *Provider) Sweep() error {
	left, err := filepath.Glob(filepath.Join(os.TempDir(), private+"*"))
	for _, dir := range left {
		if swept := sweep(dir); !errors.Is(swept, fs.ErrPermission) && !errors.Is(swept, fs.ErrNotExist) {
			err = errors.Join(err, swept)
		}
	}
	if err != nil {
		return fmt.Errorf("remove kubeconfigs that were left: %w", err)
	}
	return nil
}

func sweep(dir string) error {
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return nil // its process runs
	}
	return os.RemoveAll(dir)
}
