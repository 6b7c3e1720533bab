package scenarios

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/synthetic"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// comesInVain lets a newcomer come to the caller's cluster whose registration gives
// it no identity.
func comesInVain(ctx context.Context, t *trial.Trial, federatesWith []spiffeid.TrustDomain, selectors ...string) (guest trial.Newcomer, calls *trial.Traffic, err error) {
	called, caller := t.Pair()
	if guest, err = caller.Newcomer(ctx); err != nil {
		return guest, nil, err
	}
	if err := guest.Register(ctx, federatesWith, selectors...); err != nil {
		return guest, nil, err
	}
	if calls, err = guest.Calls(ctx, called); err != nil {
		return guest, nil, err
	}
	return guest, calls, t.Watch(ctx, "the newcomer gets no identity", trial.Reconciled(), guest.Identity(), trial.NoIdentity)
}

// comesAndCalls lets a newcomer come whose registration fits, and go once it was answered: the
// control of what one can do whose registration does not.
func comesAndCalls(ctx context.Context, t *trial.Trial) error {
	called, caller := t.Pair()
	guest, err := caller.Welcome(ctx, called.Name)
	if err != nil {
		return err
	}
	calls, err := guest.Calls(ctx, called)
	if err != nil {
		return err
	}
	if err := t.See(ctx, "its registration counts no failed entry", guest.FailedEntries(), trial.Absent); err != nil {
		return err
	}
	if err := t.Soon(ctx, calls.Ends(traffic.Answered)); err != nil {
		return err
	}
	return errors.Join(calls.End(ctx), guest.Leave(ctx))
}

// absent is a trust domain that never publishes anything.
var absent = spiffeid.RequireTrustDomainFromString("absent.test")

var bundleNeverCame = trial.Scenario{
	Name:  "outage/missing-bundle-blocks-identity",
	Claim: "If the bundle of one partner never arrived, each new workload that federates with that partner gets no identity, not even for calls to others; handing the bundle over repairs it.",
	Parts: []trial.Part{
		trial.Carried("each new workload that federates with that partner gets no identity", "the newcomer gets no identity", "the server refuses its entry"),
		trial.Carried("not even for calls to others", "until then it can call nobody, not even those who are there"),
		trial.Carried("handing the bundle over repairs it", "and it can after it"),
		trial.Carried("", "a newcomer whose registration fits gets its identity", "its registration counts no failed entry", "those who had their identity before never noticed"),
	},
	Labels: []string{CI},
	Sources: []string{
		"https://github.com/spiffe/spire/issues/7146", "https://github.com/spiffe/spire-controller-manager/issues/197",
		"SPIRE pkg/server/datastore/sqlstore: makeFederatesWith refuses the entry",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var guests *trial.Traffic
		var guest trial.Newcomer
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "see that a newcomer that federates with partners who are there can call them", func(ctx context.Context) error { return comesAndCalls(ctx, t) })
		t.StepWith(ctx, "let one come that federates with "+absent.Name()+" as well", "kubectl get clusterspiffeid fedlab-newcomer -o yaml: entryFailures is the only sign", func(ctx context.Context) (err error) {
			if guest, guests, err = comesInVain(ctx, t, []spiffeid.TrustDomain{called.Name, absent}); err != nil {
				return err
			}
			return t.See(ctx, "the server refuses its entry", guest.FailedEntries(), trial.There)
		})
		t.Step(ctx, "hand the bundle of "+absent.Name()+" over by hand", func(ctx context.Context) error {
			made, err := synthetic.New(absent, time.Now)
			if err != nil {
				return err
			}
			t.Restore("forget the bundle of "+absent.Name(), func(ctx context.Context) error { return caller.Forget(ctx, absent) })
			repaired := time.Now()
			guests.NoneAnswered("until then it can call nobody, not even those who are there", time.Time{}, repaired)
			guests.AnsweredBy("and it can after it", repaired, trial.Reconciled().Plus(trial.NextCall()))
			if err := t.Do(ctx, trial.ToCure, func(ctx context.Context) error { return caller.Server().SetBundle(ctx, made.Bundle()) }); err != nil {
				return err
			}
			return t.Await(ctx, repaired, trial.Reconciled(), guest.HasIdentity())
		})
		t.Step(ctx, "see it call those who are there", func(ctx context.Context) error {
			calls.AllAnswered("those who had their identity before never noticed")
			return t.Soon(ctx, guests.Ends(traffic.Answered))
		})
		return t.Err()
	},
}

// tooNarrow is a selector that no newcomer has.
const tooNarrow = "k8s:pod-label:version:v2"

// entryWith is whether the server has an entry with a selector.
func entryWith(d trial.Domain, selector string) trial.Fact {
	return entry(d, "with selector "+selector, func(e spire.Entry) bool { return slices.Contains(e.Selectors, selector) })
}

