package local

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/kindcluster"
	"github.com/fedlab-dev/fedlab/lab/kube"
	"github.com/fedlab-dev/fedlab/lab/lock"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// labelLab is the label of a lab's network; it has the lab's name.
const labelLab = "dev.fedlab.lab"

// networkName is what Docker calls a lab's network.
func networkName(lab string) string { return "fedlab-" + lab }

// kindName is what kind calls a cluster of a lab.
func kindName(lab, cluster string) string { return lab + "-" + cluster }

type networks struct {
	engine *docker.Client
	kind   *kindcluster.Provider
}

func (n networks) Ensure(ctx context.Context, name string) (netip.Prefix, bool, error) {
	there, found, err := n.engine.Network(ctx, networkName(name))
	if err != nil {
		return netip.Prefix{}, false, err
	}
	candidates := topology.NetworkCandidates()
	if within := os.Getenv(topology.RangeVariable); within != "" {
		if candidates, err = topology.NetworkCandidatesIn(within); err != nil {
			return netip.Prefix{}, false, err
		}
	}
	if found && there.Subnet.Bits() == topology.NetworkBits {
		// It was made when another range was chosen, and stays where it is.
		candidates = append(candidates, there.Subnet)
	}
	labels := map[string]string{labelLab: name}
	// Whoever runs up again does not become the owner.
	if !found {
		labels[labelOwner] = owner()
	} else if by := there.Labels[labelOwner]; by != "" {
		labels[labelOwner] = by
	}
	network, err := n.engine.EnsureNetwork(ctx, networkName(name), labels, candidates, topology.Containers)
	return network.Subnet, !found, err
}

func (n networks) Find(ctx context.Context, name string) (netip.Prefix, bool, error) {
	network, found, err := n.engine.Network(ctx, networkName(name))
	if err == nil && found && network.Labels[labelLab] != name {
		err = fmt.Errorf("network %s is not fedlab's: it lacks the label %s=%s", networkName(name), labelLab, name)
	}
	return network.Subnet, found, err
}

// Remove removes before the network what killed commands left of the lab's nodes.
func (n networks) Remove(ctx context.Context, name string) error {
	if err := n.engine.FinishDisposals(ctx, map[string]string{labelLab: name}); err != nil {
		return err
	}
	return n.engine.RemoveNetwork(ctx, networkName(name))
}

// Unsettled looks at what the engine is doing, and before it at the docker commands
// that have yet to ask the engine: what they ask for is listed when they end.
func (n networks) Unsettled(ctx context.Context, name string) ([]string, error) {
	asking, err := n.kind.Asking(networkName(name))
	if err != nil {
		return nil, err
	}
	for i, node := range asking {
		asking[i] = "a docker command makes container " + node
	}
	unsettled, err := n.engine.Unsettled(ctx, networkName(name))
	return append(asking, unsettled...), err
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
			list = append(list, lab.Node{Cluster: cluster, Running: c.Running, Unstarted: c.State == docker.StateCreated, Ports: exposed(bindings), API: api(bindings)})
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

// api returns the way to the cluster's API.
func api(bindings map[netip.AddrPort]uint16) netip.AddrPort {
	for addr, port := range bindings {
		if port == kindcluster.APIPort {
			return addr
		}
	}
	return netip.AddrPort{}
}

// nameFree looks for a container that has the label that kind gives to the node of
// a cluster, on whatever network. The names of lab and cluster are joined by a
// hyphen, which both may have.
func (n nodes) nameFree(ctx context.Context, name, cluster string) error {
	containers, err := n.engine.Containers(ctx, map[string]string{kindcluster.ClusterLabel: kindName(name, cluster)})
	if err != nil || len(containers) == 0 {
		return err
	}
	return fmt.Errorf("cluster %s of lab %s needs the container name %s, and another lab or kind cluster has it (on network %s): give the lab or the cluster another name, or remove that container",
		cluster, name, containers[0].Name, strings.Join(containers[0].Networks, " and "))
}

func (n nodes) Create(ctx context.Context, s lab.NodeSpec) error {
	v1, err := n.engine.CgroupV1(ctx)
	if err != nil {
		return err
	}
	spec := kindcluster.Spec{
		Name: kindName(s.Lab, s.Cluster), Image: s.Image, Network: networkName(s.Lab),
		PodSubnet: s.Pods, ServiceSubnet: s.Services, DefaultCNI: s.DefaultCNI,
		Cgroupfs: v1 && !s.DefaultCNI, // see lab/images/node/etc-containerd-config.toml.mount
	}
	for addr, port := range s.Ports {
		spec.PortMappings = append(spec.PortMappings, kindcluster.PortMapping{Host: addr, NodePort: uint16(port)})
	}
	return n.kind.Create(ctx, spec)
}

// Start puts a node on the lab's network first, where that was made again.
func (n nodes) Start(ctx context.Context, name, cluster string) error {
	node := NodeName(name, cluster)
	if err := n.engine.Rejoin(ctx, node, networkName(name)); err != nil {
		return err
	}
	return n.engine.StartContainer(ctx, node)
}

// removeBound is how long Docker may fail to remove a node: it gives up on each
// try after some ten seconds.
const removeBound = 2 * time.Minute

func (n nodes) Delete(ctx context.Context, name, cluster string) error {
	left := map[string]string{labelLab: name, kindcluster.ClusterLabel: kindName(name, cluster)}
	return check.Until(ctx, check.Bound{Within: removeBound, Every: 250 * time.Millisecond}, check.Check{
		Name: "cluster " + cluster + " is removed",
		Probe: func(ctx context.Context) error {
			containers, err := n.of(ctx, name, cluster)
			for _, c := range containers {
				if failed := n.engine.Dispose(ctx, c.ID, left); failed != nil {
					err = errors.Join(err, failed, n.engine.Thaw(c.ID))
				}
			}
			if err = errors.Join(err, n.engine.FinishDisposals(ctx, left)); err != nil {
				return err
			}
			if containers, err = n.of(ctx, name, cluster); err == nil && len(containers) > 0 {
				err = fmt.Errorf("container %s is still there", containers[0].Name)
			}
			return err
		},
	})
}

// of lists the containers of a cluster. Another lab's cluster may have the same
// name in kind, and is on another network.
func (n nodes) of(ctx context.Context, name, cluster string) ([]docker.Container, error) {
	all, err := n.engine.ContainersOn(ctx, networkName(name))
	return slices.DeleteFunc(all, func(c docker.Container) bool {
		return c.Labels[kindcluster.ClusterLabel] != kindName(name, cluster)
	}), err
}

// wholeFile is in a node's container when the cluster has been whole: it is read
// also while the cluster does not answer, and goes with the container.
const (
	wholeFolder = "/etc"
	wholeFile   = "fedlab-whole"
)

type marks struct{ engine *docker.Client }

func (m marks) Whole(ctx context.Context, name, cluster string) (bool, error) {
	return m.engine.HasFile(ctx, NodeName(name, cluster), wholeFolder+"/"+wholeFile)
}

func (m marks) SetWhole(ctx context.Context, name, cluster string) error {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	err := w.WriteHeader(&tar.Header{Name: wholeFile, Mode: 0o644})
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}
	return m.engine.CopyTo(ctx, NodeName(name, cluster), wholeFolder, &archive)
}

