package lab_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// starts are what an up of the quotes preset may find.
func starts() map[string]func(*testing.T, *world, *lab.Driver) {
	// The SPIRE server of market will have new keys, which the other one must
	// learn.
	return situations(quotes, "market", "broker")
}

// situations are what an up of a lab may find: nothing, all of it, or all but one
// cluster.
func situations(of func(*testing.T) topology.Topology, half, gone string) map[string]func(*testing.T, *world, *lab.Driver) {
	full := func(t *testing.T, w *world, d *lab.Driver) {
		t.Helper()
		if err := w.up(t, d, of(t)); err != nil {
			t.Fatal(err)
		}
	}
	return map[string]func(*testing.T, *world, *lab.Driver){
		"nothing":   func(*testing.T, *world, *lab.Driver) {},
		"all of it": full,
		"all of it, stopped": func(t *testing.T, w *world, d *lab.Driver) {
			t.Helper()
			full(t, w, d)
			w.stopAll()
		},
		"one cluster half-made": func(t *testing.T, w *world, d *lab.Driver) {
			t.Helper()
			full(t, w, d)
			w.renew(nodeName{of(t).Name, half})
		},
		"one cluster removed by hand": func(t *testing.T, w *world, d *lab.Driver) {
			t.Helper()
			full(t, w, d)
			delete(w.nodes, nodeName{of(t).Name, gone})
		},
		"SVIDs of an authority that was revoked": func(t *testing.T, w *world, d *lab.Driver) {
			t.Helper()
			full(t, w, d)
			for _, n := range w.nodes {
				if n.spire != nil {
					n.spire.stale, n.spire.staleWebhook = true, true
				}
				for _, a := range n.attendants {
					a.stale = true
				}
			}
		},
		"a program left next to the clusters": func(t *testing.T, w *world, d *lab.Driver) {
			t.Helper()
			full(t, w, d)
			w.leave(t, d, of(t).Name)
		},
	}
}

// leave runs a program next to the clusters, as somebody does who is killed then.
func (w *world) leave(t *testing.T, d *lab.Driver, name string) {
	t.Helper()
	if _, err := d.Parts.Sidecars.Run(t.Context(), name, "synthetic", nil, 8080); err != nil {
		t.Fatal(err)
	}
}

func (w *world) stopAll() {
	for _, n := range w.nodes {
		n.running = false
	}
}

// renew puts a cluster back to what it is when kind has just made it.
func (w *world) renew(name nodeName) {
	old := w.nodes[name]
	old.running = false
	w.nodes[name] = newNode(w, name, old.spec)
}

// finished is the dump of a world in which the quotes preset is up.
func finished(t *testing.T) string {
	t.Helper()
	return fresh(t, quotes(t), (*world).dump)
}

// fresh is what is seen of a world in which a lab was brought up from nothing.
func fresh(t *testing.T, top topology.Topology, see func(*world) string) (seen string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if err := w.up(t, w.driver(t), top); err != nil {
			t.Fatal(err)
		}
		seen = see(w)
	})
	return seen
}

func TestUpConverges(t *testing.T) {
	want := finished(t)
	for _, line := range []string{
		"quotes/market trusts cluster2.com at https://10.192.2.1:8443: in sync, polls true",
		"quotes/broker trusts cluster1.com at https://10.192.1.1:8443: in sync, polls true",
		"quotes/broker entry spiffe://cluster2.com/client",
		"context kind-quotes-market",
	} {
		if !strings.Contains(want, line) {
			t.Fatalf("a lab that is up lacks %q:\n%s", line, want)
		}
	}
	for name, start := range starts() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				start(t, w, d)
				if err := w.up(t, d, quotes(t)); err != nil {
					t.Fatal(err)
				}
				w.want(t, want)
			})
		})
	}
}

// want compares the world with what it should be.
func (w *world) want(t *testing.T, want string) {
	t.Helper()
	wantLines(t, w.dump(), want)
}

