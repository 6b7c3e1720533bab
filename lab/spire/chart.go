package spire

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// What charts/spire names things inside a cluster. A test of the chart holds
// both sides to it.
const (
	// ServerStatefulSet is what the server and the controller manager run in.
	ServerStatefulSet = "spire-server"
	// ServerPod is the first pod of ServerStatefulSet; there are more only where
	// replicas share a datastore, see ServerPods.
	ServerPod = ServerStatefulSet + "-0"
	// ServerContainer is the container of ServerPod that ServerProgram is in.
	ServerContainer = "spire-server"
	// ControllerManagerContainer is the container of ServerPod with the controller
	// manager of its own cluster; see ManagerContainer for those of others.
	ControllerManagerContainer = "spire-controller-manager"
	// ServerClaim is the volume of ServerPod: its keys, and its datastore where
	// that is no database server.
	ServerClaim = "data-" + ServerPod
	// ServerProgram is what Exec runs inside of ServerContainer. The image holds
	// nothing else, not even a shell.
	ServerProgram = "/opt/spire/bin/spire-server"
	// APIPort is the port of ServerPod that Dial reaches.
	APIPort = 8081
	// WebhookPort is the port of ServerPod on which the controller manager's webhook
	// is.
	WebhookPort = 9443
	// BundlePort is the port of ServerPod on which the bundle endpoint is, whichever
	// port peers know it by.
	BundlePort = 8443
	// AgentContainer is the container of AgentDaemonSet's pods.
	AgentContainer = "spire-agent"
	// AgentDaemonSet is what puts an agent on each node.
	AgentDaemonSet = "spire-agent"
	// serverServiceAccount is that of ServerPod.
	serverServiceAccount = "spire-server"
	// BundleEndpointService is what leads peers to the bundle endpoint, and agents in
	// other clusters to the API.
	BundleEndpointService = "spire-bundle-endpoint"
	// ProgramLabel is the label of the pods of ServerStatefulSet, which are what
	// BundleEndpointService leads to, and of those of AgentDaemonSet; its value is
	// that name.
	ProgramLabel = "app.kubernetes.io/name"
)

// What charts/spire finds in the namespace when it is installed, because nothing
// of Helm's may hold a key: a release keeps its values.
const (
	// WebCASecret is the CA that issues the certificates of an https_web
	// endpoint: its certificate at SecretCertificate, its key at SecretKey.
	WebCASecret = "spire-web-ca"
	// EndpointCASecret has the certificate, at SecretCertificate, of the CA of an https_web
	// endpoint whose certificate is issued elsewhere. It is for peers; the server does not
	// read it.
	EndpointCASecret = "spire-endpoint-ca"
	// UpstreamAuthoritySecret is the authority that signs those of the server:
	// its certificate at SecretCertificate, its key at SecretKey, and the root
	// that verifies it at SecretBundle.
	UpstreamAuthoritySecret = "spire-upstream-authority"
	// BundleConfigMap is where the server publishes its X.509 authorities, in PEM, at
	// SecretBundle: what an agent starts with. It does so when it starts and when
	// they change, and not when somebody else changes what is there (SPIRE
	// pkg/server/plugin/notifier/k8sbundle).
	BundleConfigMap = "spire-bundle"
	// BundlePublisher is the field manager by which a server writes BundleConfigMap in
	// another cluster. It does not force its way: where somebody else has written the
	// bundle, the next one is refused (SPIRE
	// pkg/server/plugin/bundlepublisher/k8sconfigmap/client.go).
	BundlePublisher = "spire-bundlepublisher-k8s_configmap"
	// WebRootsConfigMap is what the chart puts the web roots of peers into.
	WebRootsConfigMap = "spire-web-roots"
	// KubeconfigsSecret is by which a server gets into the other clusters of its trust
	// domain: a kubeconfig at the name of each.
	KubeconfigsSecret = "spire-kubeconfigs"
	// TokenSecret is in each of those clusters, and holds what such a kubeconfig is made
	// of: the token of the server's service account at "token", and the certificate of
	// the CA of the cluster's API at "ca.crt". Kubernetes fills it.
	TokenSecret = "spire-server-token"
	// SecretCertificate, SecretKey and SecretBundle are the keys of the data of
	// these Secrets; what they hold is in PEM.
	SecretCertificate = "tls.crt"
	SecretKey         = "tls.key"
	SecretBundle      = "bundle.crt"
	// DatabaseRelease is the release of charts/postgres that is the server's
	// datastore, DatabaseName the database and DatabaseUser its owner.
	DatabaseRelease = "spire-database"
	DatabaseName    = "spire"
	DatabaseUser    = "spire"
)

