package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Status is a lab as it is. Each part says whether it is well, and if not, what
// is seen instead.
type Status struct {
	Lab           string               `json:"lab"`
	Well          bool                 `json:"well"`
	Network       string               `json:"network"`
	Clusters      []ClusterStatus      `json:"clusters"`
	TrustDomains  []TrustDomainStatus  `json:"trustDomains"`
	Relationships []RelationshipStatus `json:"relationships"`
	Workloads     []WorkloadStatus     `json:"workloads"`
}

// Health is whether something is well. Problem says what is wrong; it is empty
// exactly when Well is true.
type Health struct {
	Well    bool   `json:"well"`
	Problem string `json:"problem,omitempty"`
}

func health(err error) Health {
	if err != nil {
		return Health{Problem: err.Error()}
	}
	return Health{Well: true}
}

// ClusterStatus is one cluster.
type ClusterStatus struct {
	Health
	Name string `json:"name"`
	// State is absent, stopped or running.
	State string `json:"state"`
	// Context is its name in the kubeconfig file.
	Context string `json:"context"`
	Pods    string `json:"podSubnet"`
	// Services is the range of cluster addresses, Pool that of MetalLB.
	Services string `json:"serviceSubnet"`
	Pool     string `json:"addressPool,omitempty"`
}

// TrustDomainStatus is one trust domain: its server and its agents.
type TrustDomainStatus struct {
	Health
	Name           string `json:"name"`
	Cluster        string `json:"cluster"`
	BundleEndpoint string `json:"bundleEndpoint,omitempty"`
	// Agents counts those that have attested and may ask for identities.
	Agents int `json:"agents"`
	// Entries counts the registered identities.
	Entries int `json:"entries"`
	// X509Authorities and JWTAuthorities count what the bundle holds.
	X509Authorities int `json:"x509Authorities"`
	JWTAuthorities  int `json:"jwtAuthorities"`
	// ExpiresAt is when the first of the X.509 authorities ends.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
}

// RelationshipStatus is one direction of federation.
type RelationshipStatus struct {
	Health
	Truster string `json:"truster"`
	Trusted string `json:"trusted"`
	Profile string `json:"profile"`
	// Bundle says how the bundle that the truster holds stands to the one that
	// the trusted serves; empty when one of them cannot be asked.
	Bundle federation.State `json:"bundle,omitempty"`
}

// WorkloadStatus is one demo program.
type WorkloadStatus struct {
	Health
	Name     string `json:"name"`
	Cluster  string `json:"cluster"`
	SPIFFEID string `json:"spiffeID"`
	// Address is what its peers call; URL is its page, if it has one.
	Address string `json:"address,omitempty"`
	URL     string `json:"url,omitempty"`
}

// statusBound is how long a part of a lab may take to answer before it counts
// as not answering.
const statusBound = 20 * time.Second

// Status asks a lab how it is. What does not run or answer is part of the
// answer; an error means that this machine could not be asked.
func (d *Driver) Status(ctx context.Context, t topology.Topology) (Status, error) {
	s := Status{Lab: t.Name}
	network, found, err := d.Parts.Networks.Find(ctx, t.Name)
	if err != nil {
		return s, err
	}
	nodes, err := d.Parts.Nodes.List(ctx, t.Name)
	if err != nil {
		return s, err
	}
	v := &visit{Driver: d, topology: t, access: map[string]Access{}, servers: map[spiffeid.TrustDomain]asked{}}
	if found {
		s.Network = network.String()
		if v.addresses, err = t.Addresses(network); err != nil {
			return s, err
		}
		v.networked = true
	}
	defer v.close()

	s.Clusters = make([]ClusterStatus, len(t.Clusters))
	for i, c := range t.Clusters {
		s.Clusters[i] = v.cluster(ctx, c, nodes)
	}
	v.askServers(ctx)
	for _, td := range t.TrustDomains {
		s.TrustDomains = append(s.TrustDomains, v.trustDomain(td))
	}
	for _, r := range t.Relationships {
		s.Relationships = append(s.Relationships, v.relationship(r))
	}
	for _, w := range t.Workloads {
		workload, err := v.workload(ctx, w)
		if err != nil {
			return s, err
		}
		s.Workloads = append(s.Workloads, workload)
	}
	s.Well = found &&
		!slices.ContainsFunc(s.Clusters, func(x ClusterStatus) bool { return !x.Well }) &&
		!slices.ContainsFunc(s.TrustDomains, func(x TrustDomainStatus) bool { return !x.Well }) &&
		!slices.ContainsFunc(s.Relationships, func(x RelationshipStatus) bool { return !x.Well }) &&
		!slices.ContainsFunc(s.Workloads, func(x WorkloadStatus) bool { return !x.Well })
	return s, nil
}

// visit is one look at a lab.
type visit struct {
	*Driver
	topology  topology.Topology
	addresses topology.Addresses
	networked bool
	access    map[string]Access
	servers   map[spiffeid.TrustDomain]asked
}

// asked is what one SPIRE server said.
type asked struct {
	server        *spire.Server
	bundle        *spiffebundle.Bundle
	held          map[spiffeid.TrustDomain]*spiffebundle.Bundle
	relationships []spire.Relationship
	agents        []spire.Agent
	entries       []spire.Entry
	err           error
}

func (v *visit) close() {
	for _, a := range v.servers {
		if a.server != nil {
			// Nothing was sent that could still be lost.
			_ = a.server.Close()
		}
	}
}

