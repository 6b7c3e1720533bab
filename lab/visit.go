package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// visit is one look at a lab, as it is there.
type visit struct {
	*Driver
	*topology.Graph
	// surplus are the nodes of clusters that the graph does not have.
	surplus  []Node
	clusters map[*topology.Cluster]*seen
	// hosts are those of which something is there.
	hosts   []FoundHost
	servers map[*topology.Server]*asked
	// workloads are those in clusters that answer, once somebody has looked at their
	// pods.
	workloads map[*topology.Workload]*identified
}

// seen is what a look has found of a cluster.
type seen struct {
	memory
	there bool
	// pods are all of its pods, and unseen says why they cannot be listed, once somebody
	// has looked at them.
	pods   []spire.Pod
	unseen error
}

// answers reports whether there is somebody in a cluster to ask.
func (s *seen) answers() bool { return s.tells }

// asked is what one SPIRE server said.
type asked struct {
	// site is nil where there is no connection.
	site          *Site
	bundle        *spiffebundle.Bundle
	relationships []spire.Relationship
	told
	// federated is what its cluster has of resources for relationships; unread says
	// why they cannot be read.
	federated federated
	unread    error
	// silent is set when something of this could not be asked, and nothing can
	// be said about what depends on it.
	silent error
	// unready says why the pod of a server that answers is not ready.
	unready error
	// members are all of its members.
	members map[*topology.Member]*attending
}

// attending is what a look has found of a member.
type attending struct {
	registry
	// agentsProblem says why not all agents run.
	agentsProblem error
	// idle are resources for relationships, of which nothing comes in its cluster.
	idle []ResourceStatus
	// unread says why the resources of its cluster cannot be read.
	unread error
}

// visit looks at what of a lab is there and asks its servers. The caller closes
// the visit.
func (d *Driver) visit(ctx context.Context, t topology.Topology) (*visit, error) {
	asked, err := topology.Resolve(t, netip.Prefix{})
	if err != nil {
		return nil, err
	}
	network, _, err := d.Parts.Networks.Find(ctx, t.Name)
	if err != nil {
		return nil, err
	}
	nodes, err := d.Parts.Nodes.List(ctx, t.Name)
	if err != nil {
		return nil, err
	}
	v := &visit{Driver: d, clusters: map[*topology.Cluster]*seen{}}
	if v.hosts, err = d.Parts.Hosts.List(ctx, t.Name); err != nil {
		return nil, err
	}
	looks := make([]*seen, len(asked.Clusters))
	each(len(looks), func(i int) { looks[i] = d.firstLook(ctx, asked.Clusters[i], nodes) })
	var told []memory
	for _, s := range looks {
		if s.there {
			told = append(told, s.memory)
		}
	}
	for _, n := range nodes {
		if clusterOf(n, asked.Clusters) == nil {
			v.surplus, told = append(v.surplus, n), append(told, memory{node: n})
		}
	}
	if v.Graph, err = topology.Resolve(t.Placed(gather(t.Name, told)), network); err != nil {
		return nil, err
	}
	for i, c := range v.Clusters {
		v.clusters[c] = looks[i] // both are in the order of the lab file
	}
	v.askServers(ctx)
	return v, nil
}

func (v *visit) close() {
	for _, a := range v.servers {
		if a.site != nil {
			// Nothing was sent that could still be lost.
			_ = a.site.Close()
		}
	}
}

// networked reports whether the lab has its network.
func (v *visit) networked() bool { return v.Network.IsValid() }

// firstLook connects to a cluster that runs and asks it what it was meant to be, once
// its node is ready.
func (d *Driver) firstLook(ctx context.Context, c *topology.Cluster, nodes []Node) *seen {
	n, there := nodeOf(c, nodes)
	s := &seen{memory: memory{node: n}, there: there}
	if !there || !n.Running {
		return s
	}
	bounded, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	if s.memory = d.connectNode(c.Lab, n); s.silent == nil {
		s.silent = s.in.Objects.NodeReady(bounded)
	}
	s.ask(bounded)
	return s
}

