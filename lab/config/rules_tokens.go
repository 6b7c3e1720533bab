package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// dnsName is what a host of an issuer must be: the OIDC discovery provider refuses capital
// letters (SPIRE support/oidc-discovery-provider/domain_policy.go), and a certificate has
// room for no other form.
var dnsName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+$`)

// discovered calls do for each trust domain with oidcDiscovery whose jwtIssuer is a URL.
func (c *checker) discovered(do func(i int, td TrustDomain, issuer *url.URL)) {
	for i, td := range c.lab.Spec.TrustDomains {
		at := settingsPath(i, "jwtIssuer")
		if td.OIDCDiscovery == nil || td.JWTIssuer == "" || c.bad[at] || c.bad[settingsPath(i, "oidcDiscovery")] {
			continue
		}
		issuer, err := url.Parse(td.JWTIssuer)
		if err != nil {
			c.report(at, quote(td.JWTIssuer)+" is no URL: "+err.Error(), "write one such as https://oidc."+td.Name)
			continue
		}
		do(i, td, issuer)
	}
}

func (c *checker) discoveryIssuers() {
	for i, td := range c.lab.Spec.TrustDomains {
		if at := settingsPath(i, "oidcDiscovery"); td.OIDCDiscovery != nil && td.JWTIssuer == "" && !c.bad[at] && !c.misread(at) && !c.bad[settingsPath(i, "jwtIssuer")] {
			c.report(at, "trust domain "+quote(td.Name)+" has no jwtIssuer whose documents could be served", "add jwtIssuer, such as https://oidc."+td.Name+", or remove the field")
		}
	}
	c.discovered(func(i int, td TrustDomain, issuer *url.URL) {
		at, host := settingsPath(i, "jwtIssuer"), issuer.Hostname()
		_, notAddress := netip.ParseAddr(host)
		port, err := strconv.ParseUint(issuer.Port(), 10, 16)
		switch {
		case notAddress == nil:
			c.report(at, quote(host)+" is an address, and with oidcDiscovery the issuer is found by its name", "write a name, such as https://oidc."+td.Name)
		case !dnsName.MatchString(host) || len(host) > 253:
			c.report(at, quote(host)+" is no DNS name of small letters with a dot in it, by which oidcDiscovery could be found", "write one such as https://oidc."+td.Name)
		case strings.HasSuffix("."+host, ".cluster.local"):
			c.report(at, quote(host)+" is a name of Kubernetes, which each cluster has for itself", "write another, such as https://oidc."+td.Name)
		case issuer.Port() != "" && (err != nil || port == 0):
			c.report(at, "port "+issuer.Port()+" is none", "1 to 65535, or leave the port out, which is 443")
		case issuer.Path != "" && path.Clean(issuer.Path) != strings.TrimSuffix(issuer.Path, "/") && issuer.Path != "/":
			c.report(at, "the path "+quote(issuer.Path)+" is not what a server is asked for", "write it without empty parts, dots alone and double dots: "+path.Clean(issuer.Path))
		}
	})
}

func (c *checker) discoveryHosts() {
	first := map[string]string{}
	for i, td := range c.lab.Spec.TrustDomains {
		first[td.BundleEndpoint.Host] = settingsPath(i, "bundleEndpoint.host")
	}
	c.discovered(func(i int, td TrustDomain, issuer *url.URL) {
		host := issuer.Hostname()
		if host == topology.ACMEHost {
			c.report(settingsPath(i, "jwtIssuer"), quote(host)+" is the name of the lab's ACME server", "write another, such as https://oidc."+td.Name)
			return
		}
		at, twice := first[host]
		if !twice {
			first[host] = settingsPath(i, "jwtIssuer")
			return
		}
		c.report(settingsPath(i, "jwtIssuer"), fmt.Sprintf("%s is the host of %s already, and a name has one address", quote(host), at), "give each issuer with oidcDiscovery a host of its own, such as https://oidc."+td.Name)
	})
}

func (c *checker) discoveryCount() {
	if !c.sound("spec.clusters") {
		return
	}
	taken := map[string]int{}
	for _, h := range c.homes() {
		taken[h.cluster]++
	}
	for i, td := range c.lab.Spec.TrustDomains {
		clusters := c.lab.Spec.clustersOf(td.Name)
		if len(clusters) == 0 {
			continue
		}
		in := clusters[0]
		if td.ServerCluster != "" {
			in = td.ServerCluster
		}
		take := func(path string) {
			if taken[in]++; taken[in] == topology.MaxServers+1 {
				c.report(path, fmt.Sprintf("cluster %s has %d trust domains, OIDC discovery providers and proxies", quote(in), taken[in]), fmt.Sprintf("at most %d in all: each has an address", topology.MaxServers))
			}
		}
		if td.OIDCDiscovery != nil {
			take(settingsPath(i, "oidcDiscovery"))
		}
		if td.BundleEndpoint.Route != "" {
			take(settingsPath(i, "bundleEndpoint.route"))
		}
	}
}