// Values is what charts/spire is installed with. Its fields are those of the
// chart's values.schema.json, where the limits of each are.
type Values struct {
	TrustDomain string `json:"trustDomain"`
	Cluster     string `json:"cluster"`
	// Class is that of the resources that the controller manager serves.
	Class string `json:"class"`
	// SocketDir is the folder on a node where the agent's socket is.
	SocketDir      string         `json:"socketDir"`
	AdminID        string         `json:"adminID"`
	LogLevel       string         `json:"logLevel"`
	Images         Images         `json:"images"`
	Server         ServerValues   `json:"server"`
	BundleEndpoint EndpointValues `json:"bundleEndpoint"`
	// FederatesWith is what the server's configuration says of other trust
	// domains. The server reads it when it starts, and lists none of it.
	FederatesWith []FederatesWithValues `json:"federatesWith"`
	// RelationshipsByAPI keeps the controller manager from making relationships, and so
	// from deleting those that it did not make.
	RelationshipsByAPI bool `json:"relationshipsByAPI,omitempty"`
	// WebRoots, each in PEM, verify the https_web endpoints of others.
	WebRoots          []string                   `json:"webRoots"`
	Datastore         DatastoreValues            `json:"datastore"`
	UpstreamAuthority topology.UpstreamAuthority `json:"upstreamAuthority"`
	// WithoutAgents leaves the agents out, as long as there is no bundle for them to
	// start with.
	WithoutAgents bool `json:"withoutAgents,omitempty"`
	// BundlePlugin writes the bundle into the clusters of Members. It is left out where
	// it is k8s_configmap, or there are none.
	BundlePlugin topology.BundlePlugin `json:"bundlePlugin,omitempty"`
	// Replicas is left out where there is one.
	Replicas int `json:"replicas,omitempty"`
	// EntryIDPrefix is that of the controller manager of the server's own cluster.
	EntryIDPrefix string `json:"entryIDPrefix,omitempty"`
	// Members are the other clusters whose agents attest to the server.
	Members []MemberValues `json:"members,omitempty"`
	// Upstream is set for a nested server.
	Upstream *UpstreamValues `json:"upstream,omitempty"`
	// JoinTokens lets agents on hosts outside Kubernetes attest with join tokens.
	JoinTokens bool `json:"joinTokens,omitempty"`
}

// UpstreamValues is how a nested server gets to its upstream.
type UpstreamValues struct {
	Address string `json:"address"`
	Port    int    `json:"port"`
	// SocketDir is the folder on the node with the socket of the agent that has attested
	// to the upstream.
	SocketDir string `json:"socketDir"`
}

// MemberValues is another cluster whose agents attest to a server.
type MemberValues struct {
	Cluster string `json:"cluster"`
	// Namespace is where the agents run, Class that of the resources that entries are
	// made of; both are of that cluster.
	Namespace string `json:"namespace"`
	Class     string `json:"class"`
	// Downstream is set where the agents are for a nested server there, whose namespace
	// the controller manager must not ignore.
	Downstream bool `json:"downstream,omitempty"`
	// Kubeconfig tells the one in KubeconfigsSecret from another: with another one the
	// server's pod starts again, because most of what is in it reads it once.
	Kubeconfig string `json:"kubeconfig"`
}

