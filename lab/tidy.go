package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/metallb"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Releases that every cluster has.
const (
	metallbRelease = "metallb"
	spireRelease   = "spire"
)

// removeSurplus removes the clusters and hosts that the file no longer has, and the programs
// next to the clusters, which no file has: whoever ran them was killed.
func (s *survey) removeSurplus(ctx context.Context) error {
	lab := s.asked.Name
	for _, n := range s.nodes {
		if clusterOf(n, s.asked.Clusters) != nil {
			continue
		}
		plan.Did(ctx)
		plan.Remark(ctx, "cluster "+n.Cluster+" is not in the file: removes it")
		if err := s.Parts.Nodes.Delete(ctx, lab, n.Cluster); err != nil {
			return err
		}
	}
	for _, h := range s.hosts {
		if slices.ContainsFunc(s.asked.Hosts, func(other *topology.Host) bool { return other.Name == h.Name }) {
			continue
		}
		plan.Did(ctx)
		plan.Remark(ctx, "host "+h.Name+" is not in the file: removes it")
		if err := s.Parts.Hosts.Clear(ctx, lab, h.Name); err != nil {
			return err
		}
	}
	programs, err := s.Parts.Sidecars.List(ctx, lab)
	if err != nil {
		return err
	}
	for _, program := range programs {
		plan.Did(ctx)
		plan.Remark(ctx, program+" was left next to the clusters: removes it")
		if err := s.Parts.Sidecars.Remove(ctx, lab, program); err != nil {
			return err
		}
	}
	return nil
}

// programs uninstalls what the file no longer has in a cluster. It comes before
// anything is brought there, which may need what a program of before holds: its
// objects, or its port of the node.
func (u *up) programs(ctx context.Context, c *topology.Cluster) error {
	// The same name in another namespace is another release.
	releases := []access.Release{{Namespace: metallb.Namespace, Name: metallbRelease}}
	if u.ACMEServer != nil && u.ACMEServer.Cluster == c {
		releases = append(releases, access.Release{Namespace: spire.ACMENamespace, Name: spire.ACMERelease})
	}
	for _, s := range c.Servers {
		releases = append(releases, access.Release{Namespace: s.Place.Namespace, Name: spire.DatabaseRelease})
		if s.Domain.Discovery != nil && !s.Nested() {
			releases = append(releases, access.Release{Namespace: s.Place.Namespace, Name: spire.DiscoveryName})
		}
		if s.Domain.Proxy != nil && !s.Nested() {
			releases = append(releases, access.Release{Namespace: s.Place.Namespace, Name: spire.ProxyName})
		}
	}
	for _, m := range c.Members {
		releases = append(releases, access.Release{Namespace: m.Place.Namespace, Name: spireRelease})
	}
	for _, w := range c.Workloads() {
		releases = append(releases, releaseOf(w), access.Release{Namespace: w.Namespace, Name: w.App.Database})
		if w.App.BorrowsDatabase && w.Lender() == nil {
			if err := takeBack(ctx, u.in(c).Objects, w); err != nil {
				return err
			}
		}
	}
	return removeReleases(ctx, u.in(c), releases)
}

// tidy takes out of the clusters of a server what the file does not ask for, or no
// longer: registrations, relationships with their bundles, and what came of clusters that
// are no members any more. It comes after the registrations of those that stay: what
// federates with a trust domain whose bundle is deleted would lose its identity.
// Resources that others have made stay.
func (u *up) tidy(ctx context.Context, s *topology.Server) error {
	if s.Place.Host != nil {
		return u.tidyHost(ctx, s)
	}
	site := u.site(s)
	for _, m := range s.InClusters() {
		identities := declaredIn(m, topology.ClusterSPIFFEID)
		for _, w := range m.Workloads {
			identities = append(identities, spire.IdentityName(w))
			if !w.Database().ID.IsZero() {
				identities = append(identities, spire.DatabaseIdentityName(w))
			}
		}
		if m.Downstream != nil {
			identities = append(identities, spire.NestedIdentityName(m.Downstream))
		}
		answers := func(class string) bool { return spire.Registers(m, class) }
		if err := removeOwned(ctx, u.in(m.Cluster()).Objects, clusterSPIFFEID, answers, identities); err != nil {
			return err
		}
	}
	if err := tidyStatic(ctx, site); err != nil {
		return err
	}
	if err := u.tidyEntries(ctx, site); err != nil {
		return err
	}
	var relationships []string
	for _, r := range s.Relationships() {
		if r.Mode == topology.CRD {
			relationships = append(relationships, spire.ResourceName(r))
		}
	}
	answers := func(class string) bool { return spire.Answers(s, class) }
	if err := removeOwned(ctx, site.Objects, spire.FederatedTrustDomainKind, answers, relationships); err != nil {
		return err
	}
	keep := ""
	if own := ownOf(s); own != nil {
		keep = own.Secret
	}
	if err := removeCertificates(ctx, site.Objects, s.Place.Namespace, keep); err != nil {
		return err
	}
	if s.RelatesByAPI() {
		if err := unrelate(ctx, site); err != nil {
			return err
		}
	}
	if err := forget(ctx, site); err != nil {
		return err
	}
	if !issuedElsewhere(s) {
		if err := removeSecret(ctx, site.Objects, secretKey(s.Place, spire.EndpointCASecret)); err != nil {
			return err
		}
	}
	if s.Nested() || !needsWebCA(s.Domain) {
		if err := removeSecret(ctx, site.Objects, secretKey(s.Place, spire.WebCASecret)); err != nil {
			return err
		}
	}
	if err := dismissHosts(ctx, site); err != nil {
		return err
	}
	return u.dismiss(ctx, site)
}

