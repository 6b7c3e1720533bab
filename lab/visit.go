package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"

	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// visit is one look at a lab.
type visit struct {
	*Driver
	topology topology.Topology
	// network and addresses are those of a lab that is networked.
	networked bool
	network   netip.Prefix
	addresses topology.Addresses
	nodes     []Node
	// clusters are those of the topology.
	clusters []ClusterStatus
	access   map[string]Access
	// unconnected says of a cluster that answers why this machine gets no
	// connection to its addresses, as a *CutOffError.
	unconnected map[string]error
	// marks is what clusters tell that the lab is meant to be.
	marks   map[string]topology.Topology
	servers map[spiffeid.TrustDomain]asked
	// workloads are those of the topology in clusters that answer, by name, once
	// somebody has looked at their pods.
	workloads map[string]identified
}

// asked is what one SPIRE server said.
type asked struct {
	server        *spire.Server
	bundle        *spiffebundle.Bundle
	relationships []spire.Relationship
	registry
	// federated is what its cluster has of resources for relationships; unread says
	// why they cannot be read.
	federated federated
	unread    error
	// silent is set when something of this could not be asked, and nothing can
	// be said about what depends on it.
	silent error
	// agentsProblem says why not all agents run.
	agentsProblem error
}

// look looks at what of a lab is there and asks its servers. The caller closes
// the visit.
func (d *Driver) look(ctx context.Context, t topology.Topology) (_ *visit, err error) {
	v := &visit{Driver: d, access: map[string]Access{}, unconnected: map[string]error{}, marks: map[string]topology.Topology{}, servers: map[spiffeid.TrustDomain]asked{}, workloads: map[string]identified{}}
	if v.network, v.networked, err = d.Parts.Networks.Find(ctx, t.Name); err != nil {
		return nil, err
	}
	if v.nodes, err = d.Parts.Nodes.List(ctx, t.Name); err != nil {
		return nil, err
	}
	v.topology = t
	for _, c := range t.Clusters {
		v.clusters = append(v.clusters, v.cluster(ctx, c))
	}
	v.topology = t.Placed(gather(t.Name, v.nodes, v.marks))
	if v.networked {
		if v.addresses, err = v.topology.Addresses(v.network); err != nil {
			return nil, err
		}
	}
	v.askServers(ctx)
	return v, nil
}

func (v *visit) close() {
	for _, a := range v.servers {
		if a.server != nil {
			// Nothing was sent that could still be lost.
			_ = a.server.Close()
		}
	}
}

func (v *visit) cluster(ctx context.Context, c topology.Cluster) ClusterStatus {
	s := ClusterStatus{Name: c.Name, State: "absent", Context: v.Parts.Kubeconfigs.Context(v.topology.Name, c.Name)}
	n, there := node(v.nodes, c.Name)
	if !there {
		s.Problem = "it is not there"
		return s
	}
	if s.State = state(n); !n.Running {
		s.Problem = "its node is stopped"
		if !v.networked {
			s.Problem = "its node is stopped, and the lab's network is gone: 'fedlab up' makes the network again and starts the node"
		}
		return s
	}
	access, err := v.Driver.access(v.topology.Name, c.Name)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, statusBound)
		defer cancel()
		v.marks[c.Name], err = whole(ctx, access.Objects)
	}
	if err == nil {
		v.access[c.Name] = access
		err = fits(v.topology, n)
		if failed := v.Parts.Connected(ctx, v.topology.Name, c.Name); failed != nil {
			v.unconnected[c.Name] = &CutOffError{Cluster: c.Name, Err: failed}
			err = errors.Join(err, v.unconnected[c.Name])
		}
	}
	s.Health = health(err)
	return s
}

// place says where the addresses of a cluster are.
func (v *visit) place(s *ClusterStatus, c topology.Cluster) {
	s.Pods, s.Services = c.PodSubnet.String(), c.ServiceSubnet.String()
	if !v.networked {
		return
	}
	if first, last, err := v.addresses.Pool(c.Name); err == nil {
		s.Pool = first.String() + "-" + last.String()
	}
}

// whole returns what a cluster that was made to the end, and whose node is ready,
// was meant to be.
func whole(ctx context.Context, objects Objects) (topology.Topology, error) {
	if err := objects.NodeReady(ctx); err != nil {
		return topology.Topology{}, err
	}
	return readMark(ctx, objects)
}

func state(n Node) string {
	if n.Running {
		return "running"
	}
	return "stopped"
}

// askServers asks all servers side by side.
func (v *visit) askServers(ctx context.Context) {
	answers := make([]asked, len(v.topology.TrustDomains))
	var group errgroup.Group
	for i, td := range v.topology.TrustDomains {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, statusBound)
			defer cancel()
			answers[i] = v.askServer(ctx, td)
			return nil
		})
	}
	// Each answer has its own error.
	_ = group.Wait()
	for i, td := range v.topology.TrustDomains {
		v.servers[td.Name] = answers[i]
	}
}

// lookAtPods looks side by side at the pods of all workloads.
func (v *visit) lookAtPods(ctx context.Context) error {
	all := make([]identified, len(v.topology.Workloads))
	var group errgroup.Group
	for i, w := range v.topology.Workloads {
		group.Go(func() (err error) {
			if access, answers := v.access[w.Cluster]; answers {
				ctx, cancel := context.WithTimeout(ctx, statusBound)
				defer cancel()
				all[i], err = identify(ctx, v.topology, access.Objects, w)
			}
			return err
		})
	}
	err := group.Wait()
	for i, w := range v.topology.Workloads {
		v.workloads[w.Name] = all[i]
	}
	return err
}

