package lab

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

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
	// ACMEUnready: the lab's ACME server does not run, from which a server orders its
	// serving certificate. The next up installs it.
	ACMEUnready Cause = "ACME server not ready"
	// ProxyUnready: the proxy does not run that peers ask in the place of a bundle endpoint.
	// The next up installs it.
	ProxyUnready Cause = "proxy not ready"
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
	// ShutOut: a server does not get into another cluster of its trust domain, whose
	// agents and workloads it has to look at. The next up restores its kubeconfig.
	ShutOut Cause = "server shut out"
	// Undelegated: nobody signs the authorities of a nested server. The next up restores
	// the entry by which its upstream does.
	Undelegated Cause = "no downstream entry"
	// IssuerUnreachable: the OIDC discovery provider of a trust domain does not answer, or not
	// with its documents. The next up repairs it.
	IssuerUnreachable Cause = "issuer unreachable"
	// OtherIssuer: it serves the documents of another issuer. The next up repairs it.
	OtherIssuer Cause = "another issuer"
	// OtherKeys: it serves other keys than those of the server's JWT authorities.
	OtherKeys Cause = "other JWT keys"
	// ClusterAbsent and NodeStopped are about a cluster that is not there, or does not run.
	// The next up makes it or starts it.
	ClusterAbsent Cause = "cluster not there"
	NodeStopped   Cause = "node stopped"
	// DatastoreUnready: the PostgreSQL of a server does not run.
	DatastoreUnready Cause = "datastore not ready"
	// ReplicaUnready: not all pods of a server that answers are ready.
	ReplicaUnready Cause = "replica not ready"
	// ManagerUnready: the server runs, and another container of its pod is not ready.
	ManagerUnready Cause = "controller manager not ready"
	// WebhookUnreachable: a controller manager does not show what its webhook has.
	WebhookUnreachable Cause = "webhook unreachable"
	// AgentUnready: the agents of a member do not run; NotAttested: their server does not
	// know them.
	AgentUnready Cause = "agent not ready"
	NotAttested  Cause = "agent not attested"
	// NoEntry: a workload has no entry that gives it its identity.
	NoEntry Cause = "no entry"
	// Unverified: a workload, or the webhook of a controller manager, presents an
	// X509-SVID that the bundle of its own trust domain does not verify. The next up
	// repairs it.
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

// named gives an error a cause, as it is; nil stays nil.
func named(cause Cause, err error) error {
	if err == nil {
		return nil
	}
	return &causeError{cause, err}
}

// relationships looks at all relationships side by side.
func (v *visit) relationships(ctx context.Context) []RelationshipStatus {
	wanted := v.Relationships()
	all := make([]RelationshipStatus, len(wanted))
	each(len(wanted), func(i int) {
		ctx, cancel := context.WithTimeout(ctx, statusBound)
		defer cancel()
		all[i] = v.relationship(ctx, wanted[i])
	})
	return all
}

func (v *visit) relationship(ctx context.Context, r topology.Relationship) RelationshipStatus {
	s := RelationshipStatus{Truster: r.Truster.String(), Cluster: nestedIn(r.By), Trusted: r.Trusted.String(), Profile: string(r.Profile), Mode: string(r.Mode)}
	compared, err := v.compared(r)
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
	if f, there := v.servers[r.By].federated.followed[r.Trusted.Name]; err != nil && r.Mode == topology.CRD && there && !f.ours() {
		err = fmt.Errorf("%w; its server follows %s, which is not the lab's own", err, f)
	}
	s.Health, s.Cause = health(err), causeOf(err)
	return s
}

// compared compares the bundle that one server holds of another's trust domain
// with the one that the other has itself.
func (v *visit) compared(r topology.Relationship) (federation.Comparison, error) {
	for _, s := range []*topology.Server{r.By, r.Trusted.Server()} {
		if v.servers[s].silent != nil {
			return federation.Comparison{}, because(Silent, "the server of %s does not answer", s)
		}
	}
	return federation.Compare(v.servers[r.By].held[r.Trusted.Name], v.server(r.Trusted).bundle), nil
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
	err = routed(r.Trusted, v.outlook(r.By).accepts(ctx, is))
	if causeOf(err) != EndpointUnreachable {
		return err
	}
	return endpointAt(r.Trusted.Server()).elsewhere(ctx, v.server(r.Trusted).site.Objects, err)
}

// outlook returns how a server sees bundle endpoints.
func (v *visit) outlook(of *topology.Server) outlook {
	a := v.servers[of]
	return outlook{peers: v.Parts.Peers, place: a.site.Place, in: a.site.Cluster, held: a.held, from: v.asker(a.site.Place), names: v.Names(), roots: func(ctx context.Context) ([]*x509.Certificate, error) {
		return v.webRootsOf(ctx, of.Domain)
	}}
}

// asker is asker, among the clusters that answer where one does.
func (v *visit) asker(p topology.Place) *topology.Cluster {
	if i := slices.IndexFunc(v.Clusters, func(c *topology.Cluster) bool { return v.clusters[c].answers() }); p.Host != nil && i >= 0 {
		return v.Clusters[i]
	}
	return asker(v.Graph, p)
}

// webRootsOf returns the web CAs of those whom a trust domain whose server is on a host
// trusts by https_web: what up gives that server.
func (v *visit) webRootsOf(ctx context.Context, of *topology.Domain) (known []*x509.Certificate, err error) {
	for _, r := range of.Trusts {
		trusted := v.server(r.Trusted)
		if r.Profile != topology.HTTPSWeb || r.Mode == topology.Manual || trusted.site == nil {
			continue
		}
		roots, err := endpointCAOf(ctx, trusted.site)
		if err != nil {
			return nil, err
		}
		known = append(known, roots...)
	}
	return known, nil
}

// asConfigured returns a relationship as the truster's server has it.
func (v *visit) asConfigured(r topology.Relationship) (spire.Relationship, error) {
	if r.Mode == topology.CRD || r.Mode == topology.API {
		a := v.servers[r.By]
		i := slices.IndexFunc(a.relationships, func(is spire.Relationship) bool { return is.Trusted == r.Trusted.Name })
		if i < 0 {
			return spire.Relationship{}, because(NoRelationship, "the server of %s has no relationship with %s: nothing will refresh its bundle%s",
				r.By, r.Trusted, a.federated.unmade(r.Trusted.Name))
		}
		return a.relationships[i], nil
	}
	// SPIRE does not list what is in a server's configuration.
	return spire.Relationship{
		RelationshipSpec: r.RelationshipSpec, URL: spire.BundleEndpointURL(r.Trusted.Server()), EndpointID: spire.ServerID(r.Trusted.Name),
	}, nil
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

// receives says which workload of a truster's server needs the bundle and does not
// receive it.
func (v *visit) receives(r topology.Relationship) error {
	for _, w := range r.Truster.Workloads() {
		is := *v.workloads[w]
		if w.Member.Server != r.By || is.unseen != nil || !slices.Contains(is.trusted, r.Trusted) {
			continue
		}
		is.trusted = []*topology.Domain{r.Trusted}
		if lacks := v.member(w.Member).registered(is); causeOf(lacks) == NoFederatesWith {
			return lacks
		}
	}
	return nil
}
