package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// federate makes a server of one trust domain trust another one: the bundle of the
// trusted one is read from its own server over an authenticated path and handed to the
// truster. Its server then fetches the bundle by itself from the bundle
// endpoint, unless the relationship is a manual one.
func (u *up) federate(ctx context.Context, r topology.Relationship) (err error) {
	f := federating{up: u, Relationship: r, truster: u.site(r.By), trusted: u.site(r.Trusted.Server())}
	if r.Mode == topology.Manual {
		return f.exchange(ctx)
	}
	s := &syncing{federating: f, delay: fetchDelay}
	switch r.Mode {
	case topology.Static:
		s.delay = staticFetchDelay
		err = f.bootstrap(ctx)
	case topology.API:
		s.followed, err = f.relateByAPI(ctx)
	default:
		s.followed, err = f.relate(ctx)
	}
	if err != nil {
		return err
	}
	return wait(ctx, apiBound, check.Check{Name: r.By.String() + " holds the bundle of " + r.Trusted.String(), Probe: s.probe})
}

// federating is a relationship that is being made, with the servers of both sides.
type federating struct {
	*up
	topology.Relationship
	truster, trusted *Site
}

// exchange sets a bundle by hand, as it is now.
func (f federating) exchange(ctx context.Context) error {
	source, err := f.trusted.API.Bundle(ctx)
	if err != nil {
		return err
	}
	held, err := f.truster.API.HeldBundle(ctx, f.Trusted.Name)
	if err != nil || federation.Compare(held, source).State == federation.InSync {
		return err
	}
	plan.Did(ctx)
	return f.truster.API.SetBundle(ctx, source)
}

// bootstrap hands a truster whose server has the relationship in its
// configuration the bundle that it starts with, unless it holds one.
func (f federating) bootstrap(ctx context.Context) error {
	held, err := f.truster.API.HeldBundle(ctx, f.Trusted.Name)
	if err != nil || held != nil {
		return err
	}
	plan.Did(ctx)
	if err := f.reachable(ctx); err != nil {
		return err
	}
	source, err := f.trusted.API.Bundle(ctx)
	if err != nil {
		return err
	}
	return f.truster.API.SetBundle(ctx, spire.Pinned(f.Trusted.BundleEndpoint, source))
}

// relate makes the resource that the controller manager makes a relationship of,
// unless the server follows one that works. It returns the relationship.
func (f federating) relate(ctx context.Context) (is spire.Relationship, err error) {
	server, trusted := f.truster.Server, f.Trusted.Name
	bundle, err := f.trusted.API.Bundle(ctx)
	if err != nil {
		return is, err
	}
	resource, err := spire.FederatedTrustDomain(f.Relationship, bundle)
	if err != nil {
		return is, err
	}
	all, err := readAll(ctx, f.truster.Objects)
	if err != nil {
		return is, err
	}
	spec, _ := resource.Spec.(spire.FederatedTrustDomainSpec)
	if is, err = spec.Relationship(server); err != nil {
		return is, err
	}
	own := slices.IndexFunc(all, func(f spire.FederatedTrustDomainResource) bool { return f.Metadata.Name == resource.Metadata.Name })
	why := errors.New("it is not there")
	if own >= 0 {
		found, invalid := all[own].Spec.Relationship(server)
		if why = invalid; why == nil {
			if why, err = f.differs(ctx, found, is); err != nil {
				return is, err
			}
		}
		if why == nil {
			is = found
		}
		// As it will be.
		all[own].Spec = spec
	}
	other, there := follow(server, all).followed[trusted]
	foreign := there && !other.ours()
	if foreign && !other.Owned {
		if err := f.works(ctx, other); err != nil || own < 0 {
			return other.Relationship, err
		}
		is = other.Relationship
	}
	if why != nil {
		if err := f.apply(ctx, resource, own >= 0, why); err != nil {
			return is, err
		}
	}
	if foreign && other.Owned {
		// It has fedlab's label, so that fedlab may remove it. The lab's own is there:
		// the relationship does not go in between.
		plan.Did(ctx)
		plan.Remark(ctx, fmt.Sprintf("%s stands in the way of the lab's own in cluster %s: removes it", other, f.truster.Place.Cluster.Name))
		return is, f.truster.Objects.Delete(ctx, access.ObjectKey{APIVersion: resource.APIVersion, Kind: resource.Kind, Name: other.Resource})
	}
	return is, nil
}

