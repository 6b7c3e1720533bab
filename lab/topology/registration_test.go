package topology

import (
	"net/netip"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// A registration is where its cluster says, and has the server of that place: that of a
// further cluster is another one where it is nested.
func TestRegistrations(t *testing.T) {
	one := spiffeid.RequireTrustDomainFromString("one.test")
	g, err := Resolve(Topology{
		Name:     "lab",
		Clusters: []ClusterSpec{NewCluster("a", 0), NewCluster("b", 1), NewCluster("c", 2)},
		Hosts:    []HostSpec{{Name: "h", Index: 3}},
		TrustDomains: []TrustDomainSpec{
			{Name: one, Cluster: "a", Members: []MemberSpec{{Cluster: "b"}, {Cluster: "c", Nested: true}}},
			{Name: spiffeid.RequireTrustDomainFromString("two.test"), Host: "h"},
		},
		Registrations: []RegistrationSpec{
			{Name: "pods-a", Kind: ClusterSPIFFEID, TrustDomain: one, Cluster: "a"},
			{Name: "pods-b", Kind: ClusterSPIFFEID, TrustDomain: one, Cluster: "b"},
			{Name: "pods-c", Kind: ClusterSPIFFEID, TrustDomain: one, Cluster: "c"},
			{Name: "static-c", Kind: ClusterStaticEntry, TrustDomain: one, Cluster: "c"},
			{Name: "entry-h", Kind: PlainEntry, TrustDomain: spiffeid.RequireTrustDomainFromString("two.test")},
		},
	}, netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"a one.test", "b one.test", "c one.test@c", "c one.test@c", "h two.test"} {
		r := g.Registrations[i]
		if got := r.Member.Place.Name() + " " + r.Server().String(); got != want {
			t.Errorf("%s is of %s, want %s", r.Name, got, want)
		}
		if r.Member.Downstream != nil {
			t.Errorf("%s is of the agents that a nested server has for itself", r.Name)
		}
	}
	if all := g.Registrations[2].Member.Registrations; len(all) != 2 || all[0] != g.Registrations[2] || all[1] != g.Registrations[3] {
		t.Errorf("the member in c has %v", all)
	}
}
