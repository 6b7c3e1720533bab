package lab

import (
	"context"
	"errors"

	"github.com/fedlab-dev/fedlab/lab/plan"
)

// Down removes a lab and all traces of it: clusters with their volumes, the
// network, and the contexts in the kubeconfig file. It needs no lab file, only
// the name, and may be repeated, also after an up that was killed. It reports
// whether there was anything. The error is a *HeldError when another process is
// changing the lab.
func (d *Driver) Down(ctx context.Context, lab string) (_ bool, err error) {
	release, err := d.hold(lab, "down")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, release()) }()

	nodes, err := d.Parts.Nodes.List(ctx, lab)
	if err != nil {
		return false, err
	}
	_, network, err := d.Parts.Networks.Find(ctx, lab)
	if err != nil {
		return false, err
	}
	p := &plan.Plan{}
	var errs []error
	step := func(s plan.Step) plan.ID {
		errs = append(errs, p.Add(s))
		return s.Name
	}
	var clusters []string
	var removed []plan.ID
	for _, n := range nodes {
		clusters = append(clusters, n.Cluster)
		removed = append(removed, step(plan.Step{
			Name: clusterStep(n.Cluster), Title: "remove cluster " + n.Cluster,
			Do: func(ctx context.Context) error {
				plan.Did(ctx)
				return d.Parts.Nodes.Delete(ctx, lab, n.Cluster)
			},
		}))
	}
	if len(nodes) > 0 {
		step(plan.Step{Name: plan.ID("kubeconfig/" + lab), Title: "remove contexts from the kubeconfig file", After: removed,
			Do: func(ctx context.Context) error {
				plan.Did(ctx)
				return d.Parts.Kubeconfigs.Remove(ctx, lab, clusters, "")
			}})
	}
	// The network goes last: by it the rest is found when this is killed.
	if network {
		step(plan.Step{Name: plan.ID("network/" + lab), Title: "remove the lab's network", After: removed,
			Do: func(ctx context.Context) error {
				plan.Did(ctx)
				return d.Parts.Networks.Remove(ctx, lab)
			}})
	}
	if err := errors.Join(errs...); err != nil {
		return false, err
	}
	return p.Len() > 0, plan.Runner{Observe: d.Observe}.Run(ctx, p)
}
