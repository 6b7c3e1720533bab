package spire_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"maps"
	"math/big"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

var (
	endpoint = topology.BundleEndpoint{Profile: topology.HTTPSSPIFFE, Port: 8443, RefreshHint: 5 * time.Minute}
	address  = netip.MustParseAddr("10.192.1.1")
)

// trust returns what makes a trust domain trust another, whose server has that
// endpoint and address.
func trust(truster, trusted spiffeid.TrustDomain, profile topology.EndpointProfile) topology.Relationship {
	d := &topology.Domain{Name: trusted, Settings: topology.Settings{BundleEndpoint: endpoint}}
	d.Servers = []*topology.Server{{Domain: d, Address: address}}
	by := &topology.Domain{Name: truster}
	by.Servers = []*topology.Server{{Domain: by}}
	return topology.Relationship{By: by.Servers[0], Trust: &topology.Trust{
		Truster: by, Trusted: d, RelationshipSpec: topology.RelationshipSpec{Truster: truster, Trusted: trusted, Profile: profile},
	}}
}

func TestFederatedTrustDomain(t *testing.T) {
	bundle := spiffebundle.New(market)
	bundle.AddX509Authority(newRoot(t))
	if err := bundle.AddJWTAuthority("jwt", newRoot(t).PublicKey); err != nil {
		t.Fatal(err)
	}
	resource, err := spire.FederatedTrustDomain(trust(broker, market, topology.HTTPSSPIFFE), bundle)
	if err != nil {
		t.Fatal(err)
	}
	spec := resource.Spec.(spire.FederatedTrustDomainSpec)
	pinned, err := spiffebundle.Parse(market, []byte(spec.TrustDomainBundle))
	if err != nil {
		t.Fatal(err)
	}
	want := spiffebundle.FromX509Authorities(market, bundle.X509Authorities())
	want.SetRefreshHint(endpoint.RefreshHint)
	if !pinned.Equal(want) {
		t.Errorf("resource carries %s, want the X.509 authority and refresh hint %s", spec.TrustDomainBundle, endpoint.RefreshHint)
	}

	spec.TrustDomainBundle = "…"
	resource.Spec = spec
	wantJSON(t, resource, `{
  "apiVersion": "spire.spiffe.io/v1alpha1",
  "kind": "ClusterFederatedTrustDomain",
  "metadata": {
    "name": "cluster1.com",
    "labels": {
      "app.kubernetes.io/managed-by": "fedlab"
    }
  },
  "spec": {
    "trustDomain": "cluster1.com",
    "bundleEndpointURL": "https://10.192.1.1:8443",
    "bundleEndpointProfile": {
      "type": "https_spiffe",
      "endpointSPIFFEID": "spiffe://cluster1.com/spire/server"
    },
    "trustDomainBundle": "…",
    "className": ""
  }
}`)
}

// The controller manager refuses an endpoint's SPIFFE ID where the profile has no
// use for it.
func TestFederatedTrustDomainOfWebEndpoint(t *testing.T) {
	bundle := spiffebundle.New(market)
	bundle.AddX509Authority(newRoot(t))
	resource, err := spire.FederatedTrustDomain(trust(broker, market, topology.HTTPSWeb), bundle)
	if err != nil {
		t.Fatal(err)
	}
	spec := resource.Spec.(spire.FederatedTrustDomainSpec)
	pinned, err := spiffebundle.Parse(market, []byte(spec.TrustDomainBundle))
	if err != nil {
		t.Fatal(err)
	}
	if !pinned.X509Bundle().Equal(bundle.X509Bundle()) {
		t.Error("resource carries no bundle, which entries need before the first fetch")
	}
	wantJSON(t, spec.BundleEndpointProfile, `{
  "type": "https_web"
}`)
}

func TestStaticRelationship(t *testing.T) {
	wantJSON(t, spire.StaticRelationship(trust(broker, market, topology.HTTPSSPIFFE).Trust), `{
  "trustDomain": "cluster1.com",
  "url": "https://10.192.1.1:8443",
  "profile": "https_spiffe",
  "endpointSPIFFEID": "spiffe://cluster1.com/spire/server"
}`)
	wantJSON(t, spire.StaticRelationship(trust(broker, market, topology.HTTPSWeb).Trust), `{
  "trustDomain": "cluster1.com",
  "url": "https://10.192.1.1:8443",
  "profile": "https_web"
}`)
}

func TestFederatedTrustDomainRefuses(t *testing.T) {
	good := spiffebundle.New(market)
	good.AddX509Authority(newRoot(t))
	r, acme := trust(broker, market, topology.HTTPSSPIFFE), trust(broker, market, "acme")

	tests := []struct {
		name         string
		relationship topology.Relationship
		bundle       *spiffebundle.Bundle
		want         string
	}{
		{"a bundle of another trust domain", r, relabelled(good, absent),
			"write relationship cluster2.com->cluster1.com: bundle belongs to absent.com"},
		{"an empty bundle", r, spiffebundle.New(market),
			"write relationship cluster2.com->cluster1.com: bundle has no X.509 authority"},
		{"a profile it does not know", acme, good,
			`write relationship cluster2.com->cluster1.com: profile "acme": want https_spiffe or https_web`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := spire.FederatedTrustDomain(test.relationship, test.bundle)
			if err == nil || err.Error() != test.want {
				t.Errorf("error = %v, want %s", err, test.want)
			}
		})
	}
}

