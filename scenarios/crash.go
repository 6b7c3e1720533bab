package scenarios

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// crashed is what a server and an agent that are killed have in common: they are
// back by themselves, and nobody who has an identity notices.
func crashed(ctx context.Context, t *trial.Trial, what string, f func(fault.Cluster) fault.Fault) error {
	called, caller := t.Pair()
	calls := t.CallsThroughout(ctx, caller, called)
	t.Step(ctx, "kill the "+what+", and wait until it is back", func(ctx context.Context) error {
		broken, err := t.Break(ctx, f(called.Fault()))
		if err != nil {
			return err
		}
		return broken.Recover(ctx)
	})
	t.Step(ctx, "see that a newcomer gets its identity, and that the peer fetches", func(ctx context.Context) error {
		if err := t.WaitFor(ctx, called.Ready()); err != nil {
			return err
		}
		if _, err := called.Welcome(ctx); err != nil {
			return err
		}
		return t.See(ctx, "the peer fetches its bundle", caller.Fetch(called), trial.Fetched)
	})
	t.StillAnswered(ctx, calls, "see that those who had one never noticed", "no call failed, though each made a new handshake")
	return t.Err()
}

var serverKilled = trial.Scenario{
	Name:  "outage/server-killed",
	Claim: "A SPIRE server that is killed comes back by itself with its keys and its peers, and no workload with an identity notices.",
	Parts: []trial.Part{
		trial.Carried("comes back by itself with its keys and its peers", "a newcomer whose registration fits gets its identity", "the peer fetches its bundle", "it signs with the authority that it had"),
		trial.Carried("no workload with an identity notices", "no call failed, though each made a new handshake"),
	},
	Needs:   []trial.Need{fetched},
	Sources: []string{"SPIRE doc/plugin_server_keymanager_disk.md: keys outlive the process"},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, _ := t.Pair()
		signs := trial.Fact{Of: "the authority that signs in " + called.String(), Look: func(ctx context.Context) (string, error) {
			active, err := called.Active(ctx, trial.X509)
			return active.ID, err
		}}
		before, err := signs.Look(ctx)
		if err != nil {
			return err
		}
		if err := crashed(ctx, t, "server", fault.ServerKilled); err != nil {
			return err
		}
		t.Step(ctx, "see that it signs with the authority that it had", func(ctx context.Context) error {
			return t.See(ctx, "it signs with the authority that it had", signs, before)
		})
		return t.Err()
	},
}

var agentKilled = trial.Scenario{
	Name:  "outage/agent-killed",
	Claim: "A SPIRE agent that is killed attests again by itself, and none of its workloads notices.",
	Parts: []trial.Part{
		trial.Carried("attests again by itself", "the agent has attested again", "a newcomer whose registration fits gets its identity"),
		trial.Carried("none of its workloads notices", "no call failed, though each made a new handshake"),
		trial.Carried("", "the peer fetches its bundle"),
	},
	Needs:   []trial.Need{fetched},
	Sources: []string{"SPIRE doc/plugin_agent_nodeattestor_k8s_psat.md: a node may attest again"},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, _ := t.Pair()
		reattested, err := called.Reattested(ctx)
		if err != nil {
			return err
		}
		if err := crashed(ctx, t, "agent", fault.AgentKilled); err != nil {
			return err
		}
		t.Step(ctx, "see that it has another SVID", func(ctx context.Context) error {
			return t.See(ctx, "the agent has attested again", trial.Fact{Of: "the SVIDs of the agents of " + called.String(), Look: func(ctx context.Context) (string, error) {
				if err := reattested(ctx); err != nil {
					return err.Error(), nil
				}
				return "others than before", nil
			}}, "others than before")
		})
		return t.Err()
	},
}

