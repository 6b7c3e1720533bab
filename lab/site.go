package lab

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Site is a SPIRE server that this process is connected to, with what can be done
// in the cluster that it runs in; nothing of that for a server on a host.
type Site struct {
	*topology.Server
	access.Cluster
	// Pod is the replica of the server that API leads to.
	Pod string
	// API is the server's own.
	API *spire.Server
}

// Close ends the connection; the server runs on.
func (s *Site) Close() error { return s.API.Close() }

// Presented returns the chain that a port of the replica's pod shows, and verifies
// nothing of it. It asks inside of the cluster, where no fault of the network is.
func (s *Site) Presented(ctx context.Context, port int) ([]*x509.Certificate, error) {
	if s.Place.Host != nil {
		return nil, fmt.Errorf("look at port %d of the server of %s: it is on a host, and has no pod", port, s.Domain)
	}
	conn, err := s.Pods.Dial(ctx, s.Place.Namespace, s.Pod, port)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // nothing was sent
	return pki.Presented(ctx, conn)
}

// RestartAgents deletes the pods of the agents of a member, whose cluster in leads to.
// Those that come in their place attest again, and ask for all SVIDs again.
func RestartAgents(ctx context.Context, in access.Objects, m *topology.Member) error {
	pod := access.ObjectKey{APIVersion: "v1", Kind: "Pod", Namespace: m.Place.Namespace}
	names, err := in.Named(ctx, pod, map[string]string{spire.ProgramLabel: spire.AgentDaemonSet})
	for _, name := range names {
		if err == nil {
			pod.Name = name
			err = in.Delete(ctx, pod)
		}
	}
	return err
}

