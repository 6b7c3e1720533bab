package topology_test

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// intents returns what the presets ask for, and what testdata has of each.
func intents(t *testing.T, suffix string, check func(t *testing.T, intent topology.Topology, want string)) {
	t.Helper()
	for _, preset := range []string{"quotes", "enterprise"} {
		t.Run(preset, func(t *testing.T) {
			file, err := config.For(demo.Apps()).Open(preset)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile("testdata/" + preset + suffix)
			if err != nil {
				t.Fatal(err)
			}
			check(t, file.Topology, string(want))
		})
	}
}

// A lab that runs keeps its addresses with a newer fedlab.
func TestAddressesOfPresets(t *testing.T) {
	intents(t, "-addresses.txt", func(t *testing.T, intent topology.Topology, want string) {
		t.Helper()
		g, err := topology.Resolve(intent, topology.NetworkCandidates()[0])
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, c := range g.Clusters {
			_, _ = fmt.Fprintf(&b, "pool of %s: %s\n", c.Name, c.Pool)
		}
		for _, s := range g.Servers() {
			_, _ = fmt.Fprintf(&b, "server of %s: %s\n", s.Domain, s.Address)
		}
		for _, w := range g.Workloads {
			_, _ = fmt.Fprintf(&b, "workload %s: %s %s\n", w.Name, w.Address, w.ID)
		}
		if b.String() != want {
			t.Errorf("got\n%s\nwant\n%s", b.String(), want)
		}
	})
}

// What each cluster of a lab holds of its intent can be read by an older and a newer
// fedlab: the format is that of the first one.
func TestIntentStaysReadable(t *testing.T) {
	intents(t, "-intent.json", func(t *testing.T, intent topology.Topology, want string) {
		t.Helper()
		// The first one knew nothing of these.
		for i := range intent.Workloads {
			app := &intent.Workloads[i].App
			app.Tells, app.OwnPaths, app.VerifiesDatabase, app.LendsDatabase, app.BorrowsDatabase = "", nil, false, false, false
			app.Calls = slices.DeleteFunc(slices.Clone(app.Calls), func(called string) bool { return called == "service" || called == "plain-service" })
		}
		got, err := json.Marshal(intent)
		if err != nil {
			t.Fatal(err)
		}
		if string(got)+"\n" != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		var read topology.Topology
		if err := json.Unmarshal([]byte(want), &read); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(read, intent) {
			t.Errorf("read\n%+v\nwant\n%+v", read, intent)
		}
	})
}

// TestIntentKeepsPlaces: what a lab file of today does not ask for is kept, too, and
// nothing of it is written where there is none.
func TestIntentKeepsPlaces(t *testing.T) {
	a, b := spiffeid.RequireTrustDomainFromString("a.test"), spiffeid.RequireTrustDomainFromString("b.test")
	intent := topology.Topology{
		TrustDomains: []topology.TrustDomainSpec{{Name: a, Cluster: "c"}, {Name: b, Cluster: "c", Slot: 1, Settings: topology.Settings{CAKeyType: topology.RSA2048, JWTKeyType: topology.ECP384}}},
		Workloads:    []topology.WorkloadSpec{{Name: "w", Cluster: "c"}, {Name: "x", Cluster: "c", TrustDomain: b}},
	}
	text, err := json.Marshal(intent)
	if err != nil {
		t.Fatal(err)
	}
	for word, want := range map[string]int{`"Slot":1`: 1, `"TrustDomain":"b.test"`: 1, `"TrustDomain":`: 1, `"CAKeyType":"rsa-2048"`: 1, `"JWTKeyType":"ec-p384"`: 1, `KeyType":`: 2} {
		if got := strings.Count(string(text), word); got != want {
			t.Errorf("%s is %d times in %s, want %d", word, got, text, want)
		}
	}
	var read topology.Topology
	if err := json.Unmarshal(text, &read); err != nil || !reflect.DeepEqual(read, intent) {
		t.Errorf("read %+v, error %v", read, err)
	}
}
