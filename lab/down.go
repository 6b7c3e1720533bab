package lab

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/plan"
)

// Down removes a lab and all traces of it: clusters and hosts with their volumes, programs
// next to them, the contexts in the kubeconfig file, and the network. It needs no lab file, only
// the name, and may be repeated, also after an up or a down that was killed. It
// reports whether there was anything. The error is a *HeldError when another
// process is changing the lab.
func (d *Driver) Down(ctx context.Context, lab string) (_ bool, err error) {
	held, err := d.Hold(ctx, lab, "down")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, held.Release()) }()

	left, err := d.left(ctx, lab)
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
	for _, n := range left.nodes {
		clusters = append(clusters, clusterStep(n.Cluster))
		step(clusterStep(n.Cluster), "remove cluster "+n.Cluster, func(ctx context.Context) error {
			did(ctx)
			return d.Parts.Nodes.Delete(ctx, lab, n.Cluster)
		})
	}
	last := []plan.ID{kubeconfigStep(lab)}
	for _, h := range left.hosts {
		last = append(last, hostStep(h.Name))
		step(hostStep(h.Name), "remove host "+h.Name, func(ctx context.Context) error {
			did(ctx)
			return d.Parts.Hosts.Clear(ctx, lab, h.Name)
		})
	}
	for _, program := range left.sidecars {
		last = append(last, sidecarStep(program))
		step(sidecarStep(program), "remove "+program+" next to the clusters", func(ctx context.Context) error {
			did(ctx)
			return d.Parts.Sidecars.Remove(ctx, lab, program)
		})
	}
	step(kubeconfigStep(lab), "remove contexts from the kubeconfig file", func(ctx context.Context) error {
		had, err := d.Parts.Kubeconfigs.Remove(ctx, lab, nil, "")
		if had {
			did(ctx)
		}
		return without(ctx, "goes on and leaves the lab's contexts where they are", err)
	}, clusters...)
	// The network goes last: no container of it can be without it.
	if left.network {
		step(networkStep(lab), "remove the lab's network", func(ctx context.Context) error {
			did(ctx)
			return d.Parts.Networks.Remove(ctx, lab)
		}, last...)
	}
	if err := errors.Join(errs...); err != nil {
		return false, err
	}
	err = plan.Runner{Observe: d.Observe}.Run(ctx, p)
	if err == nil && !left.network {
		// Notes of volumes are there without it as well.
		err = d.Parts.Networks.Remove(ctx, lab)
	}
	return removed.Load(), err
}

// remains is what there is of a lab.
type remains struct {
	nodes    []Node
	sidecars []string
	hosts    []FoundHost
	network  bool
}

// lateBound is how long a network may take to come that a killed up asked Docker
// for. Docker makes one in 0.1 to 0.3 s, and lists it at the end of that.
const lateBound = time.Second

// left returns what there is of a lab when nothing of it is on its way any more.
// Where there is nothing it looks again for a while: the network is the first that
// an up asks for.
func (d *Driver) left(ctx context.Context, lab string) (r remains, err error) {
	if err := d.settle(ctx, lab); err != nil {
		return r, err
	}
	if r, err = d.remains(ctx, lab); err != nil || !r.nothing() {
		return r, err
	}
	errNothing := errors.New("there is nothing")
	err = check.Until(ctx, check.Bound{Within: lateBound, Every: pace}, check.Check{Name: "something is there", Probe: func(ctx context.Context) (err error) {
		if r, err = d.remains(ctx, lab); err == nil && r.nothing() {
			err = errNothing
		}
		return err
	}})
	if timeout := (*check.TimeoutError)(nil); errors.As(err, &timeout) && errors.Is(err, errNothing) {
		err = nil
	}
	return r, err
}

func (r remains) nothing() bool {
	return len(r.nodes) == 0 && len(r.sidecars) == 0 && len(r.hosts) == 0 && !r.network
}

func (d *Driver) remains(ctx context.Context, lab string) (r remains, err error) {
	if r.nodes, err = d.Parts.Nodes.List(ctx, lab); err != nil {
		return r, err
	}
	if r.sidecars, err = d.Parts.Sidecars.List(ctx, lab); err != nil {
		return r, err
	}
	if r.hosts, err = d.Parts.Hosts.List(ctx, lab); err != nil {
		return r, err
	}
	_, r.network, err = d.Parts.Networks.Find(ctx, lab)
	return r, err
}