// wantLines compares two sights of a world, and tells only where they differ.
func wantLines(t *testing.T, got, want string) {
	t.Helper()
	has, wanted := strings.Split(got, "\n"), strings.Split(want, "\n")
	for _, line := range has {
		if !slices.Contains(wanted, line) {
			t.Errorf("there is, and should not be:\n%s", line)
		}
	}
	for _, line := range wanted {
		if !slices.Contains(has, line) {
			t.Errorf("there should be, and is not:\n%s", line)
		}
	}
	if len(has) != len(wanted) {
		t.Errorf("there are %d lines, want %d", len(has), len(wanted))
	}
}

func TestSecondUpChangesNothing(t *testing.T) {
	for _, preset := range config.Presets() {
		t.Run(preset, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, presetOf(t, preset)); err != nil {
					t.Fatal(err)
				}
				w.wantNoop(t, d, presetOf(t, preset))
			})
		})
	}
}

// wantNoop brings up a lab that is up: nothing is changed, and nothing waited for.
func (w *world) wantNoop(t *testing.T, d *lab.Driver, top topology.Topology) {
	t.Helper()
	w.calls, w.mutations = nil, nil
	var states []plan.State
	d.Observe = func(e plan.Event) {
		if e.State != plan.Started {
			states = append(states, e.State)
		}
	}
	defer func() { d.Observe = nil }()
	began := time.Now()
	if err := w.up(t, d, top); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took != 0 {
		t.Errorf("a second up waited for %s", took)
	}
	if len(w.mutations) > 0 {
		t.Errorf("a second up changed something: %v", w.mutations)
	}
	p, err := d.Plan(top)
	if err != nil {
		t.Fatal(err)
	}
	if want := slices.Repeat([]plan.State{plan.Unchanged}, p.Len()); !slices.Equal(states, want) {
		t.Errorf("the steps of a second up ended as %v", states)
	}
	for _, call := range w.calls {
		for _, verb := range []string{"Create", "Nodes.Start", "Delete", "Releases.Remove", "Networks.Remove", "SetFederated", "Refresh", "Ensure node"} {
			if strings.Contains(call, verb) {
				t.Errorf("a second up called %s", call)
			}
		}
	}
}

// TestUpIsOnePlan: the survey comes before the rest is planned, and whoever looks on
// sees the steps that were printed, counted as one plan.
func TestUpIsOnePlan(t *testing.T) {
	for name, top := range map[string]topology.Topology{"quotes": quotes(t), "enterprise": enterprise(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				p, err := d.Plan(top)
				if err != nil {
					t.Fatal(err)
				}
				var started []plan.ID
				d.Observe = func(e plan.Event) {
					if e.State == plan.Started {
						started = append(started, e.Step)
						if e.Number != len(started) {
							t.Errorf("%s is step %d, and %d have started", e.Step, e.Number, len(started))
						}
					}
					if e.Of != p.Len() {
						t.Errorf("%s is one of %d steps, and the plan has %d", e.Step, e.Of, p.Len())
					}
				}
				if err := w.up(t, d, top); err != nil {
					t.Fatal(err)
				}
				var printed []plan.ID
				for _, s := range p.Steps() {
					printed = append(printed, s.Name)
				}
				if first := []plan.ID{plan.ID("survey/" + top.Name), plan.ID("surplus/" + top.Name), plan.ID("network/" + top.Name)}; !slices.Equal(started[:3], first) {
					t.Errorf("it begins with %v, want %v", started[:3], first)
				}
				slices.Sort(started)
				slices.Sort(printed)
				if !slices.Equal(started, printed) {
					t.Errorf("up ran %v, and the plan has %v", started, printed)
				}
			})
		})
	}
}

// A pod that meets its volume half bound would wait for the kubelet's next try.
func TestUpBindsVolumesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		began := time.Now()
		if err := w.up(t, w.driver(t), enterprise(t)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took >= kubeletBackOff {
			t.Errorf("up took %s, want less than the %s after which the kubelet tries again", took, kubeletBackOff)
		}
	})
}

