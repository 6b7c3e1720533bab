package topology

import (
	"slices"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// federated returns three trust domains of which the first trusts both others,
// and the second the first; the workloads of the last two call the first's.
func federated() Topology {
	t := lab(3)
	a, b, c := t.TrustDomains[0].Name, t.TrustDomains[1].Name, t.TrustDomains[2].Name
	t.Relationships = []RelationshipSpec{{Truster: a, Trusted: c}, {Truster: b, Trusted: a}, {Truster: a, Trusted: b}}
	t.Workloads[1].Calls = []string{"wc0"}
	t.Workloads[2].Calls = []string{"wc0"}
	return t
}

// What an app calls is an app, and no two apps share a SPIFFE ID or a name in
// the cluster.
func TestApps(t *testing.T) {
	taken := map[string]string{}
	for _, a := range Apps() {
		path, err := WorkloadSpec{Name: a.Name, App: a, Cluster: "c0"}.idPath(a.Namespace)
		if err != nil {
			t.Errorf("app %s: %v", a.Name, err)
		}
		for _, name := range []string{"app " + a.Name, "path " + path, "deployment " + a.Namespace + "/" + a.Deployment, "service account " + a.Namespace + "/" + a.ServiceAccount} {
			if other, is := taken[name]; is {
				t.Errorf("apps %s and %s share %s", other, a.Name, name)
			}
			taken[name] = a.Name
		}
		for _, called := range a.Calls {
			if !slices.ContainsFunc(Apps(), func(b App) bool { return b.Name == called }) {
				t.Errorf("app %s calls %s, which is no app", a.Name, called)
			}
		}
		if _, err := spiffeid.FromPath(spiffeid.RequireTrustDomainFromString("c0.test"), path); err != nil {
			t.Errorf("app %s: %v", a.Name, err)
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
	}
	for _, a := range companyApps() {
		if got, err := (WorkloadSpec{App: a, Cluster: "aws"}).idPath(a.Namespace); got != want[a.Name] || err != nil {
			t.Errorf("%s has the path %s (%v), want %s", a.Name, got, err, want[a.Name])
		}
	}
}
