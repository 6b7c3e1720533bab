package trial

import (
	"fmt"
	"slices"
	"time"
)

// Result is how a wait, a claim or a whole run was judged.
type Result string

// The results, from the best to the worst. Late counts as held.
const (
	// Holds is for what came at its bound or before.
	Holds Result = "holds"
	// Late is for what came after its bound, and not by more than the slack of the machine.
	Late Result = "late"
	// DoesNotHold is for what came later than that, or not at all.
	DoesNotHold Result = "does not hold"
	// NotJudged is for a run with more slack than MaxSlack: late and wrong cannot be told
	// apart there.
	NotJudged Result = "not judged"
)

// Held tells whether a claim held, be it late.
func (r Result) Held() bool { return r == Holds || r == Late }

// Worse returns the worse of two results.
func (r Result) Worse(other Result) Result {
	order := []Result{Holds, Late, DoesNotHold, NotJudged}
	if slices.Index(order, other) > slices.Index(order, r) {
		return other
	}
	return r
}

// Counted counts records by their results, in the order of these: "31 hold, 2 of them late".
func Counted(records []Record) string {
	count := map[Result]int{}
	for _, r := range records {
		count[r.Result]++
	}
	text := fmt.Sprintf("%d of %d hold", count[Holds]+count[Late], len(records))
	if n := count[Late]; n > 0 {
		text += fmt.Sprintf(", %d of them late", n)
	}
	if n := count[NotJudged]; n > 0 {
		text += fmt.Sprintf("; %d not judged", n)
	}
	return text
}

// MaxSlack is the most slack with which a run is judged. All waits go on for as long as that
// after their bounds: what comes later still cannot be late.
const MaxSlack = 10 * time.Second

// Slack is by how much the machine was late by itself in a run, measured while it ran.
type Slack struct {
	// Timer is the latest that a timer fired which had nothing to wait for.
	Timer time.Duration `json:"timer"`
	// Call is the longest that a SPIRE server took for an answer that changes nothing, while
	// nothing was broken.
	Call time.Duration `json:"call"`
	// Control is by how much an identity came to a newcomer after its bound, when the session
	// began.
	Control time.Duration `json:"control"`
}

// Total is how much later than its bound something may come that the machine alone delays.
func (s Slack) Total() time.Duration { return s.Timer + s.Call + s.Control }

// String says what the slack is made of.
func (s Slack) String() string {
	ms := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	return fmt.Sprintf("%s (timer %s, call %s, control %s)", ms(s.Total()), ms(s.Timer), ms(s.Call), ms(s.Control))
}

// judged is the result of what took so long.
func judged(took, bound, slack time.Duration) Result {
	switch {
	case took <= bound:
		return Holds
	case took <= bound+slack:
		return Late
	}
	return DoesNotHold
}

// Judge computes the results of a record again, from what it has seen.
func Judge(r Record) Record {
	r.Verdicts, r.Measures = slices.Clone(r.Verdicts), slices.Clone(r.Measures)
	r.Result = Holds
	if r.Error != "" || len(r.Verdicts) == 0 {
		r.Result = DoesNotHold
	}
	for i := range r.Measures {
		m := &r.Measures[i]
		m.Result = judged(m.Took, m.Bound, m.Slack)
		r.Result = r.Result.Worse(m.Result)
	}
	for i := range r.Verdicts {
		v := &r.Verdicts[i]
		v.Result, v.Why = Holds, ""
		switch late, err := v.judge(r); {
		case err != nil:
			v.Result, v.Why = DoesNotHold, err.Error()
		case late > 0:
			v.Result, v.Why = Late, fmt.Sprintf("%s after its bound, the slack is %s", late.Round(time.Millisecond), v.Slack.Round(time.Millisecond))
		}
		r.Result = r.Result.Worse(v.Result)
	}
	if r.Slack.Total() > MaxSlack {
		r.Result = NotJudged
	}
	return r
}
