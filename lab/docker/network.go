package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// Network is a Docker network as it stands.
type Network struct {
	ID, Name string
	Labels   map[string]string
	// Subnet is the network's IPv4 subnet. Containers is the part of it that
	// Docker gives containers addresses from; both are invalid where Docker
	// keeps no IPv4 addresses for the network.
	Subnet, Containers netip.Prefix
}

// mtuOption is the bridge driver's option for the size of a packet.
const mtuOption = "com.docker.network.driver.mtu"

// Network finds the network of that name.
func (c *Client) Network(ctx context.Context, name string) (Network, bool, error) {
	all, err := c.networks(ctx)
	if err != nil {
		return Network{}, false, err
	}
	same := named(all, name)
	if len(same) == 0 {
		return Network{}, false, nil
	}
	return asNetwork(same[0]), true, nil
}

// Networks lists all networks.
func (c *Client) Networks(ctx context.Context) ([]Network, error) {
	all, err := c.networks(ctx)
	list := make([]Network, len(all))
	for i, n := range all {
		list[i] = asNetwork(n)
	}
	return list, err
}

// EnsureNetwork returns the network of that name, and makes it when there is
// none: a bridge with these labels on the first candidate that overlaps neither
// a Docker network nor an address or route of this machine. Docker gives
// containers addresses from containers(subnet); the rest is the caller's.
//
// A network that exists is returned as it is when it carries the labels and
// stands on a candidate with the same range for containers, and is an error
// otherwise. Several processes may call EnsureNetwork at once and get the same
// network, provided that candidates ascend: Docker before API 1.44 lets a name
// be taken twice, and then the network on the lower subnet stays, which is the
// one that was given its subnet first.
func (c *Client) EnsureNetwork(ctx context.Context, name string, labels map[string]string, candidates []netip.Prefix, containers func(netip.Prefix) netip.Prefix) (Network, error) {
	fits := func(n Network) error { return fits(n, labels, candidates, containers) }
	all, err := c.networks(ctx)
	if err != nil {
		return Network{}, err
	}
	if len(named(all, name)) > 0 {
		return c.settle(ctx, name, fits)
	}
	taken, err := c.taken(all)
	if err != nil {
		return Network{}, fmt.Errorf("choose subnet of network %s: %w", name, err)
	}

	var refused []string
	for _, subnet := range candidates {
		if i := slices.IndexFunc(taken, func(t occupant) bool { return t.prefix.Overlaps(subnet) }); i >= 0 {
			refused = append(refused, fmt.Sprintf("%s overlaps %s", subnet, taken[i]))
			continue
		}
		_, err := c.api.NetworkCreate(ctx, name, client.NetworkCreateOptions{
			Driver:  "bridge",
			Labels:  labels,
			IPAM:    &network.IPAM{Driver: "default", Config: []network.IPAMConfig{{Subnet: subnet, IPRange: containers(subnet)}}},
			Options: mtu(all),
		})
		switch {
		case err == nil, errdefs.IsConflict(err): // another process made it since the list was read
			return c.settle(ctx, name, fits)
		case errdefs.IsPermissionDenied(err):
			// What Docker answers when the subnet overlaps one that it knows
			// and that the list did not show: perhaps this very network, made
			// by another process.
			refused = append(refused, fmt.Sprintf("%s: %v", subnet, err))
			if _, found, err := c.Network(ctx, name); err != nil {
				return Network{}, err
			} else if found {
				return c.settle(ctx, name, fits)
			}
		default:
			return Network{}, c.failed(err, "create network %s on %s", name, subnet)
		}
	}
	return Network{}, &NoSubnetError{Network: name, Refused: refused}
}

// RemoveNetwork removes each network of that name; none is not an error.
// Docker refuses while containers are attached.
func (c *Client) RemoveNetwork(ctx context.Context, name string) error {
	all, err := c.networks(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range named(all, name) {
		errs = append(errs, c.removeNetwork(ctx, n))
	}
	return errors.Join(errs...)
}

func (c *Client) removeNetwork(ctx context.Context, n network.Summary) error {
	_, err := c.api.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{})
	return c.failed(unlessGone(err), "remove network %s (%.12s)", n.Name, n.ID)
}

// settle returns the one network of that name, and removes what a race with
// another process left next to it.
func (c *Client) settle(ctx context.Context, name string, fits func(Network) error) (Network, error) {
	all, err := c.networks(ctx)
	if err != nil {
		return Network{}, err
	}
	same := named(all, name)
	if len(same) == 0 {
		return Network{}, fmt.Errorf("network %s disappeared while it was being made", name)
	}
	for _, n := range same {
		if err := fits(asNetwork(n)); err != nil {
			return Network{}, err
		}
	}
	for _, late := range same[1:] {
		if err := c.removeNetwork(ctx, late); err != nil {
			return Network{}, err
		}
	}
	return asNetwork(same[0]), nil
}

