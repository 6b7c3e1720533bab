package config

import (
	"strings"
	"time"
)

// What a lab file starts with.
const (
	APIVersion = "fedlab.dev/v1alpha1"
	Kind       = "Lab"
)

// Lab is a lab file. What each field means, takes and defaults to is in the
// table of fields.go.
type Lab struct {
	APIVersion string   `json:"apiVersion" yaml:"apiVersion"`
	Kind       string   `json:"kind" yaml:"kind"`
	Metadata   Metadata `json:"metadata" yaml:"metadata"`
	Spec       Spec     `json:"spec" yaml:"spec"`
}

// Metadata names the lab.
type Metadata struct {
	Name string `json:"name" yaml:"name"`
}

// Spec is what the lab is made of.
type Spec struct {
	Clusters      []Cluster      `json:"clusters" yaml:"clusters"`
	Hosts         []Host         `json:"hosts,omitempty" yaml:"hosts,omitempty"`
	TrustDomains  []TrustDomain  `json:"trustDomains,omitempty" yaml:"trustDomains,omitempty"`
	Federation    []Federation   `json:"federation,omitempty" yaml:"federation,omitempty"`
	Workloads     []Workload     `json:"workloads,omitempty" yaml:"workloads,omitempty"`
	Registrations []Registration `json:"registrations,omitempty" yaml:"registrations,omitempty"`
}

// Cluster is one Kubernetes cluster with a trust domain, or several.
type Cluster struct {
	Name         string   `json:"name" yaml:"name"`
	TrustDomain  string   `json:"trustDomain,omitempty" yaml:"trustDomain,omitempty"`
	TrustDomains []string `json:"trustDomains,omitempty" yaml:"trustDomains,flow,omitempty"`
}

// domains returns the trust domains of the cluster.
func (c Cluster) domains() []string {
	if c.TrustDomain != "" {
		return []string{c.TrustDomain}
	}
	return c.TrustDomains
}

// Host is one machine outside Kubernetes.
type Host struct {
	Name        string `json:"name" yaml:"name"`
	TrustDomain string `json:"trustDomain" yaml:"trustDomain"`
}

// TrustDomain is the settings of one SPIRE server.
type TrustDomain struct {
	Name              string         `json:"name" yaml:"name"`
	ServerCluster     string         `json:"serverCluster,omitempty" yaml:"serverCluster,omitempty"`
	BundlePlugin      string         `json:"bundlePlugin,omitempty" yaml:"bundlePlugin,omitempty"`
	ServerReplicas    int            `json:"serverReplicas,omitempty" yaml:"serverReplicas,omitempty"`
	EntryPrefix       string         `json:"entryPrefix,omitempty" yaml:"entryPrefix,omitempty"`
	NestedServers     []string       `json:"nestedServers,omitempty" yaml:"nestedServers,flow,omitempty"`
	BundleEndpoint    BundleEndpoint `json:"bundleEndpoint,omitzero" yaml:"bundleEndpoint,omitempty"`
	CA                CA             `json:"ca,omitzero" yaml:"ca,omitempty"`
	SVID              SVID           `json:"svid,omitzero" yaml:"svid,omitempty"`
	JWTIssuer         string         `json:"jwtIssuer,omitempty" yaml:"jwtIssuer,omitempty"`
	OIDCDiscovery     *OIDCDiscovery `json:"oidcDiscovery,omitempty" yaml:"oidcDiscovery,omitempty"`
	SPIRE             SPIRE          `json:"spire,omitzero" yaml:"spire,omitempty"`
	LogLevel          string         `json:"logLevel,omitempty" yaml:"logLevel,omitempty"`
	Datastore         string         `json:"datastore,omitempty" yaml:"datastore,omitempty"`
	UpstreamAuthority string         `json:"upstreamAuthority,omitempty" yaml:"upstreamAuthority,omitempty"`
}

// SPIRE is the versions of SPIRE's programs.
type SPIRE struct {
	Version      string `json:"version,omitempty" yaml:"version,omitempty"`
	AgentVersion string `json:"agentVersion,omitempty" yaml:"agentVersion,omitempty"`
}

