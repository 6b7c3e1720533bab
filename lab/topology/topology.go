// Package topology holds what a lab is meant to be, as values: clusters, trust
// domains, relationships, workloads, and the addresses that follow from them.
//
// A Topology is intent. It is made once, from a lab file, and never changes; it
// refuses to know what runs. What runs is asked of the clusters each time, and
// is described by the types of package lab.
package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Topology is a whole lab as its lab file asks for it. Package config makes
// only valid ones: every name that one part mentions is defined by another.
type Topology struct {
	// Name tells labs on one machine apart; it is in the name of each
	// container, network and kubeconfig context that belongs to the lab.
	Name     string
	Clusters []ClusterSpec
	// Hosts are machines outside Kubernetes.
	Hosts         []HostSpec `json:",omitempty"`
	TrustDomains  []TrustDomainSpec
	Relationships []RelationshipSpec
	Workloads     []WorkloadSpec
	// ACMEServer issues the serving certificates of endpoints with ACME; nil where there are
	// none.
	ACMEServer *ACMEServerSpec `json:",omitempty"`
	// Registrations are those besides what workloads have.
	Registrations []RegistrationSpec `json:",omitempty"`
}

// ClusterSpec is what a Kubernetes cluster of the lab is meant to be.
type ClusterSpec struct {
	// Name is a place or a role ("market"), unique in its lab.
	Name string
	// Index is the place of the cluster's addresses among those of the lab.
	Index int
	// PodSubnet and ServiceSubnet are disjoint from those of every other
	// cluster of the lab.
	PodSubnet, ServiceSubnet netip.Prefix
}

// HostSpec is what a machine outside Kubernetes is meant to be. It has one trust domain.
type HostSpec struct {
	// Name is unique among the clusters and hosts of its lab.
	Name string
	// Index is the place of its addresses, as that of a cluster.
	Index int
}

// TrustDomainSpec is what a SPIFFE trust domain is meant to be, and the SPIRE server
// that stands for it.
type TrustDomainSpec struct {
	Name spiffeid.TrustDomain
	// Cluster names the cluster that the SPIRE server runs in. Agents run there, too. It
	// is empty where the server runs on Host.
	Cluster string
	Host    string `json:",omitempty"`
	// Slot is the place of the trust domain among those of that cluster, and of the
	// server's address. A lab of an earlier fedlab says nothing of it, which is the
	// first.
	Slot int `json:",omitempty"`
	// DiscoverySlot is the place of the address of its OIDC discovery provider among those
	// of that cluster; it has no meaning where there is none.
	DiscoverySlot int `json:",omitempty"`
	// ProxySlot is the place of the address of the proxy in front of its bundle endpoint, in
	// the same way.
	ProxySlot int `json:",omitempty"`
	// Members are the further clusters and hosts of the trust domain: agents run there,
	// and attest to the same server, or in a cluster to a nested one.
	Members []MemberSpec `json:",omitempty"`
	Settings
}

// MemberSpec is a further cluster of a trust domain, or a further host.
type MemberSpec struct {
	Cluster string
	Host    string `json:",omitempty"`
	// Slot is the place of the trust domain among those of the cluster.
	Slot int `json:",omitempty"`
	// Nested is set where the cluster has a SPIRE server of its own, whose authorities
	// the server of the trust domain signs.
	Nested bool `json:",omitempty"`
}

