package lab

import (
	"context"
	"errors"
	"fmt"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// BootError says that a cluster that was just made does not come up.
type BootError struct {
	// Pulled says that its node image is of upstream's images; else it was built.
	Pulled bool
	Err    error
}

func (e *BootError) Error() string { return e.Err.Error() }
func (e *BootError) Unwrap() error { return e.Err }

// NoKubeconfigError says that the node of a cluster runs and has no kubeconfig.
// Under the lab's lock nobody is making it: it was left half-made.
type NoKubeconfigError struct{ Cluster string }

func (e *NoKubeconfigError) Error() string {
	return fmt.Sprintf("cluster %s has no kubeconfig: it is being made, or was left half-made", e.Cluster)
}

// SilentError says that a cluster does not answer that has been whole. What it
// holds may be wanted: no command removes it without being asked.
type SilentError struct {
	Lab, Cluster string
	// Err is what was seen.
	Err error
}

func (e *SilentError) Error() string {
	return fmt.Sprintf("cluster %s was complete once and does not answer now, and up removes no such cluster: %v", e.Cluster, e.Err)
}

func (e *SilentError) Unwrap() error { return e.Err }

// start starts a stopped node. What it needs of this machine may have gone while
// it was stopped: its network, and its ports.
func (d *Driver) start(ctx context.Context, lab string, n Node) error {
	plan.Did(ctx)
	_, networked, err := d.Parts.Networks.Find(ctx, lab)
	if err != nil {
		return err
	}
	if !networked {
		plan.Remark(ctx, "the lab's network is gone: makes it again")
		if _, _, err := d.Parts.Networks.Ensure(ctx, lab); err != nil {
			return err
		}
	}
	var errs []error
	for addr := range n.Ports {
		errs = append(errs, d.Parts.PortFree(addr))
	}
	if n.API.IsValid() && d.Parts.PortFree(n.API) != nil {
		errs = append(errs, fmt.Errorf("port %d of this machine is taken, and the API of cluster %s had it: stop what listens on %s",
			n.API.Port(), n.Cluster, n.API))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return d.Parts.Nodes.Start(ctx, lab, n.Cluster)
}

// cluster makes a cluster, or takes the one that is there, with those of its
// programs that the file still has.
func (u *up) cluster(ctx context.Context, c *topology.Cluster) error {
	// The survey was before images were made, perhaps minutes ago.
	nodes, err := u.Parts.Nodes.List(ctx, c.Lab)
	if err != nil {
		return err
	}
	whole := false
	if n, there := nodeOf(c, nodes); there {
		if whole, err = u.adopt(ctx, c, n); err != nil {
			return err
		}
		if !whole {
			plan.Did(ctx)
			plan.Remark(ctx, "was left half-made by an earlier up: makes it again")
			if err := u.Parts.Nodes.Delete(ctx, c.Lab, c.Name); err != nil {
				return err
			}
		}
	}
	if !whole {
		plan.Did(ctx)
		if err := u.create(ctx, c); err != nil {
			return err
		}
	}
	if err := errors.Join(u.nobodyJoins(ctx, c), u.names(ctx, c)); err != nil {
		return err
	}
	if err := u.mark(ctx, c); err != nil || !whole {
		return err
	}
	return u.programs(ctx, c)
}

// adopt takes a cluster that is there into the bring-up, started where it was
// stopped. It returns false for one that was never finished, and a *SilentError for
// one that was and does not answer.
func (u *up) adopt(ctx context.Context, c *topology.Cluster, n Node) (whole bool, err error) {
	// An API that was up answers at once; one that never came up never does, and
	// is waited for only where it may have been.
	bound := answerBound
	if !n.Running {
		bound = apiBound
		if err := u.start(ctx, c.Lab, n); err != nil {
			return false, err
		}
	}
	err = wait(ctx, bound, check.Check{Name: "the API answers", Probe: func(ctx context.Context) error {
		in, err := u.enter(c)
		switch {
		case halfMade(err):
			return check.Never(err)
		case err != nil:
			return err
		}
		whole, err = in.Objects.Object(ctx, mark, &struct{}{})
		return err
	}})
	timeout := (*check.TimeoutError)(nil)
	silent := halfMade(err) || errors.As(err, &timeout) && u.neverReady(ctx, c)
	if err != nil && !silent {
		return false, err
	}
	if !whole {
		marked, markErr := u.Parts.Marks.Whole(ctx, c.Lab, c.Name)
		switch {
		case markErr != nil:
			return false, errors.Join(markErr, err)
		case marked && silent:
			return false, &SilentError{Lab: c.Lab, Cluster: c.Name, Err: err}
		case !marked:
			return false, nil
		}
	}
	return true, wait(ctx, apiBound, check.Check{Name: "the node is ready", Probe: u.in(c).Objects.NodeReady})
}

// neverReady is the second look at a cluster that does not tell whether it is
// whole: one whose node is ready is not thrown away.
func (u *up) neverReady(ctx context.Context, c *topology.Cluster) bool {
	in, err := u.enter(c)
	return err != nil || in.Objects.NodeReady(ctx) != nil
}

func (u *up) create(ctx context.Context, c *topology.Cluster) error {
	images, err := u.nodeImages(ctx)
	if err != nil {
		return err
	}
	if err := u.portsFree(c, nil); err != nil {
		return err
	}
	err = u.Parts.Nodes.Create(ctx, NodeSpec{
		Lab: c.Lab, Cluster: c.Name, Image: images.Node, DefaultCNI: images.DefaultCNI,
		Pods: c.PodSubnet, Services: c.ServiceSubnet, Ports: c.Ports(),
	})
	if err != nil {
		return &BootError{Pulled: images.DefaultCNI, Err: err}
	}
	in, err := u.enter(c)
	if err != nil {
		return err
	}
	// The node becomes ready while the next steps hand it their pods. One CoreDNS
	// is enough for one node, and while it starts nobody else could answer: its
	// Service need not wait for a probe.
	_, err = in.Objects.Apply(ctx, map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": map[string]any{"name": "coredns", "namespace": "kube-system"},
		"spec":     map[string]any{"replicas": 1},
	}, map[string]any{
		"apiVersion": "v1", "kind": "Service",
		"metadata": map[string]any{"name": "kube-dns", "namespace": "kube-system"},
		"spec":     map[string]any{"publishNotReadyAddresses": true},
	})
	return err
}

// invitation is what lets further nodes join a cluster of kind: a token that is the
// same in all of them, and written in kind's source, and what kubeadm signed with
// it. A pod of one cluster could become a node of another with it, and read that
// one's Secrets. kubeadm's own controllers forget the token after a day only.
func invitation() []access.ObjectKey {
	return []access.ObjectKey{
		{APIVersion: "v1", Kind: "Secret", Namespace: "kube-system", Name: "bootstrap-token-abcdef"},
		{APIVersion: "v1", Kind: "ConfigMap", Namespace: "kube-public", Name: "cluster-info"},
	}
}

// nobodyJoins takes the invitation out of a cluster, which has its one node.
func (u *up) nobodyJoins(ctx context.Context, c *topology.Cluster) error {
	objects := u.in(c).Objects
	for _, key := range invitation() {
		there, err := objects.Object(ctx, key, &struct{}{})
		if err != nil {
			return err
		}
		if !there {
			continue
		}
		plan.Did(ctx)
		if err := objects.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// nodeImages returns the images with that of the node, which the step before
// left out where every cluster was there, if only half-made.
func (u *up) nodeImages(ctx context.Context) (ImageSet, error) {
	if u.images.Node != "" {
		return u.images, nil
	}
	return u.Parts.Images.Ensure(ctx, true, nil)
}
