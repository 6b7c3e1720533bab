package scenarios

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/synthetic"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

func auths() []Scenario {
	return []Scenario{
		notFederated, entryWithoutFederatesWith, selectorTooNarrow, wrongEndpointID, impersonation, noIdentity, expiredSVID, resumedSession,
	}
}

var notFederated = Scenario{
	Name:    "auth/not-federated",
	Claim:   "A workload of a trust domain is let in for exactly as long as its bundle is held and the server's entry federates with it.",
	Sources: []string{"SPIFFE Federation, section 3: relationships are one way"},
	Run: func(ctx context.Context, t *Trial) error {
		_, caller := t.Pair()
		var s *Synthetic
		var stranger *Traffic
		var federated, removed time.Time
		t.Step(ctx, "let a workload of a trust domain call with which nobody federates", func(ctx context.Context) (err error) {
			if s, err = t.Synthetic(ctx); err != nil {
				return err
			}
			if stranger, err = s.Calls(ctx, s.ID(), caller); err != nil {
				return err
			}
			return t.Await(ctx, time.Now(), immediate(), stranger.Ends(traffic.RefusedByServer))
		})
		t.Step(ctx, "hold its bundle, and let the called one federate with it", func(ctx context.Context) error {
			federated = time.Now()
			stranger.NoneAnswered("it is refused until then", time.Time{}, federated)
			if err := caller.trustSynthetic(ctx, s); err != nil {
				return err
			}
			return t.Await(ctx, federated, reconciled(), stranger.Ends(traffic.Answered))
		})
		t.Step(ctx, "take the federation away again", func(ctx context.Context) error {
			removed = time.Now()
			if err := errors.Join(caller.Registered(ctx), caller.forget(ctx, s.Domain)); err != nil {
				return err
			}
			return t.Await(ctx, removed, registered(), stranger.Ends(traffic.RefusedByServer))
		})
		t.Step(ctx, "see that it stays out", func(ctx context.Context) error {
			if err := t.Stays(ctx, 5*callEvery, "five calls", stranger.Ends(traffic.RefusedByServer)); err != nil {
				return err
			}
			stranger.RefusedBy("and it is refused again afterwards", removed, registered(), time.Now(), traffic.RefusedByServer)
			return nil
		})
		return t.Err()
	},
}

var entryWithoutFederatesWith = Scenario{
	Name:    "auth/entry-without-federatesWith",
	Claim:   "A workload whose entry does not say federatesWith cannot verify anybody of another trust domain, though its server holds the bundle in sync.",
	Sources: []string{"https://github.com/spiffe/spire/blob/v1.15.3/doc/spire_server.md (entry create -federatesWith)"},
	Run: func(ctx context.Context, t *Trial) error {
		called, caller := t.Pair()
		var broken time.Time
		calls := t.CallsThroughout(ctx, caller, called)
		t.StepWith(ctx, "take federatesWith out of the caller's registration", "'fedlab status' says \"entry without federatesWith\"", func(ctx context.Context) error {
			broken = time.Now()
			if err := caller.Reregister(ctx, func(spec *spire.WorkloadIdentitySpec) { spec.FederatesWith = nil }); err != nil {
				return err
			}
			return t.Await(ctx, broken, registered(), calls.Ends(traffic.NotFederated))
		})
		t.Step(ctx, "see that the server holds the bundle all the same", func(ctx context.Context) error {
			return caller.InState(called, federation.InSync).Probe(ctx)
		})
		t.Step(ctx, "put it back", func(ctx context.Context) error {
			mended := time.Now()
			calls.RefusedBy("each call fails from soon after until it is put back", broken, registered(), mended, traffic.NotFederated)
			if err := caller.Registered(ctx); err != nil {
				return err
			}
			calls.AnsweredBy("and calls are answered again after it", mended, registered())
			return t.Await(ctx, mended, registered(), calls.Ends(traffic.Answered))
		})
		return t.Err()
	},
}

// tooNarrow is a selector that no newcomer has.
const tooNarrow = "k8s:pod-label:version:v2"

