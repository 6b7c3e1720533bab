package lab_test

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/doctor"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// examined reads "id name: what follows, …" for each diagnosis.
func examined(r doctor.Report) (all []string) {
	for _, d := range r.Diagnoses {
		var follows []string
		for _, f := range d.Follows {
			follows = append(follows, string(f.ID)+" "+f.Part.Name)
		}
		all = append(all, strings.TrimSuffix(string(d.ID)+" "+d.Part.Name+": "+strings.Join(follows, ", "), ": "))
	}
	return all
}

// TestDoctorIsSilent on healthy labs, and its calls go each way that the lab file has.
func TestDoctorIsSilent(t *testing.T) {
	for name, of := range map[string]func(*testing.T) topology.Topology{
		"quotes": quotes, "enterprise": enterprise, "company": func(t *testing.T) topology.Topology { t.Helper(); return presetOf(t, "company") },
		"several clusters": spread, "nested": nested, "keys of two types": keyTypes,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, of(t)); err != nil {
					t.Fatal(err)
				}
				w.mutations = nil
				r, err := d.Doctor(t.Context(), of(t), true)
				if err != nil || !r.Well || len(r.Diagnoses) > 0 {
					t.Errorf("error %v, well %t:\n%s", err, r.Well, indented(t, r.Diagnoses))
				}
				if len(w.mutations) > 0 {
					t.Errorf("it changed something: %v", w.mutations)
				}
				for _, c := range r.Calls {
					if c.Outcome != "answered" || c.Stranger != "refused-by-server" {
						t.Errorf("call %+v", c)
					}
				}
				if len(r.Calls) == 0 {
					t.Error("it made no call")
				}
				if r, err = d.Doctor(t.Context(), of(t), false); err != nil || !r.Well || len(r.Calls) > 0 {
					t.Errorf("without calls: error %v, well %t, %d calls", err, r.Well, len(r.Calls))
				}
			})
		})
	}
}

