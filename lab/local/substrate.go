package local

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/kindcluster"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// labelLab is the label of a lab's network; it has the lab's name.
const labelLab = "dev.fedlab.lab"

// networkName is what Docker calls a lab's network.
func networkName(lab string) string { return "fedlab-" + lab }

// kindName is what kind calls a cluster of a lab.
func kindName(lab, cluster string) string { return lab + "-" + cluster }

type networks struct{ engine *docker.Client }

func (n networks) Ensure(ctx context.Context, name string) (netip.Prefix, bool, error) {
	_, found, err := n.engine.Network(ctx, networkName(name))
	if err != nil {
		return netip.Prefix{}, false, err
	}
	labels := map[string]string{labelLab: name}
	network, err := n.engine.EnsureNetwork(ctx, networkName(name), labels, topology.NetworkCandidates(), topology.Containers)
	return network.Subnet, !found, err
}

func (n networks) Find(ctx context.Context, name string) (netip.Prefix, bool, error) {
	network, found, err := n.engine.Network(ctx, networkName(name))
	if err == nil && found && network.Labels[labelLab] != name {
		err = fmt.Errorf("network %s is not fedlab's: it lacks the label %s=%s", networkName(name), labelLab, name)
	}
	return network.Subnet, found, err
}

func (n networks) Remove(ctx context.Context, name string) error {
	return n.engine.RemoveNetwork(ctx, networkName(name))
}

// nodes are the containers on a lab's network that kind made.
type nodes struct {
	engine *docker.Client
	kind   *kindcluster.Provider
}

func (n nodes) List(ctx context.Context, name string) ([]lab.Node, error) {
	containers, err := n.engine.ContainersOn(ctx, networkName(name))
	if err != nil {
		return nil, err
	}
	var list []lab.Node
	for _, c := range containers {
		cluster, ok := strings.CutPrefix(c.Labels[kindcluster.ClusterLabel], kindName(name, ""))
		if !ok {
			continue
		}
		bindings, found, err := n.engine.PortBindings(ctx, c.ID)
		if err != nil {
			return nil, err
		}
		if found {
			list = append(list, lab.Node{Cluster: cluster, Running: c.Running, Ports: exposed(bindings)})
		}
	}
	return list, nil
}

// exposed is without the way to the cluster's API.
func exposed(bindings map[netip.AddrPort]uint16) map[netip.AddrPort]int {
	ports := map[netip.AddrPort]int{}
	for addr, port := range bindings {
		if port != kindcluster.APIPort {
			ports[addr] = int(port)
		}
	}
	return ports
}

func (n nodes) Create(ctx context.Context, s lab.NodeSpec) error {
	spec := kindcluster.Spec{
		Name: kindName(s.Lab, s.Cluster), Image: s.Image, Network: networkName(s.Lab),
		PodSubnet: s.Pods, ServiceSubnet: s.Services, DefaultCNI: s.DefaultCNI,
	}
	for addr, port := range s.Ports {
		spec.PortMappings = append(spec.PortMappings, kindcluster.PortMapping{Host: addr, NodePort: uint16(port)})
	}
	return n.kind.Create(ctx, spec)
}

func (n nodes) Start(ctx context.Context, name, cluster string) error {
	return n.engine.StartContainer(ctx, kindcluster.NodeName(kindName(name, cluster)))
}

// Reach asks by curl, which kind's nodes have.
func (n nodes) Reach(ctx context.Context, name, cluster string, server netip.AddrPort) error {
	_, err := n.engine.Exec(ctx, kindcluster.NodeName(kindName(name, cluster)), []string{
		"curl", "--silent", "--show-error", "--insecure", "--output", "/dev/null", "--connect-timeout", "2", "--max-time", "5",
		"https://" + server.String(),
	}, nil)
	return err
}

// removeBound is how long Docker may fail to remove a node: it gives up on each
// try after some ten seconds.
const removeBound = 2 * time.Minute

func (n nodes) Delete(ctx context.Context, name, cluster string) error {
	kind := kindName(name, cluster)
	return check.Until(ctx, check.Bound{Within: removeBound, Every: time.Second}, check.Check{
		Name: "cluster " + cluster + " is removed",
		Probe: func(ctx context.Context) error {
			err := n.kind.Delete(kind)
			if err == nil {
				return nil
			}
			left, listErr := n.engine.Containers(ctx, map[string]string{kindcluster.ClusterLabel: kind})
			for _, c := range left {
				err = errors.Join(err, n.engine.Thaw(c.ID))
			}
			return errors.Join(err, listErr)
		},
	})
}

type hands struct{ engine *docker.Client }

func (h hands) Stop(ctx context.Context, name, cluster string, grace time.Duration) error {
	return h.engine.StopContainer(ctx, NodeName(name, cluster), grace)
}

func (h hands) Exec(ctx context.Context, name, cluster string, argv ...string) ([]byte, error) {
	return h.engine.Exec(ctx, NodeName(name, cluster), argv, nil)
}

func (h hands) Address(ctx context.Context, name, cluster string) (netip.Addr, error) {
	address, found, err := h.engine.Address(ctx, NodeName(name, cluster), networkName(name))
	if err == nil && !found {
		err = fmt.Errorf("cluster %s has no address on network %s: it does not run", cluster, networkName(name))
	}
	return address, err
}

type kubeconfigs struct{ kind *kindcluster.Provider }

func (k kubeconfigs) Kubeconfig(name, cluster string) ([]byte, error) {
	config, err := k.kind.Kubeconfig(kindName(name, cluster))
	return config, halfMade(cluster, err)
}

// halfMade puts in the driver's words that a node has no kubeconfig.
func halfMade(cluster string, err error) error {
	if none := (*kindcluster.NoKubeconfigError)(nil); errors.As(err, &none) {
		return &lab.NoKubeconfigError{Cluster: cluster}
	}
	return err
}

func (k kubeconfigs) Export(ctx context.Context, name string, clusters []string, path string) (bool, error) {
	names := make([]string, len(clusters))
	for i, c := range clusters {
		names[i] = kindName(name, c)
	}
	return k.kind.ExportKubeconfig(ctx, path, names...)
}

func (k kubeconfigs) Remove(ctx context.Context, name, path string) (bool, error) {
	return k.kind.RemoveKubeconfig(ctx, path, kindName(name, ""))
}

func (k kubeconfigs) Context(name, cluster string) string {
	return kindcluster.ContextName(kindName(name, cluster))
}
