package fault_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/spire"
)

var (
	marketDomain = spiffeid.RequireTrustDomainFromString("cluster1.com")
	brokerDomain = spiffeid.RequireTrustDomainFromString("cluster2.com")
)

// bundle returns one of marketDomain with so many JWT authorities.
func bundle(authorities int) *spiffebundle.Bundle {
	b := spiffebundle.New(marketDomain)
	for i := range authorities {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err == nil {
			err = b.AddJWTAuthority(fmt.Sprint(i), key.Public())
		}
		if err != nil {
			panic(err)
		}
	}
	return b
}

// good is what is held when all is well.
var good = bundle(2)

// subject is a fault, and what its checks say.
type subject struct {
	make func(*world) fault.Fault
	// felt and healed are what the checks wait for; calm is what the first sees
	// where nothing is broken, and hurt what the second sees while it is.
	felt, calm, healed, hurt string
	// lasting says that the fault is felt after it was recovered from, too.
	lasting bool
}

func subjects() map[string]subject {
	return map[string]subject{
		"server-stopped/market": {
			make: func(w *world) fault.Fault { return fault.ServerStopped(w.market.cluster()) },
			felt: "no pod of the SPIRE server of cluster market is left", calm: "pod spire-server-0 is there, phase Running",
			healed: "the SPIRE server of cluster market runs", hurt: "pod spire-server-0 is not there",
		},
		"replica-0-killed/broker": {
			make: func(w *world) fault.Fault { return fault.ReplicaKilled(w.broker.paired(), 0) },
			felt: "pod spire-server-0 of cluster broker is gone", calm: "pod spire-server-0 is there, phase Running",
			healed: "both SPIRE servers of cluster broker are ready", hurt: "1 of 2 ready",
		},
		"replica-1-killed/broker": {
			make: func(w *world) fault.Fault { return fault.ReplicaKilled(w.broker.paired(), 1) },
			felt: "pod spire-server-1 of cluster broker is gone", calm: "pod spire-server-1 is there, phase Running",
			healed: "both SPIRE servers of cluster broker are ready", hurt: "1 of 2 ready",
		},
		"server-killed/market": {
			make: func(w *world) fault.Fault { return fault.ServerKilled(w.market.cluster()) },
			felt: "the SPIRE server of cluster market is not the one that it was", lasting: true,
			healed: "the SPIRE server of cluster market runs", hurt: "container spire-server of pod spire-server-0 is the one that it was, with 0 restarts",
		},
		"server-data-lost/market": {
			make: func(w *world) fault.Fault { w.eager = true; return fault.ServerDataLost(w.market.cluster()) },
			felt: "the SPIRE server of cluster market has another volume", lasting: true,
			healed: "the SPIRE server of cluster market runs on another volume", hurt: "none",
		},
		"datastore-stopped/market": {
			make: func(w *world) fault.Fault { return fault.DatastoreStopped(w.market.cluster()) },
			felt: "no pod of the datastore of cluster market is left", calm: "pod spire-database-0 is there, phase Running",
			healed: "the datastore of cluster market runs", hurt: "pod spire-database-0 is not there",
		},
		"agent-stopped/market": {
			make: func(w *world) fault.Fault { return fault.AgentStopped(w.market.cluster()) },
			felt: "no pod of the SPIRE agent of cluster market is left", calm: "spire-agent-x is there",
			healed: "the SPIRE agent of cluster market runs", hurt: "0 pods of agents, want one",
		},
		"agent-killed/market": {
			make: func(w *world) fault.Fault { return fault.AgentKilled(w.market.cluster()) },
			felt: "the SPIRE agent of cluster market is not the one that it was", lasting: true,
			healed: "the SPIRE agent of cluster market runs", hurt: "container spire-agent of pod spire-agent-x is the one that it was, with 0 restarts",
		},
		"agent-banned/market": {
			make: func(w *world) fault.Fault { return fault.AgentBanned(w.market.cluster(), w) },
			felt: "the SPIRE agent of cluster market ends each time that it is started", calm: "container spire-agent of pod spire-agent-x is ready",
			healed: "the SPIRE agent of cluster market runs", hurt: "0 of 1 ready",
		},
		"bundle-lost/market": {
			make: func(w *world) fault.Fault { return fault.BundleLost(w.market.cluster()) },
			felt: "ConfigMap spire-bundle is not in cluster market", calm: "it is there",
			healed: "ConfigMap spire-bundle is in cluster market, and the SPIRE agent of cluster market runs", hurt: "it is not there",
		},
		"webhook-cut/market": {
			make: func(w *world) fault.Fault { return fault.WebhookCut(w.market.cluster()) },
			felt: "the webhook of cluster market does not answer", calm: "there is an answer",
			healed: "the webhook of cluster market answers", hurt: "curl: exit code 28: connection timed out",
		},
		"object-added/odd/market": {
			make: func(w *world) fault.Fault {
				return fault.ObjectAdded(w.market.cluster(), access.ObjectKey{Kind: "Stranger", Name: "odd"}, map[string]any{"kind": "Stranger"})
			},
			felt: "Stranger odd is in cluster market", calm: "it is not there",
			healed: "Stranger odd is not in cluster market", hurt: "it is there",
		},
		"controller-manager-gone/market": {
			make: func(w *world) fault.Fault { return fault.ControllerManagerGone(w.market.cluster()) },
			felt: "the controller manager of cluster market is not ready", calm: "container spire-controller-manager of pod spire-server-0 is ready",
			healed: "the controller manager of cluster market is ready", hurt: "container spire-controller-manager of pod spire-server-0 is not ready",
		},
		"endpoint-cut/market": {
			make: func(w *world) fault.Fault { return fault.EndpointCut(w.market.cluster()) },
			felt: "the bundle endpoint of cluster market leads to nobody", calm: "10.64.0.9 is there",
			healed: "the bundle endpoint of cluster market leads to its server", hurt: "it leads to nobody",
		},
		"partition/market->broker": {
			make: func(w *world) fault.Fault {
				return fault.PartitionOneWay(w.market.cluster(), w.broker.cluster())
			},
			felt: "cluster broker does not answer cluster market", calm: "there is an answer",
			healed: "clusters market and broker reach each other",
			hurt:   "call cluster broker from cluster market: curl: exit code 28: connection timed out",
		},
		"partition/market<->broker": {
			make: func(w *world) fault.Fault { return fault.Partition(w.market.cluster(), w.broker.cluster()) },
			felt: "clusters market and broker do not answer each other", calm: "there is an answer",
			healed: "clusters market and broker reach each other",
			hurt:   "call cluster broker from cluster market: curl: exit code 28: connection timed out",
		},
		"cluster-stopped/market": {
			make: func(w *world) fault.Fault { return fault.ClusterStopped(w.market.cluster()) },
			felt: "the node of cluster market is off", calm: "the node of cluster market runs",
			healed: "cluster market is back with its SPIRE server and agent", hurt: "api server: connection refused",
		},
		"frozen/market+broker": {
			make: func(w *world) fault.Fault { return fault.Frozen(w.market.cluster(), w.broker.cluster()) },
			felt: "the nodes of market+broker stand still", calm: "the node of cluster market runs",
			healed: "the nodes of market+broker go on", hurt: "the node of cluster market does not run",
		},
		"bundle-set/cluster2.com->cluster1.com": {
			make: func(w *world) fault.Fault { return fault.BundleSet(brokerDomain, w, bundle(1)) },
			felt: "cluster2.com holds a bundle with 0 X.509 and 1 JWT authorities of cluster1.com",
			calm: "it holds a bundle with 0 X.509 and 2 JWT authorities",

			healed: "cluster2.com holds another bundle of cluster1.com than the one that was set",
			hurt:   "it holds a bundle with 0 X.509 and 1 JWT authorities",
		},
		"bundle-deleted/cluster2.com->cluster1.com": {
			make: func(w *world) fault.Fault {
				return fault.BundleDeleted(brokerDomain, w, marketDomain, spire.DeleteDissociate)
			},
			felt: "cluster2.com holds no bundle of cluster1.com", calm: "it holds a bundle with 0 X.509 and 2 JWT authorities",
			healed: "cluster2.com holds a bundle of cluster1.com again", hurt: "it holds no bundle",
		},
	}
}

