package scenarios

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// authorityReplaced replaces an X.509 authority as an operator does.
var authorityReplaced = trial.Scenario{
	Name:  "rotation/x509-authority",
	Claim: "Replacing an X.509 authority never breaks a call from a federated peer, and afterwards the peer no longer trusts the old authority.",
	Parts: []trial.Part{
		trial.Carried("Replacing an X.509 authority", "soon after the old authority is tainted, each call is answered under the new one"),
		trial.Carried("never breaks a call from a federated peer", "no call failed from the first step to the last"),
		trial.Carried("the peer no longer trusts the old authority", "and no longer once it is revoked"),
		trial.Carried("", "the peer trusts the tainted authority still"),
	},
	Labels: []string{CI},
	Needs:  []trial.Need{fetched, rotates},
	Sources: []string{
		"https://github.com/spiffe/spire/blob/v1.15.3/doc/spire_server.md (localauthority x509)",
		"SPIRE pkg/common/bundleutil/marshal.go: the served bundle does not say which authority is tainted",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var r *trial.Rotation
		calls := t.CallsThroughout(ctx, caller, called)
		t.StepWith(ctx, "publish the next authority before anything is signed with it",
			"'fedlab status' counts one more X.509 authority; for some seconds the peer's bundle is behind", func(ctx context.Context) (err error) {
				r, err = called.Publish(ctx, trial.X509)
				return err
			})
		t.Step(ctx, "activate it: from now on it signs", func(ctx context.Context) error { return r.Activate(ctx) })
		t.Step(ctx, "taint the old one, so that all it has signed is replaced", func(ctx context.Context) error {
			tainted := time.Now()
			if err := r.Taint(ctx); err != nil {
				return err
			}
			calls.MeetsBy("soon after the old authority is tainted, each call is answered under the new one", tainted, trial.Replaced(), r.Next.ID)
			return t.Await(ctx, tainted, trial.Replaced(), r.Replaced(), calls.Meets(r.Next.ID))
		})
		t.Step(ctx, "see that the peer still trusts the tainted one: a taint is local", func(ctx context.Context) error {
			return t.See(ctx, "the peer trusts the tainted authority still", caller.AuthorityOf(called, trial.X509, r.Old.ID), trial.There)
		})
		t.Step(ctx, "revoke the old one, and wait until the peer has dropped it", func(ctx context.Context) error {
			revoked := time.Now()
			if err := r.Revoke(ctx); err != nil {
				return err
			}
			if err := t.Await(ctx, revoked, caller.ToWorkloads(called), caller.Dropped(called, trial.X509, r.Old.ID)); err != nil {
				return err
			}
			return t.See(ctx, "and no longer once it is revoked", caller.AuthorityOf(called, trial.X509, r.Old.ID), trial.Absent)
		})
		t.Step(ctx, "see a few more calls come through", func(ctx context.Context) error {
			calls.AllAnswered("no call failed from the first step to the last")
			return t.Soon(ctx, calls.Meets(r.Next.ID))
		})
		return t.Err()
	},
}

// revokedTooEarly replaces one as somebody does who is in a hurry.
var revokedTooEarly = trial.Scenario{
	Name:  "rotation/revoked-too-early",
	Claim: "If an authority is revoked before agents learn that it is tainted, the SVIDs that it signed stay in use, and peers reject them once they have fetched; restarting the agents repairs it.",
	Parts: []trial.Part{
		trial.Carried("the SVIDs that it signed stay in use", "the SVIDs that it signed stay in use"),
		trial.Carried("peers reject them once they have fetched", "each call fails from soon after the revocation until then"),
		trial.Carried("restarting the agents repairs it", "and calls are answered again after it"),
		trial.Carried("", "what workloads present verifies", "up to then no call failed"),
	},
	Needs: []trial.Need{fetched, rotates},
	Sources: []string{
		"SPIRE pkg/agent/manager/sync.go, processTaintedAuthorities: a taint has SVIDs replaced, and what is revoked is tainted no longer",
		"https://github.com/spiffe/spire/blob/v1.15.3/doc/spire_server.md (localauthority x509 revoke)",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var r *trial.Rotation
		var revoked time.Time
		restart := func(ctx context.Context) error { return replaceRevoked(ctx, t, called) }
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "publish the next authority, wait until the peer has it, and activate it", func(ctx context.Context) (err error) {
			if r, err = called.Publish(ctx, trial.X509); err != nil {
				return err
			}
			if err := r.Activate(ctx); err != nil {
				return err
			}
			return t.See(ctx, "what workloads present verifies", signedBy(called), heldOne)
		})
		t.StepWith(ctx, "taint the old one, and revoke it in the same breath", "the demo's page stands still once it has to make another handshake, and 'fedlab status' says which workloads show an SVID that nothing verifies", func(ctx context.Context) error {
			t.Restore("replace what the authority has signed that is revoked", restart)
			calls.AnsweredBetween("up to then no call failed", time.Time{}, time.Now())
			revoked = time.Now()
			if err := errors.Join(r.Taint(ctx), r.Revoke(ctx)); err != nil {
				return err
			}
			return t.Await(ctx, revoked, caller.ToWorkloads(called), calls.Ends(traffic.UnknownAuthority))
		})
		t.Step(ctx, "see that the SVIDs stay, for as long as a taint takes to replace them", func(ctx context.Context) error {
			if err := t.Watch(ctx, "the SVIDs that it signed stay in use", trial.Tainted(), signedBy(called), revokedOne); err != nil {
				return err
			}
			return t.WaitFor(ctx, named(t, called))
		})
		t.Step(ctx, "start the agents again", func(ctx context.Context) error {
			from := trial.Refusal{Says: "each call fails from soon after the revocation until then", Since: revoked, Bound: caller.ToWorkloads(called), Ends: unknownAuthority}
			return calls.Cure(ctx, from, restart, trial.Registered(), calls.Meets(r.Next.ID))
		})
		return t.Err()
	},
}

