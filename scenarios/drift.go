package scenarios

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/synthetic"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// How calls end whose server the caller cannot verify: with a bundle that lacks the
// authority, and with none or any.
var (
	unknownAuthority = []traffic.Outcome{traffic.UnknownAuthority}
	notVerified      = []traffic.Outcome{traffic.NotFederated, traffic.UnknownAuthority}
)

// staysBroken claims that what the caller's server holds stays in one of these states while a
// poll would come, and that a fetch is refused and changes nothing.
func staysBroken(ctx context.Context, t *trial.Trial, states ...string) error {
	called, caller := t.Pair()
	if err := t.Watch(ctx, "no poll repairs it", caller.ToServer(called), caller.Held(called), states...); err != nil {
		return err
	}
	if err := caller.CannotFetch(ctx, called); err != nil {
		return err
	}
	return t.See(ctx, "and that changes nothing", caller.Held(called), states...)
}

// staysBrokenSays is what staysBroken claims.
func staysBrokenSays(more ...string) []string {
	return append([]string{"no poll repairs it", "asked to fetch, the peer cannot", "and that changes nothing"}, more...)
}

// handOver hands the bundle over to the caller's server: the cure of what no poll
// can bring.
func handOver(ctx context.Context, t *trial.Trial, calls *trial.Traffic, from trial.Refusal, bound trial.Bound, again check.Check) error {
	called, caller := t.Pair()
	return calls.Cure(ctx, from, func(ctx context.Context) error { return caller.Handover(ctx, called) }, bound, again)
}

// bundleLost is what a held bundle that is deleted and one that is emptied have in
// common: nothing is left that authenticates the endpoint.
func bundleLost(ctx context.Context, t *trial.Trial, verb, event string, state federation.State, again trial.Bound, f func(called, caller trial.Domain) fault.Fault) error {
	called, caller := t.Pair()
	var broken time.Time
	var damage *trial.Breakage
	calls := t.CallsThroughout(ctx, caller, called)
	t.StepWith(ctx, verb+" the bundle that the caller's server holds", fmt.Sprintf("'fedlab drift' says %q", state), func(ctx context.Context) (err error) {
		broken = time.Now()
		caller.PollsLate()
		if damage, err = t.Break(ctx, f(called, caller)); err != nil {
			return err
		}
		return t.Await(ctx, broken, trial.Registered(), calls.Ends(notVerified...))
	})
	t.Step(ctx, "see that no poll brings it back", func(ctx context.Context) error { return staysBroken(ctx, t, string(state)) })
	t.StepWith(ctx, "hand it over by the authenticated path", "'fedlab drift --repair' does the same", func(ctx context.Context) error {
		from := trial.Refusal{Says: "each call fails from soon after " + event + " until the bundle is handed over", Since: broken, Bound: trial.Registered(), Ends: notVerified}
		return errors.Join(handOver(ctx, t, calls, from, again, calls.Ends(traffic.Answered)), damage.Recover(ctx))
	})
	return t.Err()
}

var bundleDeleted = trial.Scenario{
	Name:  "drift/deleted",
	Claim: "Deleting a held bundle stops every call, and no poll brings the bundle back, because it authenticated the endpoint; handing the bundle over repairs it.",
	Parts: []trial.Part{
		trial.Carried("Deleting a held bundle stops every call", "each call fails from soon after the deletion until the bundle is handed over"),
		trial.Carried("no poll brings the bundle back", staysBrokenSays()...),
		trial.Carried("handing the bundle over repairs it", "and calls are answered again after it"),
	},
	Needs: []trial.Need{bySPIFFE, byResource},
	Sources: []string{
		"SPIRE pkg/server/bundle/client/updater.go: \"local copy of bundle not found\"",
		"https://github.com/spiffe/spire/blob/v1.15.3/doc/spire_server.md (bundle delete -mode)",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		return bundleLost(ctx, t, "delete", "the deletion", federation.Missing, trial.Reconciled(), func(called, caller trial.Domain) fault.Fault {
			return fault.BundleDeleted(caller.Name, caller.Server(), called.Name, spire.DeleteDissociate)
		})
	},
}

