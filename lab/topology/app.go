package topology

import (
	"maps"
	"strings"
	"text/template"
	"time"
)

// App is one of the demo programs that fedlab brings along: what the lab file
// may name under "app", and the names it has inside a cluster (those of the
// articles that the demos come from, mission E1 and E2).
type App struct {
	// Name is also the folder below apps/ and charts/, and the image's name.
	Name string
	// IDTemplate is the path of its SPIFFE ID, as a ClusterSPIFFEID has it.
	IDTemplate string
	// Labels are those of its pods that IDTemplate and Selectors read. Regional
	// apps have the label "region" besides, which is the name of the cluster.
	Labels   map[string]string
	Regional bool
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
	// Database names the PostgreSQL that runs beside it; empty if it has none.
	Database string
	// Calls names the apps that this one calls; empty if none. It needs MinCalls
	// workloads to call, and can call MaxCalls; zero is no limit.
	Calls              []string
	MinCalls, MaxCalls int
	// Page is the path of its page in a browser; empty if it has none, and
	// then it cannot be exposed.
	Page string
}

// Apps returns the demo programs, in the order in which documents list them.
func Apps() []App {
	return append(quotesApps(), companyApps()...)
}

// quotesApps are those of the stock-quote demo.
func quotesApps() []App {
	return []App{
		{
			Name:           "stock-quotes",
			IDTemplate:     "/server",
			Namespace:      "demo",
			ServiceAccount: "server-service-account",
			Deployment:     "stock-quotes-service",
			Port:           8090,
		},
		{
			Name:           "broker-webapp",
			IDTemplate:     "/client",
			Namespace:      "demo",
			ServiceAccount: "client-service-account",
			Deployment:     "broker-webapp",
			Port:           8080,
			Calls:          []string{"stock-quotes"},
			MinCalls:       1,
			MaxCalls:       1,
			Page:           "/quotes",
		},
	}
}

// companyNamespace is where the services of the enterprise demo run.
const companyNamespace = "distributed-app"

// companyApps are those of the enterprise demo. Templates, selectors and lives
// are what its article writes, in a form that the controller manager and the
// agent take: docs/guides/enterprise.md has the differences.
func companyApps() []App {
	const service = "{{ .PodMeta.Labels.service }}.{{ .PodMeta.Namespace }}.svc.cluster.local"
	return []App{
		{
			Name:           "frontend",
			IDTemplate:     "/ns/{{ .PodMeta.Namespace }}/service/{{ .PodMeta.Labels.service }}",
			Labels:         map[string]string{"component": "frontend", "service": "frontend"},
			DNSNames:       []string{service, "frontend.{{ .TrustDomain }}"},
			Selectors:      []string{"k8s:pod-label:service:{{ .PodMeta.Labels.service }}"},
			X509SVIDTTL:    time.Hour,
			Namespace:      companyNamespace,
			ServiceAccount: "frontend-service",
			Deployment:     "frontend",
			Port:           8080,
			Calls:          []string{"data-service", "legacy-bridge", "api-gateway"},
			MinCalls:       1,
			Page:           "/federation",
		},
		{
			Name:           "data-service",
			IDTemplate:     "/ns/{{ .PodMeta.Namespace }}/service/{{ .PodMeta.Labels.service }}/version/{{ .PodMeta.Labels.version }}",
			Labels:         map[string]string{"component": "data-processing", "service": "data-processing", "version": "v2"},
			DNSNames:       []string{service, "data.{{ .TrustDomain }}"},
			Selectors:      []string{"k8s:pod-label:service:{{ .PodMeta.Labels.service }}", "k8s:pod-label:version:{{ .PodMeta.Labels.version }}"},
			X509SVIDTTL:    time.Hour,
			Namespace:      companyNamespace,
			ServiceAccount: "data-service",
			Deployment:     "data-service",
			Port:           8443,
			Database:       "data-database",
		},
		{
			Name:       "legacy-bridge",
			IDTemplate: "/datacenter/{{ .PodMeta.Labels.datacenter }}/system/{{ .PodMeta.Labels.system }}",
			Labels:     map[string]string{"component": "legacy-bridge", "datacenter": "primary", "system": "mainframe-bridge"},
			DNSNames:   []string{"{{ .PodMeta.Labels.system }}.{{ .PodMeta.Namespace }}.svc.cluster.local", "legacy.{{ .TrustDomain }}"},
			Selectors: []string{
				"k8s:pod-label:datacenter:{{ .PodMeta.Labels.datacenter }}", "k8s:pod-label:system:{{ .PodMeta.Labels.system }}",
			},
			X509SVIDTTL:    2 * time.Hour,
			Namespace:      companyNamespace,
			ServiceAccount: "legacy-bridge",
			Deployment:     "legacy-bridge",
			Port:           8443,
			Database:       "legacy-database",
			Calls:          []string{"data-service"},
		},
		{
			Name: "api-gateway",
			// A label with a dash is no field of a template.
			IDTemplate: `/gateway/{{ index .PodMeta.Labels "gateway-type" }}/{{ .PodMeta.Labels.region }}`,
			Labels:     map[string]string{"component": "api-gateway", "gateway-type": "edge"},
			Regional:   true,
			DNSNames:   []string{"api-gateway.{{ .PodMeta.Namespace }}.svc.cluster.local", "api.{{ .TrustDomain }}"},
			Selectors: []string{
				`k8s:pod-label:gateway-type:{{ index .PodMeta.Labels "gateway-type" }}`, "k8s:pod-label:region:{{ .PodMeta.Labels.region }}",
			},
			X509SVIDTTL:    time.Hour,
			Namespace:      companyNamespace,
			ServiceAccount: "api-gateway",
			Deployment:     "api-gateway",
			Port:           8443,
			Calls:          []string{"data-service", "legacy-bridge"},
		},
	}
}

// SyntheticTrustDomain is the name of the trust domain that scenarios make up.
const SyntheticTrustDomain = "synthetic.test"

// Probe is the program by which scenarios call from one trust domain to another
// and look at what the Workload API hands out. It is no app of the lab file:
// WithProbes puts one into each trust domain while scenarios run.
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

// podLabels returns the labels of a workload's pods that its SPIFFE ID is made
// of.
func (w WorkloadSpec) podLabels() map[string]string {
	labels := maps.Clone(w.App.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	if w.App.Regional {
		labels["region"] = w.Cluster
	}
	return labels
}

// idPath fills in the template of the workload's SPIFFE ID as the controller
// manager does (its pkg/spireentry, RenderPodEntry).
func (w WorkloadSpec) idPath(namespace string) (string, error) {
	parsed, err := template.New(w.App.Name).Option("missingkey=error").Parse(w.App.IDTemplate)
	if err != nil {
		return "", err
	}
	type meta struct {
		Namespace string
		Labels    map[string]string
	}
	var path strings.Builder
	err = parsed.Execute(&path, struct{ PodMeta meta }{meta{namespace, w.podLabels()}})
	return path.String(), err
}
