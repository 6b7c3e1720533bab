package scenarios

import (
	"context"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/synthetic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

var twoResources = trial.Scenario{
	Name:  "drift/two-resources",
	Claim: "Of two ClusterFederatedTrustDomains for one trust domain the older one counts, and the younger one has no effect until the older one is deleted; a resource that is made again is the younger one; no call fails.",
	Parts: []trial.Part{
		trial.Carried("the older one counts, and the younger one has no effect", "the younger one has no effect", "and it is as before once the younger one is deleted"),
		trial.Carried("until the older one is deleted", "the younger one counts once the older one is deleted"),
		trial.Carried("a resource that is made again is the younger one", "the one that is made again has no effect"),
		trial.Carried("no call fails", "no call failed"),
		trial.Carried("", "the server does what the resource says"),
	},
	Needs: []trial.Need{bySPIFFE, byResource},
	Sources: []string{
		"SPIRE Controller Manager pkg/spirefederationrelationship/reconciler.go: sorted by their creation, and of those that conflict the first one counts",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var second *trial.Breakage
		var right, other spire.FederatedTrustDomainSpec
		calls := t.CallsThroughout(ctx, caller, called)
		expected := expectedID(caller, called)
		id := func(spec spire.FederatedTrustDomainSpec) string { return spec.BundleEndpointProfile.EndpointSPIFFEID }
		becomes := func(ctx context.Context, says string, since time.Time, spec spire.FederatedTrustDomainSpec) error {
			if err := t.Await(ctx, since, trial.ManagerLook(), expected.Is(id(spec))); err != nil {
				return err
			}
			return t.See(ctx, says, expected, id(spec))
		}
		t.Step(ctx, "expect another SPIFFE ID of the endpoint, and the right one again: the server does what the resource says", func(ctx context.Context) error {
			wrong := spiffeid.RequireFromPath(called.Name, "/somebody/else").String()
			if err := caller.EditRelationship(ctx, called, func(spec *spire.FederatedTrustDomainSpec) {
				right = *spec
				spec.BundleEndpointProfile.EndpointSPIFFEID = wrong
				other = *spec
			}); err != nil {
				return err
			}
			if err := becomes(ctx, "the server does what the resource says", time.Now(), other); err != nil {
				return err
			}
			if err := caller.SetRelationship(ctx, called.Name, right); err != nil {
				return err
			}
			return becomes(ctx, "the server does what the resource says", time.Now(), right)
		})
		t.Step(ctx, "make a second resource that expects the other one: it has no effect", func(ctx context.Context) (err error) {
			if second, err = t.Break(ctx, caller.Duplicate(called, other)); err != nil {
				return err
			}
			return t.Watch(ctx, "the younger one has no effect", trial.ManagerLook(), expected, id(right))
		})
		t.Step(ctx, "delete the first one: the second one counts", func(ctx context.Context) error {
			if err := caller.DropRelationship(ctx, called); err != nil {
				return err
			}
			return becomes(ctx, "the younger one counts once the older one is deleted", time.Now(), other)
		})
		t.Step(ctx, "make the first one again: it has no effect", func(ctx context.Context) error {
			if err := caller.SetRelationship(ctx, called.Name, right); err != nil {
				return err
			}
			return t.Watch(ctx, "the one that is made again has no effect", trial.ManagerLook(), expected, id(other))
		})
		t.Step(ctx, "delete the second one: the first one counts", func(ctx context.Context) error {
			if err := second.Recover(ctx); err != nil {
				return err
			}
			return becomes(ctx, "and it is as before once the younger one is deleted", second.Window().Recovered, right)
		})
		t.StillAnswered(ctx, calls, "see that nobody who called noticed", "no call failed")
		return t.Err()
	},
}

var relationshipByCommand = trial.Scenario{
	Name:  "drift/relationship-by-command-is-removed",
	Claim: "A relationship that somebody makes by the server's API, and that no ClusterFederatedTrustDomain asks for, is removed by the controller manager when it looks the next time; the bundle stays that came with it, and no call fails.",
	Parts: []trial.Part{
		trial.Carried("is removed by the controller manager when it looks the next time", "the controller manager removes it"),
		trial.Carried("the bundle stays that came with it", "its bundle stays"),
		trial.Carried("no call fails", "no call failed"),
		trial.Carried("", "it stays while the controller manager hangs"),
	},
	Needs: []trial.Need{reconciled},
	Sources: []string{
		"SPIRE Controller Manager pkg/spirefederationrelationship/reconciler.go: what no resource asks for is deleted",
		"https://github.com/spiffe/spire/blob/v1.15.3/doc/spire_server.md (federation create)",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var s *trial.Synthetic
		var hangs *trial.Breakage
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "let the controller manager hang, and make a relationship by the server's API: it stays, and the bundle is fetched", func(ctx context.Context) (err error) {
			if s, err = t.Synthetic(ctx); err != nil {
				return err
			}
			if err := s.Client.Play(ctx, synthetic.Script{{Kind: synthetic.TrueBundle}}); err != nil {
				return err
			}
			if hangs, err = t.Break(ctx, fault.ControllerManagerGone(caller.Fault())); err != nil {
				return err
			}
			if err := caller.FollowByCommand(ctx, s); err != nil {
				return err
			}
			if err := t.Await(ctx, time.Now(), trial.ServerLook(), s.Fetched(1)); err != nil {
				return err
			}
			return t.Watch(ctx, "it stays while the controller manager hangs", trial.ManagerLook(), caller.RelationshipWith(s.Domain), trial.There)
		})
		gone := func(ctx context.Context, since time.Time) error {
			if err := t.Await(ctx, since, trial.ManagerLook(), caller.Unrelated(s.Domain)); err != nil {
				return err
			}
			if err := t.See(ctx, "the controller manager removes it", caller.RelationshipWith(s.Domain), trial.Absent); err != nil {
				return err
			}
			return t.See(ctx, "its bundle stays", holds(caller, s.Domain), trial.There)
		}
		t.Step(ctx, "let the controller manager go on: it removes the relationship", func(ctx context.Context) error {
			if err := hangs.Recover(ctx); err != nil {
				return err
			}
			return gone(ctx, hangs.Window().Healed)
		})
		t.Step(ctx, "make the relationship again: the controller manager removes it again", func(ctx context.Context) error {
			if err := caller.FollowByCommand(ctx, s); err != nil {
				return err
			}
			return gone(ctx, time.Now())
		})
		t.StillAnswered(ctx, calls, "see that nobody who called noticed", "no call failed")
		return t.Err()
	},
}

// holds is whether a server holds a bundle of a trust domain.
func holds(d trial.Domain, of spiffeid.TrustDomain) trial.Fact {
	return trial.Fact{Of: fmt.Sprintf("a bundle of %s at the server of %s", of, d), Look: func(ctx context.Context) (string, error) {
		held, err := d.Server().HeldBundle(ctx, of)
		if held == nil {
			return trial.Absent, err
		}
		return trial.There, nil
	}}
}