// Where a volume is made for a pod that has a node, none is asked for before.
func TestUpWaitsForNoVolumeThatNeedsAPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.bindsLate = true
		if err := w.up(t, w.driver(t), quotes(t)); err != nil {
			t.Fatal(err)
		}
	})
}

// TestUpMakesHalfMadeClustersAgain has clusters whose making was killed at
// different times. One that may still answer is waited for.
func TestUpMakesHalfMadeClustersAgain(t *testing.T) {
	var fromNothing time.Time // each bubble's clock starts at the same time
	want := fresh(t, quotes(t), func(w *world) string {
		fromNothing = time.Now()
		return w.dump()
	})
	for name, tt := range map[string]struct {
		arrange func(*node)
		// waits is how much longer it takes than where there is nothing.
		waits time.Duration
	}{
		"no kubeconfig":              {func(n *node) { n.state = noKubeconfig }, 0},
		"stopped, and no kubeconfig": {func(n *node) { n.state, n.running = noKubeconfig, false }, 0},
		"an API that never answers":  {func(n *node) { n.state = deaf }, time.Minute},
		"a node without a mark":      {func(*node) {}, 0},
		// One wait is for what it knows, the other for it.
		"stopped, and never answers": {func(n *node) { n.state, n.running = deaf, false }, 4 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.networks["quotes"] = topology.NetworkCandidates()[0]
				for _, c := range quotes(t).Clusters {
					n := newNode(w, nodeName{"quotes", c.Name}, lab.NodeSpec{Image: "node:0"})
					if c.Name == "broker" {
						n.spec.Ports = map[netip.AddrPort]int{netip.MustParseAddrPort("127.0.0.1:8080"): 30081}
					}
					w.nodes[n.name] = n
					tt.arrange(n)
				}
				d := w.driver(t)
				var notes []string
				d.Observe = func(e plan.Event) {
					if e.State == plan.Remarked && strings.Contains(e.Note, "half-made") {
						notes = append(notes, string(e.Step))
					}
				}
				if err := w.up(t, d, quotes(t)); err != nil {
					t.Fatal(err)
				}
				if waits := time.Since(fromNothing).Truncate(time.Millisecond); waits != tt.waits {
					t.Errorf("it waited for %s, want %s", waits, tt.waits)
				}
				slices.Sort(notes)
				if !slices.Equal(notes, []string{"cluster/broker", "cluster/market"}) {
					t.Errorf("said to be made again: %v", notes)
				}
				w.want(t, want)
			})
		})
	}
}

// TestUpFindsWhatCameLate: what a killed up had asked for may come when the next
// one has looked already.
func TestUpFindsWhatCameLate(t *testing.T) {
	want := finished(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.fault = func(call string) verdict {
			if name := (nodeName{"quotes", "market"}); call == "Images.Ensure node" && w.nodes[name] == nil {
				w.nodes[name] = newNode(w, name, lab.NodeSpec{})
			}
			return pass
		}
		if err := w.up(t, w.driver(t), quotes(t)); err != nil {
			t.Fatal(err)
		}
		w.want(t, want)
	})
}

// TestUpIsPatientWithAClusterThatRuns: an API that is slow for half a minute is
// no reason to throw its cluster away.
func TestUpIsPatientWithAClusterThatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		w.mutations = nil
		slow := time.Now().Add(30 * time.Second)
		w.fault = func(c string) verdict {
			if strings.HasSuffix(c, " in market") && time.Now().Before(slow) {
				return fail
			}
			return pass
		}
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		if len(w.mutations) > 0 {
			t.Errorf("it changed something: %v", w.mutations)
		}
	})
}