var bundleEmptied = trial.Scenario{
	Name:  "drift/emptied",
	Claim: "A held bundle without any authority stops every call, and no poll fills it, because an empty bundle authenticates no endpoint; handing the bundle over repairs it.",
	Parts: []trial.Part{
		trial.Carried("A held bundle without any authority stops every call", "each call fails from soon after that until the bundle is handed over"),
		trial.Carried("no poll fills it", staysBrokenSays()...),
		trial.Carried("handing the bundle over repairs it", "and calls are answered again after it"),
	},
	Needs: []trial.Need{bySPIFFE, byResource},
	Sources: []string{
		"SPIRE pkg/server/bundle/client/updater.go: an empty bundle replaces a good one",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		return bundleLost(ctx, t, "empty", "that", federation.Empty, trial.Registered(), func(called, caller trial.Domain) fault.Fault {
			empty := spiffebundle.New(called.Name)
			empty.SetRefreshHint(called.BundleEndpoint.RefreshHint)
			return fault.BundleSet(caller.Name, caller.Server(), empty)
		})
	},
}

var bundleTampered = trial.Scenario{
	Name:  "drift/tampered",
	Claim: "Anyone who slips a root into a held bundle can pose as a workload of that trust domain until the next poll, and no legitimate call fails.",
	Parts: []trial.Part{
		trial.Carried("can pose as a workload of that trust domain", "the attacker is answered from soon after until the endpoint can be fetched from again"),
		trial.Carried("until the next poll", "and it is refused again once the bundle is fetched again"),
		trial.Carried("no legitimate call fails", "the rightful ones never noticed"),
		trial.Carried("", "until then the attacker is refused"),
	},
	Labels: []string{CI},
	Needs:  dynamic(),
	Sources: []string{
		"SPIFFE Trust Domain and Bundle, section 4: the document does not say whose it is",
		"SPIRE pkg/server/bundle/client/updater.go: what is fetched replaces what is held",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var attack *trial.Traffic
		var s *trial.Synthetic
		var theirs *spiffebundle.Bundle
		var cut, damage *trial.Breakage
		var tamperedAt time.Time
		calls := t.CallsThroughout(ctx, called, caller)
		t.Step(ctx, "let an attacker in under its own name, with a root of its own", func(ctx context.Context) (err error) {
			s, err = letIn(ctx, t)
			return err
		})
		t.Step(ctx, "let it try under the name of the called one", func(ctx context.Context) (err error) {
			if attack, err = s.Calls(ctx, called.ID(), caller); err != nil {
				return err
			}
			return t.Soon(ctx, attack.Ends(traffic.RefusedByServer))
		})
		t.Step(ctx, "keep the next poll from repairing what comes", func(ctx context.Context) (err error) {
			cut, err = t.CutEndpoint(ctx, called, caller)
			return err
		})
		t.StepWith(ctx, "put that root into what is held of "+called.String(), "'fedlab drift' names the foreign authority", func(ctx context.Context) error {
			held, err := caller.Server().HeldBundle(ctx, called.Name)
			if err != nil {
				return err
			}
			if theirs, err = s.Client.Bundle(ctx); err != nil {
				return err
			}
			spoilt := held.Clone()
			spoilt.AddX509Authority(theirs.X509Authorities()[0])
			tamperedAt = time.Now()
			attack.NoneAnswered("until then the attacker is refused", time.Time{}, tamperedAt)
			if damage, err = t.Break(ctx, fault.BundleSet(caller.Name, caller.Server(), spoilt)); err != nil {
				return err
			}
			return t.Await(ctx, tamperedAt, trial.Registered(), attack.Ends(traffic.Answered))
		})
		t.Step(ctx, "find it: the comparison with the source names the foreign root", func(ctx context.Context) error {
			seen, err := caller.Compare(ctx, called)
			if err != nil {
				return err
			}
			id := federation.X509IDs(theirs)[0]
			if !slices.ContainsFunc(seen.Foreign, func(a federation.Authority) bool { return a.ID == id }) {
				return fmt.Errorf("the comparison says %s, and does not name %s", seen, trial.Brief(id))
			}
			t.Seen("%s", seen)
			return nil
		})
		t.Step(ctx, "let the next poll come: it repairs", func(ctx context.Context) error {
			if err := cut.Recover(ctx); err != nil {
				return err
			}
			repaired := cut.Window().Healed
			attack.AnsweredUntil("the attacker is answered from soon after until the endpoint can be fetched from again", tamperedAt, trial.Registered(), cut.Window().Recovered)
			if err := t.Await(ctx, repaired, caller.ToWorkloads(called), attack.Ends(traffic.RefusedByServer)); err != nil {
				return err
			}
			if err := damage.Recover(ctx); err != nil { // the poll has done that: it is noted
				return err
			}
			attack.RefusedBy("and it is refused again once the bundle is fetched again", repaired, caller.ToWorkloads(called), time.Time{}, traffic.RefusedByServer)
			calls.AllAnswered("the rightful ones never noticed")
			return t.Stays(ctx, trial.Calls(3), attack.Ends(traffic.RefusedByServer))
		})
		return t.Err()
	},
}