// well returns a world in which nothing is broken.
func well() *world {
	w := newWorld()
	w.bundles[marketDomain] = good
	return w
}

func TestFaults(t *testing.T) {
	for name, s := range subjects() {
		t.Run(name, func(t *testing.T) {
			w := well()
			f := s.make(w)
			if f.Name() != name {
				t.Errorf("name %s", f.Name())
			}
			before := w.String()
			i := inject(t, f)
			w.settleUnless(name)
			felt, healed := i.Felt(), i.Healed()
			if felt.Name != s.felt || healed.Name != s.healed {
				t.Errorf("waits until %q and %q, want %q and %q", felt.Name, healed.Name, s.felt, s.healed)
			}
			wantError(t, "felt", felt.Probe(t.Context()), "none")
			wantError(t, "not healed", healed.Probe(t.Context()), s.hurt)

			for range 2 {
				wantError(t, "recover", i.Recover(t.Context()), "none")
				w.settle()
				if now := w.String(); now != before {
					t.Errorf("it is put back as %s\nwant %s", now, before)
				}
				wantError(t, "healed", healed.Probe(t.Context()), "none")
				if !s.lasting {
					wantError(t, "not felt", felt.Probe(t.Context()), s.calm)
				}
			}
		})
	}
}

// settleUnless leaves what was killed as it is where Kubernetes would start it again, so
// that it is seen.
func (w *world) settleUnless(name string) {
	if !strings.HasPrefix(name, "server-killed/") && !strings.HasPrefix(name, "agent-killed/") {
		w.settle()
	}
}

