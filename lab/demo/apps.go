// Package demo is the catalogue of the demo programs that fedlab brings along: what a
// lab file may name under "app", what their charts are installed with, and what they
// report their calls. They are those of the articles that they come from.
//
// Nothing of the driver knows this package: whoever puts a driver together gives it
// the catalogue.
package demo

import (
	"time"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Apps returns the demo programs, in the order in which documents list them.
func Apps() []topology.App {
	return append(append(quotesApps(), companyApps()...), plainApps()...)
}

// plainApps are those of programs that know nothing of SPIFFE.
func plainApps() []topology.App {
	return []topology.App{
		{
			Name:           "plain-service",
			IDTemplate:     "/plain/{{ .PodMeta.Labels.service }}",
			Named:          true,
			Namespace:      companyNamespace,
			ServiceAccount: "plain-service",
			Deployment:     "plain-service",
			Port:           8443,
			Calls:          []string{"plain-service", "service"},
			Optional:       []string{topology.Ghostunnel},
		},
	}
}

// quotesApps are those of the stock-quote demo.
func quotesApps() []topology.App {
	return []topology.App{
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
			Tells:          "/api/quotes",
		},
	}
}

// companyNamespace is where the services of the enterprise demo run.
const companyNamespace = "distributed-app"

// companyApps are those of the enterprise demo. Templates, selectors and lives
// are what its article writes, in a form that the controller manager and the
// agent take: docs/guides/enterprise.md has the differences.
func companyApps() []topology.App {
	const service = "{{ .PodMeta.Labels.service }}.{{ .PodMeta.Namespace }}.svc.cluster.local"
	return []topology.App{
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
			Calls:          []string{"data-service", "legacy-bridge", "api-gateway", "service", "plain-service"},
			MinCalls:       1,
			Page:           "/federation",
			Tells:          "/api/calls",
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

			VerifiesDatabase: true,
			BorrowsDatabase:  true,
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
			LendsDatabase:  true,
			Calls:          []string{"data-service", "service"},
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
			Calls:          []string{"data-service", "legacy-bridge", "service"},
			// Below /api the gateway answers itself (apps/api-gateway).
			OwnPaths: []string{"api"},
		},
		{
			// No article writes its SPIFFE ID; a host has no namespace to put into it.
			Name:           "service",
			IDTemplate:     "/service/{{ .PodMeta.Labels.service }}",
			Named:          true,
			Namespace:      companyNamespace,
			ServiceAccount: "service",
			Deployment:     "service",
			Port:           8443,
			Calls:          []string{"service", "api-gateway", "plain-service"},
		},
	}
}
