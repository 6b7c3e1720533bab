package trial

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fedlab-dev/fedlab/lab/traffic"
)

// What looks saw is judged from the record alone, and missing evidence never makes it hold.
func TestLooksAreJudged(t *testing.T) {
	began := time.Date(2026, time.March, 14, 12, 0, 0, 0, time.UTC)
	at := func(s float64) time.Time { return began.Add(time.Duration(s * float64(time.Second))) }
	// looks are as of a watch of four seconds, after a look while all was well.
	looks := func(change func(all []Look) []Look) []Look {
		all := []Look{{Of: "it", At: at(-5), Seen: "whole"}}
		for i := range 9 {
			all = append(all, Look{Of: "it", At: at(float64(i) / 2), Took: 100 * time.Millisecond, Seen: "broken"}, Look{Of: "another", At: at(float64(i) / 2), Seen: "whole"})
		}
		return change(all)
	}
	same := func(all []Look) []Look { return all }
	without := func(from, until float64) func([]Look) []Look {
		return func(all []Look) (some []Look) {
			for _, l := range all {
				if l.At.Before(at(from)) || l.At.After(at(until)) {
					some = append(some, l)
				}
			}
			return some
		}
	}
	edit := func(i int, change func(l *Look)) func([]Look) []Look {
		return func(all []Look) []Look {
			change(&all[i])
			return all
		}
	}
	const cannot = "it: rule looked cannot be judged: want a time from which, one until which, and what is to be seen"
	for name, tt := range map[string]struct {
		looks  func([]Look) []Look
		change func(v *Verdict)
		want   string
	}{
		"all saw it":                     {same, nil, ""},
		"one of several":                 {same, func(v *Verdict) { v.Want = []string{"gone", "broken"} }, ""},
		"one saw something else":         {edit(7, func(l *Look) { l.Seen = "whole" }), nil, "it: the look at 12:00:01.500 UTC saw: whole"},
		"one saw nothing":                {edit(7, func(l *Look) { l.Seen, l.Error = "", "no route" }), nil, "it: the look at 12:00:01.500 UTC failed: no route"},
		"what came later does not count": {edit(17, func(l *Look) { l.Seen = "whole" }), func(v *Verdict) { v.Until = at(3.9) }, ""},
		"nobody looked":                  {without(0, 9), nil, "it: nobody looked"},
		"nobody looked for a while":      {without(1, 2.1), nil, "it: nobody looked between 12:00:00.600 UTC and 12:00:02.500 UTC"},
		"nobody looked at first":         {without(0, 1), nil, "it: nobody looked between 12:00:00.000 UTC and 12:00:01.500 UTC"},
		"nobody looked at last":          {without(3, 9), nil, "it: nobody looked between 12:00:02.600 UTC and 12:00:04.000 UTC"},
		"the machine was slow":           {without(1, 2.1), func(v *Verdict) { v.Slack = 2 * time.Second }, ""},
		"a look took long":               {func(all []Look) []Look { all = without(1, 2.1)(all); all[3].Took = 1500 * time.Millisecond; return all }, nil, ""},
		"a single look":                  {same, func(v *Verdict) { v.Until = v.From }, ""},
		"it was never well":              {edit(0, func(l *Look) { l.Seen = "broken" }), nil, "it: the control is missing: no look before 12:00:00.000 UTC saw: whole"},
		"another was well":               {edit(0, func(l *Look) { l.Of = "another" }), nil, "it: the control is missing: no look before 12:00:00.000 UTC saw: whole"},
		"well is what is claimed":        {edit(0, func(l *Look) { l.Seen = "gone" }), func(v *Verdict) { v.Well = "broken" }, ""},
		"nothing is well or not":         {edit(0, func(l *Look) { l.Seen = "gone" }), func(v *Verdict) { v.Well = "" }, ""},
		"no beginning":                   {same, func(v *Verdict) { v.From = time.Time{} }, cannot},
		"an end that is earlier":         {same, func(v *Verdict) { v.Until = at(-1) }, cannot},
		"nothing that is to be seen":     {same, func(v *Verdict) { v.Want = nil }, cannot},
	} {
		t.Run(name, func(t *testing.T) {
			v := Verdict{Verdict: traffic.Verdict{Rule: Looked, Stream: "it", From: at(0), Until: at(4)}, Want: []string{"broken"}, Well: "whole"}
			if tt.change != nil {
				tt.change(&v)
			}
			r := Judge(Record{Looks: looks(tt.looks), Verdicts: []Verdict{v}})
			if why := r.Verdicts[0].Why; why != tt.want || r.Result.Held() != (tt.want == "") {
				t.Errorf("%s, because %q; want %q", r.Result, why, tt.want)
			}
		})
	}
}

// A watch records each look, ends with the first that sees something else, and is judged again
// as it was.
func TestWatchRecordsWhatItSees(t *testing.T) {
	for name, tt := range map[string]struct {
		turns time.Duration // when there is something else to see
		err   error
		fails string
		looks int
	}{
		"all the time":         {time.Hour, nil, "", 6},
		"for a while":          {700 * time.Millisecond, nil, "it: whole, want broken", 5},
		"until nobody is told": {700 * time.Millisecond, errors.New("no route"), "look at it: no route", 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				f := Fact{Of: "it", Well: "whole", Look: func(context.Context) (string, error) {
					switch {
					case time.Since(began) < tt.turns:
						return "broken", nil
					}
					return "whole", tt.err
				}}
				r := run(t, func(ctx context.Context, trial *Trial) error {
					trial.record.Looks = []Look{{Of: "it", At: began.Add(-time.Second), Seen: "whole"}}
					trial.Step(ctx, "watch", func(ctx context.Context) error {
						return trial.Watch(ctx, "it stays broken", Bound{Within: time.Second, Formula: "a second"}, f, "broken")
					})
					return trial.Err()
				})
				if got := strings.TrimPrefix(r.Error, "watch: "); got != tt.fails || len(r.Looks) != tt.looks {
					t.Errorf("error %q after %d looks, want %q after %d", got, len(r.Looks), tt.fails, tt.looks)
				}
				if held := r.Verdicts[0].Result.Held(); held != (tt.fails == "") || Judge(r).Verdicts[0].Result.Held() != held {
					t.Errorf("the verdict is %+v", r.Verdicts[0])
				}
			})
		})
	}
}

func TestFactIs(t *testing.T) {
	for seen, want := range map[string]string{"behind": "", "in sync": "it is: in sync"} {
		c := Fact{Of: "what is held", Look: func(context.Context) (string, error) { return seen, nil }}.Is("empty", "behind")
		got := ""
		if err := c.Probe(t.Context()); err != nil {
			got = err.Error()
		}
		if got != want || c.Name != "what is held: empty or behind" {
			t.Errorf("%s: %q, want %q", c.Name, got, want)
		}
	}
}
