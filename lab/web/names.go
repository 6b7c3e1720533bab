package web

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Names are the host names of a page, besides localhost. As a flag they are a list
// with commas.
type Names []string

func (n Names) String() string { return strings.Join(n, ",") }

// Set replaces the names.
func (n *Names) Set(text string) error {
	*n = nil
	for name := range strings.SplitSeq(text, ",") {
		name = strings.TrimSpace(name)
		if name == "" || strings.ContainsAny(name, ":/ ") {
			return errors.New("want host names without ports, such as frontend,frontend.fedlab.svc")
		}
		*n = append(*n, strings.ToLower(name))
	}
	return nil
}

// has reports whether a request for this host, as its header names it, is for the
// page.
func (n Names) has(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return host == "localhost" || slices.Contains(n, host)
}

// or goes on with a list of hosts.
func (n Names) or() string {
	if len(n) == 0 {
		return ""
	}
	return ", or as " + strings.Join(n, ", ")
}