// removeOwned deletes the resources of a kind that fedlab has made, of classes that
// answers holds for, except those of these names.
func removeOwned(ctx context.Context, objects access.Objects, kind string, answers func(class string) bool, keep []string) error {
	key := access.ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: kind}
	var owned []struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Spec struct {
			ClassName string `json:"className"`
		} `json:"spec"`
	}
	if err := objects.List(ctx, key, spire.Owned(), &owned); err != nil {
		return err
	}
	for _, resource := range owned {
		key.Name = resource.Metadata.Name
		if slices.Contains(keep, key.Name) || !answers(resource.Spec.ClassName) {
			continue
		}
		plan.Did(ctx)
		if err := objects.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// removeSecret deletes a Secret where it is there.
func removeSecret(ctx context.Context, objects access.Objects, key access.ObjectKey) error {
	there, err := objects.Object(ctx, key, new(struct{}))
	if err != nil || !there {
		return err
	}
	plan.Did(ctx)
	return objects.Delete(ctx, key)
}

// forget deletes the bundles that a server holds and that nobody asks for. A
// bundle outlives its relationship (spiffe/spire#2507), and with it trust would.
func forget(ctx context.Context, site *Site) error {
	return wait(ctx, apiBound, check.Check{Name: site.String() + " trusts nobody whom the file does not name", Probe: func(ctx context.Context) error {
		relationships, err := site.API.Relationships(ctx)
		if err != nil {
			return err
		}
		held, err := site.API.HeldBundles(ctx)
		if err != nil {
			return err
		}
		var errs []error
		for _, b := range held {
			switch other := b.TrustDomain(); {
			case trusts(site.Domain, other):
			case knows(relationships, other):
				// Either it is being removed, or somebody else has made it.
				errs = append(errs, unowned(ctx, site, other))
			default:
				plan.Did(ctx)
				errs = append(errs, site.API.DeleteBundle(ctx, other, spire.DeleteDissociate))
			}
		}
		return errors.Join(errs...)
	}})
}

// trusts reports whether the lab asks for trust in somebody of whom a server tells.
func trusts(d *topology.Domain, other spiffeid.TrustDomain) bool { return trustIn(d, other) != nil }

// unowned returns nil for a relationship that the controller manager makes of a
// resource that fedlab has not made, and an error for one that is about to go.
func unowned(ctx context.Context, site *Site, trusted spiffeid.TrustDomain) error {
	if site.RelatesByAPI() {
		return fmt.Errorf("its server has a relationship with %s again", trusted.Name())
	}
	r, err := readFederated(ctx, site)
	if err != nil {
		return err
	}
	if _, there := r.followed[trusted]; there {
		return nil
	}
	return fmt.Errorf("the controller manager has not removed the relationship with %s yet", trusted.Name())
}

// removeReleases uninstalls what fedlab has installed, except these, and removes
// the Secrets with their keys before each, as long as something names them.
func removeReleases(ctx context.Context, in access.Cluster, keep []access.Release) error {
	list, err := in.Releases.List(ctx)
	if err != nil {
		return err
	}
	for _, r := range list {
		if slices.ContainsFunc(keep, func(k access.Release) bool { return k.Namespace == r.Namespace && k.Name == r.Name }) {
			continue
		}
		plan.Did(ctx)
		plan.Remark(ctx, r.Namespace+"/"+r.Name+" is not in the file: removes it")
		secrets := []string{topology.Database{Release: r.Name}.Secret(), topology.LentSecret(r.Name)}
		if r.Name == spireRelease {
			secrets = []string{spire.WebCASecret, spire.EndpointCASecret, spire.UpstreamAuthoritySecret, spire.KubeconfigsSecret}
			if err := removeCertificates(ctx, in.Objects, r.Namespace, ""); err != nil {
				return err
			}
		}
		for _, name := range secrets {
			if err := in.Objects.Delete(ctx, access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: r.Namespace, Name: name}); err != nil {
				return err
			}
		}
		if err := in.Releases.Remove(ctx, r.Namespace, r.Name); err != nil {
			return err
		}
	}
	return nil
}
