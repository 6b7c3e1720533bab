package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// federate makes one trust domain trust another: the bundle of the trusted one
// is read from its own server over an authenticated path and handed to the
// truster. Its server then fetches the bundle by itself from the bundle
// endpoint, unless the relationship is a manual one.
func (u *up) federate(ctx context.Context, r topology.Relationship) error {
	if r.Mode == topology.Manual {
		return u.exchange(ctx, r)
	}
	trusted, err := u.topology.TrustDomain(r.Trusted)
	if err != nil {
		return err
	}
	s := &syncing{
		Relationship: r, endpoint: trusted.BundleEndpoint, truster: u.server(r.Truster), trusted: u.server(r.Trusted), delay: fetchDelay,
	}
	if r.Mode == topology.Static {
		s.delay = staticFetchDelay
		err = u.bootstrap(ctx, r)
	} else {
		err = u.relate(ctx, r)
	}
	if err != nil {
		return err
	}
	return wait(ctx, apiBound, check.Check{Name: r.Truster.Name() + " holds the bundle of " + r.Trusted.Name(), Probe: s.probe})
}

// exchange sets a bundle by hand, as it is now.
func (u *up) exchange(ctx context.Context, r topology.Relationship) error {
	source, err := u.server(r.Trusted).Bundle(ctx)
	if err != nil {
		return err
	}
	held, err := heldBundle(ctx, u.server(r.Truster), r.Trusted)
	if err != nil || federation.Compare(held, source).State == federation.InSync {
		return err
	}
	plan.Did(ctx)
	return u.server(r.Truster).SetBundle(ctx, source)
}

// bootstrap hands a truster whose server has the relationship in its
// configuration the bundle that it starts with, unless it holds one.
func (u *up) bootstrap(ctx context.Context, r topology.Relationship) error {
	held, err := heldBundle(ctx, u.server(r.Truster), r.Trusted)
	if err != nil || held != nil {
		return err
	}
	plan.Did(ctx)
	if err := u.reachable(ctx, r); err != nil {
		return err
	}
	trusted, err := u.topology.TrustDomain(r.Trusted)
	if err != nil {
		return err
	}
	source, err := u.server(r.Trusted).Bundle(ctx)
	if err != nil {
		return err
	}
	return u.server(r.Truster).SetBundle(ctx, spire.Pinned(trusted.BundleEndpoint, source))
}

// relate makes the resource that the controller manager makes a relationship of.
func (u *up) relate(ctx context.Context, r topology.Relationship) error {
	truster, err := u.topology.TrustDomain(r.Truster)
	if err != nil {
		return err
	}
	objects := u.access(truster.Cluster).Objects
	resource, err := u.relationship(ctx, r)
	if err != nil {
		return err
	}
	var is struct {
		Spec spire.FederatedTrustDomainSpec `json:"spec"`
	}
	if _, err := objects.Object(ctx, relationshipKey(r.Trusted), &is); err != nil {
		return err
	}
	// The bundle in the resource counts only when the relationship is made or
	// its endpoint changes (facts: the controller manager ignores other edits),
	// so that a relationship that is there is left alone.
	if want, ok := resource.Spec.(spire.FederatedTrustDomainSpec); ok && sameEndpoint(is.Spec, want) {
		return nil
	}
	plan.Did(ctx)
	if err := u.reachable(ctx, r); err != nil {
		return err
	}
	return wait(ctx, apiBound, check.Check{Name: "the controller manager takes the relationship", Probe: func(ctx context.Context) error {
		_, err := objects.Apply(ctx, resource)
		return err
	}})
}

func relationshipKey(trusted spiffeid.TrustDomain) ObjectKey {
	return ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: "ClusterFederatedTrustDomain", Name: spire.ResourceName(trusted)}
}

// sameEndpoint compares all but the bundle.
func sameEndpoint(a, b spire.FederatedTrustDomainSpec) bool {
	a.TrustDomainBundle, b.TrustDomainBundle = "", ""
	return a == b
}

// heldBundle returns nil for a bundle that is not held.
func heldBundle(ctx context.Context, server *spire.Server, td spiffeid.TrustDomain) (*spiffebundle.Bundle, error) {
	held, err := server.HeldBundle(ctx, td)
	if missing := (*spire.NotFoundError)(nil); errors.As(err, &missing) {
		return nil, nil
	}
	return held, err
}