// AgentValues is what charts/spire is installed with where the server is in another
// cluster: agents, and what the server may do there.
type AgentValues struct {
	TrustDomain  string            `json:"trustDomain"`
	Cluster      string            `json:"cluster"`
	Class        string            `json:"class"`
	SocketDir    string            `json:"socketDir"`
	LogLevel     string            `json:"logLevel"`
	Images       AgentImages       `json:"images"`
	RemoteServer RemoteServerValue `json:"remoteServer"`
	// WithoutAgents is as in Values.
	WithoutAgents bool `json:"withoutAgents,omitempty"`
	// Replicas is how many servers there are, and so how many controller managers of the
	// cluster. It is left out where there is one.
	Replicas int `json:"replicas,omitempty"`
}

// AgentImages names the image that agents run.
type AgentImages struct {
	Agent string `json:"agent"`
}

// RemoteServerValue is where agents find a server that is in another cluster.
type RemoteServerValue struct {
	Address string `json:"address"`
	Port    int    `json:"port"`
}

// Images names the images to run, each as one whole reference.
type Images struct {
	Server            string `json:"server"`
	Agent             string `json:"agent"`
	ControllerManager string `json:"controllerManager"`
	// ServingCert is that of apps/serving-cert; an https_web endpoint needs it.
	ServingCert string `json:"servingCert"`
	// Postgres is that of apps/postgres; a datastore of that type needs it.
	Postgres string `json:"-"`
}

// ServerValues is what the server signs, and for how long; durations are
// written as Go writes them.
type ServerValues struct {
	CATTL string `json:"caTTL"`
	// CAKeyType and JWTKeyType are as topology.Settings has them: empty leaves it to
	// SPIRE.
	CAKeyType   topology.KeyType `json:"caKeyType,omitempty"`
	JWTKeyType  topology.KeyType `json:"jwtKeyType,omitempty"`
	CASubject   CASubjectValues  `json:"caSubject"`
	X509SVIDTTL string           `json:"x509SVIDTTL"`
	JWTSVIDTTL  string           `json:"jwtSVIDTTL"`
	JWTIssuer   string           `json:"jwtIssuer"`
}

// CASubjectValues is the subject of X.509 authorities. There is no
// organizational unit in it because SPIRE's ca_subject has none
// (cmd/spire-server/cli/run/run.go).
type CASubjectValues struct {
	Country      string `json:"country"`
	Organization string `json:"organization"`
	CommonName   string `json:"commonName"`
}

// EndpointValues is where the bundle endpoint is found, how it proves who it is,
// and what it says about how often to come back.
type EndpointValues struct {
	// Address is empty for a nested server, which has no endpoint.
	Address     string                   `json:"address,omitempty"`
	Port        int                      `json:"port"`
	Profile     topology.EndpointProfile `json:"profile"`
	RefreshHint string                   `json:"refreshHint"`
	// ServingCert is what an https_web endpoint shows; OwnCertificate takes its place where
	// the certificate is the person's own.
	ServingCert    *ServingCertValues    `json:"servingCert,omitempty"`
	OwnCertificate *OwnCertificateValues `json:"ownCertificate,omitempty"`
	// ACME takes its place where the server orders the certificate itself.
	ACME *ACMEValues `json:"acme,omitempty"`
}

// ACMEValues is how a server orders its serving certificate.
type ACMEValues struct {
	DirectoryURL string `json:"directoryURL"`
	DomainName   string `json:"domainName"`
	Email        string `json:"email"`
}

// OwnCertificateValues says where the server finds a serving certificate of the person's own.
type OwnCertificateValues struct {
	// Secret has it at SecretCertificate, and its key at SecretKey.
	Secret           string `json:"secret"`
	FileSyncInterval string `json:"fileSyncInterval"`
}

// ServingCertValues says which certificates the web CA of a trust domain issues
// for its endpoint.
type ServingCertValues struct {
	// Names are DNS names and addresses. Peers accept no certificate that leaves
	// out the one in the URL that they have.
	Names            []string `json:"names"`
	TTL              string   `json:"ttl"`
	FileSyncInterval string   `json:"fileSyncInterval"`
}

