package docker

import (
	"fmt"
	"net/netip"
	"os"
	"syscall"
)

// routes returns the destinations that the kernel routes, without the default
// routes: those say "everything else".
func routes() ([]netip.Prefix, error) {
	rib, err := syscall.NetlinkRIB(syscall.RTM_GETROUTE, syscall.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("read routes: %w", os.NewSyscallError("netlink", err))
	}
	messages, err := syscall.ParseNetlinkMessage(rib)
	if err != nil {
		return nil, fmt.Errorf("parse routes: %w", os.NewSyscallError("netlink", err))
	}
	var found []netip.Prefix
	for _, m := range messages {
		if m.Header.Type != syscall.RTM_NEWROUTE {
			continue
		}
		attributes, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return nil, fmt.Errorf("parse route: %w", os.NewSyscallError("netlink", err))
		}
		// struct rtmsg of rtnetlink(7) starts with the family and the length
		// of the destination's prefix, one byte each.
		bits := int(m.Data[1])
		for _, a := range attributes {
			if a.Attr.Type != syscall.RTA_DST || bits == 0 {
				continue
			}
			if addr, ok := netip.AddrFromSlice(a.Value); ok {
				found = append(found, netip.PrefixFrom(addr, bits).Masked())
			}
		}
	}
	return found, nil
}
