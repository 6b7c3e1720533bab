package doctor_test

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/doctor"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

func graph(t *testing.T, preset string) *topology.Graph {
	t.Helper()
	f, err := config.For(demo.Apps()).Open(preset)
	if err != nil {
		t.Fatal(err)
	}
	g, err := topology.Resolve(f.Topology, netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestDiagnose has looks at the quotes lab, and for each what must come first and what
// follows from it. The findings of a look are given in the wrong order.
func TestDiagnose(t *testing.T) {
	const (
		here, there = "cluster1.com", "cluster2.com" // of market and broker
		back        = there + "->" + here
		call        = "broker-webapp->stock-quotes"
	)
	unknown := func(kind doctor.Kind, name string) doctor.Finding {
		return doctor.Finding{ID: doctor.NotKnown, Part: doctor.Part{Kind: kind, Name: name}}
	}
	found := func(id doctor.ID, name string) doctor.Finding { return doctor.Found(id, name, "") }
	for name, tt := range map[string]struct {
		look []doctor.Finding
		want []string
	}{
		"nothing": {nil, nil},
		"a node is stopped": {
			[]doctor.Finding{found(doctor.CallUnreachable, call), unknown(doctor.Workload, "stock-quotes"), unknown(doctor.Bundle, back), found(doctor.ServerSilent, here), found(doctor.ClusterStopped, "market")},
			[]string{"cluster-stopped market: server-silent cluster1.com, not-known stock-quotes, call-unreachable broker-webapp->stock-quotes, not-known " + back},
		},
		"the whole way": {
			[]doctor.Finding{found(doctor.CallUnknown, call), found(doctor.BundleBehind, back), found(doctor.EndpointUnreachable, here), found(doctor.ServerUnwell, here)},
			[]string{"server-unwell cluster1.com: endpoint-unreachable cluster1.com, bundle-behind " + back + ", call-unknown-authority " + call},
		},
		"a datastore": {
			[]doctor.Finding{found(doctor.ServerSilent, here), found(doctor.DatastoreAway, here), found(doctor.EndpointUnreachable, here)},
			[]string{"datastore-away cluster1.com: server-silent cluster1.com, endpoint-unreachable cluster1.com"},
		},
		"the endpoint alone": {
			[]doctor.Finding{found(doctor.BundleBehind, back), found(doctor.EndpointHangs, here)},
			[]string{"endpoint-hangs cluster1.com: bundle-behind " + back},
		},
		"behind, and locked out by that": {
			[]doctor.Finding{found(doctor.LockedOut, back), found(doctor.CallUnknown, call), found(doctor.BundleBehind, back)},
			[]string{"bundle-behind " + back + ": endpoint-not-verified " + back + ", call-unknown-authority " + call},
		},
		"a key too many does not come of an endpoint that is cut off": {
			[]doctor.Finding{found(doctor.EndpointUnreachable, here), found(doctor.ExtraKey, back)},
			[]string{"bundle-extra-key " + back, "endpoint-unreachable cluster1.com"},
		},
		"one way is blocked": {
			[]doctor.Finding{found(doctor.WayBlocked, back), found(doctor.BundleBehind, back), found(doctor.CallUnreachable, call)},
			[]string{"way-blocked " + back + ": bundle-behind " + back + ", call-unreachable " + call},
		},
		"no relationship": {
			[]doctor.Finding{found(doctor.MissingBundle, back), found(doctor.NoRelationship, back), found(doctor.NoEntry, "broker-webapp"), found(doctor.WorkloadUnwell, "broker-webapp")},
			[]string{"no-relationship " + back + ": bundle-missing " + back + ", no-entry broker-webapp, workload-unwell broker-webapp"},
		},
		"the third fact": {
			[]doctor.Finding{found(doctor.CallNotFederated, call), found(doctor.NoFederatesWith, "broker-webapp")},
			[]string{"no-federates-with broker-webapp: call-not-federated " + call},
		},
		"an agent": {
			[]doctor.Finding{found(doctor.CallNoIdentity, call), found(doctor.AgentAway, there), found(doctor.SVIDUnverified, "broker-webapp")},
			[]string{"agent-away cluster2.com: svid-unverified broker-webapp, call-no-identity " + call},
		},
		"a controller manager": {
			[]doctor.Finding{found(doctor.NoEntry, "broker-webapp"), found(doctor.ManagerAway, there)},
			[]string{"controller-manager-away cluster2.com: no-entry broker-webapp"},
		},
		"revoked too early": {
			[]doctor.Finding{found(doctor.SVIDRefused, "stock-quotes by "+there), found(doctor.CallUnknown, call), found(doctor.SVIDUnverified, "stock-quotes")},
			[]string{"svid-unverified stock-quotes: svid-refused stock-quotes by cluster2.com, call-unknown-authority " + call},
		},
		"two at once, and a note": {
			[]doctor.Finding{found(doctor.ResourceIdle, "broker/ClusterSPIFFEID everybody"), found(doctor.AgentAway, there), found(doctor.ServerSilent, here), found(doctor.StrangerLetIn, call)},
			[]string{"stranger-let-in " + call, "server-silent cluster1.com", "agent-away cluster2.com", "resource-without-effect broker/ClusterSPIFFEID everybody"},
		},
		"the same, seen twice": {[]doctor.Finding{found(doctor.AgentAway, there), found(doctor.AgentAway, there)}, []string{"agent-away cluster2.com"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, d := range doctor.Diagnose(doctor.Look{Findings: tt.look, Needs: doctor.Needs(graph(t, "quotes"))}) {
				line := string(d.ID) + " " + d.Part.Name
				for i, f := range d.Follows {
					line += map[bool]string{true: ": ", false: ", "}[i == 0] + string(f.ID) + " " + f.Part.Name
				}
				got = append(got, line)
				if d.Cause == "" || d.Cure == "" {
					t.Errorf("%s has cause %q and cure %q", d.ID, d.Cause, d.Cure)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}

// TestNeedsHasNoCircle, in any preset: what needs itself would explain itself.
func TestNeedsHasNoCircle(t *testing.T) {
	for _, preset := range config.Presets() {
		needs := doctor.Needs(graph(t, preset))
		state := map[doctor.Part]int{}
		var visit func(doctor.Part)
		visit = func(p doctor.Part) {
			if state[p] == 1 {
				t.Errorf("%s: %s needs itself", preset, p)
			}
			if state[p] == 0 {
				state[p] = 1
				for _, needed := range needs[p] {
					visit(needed)
				}
				state[p] = 2
			}
		}
		for p := range needs {
			visit(p)
		}
		if len(needs) < 20 {
			t.Errorf("%s has %d parts", preset, len(needs))
		}
	}
}

func TestCatalogue(t *testing.T) {
	seen := map[doctor.ID]bool{}
	notes := false
	for _, e := range doctor.Catalogue() {
		if !regexp.MustCompile(`^[a-z]+(-[a-z]+)+$`).MatchString(string(e.ID)) || seen[e.ID] {
			t.Errorf("ID %q is no ID, or there twice", e.ID)
		}
		if seen[e.ID] = true; e.Cause == "" || e.Cure == "" || e.Kind == "" && e.ID != doctor.NotKnown {
			t.Errorf("%s lacks something: %+v", e.ID, e)
		}
		if notes = notes || e.Note; notes != e.Note {
			t.Errorf("%s comes after a note and is none", e.ID)
		}
	}
	for _, o := range traffic.Outcomes() {
		if _, wrong := doctor.OfCall(string(o)); wrong == (o == traffic.Answered) {
			t.Errorf("a call that ends with %s: wrong is %t", o, wrong)
		}
	}
	for _, s := range doctor.Symptoms() {
		for _, id := range s.IDs {
			if !seen[id] || s.Check == "" {
				t.Errorf("%q names %q, which is none", s.Says, id)
			}
		}
	}
	if steps := doctor.Steps(); len(steps) != 9 {
		t.Errorf("there are %d steps, want nine", len(steps))
	}
}

func TestReport(t *testing.T) {
	look := doctor.Look{Needs: doctor.Needs(graph(t, "quotes")), Findings: []doctor.Finding{
		doctor.Found(doctor.ServerSilent, "cluster1.com", ""), doctor.Found(doctor.CallUnknown, "broker-webapp->stock-quotes", ""), doctor.Found(doctor.ResourceIdle, "x", ""),
	}}
	r := doctor.Conclude("quotes", look, nil, time.Now(), time.Second)
	ids := func(all []doctor.Diagnosis) (ids []doctor.ID) {
		for _, d := range all {
			ids = append(ids, d.ID)
		}
		return ids
	}
	if r.Well || r.TookSeconds != 1 || !slices.Equal(ids(r.Diagnoses), []doctor.ID{doctor.ServerSilent, doctor.ResourceIdle}) {
		t.Errorf("got %+v", r)
	}
	// What a person sees leads to the cause, and a part to what it needs.
	if got := ids(r.Of([]doctor.ID{doctor.CallUnknown})); !slices.Equal(got, []doctor.ID{doctor.ServerSilent}) {
		t.Errorf("behind an unknown authority is %s", got)
	}
	for name, want := range map[string]int{"broker-webapp->stock-quotes": 1, "stock-quotes->broker-webapp": 0} {
		if got := r.Behind(doctor.Part{Kind: doctor.Call, Name: name}); len(got) != want {
			t.Errorf("behind the calls %s is %s", name, ids(got))
		}
	}
	look.Findings = look.Findings[2:]
	if r := doctor.Conclude("quotes", look, nil, time.Now(), 0); !r.Well || len(r.Diagnoses) != 1 {
		t.Errorf("a note makes the lab unwell: %+v", r)
	}
}