// verifiable reports whether the probe presents an SVID of an authority that its
// own trust domain has still.
func verifiable(ctx context.Context, d trial.Domain) (bool, error) {
	holding, err := d.Probe().Holding(ctx)
	if err != nil {
		return false, err
	}
	if holding.Self == nil {
		return false, fmt.Errorf("workloads of %s have no SVID: %s", d, holding.Problem)
	}
	bundle, err := d.Bundle(ctx)
	// The authority is empty once the probe has that bundle, too.
	return err == nil && slices.Contains(federation.X509IDs(bundle), holding.Self.Authority), err
}

// What a look at signedBy sees.
const (
	heldOne    = "an authority in the bundle"
	revokedOne = "a revoked authority"
)

// signedBy is what has signed the SVID that the probe presents.
func signedBy(d trial.Domain) trial.Fact {
	return trial.Fact{Of: "what has signed the SVIDs of workloads of " + d.String(), Well: heldOne, Look: func(ctx context.Context) (string, error) {
		verifiable, err := verifiable(ctx, d)
		if verifiable {
			return heldOne, err
		}
		return revokedOne, err
	}}
}

// named checks that a look at the lab finds no workload of the trust domain well.
func named(t *trial.Trial, d trial.Domain) check.Check {
	return check.Check{Name: fmt.Sprintf("'fedlab status' says of each workload of %s what is wrong", d), Probe: func(ctx context.Context) error {
		status, err := t.Status(ctx)
		for _, w := range status.Workloads {
			if err == nil && w.Cluster == d.Cluster().Name && w.Well {
				err = fmt.Errorf("it says that %s is well", w.Name)
			}
		}
		return err
	}}
}

// replaceRevoked starts the agents again where workloads present SVIDs of an
// authority that was revoked: left alone, they keep them for half of the SVIDs'
// life.
func replaceRevoked(ctx context.Context, t *trial.Trial, d trial.Domain) error {
	if verifiable, err := verifiable(ctx, d); err != nil || verifiable {
		return err
	}
	if err := d.RestartAgents(ctx); err != nil {
		return err
	}
	return t.WaitFor(ctx, check.Check{Name: fmt.Sprintf("workloads of %s present SVIDs of an authority that is in the bundle", d), Probe: func(ctx context.Context) error {
		verifiable, err := verifiable(ctx, d)
		if err == nil && !verifiable {
			err = errors.New("theirs are of one that is revoked")
		}
		return err
	}})
}

