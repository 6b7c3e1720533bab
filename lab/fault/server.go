package fault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/spire"
)

// ServerStopped scales the SPIRE server of a cluster to none. The controller
// manager, which is in the same pod, goes as well; the server's volume stays.
func ServerStopped(c Cluster) Fault {
	return fault{"server-stopped/" + c.Name, func(ctx context.Context) (injected, error) {
		return injected{
			felt:    c.serverGone(),
			recover: c.scaled(serverSet, max(1, c.Replicas)),
			healed:  c.serverRuns(nil),
		}, c.scaled(serverSet, 0)(ctx)
	}}
}

// ReplicaKilled kills one of two servers that share a datastore, and has Kubernetes not
// start it again: its pod goes, with the controller manager in it; the other one and both
// volumes stay. The first is 0.
func ReplicaKilled(c Cluster, ordinal int) Fault {
	pod := fmt.Sprintf("%s-%d", spire.ServerStatefulSet, ordinal)
	return fault{fmt.Sprintf("replica-%d-killed/%s", ordinal, c.Name), func(ctx context.Context) (injected, error) {
		server, err := c.container(ctx, spire.ServerContainer, pod)
		if away := (*awayError)(nil); err != nil && !errors.As(err, &away) {
			return injected{}, err
		}
		i := injected{
			felt: check.Check{
				Name:  fmt.Sprintf("pod %s of cluster %s is gone", pod, c.Name),
				Probe: func(ctx context.Context) error { return c.podGone(ctx, pod) },
			},
			recover: func(ctx context.Context) error { return c.apply(ctx, serverSet, from(0, c.Replicas)) },
			healed: check.Check{
				Name:  fmt.Sprintf("both SPIRE servers of cluster %s are ready", c.Name),
				Probe: func(ctx context.Context) error { return c.Pods.Ready(ctx, c.own(serverSet)) },
			},
		}
		if server.running() {
			if err := c.signal(ctx, server, "SIGKILL"); err != nil {
				return i, err
			}
		}
		// The kubelet would start the container again.
		return i, c.apply(ctx, serverSet, from(1-ordinal, 1))
	}}
}

// from is a StatefulSet with so many pods, of which the first has that ordinal.
func from(start, replicas int) map[string]any {
	return map[string]any{"replicas": replicas, "ordinals": map[string]any{"start": start}}
}

// ServerKilled kills the SPIRE server of a cluster where it stands. Kubernetes
// starts it again at once, but after more and more of a pause when it is killed
// repeatedly (ten seconds, twenty, and so on).
func ServerKilled(c Cluster) Fault {
	return c.killed("server-killed/", "SPIRE server", c.server, c.serverRuns)
}

// ServerDataLost takes away what the SPIRE server of a cluster keeps on its
// volume and starts it again: its keys, and, where its datastore is no database
// server, its entries, agents and bundles. Nothing brings that back; Recover only
// has the server run.
func ServerDataLost(c Cluster) Fault {
	return fault{"server-data-lost/" + c.Name, func(ctx context.Context) (injected, error) {
		before, err := c.claim(ctx)
		if err != nil {
			return injected{}, err
		}
		if before == "" {
			return injected{}, fmt.Errorf("volume claim %s is not there", serverClaim.Name)
		}
		another := check.Check{
			Name:  fmt.Sprintf("the SPIRE server of cluster %s has another volume", c.Name),
			Probe: func(ctx context.Context) error { return c.another(ctx, before) },
		}
		runs := c.serverRuns(nil)
		i := injected{felt: another, recover: c.scaled(serverSet, max(1, c.Replicas)), healed: check.Check{
			Name:  fmt.Sprintf("the SPIRE server of cluster %s runs on another volume", c.Name),
			Probe: func(ctx context.Context) error { return inOrder(ctx, another.Probe, runs.Probe) },
		}}
		// A pod that was made while the claim is still going would wait for it
		// for good, and the claim goes only when the pod that has it is gone.
		if err := c.scaled(serverSet, 0)(ctx); err != nil {
			return i, err
		}
		if err := check.Until(ctx, dataBound, c.serverGone()); err != nil {
			return i, err
		}
		if err := c.Objects.Delete(ctx, c.own(serverClaim)); err != nil {
			return i, err
		}
		err = check.Until(ctx, dataBound, check.Check{Name: "the volume of the SPIRE server is gone", Probe: func(ctx context.Context) error {
			now, err := c.claim(ctx)
			if err == nil && now == before {
				err = fmt.Errorf("volume claim %s is there", serverClaim.Name)
			}
			return err
		}})
		if err != nil {
			return i, err
		}
		return i, c.scaled(serverSet, max(1, c.Replicas))(ctx)
	}}
}

// dataBound is how long the server's pod, and then its volume, may take to go: a
// pod has half a minute to end by itself.
var dataBound = check.Bound{Within: 90 * time.Second, Every: 250 * time.Millisecond}

// claim returns the UID of the server's volume claim; empty where there is none.
func (c Cluster) claim(ctx context.Context) (string, error) {
	var claim struct {
		Metadata struct {
			UID string `json:"uid"`
		} `json:"metadata"`
	}
	_, err := c.Objects.Object(ctx, c.own(serverClaim), &claim)
	return claim.Metadata.UID, err
}

// another returns nil when the server has another volume claim than before.
func (c Cluster) another(ctx context.Context, before string) error {
	now, err := c.claim(ctx)
	switch {
	case err != nil:
		return err
	case now == "":
		return fmt.Errorf("volume claim %s is not there", serverClaim.Name)
	case now == before:
		return fmt.Errorf("volume claim %s is the one that it was", serverClaim.Name)
	}
	return nil
}

// scaled returns what has a StatefulSet want so many pods. What was said here
// stays said: to leave the field out would hand it back to Kubernetes' default,
// not to Helm.
func (c Cluster) scaled(set access.ObjectKey, replicas int) func(ctx context.Context) error {
	return func(ctx context.Context) error { return c.apply(ctx, set, map[string]any{"replicas": replicas}) }
}

// serverGone checks that no pod of the server is left. The first pod of a StatefulSet goes
// last.
func (c Cluster) serverGone() check.Check {
	return check.Check{
		Name:  fmt.Sprintf("no pod of the SPIRE server of cluster %s is left", c.Name),
		Probe: func(ctx context.Context) error { return c.podGone(ctx, spire.ServerPod) },
	}
}

// serverRuns checks that the server has started, in another container than
// before where that is given.
func (c Cluster) serverRuns(before *container) check.Check {
	started := func(ctx context.Context) error { return c.Pods.Started(ctx, c.own(serverSet), spire.ServerContainer) }
	return c.runs("SPIRE server", c.server, started, before)
}
