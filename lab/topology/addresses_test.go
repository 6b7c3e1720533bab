package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// lab returns a lab of n clusters, each with a trust domain and a workload.
func lab(n int) Topology {
	t := Topology{Name: "lab"}
	for i := range n {
		cluster := fmt.Sprintf("c%d", i)
		t.Clusters = append(t.Clusters, NewCluster(cluster, i))
		t.TrustDomains = append(t.TrustDomains, TrustDomainSpec{
			Name: spiffeid.RequireTrustDomainFromString(cluster + ".test"), Cluster: cluster,
		})
		t.Workloads = append(t.Workloads, WorkloadSpec{Name: "w" + cluster, App: stock()[0], Cluster: cluster})
	}
	return t.Placed(Topology{})
}

// resolve makes the graph of a lab, which must be one.
func resolve(t *testing.T, top Topology, network netip.Prefix) *Graph {
	t.Helper()
	g, err := Resolve(top, network)
	if err != nil {
		t.Fatal(err)
	}
	return g
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
		inside := ranges{}
		containers := Containers(network)
		inside.addPrefix(t, "containers", containers)
		gateway := network.Addr().Next()
		if !containers.Contains(gateway) {
			t.Errorf("gateway %s is outside of the containers' block %s", gateway, containers)
		}
		for _, c := range resolve(t, full, network).Clusters {
			inside.add(t, c.Name, c.Pool.First, c.Pool.Last)
			if !network.Contains(c.Pool.First) || !network.Contains(c.Pool.Last) {
				t.Errorf("pool %s of %s is outside of network %s", c.Pool, c.Name, network)
			}
		}
	}
}

func TestAddressesLieInTheirPool(t *testing.T) {
	top := lab(MaxClusters)
	top.Workloads = append(top.Workloads, WorkloadSpec{Name: "second", App: stock()[1], Cluster: "c0"})
	top = top.Placed(lab(MaxClusters))
	top.TrustDomains[1].Slot, top.Workloads[1].Slot = MaxServers-1, MaxWorkloads-1
	g := resolve(t, top, NetworkCandidates()[0])
	owner := map[netip.Addr]string{}
	own := func(name string, c *Cluster, addr netip.Addr) {
		if other, taken := owner[addr]; taken {
			t.Errorf("%s and %s have address %s", name, other, addr)
		}
		owner[addr] = name
		if addr.Less(c.Pool.First) || c.Pool.Last.Less(addr) {
			t.Errorf("address %s of %s is outside of pool %s", addr, name, c.Pool)
		}
	}
	for _, s := range g.Servers() {
		own(s.Domain.String(), s.Place.Cluster, s.Address)
	}
	for _, w := range g.Workloads {
		own(w.Name, w.Cluster(), w.Address)
	}
	if len(owner) != 2*MaxClusters+1 {
		t.Errorf("%d addresses, want one of each server and workload", len(owner))
	}
}

// What is in a lab keeps its address when the lab file grows at its start,
// and when something before it goes.
func TestAddressesAreStable(t *testing.T) {
	network := NetworkCandidates()[3]
	before := lab(3)
	before.Workloads = append(before.Workloads, WorkloadSpec{Name: "last", App: stock()[1], Cluster: "c1"})
	before = before.Placed(lab(3))
	after := lab(5)
	after.Clusters = append(after.Clusters[3:], after.Clusters[1]) // c3, c4, c1: c0 and c2 are gone
	after.TrustDomains = append(after.TrustDomains[3:], after.TrustDomains[1])
	after.Workloads = []WorkloadSpec{{Name: "new", App: stock()[0], Cluster: "c1"}, {Name: "last", App: stock()[1], Cluster: "c1"}}
	after = after.Placed(before)

	kept, moved := before.Clusters[1], after.Clusters[2]
	if kept != moved {
		t.Errorf("cluster is %+v, was %+v", moved, kept)
	}
	for _, c := range after.Clusters[:2] {
		if want := map[string]int{"c3": 0, "c4": 2}[c.Name]; c.Index != want {
			t.Errorf("new cluster %s has place %d, want %d, which is free", c.Name, c.Index, want)
		}
	}
	old, now := resolve(t, before, network), resolve(t, after, network)
	was, is := old.Workloads[3].Address, now.Workloads[1].Address
	if was != is {
		t.Errorf("workload moved from %s to %s", was, is)
	}
	if want := netip.MustParseAddr("10.192.194.102"); is != want {
		t.Errorf("got workload address %s, want %s", is, want)
	}
	server := now.Clusters[2].Servers[0].Address
	if want := netip.MustParseAddr("10.192.194.1"); server != want {
		t.Errorf("got server address %s, want %s", server, want)
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
			_, err := Resolve(test.topology, netip.MustParsePrefix(test.network))
			if err == nil || err.Error() != test.want {
				t.Errorf("got error %v, want %s", err, test.want)
			}
		})
	}
}

