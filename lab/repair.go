package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Repaired is a bundle that Repair has set.
type Repaired struct {
	Truster string `json:"truster"`
	// Cluster is as in HeldBundle.
	Cluster string `json:"cluster,omitempty"`
	Trusted string `json:"trusted"`
	// Was is how it stood before.
	Was federation.State `json:"was"`
	// NextPollBy is when the truster will have fetched at the latest; zero where
	// it does not. A fetch that failed before was timed by what was held then:
	// without a refresh hint that is a fortieth of an authority's life, and
	// nothing but a new start of the server, or of the relationship, brings it
	// forward (seen with SPIRE 1.15.3).
	NextPollBy time.Time `json:"nextPollBy,omitzero"`
}

// Holder is as that of HeldBundle.
func (r Repaired) Holder() string { return topology.ServerName(r.Truster, r.Cluster) }

// Repair sets each bundle of a relationship that is not what the trusted domain's
// server has. It is read from there through the cluster, which proves more than a
// bundle endpoint can, and read back from the truster. What cannot be asked is
// left alone, and so is the path of the next fetch; see Drift.
//
// The error is a *HeldError when another process changes the lab. What was set
// before an error is returned with it.
func (d *Driver) Repair(ctx context.Context, t topology.Topology) (_ []Repaired, err error) {
	held, err := d.Hold(ctx, t.Name, "drift --repair")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, held.Release()) }()
	v, err := d.visit(ctx, t)
	if err != nil {
		return nil, err
	}
	defer v.close()
	repaired := []Repaired{}
	var errs []error
	for _, r := range v.Relationships() {
		c, silent := v.compared(r)
		if silent != nil || c.State == federation.InSync {
			continue
		}
		set, err := v.repair(ctx, r)
		if err != nil {
			errs = append(errs, fmt.Errorf("repair %s: %w", r.ID(), err))
			continue
		}
		m := Repaired{Truster: r.Truster.String(), Cluster: nestedIn(r.By), Trusted: r.Trusted.String(), Was: c.State}
		if _, err := v.asConfigured(r); err == nil && r.Mode != topology.Manual {
			m.NextPollBy = time.Now().Add(federation.NextPoll(v.servers[r.By].held[r.Trusted.Name], set))
		}
		repaired = append(repaired, m)
	}
	return repaired, errors.Join(errs...)
}

// repair returns the bundle that it has set.
func (v *visit) repair(ctx context.Context, r topology.Relationship) (*spiffebundle.Bundle, error) {
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	truster := v.servers[r.By].site.API
	source, err := v.server(r.Trusted).site.API.Bundle(ctx)
	if err != nil {
		return nil, err
	}
	// As a fetch would bring it: no server tells the hint of its own bundle, and
	// without one a server whose next fetch fails stays away for long (see
	// spire.Pinned).
	source.SetRefreshHint(r.Trusted.BundleEndpoint.RefreshHint)
	if err := truster.SetBundle(ctx, source); err != nil {
		return nil, err
	}
	held, err := truster.HeldBundle(ctx, r.Trusted.Name)
	if err != nil {
		return nil, err
	}
	if c := federation.Compare(held, source); c.State != federation.InSync {
		return nil, fmt.Errorf("after it was set, the held bundle is %s", c)
	}
	return source, nil
}