// connect opens the admin API of a server, that of its first replica that answers.
func connect(ctx context.Context, s *topology.Server, in access.Cluster) (*Site, error) {
	var errs []error
	for _, pod := range spire.ServerPods(s) {
		site, err := connectTo(ctx, s, pod, in)
		if err == nil {
			return site, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// connectTo opens the admin API of a replica of a server through its cluster's own API:
// nothing of it listens outside of the cluster.
func connectTo(ctx context.Context, s *topology.Server, pod string, in access.Cluster) (*Site, error) {
	exec := func(ctx context.Context, argv ...string) ([]byte, error) {
		return in.Pods.Exec(ctx, s.Place.Namespace, pod, spire.ServerContainer, append([]string{spire.ServerProgram}, argv...)...)
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		return in.Pods.Dial(ctx, s.Place.Namespace, pod, spire.APIPort)
	}
	api, err := spire.Connect(ctx, exec, dial, s.Domain.Name)
	if err != nil {
		return nil, err
	}
	return &Site{Server: s, Cluster: in, Pod: pod, API: api}, nil
}

// Replicas connects to each replica of a server, as Site does to one of them. One on a
// host is the only one. The caller closes the sites.
func (d *Driver) Replicas(ctx context.Context, s *topology.Server) (sites []*Site, err error) {
	if s.Place.Host != nil {
		site, err := d.Site(ctx, s)
		if err != nil {
			return nil, err
		}
		return []*Site{site}, nil
	}
	in, err := d.reach(ctx, s.Place.Cluster)
	if err != nil {
		return nil, err
	}
	for _, pod := range spire.ServerPods(s) {
		site, err := connectTo(ctx, s, pod, in)
		if err != nil {
			for _, site := range sites {
				err = errors.Join(err, site.Close())
			}
			return nil, fmt.Errorf("connect to %s: %w", pod, err)
		}
		sites = append(sites, site)
	}
	return sites, nil
}

// connectOnHost opens the admin API of a server on a host, by the port that is published on
// this machine's loopback.
func (d *Driver) connectOnHost(ctx context.Context, s *topology.Server) (*Site, error) {
	on := d.on(s.Place.Host)
	exec := func(ctx context.Context, argv ...string) ([]byte, error) {
		return on.Exec(ctx, HostServer, append([]string{spire.ServerProgram}, argv...)...)
	}
	dial := func(ctx context.Context) (net.Conn, error) { return on.Dial(ctx, HostServer, spire.APIPort) }
	api, err := spire.Connect(ctx, exec, dial, s.Domain.Name)
	if err != nil {
		return nil, err
	}
	return &Site{Server: s, API: api}, nil
}

// Site connects to a server whose cluster or host runs, whatever the others do; else the
// error is a *NotUpError. The caller closes the site.
func (d *Driver) Site(ctx context.Context, s *topology.Server) (*Site, error) {
	if h := s.Place.Host; h != nil {
		if err := d.hostRuns(ctx, h, HostServer); err != nil {
			return nil, err
		}
		return d.connectOnHost(ctx, s)
	}
	in, err := d.reach(ctx, s.Place.Cluster)
	if err != nil {
		return nil, err
	}
	return connect(ctx, s, in)
}

// reach connects to a cluster that runs, whatever the others do; else the error is
// a *NotUpError.
func (d *Driver) reach(ctx context.Context, c *topology.Cluster) (access.Cluster, error) {
	if err := d.Runs(ctx, c); err != nil {
		return access.Cluster{}, err
	}
	return d.access(c.Lab, c.Name)
}

// Runs returns a *NotUpError when the node of a cluster is not there, or stopped.
func (d *Driver) Runs(ctx context.Context, c *topology.Cluster) error {
	nodes, err := d.Parts.Nodes.List(ctx, c.Lab)
	if err != nil {
		return err
	}
	n, there := nodeOf(c, nodes)
	return runs(c, n, there)
}

// runs returns a *NotUpError for a node that is not there, or stopped.
func runs(c *topology.Cluster, n Node, there bool) error {
	switch {
	case !there:
		return &NotUpError{Lab: c.Lab, What: "it has no cluster " + c.Name}
	case !n.Running:
		return &NotUpError{Lab: c.Lab, What: "cluster " + c.Name + " is stopped"}
	}
	return nil
}

// hostRuns returns a *NotUpError when a program of a host is not there, or stopped.
func (d *Driver) hostRuns(ctx context.Context, h *topology.Host, program string) error {
	found, err := d.Parts.Hosts.List(ctx, h.Lab)
	if err != nil {
		return err
	}
	return runsOnHost(h, program, found)
}

// runsOnHost returns a *NotUpError for a program of a host that is not there, or stopped.
func runsOnHost(h *topology.Host, program string, found []FoundHost) error {
	if err := foundOnHost(h, program, found); err != nil {
		return &NotUpError{Lab: h.Lab, What: err.Error()}
	}
	return nil
}

// foundOnHost says the same without the lab.
func foundOnHost(h *topology.Host, program string, found []FoundHost) error {
	i := slices.IndexFunc(found, func(f FoundHost) bool { return f.Name == h.Name })
	if i < 0 {
		return fmt.Errorf("host %s is not there", h.Name)
	}
	switch running, there := found[i].Programs[program]; {
	case !there:
		return fmt.Errorf("host %s has no program %s", h.Name, program)
	case !running:
		return fmt.Errorf("%s on host %s is stopped", program, h.Name)
	}
	return nil
}

// access connects to a cluster that runs. It takes names, because what a running lab
// says about itself has to be read before there is a graph of it.
func (d *Driver) access(lab, cluster string) (access.Cluster, error) {
	kubeconfig, err := d.Parts.Kubeconfigs.Kubeconfig(lab, cluster)
	if err != nil {
		return access.Cluster{}, err
	}
	in, err := d.Parts.Connect(kubeconfig)
	if err != nil {
		return access.Cluster{}, fmt.Errorf("connect to cluster %s: %w", cluster, err)
	}
	return in, nil
}

// each does something for each index below n, side by side, and returns when all is
// done. What fails is for each to keep.
func each(n int, do func(i int)) {
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { do(i) })
	}
	group.Wait()
}
