package lab

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Status is a lab as it is. Each part says whether it is well, and if not, what
// is seen instead.
type Status struct {
	Lab           string               `json:"lab"`
	Well          bool                 `json:"well"`
	Network       string               `json:"network"`
	Clusters      []ClusterStatus      `json:"clusters"`
	Hosts         []HostStatus         `json:"hosts,omitempty"`
	TrustDomains  []TrustDomainStatus  `json:"trustDomains"`
	Relationships []RelationshipStatus `json:"relationships"`
	Workloads     []WorkloadStatus     `json:"workloads"`
	Registrations []RegistrationStatus `json:"registrations,omitempty"`
	// Resources are those of the controller manager that a person has to know of.
	// They do not count for Well: where one harms the lab, what it harms is not
	// well.
	Resources []ResourceStatus `json:"resources"`
}

// ResourceStatus is a resource of the controller manager that comes to nothing, or to
// something that the lab does not ask for.
type ResourceStatus struct {
	Cluster string `json:"cluster"`
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	// Problem is what there is to know of it.
	Problem string `json:"problem"`
}

// Health is whether something is well. Problem says what is wrong; it is empty
// exactly when Well is true.
type Health struct {
	Well    bool   `json:"well"`
	Problem string `json:"problem,omitempty"`

	// err is what Problem says.
	err error
}

func health(err error) Health {
	if err != nil {
		return Health{Problem: err.Error(), err: err}
	}
	return Health{Well: true}
}

// ClusterStatus is one cluster: of the lab file, or one that runs and that the
// file does not have.
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

// HostStatus is one host: of the lab file, or one that is there and that the file does
// not have.
type HostStatus struct {
	Health
	Name string `json:"name"`
	// Addresses is the range of those of its server and workloads.
	Addresses string `json:"addresses,omitempty"`
}

// TrustDomainStatus is one trust domain: its server and its agents. A nested server has a
// status of its own.
type TrustDomainStatus struct {
	Health
	Name string `json:"name"`
	// Cluster is that of the server; it is empty where that runs on Host.
	Cluster string `json:"cluster"`
	Host    string `json:"host,omitempty"`
	// Upstream is the cluster of the server that signs the authorities of a nested one;
	// empty for the root.
	Upstream       string `json:"upstream,omitempty"`
	BundleEndpoint string `json:"bundleEndpoint,omitempty"`
	// EndpointID is the SPIFFE ID that the endpoint shows; empty for one that
	// shows a web certificate.
	EndpointID string `json:"endpointSPIFFEID,omitempty"`
	// Agents counts those that have attested and may ask for identities.
	Agents int `json:"agents"`
	// Entries counts the registered identities.
	Entries int `json:"entries"`
	// X509Authorities and JWTAuthorities count what the bundle holds.
	X509Authorities int `json:"x509Authorities"`
	JWTAuthorities  int `json:"jwtAuthorities"`
	// ExpiresAt is when the first of the X.509 authorities ends.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
	// Cause names what is wrong, where it has a name.
	Cause Cause `json:"cause,omitempty"`
	// Discovery is its OIDC discovery provider; nil where it has none.
	Discovery *DiscoveryStatus `json:"oidcDiscovery,omitempty"`
	// Members are all clusters and hosts whose agents attest to the server, where it has
	// several.
	Members []MemberStatus `json:"members,omitempty"`
}

// Server names the server as topology.Server does: by its trust domain, with the cluster
// of a nested one ("one.test@b").
func (s TrustDomainStatus) Server() string {
	if s.Upstream == "" {
		return s.Name
	}
	return topology.ServerName(s.Name, s.Cluster)
}

// MemberStatus is one of several clusters and hosts of a trust domain: what its agents start
// with, and whether they have attested to the server.
type MemberStatus struct {
	Health
	// Cluster is empty for a host.
	Cluster string `json:"cluster"`
	Host    string `json:"host,omitempty"`
	// Downstream is set where the agents are for the nested server of the cluster alone.
	Downstream bool `json:"downstream,omitempty"`
	// Agents counts those that have attested and may ask for identities.
	Agents int `json:"agents"`
}

// RelationshipStatus is one direction of federation.
type RelationshipStatus struct {
	Health
	Truster string `json:"truster"`
	// Cluster is that of a nested server of the truster, which has the relationship
	// besides the root; empty for the root.
	Cluster string `json:"cluster,omitempty"`
	Trusted string `json:"trusted"`
	Profile string `json:"profile"`
	Mode    string `json:"mode"`
	// Cause names what is wrong; empty when it is well.
	Cause Cause `json:"cause,omitempty"`
	// Bundle says how the bundle that the truster holds stands to the one that
	// the trusted serves; empty when one of them cannot be asked.
	Bundle federation.State `json:"bundle,omitempty"`
}

// Server names the server that has the relationship, as TrustDomainStatus.Server does.
func (r RelationshipStatus) Server() string { return topology.ServerName(r.Truster, r.Cluster) }

// WorkloadStatus is one demo program.
type WorkloadStatus struct {
	Health
	Name string `json:"name"`
	// Cluster is where it runs; it is empty where that is Host.
	Cluster  string `json:"cluster"`
	Host     string `json:"host,omitempty"`
	SPIFFEID string `json:"spiffeID"`
	// Address is what its peers call; URL is its page, if it has one.
	Address string `json:"address,omitempty"`
	URL     string `json:"url,omitempty"`
	// Cause names what is wrong, where it has a name.
	Cause Cause `json:"cause,omitempty"`
}

