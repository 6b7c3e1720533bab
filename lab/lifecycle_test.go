package lab_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// TestWhatAKilledUpAskedForComesLate: Docker goes on with what it was asked for,
// and lists it only when it is there.
func TestWhatAKilledUpAskedForComesLate(t *testing.T) {
	want := finished(t)
	market := nodeName{"quotes", "market"}
	for name, tt := range map[string]struct {
		networked bool
		late      nodeName
		after     time.Duration
	}{
		"a node":    {true, market, 5 * time.Second},
		"a network": {false, nodeName{lab: "quotes"}, 300 * time.Millisecond},
	} {
		for command, do := range map[string]func(*testing.T, *world, *lab.Driver) (want string, err error){
			"up": func(t *testing.T, w *world, d *lab.Driver) (string, error) {
				t.Helper()
				return want, w.up(t, d, quotes(t))
			},
			"down": func(t *testing.T, w *world, d *lab.Driver) (string, error) {
				t.Helper()
				_, err := w.down(t, d)
				return "", err
			},
		} {
			if command == "up" && !tt.networked {
				continue // it asks for the network, too
			}
			t.Run(name+"/"+command, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					if tt.networked {
						w.networks["quotes"] = topology.NetworkCandidates()[0]
					}
					w.late[tt.late] = time.Now().Add(tt.after)
					want, err := do(t, w, w.driver(t))
					if err != nil {
						t.Fatal(err)
					}
					w.mu.Lock()
					if len(w.late) > 0 {
						t.Errorf("%v still comes", w.late)
					}
					w.arrive()
					w.mu.Unlock()
					w.want(t, want)
				})
			})
		}
	}
}

// TestUpRemovesNoClusterThatWasWhole, whatever is wrong with it now.
func TestUpRemovesNoClusterThatWasWhole(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*world)
		want  string
	}{
		"its API is silent": {
			func(w *world) { w.nodes[nodeName{"quotes", "market"}].state = deaf },
			"cluster/market: cluster market was complete once and does not answer now, and up removes no such cluster: wait until the API answers: not after 1m0s",
		},
		"its kubeconfig is gone": {
			func(w *world) { w.nodes[nodeName{"quotes", "market"}].state = noKubeconfig },
			"cluster/market: cluster market was complete once and does not answer now, and up removes no such cluster: wait until the API answers: cluster market has no kubeconfig",
		},
		"it is stopped, and silent": {
			func(w *world) {
				n := w.nodes[nodeName{"quotes", "market"}]
				n.state, n.running = deaf, false
			},
			"cluster/market: cluster market was complete once and does not answer now, and up removes no such cluster: wait until the API answers: not after 3m0s",
		},
		"all are silent": {
			func(w *world) {
				for _, n := range w.nodes {
					n.state = deaf
				}
			},
			"survey/quotes: cluster market was complete once and does not answer now, and up removes no such cluster: wait until a cluster tells what the lab is meant to be: not after 1m0s",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, quotes(t)); err != nil {
					t.Fatal(err)
				}
				tt.spoil(w)
				w.mutations = nil
				err := w.up(t, d, quotes(t))
				silent := (*lab.SilentError)(nil)
				if !errors.As(err, &silent) || !strings.HasPrefix(err.Error(), tt.want) {
					t.Errorf("error %v\nwant  %s", err, tt.want)
				}
				for _, change := range w.mutations {
					if strings.HasPrefix(change, "Nodes.Delete") || strings.HasPrefix(change, "Nodes.Create") {
						t.Errorf("it changed something: %s", change)
					}
				}
			})
		})
	}
}

// TestUpPutsBackTheMarkOfACluster that somebody deleted: what the node says counts.
func TestUpPutsBackTheMarkOfACluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		want := w.dump()
		delete(w.nodes[nodeName{"quotes", "market"}].objects, access.ObjectKey{APIVersion: "v1", Kind: "ConfigMap", Namespace: "kube-system", Name: "fedlab"})
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		w.want(t, want)
	})
}

// TestNobodyJoins: the token that kind gives each cluster is known to everybody.
// A lab that is up from before has it until the next up.
func TestNobodyJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		invited := func() (left []string) {
			for name, n := range w.nodes {
				for _, key := range kubeadmLeaves() {
					if _, there := n.objects[key]; there {
						left = append(left, name.String()+" has "+key.Name)
					}
				}
			}
			return left
		}
		if left := invited(); left != nil {
			t.Errorf("after the first up: %v", left)
		}
		for _, key := range kubeadmLeaves() {
			w.nodes[nodeName{"quotes", "broker"}].objects[key] = "{}"
		}
		w.mutations = nil
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		if left := invited(); left != nil || len(w.mutations) != 2 {
			t.Errorf("after the second: %v, changed %v", left, w.mutations)
		}
	})
}

// TestUpRefusesANameThatAnotherLabHas before any work is done.
func TestUpRefusesANameThatAnotherLabHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, edited(t, "  name: quotes\n", "  name: istio\n")); err != nil {
			t.Fatal(err)
		}
		w.nodes[nodeName{"istio", "cross-market"}] = newNode(w, nodeName{"istio", "cross-market"}, lab.NodeSpec{})
		w.mutations = nil
		err := w.up(t, d, edited(t, "  name: quotes\n", "  name: istio-cross\n"))
		if want := "survey/istio-cross: container of market is another lab's: istio/cross-market"; err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		if len(w.mutations) > 0 {
			t.Errorf("it changed something: %v", w.mutations)
		}
	})
}

