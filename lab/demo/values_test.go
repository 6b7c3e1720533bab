package demo_test

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Whoever is called by replicas allows their one SPIFFE ID once: the charts take no list in
// which something is there twice.
func TestValuesOfReplicas(t *testing.T) {
	apps := demo.Apps()
	app := func(name string) topology.App {
		return apps[slices.IndexFunc(apps, func(a topology.App) bool { return a.Name == name })]
	}
	one, other := spiffeid.RequireTrustDomainFromString("one.test"), spiffeid.RequireTrustDomainFromString("other.test")
	called := []string{"bridge"}
	g, err := topology.Resolve(topology.Topology{
		Clusters:     []topology.ClusterSpec{topology.NewCluster("a", 0), topology.NewCluster("b", 1), topology.NewCluster("c", 2)},
		TrustDomains: []topology.TrustDomainSpec{{Name: one, Cluster: "a", Members: []topology.MemberSpec{{Cluster: "b"}}}, {Name: other, Cluster: "c"}},
		Workloads: []topology.WorkloadSpec{
			{Name: "data", App: app("data-service"), Cluster: "a", Calls: called},
			{Name: "data-too", App: app("data-service"), Cluster: "b", Calls: called},
			{Name: "bridge", App: app("legacy-bridge"), Cluster: "c", Calls: []string{"data", "data-too"}},
		},
	}, netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	values, err := demo.Catalogue{}.Values(g.Workloads[2], nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	id := g.Workloads[0].ID.String()
	var all struct {
		Allowed struct{ IDs, DatabaseIDs []string }
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for what, ids := range map[string][]string{"ids": all.Allowed.IDs, "databaseIDs": all.Allowed.DatabaseIDs} {
		if strings.Join(ids, " ") != id {
			t.Errorf("%s are %q, want %s once", what, ids, id)
		}
	}
}
