package scenarios

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// staticEntry returns the ClusterStaticEntry of an entry that is changed.
func staticEntry(e spire.Entry, change func(*spire.StaticEntrySpec)) spire.StaticEntrySpec {
	spec := spire.StaticEntrySpec{SPIFFEID: e.SPIFFEID.String(), ParentID: e.ParentID.String(), Selectors: e.Selectors}
	for _, td := range e.FederatesWith {
		spec.FederatesWith = append(spec.FederatesWith, td.Name())
	}
	change(&spec)
	return spec
}

// isStatic tells whether an entry is that of a ClusterStaticEntry.
func isStatic(spec spire.StaticEntrySpec) func(spire.Entry) bool {
	return func(e spire.Entry) bool {
		return e.SPIFFEID.String() == spec.SPIFFEID && e.ParentID.String() == spec.ParentID &&
			slices.Equal(slices.Sorted(slices.Values(e.Selectors)), slices.Sorted(slices.Values(spec.Selectors)))
	}
}

var selectorTooBroad = trial.Scenario{
	Name:  "auth/selector-too-broad",
	Claim: "An entry whose only selector is a namespace gives its identity to each pod that comes to that namespace, and a stranger is answered under it; taking the entry away keeps the next stranger out, but not the one who has the SVID and keeps it.",
	Parts: []trial.Part{
		trial.Carried("gives its identity to each pod that comes to that namespace", "the stranger has the identity then"),
		trial.Carried("a stranger is answered under it", "until then no call of the stranger is answered", "soon after each is, also when the entry is gone again"),
		trial.Carried("taking the entry away keeps the next stranger out", "the next stranger gets no identity", "no call of the next stranger is answered"),
		trial.Carried("but not the one who has the SVID and keeps it", "soon after each is, also when the entry is gone again"),
		trial.Carried("", "a newcomer whose registration fits gets its identity", "its registration counts no failed entry", "a stranger gets no identity"),
	},
	Sources: []string{
		"https://github.com/spiffe/spire/blob/v1.15.3/doc/plugin_agent_workloadattestor_k8s.md (k8s:ns)",
		"https://github.com/spiffe/spire/blob/v1.15.3/doc/SPIRE101.md (an entry fits each workload that has all of its selectors)",
		"SPIFFE Workload API, section 5.2.1: a client should cease using what it is denied; go-spiffe, as our programs, keeps it",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var guest trial.Newcomer
		var stranger, next *trial.Traffic
		var broad *trial.Breakage
		comes := func(ctx context.Context) (calls *trial.Traffic, err error) {
			if guest, err = caller.Newcomer(ctx); err != nil {
				return nil, err
			}
			return guest.Calls(ctx, called)
		}
		t.Step(ctx, "let a newcomer come that is registered, and see it answered", func(ctx context.Context) error { return comesAndCalls(ctx, t) })
		t.Step(ctx, "let a stranger come that nobody has registered", func(ctx context.Context) (err error) {
			if stranger, err = comes(ctx); err != nil {
				return err
			}
			return t.Watch(ctx, "a stranger gets no identity", trial.Registered(), guest.Identity(), trial.NoIdentity)
		})
		t.Step(ctx, "register the probe once more, with its namespace for the only selector", func(ctx context.Context) error {
			probe, err := caller.Entry(ctx)
			if err != nil {
				return err
			}
			spec := staticEntry(probe, func(spec *spire.StaticEntrySpec) {
				spec.Selectors = slices.DeleteFunc(slices.Clone(spec.Selectors), func(s string) bool { return !strings.HasPrefix(s, "k8s:ns:") })
			})
			registered := time.Now()
			stranger.NoneAnswered("until then no call of the stranger is answered", time.Time{}, registered)
			if broad, err = t.Break(ctx, registration(caller, "broad", spec, isStatic(spec))); err != nil {
				return err
			}
			stranger.AnsweredBy("soon after each is, also when the entry is gone again", registered, trial.Reconciled())
			if err := t.Await(ctx, registered, trial.Reconciled(), guest.HasIdentity(), stranger.Ends(traffic.Answered)); err != nil {
				return err
			}
			return t.See(ctx, "the stranger has the identity then", guest.Identity(), caller.ID().String())
		})
		t.Step(ctx, "take that entry away: the stranger keeps what it has", func(ctx context.Context) error {
			if err := broad.Recover(ctx); err != nil {
				return err
			}
			if err := t.Stays(ctx, trial.Registered(), stranger.Ends(traffic.Answered)); err != nil {
				return err
			}
			if err := stranger.End(ctx); err != nil {
				return err
			}
			return guest.Leave(ctx)
		})
		t.Step(ctx, "let the next stranger come", func(ctx context.Context) (err error) {
			if next, err = comes(ctx); err != nil {
				return err
			}
			next.NoneAnswered("no call of the next stranger is answered", time.Time{}, time.Time{})
			return t.Watch(ctx, "the next stranger gets no identity", trial.Registered(), guest.Identity(), trial.NoIdentity)
		})
		return t.Err()
	},
}

