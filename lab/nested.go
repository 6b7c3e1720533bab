package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// This file is about servers whose authorities another server of the trust domain signs.
// In the cluster of a nested server runs, besides its own agents, one that has attested to
// the upstream: that is a member of the upstream like any other in another cluster (see
// member.go), except that it has no workload but the nested server.

// registerNested lets a nested server have the identity by which its upstream signs
// authorities for it. The upstream makes the entry when there is a pod.
func (u *up) registerNested(ctx context.Context, s *topology.Server) error {
	return u.takesIdentity(ctx, u.in(s.Place.Cluster).Objects, spire.NestedIdentity(s))
}

// unsigned says why a nested server has nobody who signs its authorities; nil where its
// upstream does, and for a root.
func (u *up) unsigned(ctx context.Context, s *topology.Server) error {
	if !s.Nested() {
		return nil
	}
	if err := u.in(s.Place.Cluster).Pods.Ready(ctx, AgentKey(s.Link.Place)); err != nil {
		return fmt.Errorf("the agent by which it gets to the server in cluster %s: %w", s.Upstream.Place.Cluster.Name, err)
	}
	entries, err := u.site(s.Upstream).API.Entries(ctx)
	if err != nil {
		return fmt.Errorf("the server in cluster %s, which signs its authorities: %w", s.Upstream.Place.Cluster.Name, err)
	}
	return delegated(s, entries)
}

// delegated returns nil when one of these entries, which are those of its upstream, lets
// a nested server have authorities signed.
func delegated(s *topology.Server, entries []spire.Entry) error {
	if slices.ContainsFunc(entries, func(e spire.Entry) bool {
		return e.Downstream && e.SPIFFEID == spire.NestedID(s) && spire.AttestedIn(e.ParentID) == s.Place.Cluster.Name
	}) {
		return nil
	}
	return because(Undelegated, "the server in cluster %s has no downstream entry of %s: it signs no authority of the nested server in cluster %s: the next up restores it",
		s.Upstream.Place.Cluster.Name, spire.NestedID(s), s.Place.Cluster.Name)
}

// signAgain has the upstream of a nested server sign another authority, with which the
// nested server signs from then on. The upstream may be another server than the one that
// signed the present authority: it has lost its data, and nobody trusts its old root any
// more, except the nested server, which keeps roots until they end (SPIRE
// pkg/server/ca/manager/manager.go, SyncX509Roots).
func (u *up) signAgain(ctx context.Context, nested *Site) error {
	next, err := nested.API.PrepareX509Authority(ctx)
	if err != nil {
		// The upstream may not verify the SVID that its agent hands out any more.
		return errors.Join(err, u.unsigned(ctx, nested.Server), u.renewAgents(ctx, nested.Link))
	}
	_, err = nested.API.ActivateX509Authority(ctx, next.ID)
	return err
}

// becomesReady waits until the pod of a nested server is ready, and starts it again where
// it stays unready. A server whose authority could not be replaced for a while is unready
// until it starts again, also when its upstream is back: SPIRE counts what failed and never
// forgets it (pkg/server/ca/rotator/rotator_health.go).
func (u *up) becomesReady(ctx context.Context, s *topology.Server) error {
	in := u.in(s.Place.Cluster)
	err := wait(ctx, federation.HealthBound(), check.Check{Name: "the nested SPIRE server is ready", Probe: func(ctx context.Context) error {
		return in.Pods.Ready(ctx, ServerKey(s.Place))
	}})
	if late := (*check.TimeoutError)(nil); !errors.As(err, &late) {
		return err
	}
	plan.Did(ctx)
	if err := in.Objects.Delete(ctx, podKey(s.Place, spire.ServerPod)); err != nil {
		return err
	}
	return u.connect(ctx, s)
}

// nestedIn returns the cluster of a nested server; empty for a root.
func nestedIn(s *topology.Server) string {
	if !s.Nested() {
		return ""
	}
	return s.Place.Cluster.Name
}
