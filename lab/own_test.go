package lab

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// payments is a workload whose program is the person's own, and that calls another.
func payments(t *testing.T) *topology.Workload {
	t.Helper()
	td := spiffeid.RequireTrustDomainFromString("cluster1.com")
	lab := topology.Topology{
		Name: "own", Clusters: []topology.ClusterSpec{topology.NewCluster("market", 0)},
		TrustDomains: []topology.TrustDomainSpec{{Name: td, Cluster: "market"}},
		Workloads: []topology.WorkloadSpec{
			{
				Name: "payments", Cluster: "market", Calls: []string{"stock-quotes"},
				App: topology.App{Name: "payments", Namespace: "shop", ServiceAccount: "payments", IDTemplate: "/payments", Port: 8443},
				Own: &topology.Own{Chart: "/srv/payments", Images: []topology.OwnImage{{Name: "example.test/payments:dev", Go: "/srv/payments"}}},
			},
			{Name: "stock-quotes", Cluster: "market", App: topology.App{Name: "stock-quotes", Namespace: "demo", IDTemplate: "/server", Port: 8090}},
		},
	}
	g, err := topology.Resolve(lab.Placed(topology.Topology{}), netip.MustParsePrefix("10.192.0.0/18"))
	if err != nil {
		t.Fatal(err)
	}
	return g.Workloads[0]
}

// TestFitting: what a person's own objects must be is told all at once.
func TestFitting(t *testing.T) {
	const (
		deployment = `{"kind": "Deployment", "metadata": {"name": "payments"}, "spec": {"template": {"spec": {"serviceAccountName": "payments", "containers": [{"image": "example.test/payments:dev"}]}}}}`
		balancer   = `{"kind": "Service", "metadata": {"name": "payments"}, "spec": {"type": "LoadBalancer"}}`
	)
	for name, tt := range map[string]struct{ objects, want string }{
		"what fits": {deployment + "," + balancer, ""},
		"an object of the whole cluster": {deployment + "," + balancer + `,{"kind": "ClusterRole", "metadata": {"name": "all"}}`,
			"ClusterRole all belongs to the whole cluster: leave it out (fedlab makes the namespace itself)"},
		"another namespace": {deployment + "," + balancer + `,{"kind": "Secret", "metadata": {"name": "a", "namespace": "kube-system"}}`,
			"Secret a is in the namespace kube-system: want shop, as identity.namespace says"},
		"a hook": {deployment + "," + balancer + `,{"kind": "Job", "metadata": {"name": "a", "annotations": {"helm.sh/hook": "pre-install"}}}`,
			"Job a is a hook of Helm, which a lab does not run: make it an object of the chart"},
		"a test": {deployment + "," + balancer + `,{"kind": "Pod", "metadata": {"name": "a", "annotations": {"helm.sh/hook": "test"}}}`, ""},
		"images that nobody provides, in all places": {
			balancer + `,{"kind": "CronJob", "metadata": {"name": "a"}, "spec": {"jobTemplate": {"spec": {"template": {"spec": {"serviceAccountName": "payments", "initContainers": [{"image": "init:1"}], "containers": [{"image": "job:1"}]}}}}}}`,
			"nobody provides the image init:1: add it to images, with go, archive or docker\nnobody provides the image job:1: add it to images, with go, archive or docker",
		},
		"two addresses": {deployment + "," + balancer + `,{"kind": "Service", "metadata": {"name": "other"}, "spec": {"type": "LoadBalancer"}}`,
			"Service payments and Service other are of type LoadBalancer, and a workload has one address: leave one"},
		"no address": {deployment, "port is 8443, and no Service is of type LoadBalancer: peers cannot call it"},
		"another service account": {strings.Replace(deployment, `"serviceAccountName": "payments", `, "", 1) + "," + balancer,
			"no pod runs as the service account payments, which identity.serviceAccount names; there are default"},
	} {
		t.Run(name, func(t *testing.T) {
			var objects []map[string]any
			if err := json.Unmarshal([]byte("["+tt.objects+"]"), &objects); err != nil {
				t.Fatal(err)
			}
			got := ""
			if err := errors.Join(fitting(payments(t), objects)...); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// A person's own program learns from a ConfigMap who it is and whom it calls.
func TestPeers(t *testing.T) {
	got, err := json.Marshal(peers(payments(t)))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"apiVersion":"v1","data":{"SPIFFE_ENDPOINT_SOCKET":"unix:///run/spire/agent-sockets/spire-agent.sock","SPIFFE_ID":"spiffe://cluster1.com/payments",` +
		`"STOCK_QUOTES_ADDRESS":"10.192.1.102:8090","STOCK_QUOTES_ID":"spiffe://cluster1.com/server"},"kind":"ConfigMap","metadata":{"name":"fedlab-payments","namespace":"shop"}}`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