// FederatesWithValues is a relationship of mode static.
type FederatesWithValues struct {
	TrustDomain string                   `json:"trustDomain"`
	URL         string                   `json:"url"`
	Profile     topology.EndpointProfile `json:"profile"`
	// EndpointSPIFFEID is empty where the profile is https_web.
	EndpointSPIFFEID string `json:"endpointSPIFFEID,omitempty"`
}

// DatastoreValues is where the server keeps its entries and bundles.
type DatastoreValues struct {
	Type     topology.Datastore `json:"type"`
	Postgres *PostgresValues    `json:"postgres,omitempty"`
}

// PostgresValues names a release of charts/postgres in the same namespace, and
// the values that it was installed with.
type PostgresValues struct {
	// Image is that of apps/postgres, which the server's pod waits for it with.
	Image    string `json:"image"`
	Release  string `json:"release"`
	Database string `json:"database"`
	User     string `json:"user"`
}

// Settings is what NewValues makes values of.
type Settings struct {
	// Server is what is installed. Its address must be one of the cluster's MetalLB
	// pool.
	Server *topology.Server
	Images Images
	// WebRoots are the web CAs of those peers whose endpoints are https_web, each
	// in PEM. Without any, the server knows the public roots of its image, and
	// with one it knows no other. Another list restarts the server.
	WebRoots []string
	// Static are the trust domain's relationships of mode static, as
	// StaticRelationship returns them. Another list restarts the server.
	Static []FederatesWithValues
	// Kubeconfigs are what KubeconfigsSecret holds, for each of the server's members in
	// other clusters. Another one restarts the server.
	Kubeconfigs map[*topology.Member][]byte
}

// StaticRelationship returns what a truster's configuration says to fetch the
// bundle of the trusted domain from its endpoint. With https_spiffe the server
// fetches nothing before it holds a first bundle, which has no place in a
// configuration: SetBundle brings it.
func StaticRelationship(t *topology.Trust) FederatesWithValues {
	values := FederatesWithValues{TrustDomain: t.Trusted.String(), URL: BundleEndpointURL(t.Trusted.Server()), Profile: t.Profile}
	if t.Profile == topology.HTTPSSPIFFE {
		values.EndpointSPIFFEID = ServerID(t.Trusted.Name).String()
	}
	return values
}

// ServerPods returns the pods of a server, one for each replica.
func ServerPods(s *topology.Server) []string {
	names := []string{ServerPod}
	for i := 1; i < s.Domain.Replicas; i++ {
		names = append(names, ServerStatefulSet+"-"+strconv.Itoa(i))
	}
	return names
}

// SocketDir returns the folder on a node where the agents of a member have their
// socket, spire-agent.sock.
func SocketDir(m *topology.Member) string {
	folder := "/run/spire/agent-sockets"
	if m.Class != "" {
		folder += "-" + m.Class
	}
	return folder
}

// ManagerContainer returns the container, in the pod of its server, with the controller
// manager of a member.
func ManagerContainer(m *topology.Member) string {
	if !m.Remote() {
		return ControllerManagerContainer
	}
	return "manager-" + m.Cluster().Name
}

