package trial

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/fault"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// relationshipKey names the resource by which the trust domain trusts another.
func (d Domain) relationshipKey(trusted spiffeid.TrustDomain) access.ObjectKey {
	return access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: spire.FederatedTrustDomainKind, Name: spire.NameFor(d.site.Server, trusted)}
}

// Relationship returns the resource by which the trust domain trusts another.
func (d Domain) Relationship(ctx context.Context, to spiffeid.TrustDomain) (spire.FederatedTrustDomainSpec, error) {
	var resource struct {
		Spec spire.FederatedTrustDomainSpec `json:"spec"`
	}
	there, err := d.Access().Objects.Object(ctx, d.relationshipKey(to), &resource)
	if err == nil && !there {
		err = fmt.Errorf("%s has no resource by which it trusts %s", d, to)
	}
	return resource.Spec, err
}

// SetRelationship makes the resource by which the trust domain trusts the one that
// spec names what it is given as. Nothing puts that back.
func (d Domain) SetRelationship(ctx context.Context, to spiffeid.TrustDomain, spec spire.FederatedTrustDomainSpec) error {
	_, err := d.Access().Objects.Apply(ctx, d.resource(d.relationshipKey(to), spec))
	return err
}

// resource is one by which the trust domain trusts the one that spec names.
func (d Domain) resource(key access.ObjectKey, spec spire.FederatedTrustDomainSpec) spire.Resource {
	spec.ClassName = d.site.Class
	return spire.Resource{APIVersion: key.APIVersion, Kind: key.Kind, Metadata: spire.Metadata{Name: key.Name, Labels: spire.Owned()}, Spec: spec}
}

// Duplicate is the fault that there is another resource besides the one by which the trust
// domain trusts another.
func (d Domain) Duplicate(to Domain, spec spire.FederatedTrustDomainSpec) fault.Fault {
	key := d.relationshipKey(to.Name)
	key.Name += "-again"
	return fault.ObjectAdded(d.Fault(), key, d.resource(key, spec))
}

// EditRelationship changes the resource by which the trust domain trusts another,
// and has it put back at the end.
func (d Domain) EditRelationship(ctx context.Context, to Domain, change func(*spire.FederatedTrustDomainSpec)) error {
	before, err := d.Relationship(ctx, to.Name)
	if err != nil {
		return err
	}
	set := func(ctx context.Context, change func(*spire.FederatedTrustDomainSpec)) error {
		// Whoever changes a field has the controller manager set what the resource
		// pins, and that may be older than what is held.
		source, err := to.Bundle(ctx)
		if err != nil {
			return err
		}
		document, err := spire.Pinned(to.BundleEndpoint, source).Marshal()
		if err != nil {
			return err
		}
		spec := before
		spec.TrustDomainBundle = string(document)
		change(&spec)
		return d.SetRelationship(ctx, to.Name, spec)
	}
	asBefore := func(*spire.FederatedTrustDomainSpec) {}
	d.trial.Restore(fmt.Sprintf("let %s trust %s as before", d, to), func(ctx context.Context) error { return set(ctx, asBefore) })
	return set(ctx, change)
}

// RemoveRelationship deletes the resource by which the trust domain trusts another,
// and has it put back at the end.
func (d Domain) RemoveRelationship(ctx context.Context, to Domain) error {
	if err := d.EditRelationship(ctx, to, func(*spire.FederatedTrustDomainSpec) {}); err != nil {
		return err
	}
	if err := d.DropRelationship(ctx, to); err != nil {
		return err
	}
	return d.trial.Await(ctx, time.Now(), ManagerLook(), d.Unrelated(to.Name))
}

// DropRelationship deletes the resource by which the trust domain trusts another. Nothing puts
// that back.
func (d Domain) DropRelationship(ctx context.Context, to Domain) error {
	return d.Access().Objects.Delete(ctx, d.relationshipKey(to.Name))
}

// Unrelated checks that the server has no relationship with another.
func (d Domain) Unrelated(to spiffeid.TrustDomain) check.Check {
	return d.RelationshipWith(to).Is(Absent)
}