// hasEntry returns nil where the server has an entry with a selector.
func (d Domain) hasEntry(ctx context.Context, selector string) error {
	entries, err := d.Server().Entries(ctx)
	if err == nil && !slices.ContainsFunc(entries, func(e spire.Entry) bool { return slices.Contains(e.Selectors, selector) }) {
		err = fmt.Errorf("the server of %s has no entry with selector %s", d, selector)
	}
	return err
}

var selectorTooNarrow = Scenario{
	Name:    "auth/selector-too-narrow",
	Claim:   "An entry with one selector that a workload does not have gives it no identity, and nothing else than that tells of it.",
	Sources: []string{"https://github.com/spiffe/spire/blob/v1.15.3/doc/plugin_agent_workloadattestor_k8s.md"},
	Run: func(ctx context.Context, t *Trial) error {
		called, caller := t.Pair()
		var guest Newcomer
		var guests *Traffic
		partner := []spiffeid.TrustDomain{called.Name}
		t.Step(ctx, "let a newcomer come whose entry fits, and see it get its identity", func(ctx context.Context) (err error) {
			if guest, err = caller.Newcomer(ctx); err != nil {
				return err
			}
			if err := guest.Register(ctx, partner); err != nil {
				return err
			}
			if err := t.Await(ctx, time.Now(), reconciled(), guest.HasIdentity()); err != nil {
				return err
			}
			return errors.Join(guest.Unregister(ctx), guest.remove(ctx))
		})
		t.Step(ctx, "let another one come whose entry wants one label more than it has", func(ctx context.Context) (err error) {
			if guest, err = caller.Newcomer(ctx); err != nil {
				return err
			}
			if err := guest.Register(ctx, partner, tooNarrow); err != nil {
				return err
			}
			if err := t.until(ctx, guest.Runs()); err != nil {
				return err
			}
			if guests, err = t.Attempt(ctx, "the newcomer of "+caller.String(), guest.Probe(), called, Call{}); err != nil {
				return err
			}
			if err := t.Stays(ctx, reconciled().Within, reconcileFormula, guest.HasNone()); err != nil {
				return err
			}
			if err := caller.hasEntry(ctx, tooNarrow); err != nil {
				return err
			}
			failures, err := guest.EntryFailures(ctx)
			if err == nil && failures != 0 {
				err = fmt.Errorf("the registration's status tells of %d failed entries: want none, the entry is there", failures)
			}
			return err
		})
		t.Step(ctx, "write the entry without that label", func(ctx context.Context) error {
			mended := time.Now()
			guests.NoneAnswered("until then it can call nobody", time.Time{}, mended)
			if err := guest.Register(ctx, partner); err != nil {
				return err
			}
			if err := t.Await(ctx, mended, registered(), guest.HasIdentity()); err != nil {
				return err
			}
			if err := t.Await(ctx, mended, registered(), guests.Ends(traffic.Answered)); err != nil {
				return err
			}
			return guests.End(ctx)
		})
		return t.Err()
	},
}