// Settings are how a trust domain and its server are set up.
type Settings struct {
	BundleEndpoint BundleEndpoint
	// CATTL is the life of an X.509 authority. SPIRE prepares the next one at
	// half of it and activates that one when a sixth remains.
	CATTL time.Duration
	// X509SVIDTTL and JWTSVIDTTL are the lives of what the server signs for
	// workloads that ask for no other.
	X509SVIDTTL, JWTSVIDTTL time.Duration
	CASubject               CASubject
	// CAKeyType is the type of the keys of X.509 authorities, and of the server's own
	// X509-SVID; empty is ECP256. JWTKeyType is that of JWT authorities; empty is
	// CAKeyType. A server that starts keeps the authorities that it has, whatever
	// their type (pkg/server/ca/manager/slot.go, loadX509CASlotFromEntry), and
	// prepares each next one with the present type (manager.go, PrepareX509CA).
	CAKeyType  KeyType `json:",omitempty"`
	JWTKeyType KeyType `json:",omitempty"`
	// JWTIssuer is the "iss" claim of JWT-SVIDs; empty leaves it out.
	JWTIssuer string
	// OIDCDiscovery is the zero value where nobody serves the documents of JWTIssuer.
	OIDCDiscovery OIDCDiscovery `json:",omitzero"`
	// SPIREVersion is that of the SPIRE server, AgentVersion that of the agents in clusters;
	// each is empty where it is SPIREVersion of this package. A lab of an earlier fedlab says
	// nothing of them.
	SPIREVersion string `json:",omitempty"`
	AgentVersion string `json:",omitempty"`
	// LogLevel is SPIRE's: debug, info, warn or error.
	LogLevel string
	// EntryPrefix is what the IDs of the entries begin with, before a dot, that the
	// controller manager next to the server makes. It answers for no others then. Empty is
	// no prefix: it answers for all, and deletes those that it has not made.
	EntryPrefix string `json:",omitempty"`
	// Replicas is how many servers share the datastore; 0 is one.
	Replicas int `json:",omitempty"`
	// BundlePlugin is how the server writes its bundle into clusters that it does not
	// run in; empty where there are none.
	BundlePlugin BundlePlugin `json:",omitempty"`
	// Datastore is where the server keeps its entries and bundles.
	Datastore Datastore
	// UpstreamAuthority says who signs the server's own authorities.
	UpstreamAuthority UpstreamAuthority
}

// OIDCDiscovery is how SPIRE's OIDC discovery provider serves the documents of an issuer
// at its name: its configuration and its keys (OpenID Connect Discovery 1.0, section 4).
type OIDCDiscovery struct {
	// PollInterval is how often the provider asks its agent for the keys. It is above zero
	// where there is a provider.
	PollInterval time.Duration
}

// KeyType is the type of an authority's key. The keys of workloads do not follow it:
// their agent makes them, of P-256 (cmd/spire-agent/cli/run/run.go).
type KeyType string

// The types that a SPIRE server takes (pkg/server/plugin/keymanager/keymanager.go,
// KeyTypeFromString).
const (
	RSA2048 KeyType = "rsa-2048"
	RSA4096 KeyType = "rsa-4096"
	ECP256  KeyType = "ec-p256"
	ECP384  KeyType = "ec-p384"
)

// BundlePlugin is a plugin of a SPIRE server that writes the server's bundle into a
// ConfigMap of another cluster.
type BundlePlugin string

const (
	// K8sConfigMap is a bundle publisher. Where a cluster does not answer, it tries again
	// (pkg/server/plugin/bundlepublisher/k8sconfigmap).
	K8sConfigMap BundlePlugin = "k8s_configmap"
	// K8sBundle is a notifier. Where a cluster does not answer, the server ends when it
	// starts, and says nothing more than a line in its log when it runs
	// (pkg/server/plugin/notifier/k8sbundle).
	K8sBundle BundlePlugin = "k8sbundle"
)

// Datastore is what a SPIRE server keeps its entries and bundles in.
type Datastore string

const (
	// SQLite is a file on the server's volume.
	SQLite Datastore = "sqlite"
	// Postgres is a PostgreSQL server of its own in the same cluster.
	Postgres Datastore = "postgres"
)

// UpstreamAuthority is who signs a SPIRE server's X.509 authorities.
type UpstreamAuthority string

