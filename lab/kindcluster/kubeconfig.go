package kindcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	// lockTick and lockBound pace the wait for the lock of a kubeconfig, which
	// kubectl takes for moments.
	lockTick  = 100 * time.Millisecond
	lockBound = 5 * time.Second
)

// Kubeconfig returns a kubeconfig for one cluster, with which this machine
// reaches it. It holds a private key. The node must run.
func (p *Provider) Kubeconfig(name string) ([]byte, error) {
	config, err := p.kubeconfigs.KubeConfig(name, false)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig of cluster %s: %w", name, described(err))
	}
	return []byte(config), nil
}

// ExportKubeconfig merges the contexts of the named clusters into the
// kubeconfig at path, one after the other; the last becomes the current one. An
// empty path stands for the file that kubectl would write to.
func (p *Provider) ExportKubeconfig(ctx context.Context, path string, names ...string) error {
	p.userFile.Lock()
	defer p.userFile.Unlock()
	for _, name := range names {
		err := whileLocked(ctx, func() error { return p.kubeconfigs.ExportKubeConfig(name, path, false) })
		if err != nil {
			return fmt.Errorf("export context %s: %w", ContextName(name), described(err))
		}
	}
	return nil
}

// RemoveKubeconfig takes the contexts of clusters that are gone out of the
// kubeconfig at path, or out of each file that kubectl reads when path is empty.
// A context or file that does not exist is not an error; a cluster that still
// exists is: kind has no way to forget a cluster's context but to delete both.
func (p *Provider) RemoveKubeconfig(ctx context.Context, path string, names ...string) error {
	p.userFile.Lock()
	defer p.userFile.Unlock()
	exists, err := anyFile(kubeconfigFiles(path))
	if err != nil || !exists {
		return err
	}
	kind := p.clusters(p.log)
	for _, name := range names {
		left, err := kind.ListNodes(name)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("node %s still exists", left[0])
		}
		if err == nil {
			err = whileLocked(ctx, func() error { return kind.Delete(name, path) })
		}
		if err != nil {
			return fmt.Errorf("remove context %s: %w", ContextName(name), described(err))
		}
	}
	return nil
}

// whileLocked repeats edit as long as somebody else holds the kubeconfig's
// lock, a file of which kind says that it exists.
func whileLocked(ctx context.Context, edit func() error) error {
	bound := time.NewTimer(lockBound)
	defer bound.Stop()
	tick := time.NewTicker(lockTick)
	defer tick.Stop()
	for {
		err := edit()
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-bound.C:
			return fmt.Errorf("kubeconfig stayed locked for %s, perhaps by a program that was killed: %w", lockBound, err)
		case <-tick.C:
		}
	}
}

// kubeconfigFiles are the files that kubectl reads.
func kubeconfigFiles(path string) []string {
	if path != "" {
		return []string{path}
	}
	if list := filepath.SplitList(os.Getenv("KUBECONFIG")); len(list) > 0 {
		return list
	}
	return []string{filepath.Join(os.Getenv("HOME"), ".kube", "config")}
}

// anyFile keeps kind from making a folder, and a lock in it, only to find that
// there is nothing to remove.
func anyFile(paths []string) (bool, error) {
	for _, path := range paths {
		_, err := os.Stat(path)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("look for kubeconfig: %w", err)
		}
	}
	return false, nil
}
