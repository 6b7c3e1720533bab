package lab

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// federated is what a cluster has of ClusterFederatedTrustDomains.
type federated struct {
	// followed are those that the server follows.
	followed map[spiffeid.TrustDomain]followed
	// passed are those that the controller manager makes nothing of.
	passed []spire.PassedOver
}

// followed is a resource that a server follows.
type followed struct {
	spire.Followed
	by *topology.Server
}

func (f followed) String() string { return spire.FederatedTrustDomainKind + " " + f.Resource }

// ours reports whether a resource has the name of the lab's own.
func (f followed) ours() bool { return f.Resource == spire.NameFor(f.by, f.Trusted) }

// readFederated reads the resources for relationships that a server answers for,
// whoever made them.
func readFederated(ctx context.Context, of *Site) (federated, error) {
	if of.Place.Host != nil {
		return federated{}, nil // it has no controller manager
	}
	all, err := readAll(ctx, of.Objects)
	return follow(of.Server, all), err
}

// readFederated reads those of all clusters side by side.
func (v *visit) readFederated(ctx context.Context) {
	servers := v.Servers()
	each(len(servers), func(i int) {
		a := v.servers[servers[i]]
		if a.silent != nil {
			return // there may be nobody to ask, and no use for the answer
		}
		ctx, cancel := context.WithTimeout(ctx, statusBound)
		defer cancel()
		a.federated, a.unread = readFederated(ctx, a.site)
	})
}

func follow(of *topology.Server, all []spire.FederatedTrustDomainResource) federated {
	r := federated{followed: map[spiffeid.TrustDomain]followed{}}
	served, passed := spire.Follow(of, all)
	for td, f := range served {
		r.followed[td] = followed{f, of}
	}
	r.passed = passed
	return r
}

// readAll reads all ClusterFederatedTrustDomains of a cluster.
func readAll(ctx context.Context, objects access.Objects) ([]spire.FederatedTrustDomainResource, error) {
	var all []spire.FederatedTrustDomainResource
	err := objects.List(ctx, access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: spire.FederatedTrustDomainKind}, nil, &all)
	return all, err
}

// idle lists those of a cluster without a server that a member answers for. Where there is
// a server, its first one answers for what nobody serves.
func idle(ctx context.Context, in access.Objects, m *topology.Member) (remarks []ResourceStatus, err error) {
	if m.Host() != nil || len(m.Cluster().Servers) > 0 {
		return nil, nil
	}
	all, err := readAll(ctx, in)
	for _, x := range all {
		if spire.Registers(m, x.Spec.ClassName) {
			remarks = append(remarks, ResourceStatus{
				Cluster: m.Cluster().Name, Kind: spire.FederatedTrustDomainKind, Name: x.Metadata.Name,
				Problem: fmt.Sprintf("the controller manager of %s makes no relationships in cluster %s: write it into cluster %s, where the SPIRE server is",
					m.Domain, m.Cluster().Name, m.Server.Place.Cluster.Name),
			})
		}
	}
	return remarks, err
}

// unmade says why there is no relationship with a trust domain, in words that
// follow others; empty where no resource stands for it.
func (r federated) unmade(trusted spiffeid.TrustDomain) string {
	if f, there := r.followed[trusted]; there {
		return fmt.Sprintf("; the controller manager has not made it of %s yet", f)
	}
	var b strings.Builder
	for _, p := range r.passed {
		if p.Trusted == trusted {
			_, _ = fmt.Fprintf(&b, "; the controller manager passes over %s %s: %s", spire.FederatedTrustDomainKind, p.Resource, p.Why)
		}
	}
	return b.String()
}

// remarks lists the resources that the controller manager passes over.
func (r federated) remarks(cluster string) []ResourceStatus {
	var all []ResourceStatus
	for _, p := range r.passed {
		why := p.Why.Error()
		if unserved := (*spire.UnservedClassError)(nil); !errors.As(p.Why, &unserved) {
			why = "it is passed over: " + why
		}
		all = append(all, ResourceStatus{Cluster: cluster, Kind: spire.FederatedTrustDomainKind, Name: p.Resource, Problem: why})
	}
	return all
}