const (
	// SelfSigned is no upstream authority: each X.509 authority is a root.
	SelfSigned UpstreamAuthority = "none"
	// Disk is an intermediate that the server reads from files; the root above
	// it is what the bundle holds.
	Disk UpstreamAuthority = "disk"
	// SPIRE is another SPIRE server of the same trust domain, whose bundle the server
	// takes over. No setting of a trust domain is this: nested servers have it.
	SPIRE UpstreamAuthority = "spire"
)

// CASubject is the distinguished name of a trust domain's X.509 authorities.
// SPIRE's ca_subject has no organizational unit.
type CASubject struct {
	Country, Organization, CommonName string
}

// EndpointProfile says how a bundle endpoint proves who it is (SPIFFE
// Federation, section 5.2).
type EndpointProfile string

const (
	// HTTPSSPIFFE authenticates a bundle endpoint by an X509-SVID that the bundle
	// held by the client verifies.
	HTTPSSPIFFE EndpointProfile = "https_spiffe"
	// HTTPSWeb authenticates a bundle endpoint by a serving certificate as of any
	// web server, which a root that the client has from elsewhere verifies.
	HTTPSWeb EndpointProfile = "https_web"
)

// BundleEndpoint is where a trust domain publishes its bundle.
type BundleEndpoint struct {
	Profile EndpointProfile
	// Host is the DNS name in its URL; empty is its address.
	Host string `json:",omitempty"`
	Port int
	// Route is how the proxy in front of the endpoint passes on what it is asked. Peers ask
	// the proxy then, at ProxyPort. Empty is no proxy.
	Route Route `json:",omitempty"`
	// Path is what the URL has after its host, with a query if it has one. It is set only
	// where Route is Reencrypt: SPIRE's endpoint answers at / alone.
	Path string `json:",omitempty"`
	// RefreshHint is what the endpoint tells its readers about how often to
	// come back. SPIRE polls four times as often, and treats less than one
	// minute as one minute.
	RefreshHint time.Duration
	// ServingCert is set where the profile is HTTPSWeb, unless ACME is.
	ServingCert ServingCert
	// ACME is set where the server orders the certificate of the endpoint itself, which is
	// for Host.
	ACME *ACME `json:",omitempty"`
}

// Route is how a proxy passes on connections to a bundle endpoint. Both are what a route of
// OpenShift calls its termination.
type Route string

const (
	// Passthrough goes by the name that the TLS client asks for, and leaves TLS alone: peers
	// see what the endpoint shows.
	Passthrough Route = "passthrough"
	// Reencrypt ends TLS, and begins it again towards the endpoint: peers see what the proxy
	// shows.
	Reencrypt Route = "reencrypt"
)

// ProxyPort is where a proxy in front of a bundle endpoint is asked, whichever port the
// endpoint has.
const ProxyPort = 443

// PublicPort returns the port in the endpoint's URL.
func (e BundleEndpoint) PublicPort() int {
	if e.Route != "" {
		return ProxyPort
	}
	return e.Port
}

// ACME is how a SPIRE server orders the certificate of its bundle endpoint from the lab's ACME
// server (RFC 8555).
type ACME struct {
	// Email is the contact of its account.
	Email string
	// TTL is the life of a certificate. SPIRE orders the next one 30 days before its end, or
	// up to an hour earlier.
	TTL time.Duration
}

// ACMEServerSpec is what the lab's ACME server is meant to be.
type ACMEServerSpec struct {
	// Cluster names the one that it runs in.
	Cluster string
	// Slot is the place of its address among those of web servers in that cluster.
	Slot int `json:",omitempty"`
	// TTL is the life of the certificates that it issues.
	TTL time.Duration
	// Port is where it looks for whoever has a name.
	Port int
}

// WithACMEServer returns t with an ACME server where a trust domain asks for certificates by
// ACME. It is in the cluster of the first one that does.
func (t Topology) WithACMEServer() Topology {
	for _, td := range t.TrustDomains {
		if acme := td.BundleEndpoint.ACME; acme != nil && td.Cluster != "" {
			t.ACMEServer = &ACMEServerSpec{Cluster: td.Cluster, TTL: acme.TTL, Port: td.BundleEndpoint.PublicPort()}
			return t
		}
	}
	return t
}

