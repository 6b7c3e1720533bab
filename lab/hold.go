package lab

import (
	"context"
	"errors"
	"fmt"
)

// HeldError says that another command is changing the lab.
type HeldError struct {
	Lab string
	// Holder says in words which command it is, and of whom; it is empty where
	// that is not known.
	Holder string
}

func (e *HeldError) Error() string {
	text := fmt.Sprintf("lab %s is being changed by another command", e.Lab)
	if e.Holder != "" {
		text += ": " + e.Holder
	}
	return text
}

// Hold is the right to change a lab, which one process at a time has.
type Hold struct {
	driver  *Driver
	release func() error
}

// Hold makes this process the only one that changes a lab, until Release or the
// end of the process. The command is what others are told. The error is a
// *HeldError when another process holds the lab.
func (d *Driver) Hold(ctx context.Context, lab, command string) (*Hold, error) {
	release, err := d.Parts.Locks.Hold(ctx, lab, command)
	if held := (*HeldError)(nil); errors.As(err, &held) {
		return nil, held
	}
	if err != nil {
		return nil, fmt.Errorf("lock lab %s: %w", lab, err)
	}
	return &Hold{driver: d, release: release}, nil
}

// Release lets others change the lab.
func (h *Hold) Release() error { return h.release() }