// RegistrationStatus is one registration of the lab file, besides those of workloads.
type RegistrationStatus struct {
	Health
	Name string `json:"name"`
	// Kind is ClusterSPIFFEID, ClusterStaticEntry or entry.
	Kind        string `json:"kind"`
	TrustDomain string `json:"trustDomain"`
	// Cluster is where the resource is, or the server that has the entry; it is empty where
	// that server is on Host.
	Cluster string `json:"cluster"`
	Host    string `json:"host,omitempty"`
	// SPIFFEID is a template for a ClusterSPIFFEID.
	SPIFFEID string `json:"spiffeID"`
	// HeldBy names those who are given the identity now: pods, workloads on hosts, or the
	// nodes for which an entry below the server stands. That it is empty is well.
	HeldBy []string `json:"heldBy"`
}

// statusBound is how long a part of a lab may take to answer before it counts
// as not answering.
const statusBound = 20 * time.Second

// Status asks a lab how it is. What does not run or answer is part of the
// answer; an error means that this machine could not be asked.
func (d *Driver) Status(ctx context.Context, t topology.Topology) (Status, error) {
	v, err := d.visit(ctx, t)
	if err != nil {
		return newStatus(t.Name), err
	}
	defer v.close()
	return v.status(ctx)
}

func newStatus(lab string) Status {
	return Status{
		Lab: lab, Clusters: []ClusterStatus{}, TrustDomains: []TrustDomainStatus{},
		Relationships: []RelationshipStatus{}, Workloads: []WorkloadStatus{}, Resources: []ResourceStatus{},
	}
}

// status asks a lab that somebody visits how it is.
func (v *visit) status(ctx context.Context) (Status, error) {
	s := newStatus(v.Name)
	v.lookAtPods(ctx)
	if len(v.Registrations) > 0 {
		v.lookAtHolders(ctx)
	}
	if v.networked() {
		s.Network = v.Network.String()
	}
	for _, c := range v.Clusters {
		s.Clusters = append(s.Clusters, v.cluster(c))
	}
	for _, n := range v.surplus {
		problem := fmt.Errorf("cluster %s is there, and the file does not have it", n.Cluster)
		s.Clusters = append(s.Clusters, ClusterStatus{Name: n.Cluster, State: state(n), Health: health(problem)})
	}
	for _, h := range v.Hosts {
		s.Hosts = append(s.Hosts, v.host(h))
	}
	for _, f := range v.hosts {
		if !slices.ContainsFunc(v.Hosts, func(h *topology.Host) bool { return h.Name == f.Name }) {
			problem := fmt.Errorf("host %s is there, and the file does not have it", f.Name)
			s.Hosts = append(s.Hosts, HostStatus{Name: f.Name, Health: health(problem)})
		}
	}
	v.readFederated(ctx)
	for _, server := range v.Servers() {
		s.TrustDomains = append(s.TrustDomains, v.trustDomain(ctx, server))
		s.Resources = append(s.Resources, v.remarks(server)...)
	}
	s.Relationships = v.relationships(ctx)
	for _, w := range v.Workloads {
		s.Workloads = append(s.Workloads, v.workload(ctx, w))
	}
	for _, r := range v.Registrations {
		s.Registrations = append(s.Registrations, v.registration(ctx, r))
	}
	if ctx.Err() != nil {
		// What was asked last did not get to answer.
		return s, context.Cause(ctx)
	}
	s.Well = v.networked() &&
		!slices.ContainsFunc(s.Clusters, func(x ClusterStatus) bool { return !x.Well }) &&
		!slices.ContainsFunc(s.Hosts, func(x HostStatus) bool { return !x.Well }) &&
		!slices.ContainsFunc(s.TrustDomains, func(x TrustDomainStatus) bool { return !x.Well }) &&
		!slices.ContainsFunc(s.Relationships, func(x RelationshipStatus) bool { return !x.Well }) &&
		!slices.ContainsFunc(s.Workloads, func(x WorkloadStatus) bool { return !x.Well }) &&
		!slices.ContainsFunc(s.Registrations, func(x RegistrationStatus) bool { return !x.Well })
	return s, nil
}

// Problems lists what is not well, each with its name, except what is not well
// because of one of these causes.
func (s Status) Problems(but ...Cause) []string {
	var list []string
	add := func(name string, h Health) {
		if !h.Well {
			list = append(list, name+": "+h.Problem)
		}
	}
	if s.Network == "" {
		list = append(list, "it has no network")
	}
	for _, x := range s.Clusters {
		add("cluster "+x.Name, x.Health)
	}
	for _, x := range s.Hosts {
		add("host "+x.Name, x.Health)
	}
	for _, x := range s.TrustDomains {
		if !slices.Contains(but, x.Cause) {
			add("trust domain "+x.Server(), x.Health)
		}
	}
	for _, x := range s.Relationships {
		if !slices.Contains(but, x.Cause) {
			add("relationship "+x.Server()+"->"+x.Trusted, x.Health)
		}
	}
	for _, x := range s.Workloads {
		if !slices.Contains(but, x.Cause) {
			add("workload "+x.Name, x.Health)
		}
	}
	for _, x := range s.Registrations {
		add("registration "+x.Name, x.Health)
	}
	return list
}