var serverDataLost = trial.Scenario{
	Name:  "outage/server-data-lost",
	Claim: "A SPIRE server that lost its data is a stranger under its old name: its own agents accept it by themselves, and its peers refuse it until they get its new bundle.",
	Parts: []trial.Part{
		trial.Carried("its own agents accept it by themselves, and its peers refuse it", "from when the called one shows an SVID of the new authority each call fails until the bundle is handed over"),
		trial.Carried("its peers refuse it until they get its new bundle", staysBrokenSays("and calls are answered again after it")...),
	},
	Labels: []string{Slow},
	Needs:  dynamic(),
	Sources: []string{
		"SPIRE doc/spire_agent.md: rebootstrap_mode auto, after rebootstrap_delay",
		"https://github.com/spiffe/spire/issues/4624",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var back time.Time
		var bound trial.Bound
		calls := t.CallsThroughout(ctx, caller, called)
		t.StepWith(ctx, "take the server's data away, and let it start without", "'fedlab drift' says \"foreign\"", func(ctx context.Context) error {
			broken, err := t.Break(ctx, fault.ServerDataLost(called.Fault()))
			if err != nil {
				return err
			}
			if err := broken.Recover(ctx); err != nil {
				return err
			}
			window := broken.Window()
			back, bound = window.Healed, trial.Rebootstrapped(window.Healed.Sub(window.Injected))
			return t.WaitFor(ctx, caller.InState(called, federation.Foreign))
		})
		t.Step(ctx, "wait until its agent has taken the new authority, and its workloads have SVIDs of it", func(ctx context.Context) error {
			return errors.Join(t.Await(ctx, back, bound, calls.Ends(traffic.UnknownAuthority)), t.WaitFor(ctx, called.Ready()))
		})
		t.Step(ctx, "see that no poll repairs it", func(ctx context.Context) error { return staysBroken(ctx, t, string(federation.Foreign)) })
		t.Step(ctx, "hand the new bundle over", func(ctx context.Context) error {
			says := "from when the called one shows an SVID of the new authority each call fails until the bundle is handed over"
			from := trial.Refusal{Says: says, Since: back, Bound: bound, Ends: unknownAuthority}
			return handOver(ctx, t, calls, from, trial.Registered(), calls.Ends(traffic.Answered))
		})
		return t.Err()
	},
}

// nap is how long an X509-SVID lives that is to expire while nodes stand still.
const nap = time.Minute

