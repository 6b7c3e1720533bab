package scenarios

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// newIdentityWaits is what an outage of a server and one of an agent have in
// common: those who have an identity go on, and newcomers wait. What else there
// is to see, meanwhile has steps for; it may be nil.
func newIdentityWaits(ctx context.Context, t *trial.Trial, what string, f func(fault.Cluster) fault.Fault, meanwhile func(called, caller trial.Domain)) error {
	called, caller := t.Pair()
	var broken *trial.Breakage
	var guest trial.Newcomer
	calls := t.CallsThroughout(ctx, caller, called)
	t.Step(ctx, "see that a newcomer gets an identity while all is well", func(ctx context.Context) (err error) {
		if guest, err = called.Welcome(ctx); err != nil {
			return err
		}
		// Its registration stays: the controller manager makes an entry of it for
		// each pod that comes.
		return guest.Remove(ctx)
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
		if err := t.WaitFor(ctx, guest.Runs()); err != nil {
			return err
		}
		// As long as it would take, were all well.
		return t.Watch(ctx, "a newcomer waits", trial.Reconciled(), guest.Identity(), trial.NoIdentity)
	})
	t.Step(ctx, "give it back, and see the newcomer get its identity", func(ctx context.Context) error {
		if err := broken.Recover(ctx); err != nil {
			return err
		}
		if err := t.Await(ctx, time.Now(), trial.Reconciled(), guest.HasIdentity()); err != nil {
			return err
		}
		return t.See(ctx, "and gets its identity once the "+what+" is back", guest.Identity(), guest.ID().String())
	})
	t.StillAnswered(ctx, calls, "see that those who had one never noticed", "no call failed while the "+what+" was away, though each made a new handshake")
	return t.Err()
}

// identityWaitsParts are the parts of such a claim: words that say who goes on, and who waits.
func identityWaitsParts(what, goOn, wait string) []trial.Part {
	return []trial.Part{
		trial.Carried(goOn, "no call failed while the "+what+" was away, though each made a new handshake"),
		trial.Carried(wait, "a newcomer waits", "and gets its identity once the "+what+" is back"),
		trial.Carried("", "a newcomer whose registration fits gets its identity"),
	}
}

var serverAway = trial.Scenario{
	Name:  "outage/server",
	Claim: "While a SPIRE server is away, workloads with an identity keep calling across the federation, and only new workloads wait.",
	Parts: identityWaitsParts("server", "workloads with an identity keep calling across the federation", "only new workloads wait"),
	Sources: []string{
		"SPIRE doc/spire_agent.md: an agent hands out what it has cached",
		"spiffe/spire test/integration: connectivity with servers stopped",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		return newIdentityWaits(ctx, t, "server", fault.ServerStopped, nil)
	},
}

var datastoreAway = trial.Scenario{
	Name:  "outage/datastore",
	Claim: "While the datastore of a SPIRE server is away, workloads with an identity keep calling across the federation; new workloads and peers wait, because the server takes no entry and does not serve its bundle.",
	Parts: append(identityWaitsParts("datastore", "workloads with an identity keep calling across the federation", "new workloads and peers wait"),
		trial.Carried("does not serve its bundle", "asked to fetch, the peer cannot", "and keeps the bundle that it has")),
	Needs: []trial.Need{postgresDatastore, fetched},
	Sources: []string{
		"SPIRE pkg/server/endpoints/bundle/server.go: 500 where the bundle cannot be read",
		"SPIRE pkg/server/server.go, CheckHealth: a server is well when it can read its bundle",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		err := newIdentityWaits(ctx, t, "datastore", fault.DatastoreStopped, func(called, caller trial.Domain) {
			t.Step(ctx, "see that its peer cannot fetch its bundle, and keeps the one that it has", func(ctx context.Context) error {
				held := heldAuthorities(caller, called)
				before, err := held.Look(ctx)
				if err != nil {
					return err
				}
				if err := caller.CannotFetch(ctx, called); err != nil {
					return err
				}
				return t.See(ctx, "and keeps the bundle that it has", held, before)
			})
		})
		if err != nil {
			return err
		}
		// Kubernetes may have seen it unwell, and does not look again at once.
		t.Step(ctx, "see that the server counts as well", func(ctx context.Context) error {
			called, _ := t.Pair()
			b := trial.Bound{Within: federation.HealthBound(), Formula: "the server's look at itself + Kubernetes' look at the server"}
			return t.Await(ctx, time.Now(), b, called.Ready())
		})
		return t.Err()
	},
}

