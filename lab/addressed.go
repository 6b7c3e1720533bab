package lab

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// service is a Service of Kubernetes, as far as its addresses go.
type service struct {
	Metadata struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"metadata"`
	Status struct {
		LoadBalancer struct {
			Ingress []struct {
				IP string `json:"ip"`
			} `json:"ingress"`
		} `json:"loadBalancer"`
	} `json:"status"`
}

// address returns the one that MetalLB has given the Service; empty for none.
func (s service) address() string {
	if ingress := s.Status.LoadBalancer.Ingress; len(ingress) > 0 {
		return ingress[0].IP
	}
	return ""
}

// addressed is what the lab reaches at an address of its own.
type addressed struct {
	// cluster is nil on a host, whose containers have their addresses or do not start.
	cluster *topology.Cluster
	service access.ObjectKey
	address netip.Addr
}

// endpointAt is what peers ask for the bundle of a server: its bundle endpoint, or the proxy in
// front of that.
func endpointAt(s *topology.Server) addressed {
	name := spire.BundleEndpointService
	if s.Domain.Proxy != nil {
		name = spire.ProxyName
	}
	return addressed{s.Place.Cluster, access.ObjectKey{APIVersion: "v1", Kind: "Service", Namespace: s.Place.Namespace, Name: name}, s.PublicAddress()}
}

// workloadAt is a workload that others call.
func workloadAt(w *topology.Workload) addressed {
	return addressed{w.Cluster(), access.ObjectKey{APIVersion: "v1", Kind: "Service", Namespace: w.Namespace, Name: w.App.Deployment}, w.Address}
}

// elsewhere adds to why something is not reached that its Service has not the address
// that it should have.
func (a addressed) elsewhere(ctx context.Context, objects access.Objects, err error) error {
	if err == nil || a.cluster == nil {
		return err
	}
	if why := a.lacks(ctx, objects); why != nil {
		return fmt.Errorf("%w; %w", err, why)
	}
	return err
}

// lacks says why a Service that is there has not the address that it should have; nil
// where it has it. MetalLB gives an address to one Service alone: where another one
// has it, waiting does not help.
func (a addressed) lacks(ctx context.Context, objects access.Objects) error {
	if a.cluster == nil {
		return nil
	}
	var all []service
	if err := objects.List(ctx, access.ObjectKey{APIVersion: a.service.APIVersion, Kind: a.service.Kind}, nil, &all); err != nil {
		return err
	}
	var own, holder *service
	for i, s := range all {
		switch {
		case s.Metadata.Namespace == a.service.Namespace && s.Metadata.Name == a.service.Name:
			own = &all[i]
		case s.address() == a.address.String():
			holder = &all[i]
		}
	}
	switch {
	case own == nil || own.address() == a.address.String():
		return nil
	case holder != nil:
		return check.Never(fmt.Errorf("the Service %s of cluster %s should have the address %s, and the Service %s in the namespace %s has it: delete that one, or give it another address",
			a.service.Name, a.cluster.Name, a.address, holder.Metadata.Name, holder.Metadata.Namespace))
	case own.address() == "":
		return fmt.Errorf("the Service %s of cluster %s has no address, and should have %s", a.service.Name, a.cluster.Name, a.address)
	}
	return fmt.Errorf("the Service %s of cluster %s has the address %s, and should have %s", a.service.Name, a.cluster.Name, own.address(), a.address)
}
