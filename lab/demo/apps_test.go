package demo_test

import (
	"slices"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

var domain = spiffeid.RequireTrustDomainFromString("c0.test")

// What an app calls is an app, and no two apps share a SPIFFE ID or a name in
// the cluster.
func TestApps(t *testing.T) {
	taken := map[string]string{}
	for _, a := range demo.Apps() {
		id, err := topology.WorkloadSpec{Name: a.Name, App: a, Cluster: "c0"}.SPIFFEID(domain, a.Namespace)
		if err != nil {
			t.Errorf("app %s: %v", a.Name, err)
		}
		for _, name := range []string{"app " + a.Name, "SPIFFE ID " + id.String(), "deployment " + a.Namespace + "/" + a.Deployment, "service account " + a.Namespace + "/" + a.ServiceAccount} {
			if other, is := taken[name]; is {
				t.Errorf("apps %s and %s share %s", other, a.Name, name)
			}
			taken[name] = a.Name
		}
		for _, called := range a.Calls {
			if !slices.ContainsFunc(demo.Apps(), func(b topology.App) bool { return b.Name == called }) {
				t.Errorf("app %s calls %s, which is no app", a.Name, called)
			}
		}
		if a.Port < 1 || a.Port > 65535 {
			t.Errorf("app %s has port %d", a.Name, a.Port)
		}
	}
}

// The SPIFFE IDs of the enterprise demo are those that its article writes, with
// the article's names for namespaces, labels and trust domains.
func TestCompanySPIFFEIDs(t *testing.T) {
	want := map[string]string{
		"frontend":      "/ns/distributed-app/service/frontend",
		"data-service":  "/ns/distributed-app/service/data-processing/version/v2",
		"legacy-bridge": "/datacenter/primary/system/mainframe-bridge",
		"api-gateway":   "/gateway/edge/aws",
		"service":       "/service/auth-service",
	}
	for _, a := range demo.Apps() {
		path, there := want[a.Name]
		if !there {
			continue
		}
		delete(want, a.Name)
		if got, err := (topology.WorkloadSpec{Name: "auth-service", App: a, Cluster: "aws"}).SPIFFEID(domain, a.Namespace); got.Path() != path || err != nil {
			t.Errorf("%s has the path %s (%v), want %s", a.Name, got.Path(), err, path)
		}
	}
	if len(want) > 0 {
		t.Errorf("there are no apps %v", want)
	}
}
