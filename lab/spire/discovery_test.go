package spire_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// TestDiscoveryEntries: in a cluster that trust domains share each provider has entries of
// its own, which only the manager of its trust domain serves.
func TestDiscoveryEntries(t *testing.T) {
	t.Parallel()
	domain := func(name string) topology.TrustDomainSpec {
		td := topology.TrustDomainSpec{Name: spiffeid.RequireTrustDomainFromString(name), Cluster: "floor"}
		td.JWTIssuer, td.OIDCDiscovery.PollInterval = "https://oidc."+name, time.Second
		return td
	}
	top := topology.Topology{Name: "shared", Clusters: []topology.ClusterSpec{topology.NewCluster("floor", 0)}, TrustDomains: []topology.TrustDomainSpec{domain("one.test"), domain("two.test")}}
	g, err := topology.Resolve(top.Placed(topology.Topology{}), topology.NetworkCandidates()[0])
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`[{"apiVersion":"spire.spiffe.io/v1alpha1","kind":"ClusterStaticEntry","metadata":{"name":"nodes.spire-system","labels":{"app.kubernetes.io/managed-by":"fedlab"}},` +
			`"spec":{"spiffeID":"spiffe://one.test/fedlab/nodes/floor","parentID":"spiffe://one.test/spire/server","selectors":["k8s_psat:cluster:floor"]}},` +
			`{"apiVersion":"spire.spiffe.io/v1alpha1","kind":"ClusterStaticEntry","metadata":{"name":"oidc-discovery-provider.spire-system","labels":{"app.kubernetes.io/managed-by":"fedlab"}},` +
			`"spec":{"spiffeID":"spiffe://one.test/fedlab/oidc-discovery-provider","parentID":"spiffe://one.test/fedlab/nodes/floor","selectors":["k8s:ns:spire-system","k8s:sa:spire-oidc-discovery-provider"],"hint":"fedlab"}}]`,
		`[{"apiVersion":"spire.spiffe.io/v1alpha1","kind":"ClusterStaticEntry","metadata":{"name":"nodes.spire-system-2","labels":{"app.kubernetes.io/managed-by":"fedlab"}},` +
			`"spec":{"spiffeID":"spiffe://two.test/fedlab/nodes/floor","parentID":"spiffe://two.test/spire/server","selectors":["k8s_psat:cluster:floor"],"className":"spire-system-2"}},` +
			`{"apiVersion":"spire.spiffe.io/v1alpha1","kind":"ClusterStaticEntry","metadata":{"name":"oidc-discovery-provider.spire-system-2","labels":{"app.kubernetes.io/managed-by":"fedlab"}},` +
			`"spec":{"spiffeID":"spiffe://two.test/fedlab/oidc-discovery-provider","parentID":"spiffe://two.test/fedlab/nodes/floor","selectors":["k8s:ns:spire-system-2","k8s:sa:spire-oidc-discovery-provider"],"hint":"fedlab","className":"spire-system-2"}}]`,
	}
	for i, d := range g.Discoveries() {
		got, err := json.Marshal(spire.DiscoveryEntries(d))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want[i] {
			t.Errorf("got  %s\nwant %s", got, want[i])
		}
		if dir := spire.NewDiscoveryValues(d, spire.DiscoveryImages{}).SPIFFE.SocketDir; dir != spire.SocketDir(d.Domain.Server().Home()) {
			t.Errorf("the provider of %s asks the agent at %s", d.Domain, dir)
		}
	}
}