var wrongEndpointID = Scenario{
	Name:  "auth/wrong-endpoint-id",
	Claim: "A relationship that expects another SPIFFE ID than the endpoint has fetches nothing: no call fails at first, and the peer falls behind with the next rotation.",
	Sources: []string{
		"SPIFFE Federation, section 5.2.2: the client must verify the SPIFFE ID of the endpoint",
	},
	Run: func(ctx context.Context, t *Trial) error {
		called, caller := t.Pair()
		var r *rotation
		calls := t.CallsThroughout(ctx, caller, called)
		t.StepWith(ctx, "expect another SPIFFE ID of the endpoint", "'fedlab status' says \"wrong endpointSPIFFEID\"", func(ctx context.Context) error {
			wrong := spiffeid.RequireFromPath(called.Name, "/somebody/else").String()
			if err := caller.Rerelate(ctx, called, func(spec *spire.FederatedTrustDomainSpec) {
				spec.BundleEndpointProfile.EndpointSPIFFEID = wrong
			}); err != nil {
				return err
			}
			return t.Await(ctx, time.Now(), Bound{Within: federation.ReconcileBound(), Formula: "the controller manager's interval"}, caller.expects(called, wrong))
		})
		t.Step(ctx, "publish another authority: it does not arrive", func(ctx context.Context) (err error) {
			// What the change of the relationship set going is over by then.
			if r, err = called.prepare(ctx, called.x509()); err != nil {
				return err
			}
			if err := t.Await(ctx, time.Now(), immediate(), caller.lacks(called, r.next.ID)); err != nil {
				return err
			}
			poll := caller.ToServer(called)
			lacks := caller.lacks(called, r.next.ID)
			if err := t.Stays(ctx, federation.RelationshipBound()+poll.Within, "the server's look at its relationships + "+poll.Formula, lacks); err != nil {
				return err
			}
			return errors.Join(caller.cannotFetch(ctx, called), lacks.Probe(ctx))
		})
		t.Step(ctx, "expect the right one again, and see it arrive", func(ctx context.Context) error {
			mended := time.Now()
			// The bundle in the resource is that of before: what arrives was fetched.
			spec, err := caller.Related(ctx, called)
			if err != nil {
				return err
			}
			spec.BundleEndpointProfile.EndpointSPIFFEID = spire.ServerID(called.Name).String()
			if err := caller.Relate(ctx, called, spec); err != nil {
				return err
			}
			b := caller.ToWorkloads(called)
			b.Within += federation.RelationshipBound()
			b.Formula, b.Propagation = "the server's look at its relationships + "+b.Formula, false
			return t.Await(ctx, mended, b, caller.Has(called, r.next.ID))
		})
		t.Step(ctx, "see that nobody who called noticed", func(ctx context.Context) error {
			calls.AllAnswered("no call failed")
			return t.Await(ctx, time.Now(), immediate(), calls.Ends(traffic.Answered))
		})
		return t.Err()
	},
}

var impersonation = Scenario{
	Name:   "auth/impersonation-across-domains",
	Claim:  "A trust domain that is trusted cannot speak for another one that is trusted as well: an SVID is verified with the bundle of the domain that it names, and with no other.",
	Labels: []string{CI},
	Sources: []string{
		"SPIFFE X509-SVID, section 5: the bundle is that of the trust domain of the SPIFFE ID",
	},
	Run: func(ctx context.Context, t *Trial) error {
		called, caller := t.Pair()
		var s *Synthetic
		var honest, lie *Traffic
		calls := t.CallsThroughout(ctx, called, caller)
		t.Step(ctx, "federate with a third trust domain, and see it let in under its own name", func(ctx context.Context) (err error) {
			if s, err = t.Synthetic(ctx); err != nil {
				return err
			}
			if err := caller.trustSynthetic(ctx, s); err != nil {
				return err
			}
			if honest, err = s.Calls(ctx, s.ID(), caller); err != nil {
				return err
			}
			if err := t.Await(ctx, time.Now(), reconciled(), honest.Ends(traffic.Answered)); err != nil {
				return err
			}
			return honest.End(ctx)
		})
		t.Step(ctx, "let it call under the name of "+called.ID().String(), func(ctx context.Context) (err error) {
			if lie, err = s.Calls(ctx, called.ID(), caller); err != nil {
				return err
			}
			if err := t.Await(ctx, time.Now(), immediate(), lie.Ends(traffic.RefusedByServer)); err != nil {
				return err
			}
			return t.Stays(ctx, 10*callEvery, "ten calls", lie.Ends(traffic.RefusedByServer))
		})
		t.Step(ctx, "see it let in under its own name still", func(ctx context.Context) error {
			lie.NoneAnswered("none of its calls under another's name is answered", time.Time{}, time.Now())
			calls.AllAnswered("those whose name that is are answered all the while")
			if err := lie.End(ctx); err != nil {
				return err
			}
			again, err := s.Calls(ctx, s.ID(), caller)
			if err != nil {
				return err
			}
			return t.Await(ctx, time.Now(), immediate(), again.Ends(traffic.Answered))
		})
		return t.Err()
	},
}

