package trial

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

// resolved returns the graph of a lab that has no network.
func resolved(t *testing.T, top topology.Topology) *topology.Graph {
	t.Helper()
	g, err := topology.Resolve(top, netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// names are relationships as --on has them.
func names(all []On) string {
	var text []string
	for _, o := range all {
		text = append(text, o.String())
	}
	return strings.Join(text, " ")
}

// opened returns a preset that a test may change.
func opened(t *testing.T, preset string) topology.Topology {
	t.Helper()
	f, err := config.For(demo.Apps()).Open(preset)
	if err != nil {
		t.Fatal(err)
	}
	return f.Topology
}

func TestRunsOnWhatCanCallEachOther(t *testing.T) {
	for preset, want := range map[string]string{
		"quotes":     "cluster2.com->cluster1.com cluster1.com->cluster2.com",
		"enterprise": "gcp.company.com->aws.company.com aws.company.com->gcp.company.com onprem.company.com->aws.company.com aws.company.com->onprem.company.com onprem.company.com->gcp.company.com gcp.company.com->onprem.company.com",
		"company":    "",
	} {
		got, err := (Scenario{}).RunsOn(resolved(t, opened(t, preset)))
		if preset == "company" {
			// The partner's server is on a host.
			if err != nil || len(got) == 0 || strings.Contains(names(got), "partner") {
				t.Errorf("%s: it runs on %s, error %v", preset, names(got), err)
			}
			continue
		}
		if err != nil || names(got) != want {
			t.Errorf("%s: it runs on %s, error %v; want %s", preset, names(got), err, want)
		}
	}
}

// What has no server of its own in a cluster, or a nested one, is nothing to run on.
func TestRunsOnNoHostAndNothingNested(t *testing.T) {
	for name, change := range map[string]func(*topology.Topology){
		"one direction": func(top *topology.Topology) { top.Relationships = top.Relationships[:1] },
		"a nested server": func(top *topology.Topology) {
			top.Clusters = append(top.Clusters, topology.NewCluster("branch", len(top.Clusters)))
			top.TrustDomains[0].Members = []topology.MemberSpec{{Cluster: "branch", Nested: true}}
		},
	} {
		top := opened(t, "quotes")
		change(&top)
		needs := (*NeedsError)(nil)
		if _, err := (Scenario{Name: "a/b"}).RunsOn(resolved(t, top)); !errors.As(err, &needs) || needs.Lab != "quotes" || needs.Scenario != "" {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func TestRunsOnWhatHasWhatItNeeds(t *testing.T) {
	postgres := Need{"a PostgreSQL", func(r *topology.Trust) bool { return r.Trusted.Datastore == topology.Postgres }}
	never := Need{"the moon", func(*topology.Trust) bool { return false }}
	g := resolved(t, opened(t, "enterprise"))
	for _, tt := range []struct {
		needs []Need
		on    string // asked for alone
		want  string
		fails string
	}{
		{[]Need{postgres}, "", "gcp.company.com->aws.company.com onprem.company.com->aws.company.com", ""},
		{[]Need{postgres}, "onprem.company.com->aws.company.com", "onprem.company.com->aws.company.com", ""},
		{[]Need{postgres}, "aws.company.com->gcp.company.com", "", "a/b cannot run on aws.company.com->gcp.company.com: it needs a PostgreSQL"},
		{[]Need{postgres, never}, "", "", "lab enterprise is not one that a/b can run on: it needs the moon"},
		{nil, "gcp.company.com->gcp.company.com", "", "a/b cannot run on gcp.company.com->gcp.company.com: it needs two trust domains that trust each other, with servers in clusters and none of them nested"},
	} {
		s := Scenario{Name: "a/b", Needs: tt.needs}
		got, err := s.RunsOn(g)
		if tt.on != "" {
			got, err = s.RunsOnOne(g, tt.on)
		}
		failed := ""
		if err != nil {
			failed = err.Error()
		}
		if names(got) != tt.want || failed != tt.fails {
			t.Errorf("on %q: %s, error %q; want %s, %q", tt.on, names(got), failed, tt.want, tt.fails)
		}
	}
	if _, err := (Scenario{Name: "a/b", Needs: []Need{postgres}}).RunsOn(resolved(t, opened(t, "quotes"))); err == nil || err.Error() != "lab quotes is not one that a/b can run on: it needs a PostgreSQL" {
		t.Errorf("on quotes: error is %v", err)
	}
}

// run runs a scenario that needs no lab.
func run(t *testing.T, do func(ctx context.Context, t *Trial) error) Record {
	t.Helper()
	trial := &Trial{session: &Session{runner: &Runner{}}, operator: honest{}, record: Record{Scenario: "test/one"}}
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
	r := run(t, func(ctx context.Context, trial *Trial) error {
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
	if want := "do another: no such thing\nput the lab back: undo the first: it stays"; r.Error != want || r.Result != DoesNotHold {
		t.Errorf("error is %q, result %q; want %q", r.Error, r.Result, want)
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

// careless is an operator who is not the trial's own.
type careless struct{ Operator }

func TestLabIsPutBackByTheTrialsOwnOperator(t *testing.T) {
	var during, after Operator
	run(t, func(_ context.Context, trial *Trial) error {
		trial.Employ(func(o Operator) Operator { return careless{o} })
		trial.Restore("look", func(context.Context) error {
			after = trial.operator
			return nil
		})
		during = trial.operator
		return nil
	})
	if during != (careless{honest{}}) || after != (honest{}) {
		t.Errorf("the operator is %T, and %T when the lab is put back", during, after)
	}
}

func TestWhoClaimsNothingDoesNotHold(t *testing.T) {
	r := run(t, func(ctx context.Context, trial *Trial) error {
		trial.Step(ctx, "look", func(context.Context) error { return nil })
		return trial.Err()
	})
	if r.Result != DoesNotHold || r.Error != "the scenario claims nothing" {
		t.Errorf("result %q, error %q", r.Result, r.Error)
	}
}

// answering is a caller whose calls were all answered, ten of them, or refused. It may lose
// its record.
type answering struct {
	began   time.Time
	loses   bool
	refused bool
}

func (answering) Start(context.Context, traffic.Order) error { return nil }

func (a answering) Stream(_ context.Context, name string) (traffic.Stream, error) {
	s := traffic.Stream{Order: traffic.Order{Name: name, Every: time.Second, Within: time.Second}, Began: a.began, Ended: a.began.Add(10 * time.Second)}
	for i := range 10 {
		if a.loses {
			break
		}
		c := traffic.Call{Number: i + 1, At: a.began.Add(time.Duration(i) * time.Second), Outcome: traffic.Answered}
		if a.refused {
			c.Outcome = traffic.RefusedByServer
		}
		s.Calls = append(s.Calls, c)
	}
	return s, nil
}

func (a answering) Stop(ctx context.Context, name string) (traffic.Stream, error) {
	return a.Stream(ctx, name)
}

func TestVerdictsComeFromTheRecord(t *testing.T) {
	for loses, want := range map[bool]Result{false: Holds, true: DoesNotHold} {
		began := time.Now()
		r := run(t, func(_ context.Context, trial *Trial) error {
			s := &Traffic{trial: trial, probe: answering{began: began, loses: loses}, order: traffic.Order{Name: "calls"}, since: began}
			trial.streams = append(trial.streams, s)
			s.AllAnswered("no call failed")
			return nil
		})
		if r.Result != want || len(r.Verdicts) != 1 || r.Verdicts[0].Result != want || (r.Verdicts[0].Why == "") != (want == Holds) {
			t.Errorf("the record is lost %t: result %q, verdicts %+v", loses, r.Result, r.Verdicts)
		}
		// Judged again, the record says the same, also when somebody has edited the
		// verdict.
		r.Result, r.Verdicts[0].Result, r.Verdicts[0].Why = NotJudged, NotJudged, "edited"
		if again := Judge(r); again.Result != want || again.Verdicts[0].Result != want || r.Verdicts[0].Why != "edited" {
			t.Errorf("the record is lost %t, judged again: result %q, verdicts %+v", loses, again.Result, again.Verdicts)
		}
	}
}

// TestARefusalDoesNotHoldWithoutControl: whatever a scenario claims of calls that are refused,
// the engine asks for a call of that caller which was answered before.
func TestARefusalDoesNotHoldWithoutControl(t *testing.T) {
	refused := []traffic.Outcome{traffic.RefusedByServer}
	for what, claim := range map[string]func(ctx context.Context, s *Traffic) error{
		"none is answered": func(_ context.Context, s *Traffic) error {
			s.NoneAnswered("none", s.since, s.since.Add(8*time.Second))
			return nil
		},
		"refused by": func(_ context.Context, s *Traffic) error {
			s.RefusedBy("refused", s.since, NextCall(), s.since.Add(8*time.Second), refused...)
			return nil
		},
		"a cure": func(ctx context.Context, s *Traffic) error {
			nothing := func(context.Context) error { return nil }
			return s.Cure(ctx, Refusal{Says: "refused", Since: s.since, Bound: NextCall(), Ends: refused}, nothing, NextCall(), check.Check{Name: "so", Probe: nothing})
		},
	} {
		for _, control := range []bool{false, true} {
			began := time.Now().Add(-9 * time.Second)
			r := run(t, func(ctx context.Context, trial *Trial) error {
				if control {
					honest := began.Add(-20 * time.Second)
					trial.streams = append(trial.streams, &Traffic{trial: trial, probe: answering{began: honest}, order: traffic.Order{Name: "honest"}, since: honest})
				}
				s := &Traffic{trial: trial, probe: answering{began: began, refused: true}, order: traffic.Order{Name: "calls"}, since: began}
				trial.streams = append(trial.streams, s)
				return claim(ctx, s)
			})
			v := r.Verdicts[0]
			if r.Error != "" || (v.Result == Holds) != control || strings.Contains(v.Why, "the control is missing") == control {
				t.Errorf("%s, with a control %t: %s, because %q, error %q", what, control, v.Result, v.Why, r.Error)
			}
		}
	}
}

// The verdicts of a run are those that its scenario names: one that is missing does not hold,
// and one that nobody knows ends the run with an error.
func TestEachVerdictCarriesAPart(t *testing.T) {
	for name, tt := range map[string]struct {
		parts []Part
		want  []Result
		err   string
	}{
		"nobody says":      {nil, []Result{Holds}, ""},
		"it is the one":    {[]Part{Carried("calls go on", "no call failed")}, []Result{Holds}, ""},
		"there are others": {[]Part{Carried("calls go on", "no call failed", "it stays"), Carried("", "it was there")}, []Result{Holds, DoesNotHold, DoesNotHold}, ""},
		"it is another":    {[]Part{Carried("it stays", "it stays")}, []Result{Holds, DoesNotHold}, `the verdict "no call failed" carries no part of the claim`},
	} {
		began := time.Now()
		r := run(t, func(_ context.Context, trial *Trial) error {
			trial.parts = tt.parts
			s := &Traffic{trial: trial, probe: answering{began: began}, order: traffic.Order{Name: "calls"}, since: began}
			trial.streams = append(trial.streams, s)
			s.AllAnswered("no call failed")
			return nil
		})
		var got []Result
		for _, v := range Judge(r).Verdicts {
			if v.Rule == "" && v.Why != "the run never came to it" {
				t.Errorf("%s: why is %q", name, v.Why)
			}
			got = append(got, v.Result)
		}
		if !slices.Equal(got, tt.want) || r.Error != tt.err || r.Result.Held() != (len(tt.want) == 1 && tt.err == "") {
			t.Errorf("%s: %s, verdicts %q, error %q", name, r.Result, got, r.Error)
		}
	}
}

func TestAwaitMeasuresFromSince(t *testing.T) {
	r := run(t, func(ctx context.Context, trial *Trial) error {
		trial.Step(ctx, "wait", func(ctx context.Context) error {
			return trial.Await(ctx, time.Now().Add(-time.Minute), Bound{Within: time.Hour, Formula: "an hour", Propagation: true}, check.Check{
				Name: "it is there", Probe: func(context.Context) error { return nil },
			})
		})
		return trial.Err()
	})
	if len(r.Measures) != 1 || r.Measures[0].Took < time.Minute || r.Measures[0].Bound != time.Hour || !r.Measures[0].Propagation || r.Measures[0].Result != Holds {
		t.Errorf("measures are %+v", r.Measures)
	}
	r = run(t, func(ctx context.Context, trial *Trial) error {
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

// recorded is a caller with a record.
type recorded struct {
	Caller
	calls []traffic.Call
}

func (r recorded) Stream(context.Context, string) (traffic.Stream, error) {
	return traffic.Stream{Calls: r.calls}, nil
}

// TestAwaitMeasuresCallsByTheirRecord: what calls show took until the last one that showed
// otherwise, however late somebody looks.
func TestAwaitMeasuresCallsByTheirRecord(t *testing.T) {
	since := time.Now().Add(-time.Minute)
	call := func(after time.Duration, ended traffic.Outcome) traffic.Call {
		return traffic.Call{At: since.Add(after), Outcome: ended}
	}
	r := run(t, func(ctx context.Context, trial *Trial) error {
		stream := func(calls ...traffic.Call) *Traffic { return &Traffic{trial: trial, probe: recorded{calls: calls}} }
		trial.Step(ctx, "wait", func(ctx context.Context) error {
			return trial.Await(ctx, since, Bound{Within: 2 * time.Second},
				stream(call(-time.Second, traffic.Expired), call(time.Second, traffic.Answered), call(1900*time.Millisecond, traffic.Expired),
					call(2300*time.Millisecond, traffic.Answered), call(2700*time.Millisecond, traffic.Answered)).Ends(traffic.Answered),
				stream(call(-time.Second, traffic.Expired), call(time.Second, traffic.Answered), call(2*time.Second, traffic.Answered)).Ends(traffic.Answered),
				check.Check{Name: "something else", Probe: func(context.Context) error { return nil }})
		})
		return trial.Err()
	})
	var took []time.Duration
	for _, m := range r.Measures {
		took = append(took, m.Took)
	}
	if len(took) != 3 || took[0] != 1900*time.Millisecond || took[1] != 0 || took[2] < time.Minute {
		t.Errorf("waits took %v, want 1.9s, 0s and above a minute", took)
	}
}

func TestStaysEndsWithWhatItSees(t *testing.T) {
	looks := 0
	r := run(t, func(ctx context.Context, trial *Trial) error {
		trial.Step(ctx, "watch", func(ctx context.Context) error {
			return trial.Stays(ctx, Bound{Within: time.Minute, Formula: "a minute"}, check.Check{Name: "it is quiet", Probe: func(context.Context) error {
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
