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
			return t.Await(ctx, time.Now(), trial.ManagerLook(), expectedID(caller, called).Is(wrong))
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
			spec, err := caller.Relationship(ctx, called.Name)
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

var wrongProfile = trial.Scenario{
	Name:  "auth/wrong-profile",
	Claim: "If a relationship expects https_web of an endpoint that serves https_spiffe, or https_spiffe of one that shows a certificate of the web, no fetch succeeds; where what is expected is what is served, each does, and no call fails meanwhile.",
	Parts: []trial.Part{
		trial.Carried("If a relationship expects https_web of an endpoint that serves https_spiffe", noFetch+"the relationship expects the other profile", noFetch+"https_web is expected of an endpoint with https_spiffe"),
		trial.Carried("or https_spiffe of one that shows a certificate of the web", noFetch+"https_spiffe is expected and the endpoint shows a certificate of the web"),
		trial.Carried("where what is expected is what is served, each does", "a fetch succeeds before", "a fetch succeeds afterwards"),
		trial.Carried("no call fails meanwhile", "no call failed"),
	},
	Needs: []trial.Need{byResource},
	Sources: []string{
		"SPIFFE Federation, sections 5.2.1.4 and 5.2.2.4: how a client authenticates an endpoint",
		"SPIRE pkg/server/bundle/client/client.go: \"maybe use https_spiffe instead of https_web\"",
		"https://github.com/spiffe/spire/issues/6106",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var s *trial.Synthetic
		calls := t.CallsThroughout(ctx, caller, called)
		// By https_web a bundle is fetched from endpoints of the lab alone: nobody trusts a web CA
		// of a third trust domain.
		mixUp(ctx, t, "the relationship expects the other profile", func(ctx context.Context) (trial.Fact, trial.Mistake, error) {
			mistake, err := otherProfile(ctx, caller, called.Name)
			return caller.Fetch(called), mistake, err
		})
		t.Step(ctx, "follow a third trust domain whose endpoint serves https_spiffe", func(ctx context.Context) (err error) {
			if s, err = t.Synthetic(ctx); err != nil {
				return err
			}
			if err := caller.Follow(ctx, s); err != nil {
				return err
			}
			return t.Await(ctx, time.Now(), trial.ServerLook(), s.Fetched(1))
		})
		mixUp(ctx, t, "https_web is expected of an endpoint with https_spiffe", func(ctx context.Context) (trial.Fact, trial.Mistake, error) {
			mistake, err := otherProfile(ctx, caller, s.Domain)
			return s.Fetch(caller), mistake, err
		})
		mixUp(ctx, t, "https_spiffe is expected and the endpoint shows a certificate of the web", func(context.Context) (trial.Fact, trial.Mistake, error) {
			play := func(answer synthetic.Answer) func(context.Context) error {
				return func(ctx context.Context) error { return s.Client.Play(ctx, synthetic.Script{answer}) }
			}
			web := synthetic.X509Request{ID: s.ID(), Wrong: synthetic.NoURI}
			played := check.Check{Name: "the endpoint plays its script", Probe: func(context.Context) error { return nil }}
			return s.Fetch(caller), trial.Mistake{
				What: "certificate-of-the-web/" + s.Domain.Name(), Made: played, Corrected: played,
				Make: play(synthetic.Answer{Kind: synthetic.WrongCertificate, Shows: &web}), Undo: play(synthetic.Answer{Kind: synthetic.TrueBundle}),
			}, nil
		})
		t.StillAnswered(ctx, calls, "see that nobody who called noticed", "no call failed")
		return t.Err()
	},
}

const noFetch = "no fetch succeeds while "

// mixUp is the step in which a server fetches a bundle while a mistake about profiles is made,
// and corrected.
func mixUp(ctx context.Context, t *trial.Trial, wrong string, of func(context.Context) (trial.Fact, trial.Mistake, error)) {
	t.StepWith(ctx, "see that "+noFetch+wrong, "'fedlab status' says \"wrong profile\"", func(ctx context.Context) error {
		fetch, mistake, err := of(ctx)
		if err != nil {
			return err
		}
		if err := t.See(ctx, "a fetch succeeds before", fetch, trial.Fetched); err != nil {
			return err
		}
		mixed, err := t.Break(ctx, mistake)
		if err != nil {
			return err
		}
		if err := t.Await(ctx, mixed.Window().Injected, trial.ManagerLook(), fetch.Is(trial.FetchRefused)); err != nil {
			return err
		}
		if err := t.Watch(ctx, noFetch+wrong, trial.Calls(5), fetch, trial.FetchRefused); err != nil {
			return err
		}
		corrected := time.Now()
		if err := t.Do(ctx, trial.ToCure, mixed.Recover); err != nil {
			return err
		}
		if err := t.Await(ctx, corrected, trial.ManagerLook(), fetch.Is(trial.Fetched)); err != nil {
			return err
		}
		return t.See(ctx, "a fetch succeeds afterwards", fetch, trial.Fetched)
	})
}

// otherProfile is the mistake to expect another profile of an endpoint.
func otherProfile(ctx context.Context, caller trial.Domain, of spiffeid.TrustDomain) (trial.Mistake, error) {
	right, err := caller.Relationship(ctx, of)
	wrong := right
	wrong.BundleEndpointProfile = spire.EndpointProfile{Type: topology.HTTPSWeb}
	if right.BundleEndpointProfile.Type == topology.HTTPSWeb {
		wrong.BundleEndpointProfile = spire.EndpointProfile{Type: topology.HTTPSSPIFFE, EndpointSPIFFEID: spire.ServerID(of).String()}
	}
	expect := func(spec spire.FederatedTrustDomainSpec) (func(context.Context) error, check.Check) {
		profile := spec.BundleEndpointProfile.Type
		set := func(ctx context.Context) error { return caller.SetRelationship(ctx, of, spec) }
		return set, related(caller, of, fmt.Sprintf("%s expects %s of the endpoint of %s", caller, profile, of), func(r spire.Relationship) error {
			if r.Profile != profile {
				return fmt.Errorf("it expects %s", r.Profile)
			}
			return nil
		})
	}
	m := trial.Mistake{What: fmt.Sprintf("profile-expected/%s->%s", caller, of)}
	m.Make, m.Made = expect(wrong)
	m.Undo, m.Corrected = expect(right)
	return m, err
}

// related checks the relationship that the server has with another.
func related(d trial.Domain, of spiffeid.TrustDomain, name string, is func(spire.Relationship) error) check.Check {
	return check.Check{Name: name, Probe: func(ctx context.Context) error {
		all, err := d.Server().Relationships(ctx)
		i := slices.IndexFunc(all, func(r spire.Relationship) bool { return r.Trusted == of })
		switch {
		case err != nil:
			return err
		case i < 0:
			return errors.New("it has no relationship with it")
		}
		return is(all[i])
	}}
}

// expectedID is which SPIFFE ID the server wants the endpoint of another to show.
func expectedID(d, of trial.Domain) trial.Fact {
	return trial.Fact{Of: fmt.Sprintf("the SPIFFE ID that %s expects at the endpoint of %s", d, of), Look: func(ctx context.Context) (string, error) {
		all, err := d.Server().Relationships(ctx)
		i := slices.IndexFunc(all, func(r spire.Relationship) bool { return r.Trusted == of.Name })
		if i < 0 {
			return trial.Absent, err
		}
		return all[i].EndpointID.String(), err
	}}
}