var noIdentity = Scenario{
	Name:    "auth/no-identity",
	Claim:   "A workload that no entry names has no identity and can call nobody; as soon as one does, it can, without being started again.",
	Sources: []string{"SPIFFE Workload API, section 5.1: PermissionDenied where there is no identity"},
	Run: func(ctx context.Context, t *Trial) error {
		called, caller := t.Pair()
		var guest Newcomer
		var guests *Traffic
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "let a newcomer call that nobody has registered", func(ctx context.Context) (err error) {
			calls.AllAnswered("those who are registered are answered throughout")
			if guest, err = caller.Newcomer(ctx); err != nil {
				return err
			}
			if err := t.until(ctx, guest.Runs()); err != nil {
				return err
			}
			if guests, err = t.Attempt(ctx, "the newcomer of "+caller.String(), guest.Probe(), called, Call{}); err != nil {
				return err
			}
			if err := t.Await(ctx, time.Now(), immediate(), guests.Ends(traffic.NoIdentity)); err != nil {
				return err
			}
			b := registered()
			return t.Stays(ctx, b.Within, b.Formula, guests.Ends(traffic.NoIdentity))
		})
		t.Step(ctx, "register it", func(ctx context.Context) error {
			mended := time.Now()
			guests.NoneAnswered("none of its calls is answered until then", time.Time{}, mended)
			if err := guest.Register(ctx, []spiffeid.TrustDomain{called.Name}); err != nil {
				return err
			}
			guests.AnsweredBy("and they are after it", mended, registered())
			if err := t.Await(ctx, mended, registered(), guests.Ends(traffic.Answered)); err != nil {
				return err
			}
			return guests.End(ctx)
		})
		return t.Err()
	},
}

// shortLife is how long the SVID lives that is to expire: long enough for calls to
// begin with it, on a machine that does other things as well.
const shortLife = 20 * time.Second

var expiredSVID = Scenario{
	Name:  "auth/expired-svid",
	Claim: "No new connection comes about with an SVID that has expired; on one that was made before, a server that looks at it in the handshake alone, as TLS does, goes on to answer, and one that looks at each call, as ours do, refuses.",
	Sources: []string{
		"SPIFFE X509-SVID, section 5.2: the leaf is validated by RFC 5280, section 6.1, of which the time is an input",
		"go-spiffe spiffetls/tlsconfig: verification is in VerifyPeerCertificate, which TLS calls in a handshake",
	},
	Run: func(ctx context.Context, t *Trial) error {
		_, caller := t.Pair()
		var s *Synthetic
		var anew, careful, careless *Traffic
		var expires time.Time
		t.Step(ctx, "federate with a third trust domain, and see it let in", func(ctx context.Context) (err error) {
			if s, err = t.Synthetic(ctx); err != nil {
				return err
			}
			if err := caller.trustSynthetic(ctx, s); err != nil {
				return err
			}
			honest, err := s.Calls(ctx, s.ID(), caller)
			if err != nil {
				return err
			}
			if err := t.Await(ctx, time.Now(), reconciled(), honest.Ends(traffic.Answered)); err != nil {
				return err
			}
			return honest.End(ctx)
		})
		t.Step(ctx, fmt.Sprintf("give it an SVID that expires in %s, and call with a handshake each time and by connections that are kept", shortLife), func(ctx context.Context) error {
			expires = time.Now().Add(shortLife).Truncate(time.Second) // a certificate has no finer time
			if err := s.Client.Present(ctx, synthetic.X509Request{ID: s.ID(), NotAfter: expires}); err != nil {
				return err
			}
			for _, one := range []struct {
				calls **Traffic
				call  Call
			}{
				// Who may resume sessions presents what it has, expired or not. It is given
				// none to resume.
				{&anew, Call{Connection: traffic.Resumed, Name: "a handshake each time"}},
				{&careful, Call{Connection: traffic.Kept, Name: "kept, careful"}},
				{&careless, Call{Connection: traffic.Kept, Careless: true, Name: "kept, careless"}},
			} {
				calls, err := t.Attempt(ctx, s.Domain.Name(), s.Client, caller, one.call)
				if err != nil {
					return err
				}
				if err := t.Await(ctx, time.Now(), immediate(), calls.Ends(traffic.Answered)); err != nil {
					return err
				}
				*one.calls = calls
			}
			t.Mark("the SVID expires at %s", expires.UTC().Format(time.TimeOnly))
			return nil
		})
		t.Step(ctx, "wait until it has expired, and see who answers", func(ctx context.Context) error {
			if err := t.Await(ctx, expires, immediate(), anew.Ends(traffic.RefusedByServer)); err != nil {
				return err
			}
			if err := t.Await(ctx, expires, immediate(), careful.Ends(traffic.NotPermitted)); err != nil {
				return err
			}
			return t.Stays(ctx, 10*callEvery, "ten calls", careless.Ends(traffic.Answered))
		})
		t.Step(ctx, "give it a new one", func(ctx context.Context) error {
			renewed := time.Now()
			anew.RefusedBy("no handshake succeeds with an SVID that has expired", expires, immediate(), renewed, traffic.RefusedByServer)
			anew.AnsweredBy("and each does with a new one", renewed, immediate())
			careful.RefusedBy("a server that looks at each call refuses it by the old connection too", expires, immediate(), time.Time{}, traffic.NotPermitted)
			careless.AllAnswered("one that looks in the handshake alone never stops to answer")
			if err := s.Client.Present(ctx, synthetic.X509Request{ID: s.ID()}); err != nil {
				return err
			}
			return t.Await(ctx, renewed, immediate(), anew.Ends(traffic.Answered))
		})
		return t.Err()
	},
}