// NewValues returns the values that install a trust domain's server and its
// cluster's agents.
func NewValues(s Settings) Values {
	td, endpoint, address := s.Server.Domain, s.Server.Domain.BundleEndpoint, s.Server.Address.String()
	if s.Server.Nested() {
		address, endpoint.Profile = "", topology.HTTPSSPIFFE
	}
	values := Values{
		TrustDomain: td.String(),
		Cluster:     s.Server.Place.Cluster.Name,
		Class:       s.Server.Class,
		SocketDir:   SocketDir(s.Server.Home()),
		AdminID:     AdminID(td.Name).String(),
		LogLevel:    td.LogLevel,
		Images:      s.Images,
		Server: ServerValues{
			CATTL:      td.CATTL.String(),
			CAKeyType:  td.CAKeyType,
			JWTKeyType: td.JWTKeyType,
			CASubject: CASubjectValues{
				Country:      td.CASubject.Country,
				Organization: td.CASubject.Organization,
				CommonName:   td.CASubject.CommonName,
			},
			X509SVIDTTL: td.X509SVIDTTL.String(),
			JWTSVIDTTL:  td.JWTSVIDTTL.String(),
			JWTIssuer:   td.JWTIssuer,
		},
		BundleEndpoint: EndpointValues{
			Address:     address,
			Port:        endpoint.Port,
			Profile:     endpoint.Profile,
			RefreshHint: endpoint.RefreshHint.String(),
		},
		// Empty, not null, which would be no value; and sorted, so that another
		// order is no change.
		FederatesWith:      append([]FederatesWithValues{}, s.Static...),
		WebRoots:           append([]string{}, s.WebRoots...),
		Datastore:          DatastoreValues{Type: td.Datastore},
		UpstreamAuthority:  td.UpstreamAuthority,
		JoinTokens:         len(s.Server.OnHosts()) > 0,
		RelationshipsByAPI: s.Server.RelatesByAPI(),
	}
	slices.SortFunc(values.FederatesWith, func(a, b FederatesWithValues) int { return strings.Compare(a.TrustDomain, b.TrustDomain) })
	slices.Sort(values.WebRoots)
	values.WebRoots = slices.Compact(values.WebRoots)
	switch own := endpoint.ServingCert.Own; {
	case endpoint.Profile != topology.HTTPSWeb:
	case endpoint.ACME != nil:
		values.BundleEndpoint.ACME = &ACMEValues{DirectoryURL: topology.ACMEDirectory, DomainName: endpoint.Host, Email: endpoint.ACME.Email}
	case own != nil:
		values.BundleEndpoint.OwnCertificate = &OwnCertificateValues{Secret: own.Secret, FileSyncInterval: endpoint.ServingCert.FileSyncInterval.String()}
	default:
		values.BundleEndpoint.ServingCert = &ServingCertValues{
			Names:            endpointNames(s.Server),
			TTL:              endpoint.ServingCert.TTL.String(),
			FileSyncInterval: endpoint.ServingCert.FileSyncInterval.String(),
		}
	}
	if td.Datastore == topology.Postgres {
		values.Datastore.Postgres = &PostgresValues{Image: s.Images.Postgres, Release: DatabaseRelease, Database: DatabaseName, User: DatabaseUser}
	}
	values.Replicas, values.EntryIDPrefix = td.Replicas, td.EntryPrefix
	if td.BundlePlugin != topology.K8sConfigMap && !s.Server.Nested() {
		values.BundlePlugin = td.BundlePlugin
	}
	if upstream := s.Server.Upstream; upstream != nil {
		values.UpstreamAuthority = topology.SPIRE
		values.Upstream = &UpstreamValues{Address: upstream.Address.String(), Port: APIPort, SocketDir: SocketDir(s.Server.Link)}
	}
	for _, m := range s.Server.Remote() {
		// Half of a digest does not lead back to the token in it.
		sum := sha256.Sum256(s.Kubeconfigs[m])
		values.Members = append(values.Members, MemberValues{
			Cluster: m.Cluster().Name, Namespace: m.Place.Namespace, Class: m.Class, Downstream: m.Downstream != nil, Kubeconfig: hex.EncodeToString(sum[:8]),
		})
	}
	return values
}

// endpointNames returns what the certificate of an https_web endpoint is for: its address,
// and its DNS name where it has one.
func endpointNames(s *topology.Server) []string {
	return slices.Compact([]string{s.Address.String(), s.EndpointHost()})
}

// NewAgentValues returns the values that install the agents of a member whose server is
// in another cluster.
func NewAgentValues(m *topology.Member, image string) AgentValues {
	return AgentValues{
		TrustDomain:  m.Domain.String(),
		Cluster:      m.Cluster().Name,
		Class:        m.Class,
		SocketDir:    SocketDir(m),
		LogLevel:     m.Domain.LogLevel,
		Images:       AgentImages{Agent: image},
		RemoteServer: RemoteServerValue{Address: m.Server.Address.String(), Port: APIPort},
		Replicas:     m.Domain.Replicas,
	}
}
