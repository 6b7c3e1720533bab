package scenarios

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/synthetic"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

var strangerCalls = trial.Scenario{
	Name:  "auth/not-federated",
	Claim: "A workload from another trust domain gets in only while the called side holds its bundle and the entry of the called workload federates with it.",
	Parts: []trial.Part{
		trial.Carried("only while the called side holds its bundle", "it is refused where its bundle is not held"),
		trial.Carried("the entry of the called workload federates with it", "it is refused where the entry of the called workload does not federate with it"),
		trial.Carried("A workload from another trust domain gets in", "and calls are answered again after it"),
	},
	Sources: []string{"SPIFFE Federation, section 3: relationships are one way"},
	Run: func(ctx context.Context, t *trial.Trial) error {
		_, caller := t.Pair()
		var s *trial.Synthetic
		var stranger *trial.Traffic
		t.Step(ctx, "federate with a third trust domain, and see a workload from there let in", func(ctx context.Context) (err error) {
			s, err = letIn(ctx, t)
			return err
		})
		for _, lacks := range []struct {
			what string
			take func(context.Context) error
		}{
			{"the entry of the called workload does not federate with it", caller.RestoreRegistration},
			{"its bundle is not held", func(ctx context.Context) error { return caller.Forget(ctx, s.Domain) }},
		} {
			var removed time.Time
			t.Step(ctx, "see it refused where "+lacks.what, func(ctx context.Context) (err error) {
				if stranger, err = s.Calls(ctx, s.ID(), caller); err != nil {
					return err
				}
				if err := t.Soon(ctx, stranger.Ends(traffic.Answered)); err != nil {
					return err
				}
				removed = time.Now()
				if err := t.Do(ctx, trial.ToChange, lacks.take); err != nil {
					return err
				}
				if err := t.Await(ctx, removed, trial.Registered(), stranger.Ends(traffic.RefusedByServer)); err != nil {
					return err
				}
				return t.Stays(ctx, trial.Calls(5), stranger.Ends(traffic.RefusedByServer))
			})
			t.Step(ctx, "federate with it again", func(ctx context.Context) error {
				from := trial.Refusal{Says: "it is refused where " + lacks.what, Since: removed, Bound: trial.Registered(), Ends: []traffic.Outcome{traffic.RefusedByServer}}
				err := stranger.Cure(ctx, from, func(ctx context.Context) error { return caller.Federate(ctx, s) }, trial.Reconciled(), stranger.Ends(traffic.Answered))
				return errors.Join(err, stranger.End(ctx))
			})
		}
		return t.Err()
	},
}

var entryWithoutFederatesWith = trial.Scenario{
	Name:  "auth/entry-without-federatesWith",
	Claim: "A workload whose entry lacks federatesWith cannot verify a peer from another trust domain, even if its SPIRE server holds the bundle in sync.",
	Parts: []trial.Part{
		trial.Carried("cannot verify a peer from another trust domain", "each call fails from soon after until it is put back"),
		trial.Carried("even if its SPIRE server holds the bundle in sync", "the server holds the bundle in sync all the same"),
		trial.Carried("", "and calls are answered again after it"),
	},
	Sources: []string{"https://github.com/spiffe/spire/blob/v1.15.3/doc/spire_server.md (entry create -federatesWith)"},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var broken time.Time
		calls := t.CallsThroughout(ctx, caller, called)
		t.StepWith(ctx, "take federatesWith out of the caller's registration", "'fedlab status' says \"entry without federatesWith\"", func(ctx context.Context) error {
			broken = time.Now()
			if err := t.Do(ctx, trial.ToChange, func(ctx context.Context) error {
				return caller.EditRegistration(ctx, func(spec *spire.WorkloadIdentitySpec) { spec.FederatesWith = nil })
			}); err != nil {
				return err
			}
			return t.Await(ctx, broken, trial.Registered(), calls.Ends(traffic.NotFederated))
		})
		t.Step(ctx, "see that the server holds the bundle all the same", func(ctx context.Context) error {
			return t.Watch(ctx, "the server holds the bundle in sync all the same", trial.Calls(5), caller.Held(called), string(federation.InSync))
		})
		t.Step(ctx, "put it back", func(ctx context.Context) error {
			from := trial.Refusal{Says: "each call fails from soon after until it is put back", Since: broken, Bound: trial.Registered(), Ends: []traffic.Outcome{traffic.NotFederated}}
			return calls.Cure(ctx, from, caller.RestoreRegistration, trial.Registered(), calls.Ends(traffic.Answered))
		})
		return t.Err()
	},
}

