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
	"os"
	"path/filepath"
	"slices"
	"strings"
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

type clusters interface {
	Create(config *v1alpha4.Cluster, kubeconfig string) error
	Delete(name, kubeconfig string) error
	ListNodes(name string) ([]nodes.Node, error)
	KubeConfig(name string, internal bool) (string, error)
}

// Provider makes and removes clusters. It is safe for concurrent use. A process
// has one: kind reads the name of its network from the process's environment,
// and the Provider sees to it that only one name stands there at a time.
type Provider struct {
	// clusters opens a kind of its own for each call: kind's own provider
	// caches what it learns of Docker without a lock.
	clusters func() clusters
	// proc is where the kernel shows processes.
	proc    string
	network networkGate
}

// New returns a Provider. What kind would log is discarded: its errors say enough.
func New() *Provider {
	return &Provider{
		clusters: func() clusters { return engine{cluster.NewProvider(cluster.ProviderWithDocker())} },
		proc:     "/proc",
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
	kind := p.clusters()
	existing, err := kind.ListNodes(spec.Name)
	if err != nil {
		return described(err)
	}
	if len(existing) > 0 {
		return fmt.Errorf("node %s exists already", existing[0])
	}
	if err := p.Sweep(); err != nil {
		return err
	}
	release, err := p.network.hold(ctx, spec.Network)
	if err != nil {
		return err
	}

	return inPrivate(func(kubeconfig string) error {
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
	for works := true; ; {
		// That kind fails now is what was wanted; what stands of the cluster
		// when it is done counts. kind removes it as well, and Docker refuses the
		// second of two removals.
		err := remove(kind, name)
		if !works && err == nil {
			return nil
		}
		select {
		case <-done:
			works, done = false, nil
		case <-bound.C:
			if works {
				err = errors.Join(fmt.Errorf("kind still works on cluster %s after %s", name, abortBound), err)
			}
			return err
		case <-tick.C:
		}
	}
}

// remove takes away the containers of a cluster, with their volumes.
func remove(kind clusters, name string) error {
	err := inPrivate(func(kubeconfig string) error { return kind.Delete(name, kubeconfig) })
	if err != nil {
		return fmt.Errorf("delete cluster %s: %w", name, described(err))
	}
	return nil
}

// Asking names the nodes on a network that a docker command is asking the engine
// for just now. kind starts such a command, which goes on when its parent is
// killed. Processes are seen where there is a /proc; elsewhere there are none.
func (p *Provider) Asking(network string) ([]string, error) {
	all, err := filepath.Glob(filepath.Join(p.proc, "[0-9]*", "cmdline"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, path := range all {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		words := strings.Split(string(line), "\x00")
		if filepath.Base(words[0]) != "docker" || !slices.Contains(words, "run") || after(words, "--net") != network {
			continue
		}
		if name := after(words, "--name"); name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

func after(words []string, flag string) string {
	i := slices.Index(words, flag)
	if i < 0 || i+1 == len(words) {
		return ""
	}
	return words[i+1]
}