// RelationshipWith is whether the server has a relationship with another.
func (d Domain) RelationshipWith(to spiffeid.TrustDomain) Fact {
	return Fact{Of: fmt.Sprintf("the relationship of %s with %s", d, to), Look: func(ctx context.Context) (string, error) {
		all, err := d.Server().Relationships(ctx)
		if slices.ContainsFunc(all, func(r spire.Relationship) bool { return r.Trusted == to }) {
			return There, err
		}
		return Absent, err
	}}
}

// Forget deletes the bundle that the server holds of a trust domain, if it does.
func (d Domain) Forget(ctx context.Context, of spiffeid.TrustDomain) error {
	held, err := d.Server().HeldBundle(ctx, of)
	if err != nil || held == nil {
		return err
	}
	return d.Server().DeleteBundle(ctx, of, spire.DeleteDissociate)
}

// Refresh has the server fetch the bundle of another now.
func (d Domain) Refresh(ctx context.Context, of Domain) error {
	return d.trial.Do(ctx, ToRefresh, func(ctx context.Context) error { return d.Server().RefreshBundle(ctx, of.Name) })
}

// Handover sets what the server holds of another to what the other has now, by
// the authenticated path of both servers' APIs.
func (d Domain) Handover(ctx context.Context, of Domain) error {
	source, err := of.Bundle(ctx)
	if err != nil {
		return err
	}
	source = source.Clone()
	source.SetRefreshHint(of.BundleEndpoint.RefreshHint)
	return d.Server().SetBundle(ctx, source)
}

// PollsLate says that a server will come back for a bundle later than by what it
// holds at the end of the run: when it last fetched, it held none, or a longer
// hint, and no refresh makes it forget that (pkg/server/bundle/client/manager.go,
// runUpdateOnce). It is started again when all is put back.
func (d Domain) PollsLate() {
	if !slices.ContainsFunc(d.trial.late, func(other Domain) bool { return other.Name == d.Name }) {
		d.trial.late = append(d.trial.late, d)
	}
}

// What a look at a fetch sees.
const (
	Fetched      = "fetched"
	FetchRefused = "refused"
	FetchHangs   = "hangs"
)

// fetchBound is how long a fetch may take that does not hang: it takes milliseconds.
const fetchBound = 5 * time.Second

// Fetch is what comes of it when the server is asked to fetch the bundle of another, as it does
// with each poll: Fetched, FetchRefused or FetchHangs.
func (d Domain) Fetch(of Domain) Fact { return d.fetch(of.Name) }

func (d Domain) fetch(of spiffeid.TrustDomain) Fact {
	return Fact{Of: fmt.Sprintf("a fetch of the bundle of %s by %s", of, d), Well: Fetched, Look: func(ctx context.Context) (string, error) {
		bounded, cancel := context.WithTimeout(ctx, fetchBound)
		defer cancel()
		err := d.Server().RefreshBundle(bounded, of)
		refused := (*spire.FetchError)(nil)
		switch {
		case err == nil:
			return Fetched, nil
		case errors.As(err, &refused):
			d.trial.Seen("the fetch is refused: %v", err)
			return FetchRefused, nil
		case bounded.Err() != nil && ctx.Err() == nil:
			return FetchHangs, nil
		}
		return "", err
	}}
}

// CannotFetch claims that the server gets no bundle when it is asked to fetch that of another: it
// is refused, or has no answer in time.
// A watch that is as long as a poll does not show by itself that there was one.
func (d Domain) CannotFetch(ctx context.Context, of Domain) error {
	return d.trial.See(ctx, "asked to fetch, the peer cannot", d.Fetch(of), FetchRefused, FetchHangs)
}

// handoverBehind hands bundles over to those who lack an authority of what they
// trust, or have one too many. Who is in sync is left alone.
func (t *Trial) handoverBehind(ctx context.Context, trusts []*topology.Trust) error {
	var errs []error
	for _, r := range trusts {
		truster, trusted := t.Domain(r.Truster), t.Domain(r.Trusted)
		seen, err := truster.Compare(ctx, trusted)
		if err == nil && len(seen.Lacking)+len(seen.Foreign) > 0 {
			err = truster.Handover(ctx, trusted)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("hand the bundle of %s over to %s: %w", trusted, truster, err))
		}
	}
	return errors.Join(errs...)
}
