package scenarios

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

// Machine is what the work itself may take on a machine with two cores that has
// more to do, on top of a bound that follows from SPIRE's intervals.
const Machine = 45 * time.Second

// machinePoll is that for what travels by a poll: less than the shortest one, so
// that a poll that came to nothing is seen.
const machinePoll = 10 * time.Second

// pace is how often a condition is looked at.
const pace = 250 * time.Millisecond

// Trial is one run of a scenario on a lab. Its methods write the record. It is
// not for concurrent use, but for what Traffic and the sampling of bundles do
// beside it.
type Trial struct {
	ground   *ground
	scenario Scenario
	observe  func(Event)
	pause    func(ctx context.Context, step StepRecord) error
	mutation Mutation

	mu      sync.Mutex // guards record, which the sampler writes, too
	record  Record
	err     error
	step    *StepRecord
	undos   []undo
	late    []Domain
	streams []*Traffic
	claims  []traffic.Verdict
	// restoring is set while the lab is put back: no mutation keeps that from
	// being done.
	restoring bool
}

// Event is what an observer is told about a run, as it happens.
type Event struct {
	Scenario string `json:"scenario"`
	// Step is set when one begins (Ended is false) or has ended.
	Step  *StepRecord `json:"step,omitempty"`
	Ended bool        `json:"ended,omitempty"`
	// Seen is an observation of the running step, or what it waits for.
	Seen string `json:"seen,omitempty"`
	// Record is set when the run is over.
	Record *Record `json:"-"`
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
	if err := t.run(ctx, StepRecord{Name: name, Look: look}, do); err != nil {
		t.err = fmt.Errorf("%s: %w", name, err)
	}
}

// Err returns why the run ended early; nil if it did not.
func (t *Trial) Err() error { return t.err }

