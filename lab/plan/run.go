package plan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Event is what an observer is told about a step.
type Event struct {
	// Step is the step's name, Title its words.
	Step  ID
	Title string
	// Number counts the steps as they start, from 1; Of is how many the plan
	// has (see Runner.Before and Runner.Of).
	Number, Of int
	State      State
	// Typical is the step's.
	Typical time.Duration
	// Took is set when the step has ended.
	Took time.Duration
	// Err is set when State is Failed or Cancelled.
	Err error
	// Note is what a running step says about itself; set when State is Noted or
	// Remarked.
	Note string
}

// State is how far a step has come.
type State string

// The states of a step. A step that was not reached because another one failed
// has no event.
const (
	Started State = "started"
	Noted   State = "noted"
	// Remarked: the note is for people to read, however soon the step ends.
	Remarked  State = "remarked"
	Changed   State = "changed"
	Unchanged State = "unchanged"
	Failed    State = "failed"
	// Cancelled: it was under way when another step failed or the run was ended.
	Cancelled State = "cancelled"
)

// Ended reports whether the step has nothing more to say: an event of each other
// state may be followed by one more of the same step.
func (s State) Ended() bool {
	switch s {
	case Started, Noted, Remarked:
		return false
	}
	return true
}

// Runner runs plans.
type Runner struct {
	// Observe is called for every event, one call at a time.
	Observe func(Event)
	// Limit is how many steps run at once; 0 sets no limit.
	Limit int
	// Now is the clock; time.Now where it is nil.
	Now func() time.Time
	// Before and Of make one plan of several for the observer: Before is how many
	// steps were run before, and Of how many there are in all; 0 counts the plan's own.
	Before, Of int
}

// Run does each step as soon as those that it comes after are done, independent
// ones side by side. When a step fails, no further one starts, those under way
// are cancelled, and the errors are joined, each with the name of its step.
// Of a step that was cancelled so only what it says besides is in the error, such
// as a clean-up that failed.
func (r Runner) Run(ctx context.Context, p *Plan) error {
	now := r.Now
	if now == nil {
		now = time.Now
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	events := make(chan Event)
	ended := make(chan result)
	waiting := p.Steps()
	done := make(map[ID]bool, len(waiting))
	running, number := 0, r.Before
	var errs []error

	observe := func(e Event) {
		if r.Observe != nil {
			e.Of = cmp.Or(r.Of, p.Len())
			r.Observe(e)
		}
	}
	numbers := make(map[ID]int, len(waiting))
	startReady := func() {
		if ctx.Err() != nil {
			return
		}
		var rest []Step
		for _, s := range waiting {
			if full := r.Limit > 0 && running >= r.Limit; full || !allDone(done, s.After) {
				rest = append(rest, s)
				continue
			}
			running++
			number++
			numbers[s.Name] = number
			observe(Event{Step: s.Name, Title: s.Title, Typical: s.Typical, Number: number, State: Started})
			began := now()
			go func() {
				notes := &recorder{step: s, events: events}
				err := s.Do(context.WithValue(ctx, recorderKey{}, notes))
				ended <- result{step: s, changed: notes.changed.Load(), took: now().Sub(began), err: err}
			}()
		}
		waiting = rest
	}

	startReady()
	for running > 0 {
		select {
		case e := <-events:
			e.Number = numbers[e.Step]
			observe(e)
		case res := <-ended:
			running--
			e := Event{Step: res.step.Name, Title: res.step.Title, Typical: res.step.Typical, Number: numbers[res.step.Name], Took: res.took, State: Unchanged}
			switch {
			case res.err != nil:
				e.State, e.Err = Failed, res.err
				left := Uncancelled(ctx, res.err)
				if left == nil {
					e.State = Cancelled
				}
				if !errors.Is(context.Cause(ctx), errSibling) {
					// Who ended the run wants to find the cause.
					left = res.err
				}
				if left != nil {
					errs = append(errs, fmt.Errorf("%s: %w", res.step.Name, left))
				}
				cancel(errSibling)
			default:
				done[res.step.Name] = true
				if res.changed {
					e.State = Changed
				}
			}
			observe(e)
			startReady()
		}
	}
	if len(errs) == 0 && len(waiting) > 0 {
		return context.Cause(ctx)
	}
	return errors.Join(errs...)
}

type result struct {
	step    Step
	changed bool
	took    time.Duration
	err     error
}

// errSibling is the cause with which the steps under way are cancelled when
// another one fails.
var errSibling = errors.New("another step failed")

func allDone(done map[ID]bool, ids []ID) bool {
	for _, id := range ids {
		if !done[id] {
			return false
		}
	}
	return true
}

type recorderKey struct{}

// recorder is how a running step speaks to its runner.
type recorder struct {
	step    Step
	events  chan<- Event
	changed atomic.Bool
}

// Did tells the runner that the step whose context this is changed something.
// Outside of a plan it does nothing.
func Did(ctx context.Context) {
	if r, ok := ctx.Value(recorderKey{}).(*recorder); ok {
		r.changed.Store(true)
	}
}

// Note tells the observer what the step whose context this is does just now, or
// waits for. Outside of a plan it does nothing.
func Note(ctx context.Context, note string) { say(ctx, Noted, note) }

// Remark tells the observer what the step whose context this is has found or done that
// people should read. Outside of a plan it does nothing.
func Remark(ctx context.Context, remark string) { say(ctx, Remarked, remark) }

func say(ctx context.Context, state State, note string) {
	if r, ok := ctx.Value(recorderKey{}).(*recorder); ok {
		r.events <- Event{Step: r.step.Name, Title: r.step.Title, Typical: r.step.Typical, State: state, Note: note}
	}
}
