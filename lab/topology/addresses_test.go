package topology

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// lab returns a lab of n clusters, each with a trust domain and a workload.
func lab(n int) Topology {
	t := Topology{Name: "lab"}
	for i := range n {
		cluster := fmt.Sprintf("c%d", i)
		t.Clusters = append(t.Clusters, NewCluster(cluster, i))
		t.TrustDomains = append(t.TrustDomains, TrustDomain{
			Name: spiffeid.RequireTrustDomainFromString(cluster + ".test"), Cluster: cluster,
		})
		t.Workloads = append(t.Workloads, Workload{Name: "w" + cluster, App: Apps()[0], Cluster: cluster})
	}
	return t.Placed(Topology{})
}

// ranges collects address ranges by name and reports those that share addresses.
type ranges map[string][2]netip.Addr

func (r ranges) add(t *testing.T, name string, first, last netip.Addr) {
	t.Helper()
	if last.Less(first) {
		t.Errorf("%s ends at %s before it starts at %s", name, last, first)
	}
	for other, o := range r {
		if !last.Less(o[0]) && !o[1].Less(first) {
			t.Errorf("%s %s-%s overlaps %s %s-%s", name, first, last, other, o[0], o[1])
		}
	}
	r[name] = [2]netip.Addr{first, last}
}

func (r ranges) addPrefix(t *testing.T, name string, p netip.Prefix) {
	t.Helper()
	if p != p.Masked() {
		t.Errorf("%s %s has host bits", name, p)
	}
	r.add(t, name, p.Addr(), offset(p.Addr(), 1<<(32-p.Bits())-1))
}

// Whatever network the machine has free, no cluster's pods, Services or pool
// meet those of another cluster, the network of any lab, or the block that holds
// the nodes and the gateway.
func TestRangesAreDisjoint(t *testing.T) {
	clusters := ranges{}
	full := lab(MaxClusters)
	for _, c := range full.Clusters {
		clusters.addPrefix(t, c.Name+" pods", c.PodSubnet)
		clusters.addPrefix(t, c.Name+" services", c.ServiceSubnet)
	}
	for _, network := range NetworkCandidates() {
		if network.Bits() != NetworkBits || !network.Addr().IsPrivate() {
			t.Errorf("network %s is not a private /%d", network, NetworkBits)
		}
		clusters.addPrefix(t, "network "+network.String(), network)
	}
	for _, network := range []netip.Prefix{
		NetworkCandidates()[0], NetworkCandidates()[127], netip.MustParsePrefix("172.18.0.0/16"), netip.MustParsePrefix("192.168.0.0/18"),
	} {
		addresses, err := full.Addresses(network)
		if err != nil {
			t.Fatal(err)
		}
		inside := ranges{}
		containers := Containers(network)
		inside.addPrefix(t, "containers", containers)
		gateway := network.Addr().Next()
		if !containers.Contains(gateway) {
			t.Errorf("gateway %s is outside of the containers' block %s", gateway, containers)
		}
		for _, c := range full.Clusters {
			first, last, err := addresses.Pool(c.Name)
			if err != nil {
				t.Fatal(err)
			}
			inside.add(t, c.Name, first, last)
			if !network.Contains(first) || !network.Contains(last) {
				t.Errorf("pool %s-%s of %s is outside of network %s", first, last, c.Name, network)
			}
		}
	}
}

func TestAddressesLieInTheirPool(t *testing.T) {
	top := lab(MaxClusters)
	top.Workloads = append(top.Workloads, Workload{Name: "second", App: Apps()[1], Cluster: "c0"})
	top = top.Placed(lab(MaxClusters))
	addresses, err := top.Addresses(NetworkCandidates()[0])
	if err != nil {
		t.Fatal(err)
	}
	owner := map[netip.Addr]string{}
	own := func(name, cluster string, addr netip.Addr, err error) {
		if err != nil {
			t.Fatal(err)
		}
		if other, taken := owner[addr]; taken {
			t.Errorf("%s and %s have address %s", name, other, addr)
		}
		owner[addr] = name
		first, last, err := addresses.Pool(cluster)
		if err != nil {
			t.Fatal(err)
		}
		if addr.Less(first) || last.Less(addr) {
			t.Errorf("address %s of %s is outside of pool %s-%s", addr, name, first, last)
		}
	}
	for _, td := range top.TrustDomains {
		addr, err := addresses.Server(td)
		own(td.Name.Name(), td.Cluster, addr, err)
	}
	for _, w := range top.Workloads {
		addr, err := addresses.Workload(w)
		own(w.Name, w.Cluster, addr, err)
	}
}

