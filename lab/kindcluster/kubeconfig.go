package kindcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	// lockTick and lockBound pace the wait for the lock of a kubeconfig, which
	// kubectl takes for moments.
	lockTick  = 100 * time.Millisecond
	lockBound = 5 * time.Second
)

// NoKubeconfigError says that a cluster's node runs and has no kubeconfig: kubeadm
// has not come so far.
type NoKubeconfigError struct{ Cluster string }

func (e *NoKubeconfigError) Error() string {
	return fmt.Sprintf("read kubeconfig of cluster %s: its node has none yet", e.Cluster)
}

// Kubeconfig returns a kubeconfig for one cluster, with which this machine
// reaches it. It holds a private key. The node must run; the error is a
// *NoKubeconfigError when it does and has none.
func (p *Provider) Kubeconfig(name string) ([]byte, error) {
	config, err := p.kubeconfigs.KubeConfig(name, false)
	if err == nil {
		return []byte(config), nil
	}
	if p.lacksKubeconfig(name) {
		return nil, &NoKubeconfigError{Cluster: name}
	}
	return nil, fmt.Errorf("read kubeconfig of cluster %s: %w", name, described(err))
}

// lacksKubeconfig reports whether a node certainly has no kubeconfig. That kind
// cannot read it does not tell: the docker command fails in the same way when it
// does not reach the node.
func (p *Provider) lacksKubeconfig(name string) bool {
	found, err := p.clusters(p.log).ListNodes(name)
	if err != nil || len(found) != 1 {
		return false
	}
	var out bytes.Buffer
	look := found[0].Command("find", "/etc/kubernetes", "-maxdepth", "1", "-name", "admin.conf").SetStdout(&out)
	return look.Run() == nil && out.Len() == 0
}

// ExportKubeconfig merges the contexts of the named clusters into the
// kubeconfig at path, one after the other; the last becomes the current one. An
// empty path stands for the file that kubectl would write to. A context that is
// there with the same way to the same cluster is left alone, and so is the
// current context then. It reports whether it wrote anything.
func (p *Provider) ExportKubeconfig(ctx context.Context, path string, names ...string) (changed bool, err error) {
	p.userFile.Lock()
	defer p.userFile.Unlock()
	for _, name := range names {
		there, err := p.exported(path, name)
		if err == nil && !there {
			err = whileLocked(ctx, func() error { return p.kubeconfigs.ExportKubeConfig(name, path, false) })
			changed = true
		}
		if err != nil {
			return changed, fmt.Errorf("export context %s: %w", ContextName(name), described(err))
		}
	}
	return changed, nil
}

// exported reports whether a file that kubectl reads leads to a cluster the way
// that kind would write it.
func (p *Provider) exported(path, name string) (bool, error) {
	text, err := p.kubeconfigs.KubeConfig(name, false)
	if err != nil {
		return false, err
	}
	var want userFile
	if err := yaml.Unmarshal([]byte(text), &want); err != nil {
		return false, fmt.Errorf("read kind's kubeconfig: %w", err)
	}
	files, err := userFiles(path)
	if err != nil {
		return false, err
	}
	key := ContextName(name)
	return slices.ContainsFunc(files, func(have userFile) bool {
		return entry(have.Contexts, key) != nil &&
			reflect.DeepEqual(entry(have.Clusters, key), entry(want.Clusters, key)) &&
			reflect.DeepEqual(entry(have.Users, key), entry(want.Users, key))
	}), nil
}

// RemoveKubeconfig takes the contexts of all clusters whose names start with
// prefix out of the kubeconfig at path, or out of each file that kubectl reads
// when path is empty, and reports whether there were any. The contexts of
// clusters that exist stay: kind has no way to forget one but to delete both. No
// such context, or no file, is not an error.
func (p *Provider) RemoveKubeconfig(ctx context.Context, path, prefix string) (removed bool, err error) {
	p.userFile.Lock()
	defer p.userFile.Unlock()
	files, err := userFiles(path)
	if err != nil {
		return false, err
	}
	names := clustersIn(files, prefix)
	if len(names) == 0 {
		return false, nil
	}
	kind := p.clusters(p.log)
	existing, err := kind.List()
	if err != nil {
		return false, fmt.Errorf("list clusters: %w", described(err))
	}
	for _, name := range names {
		if slices.Contains(existing, name) {
			continue
		}
		if err := whileLocked(ctx, func() error { return kind.Delete(name, path) }); err != nil {
			return removed, fmt.Errorf("remove context %s: %w", ContextName(name), described(err))
		}
		removed = true
	}
	return removed, nil
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
			return fmt.Errorf("wait for the kubeconfig's lock: %w; last seen: %w", context.Cause(ctx), err)
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

// userFile is what Provider reads of a kubeconfig file.
type userFile struct {
	Clusters []map[string]any `yaml:"clusters"`
	Users    []map[string]any `yaml:"users"`
	Contexts []map[string]any `yaml:"contexts"`
}

func entry(entries []map[string]any, name string) map[string]any {
	i := slices.IndexFunc(entries, func(e map[string]any) bool { return e["name"] == name })
	if i < 0 {
		return nil
	}
	return entries[i]
}

// userFiles reads those files that exist.
func userFiles(path string) ([]userFile, error) {
	var files []userFile
	for _, path := range kubeconfigFiles(path) {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var file userFile
		if err == nil {
			err = yaml.Unmarshal(data, &file)
		}
		if err != nil {
			return nil, fmt.Errorf("read kubeconfig %s: %w", path, err)
		}
		files = append(files, file)
	}
	return files, nil
}

// clustersIn names the clusters of which a file has anything.
func clustersIn(files []userFile, prefix string) []string {
	var names []string
	for _, file := range files {
		for _, e := range slices.Concat(file.Contexts, file.Clusters, file.Users) {
			key, _ := e["name"].(string)
			name, kinds := strings.CutPrefix(key, ContextName(""))
			if kinds && strings.HasPrefix(name, prefix) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}
