package lab

import (
	"context"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// relateByAPI makes a relationship by the API of the truster's server, unless it is there.
// It returns the relationship as the server lists it.
func (f federating) relateByAPI(ctx context.Context) (spire.Relationship, error) {
	want := spire.Relationship{
		RelationshipSpec: topology.RelationshipSpec{Truster: f.Truster.Name, Trusted: f.Trusted.Name, Profile: f.Profile},
		URL:              spire.BundleEndpointURL(f.trusted.Server),
	}
	if f.Profile == topology.HTTPSSPIFFE {
		want.EndpointID = spire.ServerID(f.Trusted.Name)
	}
	all, err := f.truster.API.Relationships(ctx)
	if err != nil {
		return want, err
	}
	i := slices.IndexFunc(all, func(r spire.Relationship) bool { return r.Trusted == want.Trusted })
	if i >= 0 && all[i] == want {
		return want, nil
	}
	plan.Did(ctx)
	if i >= 0 {
		plan.Remark(ctx, fmt.Sprintf("the server of %s fetches the bundle of %s from %s by %s: makes the relationship again", f.By, f.Trusted, all[i].URL, all[i].Profile))
		if err := known(f.truster.API.DeleteRelationship(ctx, want.Trusted)); err != nil {
			return want, err
		}
	}
	if err := f.reachable(ctx); err != nil {
		return want, err
	}
	bundle, err := f.trusted.API.Bundle(ctx)
	if err != nil {
		return want, err
	}
	return want, f.truster.API.CreateRelationship(ctx, want, spire.Pinned(f.Trusted.BundleEndpoint, bundle))
}

// unrelate deletes the relationships of a server that the file does not ask for, where
// they are made by its API. Nobody deletes them else.
func unrelate(ctx context.Context, site *Site) error {
	relationships, err := site.API.Relationships(ctx)
	if err != nil {
		return err
	}
	for _, r := range relationships {
		if t := trustIn(site.Domain, r.Trusted); t != nil && t.Mode == topology.API {
			continue
		}
		plan.Did(ctx)
		if err := known(site.API.DeleteRelationship(ctx, r.Trusted)); err != nil {
			return err
		}
	}
	return nil
}

// trustIn returns the trust by which d trusts somebody of whom a server tells; nil where
// there is none.
func trustIn(d *topology.Domain, other spiffeid.TrustDomain) *topology.Trust {
	i := slices.IndexFunc(d.Trusts, func(t *topology.Trust) bool { return t.Trusted.Name == other })
	if i < 0 {
		return nil
	}
	return d.Trusts[i]
}
