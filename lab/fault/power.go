package fault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
			Name: fmt.Sprintf("the node of cluster %s is off", c.Name),
			Probe: func(ctx context.Context) error {
				running, err := c.Power.Running(ctx)
				if err == nil && running {
					err = errors.New("it runs")
				}
				return err
			},
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