// TestUpLooksAgainWhereALookHangs: a call that does not come back costs one look, and not
// the whole wait.
func TestUpLooksAgainWhereALookHangs(t *testing.T) {
	for name, tt := range map[string]struct {
		found, call string
	}{
		"the server's API": {"nothing", "SPIRE CountBundles in market"},
		"the webhook":      {"all of it", fmt.Sprintf("Pods.Dial %d in market", spire.WebhookPort)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				starts()[tt.found](t, w, d)
				hung := once(tt.call, hang)
				calls := 0
				w.fault = func(call string) verdict {
					if call == tt.call {
						calls++
					}
					return hung(call)
				}
				if err := w.up(t, d, quotes(t)); err != nil {
					t.Fatal(err)
				}
				if calls < 2 {
					t.Errorf("%d calls, want one that hangs and another", calls)
				}
			})
		})
	}
}

// TestUpRefusesPagesThatChangePlaces: neither Service could have the other's port
// of the node before that one let go of it.
func TestUpRefusesPagesThatChangePlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		top := company(running(brokerPage, quotesService)).topology(t)
		if err := w.up(t, d, top); err != nil {
			t.Fatal(err)
		}
		first, last := &top.Workloads[0], &top.Workloads[len(top.Workloads)-2]
		first.Expose, last.Expose = last.Expose, first.Expose
		want := "survey/company: lab company runs and is not what its file asks for: cluster aws was made with other ports: " +
			"it has 127.0.0.1:8080 (to 30082), 127.0.0.1:8081 (to 30081), and the file asks for 127.0.0.1:8080 (to 30081), 127.0.0.1:8081 (to 30082)"
		if err := w.up(t, d, top); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	})
}

func TestUpRefusesWhatDoesNotFit(t *testing.T) {
	const (
		expose = "      expose: 127.0.0.1:8080\n"
		start  = "lab quotes runs and is not what its file asks for: "
	)
	for name, tt := range map[string]struct {
		top  topology.Topology
		want string
	}{
		"exposed later": {
			edited(t, "    - app: broker-webapp\n      cluster: broker\n      # The page is at http://localhost:8080/quotes.\n"+expose, "    - app: broker-webapp\n      cluster: broker\n"),
			"survey/quotes: " + start + "cluster broker was made with other ports: it has 127.0.0.1:8080 (to 30081), and the file asks for none",
		},
		"exposed elsewhere": {
			edited(t, expose, "      expose: 127.0.0.1:9090\n"),
			"survey/quotes: " + start + "cluster broker was made with other ports: it has 127.0.0.1:8080 (to 30081), and the file asks for 127.0.0.1:9090 (to 30081)",
		},
		"another trust domain": {
			edited(t, "cluster2.com", "cluster3.com"),
			"survey/quotes: " + start + "the trust domain of cluster broker is cluster2.com, and the file asks for cluster3.com; " +
				"it cannot be changed once it is set: every identity in it would be another",
		},
		"another profile": {
			changed(t, func(td *topology.TrustDomainSpec) { td.BundleEndpoint.Profile = topology.HTTPSWeb }),
			"survey/quotes: " + start + "the bundleEndpoint.profile of cluster market is https_spiffe, and the file asks for https_web; " +
				"it cannot be changed once it is set: peers authenticate the endpoint by it, and none would get through any more",
		},
		"another datastore": {
			changed(t, func(td *topology.TrustDomainSpec) { td.Datastore = topology.Postgres }),
			"survey/quotes: " + start + "the datastore of cluster market is sqlite, and the file asks for postgres; " +
				"it cannot be changed once it is set: entries and bundles would stay behind in the old one",
		},
		"another authority above": {
			changed(t, func(td *topology.TrustDomainSpec) { td.UpstreamAuthority = topology.Disk }),
			"survey/quotes: " + start + "the upstreamAuthority of cluster market is none, and the file asks for disk; " +
				"it cannot be changed once it is set: the authorities that peers hold would end at once",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, quotes(t)); err != nil {
					t.Fatal(err)
				}
				w.mutations = nil
				err := w.up(t, d, tt.top)
				var mismatch *lab.MismatchError
				if !errors.As(err, &mismatch) || err.Error() != tt.want {
					t.Errorf("error %v, want %s", err, tt.want)
				}
				if len(w.mutations) > 0 {
					t.Errorf("it changed something: %v", w.mutations)
				}
			})
		})
	}
}

