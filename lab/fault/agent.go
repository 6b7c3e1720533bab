package fault

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/spire"
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

// Agents are those that have attested to a SPIRE server; a *spire.Server has them.
type Agents interface {
	Agents(ctx context.Context) ([]spire.Agent, error)
	BanAgent(ctx context.Context, id spiffeid.ID) error
	DeleteAgent(ctx context.Context, id spiffeid.ID) error
}

// AgentBanned has a SPIRE server refuse the agent of a cluster. Kubernetes starts it again and
// again, and it ends each time. Recover has the server forget the agent, which may attest then.
func AgentBanned(c Cluster, server Agents) Fault {
	// A class is in the name as well.
	cluster, _, _ := strings.Cut(c.Name, "/")
	each := func(ctx context.Context, banned bool, do func(context.Context, spiffeid.ID) error) error {
		all, err := server.Agents(ctx)
		for _, a := range all {
			if err == nil && a.Banned == banned && slices.Contains(a.Selectors, "k8s_psat:cluster:"+cluster) {
				err = do(ctx, a.ID)
			}
		}
		return err
	}
	return fault{"agent-banned/" + c.Name, func(ctx context.Context) (injected, error) {
		before, err := c.agent(ctx)
		if err != nil {
			return injected{}, err
		}
		return injected{
			felt: check.Check{
				Name: fmt.Sprintf("the SPIRE agent of cluster %s ends each time that it is started", c.Name),
				Probe: func(ctx context.Context) error {
					now, err := c.agent(ctx)
					switch {
					case err != nil:
						return err
					case now.Ready:
						return fmt.Errorf("%s is ready", now)
					case now.Restarts < before.Restarts+2:
						return fmt.Errorf("%s was started again %d times", now, now.Restarts-before.Restarts)
					}
					return nil
				},
			},
			recover: func(ctx context.Context) error { return each(ctx, true, server.DeleteAgent) },
			healed:  c.agentRuns(nil),
		}, each(ctx, false, server.BanAgent)
	}}
}

// agentRuns checks that there is an agent and that it is ready, in another
// container than before where that is given.
func (c Cluster) agentRuns(before *container) check.Check {
	ready := func(ctx context.Context) error { return c.Pods.Ready(ctx, c.own(agentSet)) }
	return c.runs("SPIRE agent", c.agent, ready, before)
}