// letIn has the caller federate with a third trust domain, and waits until calls
// from there were answered: the control of what it calls otherwise.
func letIn(ctx context.Context, t *trial.Trial) (*trial.Synthetic, error) {
	_, caller := t.Pair()
	s, err := t.Synthetic(ctx)
	if err != nil {
		return nil, err
	}
	if err := caller.Federate(ctx, s); err != nil {
		return nil, err
	}
	honest, err := s.Calls(ctx, s.ID(), caller)
	if err != nil {
		return nil, err
	}
	if err := t.Await(ctx, time.Now(), trial.Reconciled(), honest.Ends(traffic.Answered)); err != nil {
		return nil, err
	}
	return s, honest.End(ctx)
}

var impersonation = trial.Scenario{
	Name:  "auth/impersonation-across-domains",
	Claim: "A trusted trust domain cannot pose as another trusted one: an SVID is verified only with the bundle of the trust domain that it names.",
	Parts: []trial.Part{
		trial.Carried("A trusted trust domain cannot pose as another trusted one", "none of its calls under another's name is answered"),
		trial.Carried("", "those whose name that is are answered all the while"),
	},
	Labels: []string{CI},
	Sources: []string{
		"SPIFFE X509-SVID, section 5: the bundle is that of the trust domain of the SPIFFE ID",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var s *trial.Synthetic
		var lie *trial.Traffic
		calls := t.CallsThroughout(ctx, called, caller)
		t.Step(ctx, "federate with a third trust domain, and see it let in under its own name", func(ctx context.Context) (err error) {
			s, err = letIn(ctx, t)
			return err
		})
		t.Step(ctx, "let it call under the name of "+called.ID().String(), func(ctx context.Context) (err error) {
			if lie, err = s.Calls(ctx, called.ID(), caller); err != nil {
				return err
			}
			lie.NoneAnswered("none of its calls under another's name is answered", time.Time{}, time.Time{})
			if err := t.Soon(ctx, lie.Ends(traffic.RefusedByServer)); err != nil {
				return err
			}
			return t.Stays(ctx, trial.Calls(10), lie.Ends(traffic.RefusedByServer))
		})
		t.Step(ctx, "see it let in under its own name still", func(ctx context.Context) error {
			calls.AllAnswered("those whose name that is are answered all the while")
			if err := lie.End(ctx); err != nil {
				return err
			}
			again, err := s.Calls(ctx, s.ID(), caller)
			if err != nil {
				return err
			}
			return t.Soon(ctx, again.Ends(traffic.Answered))
		})
		return t.Err()
	},
}

// shortLife is how long the SVID lives that is to expire: long enough for calls to
// begin with it, on a machine that does other things as well.
const shortLife = 20 * time.Second

var expiredSVID = trial.Scenario{
	Name:  "auth/expired-svid",
	Claim: "No new connection succeeds with an expired SVID; on an open connection, a server that checks only the handshake, as TLS does, keeps answering, and a server that checks each call, as ours do, refuses.",
	Parts: []trial.Part{
		trial.Carried("No new connection succeeds with an expired SVID", "no handshake succeeds with an SVID that has expired"),
		trial.Carried("a server that checks only the handshake, as TLS does, keeps answering", "one that looks in the handshake alone never stops to answer"),
		trial.Carried("a server that checks each call, as ours do, refuses", "a server that looks at each call refuses it by the old connection too"),
		trial.Carried("", "and each does with a new one"),
	},
	Sources: []string{
		"SPIFFE X509-SVID, section 5.2: the leaf is validated by RFC 5280, section 6.1, of which the time is an input",
		"go-spiffe spiffetls/tlsconfig: verification is in VerifyPeerCertificate, which TLS calls in a handshake",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		_, caller := t.Pair()
		var s *trial.Synthetic
		var fresh, careful, careless *trial.Traffic
		var expires time.Time
		t.Step(ctx, "federate with a third trust domain, and see it let in", func(ctx context.Context) (err error) {
			s, err = letIn(ctx, t)
			return err
		})
		t.Step(ctx, fmt.Sprintf("give it an SVID that expires in %s, and call with a handshake each time and by connections that are kept", shortLife), func(ctx context.Context) error {
			expires = time.Now().Add(shortLife).Truncate(time.Second) // a certificate has no finer time
			if err := s.Client.Present(ctx, synthetic.X509Request{ID: s.ID(), NotAfter: expires}); err != nil {
				return err
			}
			for _, one := range []struct {
				calls **trial.Traffic
				call  trial.Call
			}{
				// Who may resume sessions presents what it has, expired or not. It is given
				// none to resume.
				{&fresh, trial.Call{Connection: traffic.Resumed, Name: "a handshake each time"}},
				{&careful, trial.Call{Connection: traffic.Kept, Name: "kept, careful"}},
				{&careless, trial.Call{Connection: traffic.Kept, Careless: true, Name: "kept, careless"}},
			} {
				calls, err := t.Attempt(ctx, s.Domain.Name(), s.Client, caller, one.call)
				if err != nil {
					return err
				}
				if err := t.Soon(ctx, calls.Ends(traffic.Answered)); err != nil {
					return err
				}
				*one.calls = calls
			}
			t.Mark("the SVID expires at %s", expires.UTC().Format(time.TimeOnly))
			return nil
		})
		t.Step(ctx, "wait until it has expired, and see who answers", func(ctx context.Context) error {
			if err := t.Await(ctx, expires, trial.NextCall(), fresh.Ends(traffic.RefusedByServer), careful.Ends(traffic.NotPermitted)); err != nil {
				return err
			}
			return t.Stays(ctx, trial.Calls(10), careless.Ends(traffic.Answered))
		})
		t.Step(ctx, "give it a new one", func(ctx context.Context) error {
			renewed := time.Now()
			fresh.RefusedBy("no handshake succeeds with an SVID that has expired", expires, trial.NextCall(), renewed, traffic.RefusedByServer)
			fresh.AnsweredBy("and each does with a new one", renewed, trial.NextCall())
			careful.RefusedBy("a server that looks at each call refuses it by the old connection too", expires, trial.NextCall(), time.Time{}, traffic.NotPermitted)
			careless.AllAnswered("one that looks in the handshake alone never stops to answer")
			if err := t.Do(ctx, trial.ToCure, func(ctx context.Context) error { return s.Client.Present(ctx, synthetic.X509Request{ID: s.ID()}) }); err != nil {
				return err
			}
			return t.Await(ctx, renewed, trial.NextCall(), fresh.Ends(traffic.Answered))
		})
		return t.Err()
	},
}

