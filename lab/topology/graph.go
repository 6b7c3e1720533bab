package topology

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Graph is a lab of which each part points at the parts that it has to do with.
// Resolve makes it of a Topology, and nothing changes it afterwards: who has a part
// has all that belongs to it, and looks nothing up by name.
//
// Parts of two graphs are never the same, not even of two that were made of one
// Topology: a part is asked of those who have it from the same graph.
//
// Addresses are the zero value as long as the lab has no network.
type Graph struct {
	Name string
	// Network is the lab's container network; the zero value where there is none yet.
	Network netip.Prefix
	// Clusters, Hosts, Domains, Trusts, Workloads and Registrations are in the order of
	// the lab file.
	Clusters  []*Cluster
	Hosts     []*Host
	Domains   []*Domain
	Trusts    []*Trust
	Workloads []*Workload
	// ACMEServer issues serving certificates; nil where nobody asks for any.
	ACMEServer *ACMEServer
	// Registrations are those besides what workloads have.
	Registrations []*Registration

	intent Topology
}

// Intent returns what the graph was made of.
func (g *Graph) Intent() Topology { return g.intent }

// Discoveries returns the OIDC discovery providers of all trust domains.
func (g *Graph) Discoveries() []*Discovery {
	var all []*Discovery
	for _, d := range g.Domains {
		if d.Discovery != nil {
			all = append(all, d.Discovery)
		}
	}
	return all
}

// Servers returns those of all trust domains. A nested one comes after its upstream.
func (g *Graph) Servers() []*Server {
	var all []*Server
	for _, d := range g.Domains {
		all = append(all, d.Servers...)
	}
	return all
}

// Cluster is a Kubernetes cluster of the lab.
type Cluster struct {
	ClusterSpec
	// Lab is the name of the lab.
	Lab string
	// Pool is what MetalLB hands out in the cluster. The pools of a lab are disjoint
	// from each other and from the containers' block.
	Pool Pool
	// Servers run here; Members are the trust domains whose agents run here. Those with
	// workloads come before those that are for a nested server.
	Servers []*Server
	Members []*Member
}

// Workloads returns those of all members, in the order of the lab file.
func (c *Cluster) Workloads() []*Workload {
	var all []*Workload
	for _, m := range c.Members {
		all = append(all, m.Workloads...)
	}
	slices.SortFunc(all, func(a, b *Workload) int { return a.order - b.order })
	return all
}

// firstNodePort is the port of the node that leads to the first exposed workload
// of its cluster.
const firstNodePort = 30081

// Ports returns how the pages of a cluster's workloads are reached: which address of
// this machine leads to which port of the node. The app decides which, not the
// place in the file, which may change while the cluster cannot.
func (c *Cluster) Ports() map[netip.AddrPort]int {
	exposed := slices.DeleteFunc(c.Workloads(), func(w *Workload) bool { return !w.Expose.IsValid() })
	slices.SortStableFunc(exposed, func(a, b *Workload) int {
		return cmp.Or(strings.Compare(a.App.Name, b.App.Name), strings.Compare(a.Namespace, b.Namespace))
	})
	ports := map[netip.AddrPort]int{}
	for i, w := range exposed {
		ports[w.Expose] = firstNodePort + i
	}
	return ports
}

// Host is a machine of the lab that is outside Kubernetes.
type Host struct {
	HostSpec
	// Lab is the name of the lab.
	Lab string
	// Pool is where the addresses of the host's server and workloads are.
	Pool Pool
	// Server is the SPIRE server that runs here; nil where that of the trust domain runs
	// elsewhere.
	Server *Server
	// Member is the trust domain whose agent runs here.
	Member *Member
}

// Pool is a range of addresses; both ends are in it.
type Pool struct{ First, Last netip.Addr }

// String reads "10.192.1.1-10.192.1.254", and is empty for no pool.
func (p Pool) String() string {
	if !p.First.IsValid() {
		return ""
	}
	return p.First.String() + "-" + p.Last.String()
}