var bundleRolledBack = trial.Scenario{
	Name:  "drift/rolled-back",
	Claim: "If an older bundle replaces a newer one, the server takes it and every call stops; if the endpoint presents an SVID of the newer authority, no poll repairs it, and handing the bundle over does.",
	Parts: []trial.Part{
		trial.Carried("the server takes it and every call stops", "each call fails from soon after the roll-back until the bundle is handed over"),
		trial.Carried("no poll repairs it", staysBrokenSays()...),
		trial.Carried("handing the bundle over does", "and calls are answered again after it"),
		trial.Carried("", "no call failed through the replacement itself"),
	},
	Needs: dynamic(),
	Sources: []string{
		"SPIRE pkg/server/bundle/client/updater.go: spiffe_sequence is never compared",
		"SPIFFE Trust Domain and Bundle, section 4.1.1: the sequence tells whether a bundle has changed",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var older *spiffebundle.Bundle
		var damage *trial.Breakage
		var r *trial.Rotation
		var rolled time.Time
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "keep a copy of the bundle, and replace the authority", func(ctx context.Context) (err error) {
			if older, err = caller.Server().HeldBundle(ctx, called.Name); err != nil {
				return err
			}
			if r, err = called.Replace(ctx); err != nil {
				return err
			}
			return t.Soon(ctx, calls.Meets(r.Next.ID))
		})
		t.StepWith(ctx, "put the copy in the place of the new bundle", "'fedlab drift' says what is lacking", func(ctx context.Context) (err error) {
			rolled = time.Now()
			calls.AnsweredBetween("no call failed through the replacement itself", time.Time{}, rolled)
			if damage, err = t.Break(ctx, fault.BundleSet(caller.Name, caller.Server(), older)); err != nil {
				return err
			}
			return t.Await(ctx, rolled, trial.Registered(), calls.Ends(traffic.UnknownAuthority))
		})
		t.Step(ctx, "see that no poll repairs it", func(ctx context.Context) error { return staysBroken(ctx, t, trial.NotInSync()...) })
		t.Step(ctx, "hand the bundle over by the authenticated path", func(ctx context.Context) error {
			from := trial.Refusal{Says: "each call fails from soon after the roll-back until the bundle is handed over", Since: rolled, Bound: trial.Registered(), Ends: unknownAuthority}
			return errors.Join(handOver(ctx, t, calls, from, trial.Registered(), calls.Meets(r.Next.ID)), damage.Recover(ctx))
		})
		return t.Err()
	},
}

