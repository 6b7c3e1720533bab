package fault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/check"
)

// stopGrace is how long what runs on a node may take to end by itself.
const stopGrace = 30 * time.Second

// ClusterStopped switches off the node of a cluster, and with it all that runs
// there. It may come back with another address. A node that is off is refused.
func ClusterStopped(c Cluster) Fault {
	return fault{"cluster-stopped/" + c.Name, func(ctx context.Context) (injected, error) {
		i := injected{felt: check.Check{
			Name: fmt.Sprintf("the node of cluster %s is off", c.Name), Probe: c.off,
		}}
		if running, err := c.Power.Running(ctx); err != nil || !running {
			return i, cmp.Or(err, errors.New("its node is off already"))
		}
		server, err := c.server(ctx)
		if err != nil {
			return i, err
		}
		agent, err := c.agent(ctx)
		if err != nil {
			return i, err
		}
		serverRuns, agentRuns := c.serverRuns(&server), c.agentRuns(&agent)
		i.recover = c.Power.Start
		i.healed = check.Check{Name: fmt.Sprintf("cluster %s is back with its SPIRE server and agent", c.Name), Probe: func(ctx context.Context) error {
			return inOrder(ctx, c.Objects.NodeReady, serverRuns.Probe, agentRuns.Probe)
		}}
		return i, c.Power.Stop(ctx, stopGrace)
	}}
}

// Frozen has the nodes of clusters stand still, with all that runs on them, and go on together,
// as a laptop does that sleeps. Time goes on meanwhile. A node that does not run is refused. It is
// healed when the nodes go on; what runs there may have yet to notice.
func Frozen(clusters ...Cluster) Fault {
	var names []string
	var off, on []func(context.Context) error
	for _, c := range clusters {
		names, off, on = append(names, c.Name), append(off, c.off), append(on, c.on)
	}
	all := strings.Join(names, "+")
	each := func(ctx context.Context, do func(Power, context.Context) error) error {
		var errs []error
		for _, c := range clusters {
			errs = append(errs, do(c.Power, ctx))
		}
		return errors.Join(errs...)
	}
	return fault{"frozen/" + all, func(ctx context.Context) (injected, error) {
		i := injected{
			felt:   check.Check{Name: "the nodes of " + all + " stand still", Probe: func(ctx context.Context) error { return inOrder(ctx, off...) }},
			healed: check.Check{Name: "the nodes of " + all + " go on", Probe: func(ctx context.Context) error { return inOrder(ctx, on...) }},
		}
		if err := i.healed.Probe(ctx); err != nil {
			return i, err
		}
		i.recover = func(ctx context.Context) error { return each(ctx, Power.Start) }
		return i, each(ctx, Power.Freeze)
	}}
}

// off returns nil when the node of a cluster is off or frozen.
func (c Cluster) off(ctx context.Context) error {
	running, err := c.Power.Running(ctx)
	if err == nil && running {
		err = fmt.Errorf("the node of cluster %s runs", c.Name)
	}
	return err
}

// on returns nil when the node of a cluster runs.
func (c Cluster) on(ctx context.Context) error {
	running, err := c.Power.Running(ctx)
	if err == nil && !running {
		err = fmt.Errorf("the node of cluster %s does not run", c.Name)
	}
	return err
}
