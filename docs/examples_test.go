package docs_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// TestExamples: each lab file of docs/examples reads without a problem, a document names it,
// and it has what its example is about.
func TestExamples(t *testing.T) {
	about := map[string]func(topology.BundleEndpoint) bool{
		"openshift-acme.yaml": func(e topology.BundleEndpoint) bool {
			return e.Profile == topology.HTTPSWeb && e.ACME != nil && e.Route == topology.Passthrough
		},
		"openshift-certificate.yaml": func(e topology.BundleEndpoint) bool {
			return e.Profile == topology.HTTPSWeb && e.ServingCert.Own != nil && e.Route == topology.Reencrypt
		},
		"openshift-spiffe.yaml": func(e topology.BundleEndpoint) bool {
			return e.Profile == topology.HTTPSSPIFFE && e.Route == topology.Passthrough
		},
		"openshift-mixed.yaml": func(e topology.BundleEndpoint) bool {
			return e.Profile == topology.HTTPSSPIFFE && e.Route == topology.Passthrough
		},
	}
	text := string(documents(t)["docs/from-an-article.md"])
	found, err := filepath.Glob(filepath.Join(root, "docs", "examples", "*.yaml"))
	if err != nil || len(found) != len(about) {
		t.Errorf("examples %q, error %v, want %d", found, err, len(about))
	}
	for _, path := range found {
		name := filepath.Base(path)
		file, err := config.For(demo.Apps()).Open(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if !strings.Contains(text, "(examples/"+name+")") {
			t.Errorf("docs/from-an-article.md does not name %s", name)
		}
		if is := about[name]; is == nil || !is(file.Topology.TrustDomains[0].BundleEndpoint) {
			t.Errorf("the first endpoint of %s is %+v", name, file.Topology.TrustDomains[0].BundleEndpoint)
		}
	}
}
