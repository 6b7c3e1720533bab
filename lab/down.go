package lab

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/fedlab-dev/fedlab/lab/plan"
)

// Down removes a lab and all traces of it: clusters with their volumes, programs
// beside them, the contexts in the kubeconfig file, and the network. It needs no lab file, only
// the name, and may be repeated, also after an up or a down that was killed. It
// reports whether there was anything. The error is a *HeldError when another
// process is changing the lab.
func (d *Driver) Down(ctx context.Context, lab string) (_ bool, err error) {
	held, err := d.Hold(ctx, lab, "down")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, held.Release()) }()

	nodes, err := d.Parts.Nodes.List(ctx, lab)
	if err != nil {
		return false, err
	}
	sidecars, err := d.Parts.Sidecars.List(ctx, lab)
	if err != nil {
		return false, err
	}
	_, network, err := d.Parts.Networks.Find(ctx, lab)
	if err != nil {
		return false, err
	}
	var removed atomic.Bool
	did := func(ctx context.Context) {
		plan.Did(ctx)
		removed.Store(true)
	}
	p := &plan.Plan{}
	var errs []error
	step := func(name plan.ID, title string, do func(context.Context) error, after ...plan.ID) {
		errs = append(errs, p.Add(plan.Step{Name: name, Title: title, Do: do, After: after}))
	}
	var clusters []plan.ID
	for _, n := range nodes {
		clusters = append(clusters, clusterStep(n.Cluster))
		step(clusterStep(n.Cluster), "remove cluster "+n.Cluster, func(ctx context.Context) error {
			did(ctx)
			return d.Parts.Nodes.Delete(ctx, lab, n.Cluster)
		})
	}
	last := []plan.ID{kubeconfigStep(lab)}
	for _, program := range sidecars {
		last = append(last, sidecarStep(program))
		step(sidecarStep(program), "remove "+program+" beside the clusters", func(ctx context.Context) error {
			did(ctx)
			return d.Parts.Sidecars.Remove(ctx, lab, program)
		})
	}
	step(kubeconfigStep(lab), "remove contexts from the kubeconfig file", func(ctx context.Context) error {
		had, err := d.Parts.Kubeconfigs.Remove(ctx, lab, "")
		if had {
			did(ctx)
		}
		return err
	}, clusters...)
	// The network goes last: no container of it can be without it.
	if network {
		step(networkStep(lab), "remove the lab's network", func(ctx context.Context) error {
			did(ctx)
			return d.Parts.Networks.Remove(ctx, lab)
		}, last...)
	}
	if err := errors.Join(errs...); err != nil {
		return false, err
	}
	err = plan.Runner{Observe: d.Observe}.Run(ctx, p)
	return removed.Load(), err
}
