package trial

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

// settling is a caller whose calls, one in a second, are answered from some moment on.
func settling(began time.Time, after time.Duration) traffic.Stream {
	s := traffic.Stream{Order: traffic.Order{Name: "calls", Every: time.Second, Within: time.Second}, Began: began, Ended: began.Add(20 * time.Second)}
	for i := range 20 {
		c := traffic.Call{Number: i + 1, At: began.Add(time.Duration(i) * time.Second), Outcome: traffic.Answered}
		if c.At.Sub(began) < after {
			c.Outcome = traffic.NoAnswer
		}
		s.Calls = append(s.Calls, c)
	}
	return s
}

func TestJudgeTellsLateFromWrong(t *testing.T) {
	began := time.Date(2026, time.March, 14, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		took, settled time.Duration
		slack         Slack
		failed        string
		want          []Result // of the run, the measure and the verdict
	}{
		"at the bound":              {4 * time.Second, 5 * time.Second, Slack{}, "", []Result{Holds, Holds, Holds}},
		"a little after":            {4*time.Second + 1, 6 * time.Second, Slack{}, "", []Result{DoesNotHold, DoesNotHold, DoesNotHold}},
		"at bound and slack":        {6 * time.Second, 7 * time.Second, Slack{Timer: time.Second, Call: time.Second}, "", []Result{Late, Late, Late}},
		"a measure is late":         {6 * time.Second, 3 * time.Second, Slack{Control: 2 * time.Second}, "", []Result{Late, Late, Holds}},
		"a verdict is late":         {3 * time.Second, 6 * time.Second, Slack{Control: 2 * time.Second}, "", []Result{Late, Holds, Late}},
		"after bound and slack":     {7 * time.Second, 3 * time.Second, Slack{Call: 2 * time.Second}, "", []Result{DoesNotHold, DoesNotHold, Holds}},
		"a step failed":             {3 * time.Second, 3 * time.Second, Slack{}, "no such thing", []Result{DoesNotHold, Holds, Holds}},
		"as much slack as may be":   {14 * time.Second, 3 * time.Second, Slack{Timer: MaxSlack}, "", []Result{Late, Late, Holds}},
		"more slack than that":      {3 * time.Second, 3 * time.Second, Slack{Timer: MaxSlack, Call: 1}, "", []Result{NotJudged, Holds, Holds}},
		"too slow, and it failed":   {3 * time.Second, 3 * time.Second, Slack{Timer: MaxSlack, Call: 1}, "no such thing", []Result{NotJudged, Holds, Holds}},
		"slack and nothing is late": {3 * time.Second, 3 * time.Second, Slack{Call: time.Second}, "", []Result{Holds, Holds, Holds}},
	} {
		t.Run(name, func(t *testing.T) {
			r := Judge(Record{
				Error: tt.failed, Slack: tt.slack, Streams: []traffic.Stream{settling(began, tt.settled)},
				Measures: []Measure{{At: began, Took: tt.took, Bound: 4 * time.Second, Slack: tt.slack.Total()}},
				Verdicts: []Verdict{{Verdict: traffic.Verdict{Rule: traffic.AnsweredBy, Stream: "calls", From: began, Within: 4 * time.Second, Slack: tt.slack.Total()}}},
			})
			if got := []Result{r.Result, r.Measures[0].Result, r.Verdicts[0].Result}; !slices.Equal(got, tt.want) {
				t.Errorf("results %q, want %q", got, tt.want)
			}
			if why := r.Verdicts[0].Why; (why == "") != (r.Verdicts[0].Result == Holds) {
				t.Errorf("%s, because %q", r.Verdicts[0].Result, why)
			}
		})
	}
}

func TestCounted(t *testing.T) {
	all := []Record{{Result: Holds}, {Result: Late}, {Result: DoesNotHold}, {Result: NotJudged}}
	for n, want := range map[int]string{1: "1 of 1 hold", 2: "2 of 2 hold, 1 of them late", 3: "2 of 3 hold, 1 of them late", 4: "2 of 4 hold, 1 of them late; 1 not judged"} {
		if got := Counted(all[:n]); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestAwaitGoesOnForTheMostSlack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for after, want := range map[time.Duration]Result{
			4 * time.Second: Holds, 4*time.Second + pace: DoesNotHold, 4*time.Second + MaxSlack - pace: DoesNotHold,
		} {
			began := time.Now()
			r := run(t, func(ctx context.Context, trial *Trial) error {
				return trial.Await(ctx, began, Bound{Within: 4 * time.Second, Formula: "four seconds"}, check.Check{Name: "it is there", Probe: func(context.Context) error {
					if time.Since(began) < after {
						return context.Canceled
					}
					return nil
				}})
			})
			if len(r.Measures) != 1 || r.Measures[0].Result != want || r.Measures[0].Took != after {
				t.Errorf("after %s: %+v, want one that %s", after, r.Measures, want)
			}
		}
	})
}

// What the machine delays by itself is measured: a timer that fires late.
func TestTimersAreMeasured(t *testing.T) {
	trial := &Trial{}
	ctx, cancel := context.WithTimeout(t.Context(), 5*timerEvery)
	defer cancel()
	trial.timers(ctx)
	if late := trial.record.Slack.Timer; late <= 0 || late > time.Minute {
		t.Errorf("timers were late by %s, want a little", late)
	}
	if text := trial.record.Slack.String(); !strings.Contains(text, "timer") || !strings.Contains(text, "control 0s") {
		t.Errorf("it says %q", text)
	}
}

func TestAFaultIsThereUntilItIsHealed(t *testing.T) {
	trial := &Trial{}
	for _, tt := range []struct {
		windows []Window
		want    bool
	}{{nil, false}, {[]Window{{Injected: time.Now()}}, true}, {[]Window{{Injected: time.Now(), Healed: time.Now()}}, false}} {
		trial.record.Windows = tt.windows
		if got := trial.broken(); got != tt.want {
			t.Errorf("%+v: broken %t", tt.windows, got)
		}
	}
}
