package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

// answering are pods whose ports lead to servers of this process.
type answering struct {
	access.Pods
	servers map[string]string
}

// listing is a cluster with these pods, in JSON.
type listing struct {
	access.Objects
	pods string
}

func (a listing) List(_ context.Context, _ access.ObjectKey, _ map[string]string, into any) error {
	return json.Unmarshal([]byte(a.pods), into)
}

func (a answering) Named(context.Context, string, map[string]string) ([]string, error) {
	return []string{"probe-0"}, nil
}

func (a answering) Dial(ctx context.Context, namespace, pod string, port int) (net.Conn, error) {
	at := fmt.Sprintf("%s/%s:%d", namespace, pod, port)
	if a.servers[at] == "" {
		return nil, fmt.Errorf("nobody listens on %s", at)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", a.servers[at])
}

// TestChecked: a check is asked of a pod of the program, or of the probe of the trust
// domain as which it is asked.
func TestChecked(t *testing.T) {
	var asked traffic.Get
	got := traffic.Got{Status: http.StatusNoContent}
	probe := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || r.URL.Path != "/get" {
			t.Errorf("asked for %s: %v", r.URL, err)
		}
		if err := json.NewEncoder(w).Encode(got); err != nil {
			t.Error(err)
		}
	}))
	defer probe.Close()
	program := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.String() != "/healthz?full" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer program.Close()
	objects := listing{
		pods: `[{"metadata": {"name": "other-0"}, "spec": {"serviceAccountName": "other"}}, {"metadata": {"name": "payments-0"}, "spec": {"serviceAccountName": "payments"}}]`,
	}
	pods := answering{
		servers: map[string]string{
			"fedlab-probe/probe-0:8080": strings.TrimPrefix(probe.URL, "http://"), "shop/payments-0:8081": strings.TrimPrefix(program.URL, "http://"),
		},
	}
	in := func(*topology.Cluster) access.Cluster { return access.Cluster{Pods: pods, Objects: objects} }
	look := func(c topology.OwnCheck) string {
		t.Helper()
		lab := payments(t).Cluster()
		intent := topology.Topology{
			Name: lab.Lab, Clusters: []topology.ClusterSpec{lab.ClusterSpec},
			TrustDomains: []topology.TrustDomainSpec{{Name: spiffeid.RequireTrustDomainFromString("cluster1.com"), Cluster: lab.Name}},
			Workloads: []topology.WorkloadSpec{{
				Name: "payments", Cluster: lab.Name, Own: &topology.Own{Check: &c},
				App: topology.App{Name: "payments", Namespace: "shop", ServiceAccount: "payments", IDTemplate: "/payments", Port: 8443},
			}},
		}
		g, err := topology.Resolve(intent.WithCheckers().Placed(topology.Topology{}), netip.MustParsePrefix("10.192.0.0/18"))
		if err != nil {
			t.Fatal(err)
		}
		if err := checked(t.Context(), in, g.Workloads[0]); err != nil {
			return err.Error()
		}
		return ""
	}
	as := spiffeid.RequireTrustDomainFromString("cluster1.com")
	for _, tt := range []struct {
		check topology.OwnCheck
		got   traffic.Got
		want  string
	}{
		{topology.OwnCheck{Path: "/healthz?full", Port: 8081}, got, ""},
		{topology.OwnCheck{Path: "/", Port: 8081}, got, "check /: the answer is 503 Service Unavailable"},
		{topology.OwnCheck{Path: "/", Port: 8082}, got, "check /: nobody listens on shop/payments-0:8082"},
		{topology.OwnCheck{Path: "/healthz", Port: 8443, As: as}, got, ""},
		{topology.OwnCheck{Path: "/", Port: 8443, As: as}, traffic.Got{Status: 404}, "check /: the answer is 404 Not Found"},
		{topology.OwnCheck{Path: "/", Port: 8443, As: as}, traffic.Got{Problem: "no route"}, "check /: get https://10.192.1.101:8443/: no route"},
	} {
		got = tt.got
		if said := look(tt.check); said != tt.want {
			t.Errorf("%+v: %q, want %q", tt.check, said, tt.want)
		}
	}
	if want := (traffic.Get{URL: "https://10.192.1.101:8443/", Server: "spiffe://cluster1.com/payments"}); asked != want {
		t.Errorf("the probe was asked for %+v, want %+v", asked, want)
	}
}
