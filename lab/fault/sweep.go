package fault

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Sweep takes away what a killed process may have left of its faults in a cluster
// and what nothing else of fedlab removes: the rules of partitions and in front of webhooks, the selector
// that leaves the agent no node, and the signal that stopped the controller
// manager. Nothing to take away is not an error, and neither is a program that is
// not there. One that fails does not keep the others from being done.
//
// It leaves alone what was edited of a chart's own objects, replicas and
// selectors: who installs the charts puts that back.
func Sweep(ctx context.Context, c Cluster) error {
	var errs []error
	for _, left := range []struct {
		undo string
		do   func(context.Context) error
	}{
		{"remove partitions", func(ctx context.Context) error { return c.unwall(ctx, marked) }},
		{"let the agent run", c.agentSomewhere},
		{"let the controller manager go on", func(ctx context.Context) error {
			return c.managerGoesOn(ctx, func(container) bool { return true })
		}},
	} {
		if err := left.do(ctx); err != nil {
			errs = append(errs, fmt.Errorf("sweep cluster %s: %s: %w", c.Name, left.undo, err))
		}
	}
	return errors.Join(errs...)
}

// marked reports whether a rule's comment is ours.
func marked(comment string) bool { return strings.HasPrefix(comment, markPrefix) }

// agentSomewhere takes back what AgentStopped has said of nodes, if it has: an
// agent's DaemonSet that is not there would otherwise be asked for in part.
func (c Cluster) agentSomewhere(ctx context.Context) error {
	var set struct {
		Spec struct {
			Template struct {
				Spec struct {
					NodeSelector map[string]string `json:"nodeSelector"`
				} `json:"spec"`
			} `json:"template"`
		} `json:"spec"`
	}
	if _, err := c.Objects.Object(ctx, c.own(agentSet), &set); err != nil {
		return err
	}
	for label := range nowhere {
		if _, is := set.Spec.Template.Spec.NodeSelector[label]; is {
			return c.apply(ctx, agentSet, nil)
		}
	}
	return nil
}
