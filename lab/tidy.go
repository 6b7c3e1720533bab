package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

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

// surplus removes the clusters that the file no longer has, and the programs
// beside the clusters, which no file has: whoever ran them was killed.
func (u *up) surplus(ctx context.Context) error {
	for _, n := range u.nodes {
		if _, err := u.topology.Cluster(n.Cluster); err == nil {
			continue
		}
		plan.Did(ctx)
		plan.Note(ctx, "cluster "+n.Cluster+" is not in the file: removes it")
		if err := u.Parts.Nodes.Delete(ctx, u.topology.Name, n.Cluster); err != nil {
			return err
		}
	}
	programs, err := u.Parts.Sidecars.List(ctx, u.topology.Name)
	if err != nil {
		return err
	}
	for _, program := range programs {
		plan.Did(ctx)
		plan.Note(ctx, program+" was left beside the clusters: removes it")
		if err := u.Parts.Sidecars.Remove(ctx, u.topology.Name, program); err != nil {
			return err
		}
	}
	return nil
}

// programs uninstalls what the file no longer has in a cluster. It comes before
// anything is brought there, which may need what a program of before holds: its
// objects, or its port of the node.
func (u *up) programs(ctx context.Context, cluster string) error {
	// The same name in another namespace is another release.
	releases := []Release{
		{Namespace: metallb.Namespace, Name: metallbRelease}, {Namespace: spire.Namespace, Name: spireRelease},
		{Namespace: spire.Namespace, Name: spire.DatabaseRelease},
	}
	for _, w := range u.topology.Workloads {
		if w.Cluster == cluster {
			releases = append(releases, demoRelease(w), Release{Namespace: w.App.Namespace, Name: w.App.Database})
		}
	}
	return removeReleases(ctx, u.access(cluster), releases)
}

// tidy takes out of a trust domain's cluster what the file does not ask for, or
// no longer: registrations, and relationships with their bundles. It comes after
// the registrations of those that stay: what federates with a trust domain whose
// bundle is deleted would lose its identity. Resources that others have made stay.
func (u *up) tidy(ctx context.Context, td topology.TrustDomain) error {
	objects := u.access(td.Cluster).Objects
	var identities, relationships []string
	for _, w := range u.topology.Workloads {
		if w.Cluster == td.Cluster {
			identities = append(identities, spire.IdentityName(w))
		}
	}
	for _, r := range u.topology.RelationshipsOf(td.Name) {
		if r.Mode == topology.CRD {
			relationships = append(relationships, spire.ResourceName(r.Trusted))
		}
	}
	if err := removeOwned(ctx, objects, "ClusterSPIFFEID", identities); err != nil {
		return err
	}
	if err := removeOwned(ctx, objects, relationshipKey(td.Name).Kind, relationships); err != nil {
		return err
	}
	return u.forget(ctx, td)
}

// removeOwned deletes the resources of a kind that fedlab has made, except those
// of these names.
func removeOwned(ctx context.Context, objects Objects, kind string, keep []string) error {
	key := ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: kind}
	names, err := objects.Named(ctx, key, spire.Owned())
	if err != nil {
		return err
	}
	for _, key.Name = range names {
		if slices.Contains(keep, key.Name) {
			continue
		}
		plan.Did(ctx)
		if err := objects.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// forget deletes the bundles that a server holds and that nobody asks for. A
// bundle outlives its relationship (facts: spire#2507), and with it trust would.
func (u *up) forget(ctx context.Context, td topology.TrustDomain) error {
	server := u.server(td.Name)
	return wait(ctx, apiBound, check.Check{Name: td.Name.Name() + " trusts nobody whom the file does not name", Probe: func(ctx context.Context) error {
		relationships, err := server.Relationships(ctx)
		if err != nil {
			return err
		}
		held, err := server.HeldBundles(ctx)
		if err != nil {
			return err
		}
		trusted := u.topology.TrustedBy(td.Name)
		var errs []error
		for _, b := range held {
			switch other := b.TrustDomain(); {
			case slices.Contains(trusted, other):
			case knows(relationships, other):
				// Either it is being removed, or somebody else has made it.
				errs = append(errs, u.unowned(ctx, td, other))
			default:
				plan.Did(ctx)
				errs = append(errs, server.DeleteBundle(ctx, other, spire.DeleteDissociate))
			}
		}
		return errors.Join(errs...)
	}})
}

// unowned returns nil for a relationship that the controller manager makes of a
// resource that fedlab has not made, and an error for one that is about to go.
func (u *up) unowned(ctx context.Context, td topology.TrustDomain, trusted spiffeid.TrustDomain) error {
	r, err := readFederated(ctx, u.access(td.Cluster).Objects, td.Name)
	if err != nil {
		return err
	}
	if _, there := r.followed[trusted]; there {
		return nil
	}
	return fmt.Errorf("the controller manager has not removed the relationship with %s yet", trusted.Name())
}

// removeReleases uninstalls what fedlab has installed, except these, and removes
// the Secret with its password before each, as long as something tells of it.
func removeReleases(ctx context.Context, access Access, keep []Release) error {
	list, err := access.Releases.List(ctx)
	if err != nil {
		return err
	}
	for _, r := range list {
		if slices.ContainsFunc(keep, func(k Release) bool { return k.Namespace == r.Namespace && k.Name == r.Name }) {
			continue
		}
		plan.Did(ctx)
		plan.Note(ctx, r.Namespace+"/"+r.Name+" is not in the file: removes it")
		if err := access.Objects.Delete(ctx, ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: r.Namespace, Name: loginSecret(r.Name)}); err != nil {
			return err
		}
		if err := access.Releases.Remove(ctx, r.Namespace, r.Name); err != nil {
			return err
		}
	}
	return nil
}
