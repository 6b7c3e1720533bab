// Package fault breaks one thing of a lab at a time, tells by what it is felt,
// and puts it back: servers, agents and nodes that stop, endpoints and ways
// between clusters that are cut, bundles that are wrong.
//
// It refuses to know labs and how a cluster is reached, and it waits for nothing
// that can be waited for from outside: it returns checks, and whoever injects a
// fault decides how long they may take.
package fault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fedlab-dev/fedlab/lab/check"
)

// Fault is one thing that can be made to break.
type Fault interface {
	// Name is its kind, a slash, and where: "server-stopped/market".
	Name() string
	// Inject makes it break. It returns when that is done and may not be felt yet.
	// When it fails it undoes what it has done; where that fails, too, there is an
	// Injected together with the error, so that it can be recovered.
	//
	// What a killed process has left of the same fault is taken over, and Recover
	// puts it back; where that cannot be, Inject refuses.
	Inject(ctx context.Context) (Injected, error)
}

// Injected is a fault that was made.
type Injected interface {
	// Felt holds once the fault has its effect.
	Felt() check.Check
	// Recover puts back what Inject has changed. It returns when that is asked for;
	// Healed holds once it is so. It may be called any number of times, also after
	// it has failed.
	Recover(ctx context.Context) error
	// Healed holds once what was broken runs again.
	Healed() check.Check
}

// undoBound is how long an Inject that failed may take to undo what it has done,
// however its own context ended.
const undoBound = time.Minute

// fault is any Fault: its kind makes it by its function.
type fault struct {
	name string
	// inject returns an injected whose recover is nil as long as it has changed
	// nothing.
	inject func(ctx context.Context) (injected, error)
}

func (f fault) Name() string { return f.name }

func (f fault) Inject(ctx context.Context) (Injected, error) {
	i, err := f.inject(ctx)
	i.fault = f.name
	if err == nil {
		return i, nil
	}
	err = fmt.Errorf("inject %s: %w", f.name, err)
	if i.recover == nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	if undo := i.Recover(ctx); undo != nil {
		return i, errors.Join(err, undo)
	}
	return nil, err
}

// injected is any Injected.
type injected struct {
	fault        string
	felt, healed check.Check
	recover      func(ctx context.Context) error
}

func (i injected) Felt() check.Check   { return i.felt }
func (i injected) Healed() check.Check { return i.healed }

func (i injected) Recover(ctx context.Context) error {
	if err := i.recover(ctx); err != nil {
		return fmt.Errorf("recover from %s: %w", i.fault, err)
	}
	return nil
}

// inOrder returns what the first of these says that does not hold; the others are
// not looked at then.
func inOrder(ctx context.Context, probes ...func(context.Context) error) error {
	for _, probe := range probes {
		if err := probe(ctx); err != nil {
			return err
		}
	}
	return nil
}

// nothing is the recover of what repairs itself.
func nothing(context.Context) error { return nil }
