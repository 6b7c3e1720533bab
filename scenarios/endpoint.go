package scenarios

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/synthetic"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

var endpointAway = trial.Scenario{
	Name:  "outage/bundle-endpoint",
	Claim: "While a bundle endpoint is away, no call fails and its peers fall behind; they catch up within one poll once it is back.",
	Parts: []trial.Part{
		trial.Carried("no call fails", "no call failed"),
		trial.Carried("its peers fall behind", "the peer falls behind"),
		trial.Carried("they catch up within one poll once it is back", "and catches up once it is back"),
	},
	Needs: []trial.Need{fetched, rotates},
	Sources: []string{
		"SPIRE pkg/server/bundle/client/manager.go: no back-off after a failed fetch",
		"https://github.com/spiffe/spire/issues/1675 (failed fetches are hard to see)",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var broken *trial.Breakage
		var r *trial.Rotation
		calls := t.CallsThroughout(ctx, caller, called)
		t.StepWith(ctx, "cut the bundle endpoint off", "'fedlab status' says \"endpoint unreachable\"", func(ctx context.Context) (err error) {
			broken, err = t.CutEndpoint(ctx, called, caller)
			return err
		})
		t.StepWith(ctx, "publish another authority, which nobody can fetch", "'fedlab drift' says by which authority the peer is behind", func(ctx context.Context) (err error) {
			if r, err = called.Prepare(ctx, trial.X509); err != nil {
				return err
			}
			if err := t.Soon(ctx, caller.InState(called, federation.Behind)); err != nil {
				return err
			}
			return t.Watch(ctx, "the peer falls behind", caller.ToServer(called), caller.Held(called), string(federation.Behind))
		})
		t.Step(ctx, "give the endpoint back, and see the peer catch up", func(ctx context.Context) error {
			if err := broken.Recover(ctx); err != nil {
				return err
			}
			if err := t.Await(ctx, broken.Window().Healed, caller.ToWorkloads(called), caller.Has(called, trial.X509, r.Next.ID)); err != nil {
				return err
			}
			return t.See(ctx, "and catches up once it is back", caller.Held(called), string(federation.InSync))
		})
		t.StillAnswered(ctx, calls, "see that nobody who called noticed", "no call failed")
		return t.Err()
	},
}

var endpointHangs = trial.Scenario{
	Name:  "outage/hung-endpoint-freezes-configuration",
	Claim: "If a bundle endpoint takes a request and never answers, and the relationship is then removed, its peer cannot be made to refresh any bundle until the endpoint answers; no call fails.",
	Parts: []trial.Part{
		trial.Carried("its peer cannot be made to refresh any bundle until the endpoint answers", "once the relationship is removed, none can", "and all can once the endpoint answers"),
		trial.Carried("no call fails", "no call failed"),
		trial.Carried("", "while it hangs, other bundles can be refreshed"),
	},
	Needs: []trial.Need{byResource},
	Sources: []string{
		"SPIRE pkg/server/bundle/client/client.go: no time limit for an answer",
		"SPIRE pkg/server/bundle/client/manager.go: a relationship that goes waits for its fetch, under the lock of all",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var s *trial.Synthetic
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "federate with a trust domain whose endpoint answers, and see it fetched", func(ctx context.Context) (err error) {
			if s, err = t.Synthetic(ctx); err != nil {
				return err
			}
			if err := s.Client.Play(ctx, synthetic.Script{{Kind: synthetic.TrueBundle}}); err != nil {
				return err
			}
			if err := caller.Follow(ctx, s); err != nil {
				return err
			}
			return t.Await(ctx, time.Now(), trial.ServerLook(), s.Fetched(1))
		})
		t.Step(ctx, "let that endpoint hang with the next request", func(ctx context.Context) error {
			if err := s.Client.Play(ctx, synthetic.Script{{Kind: synthetic.Hang}}); err != nil {
				return err
			}
			t.Mark("%s hangs", s.Domain)
			return t.Await(ctx, time.Now(), s.Polled(), s.Holds())
		})
		t.Step(ctx, "see that others can be refreshed still", func(ctx context.Context) error {
			return refreshes(ctx, t, "while it hangs, other bundles can be refreshed", trial.Fetched)
		})
		t.Step(ctx, "remove the relationship with the one that hangs: now nobody can", func(ctx context.Context) error {
			if err := caller.Unfollow(ctx, s); err != nil {
				return err
			}
			t.Mark("relationship with %s removed", s.Domain)
			// The server sees it with its next look.
			if err := t.Await(ctx, time.Now(), trial.ServerLook(), caller.Fetch(called).Is(trial.FetchHangs)); err != nil {
				return err
			}
			return refreshes(ctx, t, "once the relationship is removed, none can", trial.FetchHangs)
		})
		t.Step(ctx, "let the endpoint answer, and see all go on", func(ctx context.Context) error {
			if err := t.Do(ctx, trial.ToCure, func(ctx context.Context) error {
				return s.Client.Play(ctx, synthetic.Script{{Kind: synthetic.TrueBundle}})
			}); err != nil {
				return err
			}
			t.Mark("%s answers", s.Domain)
			if err := t.Soon(ctx, caller.Fetch(called).Is(trial.Fetched)); err != nil {
				return err
			}
			return refreshes(ctx, t, "and all can once the endpoint answers", trial.Fetched)
		})
		t.StillAnswered(ctx, calls, "see that nobody who called noticed", "no call failed")
		return t.Err()
	},
}