// apply makes a relationship's resource. It counts when the relationship is made,
// or when its endpoint changes (the controller manager ignores other
// edits), so that it is not called for one that is right.
func (f federating) apply(ctx context.Context, resource spire.Resource, there bool, why error) error {
	plan.Did(ctx)
	if there {
		plan.Remark(ctx, fmt.Sprintf("%s %s is not as it should be: %s: writes it again", resource.Kind, resource.Metadata.Name, why))
	}
	if err := f.reachable(ctx); err != nil {
		return err
	}
	return wait(ctx, apiBound, check.Check{Name: "the controller manager takes the relationship", Probe: func(ctx context.Context) error {
		_, err := f.truster.Objects.Apply(ctx, resource)
		return err
	}})
}

// differs says why the lab's own resource is not right as it is; nil where it is.
// Another URL is right where a server that authenticates the endpoint by its
// SPIFFE ID gets its bundle there, unless it is the one that a lab file without a name for
// the endpoint comes to. With https_web whoever answers for a name may
// serve any bundle: there the address counts.
func (f federating) differs(ctx context.Context, found, wanted spire.Relationship) (why, err error) {
	switch {
	case found == wanted:
		return nil, nil
	case found.Trusted != wanted.Trusted:
		return fmt.Errorf("its trustDomain is %s", found.Trusted.Name()), nil
	case found.Profile != wanted.Profile:
		return fmt.Errorf("its profile is %s", found.Profile), nil
	case found.EndpointID != wanted.EndpointID:
		return fmt.Errorf("its endpointSPIFFEID is %s", found.EndpointID), nil
	case found.Profile == topology.HTTPSWeb, found.URL == spire.AddressURL(f.Trusted.Server()):
		return fmt.Errorf("its bundleEndpointURL is %s", found.URL), nil
	}
	return f.seen(ctx, found)
}

// works returns nil when a server gets the bundle of a trust domain by a resource
// that fedlab has not made.
func (f federating) works(ctx context.Context, other followed) error {
	why, err := f.seen(ctx, other.Relationship)
	if err != nil || why == nil {
		return err
	}
	c := f.truster.Place.Cluster
	return fmt.Errorf("%w; the server of %s follows %s, which is not the lab's own: correct it, or delete it with 'kubectl --context %s delete %s %s', and run up again",
		why, f.By, other, f.Parts.Kubeconfigs.Context(c.Lab, c.Name), strings.ToLower(spire.FederatedTrustDomainKind), other.Resource)
}

// seen says why the truster's server gets no bundle from where a relationship
// says, once all is up that the lab itself has on the way; nil where it gets one.
func (f federating) seen(ctx context.Context, is spire.Relationship) (why, err error) {
	if err := f.reachable(ctx); err != nil {
		return nil, err
	}
	held, err := f.truster.API.HeldBundles(ctx)
	if err != nil {
		return nil, err
	}
	o := outlook{
		peers: f.Parts.Peers, place: f.truster.Place, in: f.truster.Cluster, from: asker(f.Graph, f.truster.Place),
		held: map[spiffeid.TrustDomain]*spiffebundle.Bundle{}, names: f.Names(),
	}
	for _, b := range held {
		o.held[b.TrustDomain()] = b
	}
	// A held bundle that is too old is put right later, and says nothing here.
	if o.held[f.Trusted.Name], err = f.trusted.API.Bundle(ctx); err != nil {
		return nil, err
	}
	err = wait(ctx, apiBound, check.Check{Name: "it can be told whether " + is.URL + " serves a bundle", Probe: func(ctx context.Context) error {
		why = routed(f.Trusted, o.accepts(ctx, is))
		if known := (*causeError)(nil); errors.As(why, &known) {
			return nil
		}
		return why
	}})
	return why, err
}

