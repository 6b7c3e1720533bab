package scenarios

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/synthetic"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

func outages() []Scenario {
	return []Scenario{
		server, serverKilled, dataLost, datastore, agent, agentKilled, controllerManager, bundleEndpoint, cluster, partition, missingBundle, hungEndpoint,
	}
}

// newIdentityWaits is what an outage of a server and one of an agent have in
// common: those who have an identity go on, and who comes new waits. What else there
// is to see, meanwhile has steps for; it may be nil.
func newIdentityWaits(ctx context.Context, t *Trial, what string, f func(fault.Cluster) fault.Fault, meanwhile func(called, caller Domain)) error {
	called, caller := t.Pair()
	var broken *Breakage
	var guest Newcomer
	calls := t.CallsThroughout(ctx, caller, called)
	t.Step(ctx, "see that a newcomer gets an identity while all is well", func(ctx context.Context) (err error) {
		if guest, err = called.Newcomer(ctx); err != nil {
			return err
		}
		if err := guest.Register(ctx, nil); err != nil {
			return err
		}
		if err := t.Await(ctx, time.Now(), reconciled(), guest.HasIdentity()); err != nil {
			return err
		}
		// Its registration stays: the controller manager makes an entry of it for
		// each pod that comes.
		return guest.remove(ctx)
	})
	t.StepWith(ctx, "take the "+what+" away", "'fedlab status' says so", func(ctx context.Context) (err error) {
		broken, err = t.Break(ctx, f(called.Fault()))
		return err
	})
	if meanwhile != nil {
		meanwhile(called, caller)
	}
	t.Step(ctx, "let a newcomer come: it waits", func(ctx context.Context) (err error) {
		if guest, err = called.Newcomer(ctx); err != nil {
			return err
		}
		if err := t.until(ctx, guest.Runs()); err != nil {
			return err
		}
		// As long as it would take, were all well.
		return t.Stays(ctx, reconciled().Within, reconcileFormula, guest.HasNone())
	})
	t.Step(ctx, "give it back, and see the newcomer get its identity", func(ctx context.Context) error {
		if err := broken.Mend(ctx); err != nil {
			return err
		}
		return t.Await(ctx, time.Now(), reconciled(), guest.HasIdentity())
	})
	t.Step(ctx, "see that those who had one never noticed", func(ctx context.Context) error {
		calls.AllAnswered("no call failed while the " + what + " was away, though each made a new handshake")
		return t.Await(ctx, time.Now(), immediate(), calls.Ends(traffic.Answered))
	})
	return t.Err()
}

var server = Scenario{
	Name:  "outage/server",
	Claim: "While a SPIRE server is away, those who have an identity call across the federation as before, and only newcomers wait.",
	Sources: []string{
		"SPIRE doc/spire_agent.md: an agent hands out what it has cached",
		"spiffe/spire test/integration: connectivity with servers stopped",
	},
	Run: func(ctx context.Context, t *Trial) error {
		return newIdentityWaits(ctx, t, "server", fault.ServerStopped, nil)
	},
}

// postgresDatastore is the need of who breaks a datastore: sqlite is a file of the
// server's own.
var postgresDatastore = &Need{
	What: "a SPIRE server with a PostgreSQL, that of the called trust domain; 'datastore: postgres' in the lab file gives it one",
	met:  func(called, _ *topology.Domain) bool { return called.Datastore == topology.Postgres },
}

var datastore = Scenario{
	Name:  "outage/datastore",
	Claim: "While the datastore of a SPIRE server is away, those who have an identity call across the federation as before, and newcomers and peers wait: the server neither takes an entry nor serves its bundle.",
	Needs: postgresDatastore,
	Sources: []string{
		"SPIRE pkg/server/endpoints/bundle/server.go: 500 where the bundle cannot be read",
		"SPIRE pkg/server/server.go, CheckHealth: a server is well when it can read its bundle",
	},
	Run: func(ctx context.Context, t *Trial) error {
		err := newIdentityWaits(ctx, t, "datastore", fault.DatastoreStopped, func(called, caller Domain) {
			t.Step(ctx, "see that its peer cannot fetch its bundle, and keeps the one that it has", func(ctx context.Context) error {
				before, err := caller.Held(ctx, called.Name)
				if err != nil {
					return err
				}
				if err := caller.cannotFetch(ctx, called); err != nil {
					return err
				}
				after, err := caller.Held(ctx, called.Name)
				if err == nil && (before == nil || after == nil || !before.Equal(after)) {
					err = errors.New("it has another one")
				}
				return err
			})
		})
		if err != nil {
			return err
		}
		// Kubernetes may have seen it unwell, and does not look again at once.
		t.Step(ctx, "see that the server counts as well", func(ctx context.Context) error {
			called, _ := t.Pair()
			b := Bound{Within: federation.HealthBound(), Formula: "the server's look at itself + Kubernetes' look at the server"}
			return t.Await(ctx, time.Now(), b, called.Ready())
		})
		return t.Err()
	},
}

