package topology

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// App is a program that a workload may run: its identity, the names that it has
// inside a cluster, and whom it calls.
type App struct {
	// Name is also the folder below apps/ and charts/, and the image's name.
	Name string
	// IDTemplate is the path of its SPIFFE ID, as a ClusterSPIFFEID has it.
	IDTemplate string
	// Labels are those of its pods that IDTemplate and Selectors read. Regional
	// apps have the label "region" besides, which is the name of the cluster; Named
	// ones have the label "service", which is the name of the workload.
	Labels   map[string]string
	Regional bool
	Named    bool `json:",omitempty"`
	// DNSNames and Selectors are templates like IDTemplate. The namespace and
	// the service account are always selected by.
	DNSNames, Selectors []string
	// X509SVIDTTL is the life of its X509-SVIDs; zero leaves it to the server.
	X509SVIDTTL    time.Duration
	Namespace      string
	ServiceAccount string
	// Deployment names the Deployment and, where there is one, the Service.
	Deployment string
	// Port is the one that peers or browsers call.
	Port int
	// Database names the PostgreSQL that runs next to it; empty if it has none.
	Database string
	// VerifiesDatabase says that the program can ask that PostgreSQL for a certificate of
	// the trust domain.
	VerifiesDatabase bool `json:",omitempty"`
	// LendsDatabase says that those whom it calls may reach that PostgreSQL through it, at
	// DatabasePort, and BorrowsDatabase that the program can do so with another's.
	LendsDatabase, BorrowsDatabase bool `json:",omitempty"`
	// Calls names the apps that this one calls; empty if none. It needs MinCalls
	// workloads to call, and can call MaxCalls; zero is no limit.
	Calls              []string
	MinCalls, MaxCalls int
	// OwnPaths are the first parts of those paths that it answers itself. What
	// begins otherwise it passes on to the workload of that name.
	OwnPaths []string `json:",omitempty"`
	// Page is the path of its page in a browser; empty if it has none, and
	// then it cannot be exposed. Tells is the path where it tells, as JSON, how its
	// calls go and those of the workloads that it calls.
	Page  string
	Tells string `json:",omitempty"`
	// Optional names the optional programs that run in its pods besides its own.
	Optional []string `json:",omitempty"`
}

// DatabasePort is where a workload that lends its database lets others through to it.
const DatabasePort = 5432

// The optional programs: those of others that only some labs run, and whose images are made
// for these.
const (
	Pebble       = "pebble"
	Ghostunnel   = "ghostunnel"
	SPIFFEHelper = "spiffe-helper"
	OIDCProvider = "oidc-discovery-provider"
	HAProxy      = "haproxy"
)

// OptionalPrograms returns the optional programs that the lab runs, each once.
func (t Topology) OptionalPrograms() []string {
	var all []string
	for _, w := range t.Workloads {
		all = append(all, w.App.Optional...)
		if w.DatabaseTLS {
			all = append(all, SPIFFEHelper)
		}
	}
	if t.ACMEServer != nil {
		all = append(all, Pebble)
	}
	for _, td := range t.TrustDomains {
		if td.OIDCDiscovery.PollInterval > 0 {
			all = append(all, OIDCProvider)
		}
		if td.BundleEndpoint.Route != "" {
			all = append(all, HAProxy)
		}
		for _, other := range []string{td.OtherServer(), td.OtherAgent()} {
			if other != "" {
				all = append(all, other)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// SyntheticTrustDomain is the name of the trust domain that scenarios make up.
const SyntheticTrustDomain = "synthetic.test"

// Probe is the program by which scenarios call from one trust domain to another
// and look at what the Workload API hands out. It is no app of the lab file:
// WithProbes puts one into each trust domain while scenarios run, and WithCheckers one
// into those as which programs are checked.
func Probe() App {
	return App{
		Name:           "probe",
		IDTemplate:     "/fedlab/probe",
		Namespace:      "fedlab-probe",
		ServiceAccount: "probe",
		Deployment:     "probe",
		Port:           8443,
		Calls:          []string{"probe"},
	}
}

// ProbeControlPort is where a probe takes orders, on its pod's loopback address alone.
const ProbeControlPort = 8080

// podLabels returns the labels of a workload's pods that its SPIFFE ID is made
// of.
func (w WorkloadSpec) podLabels() map[string]string {
	labels := maps.Clone(w.App.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	if w.App.Regional {
		labels["region"] = cmp.Or(w.Cluster, w.Host)
	}
	if w.App.Named {
		labels["service"] = w.Name
	}
	return labels
}

// idPath fills in the template of the workload's SPIFFE ID as the controller
// manager does (its pkg/spireentry, RenderPodEntry).
func (w WorkloadSpec) idPath(td spiffeid.TrustDomain, namespace string) (string, error) {
	parsed, err := template.New(w.App.Name).Option("missingkey=error").Parse(w.App.IDTemplate)
	if err != nil {
		return "", err
	}
	type meta struct {
		Namespace string
		Labels    map[string]string
	}
	type spec struct{ ServiceAccountName string }
	var path strings.Builder
	err = parsed.Execute(&path, struct {
		TrustDomain string
		PodMeta     meta
		PodSpec     spec
	}{td.Name(), meta{namespace, w.podLabels()}, spec{w.App.ServiceAccount}})
	return path.String(), err
}
