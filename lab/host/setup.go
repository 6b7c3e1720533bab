package host

import (
	"context"
	"errors"
	"fmt"
)

// Observer is told what Setup does, in the order it happens.
type Observer interface {
	// Surveyed reports what was found, before anything is changed and again
	// afterwards.
	Surveyed(findings []Finding)
	// Announced reports all that will be changed, before the first change. An
	// error stops Setup there. It is not called when nothing is to be changed.
	Announced(remedies []Remedy) error
	// Applying reports that one change begins.
	Applying(remedy Remedy)
}

// Setup makes the machine fit for a lab as far as it can: it surveys, announces
// what it will change, changes it, and surveys again. Nothing is changed when
// nothing is missing, or where the user is not root on Debian or Ubuntu. What then
// still is missing comes back as a *MissingError. cache is as in Survey.
//
// Where a change fails, daemon.json is put back as it was. Stopped at any
// moment, Setup ends what was begun when it is run again.
func Setup(ctx context.Context, sys System, needs Needs, cache string, observe Observer) error {
	findings, err := look(ctx, sys, needs, cache, observe)
	if err != nil {
		return err
	}
	remedies := Remedies(findings)
	if len(remedies) == 0 {
		return Lacks(findings)
	}
	if err := observe.Announced(remedies); err != nil {
		return err
	}
	before, err := takeSnapshot(sys.Files)
	if err != nil {
		return err
	}
	for _, remedy := range remedies {
		observe.Applying(remedy)
		if err := remedy.Apply(ctx, sys); err != nil {
			// A daemon that cannot use the new file must find the old one.
			return errors.Join(fmt.Errorf("%s: %w", remedy, err), before.restore(context.WithoutCancel(ctx), sys))
		}
	}
	if findings, err = look(ctx, sys, needs, cache, observe); err != nil {
		return err
	}
	return Lacks(findings)
}

func look(ctx context.Context, sys System, needs Needs, cache string, observe Observer) ([]Finding, error) {
	m, err := Survey(ctx, sys, cache)
	if err != nil {
		return nil, err
	}
	findings := m.Findings(needs)
	observe.Surveyed(findings)
	return findings, nil
}
