package docker

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
)

// OutOfReachError says that an engine answers and that this machine cannot
// connect to the addresses of its containers.
type OutOfReachError struct{ Host, Cause string }

func (e *OutOfReachError) Error() string {
	return fmt.Sprintf("containers of the docker engine at %s cannot be reached from here: %s", e.Host, e.Cause)
}

// Reach returns nil when this machine can connect to the addresses of the
// engine's containers, as far as the engine says where it runs; else an
// [*OutOfReachError]. It starts nothing.
func (c *Client) Reach(ctx context.Context) error {
	own, err := c.addresses()
	if err != nil {
		return fmt.Errorf("list addresses of this machine: %w", err)
	}
	if cause := c.engine.elsewhere(ctx, own); cause != "" {
		return &OutOfReachError{Host: c.engine.Host, Cause: cause}
	}
	info, err := c.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return c.failed(err, "ask docker engine what it is")
	}
	version, err := c.api.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return c.failed(err, "ask docker engine what it is")
	}
	cause := enclosed(info.Info, version)
	if cause == "" && !routed(info.Info) {
		if cause, err = c.bridged(ctx, own); err != nil {
			return err
		}
	}
	if cause != "" {
		return &OutOfReachError{Host: c.engine.Host, Cause: cause}
	}
	return nil
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

// enclosed says that an engine keeps its networks to itself, by what it says about
// itself.
func enclosed(info system.Info, version client.ServerVersionResult) string {
	for _, c := range version.Components {
		if strings.Contains(c.Name, "Podman") {
			return "the engine is Podman, which answers in Docker's place; a lab needs Docker itself"
		}
	}
	for _, option := range info.SecurityOptions {
		if strings.HasPrefix(option, "name=rootless") {
			return "it is a rootless Docker, whose networks are in a namespace of their own"
		}
	}
	if strings.Contains(info.OperatingSystem, "Docker Desktop") {
		return "it is Docker Desktop, whose containers run in a virtual machine"
	}
	return ""
}

// routed tells whether an engine in a virtual machine leads the machine around
// it to its containers.
func routed(info system.Info) bool { return strings.Contains(info.OperatingSystem, "OrbStack") }

// bridged looks for the engine's own bridge among the interfaces of this
// machine. An engine that was started without one says nothing about that.
func (c *Client) bridged(ctx context.Context, own []netip.Addr) (string, error) {
	all, err := c.networks(ctx)
	if err != nil {
		return "", err
	}
	for _, n := range named(all, "bridge") {
		for _, pool := range n.IPAM.Config {
			if pool.Gateway.Is4() && !slices.Contains(own, pool.Gateway) {
				return fmt.Sprintf("its bridge has the address %s, which is not one of this machine: the engine runs in a virtual machine, or outside of the container that fedlab runs in", pool.Gateway), nil
			}
		}
	}
	return "", nil
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
