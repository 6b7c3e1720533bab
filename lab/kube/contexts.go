package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	// lockTick and lockBound pace the wait for the lock of a kubeconfig file, which
	// kubectl takes for moments.
	lockTick  = 100 * time.Millisecond
	lockBound = 5 * time.Second
	// ownerExtension is what a context has that ExportContexts has written: a name
	// alone does not say who made it.
	ownerExtension = "dev.fedlab"
)

// owned is what the extension says.
type owned struct {
	Owner string `json:"owner"`
}

// ExportContexts writes the contexts of kubeconfigs, with their clusters and users,
// to the kubeconfig file at path, and notes whose they are. An empty path stands
// for the files that kubectl reads: what is in one of them stays there. A context
// that is there with the same way to the same cluster is left alone. The current
// context is left alone as well, but where there is none. It reports whether it
// wrote anything.
func ExportContexts(ctx context.Context, path, owner string, kubeconfigs ...[]byte) (changed bool, err error) {
	return edit(ctx, path, func(files *clientcmdapi.Config) (changed bool, err error) {
		for _, kubeconfig := range kubeconfigs {
			one, err := clientcmd.Load(kubeconfig)
			if err != nil {
				return false, fmt.Errorf("read kubeconfig: %w", err)
			}
			for name, c := range one.Contexts {
				if same(files, one, name, owner) {
					continue
				}
				mark, err := json.Marshal(owned{Owner: owner})
				if err != nil {
					return false, err
				}
				c.Extensions = map[string]runtime.Object{ownerExtension: &runtime.Unknown{Raw: mark, ContentType: runtime.ContentTypeJSON}}
				put(files.Contexts, name, c, func(of *clientcmdapi.Context) *string { return &of.LocationOfOrigin })
				put(files.Clusters, c.Cluster, one.Clusters[c.Cluster], func(of *clientcmdapi.Cluster) *string { return &of.LocationOfOrigin })
				put(files.AuthInfos, c.AuthInfo, one.AuthInfos[c.AuthInfo], func(of *clientcmdapi.AuthInfo) *string { return &of.LocationOfOrigin })
				changed = true
			}
			if files.CurrentContext == "" {
				files.CurrentContext, changed = one.CurrentContext, true
			}
		}
		return changed, nil
	})
}

// put replaces an entry in the file that it is in.
func put[T any](entries map[string]*T, name string, entry *T, origin func(*T) *string) {
	*origin(entry) = ""
	if was := entries[name]; was != nil {
		*origin(entry) = *origin(was)
	}
	entries[name] = entry
}

// same reports whether a context of the files leads where one of a kubeconfig
// does, and is the owner's.
func same(files, one *clientcmdapi.Config, name, owner string) bool {
	was, is := files.Contexts[name], one.Contexts[name]
	if was == nil || ownerOf(was) != owner || was.Cluster != is.Cluster || was.AuthInfo != is.AuthInfo {
		return false
	}
	cluster, wanted := files.Clusters[was.Cluster], one.Clusters[is.Cluster]
	if cluster == nil || wanted == nil || cluster.Server != wanted.Server || !bytes.Equal(cluster.CertificateAuthorityData, wanted.CertificateAuthorityData) {
		return false
	}
	user, asked := files.AuthInfos[was.AuthInfo], one.AuthInfos[is.AuthInfo]
	return user != nil && asked != nil && bytes.Equal(user.ClientKeyData, asked.ClientKeyData) &&
		bytes.Equal(user.ClientCertificateData, asked.ClientCertificateData)
}

// ownerOf returns whose a context is, and "" for one that ExportContexts has not
// written.
func ownerOf(c *clientcmdapi.Context) string {
	mark, ok := c.Extensions[ownerExtension].(*runtime.Unknown)
	var o owned
	if !ok || json.Unmarshal(mark.Raw, &o) != nil {
		return ""
	}
	return o.Owner
}

// RemoveContexts takes the owner's contexts, with their clusters and users, out of
// the kubeconfig file at path, or out of each file that kubectl reads when path is
// empty; those that keep names stay. It reports whether there were any. A file that
// cannot be read keeps the others from nothing.
func RemoveContexts(ctx context.Context, path, owner string, keep func(name string) bool) (removed bool, err error) {
	paths := []string{path}
	if path == "" {
		paths = clientcmd.NewDefaultPathOptions().GetLoadingPrecedence()
	}
	for _, path := range paths {
		changed, failed := edit(ctx, path, func(file *clientcmdapi.Config) (changed bool, err error) {
			for name, c := range file.Contexts {
				if ownerOf(c) != owner || keep(name) {
					continue
				}
				delete(file.Contexts, name)
				delete(file.Clusters, c.Cluster)
				delete(file.AuthInfos, c.AuthInfo)
				if file.CurrentContext == name {
					file.CurrentContext = ""
				}
				changed = true
			}
			return changed, nil
		})
		removed, err = removed || changed, errors.Join(err, failed)
	}
	return removed, err
}

// edit reads the files, and writes what change has changed in them.
func edit(ctx context.Context, path string, change func(*clientcmdapi.Config) (bool, error)) (changed bool, err error) {
	access := clientcmd.NewDefaultPathOptions()
	access.LoadingRules.ExplicitPath = path
	// A file that is not there is no reason to warn.
	access.LoadingRules.WarnIfAllMissing = false
	files, err := access.GetStartingConfig()
	if err != nil {
		return false, fmt.Errorf("read kubeconfig files: %w", err)
	}
	if changed, err = change(files); err != nil || !changed {
		return false, err
	}
	if err := whileLocked(ctx, func() error { return clientcmd.ModifyConfig(access, *files, false) }); err != nil {
		return false, fmt.Errorf("write kubeconfig files: %w", err)
	}
	return true, nil
}

// whileLocked repeats write as long as somebody else holds the lock of a file,
// which is a file of which the error says that it exists.
func whileLocked(ctx context.Context, write func() error) error {
	bound := time.NewTimer(lockBound)
	defer bound.Stop()
	tick := time.NewTicker(lockTick)
	defer tick.Stop()
	for {
		err := write()
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
