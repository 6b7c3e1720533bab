package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/config"
	"github.com/fedlab-dev/fedlab/lab/demo"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

func TestCatalogue(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Catalogue() {
		group, what, ok := strings.Cut(s.Name, "/")
		switch {
		case !ok || group == "" || what == "" || strings.Contains(what, "/"):
			t.Errorf("scenario %q: want a name of the form group/what", s.Name)
		case seen[s.Name]:
			t.Errorf("two scenarios are called %s", s.Name)
		case !strings.HasSuffix(s.Claim, ".") || strings.Contains(strings.TrimSuffix(s.Claim, "."), ". "):
			t.Errorf("the claim of %s is not one sentence: %q", s.Name, s.Claim)
		case s.Run == nil:
			t.Errorf("%s does nothing", s.Name)
		}
		for _, l := range s.Labels {
			if l != Slow && l != CI {
				t.Errorf("%s has the label %q, of which nobody knows what it means", s.Name, l)
			}
		}
		seen[s.Name] = true
	}
	for _, group := range []string{"rotation", "outage", "drift", "auth"} {
		some, err := Labelled(group)
		if err != nil || len(some) < 4 {
			t.Errorf("group %s has %d scenarios, %v", group, len(some), err)
		}
	}
}

func TestFindTellsWhatThereIs(t *testing.T) {
	_, err := Find("rotation/none")
	unknown := (*UnknownError)(nil)
	if !errors.As(err, &unknown) || err.Error() != `there is no scenario "rotation/none"` || len(unknown.Known) != len(Catalogue()) {
		t.Errorf("error is %v", err)
	}
	_, err = Labelled("quick")
	if !errors.As(err, &unknown) || err.Error() != `there is no label "quick"` || !slices.Contains(unknown.Known, "drift") {
		t.Errorf("error is %v, of %v", err, unknown.Known)
	}
}

func TestShuffledBySeed(t *testing.T) {
	names := func(seed uint64) string {
		var list []string
		for _, s := range Shuffled(Catalogue(), seed) {
			list = append(list, s.Name)
		}
		return strings.Join(list, " ")
	}
	one := names(7)
	if again := names(7); again != one {
		t.Errorf("one seed makes two orders: %s, and %s", one, again)
	}
	if names(8) == one {
		t.Error("two seeds make one order")
	}
}