func (t *Trial) run(ctx context.Context, s StepRecord, do func(ctx context.Context) error) error {
	if t.pause != nil && !s.Restore {
		if err := t.pause(ctx, s); err != nil {
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
	e.Scenario = t.scenario.Name
	if t.observe != nil {
		t.observe(e)
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

// Bound is how long something may take by SPIRE's arithmetic, and the formula
// that says so.
type Bound struct {
	Within  time.Duration
	Formula string
	// Propagation says that this is the way of a bundle between trust domains.
	Propagation bool
}

// allowed is the bound with what the machine needs.
func (b Bound) allowed() time.Duration {
	if b.Propagation {
		return b.Within + machinePoll
	}
	return b.Within + Machine
}

// Await waits until a check holds, for at most bound and what the machine needs,
// and measures it from since.
func (t *Trial) Await(ctx context.Context, since time.Time, bound Bound, c check.Check) error {
	allowed := bound.allowed()
	err := check.Until(ctx, check.Bound{Within: max(allowed-time.Since(since), 0), Every: pace, Seen: t.waiting(c.Name)}, c)
	if err != nil {
		return err
	}
	took := time.Since(since)
	t.mu.Lock()
	t.record.Measures = append(t.record.Measures, Measure{
		What: c.Name, At: since, Took: took, Bound: bound.Within, Allowed: allowed, Formula: bound.Formula, Propagation: bound.Propagation,
	})
	t.mu.Unlock()
	t.Seen("%s: after %s, bound %s", c.Name, took.Round(100*time.Millisecond), bound.Within.Round(100*time.Millisecond))
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

// Stays watches that a check keeps holding for a while: what must not happen is
// given the time in which it would.
func (t *Trial) Stays(ctx context.Context, during time.Duration, formula string, c check.Check) error {
	until := time.Now().Add(during)
	t.tell(Event{Seen: fmt.Sprintf("watches for %s (%s) that %s", during.Round(time.Second), formula, c.Name)})
	for {
		if err := c.Probe(ctx); err != nil {
			return fmt.Errorf("%s: not any more: %w", c.Name, err)
		}
		if !time.Now().Before(until) {
			t.Seen("%s for %s (%s)", c.Name, during.Round(100*time.Millisecond), formula)
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pace):
		}
	}
}

// Breakage is a fault that is injected.
type Breakage struct {
	trial    *Trial
	injected fault.Injected
	window   int
	over     bool
}

// Break injects a fault and waits until it is felt. The end of the run recovers
// what Mend has not.
func (t *Trial) Break(ctx context.Context, f fault.Fault) (*Breakage, error) {
	t.mu.Lock()
	t.record.Windows = append(t.record.Windows, Window{Name: f.Name(), Injected: time.Now()})
	b := &Breakage{trial: t, window: len(t.record.Windows) - 1}
	t.mu.Unlock()
	injected, err := f.Inject(ctx)
	if injected != nil {
		// Also one that failed, and whose own undoing failed, too.
		b.injected = injected
		t.Restore("undo: "+f.Name(), b.Mend)
	}
	if err != nil {
		return nil, err
	}
	if err := t.until(ctx, injected.Felt()); err != nil {
		return nil, err
	}
	b.note(func(w *Window) { w.Felt = time.Now() })
	t.Seen("%s: it is felt", f.Name())
	if t.mutation == RecoverEarly {
		return b, b.Mend(ctx)
	}
	return b, nil
}

// Mend recovers the fault and waits until all is healed. Repeated, it does
// nothing.
func (b *Breakage) Mend(ctx context.Context) error {
	if b.over {
		return nil
	}
	began := time.Now()
	if err := b.injected.Recover(ctx); err != nil {
		return err
	}
	b.note(func(w *Window) { w.Recovered = began })
	if err := b.trial.until(ctx, b.injected.Healed()); err != nil {
		return err
	}
	b.over = true
	b.note(func(w *Window) { w.Healed = time.Now() })
	b.trial.Seen("%s: healed after %s", b.Window().Name, time.Since(began).Round(100*time.Millisecond))
	return nil
}

func (b *Breakage) note(change func(*Window)) {
	b.trial.mu.Lock()
	defer b.trial.mu.Unlock()
	change(&b.trial.record.Windows[b.window])
}

// Window returns when the fault was injected, felt, recovered and healed.
func (b *Breakage) Window() Window {
	b.trial.mu.Lock()
	defer b.trial.mu.Unlock()
	return b.trial.record.Windows[b.window]
}

// faultBound is how long Kubernetes and the machine may take to stop or to start
// what a fault is about: several times what two cores need that do nothing else.
const faultBound = 4 * time.Minute

func (t *Trial) until(ctx context.Context, c check.Check) error {
	return check.Until(ctx, check.Bound{Within: faultBound, Every: pace, Seen: t.waiting(c.Name)}, c)
}

// Claim has a verdict on the traffic computed when the run is over.
func (t *Trial) Claim(v traffic.Verdict) { t.claims = append(t.claims, v) }

// finish puts the lab back, fetches the traffic and judges it.
func (t *Trial) finish(ctx context.Context) {
	// However the run ended, the lab is put back.
	ctx = context.WithoutCancel(ctx)
	errs := []error{t.err}
	for _, s := range t.streams {
		errs = append(errs, s.fetch(ctx))
	}
	t.restoring = true
	for _, u := range slices.Backward(t.undos) {
		bounded, cancel := context.WithTimeout(ctx, restoreBound)
		if err := t.run(bounded, StepRecord{Name: u.name, Restore: true}, u.do); err != nil {
			errs = append(errs, fmt.Errorf("put the lab back: %s: %w", u.name, err))
		}
		cancel()
	}
	err := errors.Join(errs...)
	r := &t.record
	for _, s := range t.streams {
		stream := s.record
		t.mutation.spoil(&stream)
		r.Streams = append(r.Streams, stream)
	}
	r.Holds = err == nil && len(t.claims) > 0
	if err == nil && len(t.claims) == 0 {
		err = errors.New("the scenario claims nothing")
	}
	if err != nil {
		r.Error = err.Error()
	}
	for _, claim := range t.claims {
		v := judge(claim, r.Streams)
		r.Verdicts = append(r.Verdicts, v)
		r.Holds = r.Holds && v.Holds
	}
	r.Ended = time.Now()
}

// restoreBound is how long one part of putting the lab back may take.
const restoreBound = 6 * time.Minute

func judge(claim traffic.Verdict, streams []traffic.Stream) Verdict {
	if err := claim.Judge(streams); err != nil {
		return Verdict{Verdict: claim, Why: err.Error()}
	}
	return Verdict{Verdict: claim, Holds: true}
}

// Judge computes the verdicts of a record anew, from what it has seen.
func Judge(r Record) Record {
	r.Verdicts = slices.Clone(r.Verdicts)
	r.Holds = r.Error == "" && len(r.Verdicts) > 0
	for i, v := range r.Verdicts {
		r.Verdicts[i] = judge(v.Verdict, r.Streams)
		r.Holds = r.Holds && r.Verdicts[i].Holds
	}
	return r
}

// lab is the handle on the lab that the trial runs on.
func (t *Trial) lab() *lab.Lab { return t.ground.lab }
