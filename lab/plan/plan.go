// Package plan turns "bring this up" into data: named steps with dependencies,
// which can be printed, tested and filtered before anything runs, and a runner
// that does independent steps side by side.
//
// It refuses to know what a step does. Steps are idempotent: each looks before
// it acts, so a plan that was killed anywhere is simply run again.
package plan

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ID names a step: its kind, a slash, and what it is about ("spire/market").
type ID string

// Kind is the part before the slash.
func (id ID) Kind() string {
	kind, _, _ := strings.Cut(string(id), "/")
	return kind
}

// Step is one thing to be made true.
type Step struct {
	// Name is unique in its plan.
	Name ID
	// Title says in words what the step makes true; it is in the printed
	// plan and in progress.
	Title string
	// After lists the steps that must be done before; each must have been
	// added to the plan earlier.
	After []ID
	// Typical is how long it takes where there is everything to do; 0 where
	// nobody knows.
	Typical time.Duration
	// Do makes it true, and does nothing where it is true already. It calls
	// Did when it changed something.
	Do func(ctx context.Context) error
}

// Plan is a list of steps in an order that respects their dependencies. The
// zero value is an empty plan.
type Plan struct {
	steps []Step
}

// Add appends a step. It refuses a name without a slash or given twice, a step
// that does nothing, and a dependency that was not added before; so a plan can
// have no cycle.
func (p *Plan) Add(s Step) error {
	switch {
	case !strings.Contains(string(s.Name), "/"):
		return fmt.Errorf("add step %q: the name has no slash, want kind/name", s.Name)
	case s.Do == nil:
		return fmt.Errorf("add step %s: it has no Do", s.Name)
	case p.has(s.Name):
		return fmt.Errorf("add step %s: the plan has a step of that name", s.Name)
	}
	for _, id := range s.After {
		if !p.has(id) {
			return fmt.Errorf("add step %s: it comes after %s, which is not in the plan", s.Name, id)
		}
	}
	s.After = distinct(s.After)
	p.steps = append(p.steps, s)
	return nil
}

// Then appends the steps of another plan. Those that come after none there come after
// the last ones of p: those that no step of p comes after. It refuses what Add does.
func (p *Plan) Then(next *Plan) error {
	last := p.last()
	for _, s := range next.steps {
		if len(s.After) == 0 {
			s.After = last
		}
		if err := p.Add(s); err != nil {
			return err
		}
	}
	return nil
}

// last returns the steps that none comes after.
func (p *Plan) last() []ID {
	var ids []ID
	for _, s := range p.steps {
		ids = append(ids, s.Name)
	}
	for _, s := range p.steps {
		ids = slices.DeleteFunc(ids, func(id ID) bool { return slices.Contains(s.After, id) })
	}
	return ids
}

// distinct returns each ID once, in the order given.
func distinct(ids []ID) []ID {
	var once []ID
	for _, id := range ids {
		if !slices.Contains(once, id) {
			once = append(once, id)
		}
	}
	return once
}

func (p *Plan) has(id ID) bool {
	return slices.ContainsFunc(p.steps, func(s Step) bool { return s.Name == id })
}

// Steps returns the steps in the order in which they were added.
func (p *Plan) Steps() []Step { return slices.Clone(p.steps) }

// Len returns the number of steps.
func (p *Plan) Len() int { return len(p.steps) }