// Domain is a trust domain.
type Domain struct {
	Name spiffeid.TrustDomain
	Settings
	// Discovery serves the documents of JWTIssuer; nil where nobody does.
	Discovery *Discovery
	// Proxy is in front of the bundle endpoint; nil where peers ask the endpoint itself.
	Proxy *Proxy
	// Servers are the SPIRE servers of the trust domain: the root first, whose bundle
	// endpoint peers fetch from, and then those that are nested below it.
	Servers []*Server
	// Members are where its agents run. That in the place of the first server comes
	// first.
	Members []*Member
	// Trusts are those by which it trusts others; TrustedBy those by which others
	// trust it. Both are in the order of the lab file.
	Trusts, TrustedBy []*Trust
}

// Discovery is SPIRE's OIDC discovery provider of a trust domain. It runs in the place of
// the root server, and is asked for by the name in the issuer.
type Discovery struct {
	Domain *Domain
	// Issuer is JWTIssuer, of which Host, Port and Path are parts. Path is empty, or begins
	// with a slash and does not end with one.
	Issuer, Host, Path string
	Port               int
	// Address is what Host has to come to, in each cluster and on each host of the lab.
	Address netip.Addr
	// Member is the one whose agent gives the provider its identity and the keys.
	Member *Member
}

// Place returns that of the provider.
func (d *Discovery) Place() Place { return d.Domain.Server().Place }

// Configuration and Keys return where the two documents are (OpenID Connect Discovery 1.0,
// section 4; the provider serves the keys at a path that the first one names).
func (d *Discovery) Configuration() string {
	return strings.TrimSuffix(d.Issuer, "/") + "/.well-known/openid-configuration"
}

// Keys returns where the keys are.
func (d *Discovery) Keys() string { return strings.TrimSuffix(d.Issuer, "/") + "/keys" }

// Proxy is what peers ask in the place of the bundle endpoint of a trust domain. It runs in
// the place of the root server, and passes on what it is asked.
type Proxy struct {
	Domain *Domain
	// Address is what BundleEndpoint.Host comes to.
	Address netip.Addr
}

// Place returns that of the proxy.
func (p *Proxy) Place() Place { return p.Domain.Server().Place }

// EndsTLS reports whether peers see what the proxy shows, and not what the endpoint does.
func (p *Proxy) EndsTLS() bool { return p.Domain.BundleEndpoint.Route == Reencrypt }

// Proxies returns those in front of the bundle endpoints of all trust domains.
func (g *Graph) Proxies() []*Proxy {
	var all []*Proxy
	for _, d := range g.Domains {
		if d.Proxy != nil {
			all = append(all, d.Proxy)
		}
	}
	return all
}

// String returns the name of the trust domain.
func (d *Domain) String() string { return d.Name.Name() }

// Server returns the SPIRE server that stands for the trust domain: its root.
func (d *Domain) Server() *Server { return d.Servers[0] }

// Workloads returns those of all members.
func (d *Domain) Workloads() []*Workload {
	var all []*Workload
	for _, m := range d.Members {
		all = append(all, m.Workloads...)
	}
	return all
}

// TrustIn returns the trust by which d trusts another; nil where there is none.
func (d *Domain) TrustIn(other *Domain) *Trust {
	i := slices.IndexFunc(d.Trusts, func(t *Trust) bool { return t.Trusted == other })
	if i < 0 {
		return nil
	}
	return d.Trusts[i]
}

// Namespaces of SPIRE for the first trust domain of a cluster.
const (
	ServerNamespace = "spire-system"
	// UpstreamNamespace has the agents by which a nested server reaches its upstream.
	UpstreamNamespace = "spire-upstream"
)

// Place is where SPIRE runs: a server with agents, or agents alone. It is a namespace of
// a cluster, or a host.
type Place struct {
	// Cluster is nil, and Namespace is empty, on a host.
	Cluster   *Cluster
	Namespace string
	// Host is nil in a cluster.
	Host *Host
}

// Name returns that of the cluster or the host.
func (p Place) Name() string {
	if p.Host != nil {
		return p.Host.Name
	}
	return p.Cluster.Name
}

// Where reads "cluster market", or "host partner".
func (p Place) Where() string {
	if p.Host != nil {
		return "host " + p.Host.Name
	}
	return "cluster " + p.Cluster.Name
}