func (v *visit) cluster(c *topology.Cluster) ClusterStatus {
	s := ClusterStatus{
		Name: c.Name, State: "absent", Context: v.Parts.Kubeconfigs.Context(c.Lab, c.Name),
		Pods: c.PodSubnet.String(), Services: c.ServiceSubnet.String(), Pool: c.Pool.String(),
	}
	found := v.clusters[c]
	if !found.there {
		s.Health = health(because(ClusterAbsent, "it is not there"))
		return s
	}
	if s.State = state(found.node); !found.node.Running {
		s.Health = health(because(NodeStopped, "its node is stopped"))
		if !v.networked() {
			s.Health = health(because(NodeStopped, "its node is stopped, and the lab's network is gone: 'fedlab up' makes the network again and starts the node"))
		}
		return s
	}
	err := found.silent
	if err == nil {
		err = fits(c, found.node)
	}
	s.Health = health(err)
	return s
}

func state(n Node) string {
	if n.Running {
		return "running"
	}
	return "stopped"
}

// askServers asks all servers side by side.
func (v *visit) askServers(ctx context.Context) {
	servers := v.Servers()
	v.servers = map[*topology.Server]*asked{}
	for _, s := range servers {
		v.servers[s] = &asked{members: map[*topology.Member]*attending{}}
		for _, m := range s.Members {
			v.servers[s].members[m] = &attending{registry: registry{member: m}}
		}
	}
	each(len(servers), func(i int) {
		ctx, cancel := context.WithTimeout(ctx, statusBound)
		defer cancel()
		v.askServer(ctx, servers[i], v.servers[servers[i]])
	})
}

// server returns what the server of a trust domain said.
func (v *visit) server(d *topology.Domain) *asked { return v.servers[d.Server()] }

// bundleOf returns what verifies the SVIDs that a server has signed: peers hold what the
// root has. Where that does not answer, it is what the server has itself.
func (v *visit) bundleOf(s *topology.Server) *spiffebundle.Bundle {
	if root := v.server(s.Domain); root.silent == nil {
		return root.bundle
	}
	return v.servers[s].bundle
}

// member returns what was found of a member.
func (v *visit) member(m *topology.Member) *attending { return v.servers[m.Server].members[m] }

// lookAtPods looks side by side at the pods of all workloads.
func (v *visit) lookAtPods(ctx context.Context) {
	v.workloads = map[*topology.Workload]*identified{}
	for _, w := range v.Workloads {
		v.workloads[w] = &identified{Workload: w, trusted: w.FederatesWith}
	}
	each(len(v.Workloads), func(i int) {
		w := v.Workloads[i]
		if c := v.clusters[w.Cluster()]; w.Host() == nil && c.answers() {
			ctx, cancel := context.WithTimeout(ctx, statusBound)
			defer cancel()
			*v.workloads[w] = identify(ctx, c.in.Objects, w)
		}
	})
}

func (v *visit) askServer(ctx context.Context, s *topology.Server, a *asked) {
	if s.Place.Host != nil {
		v.askHostServer(ctx, s, a)
		return
	}
	c := v.clusters[s.Place.Cluster]
	if !c.answers() {
		a.silent = fmt.Errorf("cluster %s does not answer", s.Place.Cluster.Name)
		return
	}
	// Without its datastore a server runs, and answers nothing: the datastore is
	// what a person has to look at.
	if s.Domain.Datastore == topology.Postgres {
		if err := c.in.Pods.Ready(ctx, datastoreKey(s.Place)); err != nil {
			a.silent = because(DatastoreUnready, "its datastore: %w", err)
			return
		}
	}
	a.silent = c.in.Pods.Ready(ctx, ServerKey(s.Place))
	switch {
	case a.silent == nil:
	case s.Domain.Replicas > 1:
		// Another one may answer.
		a.unready, a.silent = named(ReplicaUnready, a.silent), nil
	default:
		// A controller manager that is not ready is in the same pod: its own, or that of a
		// cluster that does not answer. A nested server whose authority its upstream does not
		// replace goes on.
		a.unready, a.silent = named(ManagerUnready, a.silent), c.in.Pods.Started(ctx, ServerKey(s.Place), spire.ServerContainer)
	}
	if a.silent != nil {
		return
	}
	if a.site, a.silent = connect(ctx, s, c.in); a.silent != nil {
		return
	}
	a.silent = a.ask(ctx)
	for m, found := range a.members {
		found.told = a.told
		if m.Host() != nil {
			found.agentsProblem = v.agentReady(ctx, m.Host())
			continue
		}
		if c := v.clusters[m.Cluster()]; c.answers() {
			found.agentsProblem = named(AgentUnready, c.in.Pods.Ready(ctx, AgentKey(m.Place)))
			var errs [2]error
			found.resources, errs[0] = registrars(ctx, c.in.Objects, m)
			found.idle, errs[1] = idle(ctx, c.in.Objects, m)
			found.unread = errors.Join(errs[:]...)
		}
	}
	// What its own cluster does not tell, nobody does.
	a.silent = errors.Join(a.silent, a.members[s.Home()].unread)
}