type hands struct{ engine *docker.Client }

func (h hands) Stop(ctx context.Context, name, cluster string, grace time.Duration) error {
	return h.engine.StopContainer(ctx, NodeName(name, cluster), grace)
}

func (h hands) Freeze(ctx context.Context, name, cluster string) error {
	return h.engine.FreezeContainer(ctx, NodeName(name, cluster))
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
	configs := make([][]byte, len(clusters))
	for i, c := range clusters {
		config, err := k.Kubeconfig(name, c)
		if err != nil {
			return false, err
		}
		configs[i] = config
	}
	changed := false
	err := alone(ctx, func() (err error) {
		changed, err = kube.ExportContexts(ctx, path, name, configs...)
		return err
	})
	return changed, filesError(err)
}

// filesBound is how long other commands may have the kubeconfig files, each for
// moments.
const filesBound = 10 * time.Second

// alone does something to kubeconfig files that one process of fedlab's at a time
// may do, whichever lab it is for.
func alone(ctx context.Context, do func() error) (err error) {
	var release func() error
	err = check.Until(ctx, check.Bound{Within: filesBound, Every: 50 * time.Millisecond}, check.Check{
		Name: "no other command has the kubeconfig files",
		Probe: func(context.Context) (err error) {
			release, err = lock.Take("kubeconfig", "fedlab")
			if held := (*lock.HeldError)(nil); err != nil && !errors.As(err, &held) {
				err = check.Never(err)
			}
			return err
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	return do()
}

// Remove removes first what killed commands left of kubeconfigs in the folder for
// temporary files.
func (k kubeconfigs) Remove(ctx context.Context, name string, keep []string, path string) (bool, error) {
	if err := k.kind.Sweep(); err != nil {
		return false, err
	}
	removed := false
	err := alone(ctx, func() (err error) {
		removed, err = kube.RemoveContexts(ctx, path, name, func(context string) bool {
			return slices.ContainsFunc(keep, func(cluster string) bool { return context == k.Context(name, cluster) })
		})
		return err
	})
	return removed, filesError(err)
}

// filesError says that it was the person's own files that were in the way.
func filesError(err error) error {
	if err == nil {
		return nil
	}
	return &lab.KubeconfigFileError{Err: err}
}

func (k kubeconfigs) Context(name, cluster string) string {
	return kindcluster.ContextName(kindName(name, cluster))
}
