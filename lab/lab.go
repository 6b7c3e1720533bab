// Package lab brings labs up, tells how they are, and takes them down.
//
// It has no state of its own: what a lab is stands in its containers and
// clusters, so that any process can open, inspect and remove it, and an up that
// was killed is simply run again. It refuses to know which programs do the
// work: those come as Parts.
package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Driver brings labs up and down.
type Driver struct {
	Parts Parts
	// Observe is told about each step; it may be nil.
	Observe func(plan.Event)
}

// Lab is a running lab: the topology that it was meant to be, and access to
// each cluster that answers.
type Lab struct {
	Topology  topology.Topology
	Addresses topology.Addresses
	parts     Parts
	clusters  map[string]Access
	servers   map[spiffeid.TrustDomain]*spire.Server
}

// NotUpError says that a lab, or a part of it, does not run.
type NotUpError struct {
	Lab  string
	What string
}

func (e *NotUpError) Error() string { return fmt.Sprintf("lab %s is not up: %s", e.Lab, e.What) }

// Open returns a handle on a lab that runs. It is a *NotUpError when the lab
// has no network or a cluster does not run. The caller closes the handle.
func (d *Driver) Open(ctx context.Context, t topology.Topology) (*Lab, error) {
	network, found, err := d.Parts.Networks.Find(ctx, t.Name)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, &NotUpError{Lab: t.Name, What: "it has no network"}
	}
	nodes, err := d.Parts.Nodes.List(ctx, t.Name)
	if err != nil {
		return nil, err
	}
	before, err := d.recall(ctx, t.Name, nodes)
	if err != nil {
		return nil, err
	}
	t = t.Placed(before)
	addresses, err := t.Addresses(network)
	if err != nil {
		return nil, err
	}
	l := &Lab{Topology: t, Addresses: addresses, parts: d.Parts, clusters: map[string]Access{}, servers: map[spiffeid.TrustDomain]*spire.Server{}}
	for _, c := range t.Clusters {
		i := slices.IndexFunc(nodes, func(n Node) bool { return n.Cluster == c.Name })
		if i < 0 {
			return nil, &NotUpError{Lab: t.Name, What: "it has no cluster " + c.Name}
		}
		if !nodes[i].Running {
			return nil, &NotUpError{Lab: t.Name, What: "cluster " + c.Name + " is stopped"}
		}
		access, err := d.access(t.Name, c.Name)
		if err != nil {
			return nil, err
		}
		l.clusters[c.Name] = access
	}
	return l, nil
}

// access connects to a cluster that runs.
func (d *Driver) access(lab, cluster string) (Access, error) {
	kubeconfig, err := d.Parts.Kubeconfigs.Kubeconfig(lab, cluster)
	if err != nil {
		return Access{}, err
	}
	access, err := d.Parts.Connect(kubeconfig)
	if err != nil {
		return Access{}, fmt.Errorf("connect to cluster %s: %w", cluster, err)
	}
	return access, nil
}

// Close ends the connections of the handle; the lab runs on.
func (l *Lab) Close() error {
	var errs []error
	for _, s := range l.servers {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// Cluster returns access to a cluster of the lab.
func (l *Lab) Cluster(name string) (Access, error) {
	access, ok := l.clusters[name]
	if !ok {
		return Access{}, fmt.Errorf("lab %s has no cluster %q", l.Topology.Name, name)
	}
	return access, nil
}

// Server returns a connection to the SPIRE server of a trust domain; Close of
// the lab's handle ends it. It is not for concurrent use.
func (l *Lab) Server(ctx context.Context, name spiffeid.TrustDomain) (*spire.Server, error) {
	if s, ok := l.servers[name]; ok {
		return s, nil
	}
	td, err := l.Topology.TrustDomain(name)
	if err != nil {
		return nil, err
	}
	access, err := l.Cluster(td.Cluster)
	if err != nil {
		return nil, err
	}
	s, err := connectServer(ctx, access, name)
	if err != nil {
		return nil, err
	}
	l.servers[name] = s
	return s, nil
}

// connectServer opens the admin API of a trust domain's server through the
// cluster's own API: nothing of it listens outside of the cluster.
func connectServer(ctx context.Context, access Access, td spiffeid.TrustDomain) (*spire.Server, error) {
	exec := func(ctx context.Context, argv ...string) ([]byte, error) {
		return access.Pods.Exec(ctx, spire.Namespace, spire.ServerPod, spire.ServerContainer, append([]string{spire.ServerProgram}, argv...)...)
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		return access.Pods.Dial(ctx, spire.Namespace, spire.ServerPod, spire.APIPort)
	}
	return spire.Connect(ctx, exec, dial, td)
}

func note(ctx context.Context, waiting string) func(error) {
	last := ""
	return func(seen error) {
		// The same sight again is no news.
		if text := seen.Error(); text != last {
			last = text
			plan.Note(ctx, "waits until "+waiting+": "+firstLine(text))
		}
	}
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
