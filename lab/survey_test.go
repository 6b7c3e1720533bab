package lab

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Trust domains that share a cluster come and go. None takes the place of another one
// that was there.
func TestTrustDomainsComeAndGo(t *testing.T) {
	lab := func(names ...string) topology.Topology {
		l := topology.Topology{Name: "shared", Clusters: []topology.ClusterSpec{topology.NewCluster("floor", 0)}}
		for _, name := range names {
			l.TrustDomains = append(l.TrustDomains, topology.TrustDomainSpec{Name: spiffeid.RequireTrustDomainFromString(name), Cluster: "floor"})
		}
		return l
	}
	before := lab("a.test", "b.test").Placed(topology.Topology{})
	const taken = "the trust domain of cluster floor is b.test, and the file asks for c.test; it cannot be changed once it is set: every identity in it would be another"
	for _, tt := range []struct {
		now  []string
		want string
	}{
		{[]string{"a.test"}, ""}, {[]string{"b.test"}, ""}, {[]string{"b.test", "a.test"}, ""}, {[]string{"c.test", "a.test", "b.test"}, ""},
		{[]string{"a.test", "c.test"}, taken},
	} {
		placed, err := topology.Resolve(lab(tt.now...).Placed(before), netip.Prefix{})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(immutable(before, placed), "; "); got != tt.want {
			t.Errorf("from a and b to %v: %q, want %q", tt.now, got, tt.want)
		}
	}
}