// TestUpNamesAPortThatWasTakenFromAStoppedNode, before Docker does.
func TestUpNamesAPortThatWasTakenFromAStoppedNode(t *testing.T) {
	page, api := netip.MustParseAddrPort("127.0.0.1:8080"), netip.MustParseAddrPort("127.0.0.1:41234")
	for name, tt := range map[string]struct {
		taken netip.AddrPort
		stop  func(*world)
		want  string
	}{
		"that of a page": {page, func(w *world) { w.nodes[nodeName{"quotes", "broker"}].running = false },
			"survey/quotes: port 8080 of this machine is taken"},
		"that of a page, and all are stopped": {page, (*world).stopAll,
			"survey/quotes: port 8080 of this machine is taken"},
		"that of the API": {api, func(w *world) { w.nodes[nodeName{"quotes", "broker"}].running = false },
			"cluster/broker: port 41234 of this machine is taken, and the API of cluster broker had it: stop what listens on 127.0.0.1:41234"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				d := w.driver(t)
				if err := w.up(t, d, quotes(t)); err != nil {
					t.Fatal(err)
				}
				w.nodes[nodeName{"quotes", "broker"}].address = api
				want := w.dump()
				tt.stop(w)
				w.taken[tt.taken] = true
				if err := w.up(t, d, quotes(t)); err == nil || err.Error() != tt.want {
					t.Errorf("error %v, want %s", err, tt.want)
				}
				delete(w.taken, tt.taken)
				if err := w.up(t, d, quotes(t)); err != nil {
					t.Fatal(err)
				}
				w.want(t, want)
			})
		})
	}
}

// TestUpLooksAgainAtATakenPort: a container of a killed up has its ports a moment
// before anybody can see it.
func TestUpLooksAgainAtATakenPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		page := netip.MustParseAddrPort("127.0.0.1:8080")
		w.taken[page] = true
		time.AfterFunc(2*time.Second, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			delete(w.taken, page)
		})
		if err := w.up(t, w.driver(t), quotes(t)); err != nil {
			t.Fatal(err)
		}
	})
}

// TestUpMeetsANodeThatGoes: a killed command has asked Docker to remove it, and Docker
// no longer starts it.
func TestUpMeetsANodeThatGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		want := w.dump()
		w.stopAll()
		w.fault = func(call string) verdict {
			if market := (nodeName{"quotes", "market"}); call == "Nodes.Start market" && w.nodes[market] != nil {
				delete(w.nodes, market)
				return fail
			}
			return pass
		}
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		w.want(t, want)
	})
}

// TestUpMakesANetworkAgain that was removed while all nodes were stopped.
func TestUpMakesANetworkAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		want := w.dump()
		w.stopAll()
		delete(w.networks, "quotes")
		s, err := d.Status(t.Context(), quotes(t))
		if says := "its node is stopped, and the lab's network is gone: 'fedlab up' makes the network again and starts the node"; err != nil || s.Clusters[0].Problem != says {
			t.Errorf("status says %q, error %v; want %q", s.Clusters[0].Problem, err, says)
		}
		var notes []string
		d.Observe = func(e plan.Event) {
			if e.State == plan.Remarked && strings.Contains(e.Note, "network") {
				notes = append(notes, e.Note)
			}
		}
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		if len(notes) != 1 || notes[0] != "the lab's network is gone: makes it again" {
			t.Errorf("said %q", notes)
		}
		w.want(t, want)
		if _, err := w.down(t, d); err != nil {
			t.Error(err)
		}
		w.want(t, "")
	})
}

// TestALabNeedsNoKubeconfigFile: it comes up and goes, and says what is missing.
func TestALabNeedsNoKubeconfigFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.driver(t)
		w.noFiles = errors.New("read kubeconfig files: config: is a directory")
		var notes []string
		d.Observe = func(e plan.Event) {
			if e.State == plan.Remarked && strings.HasPrefix(e.Note, "goes on ") {
				notes = append(notes, e.Note)
			}
		}
		if err := w.up(t, d, quotes(t)); err != nil {
			t.Fatal(err)
		}
		if s, err := d.Status(t.Context(), quotes(t)); err != nil || !s.Well {
			t.Errorf("well %t, error %v", s.Well, err)
		}
		if _, err := w.down(t, d); err != nil {
			t.Fatal(err)
		}
		w.want(t, "")
		want := []string{
			"goes on without the contexts kind-quotes-market, kind-quotes-broker: read kubeconfig files: config: is a directory",
			"goes on and leaves the lab's contexts where they are: read kubeconfig files: config: is a directory",
		}
		if !slices.Equal(notes, want) {
			t.Errorf("said %q, want %q", notes, want)
		}
	})
}

// TestDownRemovesVolumesThatWereLeft by a down that was killed, also where somebody
// has removed the network since.
func TestDownRemovesVolumesThatWereLeft(t *testing.T) {
	for _, networked := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.notes["quotes"] = true
			if networked {
				w.networks["quotes"] = topology.NetworkCandidates()[0]
			}
			if _, err := w.down(t, w.driver(t)); err != nil {
				t.Fatal(err)
			}
			w.want(t, "")
		})
	}
}