var agent = Scenario{
	Name:    "outage/agent",
	Claim:   "While a SPIRE agent is away, its workloads call across the federation with the identity that they hold, and only newcomers wait.",
	Sources: []string{"go-spiffe workloadapi.X509Source keeps what it has when the Workload API goes away"},
	Run: func(ctx context.Context, t *Trial) error {
		return newIdentityWaits(ctx, t, "agent", fault.AgentStopped, nil)
	},
}

var controllerManager = Scenario{
	Name:    "outage/controller-manager",
	Claim:   "While the controller manager hangs, those who have an identity call across the federation as before, and only newcomers wait.",
	Sources: []string{"SPIRE Controller Manager pkg/spireentry: it makes an entry for each pod that comes"},
	Run: func(ctx context.Context, t *Trial) error {
		return newIdentityWaits(ctx, t, "controller manager", fault.ControllerManagerGone, nil)
	},
}

var bundleEndpoint = Scenario{
	Name:  "outage/bundle-endpoint",
	Claim: "While a bundle endpoint is away no call fails, its peers fall behind unseen, and they catch up within one poll once it is back.",
	Sources: []string{
		"SPIRE pkg/server/bundle/client/manager.go: no back-off after a failed fetch",
		"https://github.com/spiffe/spire/issues/1675 (failed fetches are hard to see)",
	},
	Run: func(ctx context.Context, t *Trial) error {
		called, caller := t.Pair()
		var broken *Breakage
		var r *rotation
		calls := t.CallsThroughout(ctx, caller, called)
		t.StepWith(ctx, "cut the bundle endpoint off", "'fedlab status' says \"endpoint unreachable\"", func(ctx context.Context) (err error) {
			broken, err = t.CutEndpoint(ctx, called, caller)
			return err
		})
		t.StepWith(ctx, "publish another authority, which nobody can fetch", "'fedlab drift' says by which authority the peer is behind", func(ctx context.Context) (err error) {
			if r, err = called.prepare(ctx, called.x509()); err != nil {
				return err
			}
			if err := t.Await(ctx, time.Now(), immediate(), caller.InState(called, federation.Behind)); err != nil {
				return err
			}
			b := caller.ToServer(called)
			return t.Stays(ctx, b.Within, b.Formula, caller.InState(called, federation.Behind))
		})
		t.Step(ctx, "give the endpoint back, and see the peer catch up", func(ctx context.Context) error {
			if err := broken.Mend(ctx); err != nil {
				return err
			}
			return t.Await(ctx, broken.Window().Healed, caller.ToWorkloads(called), caller.Has(called, r.next.ID))
		})
		t.Step(ctx, "see that nobody who called noticed", func(ctx context.Context) error {
			calls.AllAnswered("no call failed")
			return t.Await(ctx, time.Now(), immediate(), calls.Ends(traffic.Answered))
		})
		return t.Err()
	},
}

// unreached is how calls end that go to a cluster that is not there.
var unreached = []traffic.Outcome{traffic.Unreachable, traffic.NoAnswer}

// twoFailures is how long two calls take that get no answer: a window that is to
// hold one from its beginning to its end is as long.
const twoFailures = 2 * (callWithin + callEvery)

// apart is for what is done to one cluster and seen from another.
var apart = &Need{
	What: "two trust domains in clusters of their own; 'trustDomain' in the lab file gives a cluster one alone",
	met: func(called, caller *topology.Domain) bool {
		return called.Server().Place.Cluster != caller.Server().Place.Cluster
	},
}