// pool returns the addresses of the cluster or the host.
func (p Place) pool() Pool {
	if p.Host != nil {
		return p.Host.Pool
	}
	return p.Cluster.Pool
}

// inSlot returns what a name becomes for the trust domain in a slot of its cluster:
// the first one has the name as it is.
func inSlot(name string, slot int) string {
	if slot == 0 {
		return name
	}
	return fmt.Sprintf("%s-%d", name, slot+1)
}

// Server is a SPIRE server.
type Server struct {
	Domain *Domain
	Place  Place
	// Class is the class of the resources that the server's controller manager
	// serves in its own cluster. A server on a host has no controller manager.
	Class string
	// Address is that of its bundle endpoint, and of its API for agents in other
	// clusters. It stays the same when the Service is made again, so that the peers'
	// URLs stay right. A nested server has none: peers fetch from the root.
	Address netip.Addr
	// Members are those whose agents attest to it. That of its own place comes first.
	Members []*Member
	// Upstream is the server that signs the authorities of a nested one, and Link the
	// member of Upstream by whose agents it gets there. Both are nil for a root.
	Upstream *Server
	Link     *Member
}

// Nested reports whether another server of the trust domain signs the authorities.
func (s *Server) Nested() bool { return s.Upstream != nil }

// String is ServerName.
func (s *Server) String() string {
	if s.Nested() {
		return ServerName(s.Domain.String(), s.Place.Cluster.Name)
	}
	return s.Domain.String()
}

// ServerName names a server by its trust domain, and a nested one by its cluster as well;
// that of the root has no cluster here.
func ServerName(domain, cluster string) string {
	if cluster == "" {
		return domain
	}
	return domain + "@" + cluster
}

// Relationships returns those that the server has to have: each server follows all
// whom its trust domain trusts, since entries federate with what their own server holds.
func (s *Server) Relationships() []Relationship {
	var all []Relationship
	for _, t := range s.Domain.Trusts {
		all = append(all, Relationship{t, s})
	}
	return all
}

// RelatesByAPI reports whether the server's relationships are made by SPIRE's API. No
// controller manager makes any of ClusterFederatedTrustDomains then: it would delete all
// others (its pkg/spirefederationrelationship/reconciler.go). A server on a host has none.
func (s *Server) RelatesByAPI() bool {
	return s.Place.Host != nil || slices.ContainsFunc(s.Domain.Trusts, func(t *Trust) bool { return t.Mode == API })
}

// Home returns the member in the server's own place.
func (s *Server) Home() *Member { return s.Members[0] }

// Remote returns the members in other clusters.
func (s *Server) Remote() []*Member {
	return slices.DeleteFunc(slices.Clone(s.Members), func(m *Member) bool { return !m.Remote() })
}

// InClusters returns the members in clusters.
func (s *Server) InClusters() []*Member {
	return slices.DeleteFunc(slices.Clone(s.Members), func(m *Member) bool { return m.Host() != nil })
}

// OnHosts returns the members on hosts, whose agents attest with join tokens.
func (s *Server) OnHosts() []*Member {
	return slices.DeleteFunc(slices.Clone(s.Members), func(m *Member) bool { return m.Host() == nil })
}

// Endpoint returns where the bundle endpoint itself is, whatever is in front of it.
func (s *Server) Endpoint() netip.AddrPort {
	return netip.AddrPortFrom(s.Address, uint16(s.Domain.BundleEndpoint.Port))
}

// EndpointHost returns what peers call the bundle endpoint: its DNS name, or else its
// address.
func (s *Server) EndpointHost() string {
	return cmp.Or(s.Domain.BundleEndpoint.Host, s.Address.String())
}

// PublicAddress returns what peers find by EndpointHost: the address of the proxy in front
// of the bundle endpoint, or else that of the endpoint.
func (s *Server) PublicAddress() netip.Addr {
	if p := s.Domain.Proxy; p != nil {
		return p.Address
	}
	return s.Address
}

// Name is a DNS name that each cluster and each host of a lab knows.
type Name struct {
	Host    string
	Address netip.Addr
}

