// Package trial is the engine of scenarios, and the vocabulary of whoever writes
// one, here or in another repository: what a scenario is, what it may do to a lab,
// how it waits and claims, and the record that a run leaves.
//
// It returns errors and asserts nothing. It refuses to know which scenarios there
// are, Ginkgo, consoles and how a lab is reached: it is given a lab and a way to
// its programs.
package trial

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

// pace is how often a condition is looked at.
const pace = 250 * time.Millisecond

// Trial is one run of a scenario on a lab. Its methods write the record. Only one
// goroutine uses it.
type Trial struct {
	session *Session
	// pair is the relationship that it runs on.
	pair     *topology.Trust
	parts    []Part
	operator Operator

	mu      sync.Mutex // guards record, which the sampler writes, too
	record  Record
	err     error
	step    *Step
	undos   []undo
	late    []Domain
	streams []*Traffic
	claims  []Verdict
	// otherwise is when the last call began that did not end as a check of calls wants it;
	// nil where the check was of something else.
	otherwise *time.Time
}

// Event is what an observer is told about a run, as it happens.
type Event struct {
	Scenario string `json:"scenario"`
	// On is the relationship, as "truster->trusted"; empty before the first scenario runs.
	On string `json:"on,omitempty"`
	// Step is set when one begins (Ended is false) or has ended.
	Step  *Step `json:"step,omitempty"`
	Ended bool  `json:"ended,omitempty"`
	// Seen is an observation of the running step, or what it waits for.
	Seen string `json:"seen,omitempty"`
}

// undo puts back a part of what a scenario changed.
type undo struct {
	name string
	do   func(ctx context.Context) error
}

// Step does the next thing, unless an earlier one has failed. Name completes the
// sentence "the next step is to …".
func (t *Trial) Step(ctx context.Context, name string, do func(ctx context.Context) error) {
	t.StepWith(ctx, name, "", do)
}

// StepWith is Step with where a person can see it happen.
func (t *Trial) StepWith(ctx context.Context, name, look string, do func(ctx context.Context) error) {
	if t.err != nil {
		return
	}
	if err := t.run(ctx, Step{Name: name, Look: look}, do); err != nil {
		t.err = fmt.Errorf("%s: %w", name, err)
	}
}

// Err returns why the run ended early; nil if it did not.
func (t *Trial) Err() error { return t.err }

func (t *Trial) run(ctx context.Context, s Step, do func(ctx context.Context) error) error {
	if pause := t.session.runner.Pause; pause != nil && !s.Restore {
		if err := pause(ctx, s); err != nil {
			return err
		}
	}
	s.Began = time.Now()
	t.step = &s
	t.tell(Event{Step: &s})
	err := do(ctx)
	s.Took = time.Since(s.Began)
	if err != nil {
		s.Error = err.Error()
	}
	t.step = nil
	t.mu.Lock()
	t.record.Steps = append(t.record.Steps, s)
	t.mu.Unlock()
	t.tell(Event{Step: &s, Ended: true})
	return err
}

func (t *Trial) tell(e Event) {
	e.Scenario = t.record.Scenario
	if t.pair != nil {
		e.On = on(t.pair).String()
	}
	if observe := t.session.runner.Observe; observe != nil {
		observe(e)
	}
}

// Seen notes an observation of the step that runs.
func (t *Trial) Seen(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if t.step != nil {
		t.step.Seen = append(t.step.Seen, text)
	}
	t.tell(Event{Seen: text})
}

// Mark notes a moment for the picture of the run.
func (t *Trial) Mark(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.record.Marks = append(t.record.Marks, Mark{At: time.Now(), What: fmt.Sprintf(format, args...)})
}

// Restore has something put back when the run is over, however it ends: what was
// changed last is put back first. What a scenario puts back itself, it may still
// name here: each must be harmless where nothing is left to do.
func (t *Trial) Restore(name string, do func(ctx context.Context) error) {
	t.undos = append(t.undos, undo{name, do})
}

// Await waits until checks hold, one after the other, for at most bound and MaxSlack, and
// measures them from since. What took longer than the bound is judged by the slack of the run.
// Calls are looked at two at a time, and are not the machine's: what they show took until the
// last one began that showed otherwise.
func (t *Trial) Await(ctx context.Context, since time.Time, bound Bound, checks ...check.Check) error {
	for _, c := range checks {
		t.otherwise = nil
		err := check.Until(ctx, check.Bound{Within: max(bound.Within+MaxSlack-time.Since(since), 0), Every: pace, Seen: t.waiting(c.Name)}, c)
		if err != nil {
			return err
		}
		took := time.Since(since)
		if t.otherwise != nil {
			took = max(0, t.otherwise.Sub(since))
		}
		t.mu.Lock()
		t.record.Measures = append(t.record.Measures, Measure{
			What: c.Name, At: since, Took: took, Bound: bound.Within, Formula: bound.Formula, Propagation: bound.Propagation,
		})
		t.mu.Unlock()
		t.Seen("%s: after %s, bound %s", c.Name, took.Round(100*time.Millisecond), bound.Within.Round(100*time.Millisecond))
	}
	return nil
}