// ServingCert is the certificate of an https_web endpoint. A private CA of the
// trust domain issues it, and again when a third of its life remains, unless it is the
// person's own.
type ServingCert struct {
	// TTL is its life; zero for one of the person's own.
	TTL time.Duration
	// FileSyncInterval is how often the SPIRE server reads its file again.
	FileSyncInterval time.Duration
	// Own is set where the certificate is the person's own.
	Own *OwnCertificate `json:",omitempty"`
}

// OwnCertificate is a serving certificate that fedlab does not issue. Paths are absolute, and
// the files are in PEM.
type OwnCertificate struct {
	// Secret names the one that has it in the cluster.
	Secret string
	// Certificate has that of the endpoint first, and then those between it and CA. Key is
	// its private key. CA is by which peers verify it.
	Certificate, Key, CA string
}

// RelationshipSpec is one direction of federation: Truster's server fetches the
// bundle of Trusted, and Truster's workloads may then verify Trusted's SVIDs.
// Two trust domains that trust each other have two relationships.
type RelationshipSpec struct {
	Truster, Trusted spiffeid.TrustDomain
	// Profile is the profile of Trusted's bundle endpoint.
	Profile EndpointProfile
	// Mode is how Truster's server comes to have the relationship.
	Mode Mode
}

// Manner says how Truster learns of Trusted's bundle.
func (r RelationshipSpec) Manner() string {
	switch r.Mode {
	case Manual:
		return "by hand"
	case Static, API:
		return string(r.Profile) + ", " + string(r.Mode)
	default:
		return string(r.Profile)
	}
}

// Mode is how a SPIRE server comes to have a relationship.
type Mode string

const (
	// CRD is a ClusterFederatedTrustDomain, which the controller manager makes a
	// relationship of while the server runs.
	CRD Mode = "crd"
	// Static is a federates_with block of the server's configuration, which it
	// reads when it starts.
	Static Mode = "static"
	// API is a relationship that is made by SPIRE's API while the server runs. A controller
	// manager would delete it: that of the server makes no relationships then. It takes
	// the place of CRD where there is no controller manager.
	API Mode = "api"
	// Manual is no relationship at all: a bundle that somebody sets by hand. Only
	// the next such exchange refreshes it; an up is one.
	Manual Mode = "manual"
)

// ID reads "cluster1.com->cluster2.com": the arrow points at whom is trusted.
func (r RelationshipSpec) ID() string { return r.Truster.Name() + "->" + r.Trusted.Name() }

// WorkloadSpec is what a program in a cluster, or on a host, is meant to be.
type WorkloadSpec struct {
	// Name is unique in its lab.
	Name string
	App  App
	// Cluster is where it runs; empty where that is Host.
	Cluster string
	Host    string `json:",omitempty"`
	// Own is set where the program is the person's own.
	Own *Own `json:",omitempty"`
	// TrustDomain is the one that it belongs to; the zero value is the one of its
	// cluster or host.
	TrustDomain spiffeid.TrustDomain `json:",omitzero"`
	// Slot is the place of its address among those of its cluster or host.
	Slot int
	// Expose is the address on this machine that answers for the workload;
	// invalid (the zero value) when it is not exposed.
	Expose netip.AddrPort
	// Calls names the workloads that this one calls.
	Calls []string
	// DatabaseTLS gives the PostgreSQL next to it an identity, and TLS with it.
	DatabaseTLS bool `json:",omitempty"`
	// LegacyDatabase gives it the login of the database of a workload that calls it and lends
	// that.
	LegacyDatabase bool `json:",omitempty"`
}

