package lab_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// plain is a lab of services that know nothing of SPIFFE.
func plain(t *testing.T) topology.Topology {
	t.Helper()
	data, err := os.ReadFile("../docs/guides/sidecars.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return topologyOf(t, string(data))
}

// TestUpRunsOptionalPrograms: their images are made with all others, before a cluster is,
// and each once; a node is given those that its workloads run.
func TestUpRunsOptionalPrograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if err := w.up(t, w.driver(t), plain(t)); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(w.calls, "Images.Ensure node ghostunnel spiffe-helper") {
			t.Errorf("calls %q", w.calls)
		}
		wantWell(t, w.driver(t), plain(t))
		l, err := w.driver(t).Open(t.Context(), plain(t))
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}()
		stock, err := l.Graph.FindWorkload("stock")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.SVIDs(t.Context(), stock, ""); err == nil || err.Error() != "stock knows nothing of SPIFFE: ghostunnel has its identity, and cannot be asked for its SVIDs" {
			t.Errorf("its SVIDs: error %v", err)
		}
	})
}

// versioned is a lab whose first trust domain has a version of SPIRE.
func versioned(t *testing.T, version string) topology.Topology {
	t.Helper()
	return topologyOf(t, `apiVersion: fedlab.dev/v1alpha1
kind: Lab
metadata: {name: versioned}
spec:
  clusters: [{name: a, trustDomain: a.test}, {name: b, trustDomain: b.test}]
  trustDomains: [{name: a.test, spire: {version: `+version+`}}]
`)
}

// TestUpReplacesServersBeforeAgents: agents of a new version come once their server has it,
// as SPIRE asks for. A lab that has skipped a minor version is refused.
func TestUpReplacesServersBeforeAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, versioned(t, "1.14.5")); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(w.calls, "Images.Ensure node spire-agent-1.14.5 spire-server-1.14.5") {
			t.Errorf("calls %q", w.calls)
		}
		wantWell(t, d, versioned(t, "1.14.5"))
		// images are those of server and agents before and during the second up.
		var images []string
		look := func(string) verdict {
			values, _ := w.nodes[nodeName{"versioned", "a"}].server().Values.(spire.Values)
			images = append(images, values.Images.Server+" "+values.Images.Agent)
			return pass
		}
		look("")
		w.fault = look
		if err := w.up(t, d, versioned(t, topology.SPIREVersion)); err != nil {
			t.Fatal(err)
		}
		look("")
		want := []string{"spire-server-1.14.5:0 spire-agent-1.14.5:0", "spire-server:1 spire-agent-1.14.5:0", "spire-server:1 spire-agent:1"}
		if got := slices.Compact(images); !slices.Equal(got, want) {
			t.Errorf("images of server and agents, one after the other: %q, want %q", got, want)
		}
		wantWell(t, d, versioned(t, topology.SPIREVersion))
		const skipped = "the SPIRE server of cluster a has version 1.15.3, and the file asks for 1.13.3: SPIRE supports a change by one minor version alone"
		if err := w.up(t, d, versioned(t, "1.13.3")); err == nil || !strings.Contains(err.Error(), skipped) {
			t.Errorf("error %v, want %q", err, skipped)
		}
	})
}

// TestUpRunsAChangedOptionalProgram: another ghostunnel is another release, in the nodes
// that run.
func TestUpRunsAChangedOptionalProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, plain(t)); err != nil {
			t.Fatal(err)
		}
		w.edits[topology.Ghostunnel]++
		w.calls = nil
		if err := w.up(t, d, plain(t)); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(w.calls, "Images.LoadDemo ghostunnel") || slices.Contains(w.calls, "Images.Ensure node ghostunnel spiffe-helper") {
			t.Errorf("calls %q", w.calls)
		}
		wantWell(t, d, plain(t))
	})
}

// TestUpGivesADatabaseAnIdentity: a database with TLS is registered, and the password of one
// that is lent is there; both go once the file says so.
func TestUpGivesADatabaseAnIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		without := plain(t)
		for i := range without.Workloads {
			without.Workloads[i].DatabaseTLS, without.Workloads[i].LegacyDatabase = false, false
		}
		for _, top := range []topology.Topology{plain(t), without} {
			if err := w.up(t, d, top); err != nil {
				t.Fatal(err)
			}
			wantWell(t, d, top)
			l, err := d.Open(t.Context(), top)
			if err != nil {
				t.Fatal(err)
			}
			depot, err := l.Graph.FindCluster("depot")
			if err != nil {
				t.Fatal(err)
			}
			var found spire.Resource
			there, err := l.Access(depot).Objects.Object(t.Context(), access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: "ClusterSPIFFEID", Name: "database.orders"}, &found)
			want := top.Workloads[slices.IndexFunc(top.Workloads, func(w topology.WorkloadSpec) bool { return w.Name == "orders" })].DatabaseTLS
			if err != nil || there != want {
				t.Errorf("the registration is there: %t, error %v, want %t", there, err, want)
			}
			orders, err := l.Graph.FindWorkload("orders")
			if err != nil {
				t.Fatal(err)
			}
			password := func(cluster *topology.Cluster, name string) (secret struct{ Data struct{ Password []byte } }) {
				key := access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: orders.Namespace, Name: name}
				if _, err := l.Access(cluster).Objects.Object(t.Context(), key, &secret); err != nil {
					t.Error(err)
				}
				return secret
			}
			mainframe, err := l.Graph.FindWorkload("mainframe")
			if err != nil {
				t.Fatal(err)
			}
			lent, own := password(depot, orders.LentSecret()), password(mainframe.Cluster(), mainframe.Database().Secret())
			if is := len(lent.Data.Password) > 0; is != want || is && string(lent.Data.Password) != string(own.Data.Password) {
				t.Errorf("the password is lent: %t, want %t, and it is that of the bridge's database: %t", is, want, string(lent.Data.Password) == string(own.Data.Password))
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