// entry is whether the server has an entry that is so.
func entry(d trial.Domain, what string, is func(spire.Entry) bool) trial.Fact {
	return trial.Fact{Of: fmt.Sprintf("an entry %s at the server of %s", what, d), Look: func(ctx context.Context) (string, error) {
		entries, err := d.Server().Entries(ctx)
		if slices.ContainsFunc(entries, is) {
			return trial.There, err
		}
		return trial.Absent, err
	}}
}

var selectorTooNarrow = trial.Scenario{
	Name:  "auth/selector-too-narrow",
	Claim: "An entry with one selector that a workload does not have gives that workload no identity, and nothing else shows it.",
	Parts: []trial.Part{
		trial.Carried("gives that workload no identity", "the newcomer gets no identity", "until then it can call nobody"),
		trial.Carried("nothing else shows it", "though the server has its entry", "and its registration counts no failed one"),
		trial.Carried("", "a newcomer whose registration fits gets its identity", "its registration counts no failed entry", "and it can after it"),
	},
	Sources: []string{"https://github.com/spiffe/spire/blob/v1.15.3/doc/plugin_agent_workloadattestor_k8s.md"},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var guest trial.Newcomer
		var guests *trial.Traffic
		partner := []spiffeid.TrustDomain{called.Name}
		t.Step(ctx, "let a newcomer come whose entry fits, and see it answered", func(ctx context.Context) error { return comesAndCalls(ctx, t) })
		t.Step(ctx, "let another one come whose entry wants one label more than it has", func(ctx context.Context) (err error) {
			if guest, guests, err = comesInVain(ctx, t, partner, tooNarrow); err != nil {
				return err
			}
			if err := t.See(ctx, "though the server has its entry", entryWith(caller, tooNarrow), trial.There); err != nil {
				return err
			}
			return t.See(ctx, "and its registration counts no failed one", guest.FailedEntries(), trial.Absent)
		})
		t.Step(ctx, "write the entry without that label", func(ctx context.Context) error {
			repaired := time.Now()
			guests.NoneAnswered("until then it can call nobody", time.Time{}, repaired)
			guests.AnsweredBy("and it can after it", repaired, trial.Registered())
			if err := t.Do(ctx, trial.ToCure, func(ctx context.Context) error { return guest.Register(ctx, partner) }); err != nil {
				return err
			}
			return t.Await(ctx, repaired, trial.Registered(), guest.HasIdentity(), guests.Ends(traffic.Answered))
		})
		return t.Err()
	},
}

var noIdentity = trial.Scenario{
	Name:  "auth/no-identity",
	Claim: "A workload without an entry has no identity and can call nobody; as soon as there is an entry, it can, without a restart.",
	Parts: []trial.Part{
		trial.Carried("A workload without an entry has no identity", "it has no identity"),
		trial.Carried("can call nobody", "none of its calls is answered until then"),
		trial.Carried("as soon as there is an entry, it can, without a restart", "and they are after it"),
		trial.Carried("", "a newcomer whose registration fits gets its identity", "its registration counts no failed entry", "those who are registered are answered throughout"),
	},
	Sources: []string{"SPIFFE Workload API, section 5.1: PermissionDenied where there is no identity"},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var guest trial.Newcomer
		var guests *trial.Traffic
		calls := t.CallsThroughout(ctx, caller, called)
		t.Step(ctx, "let a newcomer come that is registered, and see it answered", func(ctx context.Context) error { return comesAndCalls(ctx, t) })
		t.Step(ctx, "let another one call that nobody has registered", func(ctx context.Context) (err error) {
			calls.AllAnswered("those who are registered are answered throughout")
			if guest, err = caller.Newcomer(ctx); err != nil {
				return err
			}
			if guests, err = guest.Calls(ctx, called); err != nil {
				return err
			}
			if err := t.Soon(ctx, guests.Ends(traffic.NoIdentity)); err != nil {
				return err
			}
			return t.Watch(ctx, "it has no identity", trial.Registered(), guest.Identity(), trial.NoIdentity)
		})
		t.Step(ctx, "register it", func(ctx context.Context) error {
			repaired := time.Now()
			guests.NoneAnswered("none of its calls is answered until then", time.Time{}, repaired)
			guests.AnsweredBy("and they are after it", repaired, trial.Registered())
			if err := t.Do(ctx, trial.ToCure, func(ctx context.Context) error {
				return guest.Register(ctx, []spiffeid.TrustDomain{called.Name})
			}); err != nil {
				return err
			}
			return t.Await(ctx, repaired, trial.Registered(), guests.Ends(traffic.Answered))
		})
		return t.Err()
	},
}
