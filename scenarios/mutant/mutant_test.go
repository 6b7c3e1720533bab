package mutant

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// refused is a record of calls that were refused, as was claimed.
func refused() trial.Record {
	began := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	s := traffic.Stream{
		Order: traffic.Order{Name: "calls", Every: time.Second, Within: time.Second},
		Began: began, Ended: began.Add(10 * time.Second),
	}
	for i := range 10 {
		s.Calls = append(s.Calls, traffic.Call{Number: i + 1, At: began.Add(time.Duration(i) * time.Second), Outcome: traffic.RefusedByServer})
	}
	return trial.Judge(trial.Record{Streams: []traffic.Stream{s}, Verdicts: []trial.Verdict{
		{Verdict: traffic.Verdict{Says: "none is answered", Rule: traffic.NoneAnswered, Stream: "calls", From: began}},
	}})
}

// A record that is lost has no looks either.
func TestLooksAreLost(t *testing.T) {
	r := refused()
	r.Looks = []trial.Look{{Of: "it", At: r.Streams[0].Began, Seen: "broken"}}
	for _, m := range Mutations() {
		if got := m.record(r); (len(got.Looks) == 0) != (m == RecordNothing) {
			t.Errorf("mutation %q: looks are %+v", m, got.Looks)
		}
	}
}

func TestRecordIsMadeWrongAndJudgedAgain(t *testing.T) {
	if r := refused(); r.Result != trial.Holds {
		t.Fatalf("the record itself does not hold: %+v", r.Verdicts)
	}
	for _, m := range append(Mutations(), "") {
		r := refused()
		got := m.record(r)
		if want := m != AcceptAny && m != RecordNothing; (got.Result == trial.Holds) != want || got.Mutation != string(m) {
			t.Errorf("mutation %q: result %q, says that it is of %q, verdicts %+v", m, got.Result, got.Mutation, got.Verdicts)
		}
		if r.Result != trial.Holds || r.Streams[0].Calls[0].Outcome != traffic.RefusedByServer {
			t.Errorf("mutation %q changes the record that it was given", m)
		}
	}
}

// careful notes what it was asked to do.
type careful struct{ did []string }

func (c *careful) Inject(ctx context.Context, f fault.Fault) (fault.Injected, error) {
	return f.Inject(ctx)
}

func (c *careful) Do(ctx context.Context, act trial.Act, do func(context.Context) error) error {
	c.did = append(c.did, string(act))
	return do(ctx)
}

func (c *careful) Port(meant int) int { return meant }

func TestPort(t *testing.T) {
	for m, want := range map[Mutation]int{"": 8443, NoCure: 8443, NoAuthentication: trial.AnybodyPort} {
		if got := (&operator{Operator: &careful{}, makes: m}).Port(8443); got != want {
			t.Errorf("mutation %q: port %d, want %d", m, got, want)
		}
	}
}

func TestOperatorLeavesOneThingOut(t *testing.T) {
	acts := []trial.Act{trial.ToChange, trial.ToTaint, trial.ToRevoke, trial.ToRefresh, trial.ToCure}
	const all = "change taint revoke refresh cure"
	for m, want := range map[Mutation]string{
		"": all, AcceptAny: all, NoAuthentication: all, RecordNothing: all, RecoverEarly: all,
		SkipTaint: "change revoke refresh cure", KeepOldBundle: "change taint refresh cure", NeverRefresh: "change taint revoke cure",
		NoFault: "taint revoke refresh cure", NoCure: "change taint revoke refresh", KillWorkload: "change kill taint revoke refresh cure",
	} {
		var c careful
		o := operator{Operator: &c, makes: m, kill: func(context.Context) error {
			c.did = append(c.did, "kill")
			return nil
		}}
		for _, act := range acts {
			if err := o.Do(t.Context(), act, func(context.Context) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Join(c.did, " "); got != want {
			t.Errorf("mutation %q: the operator does %q, want %q", m, got, want)
		}
	}
}

// A fault that is not injected is one that everybody takes for felt, and for healed.
func TestNoFault(t *testing.T) {
	var b broken
	injected, err := (&operator{Operator: &careful{}, makes: NoFault}).Inject(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(injected.Felt().Probe(t.Context()), injected.Recover(t.Context()), injected.Healed().Probe(t.Context())); err != nil || len(b.did) > 0 {
		t.Errorf("error %v, it did %q; want nothing", err, b.did)
	}
}

// broken is a fault that is felt with the second look, and healed with the second
// look after it is over.
type broken struct{ did []string }

func (*broken) Name() string { return "broken/here" }

func (b *broken) Inject(context.Context) (fault.Injected, error) {
	b.did = append(b.did, "inject")
	return b, nil
}

func (b *broken) look(name string) check.Check {
	looks := 0
	return check.Check{Name: name, Probe: func(context.Context) error {
		b.did = append(b.did, name)
		if looks++; looks < 2 {
			return errors.New("not yet")
		}
		return nil
	}}
}

func (b *broken) Felt() check.Check   { return b.look("felt") }
func (b *broken) Healed() check.Check { return b.look("healed") }

func (b *broken) Recover(context.Context) error {
	b.did = append(b.did, "recover")
	return nil
}

// TestRecoveredEarly: who waits until the fault is felt finds it over.
func TestRecoveredEarly(t *testing.T) {
	var b broken
	injected, err := (&operator{Operator: &careful{}, makes: RecoverEarly}).Inject(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	if err := check.Until(t.Context(), check.Bound{Within: time.Minute}, injected.Felt()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"inject", "felt", "felt", "recover", "healed", "healed"}; !slices.Equal(b.did, want) {
		t.Errorf("it did %q, want %q", b.did, want)
	}
}
