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

// What of SPIRE runs in each cluster.
var (
	serverKey = ObjectKey{APIVersion: "apps/v1", Kind: "StatefulSet", Namespace: spire.Namespace, Name: spire.ServerStatefulSet}
	agentKey  = ObjectKey{APIVersion: "apps/v1", Kind: "DaemonSet", Namespace: spire.Namespace, Name: spire.AgentDaemonSet}
)

func (u *up) spireServer(ctx context.Context, td topology.TrustDomain) error {
	access := u.access(td.Cluster)
	applied, err := access.Objects.Apply(ctx, u.images.CRDs...)
	if err != nil {
		return err
	}
	address, err := u.addresses.Server(td)
	if err != nil {
		return err
	}
	changed, err := access.Releases.Apply(ctx, Release{
		Name: "spire", Namespace: spire.Namespace, Chart: "spire",
		Values: spire.NewValues(td, address, spire.Images{
			Server: u.images.SPIREServer, Agent: u.images.SPIREAgent, ControllerManager: u.images.SPIREControllerManager,
		}),
	})
	if err != nil {
		return err
	}
	if applied || changed {
		plan.Did(ctx)
	}
	if err := runAgain(ctx, access.Objects, serverKey); err != nil {
		return err
	}
	var server *spire.Server
	err = wait(ctx, rolloutBound, check.Check{Name: "the SPIRE server runs", Probe: func(ctx context.Context) (err error) {
		// Kubernetes says that the pods of a node that was stopped run until it
		// has looked again: only an answer shows that the server does. Whether
		// the pod is ready is no matter here: kubelet puts the first look off
		// by up to a period in a node that is new.
		if err := access.Pods.Started(ctx, spire.Namespace, spire.ServerPod, spire.ServerContainer); err != nil {
			return err
		}
		server, err = connectServer(ctx, access, td.Name)
		return err
	}})
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.servers[td.Name] = server
	return nil
}

func (u *up) spireAgents(ctx context.Context, td topology.TrustDomain) error {
	return wait(ctx, rolloutBound, check.Check{Name: "the SPIRE agent runs", Probe: func(ctx context.Context) error {
		return u.access(td.Cluster).Pods.Ready(ctx, agentKey)
	}})
}

// federate makes one trust domain trust another: the bundle of the trusted one
// is read from its own server over an authenticated path and handed to the
// truster, whose server then fetches it by itself from the bundle endpoint.
func (u *up) federate(ctx context.Context, r topology.Relationship) error {
	truster, err := u.topology.TrustDomain(r.Truster)
	if err != nil {
		return err
	}
	objects := u.access(truster.Cluster).Objects
	key := ObjectKey{APIVersion: spire.ResourceAPIVersion, Kind: "ClusterFederatedTrustDomain", Name: spire.ResourceName(r.Trusted)}
	there, err := objects.Object(ctx, key, &struct{}{})
	if err != nil {
		return err
	}
	if !there {
		// The bundle in the resource counts only when the relationship is made
		// (facts: the controller manager ignores later edits), so that a
		// relationship that is there is left alone.
		plan.Did(ctx)
		if err := u.reachable(ctx, r); err != nil {
			return err
		}
		resource, err := u.relationship(ctx, r)
		if err != nil {
			return err
		}
		err = wait(ctx, apiBound, check.Check{Name: "the controller manager takes the relationship", Probe: func(ctx context.Context) error {
			_, err := objects.Apply(ctx, resource)
			return err
		}})
		if err != nil {
			return err
		}
	}
	s := &syncing{Relationship: r, truster: u.server(r.Truster), trusted: u.server(r.Trusted)}
	return wait(ctx, apiBound, check.Check{Name: r.Truster.Name() + " holds the bundle of " + r.Trusted.Name(), Probe: s.probe})
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

// syncing brings a held bundle in sync with its source, and no sooner than
// needed.
type syncing struct {
	topology.Relationship
	truster, trusted *spire.Server
	// since is when the truster was first seen to have the relationship, or was
	// last told to fetch.
	since time.Time
	// refused is what the truster said when it could not fetch. The bundle was
	// then handed to it, and is still to be fetched: that alone shows that the
	// endpoint is right.
	refused error
}

func (s *syncing) probe(ctx context.Context) error {
	source, err := s.trusted.Bundle(ctx)
	if err != nil {
		return err
	}
	held, err := s.truster.HeldBundle(ctx, s.Trusted)
	if missing := (*spire.NotFoundError)(nil); err != nil && !errors.As(err, &missing) {
		return err
	}
	seen := federation.Compare(held, source)
	if seen.State == federation.InSync && s.refused == nil {
		return nil
	}
	relationships, err := s.truster.Relationships(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	switch {
	case !knows(relationships, s.Trusted):
		s.since = time.Time{}
		return errors.New("its server does not have the relationship")
	case s.since.IsZero():
		s.since = now
	case now.Sub(s.since) >= fetchDelay:
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
// it.
func (s *syncing) fetch(ctx context.Context, source *spiffebundle.Bundle) error {
	plan.Did(ctx)
	if s.refused = s.truster.RefreshBundle(ctx, s.Trusted); s.refused == nil {
		return s.probe(ctx)
	}
	s.refused = errors.Join(s.refused, s.truster.SetBundle(ctx, source))
	return s.refused
}

func knows(relationships []spire.Relationship, trusted spiffeid.TrustDomain) bool {
	return slices.ContainsFunc(relationships, func(r spire.Relationship) bool { return r.Trusted == trusted })
}

// register lets a workload have its identity.
func (u *up) register(ctx context.Context, w topology.Workload) error {
	identity, err := spire.WorkloadIdentity(u.topology, w)
	if err != nil {
		return err
	}
	return wait(ctx, apiBound, check.Check{Name: "the controller manager takes the registration", Probe: func(ctx context.Context) error {
		applied, err := u.access(w.Cluster).Objects.Apply(ctx, identity)
		if applied {
			plan.Did(ctx)
		}
		return err
	}})
}