// reachable waits until the truster's node gets through to the bundle endpoint
// of the trusted: a server fetches as soon as it has the relationship, and after
// a failure comes back only at its next poll.
func (u *up) reachable(ctx context.Context, r topology.Relationship) error {
	truster, err := u.topology.TrustDomain(r.Truster)
	if err != nil {
		return err
	}
	trusted, err := u.topology.TrustDomain(r.Trusted)
	if err != nil {
		return err
	}
	address, err := u.addresses.Server(trusted)
	if err != nil {
		return err
	}
	endpoint := netip.AddrPortFrom(address, uint16(trusted.BundleEndpoint.Port))
	return wait(ctx, apiBound, check.Check{
		Name: fmt.Sprintf("the bundle endpoint of %s answers %s", r.Trusted.Name(), truster.Cluster),
		Probe: func(ctx context.Context) error {
			return u.Parts.Nodes.Reach(ctx, u.topology.Name, truster.Cluster, endpoint)
		},
	})
}

// relationship returns the resource that makes a relationship, with the bundle
// that the trusted server has now.
func (u *up) relationship(ctx context.Context, r topology.Relationship) (spire.Resource, error) {
	trusted, err := u.topology.TrustDomain(r.Trusted)
	if err != nil {
		return spire.Resource{}, err
	}
	address, err := u.addresses.Server(trusted)
	if err != nil {
		return spire.Resource{}, err
	}
	bundle, err := u.server(r.Trusted).Bundle(ctx)
	if err != nil {
		return spire.Resource{}, err
	}
	return spire.FederatedTrustDomain(r, trusted.BundleEndpoint, address, bundle)
}

// fetchDelay is how long a server that has a relationship is left to fetch by
// itself: it reads its relationships again every 10 s, and fetches at once for a
// new one. A refresh that overtakes it would end its polling for good (see
// spire.Server.RefreshBundle).
const fetchDelay = 12 * time.Second

// staticFetchDelay is the same for a relationship that the server has had since
// it started: it has tried by then, but for a bundle that it was not given, and
// would try again a minute later.
const staticFetchDelay = 2 * time.Second

// syncing brings a held bundle in sync with its source, and no sooner than
// needed.
type syncing struct {
	topology.Relationship
	endpoint         topology.BundleEndpoint
	truster, trusted *spire.Server
	// delay is how long the truster is left to fetch by itself.
	delay time.Duration
	// since is when the truster was first seen to have the relationship, or was
	// last told to fetch.
	since time.Time
	// refused is what the truster said when it could not fetch. The bundle was
	// then handed to it, and is still to be fetched: that alone shows that the
	// endpoint is right.
	refused error
}

func (s *syncing) probe(ctx context.Context) error {
	// A bundle that is in sync may have been so before there was a relationship.
	if s.Mode == topology.CRD {
		relationships, err := s.truster.Relationships(ctx)
		if err != nil {
			return err
		}
		if !knows(relationships, s.Trusted) {
			s.since = time.Time{}
			return errors.New("its server does not have the relationship")
		}
	}
	source, err := s.trusted.Bundle(ctx)
	if err != nil {
		return err
	}
	held, err := heldBundle(ctx, s.truster, s.Trusted)
	if err != nil {
		return err
	}
	seen := federation.Compare(held, source)
	if seen.State == federation.InSync && s.refused == nil {
		return nil
	}
	switch now := time.Now(); {
	case s.since.IsZero():
		s.since = now
	case now.Sub(s.since) >= s.delay:
		s.since = now
		return s.fetch(ctx, source)
	}
	if s.refused != nil {
		return s.refused
	}
	return errors.New(seen.String())
}

// fetch makes the truster fetch. What it holds may be what keeps it from
// fetching, since that authenticates the endpoint: then the bundle is handed to
// it, with the hint by which it comes back soon (see spire.Pinned).
func (s *syncing) fetch(ctx context.Context, source *spiffebundle.Bundle) error {
	plan.Did(ctx)
	if s.refused = s.truster.RefreshBundle(ctx, s.Trusted); s.refused == nil {
		return s.probe(ctx)
	}
	s.refused = errors.Join(s.refused, s.truster.SetBundle(ctx, spire.Pinned(s.endpoint, source)))
	return s.refused
}

func knows(relationships []spire.Relationship, trusted spiffeid.TrustDomain) bool {
	return slices.ContainsFunc(relationships, func(r spire.Relationship) bool { return r.Trusted == trusted })
}