// refreshes claims what comes of it when the caller's server is made to fetch each bundle that
// it follows.
func refreshes(ctx context.Context, t *trial.Trial, says, want string) error {
	_, caller := t.Pair()
	for _, r := range caller.Trusts {
		if r.Mode == topology.Manual {
			continue
		}
		if err := t.See(ctx, says, caller.Fetch(t.Domain(r.Trusted)), want); err != nil {
			return err
		}
	}
	return nil
}

var wrongEndpointID = trial.Scenario{
	Name:  "auth/wrong-endpoint-id",
	Claim: "A relationship that expects another SPIFFE ID than the endpoint presents fetches nothing: no call fails at first, and the peer falls behind at the next rotation.",
	Parts: []trial.Part{
		trial.Carried("fetches nothing", "asked to fetch, the peer cannot"),
		trial.Carried("no call fails at first", "no call failed"),
		trial.Carried("the peer falls behind at the next rotation", "the peer falls behind"),
		trial.Carried("", "and catches up once the right one is expected"),
	},
	Needs: dynamic(),
	Sources: []string{
		"SPIFFE Federation, section 5.2.2: the client must verify the SPIFFE ID of the endpoint",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var r *trial.Rotation
		calls := t.CallsThroughout(ctx, caller, called)
		t.StepWith(ctx, "expect another SPIFFE ID of the endpoint", "'fedlab status' says \"wrong endpointSPIFFEID\"", func(ctx context.Context) error {
			wrong := spiffeid.RequireFromPath(called.Name, "/somebody/else").String()
			if err := caller.EditRelationship(ctx, called, func(spec *spire.FederatedTrustDomainSpec) {
				spec.BundleEndpointProfile.EndpointSPIFFEID = wrong
			}); err != nil {
				return err
			}
			return t.Await(ctx, time.Now(), trial.ManagerLook(), expects(caller, called, wrong))
		})
		t.Step(ctx, "publish another authority: it does not arrive", func(ctx context.Context) (err error) {
			// What the change of the relationship set going is over by then.
			if r, err = called.Prepare(ctx, trial.X509); err != nil {
				return err
			}
			if err := t.Soon(ctx, caller.InState(called, federation.Behind)); err != nil {
				return err
			}
			during := trial.ServerLook().Plus(caller.ToServer(called))
			if err := t.Watch(ctx, "the peer falls behind", during, caller.Held(called), string(federation.Behind)); err != nil {
				return err
			}
			return caller.CannotFetch(ctx, called)
		})
		t.Step(ctx, "expect the right one again, and see it arrive", func(ctx context.Context) error {
			repaired := time.Now()
			// The bundle in the resource is that of before: what arrives was fetched.
			spec, err := caller.Relationship(ctx, called)
			if err != nil {
				return err
			}
			spec.BundleEndpointProfile.EndpointSPIFFEID = spire.ServerID(called.Name).String()
			if err := t.Do(ctx, trial.ToCure, func(ctx context.Context) error { return caller.SetRelationship(ctx, called.Name, spec) }); err != nil {
				return err
			}
			if err := t.Await(ctx, repaired, trial.ServerLook().Plus(caller.ToWorkloads(called)), caller.Has(called, trial.X509, r.Next.ID)); err != nil {
				return err
			}
			return t.See(ctx, "and catches up once the right one is expected", caller.Held(called), string(federation.InSync))
		})
		t.StillAnswered(ctx, calls, "see that nobody who called noticed", "no call failed")
		return t.Err()
	},
}

// expects checks which SPIFFE ID the server wants the endpoint of another to show.
func expects(d, of trial.Domain, id string) check.Check {
	return check.Check{Name: fmt.Sprintf("%s expects %s at the endpoint of %s", d, id, of), Probe: func(ctx context.Context) error {
		all, err := d.Server().Relationships(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(r spire.Relationship) bool { return r.Trusted == of.Name })
		switch {
		case i < 0:
			return errors.New("it has no relationship with it")
		case all[i].EndpointID.String() != id:
			return fmt.Errorf("it expects %s", all[i].EndpointID)
		}
		return nil
	}}
}
