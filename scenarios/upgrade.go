package scenarios

import (
	"context"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"github.com/fedlab-dev/fedlab/lab/spire"
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
	Name:    "upgrade/server",
	Claim:   "A SPIRE server is replaced by one of the next minor version, and no call across the federation fails: it goes on with its authorities, each side fetches the other's bundle, and a new workload gets its identity from it.",
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
	Name:    "upgrade/agent",
	Claim:   "SPIRE agents are replaced by those of the next minor version, after their server: no call across the federation fails, and a new workload gets its identity from the new agent.",
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

// upgradeServer replaces the server of the called trust domain by one of the next minor
// version, and sees that it goes on where the other one was.
func upgradeServer(ctx context.Context, t *trial.Trial) {
	called, caller := t.Pair()
	var active spire.Authority
	var own *spiffebundle.Bundle
	t.StepWith(ctx, "replace the server by one of the next minor version", "'kubectl get pods' shows another pod of the server", func(ctx context.Context) (err error) {
		if active, err = called.Active(ctx, trial.X509); err != nil {
			return err
		}
		if own, err = called.Bundle(ctx); err != nil {
			return err
		}
		return t.Reconfigure(ctx, called, func(td *topology.Settings) { td.SPIREVersion = topology.NextSPIRE(td.SPIREVersion) })
	})
	t.Step(ctx, "see that it signs as before, and that each side fetches from the other", func(ctx context.Context) error {
		now, err := called.Active(ctx, trial.X509)
		if err != nil {
			return err
		}
		if now.ID != active.ID {
			return fmt.Errorf("it signs with authority %s, and did with %s", trial.Brief(now.ID), trial.Brief(active.ID))
		}
		is, err := called.Bundle(ctx)
		if err != nil {
			return err
		}
		if err := sameAuthorities(is, own); err != nil {
			return err
		}
		if err := caller.Refresh(ctx, called); err != nil {
			return err
		}
		return called.Refresh(ctx, caller)
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
