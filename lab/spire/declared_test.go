package spire_test

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// declaring is a lab of which the second trust domain of a cluster has registrations, one of
// each kind, with all that a registration can say.
func declaring(t *testing.T) []*topology.Registration {
	t.Helper()
	all := topology.RegistrationSpec{
		TrustDomain: market, Cluster: "market", Selectors: []string{"k8s:ns:shop"}, DNSNames: []string{"a.test"}, FederatesWith: []spiffeid.TrustDomain{broker},
		Hint: "h", X509SVIDTTL: time.Hour, JWTSVIDTTL: time.Minute, Admin: true, Downstream: true,
	}
	pods, static, plain := all, all, all
	pods.Name, pods.Kind, pods.IDTemplate, pods.Fallback, pods.ServiceNames = "pods", topology.ClusterSPIFFEID, "spiffe://{{ .TrustDomain }}/x", true, true
	pods.Namespaces, pods.Pods = map[string]string{"tier": "shop"}, map[string]string{"app": "x"}
	static.Name, static.Kind = "static", topology.ClusterStaticEntry
	plain.Name, plain.Kind = "plain", topology.PlainEntry
	for _, r := range []*topology.RegistrationSpec{&static, &plain} {
		r.ID, r.ParentID = spiffeid.RequireFromPath(market, "/y"), spiffeid.RequireFromPath(market, "/parent")
	}
	g, err := topology.Resolve(topology.Topology{
		Clusters:      []topology.ClusterSpec{topology.NewCluster("market", 0)},
		TrustDomains:  []topology.TrustDomainSpec{{Name: broker, Cluster: "market"}, {Name: market, Cluster: "market", Slot: 1}},
		Registrations: []topology.RegistrationSpec{pods, static, plain, {Name: "bare", Kind: topology.ClusterSPIFFEID, TrustDomain: broker, Cluster: "market", IDTemplate: "spiffe://cluster2.com/x"}},
	}, netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	return g.Registrations
}

func TestDeclaredResource(t *testing.T) {
	all := declaring(t)
	for i, want := range map[int]string{
		0: `{"apiVersion":"spire.spiffe.io/v1alpha1","kind":"ClusterSPIFFEID","metadata":{"name":"pods","labels":{"app.kubernetes.io/managed-by":"fedlab"}},` +
			`"spec":{"spiffeIDTemplate":"spiffe://{{ .TrustDomain }}/x","namespaceSelector":{"matchLabels":{"tier":"shop"}},"podSelector":{"matchLabels":{"app":"x"}},` +
			`"workloadSelectorTemplates":["k8s:ns:shop"],"dnsNameTemplates":["a.test"],"autoPopulateDNSNames":true,"ttl":"1h0m0s","jwtTtl":"1m0s","federatesWith":["cluster2.com"],` +
			`"hint":"h","className":"spire-system-2","fallback":true,"admin":true,"downstream":true}}`,
		1: `{"apiVersion":"spire.spiffe.io/v1alpha1","kind":"ClusterStaticEntry","metadata":{"name":"static","labels":{"app.kubernetes.io/managed-by":"fedlab"}},` +
			`"spec":{"spiffeID":"spiffe://cluster1.com/y","parentID":"spiffe://cluster1.com/parent","selectors":["k8s:ns:shop"],"federatesWith":["cluster2.com"],` +
			`"x509SVIDTTL":"1h0m0s","jwtSVIDTTL":"1m0s","dnsNames":["a.test"],"hint":"h","admin":true,"downstream":true,"className":"spire-system-2"}}`,
		// What selects all is written, or it would stay as somebody else has set it.
		3: `{"apiVersion":"spire.spiffe.io/v1alpha1","kind":"ClusterSPIFFEID","metadata":{"name":"bare","labels":{"app.kubernetes.io/managed-by":"fedlab"}},` +
			`"spec":{"spiffeIDTemplate":"spiffe://cluster2.com/x","namespaceSelector":{"matchLabels":{}},"podSelector":{"matchLabels":{}},"workloadSelectorTemplates":[]}}`,
	} {
		got, err := json.Marshal(spire.DeclaredResource(all[i]))
		if err != nil {
			t.Fatal(err)
		}
		if text := string(got); text != want {
			t.Errorf("%s:\ngot  %s\nwant %s", all[i].Name, text, want)
		}
	}
}

// A real server takes the entry as it is, with its ID.
func TestDeclaredEntry(t *testing.T) {
	_, server := start(t, market)
	_, brokerServer := start(t, broker)
	if err := server.SetBundle(t.Context(), mustBundle(t, brokerServer)); err != nil {
		t.Fatal(err)
	}
	entry := spire.DeclaredEntry(declaring(t)[2])
	if id, err := server.CreateEntry(t.Context(), entry); err != nil || id != "fedlab.plain" || !entry.Declared() {
		t.Errorf("ID %q, declared %t, error %v", id, entry.Declared(), err)
	}
	if other := spire.DeclaredEntry(declaring(t)[1]); other.ID != "" || other.Declared() {
		t.Errorf("the entry of a resource has the ID %q", other.ID)
	}
}
