package spire_test

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// onprem is a workload on a host that belongs to the trust domain of a cluster, with a
// peer that it calls.
func onprem(t *testing.T, ttl time.Duration) *topology.Workload {
	t.Helper()
	web := topology.App{Name: "web", IDTemplate: "/client", Calls: []string{"quotes"}, X509SVIDTTL: ttl}
	quotes := topology.App{Name: "quotes", IDTemplate: "/server", Port: 8090, Namespace: "demo"}
	g, err := topology.Resolve(topology.Topology{
		Clusters: []topology.ClusterSpec{topology.NewCluster("market", 0)},
		Hosts:    []topology.HostSpec{{Name: "onprem", Index: 1}},
		TrustDomains: []topology.TrustDomainSpec{
			{Name: broker, Cluster: "market"},
			{Name: market, Cluster: "market", Slot: 1, Members: []topology.MemberSpec{{Host: "onprem"}}},
		},
		Relationships: []topology.RelationshipSpec{{Truster: market, Trusted: broker}, {Truster: broker, Trusted: market}},
		Workloads: []topology.WorkloadSpec{
			{Name: "quotes", App: quotes, Cluster: "market", TrustDomain: broker},
			{Name: "buys", App: web, Host: "onprem", Slot: 2, Calls: []string{"quotes"}},
		},
	}, netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	return g.Workloads[1]
}

func TestHostEntry(t *testing.T) {
	t.Parallel()
	agent := spire.JoinedAgentID(market, "onprem.t0ken")
	want := spire.Entry{
		SPIFFEID: spiffeid.RequireFromPath(market, "/client"), ParentID: agent, Selectors: []string{"unix:uid:61002", "unix:path:/web"},
		FederatesWith: []spiffeid.TrustDomain{broker}, Hint: "fedlab", X509SVIDTTL: time.Hour,
	}
	if got := spire.HostEntry(onprem(t, time.Hour), agent); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	wantJSON(t, spire.StaticEntry(onprem(t, time.Hour), agent), `{
  "apiVersion": "spire.spiffe.io/v1alpha1",
  "kind": "ClusterStaticEntry",
  "metadata": {
    "name": "buys",
    "labels": {
      "app.kubernetes.io/managed-by": "fedlab"
    }
  },
  "spec": {
    "spiffeID": "spiffe://cluster1.com/client",
    "parentID": "spiffe://cluster1.com/spire/agent/join_token/onprem.t0ken",
    "selectors": [
      "unix:uid:61002",
      "unix:path:/web"
    ],
    "federatesWith": [
      "cluster2.com"
    ],
    "x509SVIDTTL": "1h0m0s",
    "hint": "fedlab",
    "className": "spire-system-2"
  }
}`)
	if spec := spire.StaticEntry(onprem(t, 0), agent).Spec.(spire.StaticEntrySpec); spec.X509SVIDTTL != "" {
		t.Errorf("without a life of its own it has %q", spec.X509SVIDTTL)
	}
}