var bundleOfAnother = trial.Scenario{
	Name:  "drift/wrong-domain",
	Claim: "If the bundle of one trust domain is handed over as that of another, a workload of the one passes as one of the other, whose own are refused in both directions; no poll repairs it, and handing the right bundle over does.",
	Parts: []trial.Part{
		trial.Carried("a workload of the one passes as one of the other", "the third one is answered under that name from soon after until the right bundle is handed over"),
		trial.Carried("whose own are refused in both directions", "those whose name that is are refused until then", "and each call to them fails"),
		trial.Carried("no poll repairs it", staysBrokenSays()...),
		trial.Carried("handing the right bundle over does", "and calls are answered again after it", "so are those whose name that is", "and the third one is refused"),
		trial.Carried("", "before, the third one is refused under that name"),
	},
	Needs: []trial.Need{fetched, bySPIFFE},
	Sources: []string{
		"SPIFFE Federation, section 5.1: a bundle does not contain the name of its trust domain; section 7.3: what a wrong name does",
		"SPIRE pkg/server/bundle/client/updater.go: the stored bundle is what verifies the endpoint",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var s *trial.Synthetic
		var attack *trial.Traffic
		var damage *trial.Breakage
		var broken time.Time
		to, from := t.CallsThroughout(ctx, caller, called), t.CallsThroughout(ctx, called, caller)
		t.Step(ctx, "let a third trust domain in under its own name", func(ctx context.Context) (err error) {
			s, err = letIn(ctx, t)
			return err
		})
		t.Step(ctx, "let it try under the name of the called one", func(ctx context.Context) (err error) {
			if attack, err = s.Calls(ctx, called.ID(), caller); err != nil {
				return err
			}
			return t.Soon(ctx, attack.Ends(traffic.RefusedByServer))
		})
		t.StepWith(ctx, "hand its bundle over as that of the called one", "'fedlab drift' says \"foreign\"", func(ctx context.Context) error {
			theirs, err := s.Client.Bundle(ctx)
			if err != nil {
				return err
			}
			wrong := spiffebundle.FromX509Authorities(called.Name, theirs.X509Authorities())
			wrong.SetRefreshHint(called.BundleEndpoint.RefreshHint)
			broken = time.Now()
			attack.NoneAnswered("before, the third one is refused under that name", time.Time{}, broken)
			if damage, err = t.Break(ctx, fault.BundleSet(caller.Name, caller.Server(), wrong)); err != nil {
				return err
			}
			return t.Await(ctx, broken, trial.Registered(), attack.Ends(traffic.Answered), to.Ends(unknownAuthority...), from.Ends(traffic.RefusedByServer))
		})
		t.Step(ctx, "see that no poll repairs it", func(ctx context.Context) error { return staysBroken(ctx, t, string(federation.Foreign)) })
		t.StepWith(ctx, "hand the right one over by the authenticated path", "'fedlab drift --repair' does the same", func(ctx context.Context) error {
			cured := time.Now()
			attack.AnsweredUntil("the third one is answered under that name from soon after until the right bundle is handed over", broken, trial.Registered(), cured)
			from.RefusedBy("those whose name that is are refused until then", broken, trial.Registered(), cured, traffic.RefusedByServer)
			calls := trial.Refusal{Says: "and each call to them fails", Since: broken, Bound: trial.Registered(), Ends: unknownAuthority}
			if err := handOver(ctx, t, to, calls, trial.Registered(), to.Ends(traffic.Answered)); err != nil {
				return err
			}
			from.AnsweredBy("so are those whose name that is", cured, trial.Registered())
			attack.RefusedBy("and the third one is refused", cured, trial.Registered(), time.Time{}, traffic.RefusedByServer)
			if err := t.Await(ctx, cured, trial.Registered(), from.Ends(traffic.Answered), attack.Ends(traffic.RefusedByServer)); err != nil {
				return err
			}
			return damage.Recover(ctx)
		})
		return t.Err()
	},
}

var pinnedBundleEdited = trial.Scenario{
	Name:  "drift/crd-edit-is-ignored",
	Claim: "Changing trustDomainBundle in a ClusterFederatedTrustDomain has no effect: the field counts only when the relationship is made.",
	Parts: []trial.Part{
		trial.Carried("Changing trustDomainBundle in a ClusterFederatedTrustDomain has no effect", "what is held stays in sync", "no call failed"),
	},
	Needs: dynamic(),
	Sources: []string{
		"https://github.com/spiffe/spire-controller-manager/issues/171",
		"SPIRE Controller Manager pkg/spireapi: FederationRelationship.Equal leaves the bundle out",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "write the caller's own bundle into the resource by which it trusts the other", func(ctx context.Context) error {
			own, err := caller.Bundle(ctx)
			if err != nil {
				return err
			}
			document, err := own.Marshal()
			if err != nil {
				return err
			}
			return t.Do(ctx, trial.ToChange, func(ctx context.Context) error {
				return caller.EditRelationship(ctx, called, func(spec *spire.FederatedTrustDomainSpec) { spec.TrustDomainBundle = string(document) })
			})
		})
		t.Step(ctx, "see that nothing comes of it", func(ctx context.Context) error {
			return t.Watch(ctx, "what is held stays in sync", trial.ManagerLook().Plus(caller.ToServer(called)), caller.Held(called), string(federation.InSync))
		})
		t.StillAnswered(ctx, calls, "see that calls come through", "no call failed")
		return t.Err()
	},
}

