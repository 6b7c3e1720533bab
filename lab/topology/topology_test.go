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
	t.Relationships = []Relationship{{Truster: a, Trusted: c}, {Truster: b, Trusted: a}, {Truster: a, Trusted: b}}
	t.Workloads[1].Calls = []string{"wc0"}
	t.Workloads[2].Calls = []string{"wc0"}
	return t
}

func TestLookups(t *testing.T) {
	top := federated()
	if c, err := top.Cluster("c1"); err != nil || c.Name != "c1" || c.PodSubnet != top.Clusters[1].PodSubnet {
		t.Errorf("Cluster(c1) = %+v, %v", c, err)
	}
	if td, err := top.TrustDomain(top.TrustDomains[2].Name); err != nil || td.Cluster != "c2" {
		t.Errorf("TrustDomain(c2.test) = %+v, %v", td, err)
	}
	if w, err := top.Workload("wc2"); err != nil || w.Cluster != "c2" {
		t.Errorf("Workload(wc2) = %+v, %v", w, err)
	}
	if td, err := top.TrustDomainOf("c1"); err != nil || td.Name.Name() != "c1.test" {
		t.Errorf("TrustDomainOf(c1) = %+v, %v", td, err)
	}
	if id, err := top.SPIFFEID(top.Workloads[1]); err != nil || id.String() != "spiffe://c1.test/server" {
		t.Errorf("SPIFFEID(wc1) = %s, %v", id, err)
	}
}

func TestLookupsOfStrangers(t *testing.T) {
	top := federated()
	tests := map[string]func() error{
		`lab lab has no cluster "x"`:               func() error { _, err := top.Cluster("x"); return err },
		`lab lab has no trust domain "x"`:          func() error { _, err := top.TrustDomain(spiffeid.RequireTrustDomainFromString("x")); return err },
		`lab lab has no workload "x"`:              func() error { _, err := top.Workload("x"); return err },
		`cluster x of lab lab has no trust domain`: func() error { _, err := top.SPIFFEID(Workload{Cluster: "x"}); return err },
	}
	for want, call := range tests {
		if err := call(); err == nil || err.Error() != want {
			t.Errorf("got error %v, want %s", err, want)
		}
	}
}

func TestRelationships(t *testing.T) {
	top := federated()
	tests := map[int][]string{0: {"c2.test", "c1.test"}, 1: {"c0.test"}, 2: nil}
	for i, want := range tests {
		var got []string
		for _, td := range top.TrustedBy(top.TrustDomains[i].Name) {
			got = append(got, td.Name())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s trusts %v, want %v", top.TrustDomains[i].Name, got, want)
		}
	}
	if got, want := top.Relationships[1].ID(), "c1.test->c0.test"; got != want {
		t.Errorf("got ID %s, want %s", got, want)
	}
}

func TestCallers(t *testing.T) {
	top := federated()
	var got []string
	for _, w := range top.Callers("wc0") {
		got = append(got, w.Name)
	}
	if want := []string{"wc1", "wc2"}; !slices.Equal(got, want) {
		t.Errorf("callers of wc0 are %v, want %v", got, want)
	}
	if got := top.Callers("wc1"); got != nil {
		t.Errorf("callers of wc1 are %v, want none", got)
	}
}

// What an app calls is an app, and no two apps share a SPIFFE ID or a name in
// the cluster.
func TestApps(t *testing.T) {
	taken := map[string]string{}
	for _, a := range Apps() {
		path, err := Workload{Name: a.Name, App: a, Cluster: "c0"}.idPath()
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
		if got, err := (Workload{App: a, Cluster: "aws"}).idPath(); got != want[a.Name] || err != nil {
			t.Errorf("%s has the path %s (%v), want %s", a.Name, got, err, want[a.Name])
		}
	}
}