// BundleEndpoint is where and how a trust domain publishes its bundle.
type BundleEndpoint struct {
	Profile     string    `json:"profile,omitempty" yaml:"profile,omitempty"`
	Host        string    `json:"host,omitempty" yaml:"host,omitempty"`
	Route       string    `json:"route,omitempty" yaml:"route,omitempty"`
	Path        string    `json:"path,omitempty" yaml:"path,omitempty"`
	Port        int       `json:"port,omitempty" yaml:"port,omitempty"`
	RefreshHint Duration  `json:"refreshHint,omitempty" yaml:"refreshHint,omitempty"`
	HTTPSWeb    *HTTPSWeb `json:"httpsWeb,omitempty" yaml:"httpsWeb,omitempty"`
}

// HTTPSWeb says where an https_web endpoint has its certificate from. It is
// there or not, even when empty: the profile demands it.
type HTTPSWeb struct {
	ServingCert *ServingCert `json:"servingCert,omitempty" yaml:"servingCert,omitempty"`
	ACME        *ACME        `json:"acme,omitempty" yaml:"acme,omitempty"`
}

// ACME is how a SPIRE server orders its serving certificate from the lab's ACME server.
type ACME struct {
	DomainName  string   `json:"domainName" yaml:"domainName"`
	Email       string   `json:"email" yaml:"email"`
	TOSAccepted *bool    `json:"tosAccepted" yaml:"tosAccepted"`
	TTL         Duration `json:"ttl,omitempty" yaml:"ttl,omitempty"`
}

// ServingCert is a certificate that the lab issues and renews, or with
// ExternalSecretRef one of the person's own.
type ServingCert struct {
	ExternalSecretRef string   `json:"externalSecretRef,omitempty" yaml:"externalSecretRef,omitempty"`
	Cert              string   `json:"cert,omitempty" yaml:"cert,omitempty"`
	Key               string   `json:"key,omitempty" yaml:"key,omitempty"`
	CA                string   `json:"ca,omitempty" yaml:"ca,omitempty"`
	TTL               Duration `json:"ttl,omitempty" yaml:"ttl,omitempty"`
	FileSyncInterval  Duration `json:"fileSyncInterval,omitempty" yaml:"fileSyncInterval,omitempty"`
	ShortIntervals    *bool    `json:"shortIntervals,omitempty" yaml:"shortIntervals,omitempty"`
}

// OIDCDiscovery is how the documents of an issuer are served. It is there or not, even
// when empty.
type OIDCDiscovery struct {
	PollInterval Duration `json:"pollInterval,omitempty" yaml:"pollInterval,omitempty"`
}

// CA is what a trust domain's authorities are like.
type CA struct {
	TTL        Duration `json:"ttl,omitempty" yaml:"ttl,omitempty"`
	KeyType    string   `json:"keyType,omitempty" yaml:"keyType,omitempty"`
	JWTKeyType string   `json:"jwtKeyType,omitempty" yaml:"jwtKeyType,omitempty"`
	Subject    Subject  `json:"subject,omitzero" yaml:"subject,omitempty"`
}

// Subject is the distinguished name of an X.509 authority.
type Subject struct {
	Country      string `json:"country,omitempty" yaml:"country,omitempty"`
	Organization string `json:"organization,omitempty" yaml:"organization,omitempty"`
	CommonName   string `json:"commonName,omitempty" yaml:"commonName,omitempty"`
}

// SVID is how long the identities of workloads live.
type SVID struct {
	X509TTL Duration `json:"x509TTL,omitempty" yaml:"x509TTL,omitempty"`
	JWTTTL  Duration `json:"jwtTTL,omitempty" yaml:"jwtTTL,omitempty"`
}

// Federation is one relationship with From and To, two with Between, and with
// Shape two for each pair of its trust domains that the shape joins.
type Federation struct {
	Between          []string   `json:"between,omitempty" yaml:"between,flow,omitempty"`
	From             string     `json:"from,omitempty" yaml:"from,omitempty"`
	To               string     `json:"to,omitempty" yaml:"to,omitempty"`
	Shape            string     `json:"shape,omitempty" yaml:"shape,omitempty"`
	Of               []string   `json:"of,omitempty" yaml:"of,flow,omitempty"`
	Branches         [][]string `json:"branches,omitempty" yaml:"branches,flow,omitempty"`
	Mode             string     `json:"mode,omitempty" yaml:"mode,omitempty"`
	Profile          string     `json:"profile,omitempty" yaml:"profile,omitempty"`
	EndpointSPIFFEID string     `json:"endpointSpiffeId,omitempty" yaml:"endpointSpiffeId,omitempty"`
}