// What stands in a lab keeps its address when the lab file grows at its start,
// and when something before it goes.
func TestAddressesAreStable(t *testing.T) {
	network := NetworkCandidates()[3]
	before := lab(3)
	before.Workloads = append(before.Workloads, Workload{Name: "last", App: Apps()[1], Cluster: "c1"})
	before = before.Placed(lab(3))
	after := lab(5)
	after.Clusters = append(after.Clusters[3:], after.Clusters[1]) // c3, c4, c1: c0 and c2 are gone
	after.Workloads = []Workload{{Name: "new", App: Apps()[0], Cluster: "c1"}, {Name: "last", App: Apps()[1], Cluster: "c1"}}
	after = after.Placed(before)

	old, err := before.Addresses(network)
	if err != nil {
		t.Fatal(err)
	}
	now, err := after.Addresses(network)
	if err != nil {
		t.Fatal(err)
	}
	kept, moved := before.Clusters[1], after.Clusters[2]
	if kept != moved {
		t.Errorf("cluster is %+v, was %+v", moved, kept)
	}
	for _, c := range after.Clusters[:2] {
		if want := map[string]int{"c3": 0, "c4": 2}[c.Name]; c.Index != want {
			t.Errorf("new cluster %s has place %d, want %d, which is free", c.Name, c.Index, want)
		}
	}
	was, err := old.Workload(before.Workloads[3])
	is, err2 := now.Workload(after.Workloads[1])
	if was != is || err != nil || err2 != nil {
		t.Errorf("workload moved from %s to %s (%v, %v)", was, is, err, err2)
	}
	if want := netip.MustParseAddr("10.192.194.102"); is != want {
		t.Errorf("got workload address %s, want %s", is, want)
	}
	server, err := now.Server(before.TrustDomains[1])
	if want := netip.MustParseAddr("10.192.194.1"); server != want {
		t.Errorf("got server address %s (%v), want %s", server, err, want)
	}
	if first := after.Workloads[0].Slot; first != 0 {
		t.Errorf("new workload has slot %d, want 0, which is free", first)
	}
}

func TestAddressesRefuse(t *testing.T) {
	tests := map[string]struct {
		topology Topology
		network  string
		want     string
	}{
		"narrow network":    {lab(1), "10.192.0.0/19", "network 10.192.0.0/19 of lab lab: want an IPv4 prefix of /18 or wider"},
		"IPv6 network":      {lab(1), "fd00::/18", "network fd00::/18 of lab lab: want an IPv4 prefix of /18 or wider"},
		"too many clusters": {lab(MaxClusters + 1), "10.192.0.0/18", "lab lab has 64 clusters: at most 63 fit into network 10.192.0.0/18"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := test.topology.Addresses(netip.MustParsePrefix(test.network))
			if err == nil || err.Error() != test.want {
				t.Errorf("got error %v, want %s", err, test.want)
			}
		})
	}
}

func TestAddressesOfStrangers(t *testing.T) {
	addresses, err := lab(1).Addresses(NetworkCandidates()[0])
	if err != nil {
		t.Fatal(err)
	}
	stranger := spiffeid.RequireTrustDomainFromString("stranger.test")
	tests := map[string]func() error{
		`lab lab has no cluster "market"`:               func() error { _, _, err := addresses.Pool("market"); return err },
		`lab lab has no trust domain "stranger.test"`:   func() error { _, err := addresses.Server(TrustDomain{Name: stranger, Cluster: "c0"}); return err },
		`lab lab has no cluster ""`:                     func() error { _, err := addresses.Server(TrustDomain{Name: stranger}); return err },
		`lab lab has no workload "stranger"`:            func() error { _, err := addresses.Workload(Workload{Name: "stranger", Cluster: "c0"}); return err },
		`lab lab has no cluster "stranger-of-stranger"`: func() error { _, err := addresses.Workload(Workload{Cluster: "stranger-of-stranger"}); return err },
	}
	for want, call := range tests {
		if err := call(); err == nil || err.Error() != want {
			t.Errorf("got error %v, want %s", err, want)
		}
	}
}

// TestNetworkCandidatesIn: a range of another kind is refused with what would be
// right.
func TestNetworkCandidatesIn(t *testing.T) {
	const want = ": want an IPv4 range of /18 or wider, such as 172.24.0.0/14"
	for text, tt := range map[string]struct {
		n           int
		first, last string
		err         string
	}{
		"172.24.0.0/14":  {16, "172.24.0.0/18", "172.27.192.0/18", ""},
		"172.24.5.7/18":  {1, "172.24.0.0/18", "172.24.0.0/18", ""},
		"192.168.0.0/16": {4, "192.168.0.0/18", "192.168.192.0/18", ""},
		"100.64.0.0/8":   {128, "100.0.0.0/18", "100.31.192.0/18", ""},
		"172.24.0.0/19":  {err: `FEDLAB_NETWORK_RANGE: "172.24.0.0/19" is not a range for networks` + want},
		"fd00::/8":       {err: `FEDLAB_NETWORK_RANGE: "fd00::/8" is not a range for networks` + want},
		"nonsense":       {err: `FEDLAB_NETWORK_RANGE: "nonsense" is not a range for networks` + want},
		"10.0.0.0/8":     {err: "FEDLAB_NETWORK_RANGE: 10.0.0.0/8 overlaps 10.64.0.0/10, which pods and Services of the clusters have" + want},
		"10.130.0.0/16":  {err: "FEDLAB_NETWORK_RANGE: 10.130.0.0/16 overlaps 10.128.0.0/10, which pods and Services of the clusters have" + want},
	} {
		got, err := NetworkCandidatesIn(text)
		switch {
		case tt.err != "":
			if err == nil || err.Error() != tt.err {
				t.Errorf("%s: error %v, want %s", text, err, tt.err)
			}
		case err != nil || len(got) != tt.n || got[0].String() != tt.first || got[len(got)-1].String() != tt.last:
			t.Errorf("%s: got %v, error %v", text, got, err)
		}
	}
}
