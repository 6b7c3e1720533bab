package scenarios

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

func rotations() []Scenario {
	return []Scenario{x509Authority, revokedTooEarly, jwtAuthority, natural, fasterThanRefresh}
}

// x509Authority replaces an X.509 authority as an operator does.
var x509Authority = Scenario{
	Name:   "rotation/x509-authority",
	Claim:  "Replacing an X.509 authority never breaks a call from a federated peer, and afterwards the peer trusts the old one no longer.",
	Labels: []string{CI},
	Sources: []string{
		"https://github.com/spiffe/spire/blob/v1.15.3/doc/spire_server.md (localauthority x509)",
		"SPIRE pkg/common/bundleutil/marshal.go: the served bundle does not say which authority is tainted",
	},
	Run: func(ctx context.Context, t *Trial) error {
		called, caller := t.Pair()
		var r *rotation
		calls := t.CallsThroughout(ctx, caller, called)
		t.StepWith(ctx, "publish the next authority before anything is signed with it",
			"'fedlab status' counts one more X.509 authority; for some seconds the peer's bundle is behind", func(ctx context.Context) (err error) {
				if r, err = called.prepare(ctx, called.x509()); err != nil {
					return err
				}
				return r.arrive(ctx)
			})
		t.Step(ctx, "activate it: from now on it signs", func(ctx context.Context) error { return r.activate(ctx) })
		t.Step(ctx, "taint the old one, so that all it has signed is replaced", func(ctx context.Context) error {
			tainted := time.Now()
			if err := r.taint(ctx); err != nil {
				return err
			}
			if err := t.Await(ctx, tainted, replacedBound(), r.replaced()); err != nil {
				return err
			}
			calls.MeetsBy("soon after the old authority is tainted, each call is answered under the new one", tainted, replacedBound(), r.next.ID)
			return t.Await(ctx, tainted, replacedBound(), calls.Meets(r.next.ID))
		})
		t.Step(ctx, "see that the peer still trusts the tainted one: a taint is local", func(ctx context.Context) error {
			return caller.Has(called, r.old.ID).Probe(ctx)
		})
		t.Step(ctx, "revoke the old one, and wait until the peer has dropped it", func(ctx context.Context) error {
			revoked := time.Now()
			if err := r.revoke(ctx); err != nil {
				return err
			}
			return t.Await(ctx, revoked, caller.ToWorkloads(called), caller.Dropped(called, r.old.ID))
		})
		t.Step(ctx, "see a few more calls come through", func(ctx context.Context) error {
			calls.AllAnswered("no call failed from the first step to the last")
			return t.Await(ctx, time.Now(), immediate(), calls.Meets(r.next.ID))
		})
		return t.Err()
	},
}

// revokedTooEarly replaces one as somebody does who is in a hurry.
var revokedTooEarly = Scenario{
	Name:  "rotation/revoked-too-early",
	Claim: "What an authority has signed that is revoked before agents have heard of its taint stays in use: workloads go on to present SVIDs that no peer takes once it has fetched, and starting the agents again is the cure.",
	Sources: []string{
		"SPIRE pkg/agent/manager/sync.go, processTaintedAuthorities: a taint has SVIDs replaced, and what is revoked is tainted no longer",
		"https://github.com/spiffe/spire/blob/v1.15.3/doc/spire_server.md (localauthority x509 revoke)",
	},
	Run: func(ctx context.Context, t *Trial) error {
		called, caller := t.Pair()
		var r *rotation
		var revoked time.Time
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "publish the next authority, wait until the peer has it, and activate it", func(ctx context.Context) (err error) {
			if r, err = called.prepare(ctx, called.x509()); err != nil {
				return err
			}
			if err := r.arrive(ctx); err != nil {
				return err
			}
			return r.activate(ctx)
		})
		t.StepWith(ctx, "taint the old one, and revoke it in the same breath", "the demo's page stands still once it has to make another handshake, and 'fedlab status' says which workloads show an SVID that nothing verifies", func(ctx context.Context) error {
			t.Restore("replace what the authority has signed that is revoked", called.replaceRevoked)
			calls.AnsweredBetween("up to then no call failed", time.Time{}, time.Now())
			revoked = time.Now()
			if err := errors.Join(r.taint(ctx), r.revoke(ctx)); err != nil {
				return err
			}
			return t.Await(ctx, revoked, caller.ToWorkloads(called), calls.Ends(traffic.UnknownAuthority))
		})
		t.Step(ctx, "see that the SVIDs stay, for as long as a taint takes to replace them", func(ctx context.Context) error {
			if err := t.Stays(ctx, tainted().Within, tainted().Formula, called.presentsRevoked()); err != nil {
				return err
			}
			if err := calls.Ends(traffic.UnknownAuthority).Probe(ctx); err != nil {
				return err
			}
			return t.until(ctx, called.named())
		})
		t.Step(ctx, "start the agents again", func(ctx context.Context) error {
			mended := time.Now()
			calls.RefusedBy("each call fails from soon after the revocation until then", revoked, caller.ToWorkloads(called), mended, traffic.UnknownAuthority)
			calls.AnsweredBy("and they are answered again after it", mended, registered())
			if err := called.replaceRevoked(ctx); err != nil {
				return err
			}
			return t.Await(ctx, mended, registered(), calls.Meets(r.next.ID))
		})
		return t.Err()
	},
}