// resolved returns the graph of a lab that has no network.
func resolved(t *testing.T, top topology.Topology) *topology.Graph {
	t.Helper()
	g, err := topology.Resolve(top, netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestPairOf(t *testing.T) {
	for preset, want := range map[string]string{
		"quotes":     "cluster1.com cluster2.com",
		"enterprise": "aws.company.com gcp.company.com",
	} {
		f, err := config.For(demo.Apps()).Open(preset)
		if err != nil {
			t.Fatal(err)
		}
		called, caller, err := pairOf(resolved(t, f.Topology))
		if err != nil {
			t.Fatal(err)
		}
		if got := called.Name.Name() + " " + caller.Name.Name(); got != want {
			t.Errorf("%s: pair is %s, want %s", preset, got, want)
		}
		f.Topology.Relationships = f.Topology.Relationships[:1]
		needs := (*NeedsError)(nil)
		if _, _, err := pairOf(resolved(t, f.Topology)); !errors.As(err, &needs) || needs.Lab != f.Topology.Name {
			t.Errorf("%s with one direction: error is %v, want a NeedsError", preset, err)
		}
	}
}

func TestRunsOn(t *testing.T) {
	s, err := Find("outage/datastore")
	if err != nil {
		t.Fatal(err)
	}
	for lab, want := range map[string]string{
		"enterprise": "",
		"quotes":     "lab quotes is not one that outage/datastore can run on: it needs a SPIRE server with a PostgreSQL, that of the called trust domain; 'datastore: postgres' in the lab file gives it one",
	} {
		f, err := config.For(demo.Apps()).Open(lab)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := s.RunsOn(resolved(t, f.Topology)); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("error is %q\nwant     %q", got, want)
		}
		if err := server.RunsOn(resolved(t, f.Topology)); err != nil {
			t.Errorf("a scenario without needs: %v", err)
		}
		f.Topology.Relationships = nil
		needs := (*NeedsError)(nil)
		if err := s.RunsOn(resolved(t, f.Topology)); !errors.As(err, &needs) || needs.Scenario != "" {
			t.Errorf("on a lab for no scenario: error is %v", err)
		}
	}
}

// run runs a scenario that needs no lab.
func run(t *testing.T, mutation Mutation, do func(ctx context.Context, t *Trial) error) Record {
	t.Helper()
	trial := &Trial{scenario: Scenario{Name: "test/one"}, mutation: mutation}
	if err := do(t.Context(), trial); trial.err == nil {
		trial.err = err
	}
	trial.finish(t.Context())
	return trial.record
}

func TestNothingRunsAfterAStepThatFails(t *testing.T) {
	var did []string
	note := func(what string, err error) func(context.Context) error {
		return func(context.Context) error {
			did = append(did, what)
			return err
		}
	}
	r := run(t, "", func(ctx context.Context, trial *Trial) error {
		trial.Restore("undo the first", note("undo 1", errors.New("it stays")))
		trial.Step(ctx, "do one thing", note("1", nil))
		trial.Restore("undo the second", note("undo 2", nil))
		trial.Step(ctx, "do another", note("2", errors.New("no such thing")))
		trial.Step(ctx, "do the last", note("3", nil))
		return trial.Err()
	})
	if got, want := strings.Join(did, ", "), "1, 2, undo 2, undo 1"; got != want {
		t.Errorf("it did %s, want %s", got, want)
	}
	if want := "do another: no such thing\nput the lab back: undo the first: it stays"; r.Error != want || r.Holds {
		t.Errorf("error is %q, holds %t; want %q", r.Error, r.Holds, want)
	}
	var steps []string
	for _, s := range r.Steps {
		steps = append(steps, fmt.Sprintf("%s %t %q", s.Name, s.Restore, s.Error))
	}
	want := []string{`do one thing false ""`, `do another false "no such thing"`, `undo the second true ""`, `undo the first true "it stays"`}
	if !slices.Equal(steps, want) {
		t.Errorf("steps are %q, want %q", steps, want)
	}
}

func TestWhoClaimsNothingDoesNotHold(t *testing.T) {
	r := run(t, "", func(ctx context.Context, trial *Trial) error {
		trial.Step(ctx, "look", func(context.Context) error { return nil })
		return trial.Err()
	})
	if r.Holds || r.Error != "the scenario claims nothing" {
		t.Errorf("holds %t, error %q", r.Holds, r.Error)
	}
}

// answering is a caller whose calls were all answered, ten of them.
type answering struct{ began time.Time }

func (answering) Start(context.Context, traffic.Order) error { return nil }

func (a answering) Stream(_ context.Context, name string) (traffic.Stream, error) {
	s := traffic.Stream{Order: traffic.Order{Name: name, Every: time.Second, Within: time.Second}, Began: a.began, Ended: a.began.Add(10 * time.Second)}
	for i := range 10 {
		s.Calls = append(s.Calls, traffic.Call{Number: i + 1, At: a.began.Add(time.Duration(i) * time.Second), Outcome: traffic.Answered})
	}
	return s, nil
}

func (a answering) Stop(ctx context.Context, name string) (traffic.Stream, error) {
	return a.Stream(ctx, name)
}

func TestVerdictsComeFromTheRecord(t *testing.T) {
	for mutation, want := range map[Mutation]bool{"": true, RecordNothing: false} {
		began := time.Now()
		r := run(t, mutation, func(_ context.Context, trial *Trial) error {
			s := &Traffic{trial: trial, probe: answering{began}, order: traffic.Order{Name: "calls"}, since: began}
			trial.streams = append(trial.streams, s)
			s.AllAnswered("no call failed")
			return nil
		})
		if r.Holds != want || len(r.Verdicts) != 1 || r.Verdicts[0].Holds != want || (r.Verdicts[0].Why == "") != want {
			t.Errorf("mutation %q: holds %t, verdicts %+v", mutation, r.Holds, r.Verdicts)
		}
		// Judged again, the record says the same, also when somebody has edited the
		// verdict.
		r.Holds, r.Verdicts[0].Holds, r.Verdicts[0].Why = !want, !want, "edited"
		if again := Judge(r); again.Holds != want || again.Verdicts[0].Holds != want {
			t.Errorf("mutation %q, judged again: holds %t, verdicts %+v", mutation, again.Holds, again.Verdicts)
		}
	}
}

func TestAcceptAnyIsSeenByWhatMustBeRefused(t *testing.T) {
	s := traffic.Stream{Calls: []traffic.Call{{Outcome: traffic.RefusedByServer}}}
	AcceptAny.spoil(&s)
	if s.Calls[0].Outcome != traffic.Answered {
		t.Errorf("the call is %s", s.Calls[0].Outcome)
	}
}

func TestAwaitMeasuresFromSince(t *testing.T) {
	r := run(t, "", func(ctx context.Context, trial *Trial) error {
		trial.Step(ctx, "wait", func(ctx context.Context) error {
			return trial.Await(ctx, time.Now().Add(-time.Minute), Bound{Within: time.Hour, Formula: "an hour", Propagation: true}, check.Check{
				Name: "it is there", Probe: func(context.Context) error { return nil },
			})
		})
		return trial.Err()
	})
	if len(r.Measures) != 1 || r.Measures[0].Took < time.Minute || r.Measures[0].Bound != time.Hour || !r.Measures[0].Propagation || r.Measures[0].Allowed != time.Hour+machinePoll {
		t.Errorf("measures are %+v", r.Measures)
	}
	r = run(t, "", func(ctx context.Context, trial *Trial) error {
		trial.Step(ctx, "wait", func(ctx context.Context) error {
			return trial.Await(ctx, time.Now().Add(-time.Hour), Bound{Within: time.Minute}, check.Check{
				Name: "it is there", Probe: func(context.Context) error { return errors.New("it is not") },
			})
		})
		return trial.Err()
	})
	if !strings.Contains(r.Error, "it is not") || len(r.Measures) != 0 {
		t.Errorf("error is %q, measures are %+v; want what was seen, and no measure", r.Error, r.Measures)
	}
}

func TestStaysEndsWithWhatItSees(t *testing.T) {
	looks := 0
	r := run(t, "", func(ctx context.Context, trial *Trial) error {
		trial.Step(ctx, "watch", func(ctx context.Context) error {
			return trial.Stays(ctx, time.Minute, "a minute", check.Check{Name: "it is quiet", Probe: func(context.Context) error {
				if looks++; looks == 3 {
					return errors.New("it barks")
				}
				return nil
			}})
		})
		return trial.Err()
	})
	if r.Error != "watch: it is quiet: not any more: it barks" || looks != 3 {
		t.Errorf("error is %q after %d looks", r.Error, looks)
	}
}