var resumedSession = trial.Scenario{
	Name:  "auth/resumed-session-after-removal",
	Claim: "A server that resumes TLS sessions lets in a peer that was removed meanwhile; a server that hands out no sessions, as ours do, refuses it.",
	Parts: []trial.Part{
		trial.Carried("A server that resumes TLS sessions lets in a peer that was removed meanwhile", "the careless one goes on answering who was removed", "because sessions are resumed"),
		trial.Carried("a server that hands out no sessions, as ours do, refuses it", "ours refuses each call soon after the removal", "while ours never resumes one"),
		trial.Carried("", "so does the careless one, where a handshake is made"),
	},
	Labels: []string{CI},
	Needs:  []trial.Need{byResource},
	Sources: []string{
		"go-spiffe spiffetls/tlsconfig: verification is in VerifyPeerCertificate, which a resumed handshake does not call",
		"docs/decisions/0018-no-session-resumption.md",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var careful, careless, fresh *trial.Traffic
		var removed time.Time
		t.Step(ctx, "call a server that resumes sessions, and one that does not", func(ctx context.Context) (err error) {
			if careful, err = t.Traffic(ctx, caller, called, trial.Call{Connection: traffic.Resumed, Name: "careful"}); err != nil {
				return err
			}
			if careless, err = t.Traffic(ctx, caller, called, trial.Call{Connection: traffic.Resumed, Careless: true, Name: "careless"}); err != nil {
				return err
			}
			// It is careless with those alone whom it has met.
			fresh, err = t.Traffic(ctx, caller, called, trial.Call{Careless: true, Name: "careless, a handshake each time"})
			return err
		})
		t.Step(ctx, "remove the caller's trust domain from what the called one trusts", func(ctx context.Context) error {
			if err := called.RemoveRelationship(ctx, caller); err != nil {
				return err
			}
			removed = time.Now()
			t.Mark("%s removed", caller)
			if err := t.Do(ctx, trial.ToChange, func(ctx context.Context) error {
				return called.Server().DeleteBundle(ctx, caller.Name, spire.DeleteDissociate)
			}); err != nil {
				return err
			}
			return t.Await(ctx, removed, trial.Registered(), careful.Ends(traffic.RefusedByServer))
		})
		t.Step(ctx, "see who is let in", func(ctx context.Context) error {
			for _, c := range []struct {
				s    *trial.Traffic
				ends traffic.Outcome
			}{{careful, traffic.RefusedByServer}, {fresh, traffic.RefusedByServer}, {careless, traffic.Answered}} {
				if err := t.Stays(ctx, trial.Calls(5), c.s.Ends(c.ends)); err != nil {
					return err
				}
			}
			careful.RefusedBy("ours refuses each call soon after the removal", removed, trial.Registered(), time.Now(), traffic.RefusedByServer)
			fresh.RefusedBy("so does the careless one, where a handshake is made", removed, trial.Registered(), time.Now(), traffic.RefusedByServer)
			careless.AnsweredBetween("the careless one goes on answering who was removed", removed, time.Now())
			careless.Resumes("because sessions are resumed", traffic.ResumedSome, removed, time.Now())
			careful.Resumes("while ours never resumes one", traffic.ResumedNone, time.Time{}, time.Now())
			return nil
		})
		return t.Err()
	},
}

