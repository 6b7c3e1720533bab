package lab

import (
	"context"
	"errors"

	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Hold is the right to change a lab, which one process at a time has.
type Hold struct {
	driver  *Driver
	release func() error
}

// Hold makes this process the only one that changes a lab until Release; command
// is what others are told. The error is a *HeldError when another process has it.
func (d *Driver) Hold(lab, command string) (*Hold, error) {
	release, err := d.hold(lab, command)
	if err != nil {
		return nil, err
	}
	return &Hold{driver: d, release: release}, nil
}

// Release lets others change the lab.
func (h *Hold) Release() error { return h.release() }

// Up is Driver.Up for who holds the lab already.
func (h *Hold) Up(ctx context.Context, t topology.Topology) (err error) {
	p, up, err := h.driver.plan(t)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, up.close()) }()
	return plan.Runner{Observe: h.driver.Observe}.Run(ctx, p)
}
