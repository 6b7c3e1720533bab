package scenarios

import (
	"context"
	"errors"

	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// older is for what is replaced by its next minor version.
var older = trial.Need{
	What: "a called trust domain whose servers and agents are of an older minor version of SPIRE; 'spire: {version: 1.14.5}' in the lab file gives it one",
	Met: func(r *topology.Trust) bool {
		return r.Trusted.SPIREVersion != "" && r.Trusted.AgentVersion == r.Trusted.SPIREVersion
	},
}

// upgradeSources say what SPIRE supports.
var upgradeSources = []string{"SPIRE doc/upgrading.md: servers first, then agents, one minor version at a time"}

var serverUpgraded = trial.Scenario{
	Name:  "upgrade/server",
	Claim: "A SPIRE server is replaced by one of the next minor version, and no call across the federation fails: it goes on with its authorities, each side fetches the other's bundle, and a new workload gets its identity from it.",
	Parts: []trial.Part{
		trial.Carried("no call across the federation fails", "no call failed"),
		trial.Carried("it goes on with its authorities", goesOn[0], goesOn[1]),
		trial.Carried("each side fetches the other's bundle", goesOn[2], goesOn[3]),
		trial.Carried("a new workload gets its identity from it", "a newcomer whose registration fits gets its identity"),
	},
	Needs:   []trial.Need{older, fetched},
	Sources: upgradeSources,
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		calls := t.CallsThroughout(ctx, caller, called)
		upgradeServer(ctx, t)
		t.Step(ctx, "let a newcomer come: the agent of before brings its identity", func(ctx context.Context) error { return comesAndGoes(ctx, called) })
		t.StillAnswered(ctx, calls, "see that nobody who called noticed", "no call failed")
		return t.Err()
	},
}

var agentUpgraded = trial.Scenario{
	Name:  "upgrade/agent",
	Claim: "SPIRE agents are replaced by those of the next minor version, after their server: no call across the federation fails, and a new workload gets its identity from the new agent.",
	Parts: []trial.Part{
		trial.Carried("no call across the federation fails", "no call failed"),
		trial.Carried("a new workload gets its identity from the new agent", "a newcomer whose registration fits gets its identity"),
		trial.Carried("", goesOn...),
	},
	Needs:   []trial.Need{older, fetched},
	Sources: upgradeSources,
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		calls := t.CallsThroughout(ctx, caller, called)
		upgradeServer(ctx, t)
		next := topology.NextSPIRE(called.AgentVersion)
		t.StepWith(ctx, "replace the agents by those of the same version", "'kubectl get pods' shows another pod of the agent", func(ctx context.Context) error {
			return t.Reconfigure(ctx, called, func(td *topology.Settings) { td.SPIREVersion, td.AgentVersion = next, next })
		})
		t.Step(ctx, "let a newcomer come: the new agent brings its identity", func(ctx context.Context) error { return comesAndGoes(ctx, called) })
		t.StillAnswered(ctx, calls, "see that nobody who called noticed", "no call failed")
		return t.Err()
	},
}

// goesOn is what upgradeServer claims.
var goesOn = []string{
	"the new server signs with the authority of the old one", "its bundle has the authorities that it had",
	"its peer fetches from it", "it fetches from its peer",
}

// upgradeServer replaces the server of the called trust domain by one of the next minor
// version, and sees that it goes on where the other one was.
func upgradeServer(ctx context.Context, t *trial.Trial) {
	called, caller := t.Pair()
	signs, own := called.SignsWith(), called.Authorities(called)
	var active, has string
	t.StepWith(ctx, "replace the server by one of the next minor version", "'kubectl get pods' shows another pod of the server", func(ctx context.Context) (err error) {
		if active, err = signs.Look(ctx); err != nil {
			return err
		}
		if has, err = own.Look(ctx); err != nil {
			return err
		}
		return t.Do(ctx, trial.ToChange, func(ctx context.Context) error {
			return t.Reconfigure(ctx, called, func(td *topology.Settings) { td.SPIREVersion = topology.NextSPIRE(td.SPIREVersion) })
		})
	})
	t.Step(ctx, "see that it goes on as before, and that each side fetches from the other", func(ctx context.Context) error {
		return errors.Join(
			t.See(ctx, goesOn[0], signs, active), t.See(ctx, goesOn[1], own, has),
			t.See(ctx, goesOn[2], caller.Fetch(called), trial.Fetched), t.See(ctx, goesOn[3], called.Fetch(caller), trial.Fetched))
	})
}

// comesAndGoes lets a newcomer come until it has its identity.
func comesAndGoes(ctx context.Context, d trial.Domain) error {
	guest, err := d.Welcome(ctx)
	if err != nil {
		return err
	}
	return guest.Leave(ctx)
}