func (v *visit) cluster(ctx context.Context, c topology.Cluster, nodes []Node) ClusterStatus {
	s := ClusterStatus{
		Name: c.Name, State: "absent", Context: v.Parts.Kubeconfigs.Context(v.topology.Name, c.Name),
		Pods: c.PodSubnet.String(), Services: c.ServiceSubnet.String(),
	}
	if v.networked {
		if first, last, err := v.addresses.Pool(c.Name); err == nil {
			s.Pool = first.String() + "-" + last.String()
		}
	}
	i := slices.IndexFunc(nodes, func(n Node) bool { return n.Cluster == c.Name })
	switch {
	case i < 0:
		s.Problem = "it is not there"
		return s
	case !nodes[i].Running:
		s.State, s.Problem = "stopped", "its node is stopped"
		return s
	}
	s.State = "running"
	access, err := v.Driver.access(v.topology.Name, c.Name)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, statusBound)
		defer cancel()
		err = access.Objects.NodeReady(ctx)
	}
	s.Health = health(err)
	if err == nil {
		v.access[c.Name] = access
	}
	return s
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

func (v *visit) askServer(ctx context.Context, td topology.TrustDomain) (a asked) {
	access, ok := v.access[td.Cluster]
	if !ok {
		return asked{err: fmt.Errorf("cluster %s does not answer", td.Cluster)}
	}
	if a.err = access.Pods.Ready(ctx, serverKey); a.err != nil {
		return a
	}
	agents := access.Pods.Ready(ctx, agentKey)
	if a.server, a.err = connectServer(ctx, access, td.Name); a.err != nil {
		return a
	}
	var held []*spiffebundle.Bundle
	var errs [5]error
	a.bundle, errs[0] = a.server.Bundle(ctx)
	held, errs[1] = a.server.HeldBundles(ctx)
	a.relationships, errs[2] = a.server.Relationships(ctx)
	a.agents, errs[3] = a.server.Agents(ctx)
	a.entries, errs[4] = a.server.Entries(ctx)
	a.held = make(map[spiffeid.TrustDomain]*spiffebundle.Bundle, len(held))
	for _, b := range held {
		a.held[b.TrustDomain()] = b
	}
	a.err = errors.Join(append(errs[:], agents)...)
	return a
}

func (v *visit) trustDomain(td topology.TrustDomain) TrustDomainStatus {
	s := TrustDomainStatus{Name: td.Name.Name(), Cluster: td.Cluster}
	if v.networked {
		if address, err := v.addresses.Server(td); err == nil {
			s.BundleEndpoint = fmt.Sprintf("https://%s:%d", address, td.BundleEndpoint.Port)
		}
	}
	a := v.servers[td.Name]
	s.Health = health(a.err)
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

// relationship looks at the three facts of a relationship apart from each other:
// that the server has it, that it holds a bundle, and that this is the bundle
// which the other side has. The fourth, that entries ask for it, is a matter of
// each workload.
func (v *visit) relationship(r topology.Relationship) RelationshipStatus {
	s := RelationshipStatus{Truster: r.Truster.Name(), Trusted: r.Trusted.Name(), Profile: string(r.Profile)}
	truster, trusted := v.servers[r.Truster], v.servers[r.Trusted]
	switch {
	case truster.bundle == nil:
		s.Health = health(fmt.Errorf("the server of %s does not answer", r.Truster.Name()))
	case trusted.bundle == nil:
		s.Health = health(fmt.Errorf("the server of %s does not answer", r.Trusted.Name()))
	default:
		c := federation.Compare(truster.held[r.Trusted], trusted.bundle)
		s.Bundle = c.State
		known := slices.ContainsFunc(truster.relationships, func(k spire.Relationship) bool { return k.Trusted == r.Trusted })
		switch {
		case !known:
			s.Health = health(fmt.Errorf("the server of %s has no relationship with %s: nothing will refresh its bundle", r.Truster.Name(), r.Trusted.Name()))
		case c.State != federation.InSync:
			s.Health = health(errors.New(c.String()))
		default:
			s.Well = true
		}
	}
	return s
}

func (v *visit) workload(ctx context.Context, w topology.Workload) (WorkloadStatus, error) {
	s := WorkloadStatus{Name: w.Name, Cluster: w.Cluster}
	id, err := v.topology.SPIFFEID(w)
	if err != nil {
		return s, err
	}
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
	if err == nil {
		var federatesWith []spiffeid.TrustDomain
		if federatesWith, err = spire.FederatesWith(v.topology, w); err == nil {
			err = registered(v.servers[td.Name].entries, id, federatesWith)
		}
	}
	s.Health = health(err)
	return s, nil
}

// registered returns nil when an identity has an entry that gives its workload
// the bundles of all these trust domains.
func registered(entries []spire.Entry, id spiffeid.ID, trusted []spiffeid.TrustDomain) error {
	i := slices.IndexFunc(entries, func(e spire.Entry) bool { return e.SPIFFEID == id })
	if i < 0 {
		return fmt.Errorf("no entry has the SPIFFE ID %s: the workload gets no identity", id)
	}
	for _, td := range trusted {
		if !slices.Contains(entries[i].FederatesWith, td) {
			return fmt.Errorf("the entry of %s does not federate with %s: the workload does not get its bundle", id, td.Name())
		}
	}
	return nil
}
