package docker

import (
	"net/http"
	"net/netip"
	"slices"
	"testing"

	"github.com/moby/moby/api/types/network"
)

var (
	ours       = map[string]string{"dev.fedlab.lab": "quotes"}
	candidates = []netip.Prefix{
		netip.MustParsePrefix("10.192.0.0/18"),
		netip.MustParsePrefix("10.192.64.0/18"),
		netip.MustParsePrefix("10.192.128.0/18"),
	}
)

// firstBlock is a range for containers: the first /24 of a subnet.
func firstBlock(subnet netip.Prefix) netip.Prefix { return netip.PrefixFrom(subnet.Addr(), 24) }

func existing(id, name, subnet string, labels map[string]string) network.Summary {
	prefix := netip.MustParsePrefix(subnet)
	return network.Summary{Network: network.Network{
		ID: id, Name: name, Labels: labels,
		IPAM: network.IPAM{Config: []network.IPAMConfig{
			// An IPv6 subnet first, as kind's own network has it.
			{Subnet: netip.MustParsePrefix("fc00::/64")},
			{Subnet: prefix, IPRange: firstBlock(prefix)},
		}},
	}}
}

func TestEnsureNetwork(t *testing.T) {
	tests := map[string]struct {
		networks []network.Summary
		host     []netip.Prefix
		create   func(*engine, network.CreateRequest) int
		// subnet is where the network ends up, left the networks that remain.
		subnet string
		left   []string
		err    string
	}{
		"first candidate": {
			subnet: "10.192.0.0/18", left: []string{"new"},
		},
		"clear of docker networks and of this machine": {
			networks: []network.Summary{existing("k", "kind", "10.192.0.0/16", nil)},
			err: "create network lab: none of 3 subnets is free: 10.192.0.0/18 overlaps docker network kind (10.192.0.0/16); " +
				"10.192.64.0/18 overlaps docker network kind (10.192.0.0/16); 10.192.128.0/18 overlaps docker network kind (10.192.0.0/16)",
		},
		"second candidate": {
			networks: []network.Summary{existing("k", "kind", "10.192.2.0/24", nil)},
			host:     []netip.Prefix{netip.MustParsePrefix("10.192.128.7/32")},
			subnet:   "10.192.64.0/18", left: []string{"k", "new"},
		},
		"a route of this machine": {
			host:   []netip.Prefix{netip.MustParsePrefix("10.192.0.0/17")},
			subnet: "10.192.128.0/18", left: []string{"new"},
		},
		"a VPN for everything else": {
			host: []netip.Prefix{
				netip.MustParsePrefix("0.0.0.0/1"), netip.MustParsePrefix("128.0.0.0/1"), netip.MustParsePrefix("8.0.0.0/5"),
			},
			subnet: "10.192.0.0/18", left: []string{"new"},
		},
		"a VPN for the whole private range": {
			host: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
			err: "create network lab: none of 3 subnets is free: 10.192.0.0/18 overlaps an address or route of this machine (10.0.0.0/8); " +
				"10.192.64.0/18 overlaps an address or route of this machine (10.0.0.0/8); 10.192.128.0/18 overlaps an address or route of this machine (10.0.0.0/8)",
		},
		"it exists": {
			networks: []network.Summary{existing("old", "lab", "10.192.64.0/18", ours)},
			subnet:   "10.192.64.0/18", left: []string{"old"},
		},
		"a name that only contains ours is another network": {
			networks: []network.Summary{existing("x", "lab-2", "10.192.0.0/18", ours)},
			subnet:   "10.192.64.0/18", left: []string{"x", "new"},
		},
		"it exists and is somebody else's": {
			networks: []network.Summary{existing("old", "lab", "10.192.64.0/18", map[string]string{"dev.fedlab.lab": "other"})},
			err:      `network lab exists and is not ours: label dev.fedlab.lab is "other", want "quotes"`,
		},
		"it exists elsewhere": {
			networks: []network.Summary{existing("old", "lab", "172.18.0.0/16", ours)},
			err:      "network lab exists on subnet 172.18.0.0/16, which is none of those it may have",
		},
		"it exists with another range for containers": {
			networks: []network.Summary{{Network: network.Network{ID: "old", Name: "lab", Labels: ours, IPAM: network.IPAM{
				Config: []network.IPAMConfig{{Subnet: candidates[0]}},
			}}}},
			err: "network lab exists and gives containers addresses from 10.192.0.0/18, want 10.192.0.0/24",
		},
		"the engine refuses a subnet": {
			create: func(_ *engine, req network.CreateRequest) int {
				if req.IPAM.Config[0].Subnet == candidates[0] {
					return http.StatusForbidden
				}
				return http.StatusCreated
			},
			subnet: "10.192.64.0/18", left: []string{"new"},
		},
		"the engine refuses because another process was faster": {
			create: func(e *engine, _ network.CreateRequest) int {
				e.networks = append(e.networks, existing("theirs", "lab", "10.192.0.0/18", ours))
				return http.StatusForbidden
			},
			subnet: "10.192.0.0/18", left: []string{"theirs"},
		},
		"the engine knows the name already": {
			create: func(e *engine, _ network.CreateRequest) int {
				e.networks = append(e.networks, existing("theirs", "lab", "10.192.64.0/18", ours))
				return http.StatusConflict
			},
			subnet: "10.192.64.0/18", left: []string{"theirs"},
		},
		"two processes made it: the lower subnet stays": {
			networks: []network.Summary{existing("k", "kind", "10.192.0.0/18", nil)},
			create: func(e *engine, _ network.CreateRequest) int {
				e.networks = append(e.networks, existing("late", "lab", "10.192.128.0/18", ours))
				return http.StatusCreated
			},
			subnet: "10.192.64.0/18", left: []string{"k", "new"},
		},
		"two processes made it: we were late": {
			create: func(e *engine, req network.CreateRequest) int {
				if req.IPAM.Config[0].Subnet == candidates[0] {
					return http.StatusForbidden
				}
				e.networks = append(e.networks, existing("first", "lab", "10.192.0.0/18", ours))
				return http.StatusCreated
			},
			subnet: "10.192.0.0/18", left: []string{"first"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			e.networks, e.createNetwork = tt.networks, tt.create
			c := connect(t, e)
			c.occupied = func() ([]netip.Prefix, error) { return tt.host, nil }

			n, err := c.EnsureNetwork(t.Context(), "lab", ours, candidates, firstBlock)
			if message(err) != tt.err {
				t.Fatalf("error %q, want %q", message(err), tt.err)
			}
			if err != nil {
				return
			}
			want := netip.MustParsePrefix(tt.subnet)
			if n.Subnet != want || n.Containers != firstBlock(want) {
				t.Errorf("network on %s with containers in %s, want %s and %s", n.Subnet, n.Containers, want, firstBlock(want))
			}
			var left []string
			for _, n := range e.networks {
				left = append(left, n.ID)
			}
			if !slices.Equal(left, tt.left) {
				t.Errorf("networks left: %v, want %v", left, tt.left)
			}
		})
	}
}

