package kindcluster

import (
	"errors"
	"fmt"
	"net/netip"

	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
)

// Spec is what a cluster of one node is made from.
type Spec struct {
	// Name is unique on the machine, at most 50 characters long: the node's
	// host name is made of it.
	Name string
	// Image is the node image.
	Image string
	// Network is the name of the Docker network that the node joins.
	Network                  string
	PodSubnet, ServiceSubnet netip.Prefix
	PortMappings             []PortMapping
	// DefaultCNI says that kind installs the pod network that the image brings
	// along. Our images have the pod network in place when they boot.
	DefaultCNI bool
	// Cgroupfs says that the image has its container runtime make control groups as
	// folders, and not by systemd: the kubelet must do the same.
	Cgroupfs bool
}

// APIPort is the port of a node at which its API server listens. kind leads to
// it from a port of 127.0.0.1 that is free.
const APIPort = 6443

// PortMapping leads TCP connections to an address of this machine to a port of
// the node.
type PortMapping struct {
	Host     netip.AddrPort
	NodePort uint16
}

// nameMax is what Linux leaves of a host name's 64 characters.
const nameMax = 50

func (s Spec) config() (*v1alpha4.Cluster, error) {
	var errs []error
	for _, field := range []struct{ name, value string }{{"name", s.Name}, {"image", s.Image}, {"network", s.Network}} {
		if field.value == "" {
			errs = append(errs, fmt.Errorf("%s is empty", field.name))
		}
	}
	if len(s.Name) > nameMax {
		errs = append(errs, fmt.Errorf("name has %d characters, at most %d fit into the node's host name", len(s.Name), nameMax))
	}
	for _, subnet := range []netip.Prefix{s.PodSubnet, s.ServiceSubnet} {
		if !subnet.IsValid() || !subnet.Addr().Is4() {
			errs = append(errs, fmt.Errorf("subnet %s is not an IPv4 prefix", subnet))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}

	node := v1alpha4.Node{Role: v1alpha4.ControlPlaneRole, Image: s.Image}
	for _, m := range s.PortMappings {
		node.ExtraPortMappings = append(node.ExtraPortMappings, v1alpha4.PortMapping{
			ListenAddress: m.Host.Addr().String(),
			HostPort:      int32(m.Host.Port()),
			ContainerPort: int32(m.NodePort),
			Protocol:      v1alpha4.PortMappingProtocolTCP,
		})
	}
	patches := []string{leanControlPlane, kubeletAnywhere, promptProxy}
	if s.Cgroupfs {
		patches = append(patches, cgroupfs)
	}
	return &v1alpha4.Cluster{
		TypeMeta: v1alpha4.TypeMeta{Kind: "Cluster", APIVersion: "kind.x-k8s.io/v1alpha4"},
		Name:     s.Name,
		Nodes:    []v1alpha4.Node{node},
		Networking: v1alpha4.Networking{
			IPFamily:          v1alpha4.IPv4Family,
			APIServerAddress:  "127.0.0.1",
			PodSubnet:         s.PodSubnet.String(),
			ServiceSubnet:     s.ServiceSubnet.String(),
			DisableDefaultCNI: !s.DefaultCNI,
		},
		KubeadmConfigPatches: patches,
	}, nil
}

// The patches name no apiVersion, and give arguments as a map: kind then fits
// them to whichever version of kubeadm's API the image has.
const (
	// leanControlPlane: with one of each there is no leader to elect, and the
	// data of a lab need not survive a power cut. Without both, an idle
	// cluster writes to the disk every two seconds.
	//
	// A volume is bound when somebody looks, by default every 15 s; a SPIRE server
	// waits for its own.
	//
	// etcd's heartbeat stays as it is: a single member sends none, and a longer
	// one delays its first election, which comes some ticks after each start.
	leanControlPlane = `
kind: ClusterConfiguration
controllerManager:
  extraArgs:
    leader-elect: "false"
    pvclaimbinder-sync-period: 1s
scheduler:
  extraArgs:
    leader-elect: "false"
etcd:
  local:
    extraArgs:
      unsafe-no-fsync: "true"
`
	// kubeletAnywhere: kubelet refuses cgroup v1 from 1.35 on unless told not to.
	// What fails while a cluster starts, because something else does not run
	// yet, is tried again after a second and not after ten.
	kubeletAnywhere = `
kind: KubeletConfiguration
failCgroupV1: false
crashLoopBackOff:
  maxContainerRestartPeriod: 1s
`
	cgroupfs = `
kind: KubeletConfiguration
cgroupDriver: cgroupfs
`
	// promptProxy: kind lets kube-proxy act once in a second. A SPIRE agent that asks for
	// its server in that second is refused, and asks again only five seconds later.
	promptProxy = `
kind: KubeProxyConfiguration
iptables:
  minSyncPeriod: 100ms
`
)