// ask asks a server that there is a connection to.
func (a *asked) ask(ctx context.Context) error {
	var errs [3]error
	a.bundle, errs[0] = a.site.API.Bundle(ctx)
	a.relationships, errs[1] = a.site.API.Relationships(ctx)
	a.told, errs[2] = readTold(ctx, a.site.API)
	return errors.Join(errs[:]...)
}

func (v *visit) trustDomain(ctx context.Context, server *topology.Server) TrustDomainStatus {
	d := server.Domain
	s := TrustDomainStatus{Name: d.String(), Cluster: clusterName(server.Place), Host: hostName(server.Place)}
	a := v.servers[server]
	if server.Nested() {
		s.Upstream = server.Upstream.Place.Cluster.Name
	} else if v.networked() {
		s.BundleEndpoint = spire.BundleEndpointURL(server)
		if d.BundleEndpoint.Profile == topology.HTTPSSPIFFE {
			s.EndpointID = spire.ServerID(d.Name).String()
		}
	}
	err := a.silent
	switch {
	case err != nil:
	case server.Place.Host != nil:
		err = a.members[server.Home()].agentsProblem
	default:
		home := v.clusters[server.Place.Cluster].in.Objects
		err = errors.Join(a.published(ctx, home, server.Home()), a.members[server.Home()].agentsProblem, a.unread, a.unready)
		if err == nil {
			err = a.webhook(ctx, v.bundleOf(server))
		}
	}
	if a.silent == nil {
		err = errors.Join(err, v.acmeProblem(ctx, server), v.proxyProblem(ctx, server))
	}
	if discovery := d.Discovery; discovery != nil && !server.Nested() && a.silent == nil {
		found, wrong := v.discovery(ctx, discovery, a)
		s.Discovery, err = &found, errors.Join(err, wrong)
	}
	if len(server.Members) > 1 {
		for _, m := range server.Members {
			found := v.attendance(ctx, m)
			s.Members = append(s.Members, found.MemberStatus)
			if a.silent == nil && found.err != nil {
				err = errors.Join(err, fmt.Errorf("in %s: %w", m.Place.Where(), found.err))
			}
		}
	}
	s.Health = health(err)
	s.Cause = causeOf(err)
	for _, agent := range a.agents {
		if live(agent) {
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
		s.Health, s.Cause = health(because(NotAttested, "no agent has attested")), NotAttested
	}
	return s
}

// attendance is the status of a member, with what is not well by itself: what the
// status of its server or of its cluster does not say.
type attendance struct {
	MemberStatus
	err error
}

// attendance looks at a member of a server that has several.
func (v *visit) attendance(ctx context.Context, m *topology.Member) attendance {
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	if m.Host() != nil {
		return v.hostAttendance(m)
	}
	a, found, c := v.servers[m.Server], v.member(m), v.clusters[m.Cluster()]
	s := attendance{MemberStatus: MemberStatus{Cluster: m.Cluster().Name, Downstream: m.Downstream != nil}}
	for _, agent := range a.agents {
		if live(agent) && spire.AttestedIn(agent.ID) == m.Cluster().Name {
			s.Agents++
		}
	}
	switch {
	case a.silent != nil:
		s.Health = health(fmt.Errorf("the server of %s does not answer", m.Server))
		return s
	case !c.answers():
		s.err = fmt.Errorf("cluster %s does not answer", m.Cluster().Name)
	case !m.Remote():
		s.Health = health(errors.Join(a.published(ctx, c.in.Objects, m), found.agentsProblem))
		return s
	default:
		s.err = errors.Join(v.admitted(ctx, a.site, c.in.Objects, m), a.published(ctx, c.in.Objects, m), found.agentsProblem, found.unread)
	}
	if s.err == nil {
		if s.err = attested(ctx, c.in.Objects, m, a.agents); s.err != nil {
			s.err = errors.Join(s.err, v.findsNode(ctx, a.site, m))
		}
	}
	if s.err == nil && m.Downstream != nil {
		s.err = delegated(m.Downstream, a.entries)
	}
	s.Health = health(s.err)
	return s
}

// webhook says why Kubernetes cannot call a controller manager. One is in the pod of each
// replica.
func (a *asked) webhook(ctx context.Context, bundle *spiffebundle.Bundle) error {
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	pods := spire.ServerPods(a.site.Server)
	for _, pod := range pods {
		replica := *a.site
		replica.Pod = pod
		err := checkWebhook(ctx, &replica, bundle)
		switch {
		case err != nil && len(pods) > 1:
			return because(cmp.Or(causeOf(err), WebhookUnreachable), "the webhook of its controller manager in %s: %w", pod, err)
		case err != nil:
			return because(cmp.Or(causeOf(err), WebhookUnreachable), "the webhook of its controller manager: %w", err)
		}
	}
	return nil
}

func (v *visit) workload(ctx context.Context, w *topology.Workload) WorkloadStatus {
	s := WorkloadStatus{Name: w.Name, Cluster: clusterName(w.Member.Place), Host: hostName(w.Member.Place), SPIFFEID: w.ID.String(), URL: w.URL()}
	if s.URL == "" && v.networked() && w.App.Port > 0 {
		s.Address = w.Port().String()
	}
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	var err error
	var in access.Cluster
	is := v.workloads[w]
	if h := w.Host(); h != nil {
		err = foundOnHost(h, HostRun(w), v.hosts)
	} else if c := v.clusters[w.Cluster()]; c.answers() {
		in = c.in
	} else {
		s.Health = health(because(Silent, "cluster %s does not answer", w.Cluster().Name))
		return s
	}
	if err == nil {
		err = v.ready(ctx, in, w)
	}
	server, registered := v.servers[w.Member.Server], v.member(w.Member)
	switch {
	case err != nil:
	case server.silent != nil:
		err = because(Silent, "the server of %s does not answer", w.Member.Server)
	case is.unseen != nil:
		err = is.unseen
	default:
		err = errors.Join(registered.unread, registered.registered(*is))
	}
	if err == nil && s.URL != "" {
		err = v.Parts.Page(ctx, s.URL)
	}
	if err == nil && v.networked() && w.Shows() {
		from := seenFrom(v.Graph, w, func(c *topology.Cluster) bool { return v.clusters[c].answers() })
		err = registered.because(*is, v.checkSVID(ctx, in, from, w, v.bundleOf(w.Member.Server)))
	}
	if err == nil && w.Own != nil && w.Own.Check != nil {
		err = v.checked(ctx, w)
	}
	s.Health = health(err)
	s.Cause = causeOf(err)
	return s
}

// checked is checked, on what a visit is connected to.
func (v *visit) checked(ctx context.Context, w *topology.Workload) error {
	if by := w.Checker; by != nil && !v.clusters[by.Cluster()].answers() {
		return fmt.Errorf("nobody can check it: cluster %s, where %s runs, does not answer", by.Cluster().Name, by.Name)
	}
	return checked(ctx, func(c *topology.Cluster) access.Cluster { return v.clusters[c].in }, w)
}

// remarks lists the resources of a server's clusters that a person has to know of.
func (v *visit) remarks(s *topology.Server) (all []ResourceStatus) {
	for _, m := range s.InClusters() {
		var workloads []identified
		for _, w := range m.Workloads {
			workloads = append(workloads, *v.workloads[w])
		}
		all = append(all, v.member(m).remarks(m.Cluster().Name, workloads)...)
		all = append(all, v.member(m).idle...)
		if !m.Remote() {
			all = append(all, v.servers[s].federated.remarks(m.Cluster().Name)...)
		}
	}
	return all
}