// changed is the quotes preset with another trust domain of its first cluster.
func changed(t *testing.T, change func(*topology.TrustDomainSpec)) topology.Topology {
	t.Helper()
	top := quotes(t)
	top.TrustDomains = slices.Clone(top.TrustDomains)
	change(&top.TrustDomains[0])
	return top
}

// TestUpRemovesWhatTheFileNoLongerHas takes a cluster out of a lab: everything of
// it goes, also what the others have because of it, and they keep their places.
func TestUpRemovesWhatTheFileNoLongerHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		if err := w.up(t, d, edited(t, "broker\n", "exchange\n")); err != nil {
			t.Fatal(err)
		}
		dump := w.dump()
		for _, gone := range []string{"quotes/broker", "kind-quotes-broker"} {
			if strings.Contains(dump, gone) {
				t.Errorf("%s is still there:\n%s", gone, dump)
			}
		}
		for _, there := range []string{"quotes/exchange node", "quotes/market trusts cluster2.com at https://10.192.2.1:8443: in sync"} {
			if !strings.Contains(dump, there) {
				t.Errorf("%s is not there:\n%s", there, dump)
			}
		}

		alone := quotes(t)
		alone.Clusters, alone.TrustDomains, alone.Relationships, alone.Workloads = alone.Clusters[:1], alone.TrustDomains[:1], nil, alone.Workloads[:1]
		if err := w.up(t, d, alone); err != nil {
			t.Fatal(err)
		}
		dump = w.dump()
		for _, gone := range []string{"exchange", "trusts", "ClusterFederatedTrustDomain cluster2.com", "holds"} {
			if strings.Contains(dump, gone) {
				t.Errorf("%s is still there:\n%s", gone, dump)
			}
		}
		for _, there := range []string{"quotes/market release stock-quotes", "quotes/market entry spiffe://cluster1.com/server"} {
			if !strings.Contains(dump, there) {
				t.Errorf("%s is not there:\n%s", there, dump)
			}
		}

		alone.Workloads = nil
		if err := w.up(t, d, alone); err != nil {
			t.Fatal(err)
		}
		for _, gone := range []string{"release stock-quotes", "entry spiffe://cluster1.com/server"} {
			if dump := w.dump(); strings.Contains(dump, gone) {
				t.Errorf("%s is still there:\n%s", gone, dump)
			}
		}
	})
}

func TestUpRefusesATakenPortBeforeImagesAreMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.taken[netip.MustParseAddrPort("127.0.0.1:8080")] = true
		err := w.up(t, w.driver(t), quotes(t))
		if want := "survey/quotes: port 8080 of this machine is taken"; err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		if len(w.mutations) > 0 {
			t.Errorf("it changed something: %v", w.mutations)
		}
	})
}

// A node that does not boot may be the image's fault: the error says which one it
// was.
func TestUpSaysWhichImageDoesNotBoot(t *testing.T) {
	for _, pulled := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.pulled = pulled
			w.fault = func(call string) verdict {
				if strings.HasPrefix(call, "Nodes.Create ") {
					return fail
				}
				return pass
			}
			err := w.up(t, w.driver(t), quotes(t))
			var boot *lab.BootError
			if !errors.As(err, &boot) || boot.Pulled != pulled || !errors.Is(err, errInjected) {
				t.Errorf("pulled %t: error %v, want one that says so", pulled, err)
			}
		})
	}
}

// TestUpBringsAChangedDemo: a demo program that was edited goes to the cluster
// that runs it, without a node image.
func TestUpBringsAChangedDemo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		w.mutations, w.edits["broker-webapp"], w.edits["stock-quotes"] = nil, 1, 1
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		slices.Sort(w.mutations)
		want := []string{
			"Images.LoadDemo broker-webapp", "Images.LoadDemo stock-quotes",
			"Releases.Apply broker-webapp in broker", "Releases.Apply stock-quotes in market",
		}
		if !slices.Equal(w.mutations, want) {
			t.Errorf("it changed %v, want %v", w.mutations, want)
		}
	})
}