// ACMEHost is the DNS name of the lab's ACME server, and ACMEDirectory the URL by which
// clients begin.
const (
	ACMEHost      = "acme.fedlab.test"
	ACMEDirectory = "https://" + ACMEHost + "/dir"
)

// ACMEServer is a certificate authority that speaks ACME, for the lab alone.
type ACMEServer struct {
	ACMEServerSpec
	Cluster *Cluster
	// Address is what ACMEHost comes to.
	Address netip.Addr
}

// Names returns the DNS names of the lab, sorted. Addresses that are not known yet are the
// zero value.
func (g *Graph) Names() []Name {
	var all []Name
	if g.ACMEServer != nil {
		all = append(all, Name{ACMEHost, g.ACMEServer.Address})
	}
	for _, d := range g.Domains {
		if host := d.BundleEndpoint.Host; host != "" {
			all = append(all, Name{host, d.Server().PublicAddress()})
		}
		if d.Discovery != nil {
			all = append(all, Name{d.Discovery.Host, d.Discovery.Address})
		}
	}
	slices.SortFunc(all, func(a, b Name) int { return cmp.Compare(a.Host, b.Host) })
	return all
}

// Member is a cluster in which agents of a trust domain run, or a host with its agent.
type Member struct {
	Domain *Domain
	// Place is where the agents run.
	Place Place
	// Class is the class of the resources in the cluster of which entries of the trust
	// domain are made. The first trust domain of a cluster has those without a class.
	Class string
	// Server is the one that the agents attest to. It may run in another cluster.
	Server *Server
	// Downstream is the nested server that the agents are for, and for nobody else; nil
	// where they are for workloads.
	Downstream *Server
	// Workloads run in the place and belong to the trust domain.
	Workloads []*Workload
	// Registrations have their resource in the place, or are entries of the server there.
	Registrations []*Registration

	// slot is that of the trust domain in the cluster.
	slot int
}

// Cluster returns the cluster that the agents run in; nil for a host.
func (m *Member) Cluster() *Cluster { return m.Place.Cluster }

// Host returns the host that the agent runs on; nil for a cluster.
func (m *Member) Host() *Host { return m.Place.Host }

// Remote reports whether the agents run in another cluster than the server.
func (m *Member) Remote() bool {
	return m.Place.Cluster != nil && m.Place.Cluster != m.Server.Place.Cluster
}

// Slot returns the place of the trust domain among those of the cluster.
func (m *Member) Slot() int { return m.slot }

// Namespace returns where the pods of an app of the member run.
func (m *Member) Namespace(of App) string { return inSlot(of.Namespace, m.slot) }

// Trust is one direction of federation: the servers of Truster fetch the bundle of
// Trusted, and workloads of Truster may then verify SVIDs of Trusted.
type Trust struct {
	Truster, Trusted *Domain
	// RelationshipSpec is what the lab file says of it.
	RelationshipSpec
}

// Relationship is a trust as one server of the truster has it.
type Relationship struct {
	*Trust
	By *Server
}

// ID reads "cluster1.com->cluster2.com", or "cluster1.com@edge->cluster2.com" for what
// a nested server has.
func (r Relationship) ID() string { return r.By.String() + "->" + r.Trusted.String() }

// Relationships returns the trust as each server of the truster has it.
func (t *Trust) Relationships() []Relationship {
	var all []Relationship
	for _, s := range t.Truster.Servers {
		all = append(all, Relationship{t, s})
	}
	return all
}

// Relationships returns those of all trusts.
func (g *Graph) Relationships() []Relationship {
	var all []Relationship
	for _, t := range g.Trusts {
		all = append(all, t.Relationships()...)
	}
	return all
}

