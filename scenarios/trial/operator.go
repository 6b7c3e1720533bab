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
	// Do does something that is no fault of package fault, and returns its error.
	Do(ctx context.Context, act Act, do func(ctx context.Context) error) error
	// Port returns the port of a probe to call where a scenario means one.
	Port(meant int) int
}

// Act is what something is done for that an operator may leave out.
type Act string

// The acts.
const (
	// ToTaint and ToRevoke are for the old authority of a rotation.
	ToTaint  Act = "taint"
	ToRevoke Act = "revoke"
	// ToRefresh has a server fetch the bundle of another trust domain.
	ToRefresh Act = "refresh"
	// ToChange changes what the scenario is about: what is claimed follows from it.
	ToChange Act = "change"
	// ToCure ends what the change, or a fault, has brought.
	ToCure Act = "cure"
)

// Do has the operator of the trial do something.
func (t *Trial) Do(ctx context.Context, act Act, do func(ctx context.Context) error) error {
	return t.operator.Do(ctx, act, do)
}

// Employ has another operator do what comes from now on. The lab is put back by
// the trial's own.
func (t *Trial) Employ(instead func(Operator) Operator) { t.operator = instead(t.operator) }

// honest is the operator who does what is asked for.
type honest struct{}

func (honest) Inject(ctx context.Context, f fault.Fault) (fault.Injected, error) {
	return f.Inject(ctx)
}

func (honest) Do(ctx context.Context, _ Act, do func(ctx context.Context) error) error {
	return do(ctx)
}

func (honest) Port(meant int) int { return meant }
