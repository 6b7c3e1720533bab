package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

// checked returns nil when a person's own program answers its check; in gives what can
// be done in a cluster.
func checked(ctx context.Context, in func(*topology.Cluster) access.Cluster, w *topology.Workload) error {
	status, err := askCheck(ctx, in, w)
	if err == nil && (status < 200 || status > 299) {
		err = fmt.Errorf("the answer is %d %s", status, http.StatusText(status))
	}
	if err != nil {
		return fmt.Errorf("check %s: %w", w.Own.Check.Path, err)
	}
	return nil
}

func askCheck(ctx context.Context, in func(*topology.Cluster) access.Cluster, w *topology.Workload) (status int, err error) {
	c := w.Own.Check
	if by := w.Checker; by != nil {
		cluster := in(by.Cluster())
		names, err := cluster.Pods.Named(ctx, by.Namespace, by.PodSelector())
		if err != nil {
			return 0, err
		}
		if len(names) == 0 {
			return 0, fmt.Errorf("%s has no ready pod", by.Name)
		}
		probe := traffic.NewProbe(func(ctx context.Context) (net.Conn, error) {
			return cluster.Pods.Dial(ctx, by.Namespace, names[0], topology.ProbeControlPort)
		})
		return probe.Get(ctx, traffic.Get{URL: "https://" + netip.AddrPortFrom(w.Address, uint16(c.Port)).String() + c.Path, Server: w.ID.String()})
	}
	cluster := in(w.Cluster())
	pods, err := podsOf(ctx, cluster.Objects, w)
	if err != nil {
		return 0, err
	}
	if len(pods) == 0 {
		return 0, errors.New("it has no pod")
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		return cluster.Pods.Dial(ctx, w.Namespace, pods[0].Metadata.Name, c.Port)
	}
	status, _, err = get(ctx, dial, c.Path)
	return status, err
}

// check waits until a person's own program answers its check.
func (u *up) check(ctx context.Context, w *topology.Workload) error {
	return wait(ctx, callBound, check.Check{Name: w.Name + " answers its check", Probe: func(ctx context.Context) error {
		return checked(ctx, u.in, w)
	}})
}
