package spire

import (
	"net/netip"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// What charts/spire names things inside a cluster. A test of the chart holds
// both sides to it.
const (
	// Namespace is where the release goes.
	Namespace = "spire-system"
	// ServerStatefulSet is what the server and the controller manager run in.
	ServerStatefulSet = "spire-server"
	// ServerPod is the one pod of ServerStatefulSet.
	ServerPod = ServerStatefulSet + "-0"
	// ServerContainer is the container of ServerPod that ServerProgram is in.
	ServerContainer = "spire-server"
	// ServerProgram is what Exec runs inside of ServerContainer. The image holds
	// nothing else, not even a shell.
	ServerProgram = "/opt/spire/bin/spire-server"
	// APIPort is the port of ServerPod that Dial reaches.
	APIPort = 8081
	// AgentDaemonSet is what puts an agent on each node.
	AgentDaemonSet = "spire-agent"
)

// Values is what charts/spire is installed with. Its fields are those of the
// chart's values.schema.json, where the limits of each are.
type Values struct {
	TrustDomain    string         `json:"trustDomain"`
	Cluster        string         `json:"cluster"`
	AdminID        string         `json:"adminID"`
	LogLevel       string         `json:"logLevel"`
	Images         Images         `json:"images"`
	Server         ServerValues   `json:"server"`
	BundleEndpoint EndpointValues `json:"bundleEndpoint"`
}

// Images names the images to run, each as one whole reference.
type Images struct {
	Server            string `json:"server"`
	Agent             string `json:"agent"`
	ControllerManager string `json:"controllerManager"`
}

// ServerValues is what the server signs, and for how long; durations are
// written as Go writes them.
type ServerValues struct {
	CATTL       string          `json:"caTTL"`
	CASubject   CASubjectValues `json:"caSubject"`
	X509SVIDTTL string          `json:"x509SVIDTTL"`
	JWTSVIDTTL  string          `json:"jwtSVIDTTL"`
	JWTIssuer   string          `json:"jwtIssuer"`
}

// CASubjectValues is the subject of X.509 authorities. There is no
// organizational unit in it because SPIRE's ca_subject has none
// (cmd/spire-server/cli/run/run.go).
type CASubjectValues struct {
	Country      string `json:"country"`
	Organization string `json:"organization"`
	CommonName   string `json:"commonName"`
}

// EndpointValues is where the bundle endpoint is found, and what it says about
// how often to come back.
type EndpointValues struct {
	Address     string `json:"address"`
	Port        int    `json:"port"`
	Profile     string `json:"profile"`
	RefreshHint string `json:"refreshHint"`
}

// NewValues returns the values that install td's server and its cluster's
// agents. The bundle endpoint gets the given address, which must be one of the
// cluster's MetalLB pool.
func NewValues(td topology.TrustDomain, address netip.Addr, images Images) Values {
	return Values{
		TrustDomain: td.Name.Name(),
		Cluster:     td.Cluster,
		AdminID:     AdminID(td.Name).String(),
		LogLevel:    td.LogLevel,
		Images:      images,
		Server: ServerValues{
			CATTL: td.CATTL.String(),
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
			Address:     address.String(),
			Port:        td.BundleEndpoint.Port,
			Profile:     string(td.BundleEndpoint.Profile),
			RefreshHint: td.BundleEndpoint.RefreshHint.String(),
		},
	}
}
