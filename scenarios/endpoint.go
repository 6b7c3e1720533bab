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
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

var endpointAway = trial.Scenario{
	Name:  "outage/bundle-endpoint",
	Claim: "While a bundle endpoint is away, no call fails and its peers fall behind unnoticed; they catch up within one poll once it is back.",
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
			return t.Stays(ctx, caller.ToServer(called), caller.InState(called, federation.Behind))
		})
		t.Step(ctx, "give the endpoint back, and see the peer catch up", func(ctx context.Context) error {
			if err := broken.Recover(ctx); err != nil {
				return err
			}
			return t.Await(ctx, broken.Window().Healed, caller.ToWorkloads(called), caller.Has(called, trial.X509, r.Next.ID))
		})
		t.StillAnswered(ctx, calls, "see that nobody who called noticed", "no call failed")
		return t.Err()
	},
}

var endpointHangs = trial.Scenario{
	Name:  "outage/hung-endpoint-freezes-configuration",
	Claim: "If a bundle endpoint takes a request and never answers, and the relationship is then removed, its peer cannot be made to refresh any bundle until the endpoint answers; no call fails.",
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
		t.Step(ctx, "see that others can be refreshed still", func(ctx context.Context) error { return refresh(ctx, caller, called) })
		t.Step(ctx, "remove the relationship with the one that hangs: now nobody can", func(ctx context.Context) error {
			if err := caller.Unfollow(ctx, s); err != nil {
				return err
			}
			t.Mark("relationship with %s removed", s.Domain)
			// The server sees it with its next look.
			return t.Await(ctx, time.Now(), trial.ServerLook(), check.Check{
				Name: "a refresh of " + called.String() + " hangs, too", Probe: func(ctx context.Context) error {
					switch err := refresh(ctx, caller, called); {
					case err == nil:
						return errors.New("it was refreshed")
					case !errors.Is(err, errStuck):
						return err
					}
					return nil
				},
			})
		})
		t.Step(ctx, "let the endpoint answer, and see all go on", func(ctx context.Context) error {
			if err := t.Do(ctx, trial.ToCure, func(ctx context.Context) error {
				return s.Client.Play(ctx, synthetic.Script{{Kind: synthetic.TrueBundle}})
			}); err != nil {
				return err
			}
			t.Mark("%s answers", s.Domain)
			return t.Soon(ctx, check.Check{Name: called.String() + " is refreshed again", Probe: func(ctx context.Context) error {
				return refresh(ctx, caller, called)
			}})
		})
		t.StillAnswered(ctx, calls, "see that nobody who called noticed", "no call failed")
		return t.Err()
	},
}

// errStuck says that a refresh did not come back.
var errStuck = errors.New("the refresh does not come back")

// refreshBound is how long a refresh may take that is not stuck: a fetch takes
// milliseconds.
const refreshBound = 5 * time.Second

// refresh has the server fetch the bundle of another, and tells a refresh that
// does not come back from one that fails.
func refresh(ctx context.Context, by, of trial.Domain) error {
	bounded, cancel := context.WithTimeoutCause(ctx, refreshBound, errStuck)
	defer cancel()
	err := by.Server().RefreshBundle(bounded, of.Name)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return errStuck
	}
	return err
}

var wrongEndpointID = trial.Scenario{
	Name:  "auth/wrong-endpoint-id",
	Claim: "A relationship that expects another SPIFFE ID than the endpoint presents fetches nothing: no call fails at first, and the peer falls behind at the next rotation.",
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
			behind := lacks(caller, called, r.Next.ID)
			if err := t.Soon(ctx, behind); err != nil {
				return err
			}
			if err := t.Stays(ctx, trial.ServerLook().Plus(caller.ToServer(called)), behind); err != nil {
				return err
			}
			return errors.Join(caller.CannotFetch(ctx, called), behind.Probe(ctx))
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
			return t.Await(ctx, repaired, trial.ServerLook().Plus(caller.ToWorkloads(called)), caller.Has(called, trial.X509, r.Next.ID))
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

// lacks checks that the server holds a bundle of another without an X.509
// authority.
func lacks(d, of trial.Domain, id string) check.Check {
	return check.Check{Name: fmt.Sprintf("the server of %s lacks authority %s of %s", d, trial.Brief(id), of), Probe: func(ctx context.Context) error {
		held, err := d.Server().HeldBundle(ctx, of.Name)
		switch {
		case err != nil:
			return err
		case held == nil:
			return errors.New("it holds no bundle")
		case slices.Contains(federation.X509IDs(held), id):
			return errors.New("it holds it")
		}
		return nil
	}}
}