// registration is the mistake to register a workload once more, by a resource of this name.
func registration(d trial.Domain, name string, spec any, is func(spire.Entry) bool) trial.Mistake {
	return trial.Mistake{
		What:      fmt.Sprintf("registration-%s/%s", name, d),
		Make:      func(ctx context.Context) error { return d.Write(ctx, name, spec) },
		Undo:      func(ctx context.Context) error { return d.Erase(ctx, name, spec) },
		Made:      entry(d, "of the registration "+name, is).Is(trial.There),
		Corrected: entry(d, "of the registration "+name, is).Is(trial.Absent),
	}
}

var wrongParent = trial.Scenario{
	Name:  "auth/wrong-parent",
	Claim: "An entry below another agent than that of the workload's node gives the workload no identity, although the server has the entry; below the right agent it does.",
	Parts: []trial.Part{
		trial.Carried("gives the workload no identity", "the newcomer gets no identity", "until then it can call nobody"),
		trial.Carried("although the server has the entry", "though the server has its entry"),
		trial.Carried("below the right agent it does", "it gets its identity then", "and it can after it"),
		trial.Carried("", "a newcomer whose registration fits gets its identity", "its registration counts no failed entry"),
	},
	Sources: []string{
		"https://github.com/spiffe/spire/blob/v1.15.3/doc/SPIRE101.md (parentID: the agent that may ask for the entry)",
		"SPIRE pkg/server/api/entry/v1/service.go, GetAuthorizedEntries: an agent gets the entries below it",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var guest trial.Newcomer
		var guests *trial.Traffic
		var wrong *trial.Breakage
		t.Step(ctx, "let a newcomer come that is registered, and see it answered", func(ctx context.Context) error { return comesAndCalls(ctx, t) })
		t.Step(ctx, "let another one come whose entry is below the agent of another node", func(ctx context.Context) (err error) {
			probe, err := caller.Entry(ctx)
			if err != nil {
				return err
			}
			below := func(agent spiffeid.ID) spire.StaticEntrySpec {
				return staticEntry(probe, func(spec *spire.StaticEntrySpec) {
					spec.ParentID, spec.Selectors = agent.String(), []string{"k8s:pod-label:" + guest.Label()}
				})
			}
			right, other := below(probe.ParentID), below(spire.AgentID(caller.Name, caller.Cluster().Name, "another-node"))
			made := entry(caller, "below the agent of another node", isStatic(other))
			t.Restore("take the entry of the newcomer away", func(ctx context.Context) error { return caller.Erase(ctx, "parent", right) })
			wrong, err = t.Break(ctx, trial.Mistake{
				What:      fmt.Sprintf("parent-of-entry/%s", caller),
				Make:      func(ctx context.Context) error { return caller.Write(ctx, "parent", other) },
				Undo:      func(ctx context.Context) error { return caller.Write(ctx, "parent", right) },
				Made:      made.Is(trial.There),
				Corrected: entry(caller, "below the agent of its node", isStatic(right)).Is(trial.There),
			})
			if err != nil {
				return err
			}
			if guest, err = caller.Newcomer(ctx); err != nil {
				return err
			}
			if guests, err = guest.Calls(ctx, called); err != nil {
				return err
			}
			if err := t.Watch(ctx, "the newcomer gets no identity", trial.Registered(), guest.Identity(), trial.NoIdentity); err != nil {
				return err
			}
			return t.See(ctx, "though the server has its entry", made, trial.There)
		})
		t.Step(ctx, "write the entry below the agent of its node", func(ctx context.Context) error {
			repaired := time.Now()
			guests.NoneAnswered("until then it can call nobody", time.Time{}, repaired)
			guests.AnsweredBy("and it can after it", repaired, trial.Reconciled())
			if err := t.Do(ctx, trial.ToCure, wrong.Recover); err != nil {
				return err
			}
			if err := t.Await(ctx, repaired, trial.Reconciled(), guest.HasIdentity(), guests.Ends(traffic.Answered)); err != nil {
				return err
			}
			return t.See(ctx, "it gets its identity then", guest.Identity(), caller.ID().String())
		})
		return t.Err()
	},
}

