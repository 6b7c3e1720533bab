package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Cause is why a relationship, a trust domain or a workload is not well. Each has
// its cure in docs/troubleshooting.md.
type Cause string

// The causes, in the order in which they are looked for.
const (
	// Silent: a server cannot be asked, and nothing can be said.
	Silent Cause = "server does not answer"
	// NoRelationship: nothing refreshes the bundle.
	NoRelationship Cause = "no relationship"
	// CutOff: this machine gets no connection to the lab's addresses, and what it
	// would ask there nobody knows.
	CutOff Cause = "this machine is cut off"
	// EndpointUnreachable: the truster's node does not get through.
	EndpointUnreachable Cause = "endpoint unreachable"
	// WrongProfile: the endpoint shows a certificate of the other profile.
	WrongProfile Cause = "wrong profile"
	// WrongEndpointID: the endpoint shows an X509-SVID of another SPIFFE ID.
	WrongEndpointID Cause = "wrong endpointSPIFFEID"
	// NotServed: the endpoint answers, and not with a bundle.
	NotServed Cause = "no bundle served"
	// ExpiredCertificate: what the endpoint shows is not valid now.
	ExpiredCertificate Cause = "expired certificate"
	// MisnamedCertificate: it is not for the name or address in the URL.
	MisnamedCertificate Cause = "misnamed certificate"
	// UnknownRoot: nothing that the truster has verifies what the endpoint shows.
	UnknownRoot Cause = "unknown root"
	// MissingBundle and DifferingBundle are about what the truster holds.
	MissingBundle   Cause = "missing bundle"
	DifferingBundle Cause = "differing bundle"
	// NoFederatesWith: a workload that needs the bundle does not receive it.
	NoFederatesWith Cause = "entry without federatesWith"
	// OtherIdentity: a workload has several, and presents another than its own.
	OtherIdentity Cause = "another identity"
	// Unpublished: the agents of a cluster do not find the bundle of their server when
	// they start. The next up restores it.
	Unpublished Cause = "unpublished bundle"
	// Unverified: a workload, or the webhook of a controller manager, presents an
	// X509-SVID that the bundle of its own trust domain does not verify. The next up
	// mends it.
	Unverified Cause = "unverified SVID"
)

// causeError is an error whose cause is known.
type causeError struct {
	cause Cause
	err   error
}

func (e *causeError) Error() string { return e.err.Error() }
func (e *causeError) Unwrap() error { return e.err }

// causeOf returns the cause of an error; empty where it has none.
func causeOf(err error) Cause {
	if known := (*causeError)(nil); errors.As(err, &known) {
		return known.cause
	}
	if unverified(err) {
		return Unverified
	}
	return ""
}

func because(cause Cause, format string, args ...any) error {
	return &causeError{cause, fmt.Errorf(format, args...)}
}

// relationships looks at all relationships side by side.
func (v *visit) relationships(ctx context.Context) []RelationshipStatus {
	all := make([]RelationshipStatus, len(v.topology.Relationships))
	var group errgroup.Group
	for i, r := range v.topology.Relationships {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, statusBound)
			defer cancel()
			all[i] = v.relationship(ctx, r)
			return nil
		})
	}
	// Each has its own error.
	_ = group.Wait()
	return all
}

func (v *visit) relationship(ctx context.Context, r topology.Relationship) RelationshipStatus {
	s := RelationshipStatus{Truster: r.Truster.Name(), Trusted: r.Trusted.Name(), Profile: string(r.Profile), Mode: string(r.Mode)}
	compared, err := v.compared(r.Truster, r.Trusted)
	s.Bundle = compared.State
	if err == nil {
		err = v.related(ctx, r)
	}
	if err == nil {
		err = bundleProblem(r, compared)
	}
	if err == nil {
		err = v.receives(r)
	}
	if f, there := v.servers[r.Truster].federated.followed[r.Trusted]; err != nil && r.Mode == topology.CRD && there && !f.ours() {
		err = fmt.Errorf("%w; its server follows %s, which is not the lab's own", err, f)
	}
	s.Health, s.Cause = health(err), causeOf(err)
	return s
}