var otherFieldEdited = trial.Scenario{
	Name:  "drift/crd-edit-rolls-back",
	Claim: "Changing any other field of a ClusterFederatedTrustDomain sets its trustDomainBundle again: if an authority was replaced since, the edit cuts the peer off, and no poll repairs it.",
	Parts: []trial.Part{
		trial.Carried("the edit cuts the peer off", "each call fails from soon after the edit until the bundle is handed over"),
		trial.Carried("no poll repairs it", staysBrokenSays()...),
		trial.Carried("", "no call failed through the replacement itself", "and calls are answered again after it"),
	},
	Needs: dynamic(),
	Sources: []string{
		"SPIRE Controller Manager pkg/spireapi: an update of a relationship sends its bundle as well",
		"SPIRE pkg/server/datastore/sqlstore/sqlstore.go, updateFederationRelationship: an update sets the bundle that it is sent",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var r *trial.Rotation
		var edited time.Time
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "replace the authority: the resource has the bundle of before still", func(ctx context.Context) (err error) {
			if r, err = called.Replace(ctx); err != nil {
				return err
			}
			return t.Soon(ctx, calls.Meets(r.Next.ID))
		})
		t.StepWith(ctx, "write the address of the endpoint into the resource in other words", "'fedlab drift' says what is lacking", func(ctx context.Context) error {
			written, err := caller.Relationship(ctx, called.Name)
			if err != nil {
				return err
			}
			edited = time.Now()
			calls.AnsweredBetween("no call failed through the replacement itself", time.Time{}, edited)
			if err := caller.EditRelationship(ctx, called, func(spec *spire.FederatedTrustDomainSpec) {
				*spec = written
				spec.BundleEndpointURL += "/"
			}); err != nil {
				return err
			}
			t.Mark("resource edited")
			return t.Await(ctx, edited, trial.Reconciled(), calls.Ends(traffic.UnknownAuthority))
		})
		t.Step(ctx, "see that no poll repairs it", func(ctx context.Context) error { return staysBroken(ctx, t, trial.NotInSync()...) })
		t.Step(ctx, "hand the bundle over by the authenticated path", func(ctx context.Context) error {
			from := trial.Refusal{Says: "each call fails from soon after the edit until the bundle is handed over", Since: edited, Bound: trial.Reconciled(), Ends: unknownAuthority}
			return handOver(ctx, t, calls, from, trial.Registered(), calls.Meets(r.Next.ID))
		})
		return t.Err()
	},
}

var relationshipRemoved = trial.Scenario{
	Name:  "drift/removal-keeps-bundle",
	Claim: "Removing a relationship does not end trust: the bundle stays, and new handshakes succeed until somebody deletes the bundle too.",
	Parts: []trial.Part{
		trial.Carried("the bundle stays", "the bundle stays in sync"),
		trial.Carried("new handshakes succeed", "no call fails while only the relationship is gone"),
		trial.Carried("until somebody deletes the bundle too", "each call fails once the bundle is gone"),
	},
	Needs: dynamic(),
	Sources: []string{
		"https://github.com/spiffe/spire/issues/2507", "https://github.com/spiffe/spire/pull/2533",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var broken time.Time
		calls := t.CallsThroughout(ctx, caller, called)
		t.StepWith(ctx, "delete the resource by which the caller trusts the other", "'fedlab status' says \"no relationship\"", func(ctx context.Context) error {
			return caller.RemoveRelationship(ctx, called)
		})
		t.Step(ctx, "see that the trust is still there", func(ctx context.Context) error {
			t.Mark("relationship removed")
			return t.Watch(ctx, "the bundle stays in sync", caller.ToWorkloads(called), caller.Held(called), string(federation.InSync))
		})
		t.Step(ctx, "delete the bundle as well", func(ctx context.Context) error {
			broken = time.Now()
			calls.AnsweredBetween("no call fails while only the relationship is gone", time.Time{}, broken)
			if err := t.Do(ctx, trial.ToChange, func(ctx context.Context) error {
				return caller.Server().DeleteBundle(ctx, called.Name, spire.DeleteDissociate)
			}); err != nil {
				return err
			}
			t.Mark("bundle deleted")
			return t.Await(ctx, broken, trial.Registered(), calls.Ends(notVerified...))
		})
		t.Step(ctx, "see that now it has ended", func(ctx context.Context) error {
			if err := t.Stays(ctx, trial.Calls(5), calls.Ends(notVerified...)); err != nil {
				return err
			}
			calls.RefusedBy("each call fails once the bundle is gone", broken, trial.Registered(), time.Now(), notVerified...)
			return nil
		})
		return t.Err()
	},
}