func (c *Client) networks(ctx context.Context) ([]network.Summary, error) {
	list, err := c.api.NetworkList(ctx, client.NetworkListOptions{})
	return list.Items, c.failed(err, "list networks")
}

// named returns the networks of exactly that name, the lowest subnet first.
func named(all []network.Summary, name string) []network.Summary {
	var same []network.Summary
	for _, n := range all {
		if n.Name == name {
			same = append(same, n)
		}
	}
	slices.SortFunc(same, func(a, b network.Summary) int {
		return cmp.Or(asNetwork(a).Subnet.Addr().Compare(asNetwork(b).Subnet.Addr()), cmp.Compare(a.ID, b.ID))
	})
	return same
}

func asNetwork(n network.Summary) Network {
	found := Network{ID: n.ID, Name: n.Name, Labels: n.Labels}
	for _, pool := range n.IPAM.Config {
		if pool.Subnet.Addr().Is4() {
			found.Subnet, found.Containers = pool.Subnet, pool.IPRange
			if !found.Containers.IsValid() {
				found.Containers = pool.Subnet
			}
			return found
		}
	}
	return found
}

// fits says why an existing network cannot be used as the wanted one.
func fits(n Network, labels map[string]string, candidates []netip.Prefix, containers func(netip.Prefix) netip.Prefix) error {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if got, ok := n.Labels[k]; !ok || got != labels[k] {
			return fmt.Errorf("network %s exists and is not ours: label %s is %q, want %q", n.Name, k, got, labels[k])
		}
	}
	if !slices.Contains(candidates, n.Subnet) {
		return fmt.Errorf("network %s exists on subnet %s, which is none of those it may have", n.Name, n.Subnet)
	}
	if want := containers(n.Subnet); n.Containers != want {
		return fmt.Errorf("network %s exists and gives containers addresses from %s, want %s", n.Name, n.Containers, want)
	}
	return nil
}

// occupant is who uses a range of addresses.
type occupant struct {
	prefix netip.Prefix
	who    string
}

func (o occupant) String() string { return fmt.Sprintf("%s (%s)", o.who, o.prefix) }

// taken lists the ranges that a new network must stay clear of.
func (c *Client) taken(all []network.Summary) ([]occupant, error) {
	var taken []occupant
	for _, n := range all {
		for _, pool := range n.IPAM.Config {
			if pool.Subnet.IsValid() {
				taken = append(taken, occupant{pool.Subnet, "docker network " + n.Name})
			}
		}
	}
	own, err := c.occupied()
	for _, prefix := range own {
		if !everythingElse(prefix) {
			taken = append(taken, occupant{prefix, "an address or route of this machine"})
		}
	}
	return taken, err
}

// everythingElse reports whether a route is one of those that together say
// "everything else", as a VPN has them that leaves the default route in its place:
// 0.0.0.0/1 and 128.0.0.0/1, or smaller parts. No network of one's own is wider
// than the widest private range, 10.0.0.0/8.
func everythingElse(route netip.Prefix) bool { return route.Addr().Is4() && route.Bits() < 8 }

// NoSubnetError says that no subnet is left for a network.
type NoSubnetError struct {
	Network string
	// Refused says of each candidate what is in its way.
	Refused []string
}

func (e *NoSubnetError) Error() string {
	return fmt.Sprintf("create network %s: none of %d subnets is free: %s", e.Network, len(e.Refused), summary(e.Refused))
}

// occupied lists the subnets of this machine's interfaces and its routes.
func occupied() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list interface addresses: %w", err)
	}
	found, err := routes()
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			found = append(found, netip.PrefixFrom(p.Addr().Unmap(), p.Bits()).Masked())
		}
	}
	return found, nil
}

// mtu takes over the packet size of Docker's default bridge, which is how a
// machine behind a tunnel says that packets must be small.
func mtu(all []network.Summary) map[string]string {
	for _, n := range all {
		if size := n.Options[mtuOption]; n.Name == "bridge" && size != "" {
			return map[string]string{mtuOption: size}
		}
	}
	return nil
}

// summary shortens a list of reasons that are nearly the same.
func summary(reasons []string) string {
	const shown = 3
	if len(reasons) <= shown {
		return strings.Join(reasons, "; ")
	}
	return fmt.Sprintf("%s; and %d more", strings.Join(reasons[:shown], "; "), len(reasons)-shown)
}