// Own is a program that fedlab does not bring along. Paths are absolute.
type Own struct {
	// Chart is the folder of a Helm chart, which Values are given to; Manifests is a
	// folder of plain manifests. One of the two is set.
	Chart, Manifests string
	Values           map[string]any
	Images           []OwnImage
	// FederatesWith are the trust domains whose bundles the workload receives besides
	// its own. Nil are all that its own trusts.
	FederatesWith []spiffeid.TrustDomain
	// Hint tells the program which of several identities this one is; empty is that of
	// the demo programs.
	Hint string `json:",omitempty"`
	// Check is what the program answers when it is well; nil where nobody asks it.
	Check *OwnCheck `json:",omitempty"`
}

// OwnCheck is a request that a program of the person's own answers with a status from
// 200 to 299 when it is well.
type OwnCheck struct {
	Path string
	Port int
	// As is the trust domain of the probe that asks, with its SVID and by HTTPS, at the
	// workload's address. The zero value is none: the cluster's API leads to the port
	// of a pod, which is asked by plain HTTP.
	As spiffeid.TrustDomain `json:",omitzero"`
}

// OwnImage is the image of a program that fedlab does not bring along. Exactly one of
// Go, Archive and Docker says where the image comes from.
type OwnImage struct {
	// Name is what manifests call the image.
	Name string
	// Go is the folder of a Go main package. Archive is a file as 'docker save' writes
	// it, or an OCI layout in a tar. Docker is an image of the local engine.
	Go, Archive, Docker string
}

// URL returns where a browser on this machine finds the workload's page; empty
// where the workload is not exposed.
func (w WorkloadSpec) URL() string {
	if !w.Expose.IsValid() {
		return ""
	}
	host := w.Expose.String()
	if w.Expose.Addr() == netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
		host = fmt.Sprintf("localhost:%d", w.Expose.Port())
	}
	return "http://" + host + w.App.Page
}

// SPIFFEID returns the identity that the workload is registered with when it runs in
// a namespace. The error says what is wrong with the template of its app.
func (w WorkloadSpec) SPIFFEID(td spiffeid.TrustDomain, namespace string) (spiffeid.ID, error) {
	path, err := w.idPath(td, namespace)
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("SPIFFE ID of workload %s: %w", w.Name, err)
	}
	return spiffeid.FromPath(td, path)
}

// ProbeOf returns the name of the workload by which scenarios call from and to a
// trust domain.
func ProbeOf(td spiffeid.TrustDomain) string { return "probe-" + td.Name() }

// WithProbes returns t with a probe for each trust domain. Each probe may call each
// other.
func (t Topology) WithProbes() Topology {
	var names []string
	for _, td := range t.TrustDomains {
		names = append(names, ProbeOf(td.Name))
	}
	for _, td := range t.TrustDomains {
		own := ProbeOf(td.Name)
		t = t.withProbe(td, slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == own })...)
	}
	return t
}

// WithCheckers returns t with a probe for each trust domain as which a workload is
// checked.
func (t Topology) WithCheckers() Topology {
	for _, td := range t.TrustDomains {
		var checks []string
		for _, w := range t.Workloads {
			if w.Own != nil && w.Own.Check != nil && w.Own.Check.As == td.Name {
				checks = append(checks, w.Name)
			}
		}
		if len(checks) > 0 {
			t = t.withProbe(td, checks...)
		}
	}
	return t
}

// withProbe returns t with a probe of a trust domain that calls these workloads, besides
// those that it may call already.
func (t Topology) withProbe(td TrustDomainSpec, calls ...string) Topology {
	t.Workloads = slices.Clone(t.Workloads)
	i := slices.IndexFunc(t.Workloads, func(w WorkloadSpec) bool { return w.Name == ProbeOf(td.Name) })
	if i < 0 {
		i = len(t.Workloads)
		t.Workloads = append(t.Workloads, WorkloadSpec{Name: ProbeOf(td.Name), App: Probe(), Cluster: td.Cluster, Host: td.Host, TrustDomain: td.Name})
	}
	t.Workloads[i].Calls = append(slices.Clone(t.Workloads[i].Calls), calls...)
	return t
}