var cluster = Scenario{
	Name:   "outage/cluster",
	Claim:  "When a whole cluster stops, calls to it fail and nothing else does; when it is back, they are answered again without anybody doing anything.",
	Labels: []string{Slow},
	Needs:  apart,
	Run: func(ctx context.Context, t *Trial) error {
		called, caller := t.Pair()
		var broken *Breakage
		calls := t.CallsThroughout(ctx, caller, called)
		t.StepWith(ctx, "switch the cluster "+called.Cluster().Name+" off", "the demo's page says that nobody answers", func(ctx context.Context) (err error) {
			if broken, err = t.Break(ctx, fault.ClusterStopped(called.Fault())); err != nil {
				return err
			}
			return t.Await(ctx, time.Now(), immediate(), calls.Ends(unreached...))
		})
		t.Step(ctx, "see that the other cluster gives newcomers their identity meanwhile", func(ctx context.Context) error {
			guest, err := caller.Newcomer(ctx)
			if err != nil {
				return err
			}
			if err := guest.Register(ctx, []spiffeid.TrustDomain{called.Name}); err != nil {
				return err
			}
			return t.Await(ctx, time.Now(), reconciled(), guest.HasIdentity())
		})
		t.Step(ctx, "switch it on again, and wait", func(ctx context.Context) error {
			if err := broken.Mend(ctx); err != nil {
				return err
			}
			if err := t.until(ctx, calls.Ends(traffic.Answered)); err != nil {
				return err
			}
			calls.FailsOnlyBetween("calls fail while the cluster is off or starting, and never else", broken.Window().Injected, time.Now())
			return t.Await(ctx, time.Now(), caller.ToServer(called), caller.InState(called, federation.InSync))
		})
		t.Step(ctx, "see more calls come through", func(ctx context.Context) error {
			return t.Stays(ctx, 5*callEvery, "five calls", calls.Ends(traffic.Answered))
		})
		return t.Err()
	},
}

var partition = Scenario{
	Name:  "outage/partition",
	Claim: "A partition in one direction stops the calls of that direction alone, one in both stops both, and whatever was published meanwhile arrives within one poll of its end, or of the end of a fetch that it has caught, which SPIRE gives up after 30 seconds.",
	Needs: apart,
	Sources: []string{
		"SPIRE pkg/server/bundle/client/client.go: the transport is net/http's own, which has 30 seconds for a connection",
	},
	Run: func(ctx context.Context, t *Trial) error {
		called, caller := t.Pair()
		var there, back *Traffic
		var one, both *Breakage
		var r *rotation
		t.Step(ctx, "call in both directions", func(ctx context.Context) (err error) {
			if there, err = t.Traffic(ctx, caller, called, Call{}); err != nil {
				return err
			}
			back, err = t.Traffic(ctx, called, caller, Call{})
			return err
		})
		t.Step(ctx, fmt.Sprintf("part %s from %s, in this direction alone", caller.Cluster().Name, called.Cluster().Name), func(ctx context.Context) (err error) {
			if one, err = t.Break(ctx, fault.PartitionOneWay(caller.Fault(), called.Fault())); err != nil {
				return err
			}
			if err := t.Await(ctx, time.Now(), immediate(), there.Ends(unreached...)); err != nil {
				return err
			}
			return t.Stays(ctx, twoFailures, "two calls that wait in vain", back.Ends(traffic.Answered))
		})
		t.Step(ctx, "join them again", func(ctx context.Context) error {
			if err := one.Mend(ctx); err != nil {
				return err
			}
			return t.Await(ctx, one.Window().Recovered, immediate(), there.Ends(traffic.Answered))
		})
		t.Step(ctx, "part them in both directions, and publish another authority", func(ctx context.Context) (err error) {
			back.AnsweredBetween("calls of the other direction go on while one is parted", time.Time{}, time.Now())
			if both, err = t.Break(ctx, fault.Partition(caller.Fault(), called.Fault())); err != nil {
				return err
			}
			for _, s := range []*Traffic{there, back} {
				if err := t.Await(ctx, time.Now(), immediate(), s.Ends(unreached...)); err != nil {
					return err
				}
			}
			if r, err = called.prepare(ctx, called.x509()); err != nil {
				return err
			}
			return t.Stays(ctx, twoFailures, "two calls that wait in vain", there.Ends(unreached...))
		})
		t.Step(ctx, "join them, and wait until the authority is there", func(ctx context.Context) error {
			if err := both.Mend(ctx); err != nil {
				return err
			}
			joined := both.Window().Recovered
			for _, s := range []*Traffic{there, back} {
				s.AnsweredBy("calls are answered again once both directions are joined", joined, immediate())
				if err := t.Await(ctx, joined, immediate(), s.Ends(traffic.Answered)); err != nil {
					return err
				}
			}
			b := caller.ToWorkloads(called)
			b.Within += federation.CaughtBound()
			b.Formula = "a fetch that the partition has caught + " + b.Formula
			return t.Await(ctx, joined, b, caller.Has(called, r.next.ID))
		})
		t.Step(ctx, "count", func(context.Context) error {
			there.NoneAnswered("no call comes through a direction that is parted", one.Window().Felt, one.Window().Recovered)
			for _, s := range []*Traffic{there, back} {
				s.NoneAnswered("nor through either when both are", both.Window().Felt, both.Window().Recovered)
			}
			return nil
		})
		return t.Err()
	},
}

