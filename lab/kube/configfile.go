package kube

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	// lockTick and lockBound pace the wait for the lock of a kubeconfig file, which
	// kubectl takes for moments.
	lockTick  = 100 * time.Millisecond
	lockBound = 5 * time.Second
)

type configFile struct {
	path    string
	config  *clientcmdapi.Config
	changed bool
}

// configFiles are those that kubectl would read, in its order: of entries of one
// name the first counts.
type configFiles []*configFile

// Kinds of entries of a kubeconfig file.
func contexts(c *clientcmdapi.Config) map[string]*clientcmdapi.Context { return c.Contexts }
func clusters(c *clientcmdapi.Config) map[string]*clientcmdapi.Cluster { return c.Clusters }
func users(c *clientcmdapi.Config) map[string]*clientcmdapi.AuthInfo   { return c.AuthInfos }

// find returns an entry and the file that it is in; nil where there is none.
func find[T any](files configFiles, kind func(*clientcmdapi.Config) map[string]*T, name string) (*configFile, *T) {
	for _, f := range files {
		if entry := kind(f.config)[name]; entry != nil {
			return f, entry
		}
	}
	return nil, nil
}

// put replaces an entry in the file that it is in, and adds one that is new to the
// usual file.
func put[T any](files configFiles, usual string, kind func(*clientcmdapi.Config) map[string]*T, name string, entry *T) {
	at, _ := find(files, kind, name)
	if at == nil {
		at = files.at(usual)
	}
	kind(at.config)[name], at.changed = entry, true
}

// at returns the file of a path, which is one of them.
func (all configFiles) at(path string) *configFile {
	return all[slices.IndexFunc(all, func(f *configFile) bool { return f.path == path })]
}

func (all configFiles) current() string {
	for _, f := range all {
		if f.config.CurrentContext != "" {
			return f.config.CurrentContext
		}
	}
	return ""
}

// edit reads the files at paths and writes those that change has changed. It takes
// no lock where there is nothing to do.
func edit(ctx context.Context, paths []string, change func(configFiles) error) (changed bool, err error) {
	look := func() (configFiles, error) {
		files, err := readFiles(paths)
		if err != nil {
			return nil, fmt.Errorf("read kubeconfig files: %w", err)
		}
		return files, change(files)
	}
	is := func(f *configFile) bool { return f.changed }
	files, err := look()
	if err != nil || !slices.ContainsFunc(files, is) && !slices.ContainsFunc(paths, leftLocked) {
		return false, err
	}
	release, err := lockFiles(ctx, paths)
	if err != nil {
		return false, fmt.Errorf("write kubeconfig files: %w", err)
	}
	defer func() { err = errors.Join(err, release()) }()
	// Somebody else may have written meanwhile.
	if files, err = look(); err != nil {
		return false, err
	}
	for _, f := range files {
		if !f.changed {
			continue
		}
		if err := f.write(); err != nil {
			return changed, fmt.Errorf("write kubeconfig files: %w", err)
		}
		changed = true
	}
	return changed, nil
}

func readFiles(paths []string) (configFiles, error) {
	all := make(configFiles, len(paths))
	for i, path := range paths {
		config, err := clientcmd.LoadFromFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			config = clientcmdapi.NewConfig()
		case err != nil:
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all[i] = &configFile{path: path, config: config}
	}
	return all, nil
}

// write replaces the file at once: who reads it, and who is killed, finds the old
// content or the new one. A link is followed. A file in which nothing is left goes.
func (f *configFile) write() error {
	content, err := clientcmd.Write(*f.config)
	if err != nil {
		return err
	}
	path, err := filepath.EvalSymlinks(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		path, err = f.path, nil
	}
	if err != nil {
		return err
	}
	if path == f.path && f.empty() {
		return os.Remove(path)
	}
	next := unfinished(path)
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	to, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = to.Write(content)
	if info, missing := os.Stat(path); missing == nil {
		err = errors.Join(err, sameOwner(to, info))
	}
	if err = errors.Join(err, to.Sync(), to.Close()); err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return nil
}

func sameOwner(f *os.File, other fs.FileInfo) error {
	err := f.Chmod(other.Mode().Perm())
	own, told := f.Stat()
	if err = errors.Join(err, told); err != nil {
		return err
	}
	is, want := own.Sys().(*syscall.Stat_t), other.Sys().(*syscall.Stat_t) //nolint:forcetypeassert // package os says so
	if is.Uid == want.Uid && is.Gid == want.Gid {
		return nil
	}
	return f.Chown(int(want.Uid), int(want.Gid))
}

// empty reports whether the file says no more than one that is not there.
func (f *configFile) empty() bool {
	c := f.config
	return len(c.Contexts)+len(c.Clusters)+len(c.AuthInfos)+len(c.Extensions)+len(c.Preferences.Extensions) == 0 && c.CurrentContext == "" && !c.Preferences.Colors
}

// unfinished is where the next content of a file is written. Only who has the lock
// of the file does so.
func unfinished(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".fedlab")
}

// lockName is the file that locks another one, for kubectl, too (client-go's
// tools/clientcmd/loader.go, lockName). kubectl makes an empty file, fedlab a link
// to nowhere, which is made at once together with what it says: whose it is.
func lockName(path string) string { return path + ".lock" }

// lockText is what a lock of fedlab's says.
func lockText() (string, error) {
	host, err := os.Hostname()
	return "fedlab@" + host, err
}

// leftLocked reports whether a process of fedlab's was killed that had the lock of a
// file.
func leftLocked(path string) bool {
	text, err := lockText()
	if err != nil {
		return false
	}
	left, err := os.Readlink(lockName(path))
	return err == nil && left == text
}

// lockFiles takes the locks of the files, in an order that is the same for all who
// do. A lock of fedlab's is one that a killed process left.
func lockFiles(ctx context.Context, paths []string) (release func() error, err error) {
	var held []string
	release = func() error {
		var errs []error
		for _, path := range slices.Backward(held) {
			errs = append(errs, os.Remove(lockName(path)))
		}
		return errors.Join(errs...)
	}
	for _, path := range slices.Compact(slices.Sorted(slices.Values(paths))) {
		if err := lockFile(ctx, path); err != nil {
			return nil, errors.Join(err, release())
		}
		held = append(held, path)
	}
	return release, nil
}

// lockFile waits while somebody else has the lock.
func lockFile(ctx context.Context, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // as kubectl does
		return err
	}
	text, err := lockText()
	if err != nil {
		return err
	}
	bound := time.NewTimer(lockBound)
	defer bound.Stop()
	tick := time.NewTicker(lockTick)
	defer tick.Stop()
	for {
		if leftLocked(path) {
			return swept(path)
		}
		err := os.Symlink(text, lockName(path))
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the kubeconfig's lock: %w; last seen: %w", context.Cause(ctx), err)
		case <-bound.C:
			return fmt.Errorf("%s has been there for %s: another program has %s locked, or was killed over it; remove that file if no kubectl runs",
				lockName(path), lockBound, path)
		case <-tick.C:
		}
	}
}

// swept removes what a killed process has not finished.
func swept(path string) error {
	at, err := filepath.EvalSymlinks(path)
	if err != nil {
		at = path
	}
	if err := os.Remove(unfinished(at)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