// heldAuthorities is which authorities of another a server holds.
func heldAuthorities(d, of trial.Domain) trial.Fact {
	return trial.Fact{Of: fmt.Sprintf("the authorities of %s that %s holds", of, d), Look: func(ctx context.Context) (string, error) {
		held, err := d.Server().HeldBundle(ctx, of.Name)
		if err != nil || held == nil {
			return "none", err
		}
		return strings.Join(slices.Concat(federation.X509IDs(held), federation.JWTIDs(held)), " "), nil
	}}
}

var agentAway = trial.Scenario{
	Name:    "outage/agent",
	Claim:   "While a SPIRE agent is away, its workloads keep calling across the federation with the identity that they hold, and only new workloads wait.",
	Parts:   identityWaitsParts("agent", "its workloads keep calling across the federation with the identity that they hold", "only new workloads wait"),
	Sources: []string{"go-spiffe workloadapi.X509Source keeps what it has when the Workload API goes away"},
	Run: func(ctx context.Context, t *trial.Trial) error {
		return newIdentityWaits(ctx, t, "agent", fault.AgentStopped, nil)
	},
}

var controllerManagerHangs = trial.Scenario{
	Name:    "outage/controller-manager",
	Claim:   "While the controller manager hangs, workloads with an identity keep calling across the federation, and only new workloads wait.",
	Parts:   identityWaitsParts("controller manager", "workloads with an identity keep calling across the federation", "only new workloads wait"),
	Sources: []string{"SPIRE Controller Manager pkg/spireentry: it makes an entry for each pod that comes"},
	Run: func(ctx context.Context, t *trial.Trial) error {
		return newIdentityWaits(ctx, t, "controller manager", fault.ControllerManagerGone, nil)
	},
}

// unreached is how calls end that go to a cluster that is not there.
var unreached = []traffic.Outcome{traffic.Unreachable, traffic.NoAnswer}

var clusterOff = trial.Scenario{
	Name:  "outage/cluster",
	Claim: "When a whole cluster stops, only calls to it fail; when it is back, they are answered again, and nobody has to do anything.",
	Parts: []trial.Part{
		trial.Carried("When a whole cluster stops, only calls to it fail", "no call is answered while the cluster is off", "a newcomer whose registration fits gets its identity"),
		trial.Carried("when it is back, they are answered again, and nobody has to do anything", "calls fail while the cluster is off or starting, and never else"),
	},
	Labels: []string{Slow},
	Needs:  []trial.Need{apart},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var broken *trial.Breakage
		calls := t.CallsThroughout(ctx, caller, called)
		t.StepWith(ctx, "switch the called one's cluster off", "the demo's page says that nobody answers", func(ctx context.Context) (err error) {
			if broken, err = t.Break(ctx, fault.ClusterStopped(called.Fault())); err != nil {
				return err
			}
			return t.Soon(ctx, calls.Ends(unreached...))
		})
		t.Step(ctx, "see that the other cluster gives newcomers their identity meanwhile", func(ctx context.Context) error {
			_, err := caller.Welcome(ctx, called.Name)
			return err
		})
		t.Step(ctx, "switch it on again, and wait", func(ctx context.Context) error {
			if err := broken.Recover(ctx); err != nil {
				return err
			}
			if err := t.WaitFor(ctx, calls.Ends(traffic.Answered)); err != nil {
				return err
			}
			calls.NoneAnswered("no call is answered while the cluster is off", broken.Window().Felt, broken.Window().Recovered)
			calls.FailsOnlyBetween("calls fail while the cluster is off or starting, and never else", broken.Window().Injected, time.Now())
			return t.Await(ctx, time.Now(), caller.ToServer(called), caller.InState(called, federation.InSync))
		})
		t.Step(ctx, "see more calls come through", func(ctx context.Context) error { return t.Stays(ctx, trial.Calls(5), calls.Ends(traffic.Answered)) })
		return t.Err()
	},
}