// jwtAuthorityReplaced replaces a JWT authority.
var jwtAuthorityReplaced = trial.Scenario{
	Name:  "rotation/jwt-authority",
	Claim: "A JWT-SVID stays valid at a federated peer until its authority is revoked and the peer has fetched again; a JWT-SVID of the new authority is valid as soon as it is signed.",
	Parts: []trial.Part{
		trial.Carried("A JWT-SVID stays valid at a federated peer", "a token is valid at the peer", "it stays valid while another authority signs"),
		trial.Carried("until its authority is revoked and the peer has fetched again", "the old one's is refused once the peer has fetched again"),
		trial.Carried("a JWT-SVID of the new authority is valid as soon as it is signed", "one of the new authority is valid as soon as it is signed", "and the new one's is valid still"),
		trial.Carried("", "no call failed: X.509 has no part in it"),
	},
	Needs:   []trial.Need{fetched, rotates},
	Sources: []string{"https://github.com/spiffe/spire/blob/v1.15.3/doc/spire_server.md (localauthority jwt)"},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var r *trial.Rotation
		var before, after *token
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "mint a token, and have the peer validate it", func(ctx context.Context) (err error) {
			if before, err = mintNow(ctx, called); err != nil {
				return err
			}
			if err := t.Soon(ctx, validity(before, caller).Is(valid)); err != nil {
				return err
			}
			return t.See(ctx, "a token is valid at the peer", validity(before, caller), valid)
		})
		t.Step(ctx, "publish the next JWT authority, and wait until the peer has it", func(ctx context.Context) (err error) {
			r, err = called.Publish(ctx, trial.JWT)
			return err
		})
		t.Step(ctx, "activate it, and mint another token", func(ctx context.Context) (err error) {
			if err := r.Activate(ctx); err != nil {
				return err
			}
			if after, err = mint(ctx, called, r.Next.ID); err != nil {
				return err
			}
			if err := t.See(ctx, "it stays valid while another authority signs", validity(before, caller), valid); err != nil {
				return err
			}
			return t.See(ctx, "one of the new authority is valid as soon as it is signed", validity(after, caller), valid)
		})
		t.Step(ctx, "taint and revoke the old one, and wait until the peer refuses its token", func(ctx context.Context) error {
			revoked := time.Now()
			if err := errors.Join(r.Taint(ctx), r.Revoke(ctx)); err != nil {
				return err
			}
			if err := t.Await(ctx, revoked, caller.ToWorkloads(called), validity(before, caller).Is("refused")); err != nil {
				return err
			}
			return t.See(ctx, "the old one's is refused once the peer has fetched again", validity(before, caller), "refused")
		})
		t.Step(ctx, "see that the new one's token is valid still, and that calls never noticed", func(ctx context.Context) error {
			calls.AllAnswered("no call failed: X.509 has no part in it")
			return t.See(ctx, "and the new one's is valid still", validity(after, caller), valid)
		})
		return t.Err()
	},
}

// naturalLife is the life of an X.509 authority in which a class sees three of
// them: the next one is prepared at half of it and activated when a sixth
// remains, so that a peer has a third of it to fetch.
const naturalLife = 3 * time.Minute

// threeGenerations lets authorities come and go by themselves.
var threeGenerations = trial.Scenario{
	Name:  "rotation/natural",
	Claim: "Through three generations of short-lived authorities that SPIRE rotates by itself, no call from a federated peer fails.",
	Parts: []trial.Part{
		trial.Carried("three generations of short-lived authorities that SPIRE rotates by itself", "SPIRE signs with another authority by itself"),
		trial.Carried("no call from a federated peer fails", "no call failed through three generations"),
	},
	Labels: []string{Slow},
	Needs:  dynamic(),
	Sources: []string{
		"SPIRE pkg/server/ca/manager/manager.go: prepare at half of the life, activate when a sixth remains",
		"https://github.com/spiffe/helm-charts-hardened/pull/343 (the life of a CA must be several refresh hints)",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		t.Step(ctx, "give authorities a life of "+naturalLife.String(), func(ctx context.Context) error {
			// Done after the settings are back: the server keeps the authority that it has.
			t.Restore("replace the short-lived authorities of "+called.String(), called.Renew)
			return t.Do(ctx, trial.ToChange, func(ctx context.Context) error {
				return t.Reconfigure(ctx, called, func(td *topology.Settings) {
					td.CATTL, td.X509SVIDTTL = naturalLife, naturalLife/6
				})
			})
		})
		t.Step(ctx, "replace the long-lived authority by hand, this once", func(ctx context.Context) error {
			r, err := called.Replace(ctx)
			if err != nil {
				return err
			}
			return r.Revoke(ctx)
		})
		calls := t.CallsThroughout(ctx, caller, called)
		for generation := 1; generation <= 3; generation++ {
			t.StepWith(ctx, fmt.Sprintf("wait for generation %d to sign", generation), "'fedlab status' shows authorities come", func(ctx context.Context) error {
				now, err := called.Active(ctx, trial.X509)
				if err != nil {
					return err
				}
				bound := trial.Bound{Within: federation.ActivatedBy(naturalLife), Formula: "five sixths of the authority's life + the rotator's tick"}
				if err := t.Await(ctx, time.Now(), bound, signer(called, now.ID).Is(anotherOne)); err != nil {
					return err
				}
				t.Mark("%s signs with the next generation", called)
				return t.See(ctx, "SPIRE signs with another authority by itself", signer(called, now.ID), anotherOne)
			})
		}
		t.StillAnswered(ctx, calls, "see calls come through still", "no call failed through three generations")
		return t.Err()
	},
}