var endpointDeadlock = trial.Scenario{
	Name:  "drift/stale-bootstrap-deadlock",
	Claim: "A peer that was cut off while an authority was replaced can never fetch by https_spiffe again, because the bundle that it holds no longer authenticates the endpoint; handing the bundle over repairs it.",
	Parts: []trial.Part{
		trial.Carried("can never fetch by https_spiffe again", staysBrokenSays("each call fails from soon after the replacement until the bundle is handed over")...),
		trial.Carried("handing the bundle over repairs it", "and calls are answered again after it", "and the peer can fetch again"),
	},
	Needs: dynamic(),
	Sources: []string{
		"SPIRE pkg/server/bundle/client/client.go: the stored bundle is what verifies the endpoint",
		"https://github.com/spiffe/spire/issues/4128",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		calls := t.CallsThroughout(ctx, caller, called)
		missed := replacedUnseen(ctx, t)
		t.StepWith(ctx, "give the endpoint back: it does not help", "'fedlab status' says \"unknown root\"", func(ctx context.Context) error {
			if err := missed.cut.Recover(ctx); err != nil {
				return err
			}
			return staysBroken(ctx, t, trial.NotInSync()...)
		})
		t.Step(ctx, "hand the bundle over, and see that it fetches again by itself", func(ctx context.Context) error {
			from := trial.Refusal{Says: "each call fails from soon after the replacement until the bundle is handed over", Since: missed.broken, Bound: trial.Tainted(), Ends: unknownAuthority}
			if err := handOver(ctx, t, calls, from, trial.Registered(), calls.Meets(missed.rotation.Next.ID)); err != nil {
				return err
			}
			return t.See(ctx, "and the peer can fetch again", caller.Fetch(called), trial.Fetched)
		})
		return t.Err()
	},
}