// jwtAuthority replaces a JWT authority.
var jwtAuthority = Scenario{
	Name:    "rotation/jwt-authority",
	Claim:   "A JWT-SVID stays valid at a federated peer until the authority that signed it is revoked and the peer has fetched again; one of the new authority is valid as soon as it is signed.",
	Sources: []string{"https://github.com/spiffe/spire/blob/v1.15.3/doc/spire_server.md (localauthority jwt)"},
	Run: func(ctx context.Context, t *Trial) error {
		called, caller := t.Pair()
		var r *rotation
		var before, after *token
		valid := func(token *token) check.Check {
			return check.Check{Name: fmt.Sprintf("the token of authority %s is valid at %s", brief(token.authority), caller), Probe: func(ctx context.Context) error {
				id, err := caller.Probe().Validate(ctx, token.audience(), token.text)
				if err == nil && id != called.ID().String() {
					err = fmt.Errorf("it is of %s", id)
				}
				return err
			}}
		}
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "mint a token, and have the peer validate it", func(ctx context.Context) (err error) {
			state, err := called.Server().JWTAuthorities(ctx)
			if err != nil {
				return err
			}
			if before, err = called.token(ctx, state.Active.ID); err != nil {
				return err
			}
			return t.Await(ctx, time.Now(), immediate(), valid(before))
		})
		t.Step(ctx, "publish the next JWT authority, and wait until the peer has it", func(ctx context.Context) (err error) {
			if r, err = called.prepare(ctx, called.jwt()); err != nil {
				return err
			}
			return r.arrive(ctx)
		})
		t.Step(ctx, "activate it, and mint another token", func(ctx context.Context) (err error) {
			if err := r.activate(ctx); err != nil {
				return err
			}
			if after, err = called.token(ctx, r.next.ID); err != nil {
				return err
			}
			for _, c := range []check.Check{valid(before), valid(after)} {
				if err := c.Probe(ctx); err != nil {
					return fmt.Errorf("%s: not so: %w", c.Name, err)
				}
				t.Seen("%s", c.Name)
			}
			return nil
		})
		t.Step(ctx, "taint and revoke the old one, and wait until the peer refuses its token", func(ctx context.Context) error {
			revoked := time.Now()
			if err := errors.Join(r.taint(ctx), r.revoke(ctx)); err != nil {
				return err
			}
			return t.Await(ctx, revoked, caller.ToWorkloads(called), check.Check{
				Name: fmt.Sprintf("the token of authority %s is refused at %s", brief(before.authority), caller), Probe: func(ctx context.Context) error {
					_, err := caller.Probe().Validate(ctx, before.audience(), before.text)
					if invalid := (*traffic.InvalidError)(nil); errors.As(err, &invalid) {
						if !time.Now().Before(before.expires) {
							return errors.New("it has expired, and would be refused anyway")
						}
						return nil
					}
					return errors.Join(errors.New("it is valid"), err)
				},
			})
		})
		t.Step(ctx, "see that the new one's token is valid still, and that calls never noticed", func(ctx context.Context) error {
			calls.AllAnswered("no call failed: X.509 has no part in it")
			return valid(after).Probe(ctx)
		})
		return t.Err()
	},
}

// naturalLife is the life of an X.509 authority in which a class sees three of
// them: the next one is prepared at half of it and activated when a sixth
// remains, so that a peer has a third of it to fetch.
const naturalLife = 3 * time.Minute

