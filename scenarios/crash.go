package scenarios

import (
	"context"
	"time"

	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/federation"
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
		var lost time.Time
		calls := t.CallsThroughout(ctx, caller, called)
		t.StepWith(ctx, "take the server's data away, and let it start without", "'fedlab drift' says \"foreign\"", func(ctx context.Context) error {
			lost = time.Now()
			broken, err := t.Break(ctx, fault.ServerDataLost(called.Fault()))
			if err != nil {
				return err
			}
			if err := broken.Recover(ctx); err != nil {
				return err
			}
			return t.WaitFor(ctx, caller.InState(called, federation.Foreign))
		})
		t.Step(ctx, "wait until its agent has taken the new authority, and its workloads have SVIDs of it", func(ctx context.Context) error {
			return t.WaitFor(ctx, calls.Ends(traffic.UnknownAuthority), called.Ready())
		})
		t.Step(ctx, "see that no poll repairs it", func(ctx context.Context) error { return staysBroken(ctx, t, string(federation.Foreign)) })
		t.Step(ctx, "hand the new bundle over", func(ctx context.Context) error {
			says := "from when the called one shows an SVID of the new authority each call fails until the bundle is handed over"
			from := trial.Refusal{Says: says, Since: lost, Bound: trial.MachineAlone(), Ends: unknownAuthority}
			return handOver(ctx, t, calls, from, trial.Registered(), calls.Ends(traffic.Answered))
		})
		return t.Err()
	},
}