// waiting tells the observer what a wait sees, once for each sight.
func (t *Trial) waiting(name string) func(error) {
	last := ""
	return func(seen error) {
		if text := seen.Error(); text != last {
			last = text
			t.tell(Event{Seen: "waits until " + name + ": " + text})
		}
	}
}

// Soon waits until checks hold, one after the other, that no interval of SPIRE's stands
// before: a control, say. There is nothing to measure them against.
func (t *Trial) Soon(ctx context.Context, checks ...check.Check) error {
	return t.waitFor(ctx, NextCalls().Within+MaxSlack, checks...)
}

// WaitFor waits until checks hold, one after the other, that Kubernetes and the
// machine decide, and SPIRE does not: there is nothing to measure them against.
func (t *Trial) WaitFor(ctx context.Context, checks ...check.Check) error {
	return t.waitFor(ctx, faultBound, checks...)
}

func (t *Trial) waitFor(ctx context.Context, within time.Duration, checks ...check.Check) error {
	for _, c := range checks {
		if err := check.Until(ctx, check.Bound{Within: within, Every: pace, Seen: t.waiting(c.Name)}, c); err != nil {
			return err
		}
	}
	return nil
}

// faultBound is how long Kubernetes and the machine may take to stop or to start
// what a fault is about: several times what two cores need that do nothing else.
const faultBound = 4 * time.Minute

// Stays watches that a check keeps holding for a while: what must not happen is
// given the time in which it would.
func (t *Trial) Stays(ctx context.Context, during Bound, c check.Check) error {
	until := time.Now().Add(during.Within)
	t.tell(Event{Seen: fmt.Sprintf("watches for %s (%s) that %s", during.Within.Round(time.Second), during.Formula, c.Name)})
	for {
		if err := c.Probe(ctx); err != nil {
			return fmt.Errorf("%s: not any more: %w", c.Name, err)
		}
		if !time.Now().Before(until) {
			t.Seen("%s for %s (%s)", c.Name, during.Within.Round(100*time.Millisecond), during.Formula)
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pace):
		}
	}
}

// finish puts the lab back, fetches the traffic and judges it.
func (t *Trial) finish(ctx context.Context) {
	// However the run ended, the lab is put back, whoever was the operator before.
	ctx, t.operator = context.WithoutCancel(ctx), honest{}
	errs := []error{t.err}
	for _, s := range t.streams {
		errs = append(errs, s.End(ctx))
	}
	for _, u := range slices.Backward(t.undos) {
		bounded, cancel := context.WithTimeout(ctx, restoreBound)
		if err := t.run(bounded, Step{Name: u.name, Restore: true}, u.do); err != nil {
			errs = append(errs, fmt.Errorf("put the lab back: %s: %w", u.name, err))
		}
		cancel()
	}
	err := errors.Join(append(errs, t.partsError())...)
	if err == nil && len(t.claims) == 0 {
		err = errors.New("the scenario claims nothing")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.record.Error = err.Error()
	}
	for _, s := range t.streams {
		t.record.Streams = append(t.record.Streams, s.record)
	}
	slack := t.record.Slack.Total()
	for i := range t.record.Measures {
		t.record.Measures[i].Slack = slack
	}
	for _, claim := range t.claims {
		if claim.Within > 0 || claim.Rule == Looked {
			claim.Slack = slack
		}
		t.record.Verdicts = append(t.record.Verdicts, claim)
	}
	for _, p := range t.parts {
		for _, says := range p.By {
			if !slices.ContainsFunc(t.claims, func(v Verdict) bool { return v.Says == says }) {
				t.record.Verdicts = append(t.record.Verdicts, Verdict{Verdict: traffic.Verdict{Says: says}})
			}
		}
	}
	t.record = Judge(t.record)
	t.record.Ended = time.Now()
}

// partsError returns an error where the scenario claims what carries no part of its claim.
func (t *Trial) partsError() error {
	if t.parts == nil {
		return nil
	}
	for _, v := range t.claims {
		if !slices.ContainsFunc(t.parts, func(p Part) bool { return slices.Contains(p.By, v.Says) }) {
			return fmt.Errorf("the verdict %q carries no part of the claim", v.Says)
		}
	}
	return nil
}

// restoreBound is how long one part of putting the lab back may take.
const restoreBound = 6 * time.Minute

// Status looks at the lab as 'fedlab status' does.
func (t *Trial) Status(ctx context.Context) (lab.Status, error) {
	return t.session.runner.Driver.Status(ctx, t.session.lab.Graph.Intent())
}
