package trial

import (
	"context"

	"github.com/fedlab-dev/fedlab/lab/fault"
)

// Operator does to a lab what a scenario asks for. That of a trial does all of it.
// Whoever wants to see what a scenario says of an operator who makes a mistake
// wraps it: see package mutant.
type Operator interface {
	// Inject injects a fault; it returns what Fault.Inject does.
	Inject(ctx context.Context, f fault.Fault) (fault.Injected, error)
	// Taint and Revoke do so with the old authority of a rotation.
	Taint(ctx context.Context, r *Rotation) error
	Revoke(ctx context.Context, r *Rotation) error
	// Refresh has a server fetch the bundle of another trust domain.
	Refresh(ctx context.Context, by, of Domain) error
}

// Employ has another operator do what comes from now on. The lab is put back by
// the trial's own.
func (t *Trial) Employ(instead func(Operator) Operator) { t.operator = instead(t.operator) }

// honest is the operator who does what is asked for.
type honest struct{}

func (honest) Inject(ctx context.Context, f fault.Fault) (fault.Injected, error) {
	return f.Inject(ctx)
}

func (honest) Taint(ctx context.Context, r *Rotation) error { return r.taint(ctx) }

func (honest) Revoke(ctx context.Context, r *Rotation) error { return r.revoke(ctx) }

func (honest) Refresh(ctx context.Context, by, of Domain) error {
	return by.Server().RefreshBundle(ctx, of.Name)
}