func inject(t *testing.T, f fault.Fault) fault.Injected {
	t.Helper()
	i, err := f.Inject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// TestInjectUndoesItself: whichever call fails, done or not, nothing is left; and
// where undoing fails as well, it can be done later.
func TestInjectUndoesItself(t *testing.T) {
	for name, s := range subjects() {
		t.Run(name, func(t *testing.T) {
			w := well()
			before := w.String()
			inject(t, s.make(w))
			for call := range w.calls {
				for _, lost := range []bool{false, true} {
					for _, last := range []int{call + 1, 1000} {
						synctest.Test(t, func(t *testing.T) {
							w := well()
							w.failFrom, w.failTo, w.lost = call+1, last, lost
							i, err := s.make(w).Inject(t.Context())
							if text := message(err); !strings.HasPrefix(text, "inject "+name+": ") || !strings.Contains(text, " call ") {
								// What is waited for is looked at again.
								if err == nil && name == "server-data-lost/market" && last == call+1 {
									return
								}
								t.Fatalf("call %d fails (lost %t): error %s", call+1, lost, text)
							}
							if last == call+1 && i != nil {
								t.Errorf("call %d fails (lost %t): it left something to recover from: %v", call+1, lost, err)
							}
							w.failTo = 0
							if i != nil {
								wantError(t, "recover", i.Recover(t.Context()), "none")
							}
							w.settle()
							if now := w.String(); now != before {
								t.Errorf("calls %d to %d fail (lost %t): it left %s\nwant %s", call+1, last, lost, now, before)
							}
						})
					}
				}
			}
		})
	}
}

// TestChecksSayWhatTheyCannotSee: an error of a look is neither felt nor healed.
func TestChecksSayWhatTheyCannotSee(t *testing.T) {
	for name, s := range subjects() {
		t.Run(name, func(t *testing.T) {
			w := well()
			i := inject(t, s.make(w))
			for what, c := range map[string]check.Check{"felt": i.Felt(), "healed": i.Healed()} {
				w.failFrom, w.failTo = w.calls+1, 1000
				wantError(t, what, c.Probe(t.Context()), fmt.Sprintf("injected into call %d", w.calls))
				w.failTo = 0
			}
		})
	}
}

// TestDatastoreStoppedNeedsOne: a part of an object that is not there would make
// one.
func TestDatastoreStoppedNeedsOne(t *testing.T) {
	w := well()
	cluster := w.market.cluster()
	cluster.Objects = bare{w.market}
	i, err := fault.DatastoreStopped(cluster).Inject(t.Context())
	wantError(t, "inject", err, "inject datastore-stopped/market: the SPIRE server has no PostgreSQL")
	if i != nil || w.calls != 0 {
		t.Errorf("it left %v after %d calls", i, w.calls)
	}
}

// TestInjectSurvivesItsContext: who interrupts an injection is left with nothing.
func TestInjectSurvivesItsContext(t *testing.T) {
	w := well()
	before := w.String()
	ctx, cancel := context.WithCancel(t.Context())
	cluster := w.market.cluster()
	cluster.Power = power{site: w.market, stop: func(ctx context.Context) error {
		cancel()
		return errors.Join(w.market.Stop(ctx, 30*time.Second), ctx.Err())
	}}
	i, err := fault.ClusterStopped(cluster).Inject(ctx)
	wantError(t, "inject", err, "inject cluster-stopped/market: context canceled")
	if i != nil || w.String() != before {
		t.Errorf("it left %s", w)
	}
}

// power starts nothing when its context is over.
type power struct {
	*site
	stop func(context.Context) error
}

func (p power) Stop(ctx context.Context, _ time.Duration) error { return p.stop(ctx) }

func (p power) Start(ctx context.Context) error { return errors.Join(ctx.Err(), p.site.Start(ctx)) }

// TestInjectTakesOver: a second process knows nothing of a first one that was
// killed, and leaves nothing of either.
func TestInjectTakesOver(t *testing.T) {
	refusals := map[string]string{
		"server-killed/market":                      "container spire-server of pod spire-server-0 does not run",
		"agent-killed/market":                       "container spire-agent of pod spire-agent-x does not run",
		"bundle-lost/market":                        "ConfigMap spire-bundle is not there",
		"cluster-stopped/market":                    "its node is off already",
		"frozen/market+broker":                      "the node of cluster market does not run",
		"bundle-set/cluster2.com->cluster1.com":     "cluster2.com holds a bundle with 0 X.509 and 1 JWT authorities already",
		"bundle-deleted/cluster2.com->cluster1.com": "cluster2.com holds no bundle already",
	}
	for name, s := range subjects() {
		t.Run(name, func(t *testing.T) {
			w := well()
			before := w.String()
			f := s.make(w)
			inject(t, f)
			w.settleUnless(name)
			i, err := f.Inject(t.Context())
			if refusal, refused := refusals[name]; refused {
				wantError(t, "inject", err, "inject "+name+": "+refusal)
				return
			}
			wantError(t, "inject", err, "none")
			w.settle()
			wantError(t, "felt", i.Felt().Probe(t.Context()), "none")
			wantError(t, "recover", i.Recover(t.Context()), "none")
			w.settle()
			wantError(t, "healed", i.Healed().Probe(t.Context()), "none")
			if now := w.String(); now != before {
				t.Errorf("it left %s\nwant %s", now, before)
			}
		})
	}
}

// TestPartitionRules: each way has its own rules, and only those are removed.
func TestPartitionRules(t *testing.T) {
	w := well()
	others := []string{
		"-A PREROUTING -j KUBE-SOMETHING\n",
		"-A PREROUTING -s 10.192.0.9/32 -m comment --comment \"fedlab:partition/other->broker\" -j DROP\n",
	}
	w.broker.rules = slices.Clone(others)
	inject(t, fault.PartitionOneWay(w.market.cluster(), w.broker.cluster()))
	want := `-A PREROUTING -s 10.192.0.2/32 -m conntrack --ctdir ORIGINAL -m comment --comment "fedlab:partition/market->broker" -j DROP` + "\n"
	if got := w.broker.rules; !slices.Equal(got, append([]string{want}, others...)) || len(w.market.rules) > 0 {
		t.Errorf("rules %q and %q", w.market.rules, got)
	}
	// The node has another address since; its rule is known all the same.
	w.market.address = w.market.address.Next().Next()
	oneWay := inject(t, fault.PartitionOneWay(w.market.cluster(), w.broker.cluster()))
	if got := w.broker.rules; !slices.Equal(got, append([]string{strings.Replace(want, "0.2/", "0.4/", 1)}, others...)) {
		t.Errorf("rules %q", got)
	}
	// Who is cut off already would prove nothing.
	_, err := fault.Partition(w.market.cluster(), w.broker.cluster()).Inject(t.Context())
	wantError(t, "inject", err, "inject partition/market<->broker: call cluster broker from cluster market: curl: exit code 28: connection timed out")
	wantError(t, "recover", oneWay.Recover(t.Context()), "none")

	both := inject(t, fault.Partition(w.market.cluster(), w.broker.cluster()))
	drop := func(address string) string {
		return "-A PREROUTING -s " + address + `/32 -m comment --comment "fedlab:partition/market<->broker" -j DROP` + "\n"
	}
	if got := w.market.rules; !slices.Equal(got, []string{drop("10.192.0.3")}) {
		t.Errorf("rules of market %q", got)
	}
	if got := w.broker.rules; !slices.Equal(got, append([]string{drop("10.192.0.4")}, others...)) {
		t.Errorf("rules of broker %q", got)
	}
	// A node that started again has none; one that is off is not asked.
	w.market.rules = nil
	w.broker.on = false
	wantError(t, "recover", both.Recover(t.Context()), "recover from partition/market<->broker: it does not run")
	w.broker.on = true
	wantError(t, "recover", both.Recover(t.Context()), "none")
	if !slices.Equal(w.broker.rules, others) {
		t.Errorf("rules of broker %q, want those of others %q", w.broker.rules, others)
	}
}

// TestStoppedNodeIsNotHealedByOldNews: until kubelet has reported, all pods run as
// far as Kubernetes knows.
func TestStoppedNodeIsNotHealedByOldNews(t *testing.T) {
	w := well()
	i := inject(t, fault.ClusterStopped(w.market.cluster()))
	wantError(t, "recover", i.Recover(t.Context()), "none")
	wantError(t, "healed", i.Healed().Probe(t.Context()), "container spire-server of pod spire-server-0 is the one that it was, with 0 restarts")
	w.market.server = process{run: 2, running: true}
	wantError(t, "healed", i.Healed().Probe(t.Context()), "container spire-agent of pod spire-agent-x is the one that it was, with 0 restarts")
	w.settle()
	wantError(t, "healed", i.Healed().Probe(t.Context()), "none")
}

// TestHungControllerManagerThatWasReplaced: the signal is for the process that was
// stopped and for no other.
func TestHungControllerManagerThatWasReplaced(t *testing.T) {
	for name, change := range map[string]func(*site){
		"started again": func(s *site) { s.manager = process{run: 2, running: true, stopped: true} },
		"gone":          func(s *site) { s.server, s.manager = process{}, process{} },
		"dead":          func(s *site) { s.manager.running = false },
	} {
		t.Run(name, func(t *testing.T) {
			w := well()
			i := inject(t, fault.ControllerManagerGone(w.market.cluster()))
			change(w.market)
			before := w.String()
			wantError(t, "recover", i.Recover(t.Context()), "none")
			if now := w.String(); now != before {
				t.Errorf("it made %s\nof %s", now, before)
			}
		})
	}
}

// TestBundleThatWasRepairedStays: what the server has fetched since is newer than
// what Recover remembers.
func TestBundleThatWasRepairedStays(t *testing.T) {
	fetched := bundle(3)
	for name, f := range map[string]func(*world) fault.Fault{
		"set":     subjects()["bundle-set/cluster2.com->cluster1.com"].make,
		"deleted": subjects()["bundle-deleted/cluster2.com->cluster1.com"].make,
	} {
		t.Run(name, func(t *testing.T) {
			w := well()
			i := inject(t, f(w))
			w.bundles[marketDomain] = fetched
			wantError(t, "not felt", i.Felt().Probe(t.Context()), "it holds a bundle with 0 X.509 and 3 JWT authorities")
			wantError(t, "healed", i.Healed().Probe(t.Context()), "none")
			wantError(t, "recover", i.Recover(t.Context()), "none")
			if w.bundles[marketDomain] != fetched {
				t.Error("it put back what was held before")
			}
		})
	}
}

// TestBundleWhereNoneWasHeld is put back as none.
func TestBundleWhereNoneWasHeld(t *testing.T) {
	w := newWorld()
	i := inject(t, fault.BundleSet(brokerDomain, w, good))
	wantError(t, "not healed", i.Healed().Probe(t.Context()), "it holds a bundle with 0 X.509 and 2 JWT authorities")
	for range 2 {
		wantError(t, "recover", i.Recover(t.Context()), "none")
		wantError(t, "healed", i.Healed().Probe(t.Context()), "none")
		wantError(t, "not felt", i.Felt().Probe(t.Context()), "it holds no bundle")
	}
}

// TestDataThatDoesNotGo: the server is put back with what it has.
func TestDataThatDoesNotGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := well()
		before := w.String()
		began := time.Now()
		_, err := fault.ServerDataLost(w.market.cluster()).Inject(t.Context())
		timeout := (*check.TimeoutError)(nil)
		if !errors.As(err, &timeout) || timeout.Check != "no pod of the SPIRE server of cluster market is left" {
			t.Fatalf("error %v", err)
		}
		wantError(t, "last seen", timeout.LastSeen, "pod spire-server-0 is there, phase Running")
		if took := time.Since(began); took != 90*time.Second || w.String() != before {
			t.Errorf("after %s it left %s", took, w)
		}
	})
}