// compared compares the bundle that one server holds of another's trust domain
// with the one that the other has itself.
func (v *visit) compared(truster, trusted spiffeid.TrustDomain) (federation.Comparison, error) {
	for _, td := range []spiffeid.TrustDomain{truster, trusted} {
		if v.servers[td].silent != nil {
			return federation.Comparison{}, because(Silent, "the server of %s does not answer", td.Name())
		}
	}
	return federation.Compare(v.servers[truster].held[trusted], v.servers[trusted].bundle), nil
}

// related looks at how the truster fetches, from where it does.
func (v *visit) related(ctx context.Context, r topology.Relationship) error {
	if r.Mode == topology.Manual {
		return nil // it does not
	}
	is, err := v.asConfigured(r)
	if err != nil {
		return err
	}
	o, err := v.outlook(r.Truster)
	if err != nil {
		return err
	}
	err = o.accepts(ctx, is)
	if causeOf(err) != EndpointUnreachable {
		return err
	}
	trusted, failed := v.topology.TrustDomain(r.Trusted)
	if failed != nil {
		return failed
	}
	address, failed := v.addresses.Server(trusted)
	if failed != nil {
		return failed
	}
	return endpointAt(trusted, address).elsewhere(ctx, v.access[trusted.Cluster].Objects, err)
}

// outlook returns how the server of a trust domain sees bundle endpoints.
func (v *visit) outlook(of spiffeid.TrustDomain) (outlook, error) {
	td, err := v.topology.TrustDomain(of)
	return outlook{nodes: v.Parts.Nodes, lab: v.topology.Name, cluster: td.Cluster, access: v.access[td.Cluster], held: v.servers[of].held}, err
}

// asConfigured returns a relationship as the truster's server has it.
func (v *visit) asConfigured(r topology.Relationship) (spire.Relationship, error) {
	if r.Mode == topology.CRD {
		all := v.servers[r.Truster].relationships
		i := slices.IndexFunc(all, func(is spire.Relationship) bool { return is.Trusted == r.Trusted })
		if i < 0 {
			return spire.Relationship{}, because(NoRelationship, "the server of %s has no relationship with %s: nothing will refresh its bundle%s",
				r.Truster.Name(), r.Trusted.Name(), v.servers[r.Truster].federated.unmade(r.Trusted))
		}
		return all[i], nil
	}
	// SPIRE does not list what stands in a server's configuration.
	trusted, err := v.topology.TrustDomain(r.Trusted)
	if err != nil {
		return spire.Relationship{}, err
	}
	address, err := v.addresses.Server(trusted)
	return spire.Relationship{
		Relationship: r, URL: spire.BundleEndpointURL(trusted.BundleEndpoint, address), EndpointID: spire.ServerID(r.Trusted),
	}, err
}

// bundleProblem says why a held bundle is not what it should be.
func bundleProblem(r topology.Relationship, c federation.Comparison) error {
	cure := ""
	if r.Mode == topology.Manual {
		cure = "; nothing refreshes it but another exchange, such as the next up"
	}
	switch c.State {
	case federation.InSync:
		return nil
	case federation.Missing:
		return because(MissingBundle, "%s%s", c, cure)
	}
	return because(DifferingBundle, "%s%s", c, cure)
}

// receives says which workload of the truster needs the bundle and does not
// receive it.
func (v *visit) receives(r topology.Relationship) error {
	truster, err := v.topology.TrustDomain(r.Truster)
	if err != nil {
		return err
	}
	for _, w := range v.topology.Workloads {
		is := v.workloads[w.Name]
		if w.Cluster != truster.Cluster || is.unseen != nil || !slices.Contains(is.trusted, r.Trusted) {
			continue
		}
		is.trusted = []spiffeid.TrustDomain{r.Trusted}
		if lacks := v.servers[r.Truster].registered(is); causeOf(lacks) == NoFederatesWith {
			return lacks
		}
	}
	return nil
}
