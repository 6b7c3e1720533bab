package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/fedlab-dev/fedlab/scenarios"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

// propagated are the scenarios in which bundles travel from one trust domain to
// the workloads of another.
func propagated() []string {
	return []string{"rotation/x509-authority", "rotation/jwt-authority", "outage/bundle-endpoint"}
}

// propagation measures each way of a bundle against the bound that SPIRE's
// intervals allow for it. The longest counts: when a poll comes is chance.
func (b *bench) propagation(ctx context.Context) (err error) {
	session, err := (&trial.Runner{Driver: &b.driver.Driver, Topology: b.topology}).Open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Close(context.WithoutCancel(ctx))) }()
	longest, ways := 0.0, 0
	for _, name := range propagated() {
		s, err := scenarios.Find(name)
		if err != nil {
			return err
		}
		record, err := session.Run(ctx, s, trial.On{})
		if err != nil {
			return err
		}
		if !record.Result.Held() {
			return fmt.Errorf("scenario %s does not hold: %s", name, record.Error)
		}
		for _, m := range record.Measures {
			if m.Propagation {
				longest = max(longest, m.Took.Seconds()/m.Bound.Seconds())
				ways++
			}
		}
	}
	b.add("propagation-over-bound", "", fmt.Sprintf("the longest of %d ways of a bundle to a peer's workloads, over its bound", ways), longest)
	return nil
}