// absent is a trust domain that never publishes anything.
var absent = spiffeid.RequireTrustDomainFromString("absent.test")

var missingBundle = Scenario{
	Name:   "outage/missing-bundle-blocks-identity",
	Claim:  "One partner whose bundle never came takes the identity of each new workload that federates with it, also for calls to all others; handing the bundle over by hand is the cure.",
	Labels: []string{CI},
	Sources: []string{
		"https://github.com/spiffe/spire/issues/7146", "https://github.com/spiffe/spire-controller-manager/issues/197",
		"SPIRE pkg/server/datastore/sqlstore: makeFederatesWith refuses the entry",
	},
	Run: func(ctx context.Context, t *Trial) error {
		called, caller := t.Pair()
		var guests *Traffic
		var guest Newcomer
		partners := []spiffeid.TrustDomain{called.Name, absent}
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "see that a newcomer that federates with partners who are there gets its identity", func(ctx context.Context) (err error) {
			if guest, err = caller.Newcomer(ctx); err != nil {
				return err
			}
			if err := guest.Register(ctx, partners[:1]); err != nil {
				return err
			}
			if err := t.Await(ctx, time.Now(), reconciled(), guest.HasIdentity()); err != nil {
				return err
			}
			return errors.Join(guest.Unregister(ctx), guest.remove(ctx))
		})
		t.StepWith(ctx, "let one come that federates with "+absent.Name()+" as well", "kubectl get clusterspiffeid fedlab-newcomer -o yaml: entryFailures is the only sign", func(ctx context.Context) (err error) {
			if guest, err = caller.Newcomer(ctx); err != nil {
				return err
			}
			if err := guest.Register(ctx, partners); err != nil {
				return err
			}
			if err := t.until(ctx, guest.Runs()); err != nil {
				return err
			}
			if guests, err = t.Attempt(ctx, "the newcomer of "+caller.String(), guest.Probe(), called, Call{}); err != nil {
				return err
			}
			if err := t.Stays(ctx, reconciled().Within, reconcileFormula, guest.HasNone()); err != nil {
				return err
			}
			failures, err := guest.EntryFailures(ctx)
			if err == nil && failures == 0 {
				err = errors.New("the registration's status tells of no failed entry")
			}
			return err
		})
		t.Step(ctx, "hand the bundle of "+absent.Name()+" over by hand", func(ctx context.Context) error {
			made, err := synthetic.New(absent, time.Now)
			if err != nil {
				return err
			}
			t.Restore("forget the bundle of "+absent.Name(), func(ctx context.Context) error { return caller.forget(ctx, absent) })
			mended := time.Now()
			guests.NoneAnswered("until then it can call nobody, not even those who are there", time.Time{}, mended)
			if err := caller.Server().SetBundle(ctx, made.Bundle()); err != nil {
				return err
			}
			return t.Await(ctx, mended, reconciled(), guest.HasIdentity())
		})
		t.Step(ctx, "see it call those who are there", func(ctx context.Context) error {
			if err := t.Await(ctx, time.Now(), immediate(), guests.Ends(traffic.Answered)); err != nil {
				return err
			}
			calls.AllAnswered("those who had their identity before never noticed")
			return guests.End(ctx)
		})
		return t.Err()
	},
}