// What a look at signer sees.
const (
	sameOne    = "the same"
	anotherOne = "another"
)

// signer is whether the X.509 authority that signs is the one of an ID.
func signer(d trial.Domain, than string) trial.Fact {
	return trial.Fact{Of: fmt.Sprintf("what signs in %s, compared with %s", d, trial.Brief(than)), Look: func(ctx context.Context) (string, error) {
		now, err := d.Active(ctx, trial.X509)
		if now.ID == than {
			return sameOne, err
		}
		return anotherOne, err
	}}
}

// longHint is a refresh hint with which a peer comes back too late for a class
// to wait for: every two and a half minutes.
const longHint = 10 * time.Minute

// signedBeforePoll replaces an authority before its peer has looked again.
var signedBeforePoll = trial.Scenario{
	Name:  "rotation/faster-than-refresh",
	Claim: "If an authority signs before the peer's next poll, every call from that peer fails until the poll; a forced refresh repairs it, as long as the endpoint still presents an SVID of the old authority.",
	Parts: []trial.Part{
		trial.Carried("an authority signs before the peer's next poll", "the peer is behind"),
		trial.Carried("every call from that peer fails until the poll", "each call fails from soon after until the forced refresh"),
		trial.Carried("a forced refresh repairs it", "and calls are answered again after it"),
	},
	Needs: dynamic(),
	Sources: []string{
		"SPIFFE Federation, section 5.1.1: keys are to be published three to five refresh hints before they are used",
		"https://github.com/spiffe/helm-charts-hardened/issues/335", "https://github.com/spiffe/spire/issues/2256",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var r *trial.Rotation
		t.Step(ctx, "give the bundle a refresh hint of "+longHint.String(), func(ctx context.Context) error {
			for _, trust := range called.TrustedBy {
				t.Domain(trust.Truster).PollsLate()
			}
			err := t.Reconfigure(ctx, called, func(td *topology.Settings) { td.BundleEndpoint.RefreshHint = longHint })
			if err != nil {
				return err
			}
			return t.Await(ctx, time.Now(), caller.ToServer(called), heldHint(caller, called, longHint))
		})
		calls := t.CallsThroughout(ctx, caller, called)
		var broken time.Time
		t.Step(ctx, "replace the authority without waiting for anybody, and have a new SVID of the called one signed", func(ctx context.Context) (err error) {
			if r, err = called.Prepare(ctx, trial.X509); err != nil {
				return err
			}
			if err := r.Activate(ctx); err != nil {
				return err
			}
			broken = time.Now()
			// A taint would replace the endpoint's own SVID as well, and then no
			// refresh could repair anything: that is drift/stale-bootstrap-deadlock.
			if err := called.EditRegistration(ctx, func(spec *spire.WorkloadIdentitySpec) {
				spec.DNSNameTemplates = append(spec.DNSNameTemplates, "again.{{ .TrustDomain }}")
			}); err != nil {
				return err
			}
			return t.Await(ctx, broken, trial.Registered(), calls.Ends(traffic.UnknownAuthority))
		})
		t.StepWith(ctx, "see that it stays so", "'fedlab drift' says that the peer is behind, by which authority, and when it will look again", func(ctx context.Context) error {
			if err := t.See(ctx, "the peer is behind", caller.Held(called), string(federation.Behind)); err != nil {
				return err
			}
			// One poll at the old hint: what repairs other labs does not repair this one.
			return t.Stays(ctx, trial.Bound{Within: federation.PollInterval(time.Minute, 0), Formula: "one poll of the shortest hint"}, calls.Ends(traffic.UnknownAuthority))
		})
		t.Step(ctx, "force a refresh", func(ctx context.Context) error {
			t.Mark("%s is made to fetch", caller)
			from := trial.Refusal{Says: "each call fails from soon after until the forced refresh", Since: broken, Bound: trial.Registered(), Ends: unknownAuthority}
			return calls.Cure(ctx, from, func(ctx context.Context) error { return caller.Refresh(ctx, called) }, trial.Registered(), calls.Meets(r.Next.ID))
		})
		return t.Err()
	},
}

// heldHint checks which refresh hint the held bundle of another has.
func heldHint(d, of trial.Domain, want time.Duration) check.Check {
	return check.Check{Name: fmt.Sprintf("%s knows that %s wants it to come back within %s", d, of, want), Probe: func(ctx context.Context) error {
		held, err := d.Server().HeldBundle(ctx, of.Name)
		if err != nil || held == nil {
			return errors.Join(errors.New("it holds no bundle"), err)
		}
		if hint, _ := held.RefreshHint(); hint != want {
			return fmt.Errorf("the hint that it holds is %s", hint)
		}
		return nil
	}}
}