// Workload is one program in one cluster, or on one host: an app that fedlab brings along, or a
// program of one's own, which a chart or manifests run.
type Workload struct {
	Name           string         `json:"name,omitempty" yaml:"name,omitempty"`
	App            string         `json:"app,omitempty" yaml:"app,omitempty"`
	Cluster        string         `json:"cluster,omitempty" yaml:"cluster,omitempty"`
	Host           string         `json:"host,omitempty" yaml:"host,omitempty"`
	TrustDomain    string         `json:"trustDomain,omitempty" yaml:"trustDomain,omitempty"`
	ReplicaOf      string         `json:"replicaOf,omitempty" yaml:"replicaOf,omitempty"`
	Expose         string         `json:"expose,omitempty" yaml:"expose,omitempty"`
	Calls          Names          `json:"calls,omitzero" yaml:"calls,flow,omitempty"`
	DatabaseTLS    bool           `json:"databaseTLS,omitempty" yaml:"databaseTLS,omitempty"`
	LegacyDatabase bool           `json:"legacyDatabase,omitempty" yaml:"legacyDatabase,omitempty"`
	Chart          string         `json:"chart,omitempty" yaml:"chart,omitempty"`
	Manifests      string         `json:"manifests,omitempty" yaml:"manifests,omitempty"`
	Values         map[string]any `json:"values,omitempty" yaml:"values,omitempty"`
	Images         []Image        `json:"images,omitempty" yaml:"images,omitempty"`
	Identity       *Identity      `json:"identity,omitempty" yaml:"identity,omitempty"`
	Port           int            `json:"port,omitempty" yaml:"port,omitempty"`
	Check          *Check         `json:"check,omitempty" yaml:"check,omitempty"`
}

// own reports whether the program is one's own.
func (w Workload) own() bool { return w.Chart != "" || w.Manifests != "" }

// Check is what a program of one's own answers when it is well.
type Check struct {
	Path string `json:"path" yaml:"path"`
	Port int    `json:"port,omitempty" yaml:"port,omitempty"`
	As   string `json:"as,omitempty" yaml:"as,omitempty"`
}

// Image says how the image of a program of one's own gets into the nodes.
type Image struct {
	Name    string `json:"name" yaml:"name"`
	Go      string `json:"go,omitempty" yaml:"go,omitempty"`
	Archive string `json:"archive,omitempty" yaml:"archive,omitempty"`
	Docker  string `json:"docker,omitempty" yaml:"docker,omitempty"`
}

// Identity is what a program of one's own is registered with.
type Identity struct {
	Namespace      string   `json:"namespace" yaml:"namespace"`
	ServiceAccount string   `json:"serviceAccount,omitempty" yaml:"serviceAccount,omitempty"`
	Path           string   `json:"path,omitempty" yaml:"path,omitempty"`
	DNSNames       []string `json:"dnsNames,omitempty" yaml:"dnsNames,flow,omitempty"`
	TTL            Duration `json:"ttl,omitempty" yaml:"ttl,omitempty"`
	Selectors      []string `json:"selectors,omitempty" yaml:"selectors,omitempty"`
	Hint           string   `json:"hint,omitempty" yaml:"hint,omitempty"`
	FederatesWith  Names    `json:"federatesWith,omitzero" yaml:"federatesWith,flow,omitempty"`
}

// Registration is an identity that is registered besides those of workloads, in one of the
// forms that upstream has.
type Registration struct {
	Name               string           `json:"name" yaml:"name"`
	TrustDomain        string           `json:"trustDomain" yaml:"trustDomain"`
	Cluster            string           `json:"cluster,omitempty" yaml:"cluster,omitempty"`
	ReplicaOf          string           `json:"replicaOf,omitempty" yaml:"replicaOf,omitempty"`
	ClusterSPIFFEID    *ClusterSPIFFEID `json:"clusterSPIFFEID,omitempty" yaml:"clusterSPIFFEID,omitempty"`
	ClusterStaticEntry *Entry           `json:"clusterStaticEntry,omitempty" yaml:"clusterStaticEntry,omitempty"`
	Entry              *Entry           `json:"entry,omitempty" yaml:"entry,omitempty"`
}