// secondPath is that of the SPIFFE ID that a second registration gives.
const secondPath = "/fedlab/second"

var twoIdentities = trial.Scenario{
	Name:  "auth/two-identities",
	Claim: "Of two ClusterSPIFFEIDs that fit a workload, a program that picks by the hint uses the one with that hint, and where both have it, SPIRE hands out the older entry's SVID alone: if the right one is made again, each call that expects its identity fails until the other is gone.",
	Parts: []trial.Part{
		trial.Carried("a program that picks by the hint uses the one with that hint", "no call fails while the second has no hint"),
		trial.Carried("SPIRE hands out the older entry's SVID alone", "nor while it has the hint and is the younger"),
		trial.Carried("if the right one is made again, each call that expects its identity fails", "each call fails from when the first one is made again until the other is gone"),
		trial.Carried("until the other is gone", "and calls are answered again after it"),
	},
	Sources: []string{
		"SPIFFE Workload API, section 5.2.1: a hint is unique among the SVIDs of a workload",
		"SPIRE pkg/agent/common/hintsfilter: of several entries with one hint the older counts",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var damage *trial.Breakage
		var since, again time.Time
		is := func(id spiffeid.ID, hint string) func(spire.Entry) bool {
			return func(e spire.Entry) bool { return e.SPIFFEID == id && e.Hint == hint }
		}
		other := spiffeid.RequireFromPath(called.Name, secondPath)
		calls := t.CallsThroughout(ctx, caller, called)
		for _, hinted := range []struct{ hint, what, says string }{
			{"", "without a hint", "no call fails while the second has no hint"},
			{spire.Hint, "with the hint of the first", "nor while it has the hint and is the younger"},
		} {
			t.StepWith(ctx, "let a second registration fit the called workload, "+hinted.what, "'fedlab status' names the resource", func(ctx context.Context) error {
				spec, err := called.Registration()
				if err != nil {
					return err
				}
				spec.SPIFFEIDTemplate, spec.Hint = "spiffe://{{ .TrustDomain }}"+secondPath, hinted.hint
				if damage, err = t.Break(ctx, registration(called, "second", spec, is(other, hinted.hint))); err != nil {
					return err
				}
				if err := t.Stays(ctx, trial.Registered(), calls.Ends(traffic.Answered)); err != nil {
					return err
				}
				now := time.Now()
				calls.AnsweredBetween(hinted.says, since, now)
				since = now
				return nil
			})
		}
		t.Step(ctx, "make the first one again, so that it is the younger", func(ctx context.Context) error {
			again = time.Now()
			if err := called.RemoveRegistration(ctx); err != nil {
				return err
			}
			first := entry(called, "of the first", is(called.ID(), spire.Hint))
			if err := t.Await(ctx, again, trial.ManagerLook(), first.Is(trial.Absent)); err != nil {
				return err
			}
			made := time.Now()
			if err := called.RestoreRegistration(ctx); err != nil {
				return err
			}
			if err := t.Await(ctx, made, trial.ManagerLook(), first.Is(trial.There)); err != nil {
				return err
			}
			if err := t.Await(ctx, again, trial.Reconciled(), calls.Ends(traffic.IdentityRefused)); err != nil {
				return err
			}
			return t.Stays(ctx, trial.Registered(), calls.Ends(traffic.IdentityRefused))
		})
		t.Step(ctx, "take the second one away", func(ctx context.Context) error {
			from := trial.Refusal{Says: "each call fails from when the first one is made again until the other is gone", Since: again, Bound: trial.Reconciled(), Ends: []traffic.Outcome{traffic.IdentityRefused}}
			return calls.Cure(ctx, from, damage.Recover, trial.Reconciled(), calls.Ends(traffic.Answered))
		})
		return t.Err()
	},
}