// reachable waits until the truster's node gets through to the bundle endpoint
// of the trusted: a server fetches as soon as it has the relationship, and after
// a failure comes back only at its next poll.
func (f federating) reachable(ctx context.Context) error {
	from, to := asker(f.Graph, f.truster.Place), f.trusted.Server
	return wait(ctx, apiBound, check.Check{
		Name: fmt.Sprintf("the bundle endpoint of %s answers %s", f.Trusted, from.Name),
		Probe: func(ctx context.Context) error {
			if c := f.truster.Place.Cluster; c != nil && to.Domain.BundleEndpoint.Host != "" {
				if _, err := lookup(ctx, f.truster.Pods, f.truster.Place, to.Domain.BundleEndpoint.Host); err != nil {
					return err
				}
			}
			answer, err := f.Parts.Peers.Get(ctx, from.Lab, from.Name, spire.BundleEndpointURL(to), to.PublicAddress())
			if err == nil && answer.Status >= http.StatusInternalServerError {
				err = fmt.Errorf("%s answers %d %s", spire.BundleEndpointURL(to), answer.Status, http.StatusText(answer.Status))
			}
			return endpointAt(to).elsewhere(ctx, f.trusted.Objects, err)
		},
	})
}

// fetchDelay is how long a server that has a relationship is left to fetch by
// itself: it reads its relationships again every 10 s, and fetches at once for a
// new one. A refresh that overtakes it would end its polling for good (see
// spire.Server.RefreshBundle).
const fetchDelay = 12 * time.Second

// staticFetchDelay is the same for a relationship that the server has had since
// it started: it has tried by then, except where it was not given a first bundle, and
// would try again a minute later.
const staticFetchDelay = 2 * time.Second

// syncing brings a held bundle in sync with its source, and not earlier than
// needed.
type syncing struct {
	federating
	// followed is what the controller manager makes, in mode crd, or fedlab, in mode api.
	followed spire.Relationship
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
	if s.Mode != topology.Static {
		relationships, err := s.truster.API.Relationships(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(relationships, func(r spire.Relationship) bool { return r.Trusted == s.Trusted.Name })
		if i < 0 {
			s.since = time.Time{}
			return s.unmade(ctx)
		}
		if is := relationships[i]; is != s.followed {
			s.since = time.Time{}
			return fmt.Errorf("its server fetches from %s by %s, and not yet from %s by %s", is.URL, is.Profile, s.followed.URL, s.followed.Profile)
		}
	}
	source, err := s.trusted.API.Bundle(ctx)
	if err != nil {
		return err
	}
	held, err := s.truster.API.HeldBundle(ctx, s.Trusted.Name)
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
	if s.Mode == topology.API {
		return check.Never(errors.New("its server does not have the relationship: somebody has deleted it: run up again"))
	}
	r, err := readFederated(ctx, s.truster)
	if err != nil {
		return err
	}
	err = fmt.Errorf("its server does not have the relationship%s", r.unmade(s.Trusted.Name))
	if _, there := r.followed[s.Trusted.Name]; !there {
		return check.Never(err)
	}
	return err
}

// fetch makes the truster fetch. What it holds may be what keeps it from
// fetching, since that authenticates the endpoint: then the bundle is handed to
// it, with the hint by which it comes back soon (see spire.Pinned).
func (s *syncing) fetch(ctx context.Context, source *spiffebundle.Bundle) error {
	plan.Did(ctx)
	if s.refused = s.truster.API.RefreshBundle(ctx, s.Trusted.Name); s.refused == nil {
		return s.probe(ctx)
	}
	s.refused = errors.Join(s.refused, s.truster.API.SetBundle(ctx, spire.Pinned(s.Trusted.BundleEndpoint, source)))
	return s.refused
}

func knows(relationships []spire.Relationship, trusted spiffeid.TrustDomain) bool {
	return slices.ContainsFunc(relationships, func(r spire.Relationship) bool { return r.Trusted == trusted })
}