var clustersParted = trial.Scenario{
	Name:  "outage/partition",
	Claim: "A partition in one direction stops only the calls of that direction, and a partition in both directions stops both; what was published meanwhile arrives within one poll of its end, or of the end of a fetch that it caught, which SPIRE gives up after 30 seconds.",
	Parts: []trial.Part{
		trial.Carried("A partition in one direction stops only the calls of that direction", "no call comes through a direction that is parted", "calls of the other direction go on while one is parted"),
		trial.Carried("a partition in both directions stops both", "and through neither when both are"),
		trial.Carried("what was published meanwhile arrives", "calls are answered again once both directions are joined", "what was published meanwhile has arrived"),
	},
	Needs: []trial.Need{apart, fetched, rotates},
	Sources: []string{
		"SPIRE pkg/server/bundle/client/client.go: the transport is net/http's own, which has 30 seconds for a connection",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var there, back *trial.Traffic
		var one, both *trial.Breakage
		var r *trial.Rotation
		t.Step(ctx, "call in both directions", func(ctx context.Context) (err error) {
			if there, err = t.Traffic(ctx, caller, called, trial.Call{}); err != nil {
				return err
			}
			back, err = t.Traffic(ctx, called, caller, trial.Call{})
			return err
		})
		t.Step(ctx, "part the caller's cluster from the called one's, in this direction alone", func(ctx context.Context) (err error) {
			if one, err = t.Break(ctx, fault.PartitionOneWay(caller.Fault(), called.Fault())); err != nil {
				return err
			}
			if err := t.Soon(ctx, there.Ends(unreached...)); err != nil {
				return err
			}
			return t.Stays(ctx, trial.CallsInVain(2), back.Ends(traffic.Answered))
		})
		t.Step(ctx, "join them again", func(ctx context.Context) error {
			if err := one.Recover(ctx); err != nil {
				return err
			}
			return t.Await(ctx, one.Window().Recovered, trial.NextCall(), there.Ends(traffic.Answered))
		})
		t.Step(ctx, "part them in both directions, and publish another authority", func(ctx context.Context) (err error) {
			back.AnsweredBetween("calls of the other direction go on while one is parted", time.Time{}, time.Now())
			if both, err = t.Break(ctx, fault.Partition(caller.Fault(), called.Fault())); err != nil {
				return err
			}
			if err := t.Soon(ctx, there.Ends(unreached...), back.Ends(unreached...)); err != nil {
				return err
			}
			if r, err = called.Prepare(ctx, trial.X509); err != nil {
				return err
			}
			return t.Stays(ctx, trial.CallsInVain(2), there.Ends(unreached...))
		})
		t.Step(ctx, "join them, and wait until the authority is there", func(ctx context.Context) error {
			if err := both.Recover(ctx); err != nil {
				return err
			}
			joined := both.Window().Recovered
			for _, s := range []*trial.Traffic{there, back} {
				s.AnsweredBy("calls are answered again once both directions are joined", joined, trial.NextCall())
			}
			if err := t.Await(ctx, joined, trial.NextCall(), there.Ends(traffic.Answered), back.Ends(traffic.Answered)); err != nil {
				return err
			}
			b := trial.Bound{Within: federation.CaughtBound(), Formula: "a fetch that the partition has caught"}.Plus(caller.ToWorkloads(called))
			b.Propagation = true
			if err := t.Await(ctx, joined, b, caller.Has(called, trial.X509, r.Next.ID)); err != nil {
				return err
			}
			return t.See(ctx, "what was published meanwhile has arrived", caller.AuthorityOf(called, trial.X509, r.Next.ID), trial.There)
		})
		t.Step(ctx, "count", func(context.Context) error {
			there.NoneAnswered("no call comes through a direction that is parted", one.Window().Felt, one.Window().Recovered)
			for _, s := range []*trial.Traffic{there, back} {
				s.NoneAnswered("and through neither when both are", both.Window().Felt, both.Window().Recovered)
			}
			return nil
		})
		return t.Err()
	},
}