var laptopSleeps = trial.Scenario{
	Name:  "outage/laptop-sleep",
	Claim: "If all nodes of a lab stand still for longer than an X509-SVID lives, each call fails at first, because SVIDs have expired; servers, agents and workloads replace theirs by themselves, and calls are answered again once Kubernetes counts the nodes as ready.",
	Parts: []trial.Part{
		trial.Carried("each call fails at first, because SVIDs have expired", "until SVIDs are replaced each call fails, because they have expired"),
		trial.Carried("servers, agents and workloads replace theirs by themselves", "workloads have SVIDs that are valid", "a newcomer whose registration fits gets its identity", "each server fetches the other's bundle"),
		trial.Carried("calls are answered again once Kubernetes counts the nodes as ready", "calls fail until they are answered again, and never else"),
	},
	Labels: []string{Slow},
	Needs:  []trial.Need{fetchedBothWays},
	Sources: []string{
		"SPIRE pkg/agent/svid/rotator.go: an agent whose SVID has expired attests again, and ends where that fails",
		"SPIRE pkg/server/svid/rotator.go: a server replaces its SVID when it looks at it the next time",
		"SPIFFE X509-SVID, section 5.2: the leaf is validated by RFC 5280, section 6.1, of which the time is an input",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		both := []trial.Domain{called, caller}
		var asleep *trial.Breakage
		t.Step(ctx, "let X509-SVIDs live for "+nap.String(), func(ctx context.Context) error {
			return shortLived(ctx, t, both...)
		})
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "have all nodes stand still for as long", func(ctx context.Context) (err error) {
			if asleep, err = t.Freeze(ctx); err != nil {
				return err
			}
			return t.Stays(ctx, trial.Bound{Within: nap, Formula: "the life of an X509-SVID"}, asleep.Goes())
		})
		t.Step(ctx, "let them go on, and see SVIDs replaced", func(ctx context.Context) error {
			if err := asleep.Recover(ctx); err != nil {
				return err
			}
			b := trial.Bound{Within: federation.AwakeBound(), Formula: "the server's look at its SVID + the agent's look at its own + the agent's wait, which grew meanwhile"}
			if err := t.Await(ctx, asleep.Window().Recovered, b, svidOf(called).Is(svidValid), svidOf(caller).Is(svidValid)); err != nil {
				return err
			}
			return errors.Join(
				t.See(ctx, "workloads have SVIDs that are valid", svidOf(called), svidValid),
				t.See(ctx, "workloads have SVIDs that are valid", svidOf(caller), svidValid),
			)
		})
		t.Step(ctx, "wait until Kubernetes counts the nodes as ready, and calls are answered", func(ctx context.Context) error {
			if err := t.WaitFor(ctx, calls.Ends(traffic.Answered)); err != nil {
				return err
			}
			awake := asleep.Window().Recovered
			after, err := calls.First(ctx, awake, func(c traffic.Call) bool { return c.Outcome != traffic.Expired })
			if err != nil {
				return err
			}
			answered, err := calls.First(ctx, awake, func(c traffic.Call) bool { return c.Outcome == traffic.Answered })
			if err != nil {
				return err
			}
			t.Mark("calls are answered again")
			calls.RefusedBy("until SVIDs are replaced each call fails, because they have expired", awake, trial.NextCall(), after.At, traffic.Expired)
			calls.FailsOnlyBetween("calls fail until they are answered again, and never else", asleep.Window().Injected, answered.At)
			return nil
		})
		t.Step(ctx, "see newcomers get an identity, and each server fetch the other's bundle", func(ctx context.Context) error {
			for i, d := range both {
				if err := t.WaitFor(ctx, d.Ready()); err != nil {
					return err
				}
				if _, err := d.Welcome(ctx); err != nil {
					return err
				}
				if err := t.See(ctx, "each server fetches the other's bundle", d.Fetch(both[1-i]), trial.Fetched); err != nil {
					return err
				}
			}
			return t.Soon(ctx, calls.Ends(traffic.Answered))
		})
		return t.Err()
	},
}

// shortLived lets X509-SVIDs live for a nap, also those that were given before.
func shortLived(ctx context.Context, t *trial.Trial, of ...trial.Domain) error {
	if err := t.Reconfigure(ctx, of[0], func(td *topology.Settings) { td.X509SVIDTTL = nap }, of[1:]...); err != nil {
		return err
	}
	for _, d := range of {
		// Agents that start have all SVIDs signed again, their own included.
		if err := remade(ctx, t, d); err != nil {
			return err
		}
		if err := t.WaitFor(ctx, d.Ready(), expiresSoon(d)); err != nil {
			return err
		}
	}
	return nil
}

// expiresSoon checks that the SVID that workloads present ends within a nap.
func expiresSoon(d trial.Domain) check.Check {
	return check.Check{Name: "SVIDs of " + d.String() + " expire within " + nap.String(), Probe: func(ctx context.Context) error {
		svid, err := d.SVID(ctx)
		if left := time.Until(svid.NotAfter); err == nil && left > nap {
			err = fmt.Errorf("theirs expires in %s", left.Round(time.Second))
		}
		return err
	}}
}

// What a look at an SVID sees.
const (
	svidValid   = "valid"
	svidExpired = "expired"
)

// svidOf is whether the SVID that workloads present is valid now.
func svidOf(d trial.Domain) trial.Fact {
	return trial.Fact{Of: "the SVID of workloads of " + d.String(), Well: svidValid, Look: func(ctx context.Context) (string, error) {
		svid, err := d.SVID(ctx)
		if err == nil && time.Now().After(svid.NotAfter) {
			return svidExpired, nil
		}
		return svidValid, err
	}}
}
