package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// CutOffError says that this machine gets no connection to the addresses of a
// cluster whose API answers by its published port. What is asked from here says
// nothing about the lab then.
type CutOffError struct {
	Cluster string
	Err     error
}

func (e *CutOffError) Error() string {
	return fmt.Sprintf("this machine gets no connection to the addresses of cluster %s, which runs: %v; a firewall on this machine (its rules for outgoing connections) or a VPN keeps it from the lab's network", e.Cluster, e.Err)
}

func (e *CutOffError) Unwrap() error { return e.Err }

// connectBound is how long a node whose API answers may refuse a connection by
// its address. Docker has given it the address before it started.
const connectBound = 3 * time.Second

// connected returns nil when this machine gets through to a cluster that runs:
// all that comes later in a bring-up connects to addresses besides the node's.
func (u *up) connected(ctx context.Context, c *topology.Cluster) error {
	var last error
	err := wait(ctx, connectBound, check.Check{Name: "this machine gets through to the node", Probe: func(ctx context.Context) error {
		last = u.Parts.Connected(ctx, c.Lab, c.Name)
		return last
	}})
	if timeout := (*check.TimeoutError)(nil); errors.As(err, &timeout) {
		return &CutOffError{Cluster: c.Name, Err: timeout.LastSeen}
	}
	return err
}