var oneWay = trial.Scenario{
	Name:  "auth/one-way",
	Claim: "Where only one of two trust domains trusts the other, it accepts JWT-SVIDs of the other, and the other accepts none of its own; no call by mutual TLS is answered in either direction.",
	Parts: []trial.Part{
		trial.Carried("it accepts JWT-SVIDs of the other", "the side that trusts accepts JWT-SVIDs of the other", "and accepts them still"),
		trial.Carried("the other accepts none of its own", "it refuses JWT-SVIDs of the side that trusts"),
		trial.Carried("no call by mutual TLS is answered in either direction", "the side that does not trust refuses each call to it", "and its own calls fail, since it cannot verify whom it calls"),
		trial.Carried("", "each accepts JWT-SVIDs of the other at first", "and calls are answered again after it", "and its own are, too", "and it accepts JWT-SVIDs again"),
	},
	Needs: []trial.Need{byResource},
	Sources: []string{
		"SPIFFE Federation, section 2: the bundle of a trust domain is needed to validate SVIDs from it",
		"SPIFFE Workload API, section 4.6: a peer of whose trust domain there is no bundle is not trusted, client or server",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var atCaller, atCalled trial.Fact
		var removed time.Time
		var damage *trial.Breakage
		to, from := t.CallsThroughout(ctx, caller, called), t.CallsThroughout(ctx, called, caller)
		t.Step(ctx, "present a JWT-SVID in each direction, and see it accepted", func(ctx context.Context) error {
			for _, way := range []struct {
				validity *trial.Fact
				of, at   trial.Domain
				says     string
			}{
				{&atCaller, called, caller, "the side that trusts accepts JWT-SVIDs of the other"},
				{&atCalled, caller, called, "each accepts JWT-SVIDs of the other at first"},
			} {
				minted, err := mintNow(ctx, way.of)
				if err != nil {
					return err
				}
				*way.validity = validity(minted, way.at)
				if err := t.See(ctx, way.says, *way.validity, valid); err != nil {
					return err
				}
			}
			return nil
		})
		t.StepWith(ctx, "end the trust of the called one in the caller's", "'fedlab status' says \"no relationship\"", func(ctx context.Context) (err error) {
			if err := called.RemoveRelationship(ctx, caller); err != nil {
				return err
			}
			removed = time.Now()
			if damage, err = t.Break(ctx, fault.BundleDeleted(called.Name, called.Server(), caller.Name, spire.DeleteDissociate)); err != nil {
				return err
			}
			return t.Await(ctx, removed, trial.Registered(), atCalled.Is(refusedToken), to.Ends(traffic.RefusedByServer), from.Ends(traffic.NotFederated))
		})
		t.Step(ctx, "see which JWT-SVIDs are accepted", func(ctx context.Context) error {
			if err := t.Watch(ctx, "it refuses JWT-SVIDs of the side that trusts", trial.Registered(), atCalled, refusedToken); err != nil {
				return err
			}
			return t.Watch(ctx, "and accepts them still", trial.Registered(), atCaller, valid)
		})
		t.Step(ctx, "have it trust again", func(ctx context.Context) error {
			trusts := time.Now()
			from.RefusedBy("and its own calls fail, since it cannot verify whom it calls", removed, trial.Registered(), trusts, traffic.NotFederated)
			from.AnsweredBy("and its own are, too", trusts, trial.Reconciled())
			refused := trial.Refusal{Says: "the side that does not trust refuses each call to it", Since: removed, Bound: trial.Registered(), Ends: []traffic.Outcome{traffic.RefusedByServer}}
			if err := to.Cure(ctx, refused, damage.Recover, trial.Reconciled(), to.Ends(traffic.Answered)); err != nil {
				return err
			}
			if err := t.Await(ctx, trusts, trial.Reconciled(), from.Ends(traffic.Answered), atCalled.Is(valid)); err != nil {
				return err
			}
			return t.See(ctx, "and it accepts JWT-SVIDs again", atCalled, valid)
		})
		return t.Err()
	},
}