// TestWithoutWhatIsToBreak: a fault that has nothing to break refuses, and changes
// nothing.
func TestWithoutWhatIsToBreak(t *testing.T) {
	gone := process{}
	for name, tt := range map[string]struct {
		without func(*site)
		want    string
	}{
		"server-killed/market":           {func(s *site) { s.server = gone }, "pod spire-server-0 is not there"},
		"server-data-lost/market":        {func(s *site) { s.claim, s.w.eager = 0, false }, "volume claim data-spire-server-0 is not there"},
		"agent-killed/market":            {func(s *site) { s.agent = gone }, "0 pods of agents, want one"},
		"controller-manager-gone/market": {func(s *site) { s.server = gone }, "pod spire-server-0 is not there"},
		"cluster-stopped/market":         {func(s *site) { s.server = gone }, "pod spire-server-0 is not there"},
	} {
		t.Run(name, func(t *testing.T) {
			w := well()
			f := subjects()[name].make(w)
			tt.without(w.market)
			before := w.String()
			i, err := f.Inject(t.Context())
			wantError(t, "inject", err, "inject "+name+": "+tt.want)
			if i != nil || w.String() != before {
				t.Errorf("it left %s", w)
			}
		})
	}
}

// TestReplicaIsKilled: the server is killed before Kubernetes is told to leave it away.
func TestReplicaIsKilled(t *testing.T) {
	w := well()
	inject(t, fault.ReplicaKilled(w.broker.paired(), 1))
	if w.broker.second.running || !w.broker.server.running {
		t.Errorf("nothing has settled, and the second server runs: %t, the first: %t", w.broker.second.running, w.broker.server.running)
	}
}