// ClusterSPIFFEID is the spec of that resource.
type ClusterSPIFFEID struct {
	SPIFFEIDTemplate          string         `json:"spiffeIDTemplate" yaml:"spiffeIDTemplate"`
	NamespaceSelector         *LabelSelector `json:"namespaceSelector,omitempty" yaml:"namespaceSelector,omitempty"`
	PodSelector               *LabelSelector `json:"podSelector,omitempty" yaml:"podSelector,omitempty"`
	WorkloadSelectorTemplates []string       `json:"workloadSelectorTemplates,omitempty" yaml:"workloadSelectorTemplates,omitempty"`
	DNSNameTemplates          []string       `json:"dnsNameTemplates,omitempty" yaml:"dnsNameTemplates,flow,omitempty"`
	AutoPopulateDNSNames      bool           `json:"autoPopulateDNSNames,omitempty" yaml:"autoPopulateDNSNames,omitempty"`
	TTL                       Duration       `json:"ttl,omitempty" yaml:"ttl,omitempty"`
	JWTTTL                    Duration       `json:"jwtTtl,omitempty" yaml:"jwtTtl,omitempty"`
	FederatesWith             []string       `json:"federatesWith,omitempty" yaml:"federatesWith,flow,omitempty"`
	Hint                      string         `json:"hint,omitempty" yaml:"hint,omitempty"`
	Fallback                  bool           `json:"fallback,omitempty" yaml:"fallback,omitempty"`
	Admin                     bool           `json:"admin,omitempty" yaml:"admin,omitempty"`
	Downstream                bool           `json:"downstream,omitempty" yaml:"downstream,omitempty"`
}

// LabelSelector selects what has all of its labels.
type LabelSelector struct {
	MatchLabels map[string]string `json:"matchLabels,omitempty" yaml:"matchLabels,flow,omitempty"`
}

// Entry is the spec of a ClusterStaticEntry, and an entry of SPIRE's API.
type Entry struct {
	SPIFFEID      string   `json:"spiffeID" yaml:"spiffeID"`
	ParentID      string   `json:"parentID" yaml:"parentID"`
	Selectors     []string `json:"selectors" yaml:"selectors,flow"`
	DNSNames      []string `json:"dnsNames,omitempty" yaml:"dnsNames,flow,omitempty"`
	X509SVIDTTL   Duration `json:"x509SVIDTTL,omitempty" yaml:"x509SVIDTTL,omitempty"`
	JWTSVIDTTL    Duration `json:"jwtSVIDTTL,omitempty" yaml:"jwtSVIDTTL,omitempty"`
	FederatesWith []string `json:"federatesWith,omitempty" yaml:"federatesWith,flow,omitempty"`
	Hint          string   `json:"hint,omitempty" yaml:"hint,omitempty"`
	Admin         bool     `json:"admin,omitempty" yaml:"admin,omitempty"`
	Downstream    bool     `json:"downstream,omitempty" yaml:"downstream,omitempty"`
}

// entry returns what stands for one entry, with the name of the field; nil for a
// clusterSPIFFEID, and for what is neither.
func (r Registration) entry() (*Entry, string) {
	if r.Entry != nil {
		return r.Entry, "entry"
	}
	return r.ClusterStaticEntry, "clusterStaticEntry"
}

// Names is a list of names. An empty one is not the same as none at all: a
// workload that says so calls nobody.
type Names []string

// IsZero reports whether the list is not there, for YAML and JSON.
func (n Names) IsZero() bool { return n == nil }

// Duration is a time.Duration that reads and writes itself with its unit, the
// short way: "5m", not "5m0s".
type Duration time.Duration

// String returns the shortest form that time.ParseDuration reads.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText implements encoding.TextMarshaler, for YAML and JSON.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler, for YAML and JSON.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}