// TestUpRepairsDrift: what a server holds of another one is put right, also where
// it is what keeps the server from fetching.
func TestUpRepairsDrift(t *testing.T) {
	want := finished(t)
	for name, tt := range map[string]struct {
		drift func(market, broker *spireServer)
		// calls are what repairs it, in this order.
		calls []string
	}{
		"deleted": {
			func(market, broker *spireServer) { delete(broker.held, market.td) },
			[]string{"SPIRE RefreshBundle in broker", "SPIRE BatchSetFederatedBundle in broker", "SPIRE RefreshBundle in broker"},
		},
		"of somebody else": {
			func(market, broker *spireServer) { broker.held[market.td] = broker.bundle() },
			[]string{"SPIRE RefreshBundle in broker", "SPIRE BatchSetFederatedBundle in broker", "SPIRE RefreshBundle in broker"},
		},
		"behind": {
			func(market, broker *spireServer) { broker.held[market.td].RemoveJWTAuthority("jwt-of-cluster1.com") },
			[]string{"SPIRE RefreshBundle in broker"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, quotes(t)); err != nil {
					t.Fatal(err)
				}
				w.calls = nil
				tt.drift(w.nodes[nodeName{"quotes", "market"}].spire, w.nodes[nodeName{"quotes", "broker"}].spire)
				if err := w.up(t, d, quotes(t)); err != nil {
					t.Fatal(err)
				}
				w.want(t, want)
				repairing := slices.DeleteFunc(slices.Clone(w.calls), func(c string) bool { return !slices.Contains(tt.calls, c) })
				if !slices.Equal(repairing, tt.calls) {
					t.Errorf("repaired with %v, want %v", repairing, tt.calls)
				}
			})
		})
	}
}

// TestUpWantsTheEndpointToWork: a bundle that was handed over is not enough.
func TestUpWantsTheEndpointToWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		market, broker := w.nodes[nodeName{"quotes", "market"}].spire, w.nodes[nodeName{"quotes", "broker"}].spire
		broker.held[market.td].RemoveJWTAuthority("jwt-of-cluster1.com")
		stranger, err := broker.svid(spire.ServerID(broker.td))
		if err != nil {
			t.Fatal(err)
		}
		market.shown = stranger.Certificates
		err = w.up(t, d, quotes(t))
		for _, want := range []string{"federate/cluster2.com->cluster1.com: wait until cluster2.com holds the bundle of cluster1.com: not after 3m", "unexpected SPIFFE ID spiffe://cluster2.com/spire/server"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v lacks %q", err, want)
			}
		}
	})
}

func TestUpInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		errInterrupted := errors.New("interrupted")
		d.Observe = func(e plan.Event) {
			if e.Step == "cluster/market" && e.State == plan.Changed {
				w.kill(errInterrupted)
			}
		}
		if err := w.up(t, d, quotes(t)); !errors.Is(err, errInterrupted) {
			t.Errorf("error %v, want %v", err, errInterrupted)
		}
	})
}

// TestUpLooksForWatchers: what the kernel allows is back at its default after a
// reboot, and the clusters are stopped.
func TestUpLooksForWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		w.watchers = 1
		const want = "no watchers for 2 clusters"
		if err := w.up(t, d, quotes(t)); err == nil || !strings.HasSuffix(err.Error(), want) || len(w.nodes) > 0 {
			t.Errorf("error %v, want …%s, and %d clusters", err, want, len(w.nodes))
		}
		w.watchers = 0
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		w.watchers = 1
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Errorf("with clusters that run: %v", err)
		}
		w.nodes[nodeName{"quotes", "broker"}].running = false
		if err := w.up(t, d, quotes(t)); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("with a cluster that is stopped: %v, want …%s", err, want)
		}
	})
}