var deleteModes = trial.Scenario{
	Name:  "drift/delete-modes",
	Claim: "A held bundle with which an entry federates is not deleted with restrict; with dissociate the entry stays, and every call fails; with delete the entry goes, a workload that runs calls on with what it has, and a new one gets no identity; handing the bundle over repairs both.",
	Parts: []trial.Part{
		trial.Carried("A held bundle with which an entry federates is not deleted with restrict", "restrict refuses it", "and the bundle stays", "no call fails where restrict is refused"),
		trial.Carried("with dissociate the entry stays, and every call fails", "the entry stays, without that trust domain", "with dissociate each call fails until the bundle is handed over"),
		trial.Carried("with delete the entry goes", "the entry is gone"),
		trial.Carried("a workload that runs calls on with what it has", "with delete a workload that runs calls on"),
		trial.Carried("a new one gets no identity", "the newcomer gets no identity", "with delete a new workload can call nobody"),
		trial.Carried("handing the bundle over repairs both", "and calls are answered again after it", "and a new one can call once the bundle is handed over"),
		trial.Carried("", "restrict deletes a bundle with which no entry federates", "the entry federates with that trust domain",
			"a newcomer whose registration fits gets its identity", "its registration counts no failed entry"),
	},
	Needs: []trial.Need{bySPIFFE, byResource},
	Sources: []string{
		"https://github.com/spiffe/spire/blob/v1.15.3/doc/spire_server.md (bundle delete -mode)",
		"SPIRE pkg/server/datastore/sqlstore/sqlstore.go, deleteBundle: what each mode does with entries",
		"go-spiffe workloadapi.X509Source keeps what it has when the Workload API refuses",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var damage *trial.Breakage
		var guest trial.Newcomer
		var guests *trial.Traffic
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "delete a bundle with restrict with which no entry federates", func(ctx context.Context) error {
			made, err := synthetic.New(absent, time.Now)
			if err != nil {
				return err
			}
			t.Restore("forget the bundle of "+absent.Name(), func(ctx context.Context) error { return caller.Forget(ctx, absent) })
			if err := caller.Server().SetBundle(ctx, made.Bundle()); err != nil {
				return err
			}
			return t.See(ctx, "restrict deletes a bundle with which no entry federates", restricted(caller, absent), bundleIsGone)
		})
		entry := probeEntry(caller, called)
		t.Step(ctx, "try it with the bundle of the called trust domain", func(ctx context.Context) error {
			if err := t.See(ctx, "the entry federates with that trust domain", entry, entryFederates); err != nil {
				return err
			}
			if err := t.See(ctx, "restrict refuses it", restricted(caller, called.Name), bundleStays); err != nil {
				return err
			}
			return t.Watch(ctx, "and the bundle stays", trial.Registered(), caller.Held(called), string(federation.InSync))
		})
		t.Step(ctx, "let a newcomer come that federates with it, and see it answered", func(ctx context.Context) error { return comesAndCalls(ctx, t) })
		var deleted time.Time
		remove := func(ctx context.Context, mode spire.DeleteMode) (err error) {
			deleted = time.Now()
			t.Mark("bundle deleted with %s", mode)
			caller.PollsLate()
			damage, err = t.Break(ctx, fault.BundleDeleted(caller.Name, caller.Server(), called.Name, mode))
			return err
		}
		t.Step(ctx, "delete it with dissociate: the entry stays, without it", func(ctx context.Context) error {
			calls.AnsweredBetween("no call fails where restrict is refused", time.Time{}, time.Now())
			if err := remove(ctx, spire.DeleteDissociate); err != nil {
				return err
			}
			if err := t.Await(ctx, deleted, trial.Registered(), calls.Ends(notVerified...)); err != nil {
				return err
			}
			return t.Watch(ctx, "the entry stays, without that trust domain", trial.ManagerLook(), entry, entryAlone)
		})
		t.Step(ctx, "hand it over", func(ctx context.Context) error {
			from := trial.Refusal{Says: "with dissociate each call fails until the bundle is handed over", Since: deleted, Bound: trial.Registered(), Ends: notVerified}
			return errors.Join(handOver(ctx, t, calls, from, trial.Reconciled(), calls.Ends(traffic.Answered)), damage.Recover(ctx))
		})
		t.Step(ctx, "delete it with delete: the entry goes, and a newcomer waits", func(ctx context.Context) (err error) {
			if err := remove(ctx, spire.DeleteEntries); err != nil {
				return err
			}
			if guest, guests, err = comesInVain(ctx, t, []spiffeid.TrustDomain{called.Name}); err != nil {
				return err
			}
			return t.See(ctx, "the entry is gone", entry, trial.Absent)
		})
		t.Step(ctx, "hand it over again", func(ctx context.Context) error {
			now := time.Now()
			guests.NoneAnswered("with delete a new workload can call nobody", time.Time{}, now)
			calls.AnsweredBetween("with delete a workload that runs calls on", deleted, now)
			if err := t.Do(ctx, trial.ToCure, func(ctx context.Context) error { return caller.Handover(ctx, called) }); err != nil {
				return err
			}
			if err := t.Await(ctx, now, trial.Reconciled(), guest.HasIdentity()); err != nil {
				return err
			}
			guests.AnsweredBy("and a new one can call once the bundle is handed over", now, trial.Reconciled().Plus(trial.NextCall()))
			return errors.Join(t.Soon(ctx, guests.Ends(traffic.Answered)), damage.Recover(ctx))
		})
		return t.Err()
	},
}

// What a look at a bundle sees that was to be deleted with restrict, and one at an entry.
const (
	bundleIsGone   = "it is gone"
	bundleStays    = "an entry federates with it"
	entryFederates = "it federates with that trust domain"
	entryAlone     = "it does not federate with that trust domain"
)

// restricted is what comes of it when a held bundle is deleted with restrict.
func restricted(d trial.Domain, of spiffeid.TrustDomain) trial.Fact {
	return trial.Fact{Of: "a bundle of " + d.String() + " that is deleted with restrict", Well: bundleIsGone, Look: func(ctx context.Context) (string, error) {
		err := d.Server().DeleteBundle(ctx, of, spire.DeleteRestrict)
		if federated := (*spire.FederatedError)(nil); errors.As(err, &federated) {
			return bundleStays, nil
		}
		return bundleIsGone, err
	}}
}

// probeEntry is the entry of the probe, and whether it federates with another trust domain.
func probeEntry(d, with trial.Domain) trial.Fact {
	return trial.Fact{Of: "the entry of " + d.ID().String(), Well: entryFederates, Look: func(ctx context.Context) (string, error) {
		entries, err := d.Server().Entries(ctx)
		i := slices.IndexFunc(entries, func(e spire.Entry) bool { return e.SPIFFEID == d.ID() })
		switch {
		case i < 0:
			return trial.Absent, err
		case slices.Contains(entries[i].FederatesWith, with.Name):
			return entryFederates, err
		}
		return entryAlone, err
	}}
}