func TestEnsureNetworkTakesOverMTU(t *testing.T) {
	e := newEngine(t)
	bridge := existing("b", "bridge", "172.17.0.0/16", nil)
	bridge.Options = map[string]string{mtuOption: "1400", "com.docker.network.bridge.name": "docker0"}
	e.networks = []network.Summary{bridge}
	if _, err := connect(t, e).EnsureNetwork(t.Context(), "lab", ours, candidates, firstBlock); err != nil {
		t.Fatal(err)
	}
	req := e.created.(network.CreateRequest)
	if req.Driver != "bridge" || len(req.Options) != 1 || req.Options[mtuOption] != "1400" {
		t.Errorf("asked for driver %q with options %v", req.Driver, req.Options)
	}
}

func TestRemoveNetwork(t *testing.T) {
	e := newEngine(t)
	e.networks = []network.Summary{
		existing("1", "lab", "10.192.0.0/18", ours),
		existing("2", "lab", "10.192.64.0/18", ours),
		existing("3", "lab-2", "10.192.128.0/18", ours),
	}
	c := connect(t, e)
	for range 2 {
		if err := c.RemoveNetwork(t.Context(), "lab"); err != nil {
			t.Fatal(err)
		}
	}
	if len(e.networks) != 1 || e.networks[0].ID != "3" {
		t.Errorf("networks left: %v", e.networks)
	}
}

func TestNetwork(t *testing.T) {
	e := newEngine(t)
	e.networks = []network.Summary{existing("1", "lab", "10.192.0.0/18", ours)}
	c := connect(t, e)
	if _, found, err := c.Network(t.Context(), "la"); found || err != nil {
		t.Errorf("la: found %t, error %v", found, err)
	}
	n, found, err := c.Network(t.Context(), "lab")
	if !found || err != nil || n.ID != "1" || n.Subnet != candidates[0] {
		t.Errorf("lab: %+v, found %t, error %v", n, found, err)
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
