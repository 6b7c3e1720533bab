package topology

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
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
	return Cluster{Name: name, Index: i, PodSubnet: pods, ServiceSubnet: services}
}

// Placed returns t with a place for the addresses of each cluster and workload:
// the one that it has in before, or else a free one. So what runs keeps its
// addresses, whatever the lab file adds or takes away around it.
func (t Topology) Placed(before Topology) Topology {
	t.Clusters, t.Workloads = slices.Clone(t.Clusters), slices.Clone(t.Workloads)
	kept := map[string]int{}
	for _, c := range before.Clusters {
		kept[c.Name] = c.Index
	}
	names := make([]string, len(t.Clusters))
	for i, c := range t.Clusters {
		names[i] = c.Name
	}
	for i, place := range places(names, kept) {
		t.Clusters[i] = NewCluster(names[i], place)
	}
	for _, c := range t.Clusters {
		// An app runs once in a cluster, and its workload may have another name now.
		kept, apps := map[string]int{}, []string{}
		for _, w := range before.Workloads {
			if w.Cluster == c.Name {
				kept[w.App.Name] = w.Slot
			}
		}
		var at []int
		for i, w := range t.Workloads {
			if w.Cluster == c.Name {
				at, apps = append(at, i), append(apps, w.App.Name)
			}
		}
		for i, place := range places(apps, kept) {
			t.Workloads[at[i]].Slot = place
		}
	}
	return t
}

// places gives each name the place that it has kept, or the first free one.
func places(names []string, kept map[string]int) []int {
	places, taken := make([]int, len(names)), map[int]bool{}
	for _, name := range names {
		if place, ok := kept[name]; ok {
			taken[place] = true
		}
	}
	free := 0
	for i, name := range names {
		place, ok := kept[name]
		if !ok {
			for taken[free] {
				free++
			}
			place = free
			taken[place] = true
		}
		places[i] = place
	}
	return places
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

// RangeVariable is the variable of the environment that names the range in which
// the networks of labs are, where the usual one is taken: the machine decides that,
// not the lab.
const RangeVariable = "FEDLAB_NETWORK_RANGE"

// NetworkCandidatesIn returns the subnets that a lab's container network may take
// in a range, which must not meet those inside of clusters.
func NetworkCandidatesIn(text string) ([]netip.Prefix, error) {
	const want = "want an IPv4 range of /18 or wider, such as 172.24.0.0/14"
	within, err := netip.ParsePrefix(text)
	if err != nil || !within.Addr().Is4() || within.Bits() > NetworkBits {
		return nil, fmt.Errorf("%s: %q is not a range for networks: %s", RangeVariable, text, want)
	}
	for _, inside := range []string{"10.64.0.0/10", "10.128.0.0/10"} {
		if within.Overlaps(netip.MustParsePrefix(inside)) {
			return nil, fmt.Errorf("%s: %s overlaps %s, which pods and Services of the clusters have: %s", RangeVariable, within, inside, want)
		}
	}
	first := within.Masked().Addr()
	candidates := make([]netip.Prefix, min(len(NetworkCandidates()), 1<<(NetworkBits-within.Bits())))
	for i := range candidates {
		candidates[i] = netip.PrefixFrom(offset(first, i<<(32-NetworkBits)), NetworkBits)
	}
	return candidates, nil
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
	c, err := a.topology.Cluster(cluster)
	if err != nil {
		return first, last, err
	}
	base := block(a.network, c.Index+1)
	return offset(base, 1), offset(base, 254), nil
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
	for _, other := range a.topology.Workloads {
		if other.Name == w.Name {
			return offset(first, firstWorkload+other.Slot), nil
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
