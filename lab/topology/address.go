package topology

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// MaxClusters is how many clusters one lab can hold: a lab's network of
// 2^14 addresses has one block of 256 for containers and one for each cluster.
const MaxClusters = 63

const (
	// NetworkBits is the prefix length of a lab's container network.
	NetworkBits = 18
	blockBits   = 24
)

// clusterSubnets returns where the pods and Services of the i-th cluster live:
// 10.64+i.0.0/16 and 10.128+i.0.0/16. They are inside of the cluster only, so
// two labs on one machine may use the same.
func clusterSubnets(i int) (pods, services netip.Prefix) {
	at := func(base int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(base + i), 0, 0}), 16)
	}
	return at(64), at(128)
}

// NewCluster returns the i-th cluster of a lab with its ranges, i from 0 and
// below MaxClusters.
func NewCluster(name string, i int) Cluster {
	pods, services := clusterSubnets(i)
	return Cluster{Name: name, PodSubnet: pods, ServiceSubnet: services}
}

// NetworkCandidates returns the subnets that a lab's container network may
// take, in order of preference. Which one is free depends on the machine.
func NetworkCandidates() []netip.Prefix {
	const first, labs = 10<<24 | 192<<16, 128
	candidates := make([]netip.Prefix, labs)
	for i := range candidates {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(first+i<<(32-NetworkBits)))
		candidates[i] = netip.PrefixFrom(netip.AddrFrom4(b), NetworkBits)
	}
	return candidates
}

// Addresses says which part of a lab's container network belongs to whom.
// It is a pure function of the network and the topology, so that each address
// can be named before the thing that has it exists.
type Addresses struct {
	topology Topology
	network  netip.Prefix
}

// Addresses lays the lab out on a container network of NetworkBits.
func (t Topology) Addresses(network netip.Prefix) (Addresses, error) {
	switch {
	case !network.Addr().Is4() || network.Bits() > NetworkBits:
		return Addresses{}, fmt.Errorf("network %s of lab %s: want an IPv4 prefix of /%d or wider", network, t.Name, NetworkBits)
	case len(t.Clusters) > MaxClusters:
		return Addresses{}, fmt.Errorf("lab %s has %d clusters: at most %d fit into network %s", t.Name, len(t.Clusters), MaxClusters, network)
	}
	return Addresses{topology: t, network: network.Masked()}, nil
}

// Containers returns the block that the container engine gives nodes and the
// gateway addresses from.
func Containers(network netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(block(network, 0), blockBits)
}

// Pool returns the first and last address that MetalLB hands out in a cluster.
// Pools are disjoint from each other and from the containers' block.
func (a Addresses) Pool(cluster string) (first, last netip.Addr, err error) {
	for i, c := range a.topology.Clusters {
		if c.Name == cluster {
			base := block(a.network, i+1)
			return offset(base, 1), offset(base, 254), nil
		}
	}
	return first, last, fmt.Errorf("lab %s has no cluster %q", a.topology.Name, cluster)
}

// Server returns the address of a trust domain's SPIRE server. It stays the
// same when the Service is made anew, so that the peers' URLs stay right.
func (a Addresses) Server(td TrustDomain) (netip.Addr, error) {
	first, _, err := a.Pool(td.Cluster)
	if err != nil {
		return netip.Addr{}, err
	}
	i := 0
	for _, other := range a.topology.TrustDomains {
		if other.Name == td.Name {
			return offset(first, i), nil
		}
		if other.Cluster == td.Cluster {
			i++
		}
	}
	return netip.Addr{}, fmt.Errorf("lab %s has no trust domain %q", a.topology.Name, td.Name)
}

// firstWorkload is where workloads start in a cluster's pool; SPIRE servers
// come before.
const firstWorkload = 100

// Workload returns the address that a workload's peers call it at.
func (a Addresses) Workload(w Workload) (netip.Addr, error) {
	first, _, err := a.Pool(w.Cluster)
	if err != nil {
		return netip.Addr{}, err
	}
	i := firstWorkload
	for _, other := range a.topology.Workloads {
		if other.Name == w.Name {
			return offset(first, i), nil
		}
		if other.Cluster == w.Cluster {
			i++
		}
	}
	return netip.Addr{}, fmt.Errorf("lab %s has no workload %q", a.topology.Name, w.Name)
}

func block(network netip.Prefix, i int) netip.Addr {
	return offset(network.Masked().Addr(), i<<(32-blockBits))
}

func offset(addr netip.Addr, n int) netip.Addr {
	b := addr.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
	return netip.AddrFrom4(b)
}
