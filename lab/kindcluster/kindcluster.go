// Package kindcluster makes and removes Kubernetes clusters of one node with
// kind. It is the only importer of kind.
//
// It refuses to know what a lab is, and what runs in a cluster: it makes one
// cluster as its Spec says, and hands out the kubeconfig. kind itself runs the
// docker command, which must be in PATH and talk to the same engine as package
// docker.
package kindcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
	"sigs.k8s.io/kind/pkg/cluster"
	"sigs.k8s.io/kind/pkg/cluster/nodes"
)

const (
	// abortTick and abortBound pace the end of a Create whose context ended.
	abortTick  = 500 * time.Millisecond
	abortBound = 2 * time.Minute
)

// ContextName is the name of a cluster's context in a kubeconfig.
func ContextName(cluster string) string { return "kind-" + cluster }

// NodeName is the name of the container that is a cluster's one node.
func NodeName(cluster string) string { return cluster + "-control-plane" }

// ClusterLabel is the label of a container that names its cluster. kind has no
// option for further ones.
const ClusterLabel = "io.x-k8s.kind.cluster"

// clusters is what Provider asks of kind.
type clusters interface {
	Create(config *v1alpha4.Cluster, kubeconfig string) error
	Delete(name, kubeconfig string) error
	List() ([]string, error)
	ListNodes(name string) ([]nodes.Node, error)
}

// kubeconfigs is what Provider asks of kind about kubeconfigs.
type kubeconfigs interface {
	KubeConfig(name string, internal bool) (string, error)
	ExportKubeConfig(name, path string, internal bool) error
}

// Provider makes and removes clusters. It is safe for concurrent use. A process
// has one: kind reads the name of its network from the process's environment,
// and the Provider sees to it that only one name stands there at a time.
type Provider struct {
	// clusters opens a kind of its own for each call: kind's own provider
	// caches what it learns of Docker without a lock.
	clusters    func(*slog.Logger) clusters
	kubeconfigs kubeconfigs
	log         *slog.Logger
	network     networkGate
	userFile    sync.Mutex
}

// New returns a Provider that lets kind log to log.
func New(log *slog.Logger) *Provider {
	return &Provider{
		clusters: func(log *slog.Logger) clusters {
			return engine{cluster.NewProvider(cluster.ProviderWithDocker(), cluster.ProviderWithLogger(logger{log}))}
		},
		kubeconfigs: cluster.NewProvider(cluster.ProviderWithDocker(), cluster.ProviderWithLogger(logger{log})),
		log:         log,
	}
}

// engine gives kind's provider the shape of clusters.
type engine struct{ *cluster.Provider }

func (e engine) Create(config *v1alpha4.Cluster, kubeconfig string) error {
	return e.Provider.Create(config.Name, cluster.CreateWithV1Alpha4Config(config), cluster.CreateWithKubeconfigPath(kubeconfig))
}

// Create makes the cluster and returns when its API server answers and kind has
// set it up. The node and what runs on it may not be ready yet. The user's
// kubeconfig is not touched.
//
// The image must be present: kind would pull it, which cannot be cancelled.
// Clusters on one network may be made at the same time; one on another network
// waits until those are done. What a failed Create made is removed again.
//
// kind knows no context. When ctx ends, Create removes the containers under
// kind's hands, and returns when that has ended it: after a second or two, or
// after ten when Docker is in the middle of making a node.
func (p *Provider) Create(ctx context.Context, spec Spec) error {
	if err := p.create(ctx, spec); err != nil {
		return fmt.Errorf("create cluster %s: %w", spec.Name, err)
	}
	return nil
}

func (p *Provider) create(ctx context.Context, spec Spec) error {
	config, err := spec.config()
	if err != nil {
		return err
	}
	kind := p.clusters(p.log.With("cluster", spec.Name))
	existing, err := kind.ListNodes(spec.Name)
	if err != nil {
		return described(err)
	}
	if len(existing) > 0 {
		return fmt.Errorf("node %s exists already", existing[0])
	}
	if err := sweep(spec.Name); err != nil {
		return err
	}
	release, err := p.network.hold(ctx, spec.Network)
	if err != nil {
		return err
	}

	return inPrivate(spec.Name, func(kubeconfig string) error {
		var err error
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer release()
			err = kind.Create(config, kubeconfig)
		}()
		select {
		case <-done:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), abort(kind, spec.Name, done))
		}
		if err != nil {
			return errors.Join(described(err), remove(kind, spec.Name))
		}
		return nil
	})
}

// abort removes a cluster until kind has stopped making it.
func abort(kind clusters, name string, done <-chan struct{}) error {
	bound := time.NewTimer(abortBound)
	defer bound.Stop()
	tick := time.NewTicker(abortTick)
	defer tick.Stop()
	for {
		// That kind fails now is what was wanted; what stands of the cluster
		// when it is done counts.
		err := remove(kind, name)
		select {
		case <-done:
			return remove(kind, name)
		case <-bound.C:
			return errors.Join(fmt.Errorf("kind still works on cluster %s after %s", name, abortBound), err)
		case <-tick.C:
		}
	}
}

// Delete removes a cluster's containers and their volumes. A cluster that does
// not exist is not an error. The user's kubeconfig is not touched; see
// [Provider.RemoveKubeconfig].
func (p *Provider) Delete(name string) error {
	return remove(p.clusters(p.log), name)
}

func remove(kind clusters, name string) error {
	err := inPrivate(name, func(kubeconfig string) error { return kind.Delete(name, kubeconfig) })
	if err := errors.Join(err, sweep(name)); err != nil {
		return fmt.Errorf("delete cluster %s: %w", name, described(err))
	}
	return nil
}

// private is how the names of the folders start that hold a cluster's kubeconfig
// for a moment. No cluster's name has the last character.
func private(cluster string) string { return "fedlab-kubeconfig-" + cluster + "@" }

// inPrivate calls do with the path of a kubeconfig that nobody else sees and
// that is gone afterwards. kind insists on writing one.
func inPrivate(cluster string, do func(kubeconfig string) error) (err error) {
	dir, err := os.MkdirTemp("", private(cluster))
	if err != nil {
		return fmt.Errorf("make folder for kubeconfig: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return do(filepath.Join(dir, "config"))
}

// sweep removes the kubeconfigs that killed processes left of a cluster. They
// hold keys to it.
func sweep(cluster string) error {
	left, err := filepath.Glob(filepath.Join(os.TempDir(), private(cluster)+"*"))
	for _, dir := range left {
		// What another person left is theirs.
		if removed := os.RemoveAll(dir); !errors.Is(removed, fs.ErrPermission) {
			err = errors.Join(err, removed)
		}
	}
	return err
}