// quotes is two federated clusters with the demo, and a third trust domain that
// the broker's domain trusts and that none of its workloads has to do with.
func quotes() topology.Topology {
	apps := demo.Apps()
	trusts := func(truster, trusted spiffeid.TrustDomain) topology.RelationshipSpec {
		return topology.RelationshipSpec{Truster: truster, Trusted: trusted, Profile: topology.HTTPSSPIFFE}
	}
	return topology.Topology{
		Name:     "quotes",
		Clusters: []topology.ClusterSpec{topology.NewCluster("market", 0), topology.NewCluster("broker", 1), topology.NewCluster("other", 2)},
		TrustDomains: []topology.TrustDomainSpec{
			{Name: market, Cluster: "market"}, {Name: broker, Cluster: "broker"}, {Name: absent, Cluster: "other"},
		},
		Relationships: []topology.RelationshipSpec{trusts(market, broker), trusts(broker, absent), trusts(broker, market)},
		Workloads: []topology.WorkloadSpec{
			{Name: "stock-quotes", App: apps[0], Cluster: "market"},
			{Name: "broker-webapp", App: apps[1], Cluster: "broker", Calls: []string{"stock-quotes"}},
		},
	}
}

// resolved returns the workloads of a lab that has no network yet.
func resolved(t *testing.T, lab topology.Topology) []*topology.Workload {
	t.Helper()
	g, err := topology.Resolve(lab, netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	return g.Workloads
}

func TestWorkloadIdentity(t *testing.T) {
	wantJSON(t, spire.WorkloadIdentity(resolved(t, quotes())[0]), `{
  "apiVersion": "spire.spiffe.io/v1alpha1",
  "kind": "ClusterSPIFFEID",
  "metadata": {
    "name": "stock-quotes",
    "labels": {
      "app.kubernetes.io/managed-by": "fedlab"
    }
  },
  "spec": {
    "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/server",
    "namespaceSelector": {
      "matchLabels": {
        "kubernetes.io/metadata.name": "demo"
      }
    },
    "podSelector": {
      "matchLabels": {
        "app.kubernetes.io/name": "stock-quotes"
      }
    },
    "workloadSelectorTemplates": [
      "k8s:ns:demo",
      "k8s:sa:server-service-account"
    ],
    "federatesWith": [
      "cluster2.com"
    ],
    "hint": "fedlab"
  }
}`)
}

// What an app says of its identity is what its entries are made of.
func TestWorkloadIdentityOfApp(t *testing.T) {
	app := topology.App{
		Name:           "data-service",
		IDTemplate:     "/service/{{ .PodMeta.Labels.service }}",
		DNSNames:       []string{"data.{{ .TrustDomain }}"},
		Selectors:      []string{"k8s:pod-label:service:{{ .PodMeta.Labels.service }}"},
		X509SVIDTTL:    90 * time.Minute,
		Namespace:      "company",
		ServiceAccount: "data",
	}
	wantJSON(t, spire.WorkloadIdentity(&topology.Workload{
		Name: "orders", App: app, Namespace: "company", Member: &topology.Member{Class: "second"},
	}).Spec, `{
  "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/service/{{ .PodMeta.Labels.service }}",
  "namespaceSelector": {
    "matchLabels": {
      "kubernetes.io/metadata.name": "company"
    }
  },
  "podSelector": {
    "matchLabels": {
      "app.kubernetes.io/name": "data-service"
    }
  },
  "workloadSelectorTemplates": [
    "k8s:ns:company",
    "k8s:sa:data",
    "k8s:pod-label:service:{{ .PodMeta.Labels.service }}"
  ],
  "dnsNameTemplates": [
    "data.{{ .TrustDomain }}"
  ],
  "ttl": "1h30m0s",
  "hint": "fedlab",
  "className": "second"
}`)
}

// The demo programs import nothing of the library, so that the word stands twice.
func TestDemoProgramsGoByTheHint(t *testing.T) {
	source, err := os.ReadFile("../../apps/internal/identity/source.go")
	if err != nil {
		t.Fatal(err)
	}
	if want := "\nconst Hint = " + strconv.Quote(spire.Hint) + "\n"; !strings.Contains(string(source), want) {
		t.Errorf("apps/internal/identity does not have %q", want)
	}
}

// rendered fills in a template as the controller manager does: without functions
// of its own, and with these fields among others (its pkg/spireentry/entries.go).
func rendered(t *testing.T, text string, td spiffeid.TrustDomain, w *topology.Workload) string {
	t.Helper()
	parsed, err := template.New("").Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	type meta struct {
		Namespace string
		Labels    map[string]string
	}
	var out strings.Builder
	data := struct {
		TrustDomain string
		PodMeta     *meta
	}{td.Name(), &meta{w.Namespace, w.PodLabels()}}
	if err := parsed.Execute(&out, data); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// SPIRE accepts the entries of all demo programs, and knows them by the SPIFFE
// IDs that the rest of the lab expects.
func TestServerTakesTheIdentitiesOfAllApps(t *testing.T) {
	process, server := start(t, market)
	lab := quotes()
	lab.Workloads = nil
	for _, app := range demo.Apps() {
		lab.Workloads = append(lab.Workloads, topology.WorkloadSpec{Name: app.Name, App: app, Cluster: "market"})
	}
	want := map[string]time.Duration{}
	for _, w := range resolved(t, lab) {
		spec := spire.WorkloadIdentity(w).Spec.(spire.WorkloadIdentitySpec)
		create := []string{"entry", "create", "-parentID", "spiffe://cluster1.com/agent", "-spiffeID", rendered(t, spec.SPIFFEIDTemplate, market, w)}
		for _, selector := range spec.WorkloadSelectorTemplates {
			create = append(create, "-selector", rendered(t, selector, market, w))
		}
		for _, name := range spec.DNSNameTemplates {
			create = append(create, "-dns", rendered(t, name, market, w))
		}
		if spec.TTL != "" {
			ttl, err := time.ParseDuration(spec.TTL)
			if err != nil {
				t.Fatal(err)
			}
			create = append(create, "-x509SVIDTTL", strconv.Itoa(int(ttl.Seconds())))
		}
		process.Run(t, create...)
		want[w.ID.String()] = w.App.X509SVIDTTL
	}
	entries, err := server.Entries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]time.Duration{}
	for _, entry := range entries {
		got[entry.SPIFFEID.String()] = entry.X509SVIDTTL
		if slices.ContainsFunc(entry.Selectors, func(s string) bool { return strings.Contains(s, "<no value>") || strings.HasSuffix(s, ":") }) {
			t.Errorf("%s is selected by %v: a label is missing", entry.SPIFFEID, entry.Selectors)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("entries with lives of X509-SVIDs: %v, want %v", got, want)
	}
}

func TestWorkloadIdentityFederatesWithItsPeersOnly(t *testing.T) {
	oneWay := quotes()
	oneWay.Relationships = oneWay.Relationships[:1]
	together := quotes()
	together.Workloads[1].Cluster = "market"

	tests := []struct {
		name string
		lab  topology.Topology
		want string
	}{
		{"whom it calls, not whom else its domain trusts", quotes(), "cluster1.com"},
		{"nobody whom its domain does not trust", oneWay, ""},
		{"not its own trust domain", together, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			resource := spire.WorkloadIdentity(resolved(t, test.lab)[1])
			if got := strings.Join(resource.Spec.(spire.WorkloadIdentitySpec).FederatesWith, " "); got != test.want {
				t.Errorf("federatesWith = %q, want %q", got, test.want)
			}
		})
	}
}

func TestResourceNames(t *testing.T) {
	tests := []struct{ name, want string }{
		{"broker-webapp", "broker-webapp"},
		{"prod.cluster_1.com", "prod-cluster-1-com-9194d9e1d09808a4"},
		{"_", "d2e2adf7177b7a8a"},
		{"a..b", "a--b-f62b42414c514fa6"},
	}
	for _, test := range tests {
		if got := spire.IdentityName(&topology.Workload{Name: test.name}); got != test.want {
			t.Errorf("resource of %q is named %q, want %q", test.name, got, test.want)
		}
	}
}

func wantJSON(t *testing.T, value any, want string) {
	t.Helper()
	var got bytes.Buffer
	encoder := json.NewEncoder(&got)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(got.String()) != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

func newRoot(t *testing.T) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// The entry of a nested server is that of its pod, for the controller manager that its
// upstream has in the cluster.
func TestNestedIdentity(t *testing.T) {
	d := &topology.Domain{Name: market}
	cluster := &topology.Cluster{ClusterSpec: topology.ClusterSpec{Name: "branch"}}
	s := &topology.Server{Domain: d, Place: topology.Place{Cluster: cluster, Namespace: "spire-system-2"}, Link: &topology.Member{Class: "spire-upstream-2"}}
	if id := spire.NestedID(s); id.String() != "spiffe://cluster1.com/fedlab/nested-server/branch" {
		t.Errorf("its SPIFFE ID is %s", id)
	}
	wantJSON(t, spire.NestedIdentity(s), `{
  "apiVersion": "spire.spiffe.io/v1alpha1",
  "kind": "ClusterSPIFFEID",
  "metadata": {
    "name": "nested-server.spire-upstream-2",
    "labels": {
      "app.kubernetes.io/managed-by": "fedlab"
    }
  },
  "spec": {
    "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/fedlab/nested-server/branch",
    "namespaceSelector": {
      "matchLabels": {
        "kubernetes.io/metadata.name": "spire-system-2"
      }
    },
    "podSelector": {
      "matchLabels": {
        "app.kubernetes.io/name": "spire-server"
      }
    },
    "workloadSelectorTemplates": [
      "k8s:ns:spire-system-2",
      "k8s:sa:spire-server"
    ],
    "className": "spire-upstream-2",
    "downstream": true
  }
}`)
}
