package lab

import (
	"context"
	"errors"
	"fmt"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Refresh has a server fetch the bundle of a trust domain at once; truster names the server as
// HeldBundle.Holder does. Before its first fetch by a relationship a server must be left alone:
// see spire.Server.RefreshBundle, also for errors. The error is a *HeldError when another
// process changes the lab.
func (d *Driver) Refresh(ctx context.Context, t topology.Topology, truster, trusted string) (err error) {
	held, err := d.Hold(ctx, t.Name, "watch --refresh")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Release()) }()
	v, err := d.visit(ctx, t)
	if err != nil {
		return err
	}
	defer v.close()
	for _, r := range v.Relationships() {
		if r.By.String() != truster || r.Trusted.String() != trusted {
			continue
		}
		a := v.servers[r.By]
		if a.silent != nil {
			return fmt.Errorf("the server of %s does not answer: %w", r.By, a.silent)
		}
		ctx, cancel := context.WithTimeout(ctx, statusBound)
		defer cancel()
		return a.site.API.RefreshBundle(ctx, r.Trusted.Name)
	}
	return fmt.Errorf("lab %s has no relationship %s->%s", t.Name, truster, trusted)
}