// forget deletes the bundle that the server holds of a trust domain, if it does.
func (d Domain) forget(ctx context.Context, of spiffeid.TrustDomain) error {
	held, err := d.Held(ctx, of)
	if err != nil || held == nil {
		return err
	}
	return d.Server().DeleteBundle(ctx, of, spire.DeleteDissociate)
}

var hungEndpoint = Scenario{
	Name:  "outage/hung-endpoint-freezes-configuration",
	Claim: "A bundle endpoint that takes a request and never answers keeps its peer from being made to refresh any bundle, once that relationship is removed, until it answers; no call fails meanwhile.",
	Sources: []string{
		"SPIRE pkg/server/bundle/client/client.go: no time limit for an answer",
		"SPIRE pkg/server/bundle/client/manager.go: a relationship that goes waits for its fetch, under the lock of all",
	},
	Run: func(ctx context.Context, t *Trial) error {
		called, caller := t.Pair()
		var s *Synthetic
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "federate with a trust domain whose endpoint answers, and see it fetched", func(ctx context.Context) (err error) {
			if s, err = t.Synthetic(ctx); err != nil {
				return err
			}
			if err := s.Client.Play(ctx, synthetic.Script{{Kind: synthetic.TrueBundle}}); err != nil {
				return err
			}
			if err := caller.relateSynthetic(ctx, s); err != nil {
				return err
			}
			return t.Await(ctx, time.Now(), Bound{Within: federation.RelationshipBound(), Formula: "the server's look at its relationships"}, s.Fetched(1))
		})
		t.Step(ctx, "let that endpoint hang with the next request", func(ctx context.Context) error {
			if err := s.Client.Play(ctx, synthetic.Script{{Kind: synthetic.Hang}}); err != nil {
				return err
			}
			poll := polling()
			t.Mark("%s hangs", s.Domain)
			return t.Await(ctx, time.Now(), Bound{Within: poll, Formula: fmt.Sprintf("one poll (%s)", poll)}, s.holds())
		})
		t.Step(ctx, "see that others can be refreshed still", func(ctx context.Context) error {
			return caller.refreshes(ctx, called)
		})
		t.Step(ctx, "remove the relationship with the one that hangs: now nobody can", func(ctx context.Context) error {
			if err := caller.unrelateSynthetic(ctx); err != nil {
				return err
			}
			t.Mark("relationship with %s removed", s.Domain)
			// The server sees it with its next look.
			if err := t.Await(ctx, time.Now(), Bound{Within: federation.RelationshipBound(), Formula: "the server's look at its relationships"}, check.Check{
				Name: "a refresh of " + called.String() + " hangs, too", Probe: func(ctx context.Context) error {
					err := caller.refreshes(ctx, called)
					if err == nil {
						return errors.New("it was refreshed")
					}
					if !errors.Is(err, errStuck) {
						return err
					}
					return nil
				},
			}); err != nil {
				return err
			}
			return nil
		})
		t.Step(ctx, "let the endpoint answer, and see all go on", func(ctx context.Context) error {
			if err := s.Client.Play(ctx, synthetic.Script{{Kind: synthetic.TrueBundle}}); err != nil {
				return err
			}
			t.Mark("%s answers", s.Domain)
			return t.Await(ctx, time.Now(), immediate(), check.Check{Name: called.String() + " is refreshed again", Probe: func(ctx context.Context) error {
				return caller.refreshes(ctx, called)
			}})
		})
		t.Step(ctx, "see that nobody who called noticed", func(ctx context.Context) error {
			calls.AllAnswered("no call failed")
			return t.Await(ctx, time.Now(), immediate(), calls.Ends(traffic.Answered))
		})
		return t.Err()
	},
}

// errStuck says that a refresh did not come back.
var errStuck = errors.New("the refresh does not come back")

// refreshBound is how long a refresh may take that is not stuck: a fetch takes
// milliseconds.
const refreshBound = 5 * time.Second

// refreshes has the server fetch the bundle of another, and tells a refresh that
// does not come back from one that fails.
func (d Domain) refreshes(ctx context.Context, of Domain) error {
	bounded, cancel := context.WithTimeoutCause(ctx, refreshBound, errStuck)
	defer cancel()
	err := d.Refresh(bounded, of)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return errStuck
	}
	return err
}