// Workload is a program that has an identity.
type Workload struct {
	Name string
	App  App
	// Own is set where the program is the person's own.
	Own *Own
	// Namespace is where its pods run. That of an app is another one for each further
	// trust domain of a cluster. It has no meaning on a host.
	Namespace string
	// Member is where it runs, and whose trust domain it belongs to.
	Member *Member
	// ID is the SPIFFE ID that it is registered with.
	ID spiffeid.ID
	// Address is where its peers call it.
	Address netip.Addr
	// Expose is the address on this machine that answers for the workload;
	// the zero value where it is not exposed.
	Expose netip.AddrPort
	// Checker is the probe that asks the workload whether it is well; nil where none
	// does.
	Checker *Workload
	// Calls are the workloads that it calls, Callers those that call it.
	Calls, Callers []*Workload
	// FederatesWith are the trust domains whose bundles it receives besides its own:
	// for an app, of those that it calls or is called from, the ones that its own
	// trusts. It names no other, because SPIRE refuses an entry as soon as the bundle of one of
	// them is missing, and the workload is then left without any identity.
	FederatesWith []*Domain

	// order is its place in the lab file.
	order int
	spec  WorkloadSpec
}

// Domain returns the trust domain that the workload belongs to.
func (w *Workload) Domain() *Domain { return w.Member.Domain }

// Cluster returns the cluster that the workload runs in; nil on a host.
func (w *Workload) Cluster() *Cluster { return w.Member.Cluster() }

// Host returns the host that the workload runs on; nil in a cluster.
func (w *Workload) Host() *Host { return w.Member.Host() }

// UID returns the number of the user who runs the workload on its host. No other
// workload of the host has it.
func (w *Workload) UID() int { return firstUID + w.spec.Slot }

// firstUID is above the numbers that systems give to people and services of their own
// (login.defs(5), UID_MAX is 60000), and below those that containers take for nobody.
const firstUID = 61000

// Port returns where peers call the workload. The port is 0 where nobody calls it.
func (w *Workload) Port() netip.AddrPort { return netip.AddrPortFrom(w.Address, uint16(w.App.Port)) }

// PodLabels returns the labels of the workload's pods that its SPIFFE ID is made of.
func (w *Workload) PodLabels() map[string]string { return w.spec.podLabels() }

// PodSelector returns labels that only the workload's pods have in their namespace; for
// a person's own program, none.
func (w *Workload) PodSelector() map[string]string {
	if w.Own != nil {
		return map[string]string{}
	}
	return map[string]string{"app.kubernetes.io/name": w.App.Name}
}

// URL returns where a browser on this machine finds the workload's page; empty
// where the workload is not exposed.
func (w *Workload) URL() string { return w.spec.URL() }

// Database is a PostgreSQL in the namespace of what uses it, with one database and
// its owner.
type Database struct {
	// Release is the Helm release, and the name of the Service.
	Release    string
	Name, User string
	// ID is whom it proves to be in TLS; the zero value where it has no TLS.
	ID spiffeid.ID
}

// Secret names the Secret with the owner's password, at the key "password".
func (d Database) Secret() string { return d.Release + "-login" }

// Shows reports whether the X509-SVID that the workload presents can be looked at: it
// listens for peers, or reports its own.
func (w *Workload) Shows() bool { return w.App.Tells != "" || w.App.Port > 0 }

// Database returns the one that runs next to the workload; its Release is empty where
// none does.
func (w *Workload) Database() Database {
	d := Database{Release: w.App.Database, Name: "app", User: "app"}
	if w.spec.DatabaseTLS {
		d.ID = spiffeid.RequireFromPath(w.Domain().Name, databasePath+w.Name)
	}
	return d
}

// Lender returns the workload whose database w may reach through it; nil for none. It calls
// w, so that both sides know each other.
func (w *Workload) Lender() *Workload {
	if !w.spec.LegacyDatabase {
		return nil
	}
	for _, by := range w.Callers {
		if by.App.LendsDatabase {
			return by
		}
	}
	return nil
}

// LentSecret names the Secret, in the namespace of w, with the password of the database that
// is lent to it. It goes with the release.
func (w *Workload) LentSecret() string { return LentSecret(w.App.Name) }

// LentSecret names the Secret of a release.
func LentSecret(release string) string { return release + "-lent-login" }

// databasePath begins the SPIFFE IDs of databases; the names of workloads, which are
// unique, are valid in one.
const databasePath = "/fedlab/database/"

// Witness returns the workload that tells how the calls of w go: w itself, or one
// that calls it; nil where there is none.
func (w *Workload) Witness() *Workload {
	for _, by := range append([]*Workload{w}, w.Callers...) {
		if by.App.Tells != "" {
			return by
		}
	}
	return nil
}
