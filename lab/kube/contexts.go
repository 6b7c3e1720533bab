package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// ownerExtension is what a context has that ExportContexts has written: a name
// alone does not say who made it.
const ownerExtension = "dev.fedlab"

type owned struct {
	Owner string `json:"owner"`
}

// ExportContexts writes the contexts of kubeconfigs, with their clusters and users,
// to the kubeconfig file at path, and notes whose they are. An empty path stands
// for the files that kubectl reads: what is in one of them stays there. A context
// that is there with the same way to the same cluster is left alone. The current
// context is left alone as well, except where there is none and a context is written:
// then that one is. A lab whose contexts are there stays as it is when another one, that
// had the current context, goes. It reports whether it wrote anything.
//
// A process that is killed leaves each file as it was or as it should be, and may
// leave a lock, which the next ExportContexts or RemoveContexts takes over. So one
// process of a machine at a time may call them.
func ExportContexts(ctx context.Context, path, owner string, kubeconfigs ...[]byte) (changed bool, err error) {
	access := clientcmd.NewDefaultPathOptions()
	paths, usual := access.GetLoadingPrecedence(), access.GetDefaultFilename()
	if path != "" {
		paths, usual = []string{path}, path
	}
	return edit(ctx, paths, func(files configFiles) error {
		for _, kubeconfig := range kubeconfigs {
			one, err := clientcmd.Load(kubeconfig)
			if err != nil {
				return fmt.Errorf("read kubeconfig: %w", err)
			}
			wrote := false
			for name, c := range one.Contexts {
				if same(files, one, name, owner) {
					continue
				}
				mark, err := json.Marshal(owned{Owner: owner})
				if err != nil {
					return err
				}
				c.Extensions = map[string]runtime.Object{ownerExtension: &runtime.Unknown{Raw: mark, ContentType: runtime.ContentTypeJSON}}
				put(files, usual, contexts, name, c)
				put(files, usual, clusters, c.Cluster, one.Clusters[c.Cluster])
				put(files, usual, users, c.AuthInfo, one.AuthInfos[c.AuthInfo])
				wrote = true
			}
			if wrote && files.current() == "" {
				at := files.at(usual)
				at.config.CurrentContext, at.changed = one.CurrentContext, true
			}
		}
		return nil
	})
}

// same reports whether a context of the files leads where one of a kubeconfig
// does, and is the owner's.
func same(files configFiles, one *clientcmdapi.Config, name, owner string) bool {
	_, was := find(files, contexts, name)
	is := one.Contexts[name]
	if was == nil || ownerOf(was) != owner || was.Cluster != is.Cluster || was.AuthInfo != is.AuthInfo {
		return false
	}
	_, cluster := find(files, clusters, was.Cluster)
	wanted := one.Clusters[is.Cluster]
	if cluster == nil || wanted == nil || cluster.Server != wanted.Server || !bytes.Equal(cluster.CertificateAuthorityData, wanted.CertificateAuthorityData) {
		return false
	}
	_, user := find(files, users, was.AuthInfo)
	asked := one.AuthInfos[is.AuthInfo]
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
// cannot be read keeps the others from nothing. See ExportContexts for what a
// process that is killed leaves.
func RemoveContexts(ctx context.Context, path, owner string, keep func(name string) bool) (removed bool, err error) {
	paths := []string{path}
	if path == "" {
		paths = clientcmd.NewDefaultPathOptions().GetLoadingPrecedence()
	}
	for _, path := range paths {
		changed, failed := edit(ctx, []string{path}, func(files configFiles) error {
			file := files[0]
			for name, c := range file.config.Contexts {
				if ownerOf(c) != owner || keep(name) {
					continue
				}
				delete(file.config.Contexts, name)
				delete(file.config.Clusters, c.Cluster)
				delete(file.config.AuthInfos, c.AuthInfo)
				if file.config.CurrentContext == name {
					file.config.CurrentContext = ""
				}
				file.changed = true
			}
			return nil
		})
		removed, err = removed || changed, errors.Join(err, failed)
	}
	return removed, err
}
