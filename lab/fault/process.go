package fault

import (
	"context"
	"errors"
	"fmt"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/spire"
)

// killed is the fault that kills a container's process. It repairs itself.
func (c Cluster) killed(kind, what string, find func(context.Context) (container, error), runs func(before *container) check.Check) Fault {
	return fault{kind + c.Name, func(ctx context.Context) (injected, error) {
		before, err := find(ctx)
		if err != nil {
			return injected{}, err
		}
		return injected{
			felt: check.Check{
				Name: fmt.Sprintf("the %s of cluster %s is not the one that it was", what, c.Name),
				Probe: func(ctx context.Context) error {
					now, err := find(ctx)
					if err == nil && now.running() {
						err = now.isnot(before)
					}
					return err
				},
			},
			recover: nothing,
			healed:  runs(&before),
		}, c.signal(ctx, before, "SIGKILL")
	}}
}

// runs checks that a program runs as Kubernetes wants it to, in another container
// than before where that is given: what Kubernetes says about a node that was away
// is old until its kubelet has reported.
func (c Cluster) runs(what string, find func(context.Context) (container, error), well func(context.Context) error, before *container) check.Check {
	return check.Check{
		Name: fmt.Sprintf("the %s of cluster %s runs", what, c.Name),
		Probe: func(ctx context.Context) error {
			now, err := find(ctx)
			if err == nil && before != nil {
				err = now.isnot(*before)
			}
			if err != nil {
				return err
			}
			return well(ctx)
		},
	}
}

// ControllerManagerGone has the SPIRE Controller Manager of a cluster hang: its
// process is there, and does nothing any more. The server in the same pod goes on.
//
// It is stopped by a signal and not by a freezer, because that undoes itself
// whenever the container ends: a frozen process can neither be killed nor removed.
func ControllerManagerGone(c Cluster) Fault {
	return fault{"controller-manager-gone/" + c.Name, func(ctx context.Context) (injected, error) {
		stopped, err := c.manager(ctx)
		if err != nil {
			return injected{}, err
		}
		return injected{
			felt: check.Check{
				Name: fmt.Sprintf("the controller manager of cluster %s is not ready", c.Name),
				Probe: func(ctx context.Context) error {
					now, err := c.manager(ctx)
					if err == nil && now.Ready {
						err = fmt.Errorf("%s is ready", now)
					}
					return err
				},
			},
			// A container that was started since knows nothing of this.
			recover: func(ctx context.Context) error {
				return c.managerGoesOn(ctx, func(now container) bool { return now.ContainerID == stopped.ContainerID })
			},
			healed: check.Check{
				Name: fmt.Sprintf("the controller manager of cluster %s is ready", c.Name),
				Probe: func(ctx context.Context) error {
					now, err := c.manager(ctx)
					if err == nil && !now.Ready {
						err = fmt.Errorf("%s is not ready", now)
					}
					return err
				},
			},
		}, c.signal(ctx, stopped, "SIGSTOP")
	}}
}

// manager returns the container of the controller manager.
func (c Cluster) manager(ctx context.Context) (container, error) {
	return c.container(ctx, spire.ControllerManagerContainer, spire.ServerPod)
}

// managerGoesOn has the controller manager go on, where it is there and is the
// one that is meant. To one that runs the signal does nothing.
func (c Cluster) managerGoesOn(ctx context.Context, meant func(container) bool) error {
	now, err := c.manager(ctx)
	if away := (*awayError)(nil); errors.As(err, &away) {
		return nil
	}
	if err != nil || !now.running() || !meant(now) {
		return err
	}
	return c.signal(ctx, now, "SIGCONT")
}
