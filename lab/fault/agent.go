package fault

import (
	"context"
	"fmt"

	"github.com/fedlab-dev/fedlab/lab/check"
)

// nowhere is a label that no node has; its key is in no other selector.
var nowhere = map[string]string{"fedlab.dev/fault": "agent-stopped"}

// AgentStopped leaves a cluster without an agent: the DaemonSet is told to look
// for nodes of which there are none. Workloads keep what they have, since the
// socket that they have it from does not answer any more.
func AgentStopped(c Cluster) Fault {
	return fault{"agent-stopped/" + c.Name, func(ctx context.Context) (injected, error) {
		i := injected{
			felt: check.Check{
				Name:  fmt.Sprintf("no pod of the SPIRE agent of cluster %s is left", c.Name),
				Probe: func(ctx context.Context) error { return left(c.agentPods(ctx)) },
			},
			// The chart says nothing of nodes: who leaves out what was said here
			// takes it back. The template is then what it was, and so its version.
			recover: func(ctx context.Context) error { return c.apply(ctx, agentSet, nil) },
			healed:  c.agentRuns(nil),
		}
		return i, c.apply(ctx, agentSet, map[string]any{
			"template": map[string]any{"spec": map[string]any{"nodeSelector": nowhere}},
		})
	}}
}

// AgentKilled kills the SPIRE agent of a cluster where it stands. Kubernetes
// starts it again, as it does with the server. Its keys are in memory alone, so
// that it attests again.
func AgentKilled(c Cluster) Fault {
	return c.killed("agent-killed/", "SPIRE agent", c.agent, c.agentRuns)
}

// agentRuns checks that there is an agent and that it is ready, in another
// container than before where that is given.
func (c Cluster) agentRuns(before *container) check.Check {
	ready := func(ctx context.Context) error { return c.Pods.Ready(ctx, c.own(agentSet)) }
	return c.runs("SPIRE agent", c.agent, ready, before)
}
