package spire

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// What charts/oidc-discovery-provider names things. A test of the chart holds both sides
// to it.
const (
	// DiscoveryChart is the name of the chart.
	DiscoveryChart = "oidc-discovery-provider"
	// DiscoveryName is the release, and what its Deployment, its Service and its service
	// account are called.
	DiscoveryName = "spire-oidc-discovery-provider"
	// DiscoveryContainer is the container with the provider.
	DiscoveryContainer = "oidc-discovery-provider"
	// DiscoveryPort is the port of the pod on which the documents are, whichever port the
	// issuer has.
	DiscoveryPort = 8443
)

// The certificate of a provider: how long it is good for, and how often the provider looks
// for the next one. It is issued when a third remains.
const (
	discoveryCertTTL  = 90 * 24 * time.Hour
	discoveryCertSync = time.Minute
)

// DiscoveryValues is what charts/oidc-discovery-provider is installed with. Its fields are
// those of the chart's values.schema.json, where the limits of each are.
type DiscoveryValues struct {
	TrustDomain  string               `json:"trustDomain"`
	Images       DiscoveryImages      `json:"images"`
	LogLevel     string               `json:"logLevel"`
	Issuer       string               `json:"issuer"`
	Host         string               `json:"host"`
	Path         string               `json:"path"`
	PollInterval string               `json:"pollInterval"`
	ServingCert  DiscoveryCertValues  `json:"servingCert"`
	SPIFFE       DiscoverySocketValue `json:"spiffe"`
	Service      DiscoveryService     `json:"service"`
}

// DiscoveryImages names the images to run, each as one whole reference.
type DiscoveryImages struct {
	Provider    string `json:"provider"`
	ServingCert string `json:"servingCert"`
}

// DiscoveryCertValues says which certificates the provider shows.
type DiscoveryCertValues struct {
	TTL              string `json:"ttl"`
	FileSyncInterval string `json:"fileSyncInterval"`
}

// DiscoverySocketValue says where the socket of the provider's agent is.
type DiscoverySocketValue struct {
	SocketDir string `json:"socketDir"`
}

// DiscoveryService is where the provider is found.
type DiscoveryService struct {
	Port    int    `json:"port"`
	Address string `json:"address"`
}

// NewDiscoveryValues returns the values that install an OIDC discovery provider, whose
// address must be one of the cluster's MetalLB pool.
func NewDiscoveryValues(d *topology.Discovery, images DiscoveryImages) DiscoveryValues {
	return DiscoveryValues{
		TrustDomain: d.Domain.String(), Images: images, LogLevel: d.Domain.LogLevel,
		Issuer: d.Issuer, Host: d.Host, Path: d.Path, PollInterval: d.Domain.OIDCDiscovery.PollInterval.String(),
		ServingCert: DiscoveryCertValues{TTL: discoveryCertTTL.String(), FileSyncInterval: discoveryCertSync.String()},
		SPIFFE:      DiscoverySocketValue{SocketDir: SocketDir(d.Member)},
		Service:     DiscoveryService{Port: d.Port, Address: d.Address.String()},
	}
}

// DiscoveryID returns the SPIFFE ID of the OIDC discovery provider of a trust domain. The
// provider presents it to nobody: by it the agent gives it the keys.
func DiscoveryID(td spiffeid.TrustDomain) spiffeid.ID {
	return spiffeid.RequireFromPath(td, "/fedlab/oidc-discovery-provider")
}

// NodesID returns the SPIFFE ID of a node alias that stands for the agents of a trust domain
// in a cluster.
func NodesID(m *topology.Member) spiffeid.ID {
	return spiffeid.RequireFromPath(m.Domain.Name, "/fedlab/nodes/"+m.Cluster().Name)
}

// DiscoveryEntries returns the ClusterStaticEntries by which a provider has its identity: a
// node alias of the agents in its cluster, and below it the provider. A ClusterSPIFFEID
// cannot do it: controller managers pass over the namespaces of SPIRE's servers, where the
// provider runs.
func DiscoveryEntries(d *topology.Discovery) []Resource {
	place, class := d.Place(), d.Domain.Server().Class
	names := DiscoveryEntryNames(d)
	entry := func(name string, spec StaticEntrySpec) Resource {
		spec.ClassName = class
		return Resource{APIVersion: ResourceAPIVersion, Kind: "ClusterStaticEntry", Metadata: Metadata{Name: name, Labels: Owned()}, Spec: spec}
	}
	return []Resource{
		entry(names[0], StaticEntrySpec{
			SPIFFEID: NodesID(d.Member).String(), ParentID: ServerID(d.Domain.Name).String(),
			Selectors: []string{"k8s_psat:cluster:" + place.Cluster.Name},
		}),
		entry(names[1], StaticEntrySpec{
			SPIFFEID: DiscoveryID(d.Domain.Name).String(), ParentID: NodesID(d.Member).String(),
			Selectors: []string{"k8s:ns:" + place.Namespace, "k8s:sa:" + DiscoveryName}, Hint: Hint,
		}),
	}
}

// DiscoveryEntryNames returns the names of those entries. No workload has them: the name of
// none has a dot.
func DiscoveryEntryNames(d *topology.Discovery) []string {
	below := "." + d.Place().Namespace
	return []string{"nodes" + below, "oidc-discovery-provider" + below}
}