// TestDoctorNamesTheCause breaks one thing at a time. What was broken comes first, and the
// rest follows from it.
func TestDoctorNamesTheCause(t *testing.T) {
	const (
		back, there = "cluster2.com->cluster1.com", "cluster1.com->cluster2.com"
		call        = "broker-webapp->stock-quotes"
	)
	one := spiffeid.RequireTrustDomainFromString("cluster1.com")
	market, broker := nodeName{"quotes", "market"}, nodeName{"quotes", "broker"}
	for name, tt := range map[string]struct {
		spoil func(t *testing.T, w *world)
		want  []string
	}{
		"no network": {
			func(_ *testing.T, w *world) { clear(w.nodes); delete(w.networks, "quotes") },
			[]string{"network-gone quotes: cluster-absent broker, cluster-absent market, server-silent cluster1.com, server-silent cluster2.com, not-known broker-webapp, not-known stock-quotes, not-known " + there + ", not-known " + back},
		},
		"a node is stopped": {
			func(_ *testing.T, w *world) { w.nodes[market].running = false },
			[]string{"cluster-stopped market: server-silent cluster1.com, not-known stock-quotes, call-unreachable " + call + ", not-known " + back + ", not-known " + there},
		},
		"a server": {
			func(_ *testing.T, w *world) {
				w.nodes[market].release("spire").broken = "0 of 1 pods are ready: CrashLoopBackOff"
			},
			[]string{"server-silent cluster1.com: not-known " + back + ", not-known " + there + ", not-known stock-quotes"},
		},
		"a controller manager": {
			func(_ *testing.T, w *world) {
				w.nodes[market].release("spire").unready = "0 of 1 pods are ready: pod spire-server-0: container spire-controller-manager is not ready"
			},
			[]string{"controller-manager-away cluster1.com"},
		},
		"a webhook": {func(_ *testing.T, w *world) { w.nodes[market].spire.staleWebhook = true }, []string{"webhook-unverified cluster1.com"}},
		"an agent": {
			func(_ *testing.T, w *world) { w.fault = always("Pods.Ready spire-agent in market", fail) },
			[]string{"agent-away cluster1.com"},
		},
		"no agent has attested": {func(_ *testing.T, w *world) { w.nodes[market].spire.agents = 0 }, []string{"agent-unknown cluster1.com"}},
		"the published bundle": {
			func(_ *testing.T, w *world) { delete(w.nodes[market].objects, bundleKey(topology.ServerNamespace)) },
			[]string{"bundle-unpublished cluster1.com"},
		},
		"an endpoint that hangs": {func(_ *testing.T, w *world) { w.nodes[market].spire.hangs = true }, []string{"endpoint-hangs cluster1.com"}},
		"an endpoint": {
			func(_ *testing.T, w *world) {
				w.fault = func(c string) verdict {
					if strings.HasPrefix(c, "Peers.Get ") && strings.HasSuffix(c, " of 10.192.1.1") {
						return fail
					}
					return pass
				}
			},
			[]string{"endpoint-unreachable cluster1.com"},
		},
		"the way to an endpoint": {
			func(_ *testing.T, w *world) { w.fault = always("Peers.Get from broker of 10.192.1.1", fail) },
			[]string{"way-blocked " + back},
		},
		"no relationship": {func(_ *testing.T, w *world) { clear(w.nodes[broker].spire.relationships) }, []string{"no-relationship " + back}},
		"a relationship by another profile": {
			func(_ *testing.T, w *world) { w.nodes[broker].spire.relationships[one].profile = topology.HTTPSWeb },
			[]string{"wrong-profile " + back},
		},
		"no bundle": {
			func(_ *testing.T, w *world) { clear(w.nodes[broker].spire.held) },
			[]string{"bundle-missing " + back + ": call-unknown-authority " + call},
		},
		"an empty bundle": {
			func(_ *testing.T, w *world) { w.nodes[broker].spire.held[one] = spiffebundle.New(one) },
			[]string{"bundle-empty " + back + ": endpoint-not-verified " + back + ", svid-refused stock-quotes by cluster2.com, call-unknown-authority " + call},
		},
		"the bundle of another": {
			func(_ *testing.T, w *world) {
				w.nodes[broker].spire.held[one] = hinted(one, w.nodes[broker].spire.root)
			},
			[]string{"bundle-of-another " + back + ": endpoint-not-verified " + back + ", svid-refused stock-quotes by cluster2.com, call-unknown-authority " + call},
		},
		"a key too many": {
			func(_ *testing.T, w *world) {
				w.nodes[broker].spire.held[one].AddX509Authority(w.nodes[broker].spire.root)
			},
			[]string{"bundle-extra-key " + back},
		},
		"a bundle that is behind": {
			func(_ *testing.T, w *world) {
				w.nodes[broker].spire.held[one].RemoveJWTAuthority("jwt-of-cluster1.com")
			},
			[]string{"bundle-behind " + back},
		},
		"an endpoint that serves another bundle": {
			func(_ *testing.T, w *world) { w.nodes[market].spire.lies = hinted(one, w.nodes[market].spire.root) },
			[]string{"other-bundle-served cluster1.com"},
		},
		"a bundle that nobody asks for": {
			func(_ *testing.T, w *world) {
				td := spiffeid.RequireTrustDomainFromString("stranger.test")
				w.nodes[broker].spire.held[td] = spiffebundle.FromX509Authorities(td, []*x509.Certificate{w.nodes[market].spire.root})
			},
			[]string{"bundle-unasked cluster2.com->stranger.test"},
		},
		"no entry": {
			func(_ *testing.T, w *world) { clear(w.nodes[broker].spire.entries) },
			[]string{"no-entry broker-webapp: call-no-identity " + call},
		},
		"no federatesWith": {
			func(_ *testing.T, w *world) { w.nodes[broker].spire.entries["spiffe://cluster2.com/client"] = nil },
			[]string{"no-federates-with broker-webapp: call-unknown-authority " + call},
		},
		"an authority that was revoked": {
			func(_ *testing.T, w *world) { w.nodes[market].spire.stale = true },
			[]string{"svid-unverified stock-quotes: svid-refused stock-quotes by cluster1.com, svid-refused stock-quotes by cluster2.com"},
		},
		"a program": {
			func(_ *testing.T, w *world) {
				w.nodes[market].release("stock-quotes").broken = "0 of 1 pods are ready: ImagePullBackOff"
			},
			[]string{"workload-unwell stock-quotes: not-known stock-quotes, call-unreachable " + call},
		},
		"a server that verifies nobody": {func(_ *testing.T, w *world) { w.careless = true }, []string{"stranger-let-in " + call}},
		"a resource of somebody else": {
			func(_ *testing.T, w *world) { w.nodes[broker].add("ClusterSPIFFEID", "everybody", everybody(), nil) },
			[]string{"resource-without-effect broker/ClusterSPIFFEID everybody"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				starts()["all of it"](t, w, d)
				tt.spoil(t, w)
				r, err := d.Doctor(t.Context(), quotes(t), true)
				if err != nil {
					t.Fatal(err)
				}
				if got := examined(r); !slices.Equal(got, tt.want) {
					t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
				}
			})
		})
	}
}
