package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
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
	truster, err := u.topology.TrustDomain(r.Truster)
	if err != nil {
		return err
	}
	trusted, err := u.topology.TrustDomain(r.Trusted)
	if err != nil {
		return err
	}
	s := &syncing{
		Relationship: r, endpoint: trusted.BundleEndpoint, truster: u.server(r.Truster), trusted: u.server(r.Trusted),
		objects: u.access(truster.Cluster).Objects, delay: fetchDelay,
	}
	if r.Mode == topology.Static {
		s.delay = staticFetchDelay
		err = u.bootstrap(ctx, r)
	} else {
		s.followed, err = u.relate(ctx, r)
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

// relate makes the resource that the controller manager makes a relationship of,
// unless the server follows one that works. It returns the relationship.
func (u *up) relate(ctx context.Context, r topology.Relationship) (is spire.Relationship, err error) {
	truster, err := u.topology.TrustDomain(r.Truster)
	if err != nil {
		return is, err
	}
	objects := u.access(truster.Cluster).Objects
	resource, err := u.relationship(ctx, r)
	if err != nil {
		return is, err
	}
	all, err := readAll(ctx, objects)
	if err != nil {
		return is, err
	}
	spec, _ := resource.Spec.(spire.FederatedTrustDomainSpec)
	if is, err = spec.Relationship(r.Truster); err != nil {
		return is, err
	}
	own := slices.IndexFunc(all, func(f spire.FederatedTrustDomainResource) bool { return f.Metadata.Name == resource.Metadata.Name })
	why := errors.New("it is not there")
	if own >= 0 {
		found, invalid := all[own].Spec.Relationship(r.Truster)
		if why = invalid; why == nil {
			if why, err = u.differs(ctx, r, found, is); err != nil {
				return is, err
			}
		}
		if why == nil {
			is = found
		}
		// As it will be.
		all[own].Spec = spec
	}
	f, there := follow(r.Truster, all).followed[r.Trusted]
	foreign := there && !f.ours()
	if foreign && !f.Owned {
		if err := u.works(ctx, r, f); err != nil || own < 0 {
			return f.Relationship, err
		}
		is = f.Relationship
	}
	if why != nil {
		if err := u.apply(ctx, r, objects, resource, own >= 0, why); err != nil {
			return is, err
		}
	}
	if foreign && f.Owned {
		// It has fedlab's label, so that fedlab may remove it. The lab's own is there:
		// the relationship does not go in between.
		plan.Did(ctx)
		plan.Note(ctx, fmt.Sprintf("%s stands in the way of the lab's own in cluster %s: removes it", f, truster.Cluster))
		key := relationshipKey(r.Trusted)
		key.Name = f.Resource
		return is, objects.Delete(ctx, key)
	}
	return is, nil
}

// apply makes a relationship's resource. It counts when the relationship is made,
// or when its endpoint changes (facts: the controller manager ignores other
// edits), so that it is not called for one that is right.
func (u *up) apply(ctx context.Context, r topology.Relationship, objects Objects, resource spire.Resource, there bool, why error) error {
	plan.Did(ctx)
	if there {
		plan.Note(ctx, fmt.Sprintf("%s %s is not as it should be: %s: writes it again", resource.Kind, resource.Metadata.Name, why))
	}
	if err := u.reachable(ctx, r); err != nil {
		return err
	}
	return wait(ctx, apiBound, check.Check{Name: "the controller manager takes the relationship", Probe: func(ctx context.Context) error {
		_, err := objects.Apply(ctx, resource)
		return err
	}})
}

// differs says why the lab's own resource is not right as it is; nil where it is.
// Another URL is right where a server that authenticates the endpoint by its
// SPIFFE ID gets its bundle there. With https_web whoever answers for a name may
// serve any bundle: there the address counts.
func (u *up) differs(ctx context.Context, r topology.Relationship, found, wanted spire.Relationship) (why, err error) {
	switch {
	case found == wanted:
		return nil, nil
	case found.Trusted != wanted.Trusted:
		return fmt.Errorf("its trustDomain is %s", found.Trusted.Name()), nil
	case found.Profile != wanted.Profile:
		return fmt.Errorf("its profile is %s", found.Profile), nil
	case found.EndpointID != wanted.EndpointID:
		return fmt.Errorf("its endpointSPIFFEID is %s", found.EndpointID), nil
	case found.Profile == topology.HTTPSWeb:
		return fmt.Errorf("its bundleEndpointURL is %s", found.URL), nil
	}
	return u.seen(ctx, r, found)
}

// works returns nil when a server gets the bundle of a trust domain by a resource
// that fedlab has not made.
func (u *up) works(ctx context.Context, r topology.Relationship, f followed) error {
	why, err := u.seen(ctx, r, f.Relationship)
	if err != nil || why == nil {
		return err
	}
	truster, err := u.topology.TrustDomain(r.Truster)
	if err != nil {
		return err
	}
	return fmt.Errorf("%w; the server of %s follows %s, which is not the lab's own: correct it, or delete it with 'kubectl --context %s delete %s %s', and run up again",
		why, r.Truster.Name(), f, u.Parts.Kubeconfigs.Context(u.topology.Name, truster.Cluster), strings.ToLower(spire.FederatedTrustDomainKind), f.Resource)
}

// seen says why the truster's server gets no bundle from where a relationship
// says, once all is up that the lab itself has on the way; nil where it gets one.
func (u *up) seen(ctx context.Context, r topology.Relationship, is spire.Relationship) (why, err error) {
	if err := u.reachable(ctx, r); err != nil {
		return nil, err
	}
	truster, err := u.topology.TrustDomain(r.Truster)
	if err != nil {
		return nil, err
	}
	held, err := u.server(r.Truster).HeldBundles(ctx)
	if err != nil {
		return nil, err
	}
	o := outlook{
		nodes: u.Parts.Nodes, lab: u.topology.Name, cluster: truster.Cluster, access: u.access(truster.Cluster),
		held: map[spiffeid.TrustDomain]*spiffebundle.Bundle{},
	}
	for _, b := range held {
		o.held[b.TrustDomain()] = b
	}
	// A held bundle that is too old is put right later, and says nothing here.
	if o.held[r.Trusted], err = u.server(r.Trusted).Bundle(ctx); err != nil {
		return nil, err
	}
	err = wait(ctx, apiBound, check.Check{Name: "it can be told whether " + is.URL + " serves a bundle", Probe: func(ctx context.Context) error {
		why = o.accepts(ctx, is)
		if known := (*causeError)(nil); errors.As(why, &known) {
			return nil
		}
		return why
	}})
	return why, err
}

func relationshipKey(trusted spiffeid.TrustDomain) ObjectKey {
	return ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: spire.FederatedTrustDomainKind, Name: spire.ResourceName(trusted)}
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
			_, err := u.Parts.Nodes.Get(ctx, u.topology.Name, truster.Cluster, "https://"+endpoint.String(), address)
			return endpointAt(trusted, address).elsewhere(ctx, u.access(trusted.Cluster).Objects, err)
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
	// followed is what the controller manager makes, in mode crd.
	followed         spire.Relationship
	endpoint         topology.BundleEndpoint
	truster, trusted *spire.Server
	// objects are those of the truster's cluster.
	objects Objects
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
		i := slices.IndexFunc(relationships, func(r spire.Relationship) bool { return r.Trusted == s.Trusted })
		if i < 0 {
			s.since = time.Time{}
			return s.unmade(ctx)
		}
		if is := relationships[i]; is != s.followed {
			s.since = time.Time{}
			return fmt.Errorf("its server fetches from %s by %s, and not yet from %s by %s", is.URL, is.Profile, s.followed.URL, s.followed.Profile)
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

// unmade says why the truster's server does not have the relationship. Where no
// resource stands for it any more, nobody will make it.
func (s *syncing) unmade(ctx context.Context) error {
	r, err := readFederated(ctx, s.objects, s.Truster)
	if err != nil {
		return err
	}
	err = fmt.Errorf("its server does not have the relationship%s", r.unmade(s.Trusted))
	if _, there := r.followed[s.Trusted]; !there {
		return check.Never(err)
	}
	return err
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