func (v *visit) askServer(ctx context.Context, td topology.TrustDomain) (a asked) {
	access, ok := v.access[td.Cluster]
	if !ok {
		return asked{silent: fmt.Errorf("cluster %s does not answer", td.Cluster)}
	}
	// Without its datastore a server runs, and answers nothing: the datastore is
	// what a person has to look at.
	if td.Datastore == topology.Postgres {
		if err := access.Pods.Ready(ctx, datastoreKey); err != nil {
			return asked{silent: fmt.Errorf("its datastore: %w", err)}
		}
	}
	if a.silent = access.Pods.Ready(ctx, serverKey); a.silent != nil {
		return a
	}
	a.agentsProblem = access.Pods.Ready(ctx, agentKey)
	if a.server, a.silent = connectServer(ctx, access, td.Name); a.silent != nil {
		return a
	}
	var errs [3]error
	a.bundle, errs[0] = a.server.Bundle(ctx)
	a.relationships, errs[1] = a.server.Relationships(ctx)
	a.registry, errs[2] = readRegistry(ctx, td.Name, a.server, access.Objects)
	a.silent = errors.Join(errs[:]...)
	return a
}

func (v *visit) trustDomain(ctx context.Context, td topology.TrustDomain) TrustDomainStatus {
	s := TrustDomainStatus{Name: td.Name.Name(), Cluster: td.Cluster}
	if v.networked {
		if address, err := v.addresses.Server(td); err == nil {
			s.BundleEndpoint = spire.BundleEndpointURL(td.BundleEndpoint, address)
		}
		if td.BundleEndpoint.Profile == topology.HTTPSSPIFFE {
			s.EndpointID = spire.ServerID(td.Name).String()
		}
	}
	a := v.servers[td.Name]
	err := a.silent
	if err == nil {
		err = errors.Join(v.published(ctx, td.Cluster, a), a.agentsProblem, a.unread)
	}
	if err == nil {
		err = v.webhook(ctx, td.Cluster, a.bundle)
	}
	s.Health = health(err)
	s.Cause = causeOf(err)
	for _, agent := range a.agents {
		if !agent.Banned && agent.ExpiresAt.After(time.Now()) {
			s.Agents++
		}
	}
	s.Entries = len(a.entries)
	if a.bundle != nil {
		s.X509Authorities, s.JWTAuthorities = len(a.bundle.X509Authorities()), len(a.bundle.JWTAuthorities())
		for _, authority := range a.bundle.X509Authorities() {
			if s.ExpiresAt.IsZero() || authority.NotAfter.Before(s.ExpiresAt) {
				s.ExpiresAt = authority.NotAfter
			}
		}
	}
	if s.Well && s.Agents == 0 {
		s.Health = health(errors.New("no agent has attested"))
	}
	return s
}

// webhook says why Kubernetes cannot call a controller manager.
func (v *visit) webhook(ctx context.Context, cluster string, bundle *spiffebundle.Bundle) error {
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	if err := checkWebhook(ctx, v.access[cluster], bundle); err != nil {
		return fmt.Errorf("the webhook of its controller manager: %w", err)
	}
	return nil
}

func (v *visit) workload(ctx context.Context, w topology.Workload) (WorkloadStatus, error) {
	s := WorkloadStatus{Name: w.Name, Cluster: w.Cluster}
	id, err := v.topology.SPIFFEID(w)
	if err != nil {
		return s, err
	}
	is := v.workloads[w.Name]
	td, err := v.topology.TrustDomainOf(w.Cluster)
	if err != nil {
		return s, err
	}
	s.SPIFFEID = id.String()
	if w.URL() != "" {
		s.URL = w.URL()
	} else if v.networked {
		address, err := v.addresses.Workload(w)
		if err != nil {
			return s, err
		}
		s.Address = fmt.Sprintf("%s:%d", address, w.App.Port)
	}
	access, ok := v.access[w.Cluster]
	if !ok {
		s.Health = health(fmt.Errorf("cluster %s does not answer", w.Cluster))
		return s, nil
	}
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	err = access.Pods.Ready(ctx, deployment(w))
	server := v.servers[td.Name]
	switch {
	case err != nil:
	case server.silent != nil:
		err = fmt.Errorf("the server of %s does not answer", td.Name.Name())
	case is.unseen != nil:
		err = is.unseen
	default:
		err = server.registered(is)
	}
	if err == nil && s.URL != "" {
		err = v.Parts.Page(ctx, s.URL)
	}
	if err == nil && w.App.Page == "" && v.unconnected[w.Cluster] != nil {
		err = because(CutOff, "nobody can say what it presents: %w", v.unconnected[w.Cluster])
	}
	if err == nil && v.networked {
		err = server.because(is, v.checkSVID(ctx, access, v.addresses, w, id, server.bundle))
	}
	s.Health = health(err)
	s.Cause = causeOf(err)
	return s, nil
}

// remarks lists the resources of a trust domain's cluster that a person has to know
// of.
func (v *visit) remarks(td topology.TrustDomain) []ResourceStatus {
	var workloads []identified
	for _, w := range v.topology.Workloads {
		if w.Cluster == td.Cluster {
			workloads = append(workloads, v.workloads[w.Name])
		}
	}
	return v.servers[td.Name].remarks(td.Cluster, workloads)
}
