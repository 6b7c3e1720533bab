package docker

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/moby/moby/client"
)

// OutOfReachError says that no lab can run on an engine from this machine, mostly
// because the ports that the engine publishes on loopback are not on this machine.
type OutOfReachError struct{ Host, Cause string }

func (e *OutOfReachError) Error() string {
	return fmt.Sprintf("no lab can run on the docker engine at %s: %s", e.Host, e.Cause)
}

// elsewhereMeans is what follows from an engine that has another loopback than this
// process.
const elsewhereMeans = "and the ports that it publishes on loopback (the Kubernetes APIs and pages) are there and not here"

// Reach returns nil when the ports that the engine publishes on loopback are on this
// machine, as far as it can be told before there are any; else an [*OutOfReachError].
// The addresses of containers need not be reached from here. It starts nothing.
func (c *Client) Reach(ctx context.Context) error {
	own, err := c.addresses()
	if err != nil {
		return fmt.Errorf("list addresses of this machine: %w", err)
	}
	if cause := c.engine.elsewhere(ctx, own); cause != "" {
		return &OutOfReachError{Host: c.engine.Host, Cause: cause + ", " + elsewhereMeans}
	}
	version, err := c.api.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return c.failed(err, "ask docker engine what it is")
	}
	for _, part := range version.Components {
		if strings.Contains(part.Name, "Podman") {
			return &OutOfReachError{Host: c.engine.Host, Cause: "it is Podman, which answers in Docker's place, and a lab needs Docker itself"}
		}
	}
	if !c.contained() {
		return nil
	}
	around, err := c.around(ctx, own)
	if err == nil && around {
		err = &OutOfReachError{Host: c.engine.Host, Cause: "fedlab runs in a container and the engine outside of it, " + elsewhereMeans}
	}
	return err
}

// elsewhere says that an address leads to another machine.
func (e Engine) elsewhere(ctx context.Context, own []netip.Addr) string {
	address, err := url.Parse(e.Host)
	if err != nil || address.Hostname() == "" {
		return "" // a socket of this machine
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", address.Hostname())
	if err == nil && slices.ContainsFunc(found, func(a netip.Addr) bool { a = a.Unmap(); return a.IsLoopback() || slices.Contains(own, a) }) {
		return ""
	}
	return fmt.Sprintf("the engine runs on another machine, %s", address.Hostname())
}

// contained reports whether this process runs in a container of Docker's.
func contained() bool {
	_, err := os.Stat("/.dockerenv")
	return err == nil
}

// around reports whether the engine is outside of the network that this process has:
// its own bridge is none of the interfaces here. An engine that was started without a
// bridge says nothing about that.
func (c *Client) around(ctx context.Context, own []netip.Addr) (bool, error) {
	all, err := c.networks(ctx)
	if err != nil {
		return false, err
	}
	for _, n := range named(all, "bridge") {
		for _, pool := range n.IPAM.Config {
			if pool.Gateway.Is4() && !slices.Contains(own, pool.Gateway) {
				return true, nil
			}
		}
	}
	return false, nil
}

// addresses lists those of this machine's interfaces.
func addresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var own []netip.Addr
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, p.Addr().Unmap())
		}
	}
	return own, nil
}