// natural lets authorities come and go by themselves.
var natural = Scenario{
	Name:   "rotation/natural",
	Claim:  "Through three generations of short-lived authorities that SPIRE replaces by itself, no call from a federated peer fails.",
	Labels: []string{Slow},
	Sources: []string{
		"SPIRE pkg/server/ca/manager/manager.go: prepare at half of the life, activate when a sixth remains",
		"https://github.com/spiffe/helm-charts-hardened/pull/343 (the life of a CA must be several refresh hints)",
	},
	Run: func(ctx context.Context, t *Trial) error {
		called, caller := t.Pair()
		t.Step(ctx, "give authorities a life of "+naturalLife.String(), func(ctx context.Context) error {
			// Done after the settings are back: the server keeps the authority that it has.
			t.Restore("replace the short-lived authorities of "+called.String(), called.renew)
			return t.Reconfigure(ctx, called, func(td *topology.Settings) {
				td.CATTL, td.X509SVIDTTL = naturalLife, naturalLife/6
			})
		})
		t.Step(ctx, "replace the long-lived authority by hand, this once", func(ctx context.Context) error {
			r, err := called.replace(ctx)
			if err != nil {
				return err
			}
			return r.revoke(ctx)
		})
		calls := t.CallsThroughout(ctx, caller, called)
		for generation := 1; generation <= 3; generation++ {
			t.StepWith(ctx, fmt.Sprintf("wait for generation %d to sign", generation), "'fedlab status' shows authorities come", func(ctx context.Context) error {
				state, err := called.Server().X509Authorities(ctx)
				if err != nil {
					return err
				}
				since, now := time.Now(), state.Active.ID
				bound := Bound{
					Within:  federation.ActivatedBy(naturalLife),
					Formula: "five sixths of the authority's life + the rotator's tick",
				}
				if err := t.Await(ctx, since, bound, called.signsWithAnother(now)); err != nil {
					return err
				}
				t.Mark("%s signs with the next generation", called)
				return nil
			})
		}
		t.Step(ctx, "see calls come through still", func(ctx context.Context) error {
			calls.AllAnswered("no call failed through three generations")
			return t.Await(ctx, time.Now(), immediate(), calls.Ends(traffic.Answered))
		})
		return t.Err()
	},
}

// longHint is a refresh hint with which a peer comes back too late for a class
// to wait for: every two and a half minutes.
const longHint = 10 * time.Minute

// fasterThanRefresh replaces an authority before its peer has looked again.
var fasterThanRefresh = Scenario{
	Name:  "rotation/faster-than-refresh",
	Claim: "An authority that signs before the peer's next poll breaks each call from it until that poll; a forced refresh mends it, as long as the endpoint itself shows what the old one has signed.",
	Sources: []string{
		"SPIFFE Federation, section 5.1.1: keys are to be published three to five refresh hints before they are used",
		"https://github.com/spiffe/helm-charts-hardened/issues/335", "https://github.com/spiffe/spire/issues/2256",
	},
	Run: func(ctx context.Context, t *Trial) error {
		called, caller := t.Pair()
		var r *rotation
		t.Step(ctx, "give the bundle a refresh hint of "+longHint.String(), func(ctx context.Context) error {
			for _, b := range t.bondsTo(called) {
				b.truster.PollsLate()
			}
			err := t.Reconfigure(ctx, called, func(td *topology.Settings) { td.BundleEndpoint.RefreshHint = longHint })
			if err != nil {
				return err
			}
			return t.Await(ctx, time.Now(), caller.ToServer(called), caller.heldHint(called, longHint))
		})
		calls := t.CallsThroughout(ctx, caller, called)
		var broken time.Time
		t.Step(ctx, "replace the authority without waiting for anybody, and have the called one's SVID signed anew", func(ctx context.Context) (err error) {
			if r, err = called.prepare(ctx, called.x509()); err != nil {
				return err
			}
			if err := r.activate(ctx); err != nil {
				return err
			}
			broken = time.Now()
			// A taint would replace the endpoint's own SVID as well, and then no
			// refresh could mend anything: that is drift/stale-bootstrap-deadlock.
			if err := called.Reregister(ctx, func(spec *spire.WorkloadIdentitySpec) {
				spec.DNSNameTemplates = append(spec.DNSNameTemplates, "anew.{{ .TrustDomain }}")
			}); err != nil {
				return err
			}
			return t.Await(ctx, broken, registered(), calls.Ends(traffic.UnknownAuthority))
		})
		t.StepWith(ctx, "see that it stays so", "'fedlab drift' says that the peer is behind, by which authority, and when it will look again", func(ctx context.Context) error {
			if err := caller.InState(called, federation.Behind).Probe(ctx); err != nil {
				return err
			}
			// One poll at the old hint: what mends other labs does not mend this one.
			return t.Stays(ctx, federation.PollInterval(time.Minute, 0), "one poll of the shortest hint", calls.Ends(traffic.UnknownAuthority))
		})
		t.Step(ctx, "force a refresh", func(ctx context.Context) error {
			mended := time.Now()
			calls.RefusedBy("each call fails from soon after until the forced refresh", broken, registered(), mended, traffic.UnknownAuthority)
			t.Mark("%s is made to fetch", caller)
			if t.mutation != NeverRefresh {
				if err := caller.Refresh(ctx, called); err != nil {
					return err
				}
			}
			calls.AnsweredBy("and calls are answered again after it", mended, registered())
			return t.Await(ctx, mended, registered(), calls.Meets(r.next.ID))
		})
		return t.Err()
	},
}
