package scenarios

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// longestLife is how long an X509-SVID may live that a scenario waits for twice.
const longestLife = 2 * time.Minute

var replicaAway = trial.Scenario{
	Name:  "outage/replica",
	Claim: "Where two SPIRE servers share a PostgreSQL, either may be killed and stay away for two lives of an X509-SVID: no call fails, a new workload gets its identity, a peer fetches the bundle, and the server comes back with its own keys.",
	Parts: []trial.Part{
		trial.Carried("no call fails", "no call failed while one of the servers was away, though each made a new handshake"),
		trial.Carried("a new workload gets its identity", "a newcomer gets its identity while a server is away"),
		trial.Carried("a peer fetches the bundle", "the peer fetches the bundle while a server is away"),
		trial.Carried("the server comes back with its own keys", "the servers sign with the keys that they had"),
	},
	Labels: []string{Slow},
	Needs: []trial.Need{{
		What: "two SPIRE servers of the called trust domain whose X509-SVIDs live for at most " + longestLife.String() +
			"; 'serverReplicas: 2', 'datastore: postgres' and 'svid: {x509TTL: 1m}' in the lab file give that",
		Met: func(r *topology.Trust) bool {
			return r.Trusted.Replicas == 2 && r.Trusted.X509SVIDTTL <= longestLife
		},
	}, fetched},
	Sources: []string{
		"SPIRE doc/scaling_spire.md: servers that share a datastore, each with a CA of its own",
		"SPIRE doc/plugin_server_keymanager_disk.md: keys outlive the process",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		calls := t.CallsThroughout(ctx, caller, called)
		var keys map[string][2]string
		var bundle *spiffebundle.Bundle
		t.Step(ctx, "see that each server signs with keys of its own, and that the peer holds all of them", func(ctx context.Context) (err error) {
			if keys, err = called.Signing(ctx); err != nil {
				return err
			}
			if bundle, err = caller.Server().HeldBundle(ctx, called.Name); err != nil {
				return err
			}
			return ownKeys(keys, bundle)
		})
		for ordinal := range called.Replicas {
			withoutReplica(ctx, t, ordinal)
			t.Step(ctx, fmt.Sprintf("see that server %d signs with the keys that it had, and that the bundle is what it was", ordinal), func(ctx context.Context) error {
				if err := t.See(ctx, "the servers sign with the keys that they had", signing(called), fmt.Sprint(keys)); err != nil {
					return err
				}
				is, err := called.Bundle(ctx)
				if err != nil {
					return err
				}
				return sameAuthorities(is, bundle)
			})
		}
		t.StillAnswered(ctx, calls, "see that those who had an identity never noticed", "no call failed while one of the servers was away, though each made a new handshake")
		return t.Err()
	},
}

// signing is which authorities the servers sign with; maps are printed in the order of their keys.
func signing(d trial.Domain) trial.Fact {
	return trial.Fact{Of: "the authorities that servers of " + d.String() + " sign with", Look: func(ctx context.Context) (string, error) {
		keys, err := d.Signing(ctx)
		return fmt.Sprint(keys), err
	}}
}

// withoutReplica kills one of the called trust domain's servers, and has it away for two
// lives of an X509-SVID.
func withoutReplica(ctx context.Context, t *trial.Trial, ordinal int) {
	called, caller := t.Pair()
	var broken *trial.Breakage
	t.StepWith(ctx, fmt.Sprintf("kill server %d, and keep it from starting", ordinal), "'fedlab status' says so", func(ctx context.Context) (err error) {
		broken, err = t.Break(ctx, fault.ReplicaKilled(called.Fault(), ordinal))
		return err
	})
	t.Step(ctx, "let a newcomer come: the other server gives it its identity", func(ctx context.Context) error {
		guest, err := called.Newcomer(ctx)
		if err != nil {
			return err
		}
		if err := guest.Register(ctx, nil); err != nil {
			return err
		}
		leader := trial.Bound{Within: federation.LeaderBound(), Formula: "lease of the controller manager that leads"}
		if err := t.Await(ctx, time.Now(), leader.Plus(trial.Reconciled()), guest.HasIdentity()); err != nil {
			return err
		}
		if err := t.See(ctx, "a newcomer gets its identity while a server is away", guest.Identity(), guest.ID().String()); err != nil {
			return err
		}
		return guest.Leave(ctx)
	})
	t.Step(ctx, "see that the peer fetches the bundle for two lives of an X509-SVID", func(ctx context.Context) error {
		lives := trial.Bound{Within: 2 * called.X509SVIDTTL, Formula: "two lives of an X509-SVID"}
		return t.Watch(ctx, "the peer fetches the bundle while a server is away", lives, caller.Fetch(called), trial.Fetched)
	})
	t.Step(ctx, fmt.Sprintf("give server %d back", ordinal), func(ctx context.Context) error {
		if err := broken.Recover(ctx); err != nil {
			return err
		}
		return t.WaitFor(ctx, called.Ready())
	})
}

// ownKeys returns nil when no two servers sign with the same authority, and a bundle has
// the authorities of all.
func ownKeys(keys map[string][2]string, bundle *spiffebundle.Bundle) error {
	if bundle == nil {
		return errors.New("it holds no bundle")
	}
	seen := map[string]string{}
	for _, pod := range slices.Sorted(maps.Keys(keys)) {
		for _, id := range keys[pod] {
			if other, taken := seen[id]; taken {
				return fmt.Errorf("%s and %s both sign with authority %s", other, pod, id)
			}
			seen[id] = pod
			if !slices.Contains(slices.Concat(federation.X509IDs(bundle), federation.JWTIDs(bundle)), id) {
				return fmt.Errorf("it lacks authority %s, with which %s signs", id, pod)
			}
		}
	}
	return nil
}

// sameAuthorities returns nil when a bundle has the authorities of another, and no more.
func sameAuthorities(is, was *spiffebundle.Bundle) error {
	if c := federation.Compare(was, is); c.State != federation.InSync {
		return fmt.Errorf("it is not: what the peer has held since before is %s", c)
	}
	return nil
}