// Servers of one cluster keep their addresses, whichever of them comes or goes.
func TestServersOfOneClusterKeepTheirSlots(t *testing.T) {
	network := NetworkCandidates()[0]
	domain := func(name string) TrustDomainSpec {
		return TrustDomainSpec{Name: spiffeid.RequireTrustDomainFromString(name), Cluster: "c0"}
	}
	before := lab(1)
	before.TrustDomains = []TrustDomainSpec{domain("a.test"), domain("b.test"), domain("c.test")}
	before.Workloads = nil
	before = before.Placed(Topology{})
	after := before
	after.TrustDomains = []TrustDomainSpec{domain("new.test"), domain("c.test"), domain("b.test"), domain("newer.test")}
	after = after.Placed(before)
	for name, want := range map[string]string{
		"new.test": "10.192.1.1", "c.test": "10.192.1.3", "b.test": "10.192.1.2", "newer.test": "10.192.1.4",
	} {
		d, err := resolve(t, after, network).FindDomain(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Server().Address.String(); got != want {
			t.Errorf("server of %s has the address %s, want %s", name, got, want)
		}
	}
}

// OIDC discovery providers have addresses of their own, from the other end of those of
// servers, and keep them, whichever of them comes or goes.
func TestDiscoveriesKeepTheirAddresses(t *testing.T) {
	network := NetworkCandidates()[0]
	domain := func(name, issuer string) TrustDomainSpec {
		td := TrustDomainSpec{Name: spiffeid.RequireTrustDomainFromString(name), Cluster: "c0"}
		if td.JWTIssuer = issuer; issuer != "" {
			td.OIDCDiscovery.PollInterval = time.Second
		}
		return td
	}
	before := lab(1)
	before.Workloads = nil
	before.TrustDomains = []TrustDomainSpec{domain("a.test", "https://a.test"), domain("b.test", ""), domain("c.test", "https://c.test:8443/x/")}
	before = before.Placed(Topology{})
	after := before
	after.TrustDomains = []TrustDomainSpec{domain("new.test", "https://new.test"), domain("c.test", "https://c.test:8443/x/"), domain("b.test", "https://b.test/"), domain("a.test", "")}
	after = after.Placed(before)
	g := resolve(t, after, network)
	for name, want := range map[string]Discovery{
		"new.test": {Host: "new.test", Port: 443, Address: netip.MustParseAddr("10.192.1.100")}, // that of a.test
		"c.test":   {Host: "c.test", Port: 8443, Path: "/x", Address: netip.MustParseAddr("10.192.1.99")},
		"b.test":   {Host: "b.test", Port: 443, Address: netip.MustParseAddr("10.192.1.98")},
	} {
		d, err := g.FindDomain(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := *d.Discovery; got.Host != want.Host || got.Port != want.Port || got.Path != want.Path || got.Address != want.Address || got.Place() != d.Server().Place {
			t.Errorf("the provider of %s is %+v, want %+v", name, got, want)
		}
	}
	if c, err := g.FindDomain("c.test"); err != nil || c.Discovery.Keys() != "https://c.test:8443/x/keys" || c.Discovery.Configuration() != "https://c.test:8443/x/.well-known/openid-configuration" {
		t.Errorf("the documents of c.test are at %s and %s, %v", c.Discovery.Keys(), c.Discovery.Configuration(), err)
	}
	if got := len(g.Discoveries()); got != 3 {
		t.Errorf("%d providers, want 3", got)
	}
	for _, td := range before.TrustDomains {
		was, err := resolve(t, before, network).FindDomain(td.Name.Name())
		is, gone := g.FindDomain(td.Name.Name())
		if err != nil || gone != nil || was.Server().Address != is.Server().Address {
			t.Errorf("the server of %s has moved: %v, %v", td.Name, err, gone)
		}
	}

	// Servers that came and went may have left no address for it.
	after.TrustDomains[1].DiscoverySlot, after.TrustDomains[2].Slot = 1, MaxServers-2
	if _, err := Resolve(after, network); err == nil || err.Error() != "cluster c0 of lab lab has no address left for the OIDC discovery provider of c.test" {
		t.Errorf("error %v", err)
	}
	after.TrustDomains[2].JWTIssuer = "https://[b"
	if _, err := Resolve(after, network); err == nil || !strings.HasPrefix(err.Error(), `trust domain b.test: issuer "https://[b": `) {
		t.Errorf("error %v", err)
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

// Proxies in front of bundle endpoints have addresses of their own next to those of OIDC
// discovery providers, and keep them. Peers find a proxy by the name of the endpoint.
func TestProxiesKeepTheirAddresses(t *testing.T) {
	network := NetworkCandidates()[0]
	domain := func(name string, route Route, issuer string) TrustDomainSpec {
		td := TrustDomainSpec{Name: spiffeid.RequireTrustDomainFromString(name), Cluster: "c0"}
		td.BundleEndpoint = BundleEndpoint{Host: "bundle." + name, Port: 8443, Route: route}
		if td.JWTIssuer = issuer; issuer != "" {
			td.OIDCDiscovery.PollInterval = time.Second
		}
		return td
	}
	before := lab(1)
	before.Workloads = nil
	before.TrustDomains = []TrustDomainSpec{domain("a.test", Passthrough, "https://a.test"), domain("b.test", "", ""), domain("c.test", Reencrypt, "")}
	before = before.Placed(Topology{})
	after := before
	after.TrustDomains = []TrustDomainSpec{domain("new.test", Passthrough, ""), domain("c.test", Passthrough, ""), domain("b.test", Reencrypt, ""), domain("a.test", "", "https://a.test")}
	after = after.Placed(before)
	g := resolve(t, after, network)
	names := map[string]netip.Addr{}
	for _, name := range g.Names() {
		names[name.Host] = name.Address
	}
	for name, want := range map[string]string{"new.test": "10.192.1.99", "c.test": "10.192.1.98", "b.test": "10.192.1.97", "a.test": "10.192.1.1"} {
		d, err := g.FindDomain(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Server().PublicAddress(); got.String() != want || names["bundle."+name] != got {
			t.Errorf("peers of %s ask %s, and its name comes to %s, want %s", name, got, names["bundle."+name], want)
		}
		if port := d.BundleEndpoint.PublicPort(); port == ProxyPort == (d.Proxy == nil) {
			t.Errorf("peers of %s ask port %d", name, port)
		}
		if d.Proxy != nil && (d.Proxy.EndsTLS() != (name == "b.test") || d.Proxy.Place() != d.Server().Place) {
			t.Errorf("the proxy of %s is %+v", name, d.Proxy)
		}
	}
	if got := after.OptionalPrograms(); !slices.Contains(got, HAProxy) {
		t.Errorf("optional programs %q, want %s among them", got, HAProxy)
	}
	after.TrustDomains[2].Slot = MaxServers - 2
	if _, err := Resolve(after, network); err == nil || err.Error() != "cluster c0 of lab lab has no address left for the proxy of new.test" {
		t.Errorf("error %v", err)
	}
}
