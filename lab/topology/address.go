package topology

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// MaxClusters is how many clusters and hosts one lab can hold: a lab's network of
// 2^14 addresses has one block of 256 for containers and one for each of them.
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
func NewCluster(name string, i int) ClusterSpec {
	pods, services := clusterSubnets(i)
	return ClusterSpec{Name: name, Index: i, PodSubnet: pods, ServiceSubnet: services}
}

// Placed returns t with a place for the addresses of each cluster, server and
// workload: the one that it has in before, or else a free one. So what runs keeps
// its addresses, whatever the lab file adds or takes away around it.
func (t Topology) Placed(before Topology) Topology {
	t.Clusters, t.Hosts, t.TrustDomains, t.Workloads = slices.Clone(t.Clusters), slices.Clone(t.Hosts), slices.Clone(t.TrustDomains), slices.Clone(t.Workloads)
	kept := map[string]int{}
	for _, c := range before.Clusters {
		kept[c.Name] = c.Index
	}
	for _, h := range before.Hosts {
		kept[h.Name] = h.Index
	}
	var names []string
	for _, c := range t.Clusters {
		names = append(names, c.Name)
	}
	for _, h := range t.Hosts {
		names = append(names, h.Name)
	}
	for i, place := range places(names, kept) {
		if i < len(t.Clusters) {
			t.Clusters[i] = NewCluster(names[i], place)
		} else {
			t.Hosts[i-len(t.Clusters)].Index = place
		}
	}
	for i := range t.TrustDomains {
		t.TrustDomains[i].Members = slices.Clone(t.TrustDomains[i].Members)
	}
	if t.ACMEServer != nil {
		server := *t.ACMEServer
		// What it has issued is verified by the root in its cluster.
		if before.ACMEServer != nil && slices.Contains(names[:len(t.Clusters)], before.ACMEServer.Cluster) {
			server.Cluster = before.ACMEServer.Cluster
		}
		t.ACMEServer = &server
	}
	for _, name := range names {
		placedIn(name, before.domains(), t.domains())
		placedIn(name, before.discoveries(), t.discoveries())
		placedIn(name, before.workloads(), t.workloads())
	}
	return t
}

// slotted is what has a place of its own in a cluster or on a host; the name tells it
// apart from the others there.
type slotted struct {
	place, name string
	slot        *int
}

// domains returns the trust domains in each of their clusters and hosts. In a cluster
// those come first whose server is there.
func (t Topology) domains() (all []slotted) {
	for i := range t.TrustDomains {
		td := &t.TrustDomains[i]
		all = append(all, slotted{cmp.Or(td.Cluster, td.Host), td.Name.Name(), &td.Slot})
	}
	for i := range t.TrustDomains {
		td := &t.TrustDomains[i]
		for j := range td.Members {
			m := &td.Members[j]
			all = append(all, slotted{cmp.Or(m.Cluster, m.Host), td.Name.Name(), &m.Slot})
		}
	}
	return all
}

// discoveries returns the web servers of the lab in each of their clusters: OIDC discovery
// providers, the ACME server, and proxies in front of bundle endpoints.
func (t Topology) discoveries() (all []slotted) {
	if t.ACMEServer != nil {
		all = append(all, slotted{t.ACMEServer.Cluster, ACMEHost, &t.ACMEServer.Slot})
	}
	for i := range t.TrustDomains {
		if td := &t.TrustDomains[i]; td.OIDCDiscovery.PollInterval > 0 {
			all = append(all, slotted{td.Cluster, td.Name.Name(), &td.DiscoverySlot})
		}
	}
	for i := range t.TrustDomains {
		if td := &t.TrustDomains[i]; td.BundleEndpoint.Route != "" {
			all = append(all, slotted{td.Cluster, "proxy of " + td.Name.Name(), &td.ProxySlot})
		}
	}
	return all
}

// workloads goes by the app, which runs once in a trust domain's part of a cluster: its
// workload may have another name now. A workload that names no trust domain has that
// of its cluster.
func (t Topology) workloads() (all []slotted) {
	domains := t.domains()
	for i := range t.Workloads {
		w := &t.Workloads[i]
		domain, place := w.TrustDomain.Name(), cmp.Or(w.Cluster, w.Host)
		if j := slices.IndexFunc(domains, func(d slotted) bool { return d.place == place }); w.TrustDomain.IsZero() && j >= 0 {
			domain = domains[j].name
		}
		all = append(all, slotted{place, w.App.Name + " " + domain, &w.Slot}) // an own program's App has the workload's name
	}
	return all
}

// placedIn gives what is in a place its slots: those of before, or else free ones.
func placedIn(place string, before, now []slotted) {
	kept := map[string]int{}
	for _, s := range before {
		if s.place == place {
			kept[s.name] = *s.slot
		}
	}
	var names []string
	var slots []*int
	for _, s := range now {
		if s.place == place {
			names, slots = append(names, s.name), append(slots, s.slot)
		}
	}
	for i, free := range places(names, kept) {
		*slots[i] = free
	}
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

// fits returns nil when the lab can be laid out on a container network.
func (t Topology) fits(network netip.Prefix) error {
	switch {
	case network == netip.Prefix{}:
		return nil
	case !network.Addr().Is4() || network.Bits() > NetworkBits:
		return fmt.Errorf("network %s of lab %s: want an IPv4 prefix of /%d or wider", network, t.Name, NetworkBits)
	case len(t.Clusters) > MaxClusters:
		return fmt.Errorf("lab %s has %d clusters: at most %d fit into network %s", t.Name, len(t.Clusters), MaxClusters, network)
	case len(t.Clusters)+len(t.Hosts) > MaxClusters:
		return fmt.Errorf("lab %s has %d clusters and hosts: at most %d fit into network %s", t.Name, len(t.Clusters)+len(t.Hosts), MaxClusters, network)
	}
	return nil
}

// Containers returns the block that the container engine gives nodes and the
// gateway addresses from.
func Containers(network netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(block(network, 0), blockBits)
}

// Where the addresses of a cluster's, or a host's, pool begin for whom. The pool is a block of 256
// without its first and its last address.
//
// The addresses of the lab's web servers (Topology.discoveries) are those of servers, counted
// from the last one: a lab that has none keeps the addresses that it has.
const (
	firstServer   = 0
	lastDiscovery = firstWorkload - 1
	firstWorkload = 100
	poolSize      = 254
)

// How many there can be in one cluster: each has an address of its own. Of the servers'
// are those of the lab's web servers.
const (
	MaxServers   = firstWorkload - firstServer
	MaxWorkloads = poolSize - firstWorkload
)

// MaxReplicas is how many servers can share a datastore: each takes up to 20 of the 50
// connections that apps/postgres has.
const MaxReplicas = 2

// MaxMembers is how many clusters a trust domain can have. In the pod of its server
// runs a controller manager for each, with a port of its own.
const MaxMembers = 16

// pool returns the range of the i-th cluster or host; the zero value without a network.
func pool(network netip.Prefix, i int) Pool {
	if !network.IsValid() {
		return Pool{}
	}
	first := offset(block(network, i+1), 1)
	return Pool{First: first, Last: offset(first, poolSize-1)}
}

// at returns the n-th address of a pool; the zero value for no pool.
func (p Pool) at(n int) netip.Addr {
	if !p.First.IsValid() {
		return netip.Addr{}
	}
	return offset(p.First, n)
}

func block(network netip.Prefix, i int) netip.Addr {
	return offset(network.Masked().Addr(), i<<(32-blockBits))
}

func offset(addr netip.Addr, n int) netip.Addr {
	b := addr.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
	return netip.AddrFrom4(b)
}