var resumedSession = Scenario{
	Name:   "auth/resumed-session-after-removal",
	Claim:  "A server that resumes TLS sessions lets a peer in that was removed meanwhile; one that hands out no sessions, as ours do, refuses it.",
	Labels: []string{CI},
	Sources: []string{
		"go-spiffe spiffetls/tlsconfig: verification is in VerifyPeerCertificate, which a resumed handshake does not call",
		"docs/decisions/0018-no-session-resumption.md",
	},
	Run: func(ctx context.Context, t *Trial) error {
		called, caller := t.Pair()
		var careful, careless, anew *Traffic
		var removed time.Time
		t.Step(ctx, "call a server that resumes sessions, and one that does not", func(ctx context.Context) (err error) {
			if careful, err = t.Traffic(ctx, caller, called, Call{Connection: traffic.Resumed, Name: "careful"}); err != nil {
				return err
			}
			if careless, err = t.Traffic(ctx, caller, called, Call{Connection: traffic.Resumed, Careless: true, Name: "careless"}); err != nil {
				return err
			}
			// It is careless with those alone whom it has met.
			anew, err = t.Traffic(ctx, caller, called, Call{Careless: true, Name: "careless, a handshake each time"})
			return err
		})
		t.Step(ctx, "remove the caller's trust domain from what the called one trusts", func(ctx context.Context) error {
			if err := called.Unrelate(ctx, caller); err != nil {
				return err
			}
			if err := t.Await(ctx, time.Now(), Bound{Within: federation.ReconcileBound(), Formula: "the controller manager's interval"}, called.unrelated(caller.Name)); err != nil {
				return err
			}
			removed = time.Now()
			t.Mark("%s removed", caller)
			if err := called.Server().DeleteBundle(ctx, caller.Name, spire.DeleteDissociate); err != nil {
				return err
			}
			return t.Await(ctx, removed, registered(), careful.Ends(traffic.RefusedByServer))
		})
		t.Step(ctx, "see who is let in", func(ctx context.Context) error {
			for _, c := range []struct {
				s    *Traffic
				ends traffic.Outcome
			}{{careful, traffic.RefusedByServer}, {anew, traffic.RefusedByServer}, {careless, traffic.Answered}} {
				if err := t.Stays(ctx, 5*callEvery, "five calls", c.s.Ends(c.ends)); err != nil {
					return err
				}
			}
			careful.RefusedBy("ours refuses each call soon after the removal", removed, registered(), time.Now(), traffic.RefusedByServer)
			anew.RefusedBy("so does the careless one, where a handshake is made", removed, registered(), time.Now(), traffic.RefusedByServer)
			careless.AnsweredBetween("the careless one goes on answering who was removed", removed, time.Now())
			careless.Resumes("because sessions are resumed", traffic.ResumedSome, removed, time.Now())
			careful.Resumes("while ours never resumes one", traffic.ResumedNone, time.Time{}, time.Now())
			return errors.Join(careful.End(ctx), anew.End(ctx), careless.End(ctx))
		})
		return t.Err()
	},
}
