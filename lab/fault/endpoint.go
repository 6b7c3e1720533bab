package fault

import (
	"context"
	"errors"
	"fmt"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/spire"
)

// EndpointCut has the Service of a cluster's bundle endpoint lead to nobody:
// whoever connects is refused at once, and the server itself goes on.
func EndpointCut(c Cluster) Fault {
	// A selector is one value: to leave out what was said of it would leave none.
	leads := func(to string) func(context.Context) error {
		return func(ctx context.Context) error {
			return c.apply(ctx, endpoint, map[string]any{"selector": map[string]any{spire.ProgramLabel: to}})
		}
	}
	return fault{"endpoint-cut/" + c.Name, func(ctx context.Context) (injected, error) {
		return injected{
			felt: check.Check{
				Name:  fmt.Sprintf("the bundle endpoint of cluster %s leads to nobody", c.Name),
				Probe: func(ctx context.Context) error { return left(c.endpoints(ctx)) },
			},
			recover: leads(spire.ServerStatefulSet),
			healed: check.Check{
				Name: fmt.Sprintf("the bundle endpoint of cluster %s leads to its server", c.Name),
				Probe: func(ctx context.Context) error {
					addresses, err := c.endpoints(ctx)
					if err == nil && len(addresses) == 0 {
						err = errors.New("it leads to nobody")
					}
					return err
				},
			},
		}, leads("nobody")(ctx)
	}}
}

// endpoints returns the addresses of the pods that the bundle endpoint leads to.
func (c Cluster) endpoints(ctx context.Context) ([]string, error) {
	slice := access.ObjectKey{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice", Namespace: c.Namespace}
	names, err := c.Objects.Named(ctx, slice, map[string]string{"kubernetes.io/service-name": endpoint.Name})
	if err != nil {
		return nil, err
	}
	var addresses []string
	for _, slice.Name = range names {
		var found struct {
			Endpoints []struct {
				Addresses []string `json:"addresses"`
			} `json:"endpoints"`
		}
		if _, err := c.Objects.Object(ctx, slice, &found); err != nil {
			return nil, err
		}
		for _, e := range found.Endpoints {
			addresses = append(addresses, e.Addresses...)
		}
	}
	return addresses, nil
}
