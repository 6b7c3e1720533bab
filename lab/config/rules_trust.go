package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

func (c *checker) clusterNames() {
	seen := map[string]bool{}
	for i, cluster := range c.lab.Spec.Clusters {
		if seen[cluster.Name] && cluster.Name != "" {
			c.report(clusterPath(i, "name"), "duplicate cluster "+quote(cluster.Name), "give each cluster a name of its own")
		}
		seen[cluster.Name] = true
	}
}

func (c *checker) nodeNames() {
	if c.bad["metadata.name"] {
		return
	}
	for i, cluster := range c.lab.Spec.Clusters {
		node := c.lab.Metadata.Name + "-" + cluster.Name + nodeSuffix
		if over := len(node) - maxNodeName; over > 0 {
			c.report(clusterPath(i, "name"),
				fmt.Sprintf("kind would call the node %s, which has %d characters", quote(node), len(node)),
				fmt.Sprintf("at most %d; make the name of the cluster or of the lab %d shorter", maxNodeName, over))
		}
	}
}

func (c *checker) namedOnce() {
	for i, cluster := range c.lab.Spec.Clusters {
		for j, td := range cluster.domains() {
			if td != "" && slices.Contains(cluster.domains()[:j], td) {
				c.report(fmt.Sprintf("%s[%d]", clusterPath(i, "trustDomains"), j), "trust domain "+quote(td)+" is there twice", "name each trust domain once")
			}
		}
	}
}

func (c *checker) memberCount() {
	counted := map[string]int{}
	for _, h := range c.homes() {
		if counted[h.trustDomain]++; counted[h.trustDomain] == topology.MaxMembers+1 && h.trustDomain != "" {
			c.report(h.path, fmt.Sprintf("this is cluster %d of trust domain %s", topology.MaxMembers+1, quote(h.trustDomain)), fmt.Sprintf("at most %d", topology.MaxMembers))
		}
	}
}

func (c *checker) serverClusters() {
	known := c.clusterNameList()
	for i, td := range c.lab.Spec.TrustDomains {
		path, clusters := settingsPath(i, "serverCluster"), c.lab.Spec.clustersOf(td.Name)
		at := slices.IndexFunc(c.lab.Spec.Clusters, func(other Cluster) bool { return other.Name == td.ServerCluster })
		switch {
		case known.lack(td.ServerCluster):
			c.report(path, "no cluster is called "+quote(td.ServerCluster), choose(td.ServerCluster, known.right))
		case at < 0 || len(clusters) == 0 || !c.sound(fmt.Sprintf("spec.clusters[%d]", at)):
			// What the cluster should name may be what is misspelt.
		case !slices.Contains(clusters, td.ServerCluster):
			c.report(path, "cluster "+quote(td.ServerCluster)+" does not name trust domain "+quote(td.Name), choose(td.ServerCluster, clusters))
		}
	}
}

func (c *checker) serverReplicas() {
	for i, td := range c.lab.Spec.TrustDomains {
		if c.lab.Spec.servedOnHost(td.Name) {
			continue // it has one server
		}
		if path := settingsPath(i, "serverReplicas"); td.ServerReplicas > 1 && !c.bad[path] && !c.bad[settingsPath(i, "datastore")] && td.Datastore != string(topology.Postgres) {
			c.report(path, "several servers cannot share a datastore of type "+quote(td.Datastore), "write datastore: postgres, or leave serverReplicas out")
		}
	}
}

func (c *checker) bundlePlugins() {
	for i, td := range c.lab.Spec.TrustDomains {
		if path := settingsPath(i, "bundlePlugin"); td.BundlePlugin != "" && !c.bad[path] && len(c.lab.Spec.clustersOf(td.Name)) == 1 {
			c.report(path, "only one cluster names trust domain "+quote(td.Name)+", and agents next to a SPIRE server always have its bundle by k8sbundle", "leave it out")
		}
	}
}

func (c *checker) nestedServers() {
	known := c.clusterNameList()
	for i, td := range c.lab.Spec.TrustDomains {
		if c.lab.Spec.servedOnHost(td.Name) {
			continue // it has none
		}
		clusters := c.lab.Spec.clustersOf(td.Name)
		below := slices.DeleteFunc(slices.Clone(clusters), func(name string) bool { return name == td.ServerCluster })
		for j, nested := range td.NestedServers {
			path := fmt.Sprintf("%s[%d]", settingsPath(i, "nestedServers"), j)
			at := slices.IndexFunc(c.lab.Spec.Clusters, func(other Cluster) bool { return other.Name == nested })
			switch {
			case slices.Contains(td.NestedServers[:j], nested) && nested != "":
				c.report(path, "cluster "+quote(nested)+" is there twice", "name each cluster once")
			case known.lack(nested):
				c.report(path, "no cluster is called "+quote(nested), choose(nested, known.right))
			case at < 0 || len(clusters) == 0 || !c.sound(fmt.Sprintf("spec.clusters[%d]", at)):
				// What the cluster should name may be what is misspelt.
			case !slices.Contains(clusters, nested) && len(clusters) == 1:
				c.report(path, "cluster "+quote(nested)+" does not name trust domain "+quote(td.Name), "name the trust domain in that cluster, too")
			case !slices.Contains(clusters, nested):
				c.report(path, "cluster "+quote(nested)+" does not name trust domain "+quote(td.Name), choose(nested, below))
			case len(clusters) == 1:
				c.report(path, "cluster "+quote(nested)+" is the only one of trust domain "+quote(td.Name), "name the trust domain in a further cluster, or remove nestedServers")
			case nested == td.ServerCluster && !c.bad[settingsPath(i, "serverCluster")]:
				c.report(path, "cluster "+quote(nested)+" has the server that the others are nested below", "leave it out, or write another serverCluster")
			}
		}
	}
}

func (c *checker) replicasOrNested() {
	for i, td := range c.lab.Spec.TrustDomains {
		if td.ServerReplicas > 1 && len(td.NestedServers) > 0 && !c.bad[settingsPath(i, "nestedServers")] {
			c.report(settingsPath(i, "serverReplicas"), "a trust domain with nestedServers has one replica of each server", "remove serverReplicas, or remove nestedServers")
		}
	}
}

func (c *checker) settings() {
	known, seen := c.trustDomains(), map[string]bool{}
	for i, td := range c.lab.Spec.TrustDomains {
		path := settingsPath(i, "name")
		switch {
		case td.Name == "":
		case seen[td.Name]:
			c.report(path, "duplicate trust domain "+quote(td.Name), "put all its settings into one entry")
		case known.lack(td.Name):
			c.report(path, "no cluster names trust domain "+quote(td.Name), choose(td.Name, known.right))
		}
		seen[td.Name] = true
	}
}

func (c *checker) lives() {
	for i, td := range c.lab.Spec.TrustDomains {
		if c.bad[settingsPath(i, "ca.ttl")] {
			continue
		}
		most := longestSVID(td.CA.TTL)
		check := func(field string, ttl Duration) {
			if ttl > most {
				c.report(settingsPath(i, field),
					fmt.Sprintf("%s is longer than a sixth of ca.ttl, which is %s", ttl, td.CA.TTL),
					fmt.Sprintf("at most %s, or a ca.ttl of %s", most, ttl*svidsPerCA))
			}
		}
		check("svid.x509TTL", td.SVID.X509TTL)
		check("svid.jwtTTL", td.SVID.JWTTTL)
	}
}

func (c *checker) endpointPort() {
	for i, td := range c.lab.Spec.TrustDomains {
		if td.BundleEndpoint.Port == serverPort {
			c.report(settingsPath(i, "bundleEndpoint.port"),
				fmt.Sprintf("port %d is that of the SPIRE server's own API", serverPort),
				fmt.Sprintf("write another, such as %d", defaultPort))
		}
	}
}

func (c *checker) endpointHosts() {
	first := map[string]int{}
	for i, td := range c.lab.Spec.TrustDomains {
		host, path := td.BundleEndpoint.Host, settingsPath(i, "bundleEndpoint.host")
		switch other, twice := first[host]; {
		case host == "" || c.bad[path]:
		case twice:
			c.report(path, fmt.Sprintf("DNS name %s is that of %s already", quote(host), settingsPath(other, "bundleEndpoint.host")), "give each endpoint a name of its own")
		case host == topology.ACMEHost:
			c.report(path, quote(host)+" is the name of the lab's ACME server", "write another name")
		case host == clusterZone || strings.HasSuffix(host, "."+clusterZone):
			c.report(path, "in each cluster "+quote(host)+" is a name of its own", "write a name outside of "+clusterZone)
		default:
			first[host] = i
		}
	}
}

// clusterZone is where the DNS of a cluster has the names of its own Services (Kubernetes,
// "DNS for Services and Pods").
const clusterZone = "cluster.local"

func (c *checker) httpsWeb() {
	for i, td := range c.lab.Spec.TrustDomains {
		endpoint := settingsPath(i, "bundleEndpoint")
		path := endpoint + ".httpsWeb"
		if c.bad[endpoint] || c.bad[endpoint+".profile"] || c.bad[path] || c.bad[path+".servingCert"] || c.bad[path+".acme"] {
			continue
		}
		switch web := td.BundleEndpoint.HTTPSWeb; {
		case td.BundleEndpoint.Profile != string(topology.HTTPSWeb):
			if web != nil {
				c.report(path, "httpsWeb is for profile https_web, and the profile is "+td.BundleEndpoint.Profile, "write profile: https_web, or remove httpsWeb")
			}
		case web == nil:
			if !c.misread(endpoint) {
				c.report(path, "missing, and the profile is https_web", "add "+withServingCert+", or "+withACME)
			}
		case web.ServingCert == nil && web.ACME == nil && !c.misread(path):
			c.report(path, "neither servingCert nor acme", "write "+withServingCert+", or "+withACME)
		case web.ServingCert != nil && web.ACME != nil:
			c.report(path, "servingCert and acme exclude each other", "keep one of the two")
		}
	}
}

// servingCerts calls do for each trust domain that has a serving certificate,
// with the path of that.
func (c *checker) servingCerts(do func(path string, cert ServingCert)) {
	for i, td := range c.lab.Spec.TrustDomains {
		if web := td.BundleEndpoint.HTTPSWeb; web != nil && web.ServingCert != nil {
			do(settingsPath(i, "bundleEndpoint.httpsWeb.servingCert"), *web.ServingCert)
		}
	}
}

func (c *checker) shortIntervals() {
	c.servingCerts(func(path string, cert ServingCert) {
		if cert.FileSyncInterval < minFileSync && !*cert.ShortIntervals && !c.bad[path+".shortIntervals"] {
			c.report(path+".fileSyncInterval", fmt.Sprintf("%s is shorter than %s", cert.FileSyncInterval, minFileSync),
				fmt.Sprintf("%s to %s (%d to %d seconds), or add shortIntervals: true", minFileSync, maxFileSync, seconds(minFileSync), seconds(maxFileSync)))
		}
	})
}

func (c *checker) acme() {
	first := -1
	for i, td := range c.lab.Spec.TrustDomains {
		web, endpoint := td.BundleEndpoint.HTTPSWeb, settingsPath(i, "bundleEndpoint")
		if web == nil || web.ACME == nil {
			continue
		}
		path, acme := endpoint+".httpsWeb.acme", *web.ACME
		if acme.TOSAccepted != nil && !*acme.TOSAccepted {
			c.report(path+".tosAccepted", "the terms of service are not accepted, and SPIRE orders nothing", "write true, or use servingCert")
		}
		if replicas := settingsPath(i, "serverReplicas"); td.ServerReplicas > 1 && !c.bad[replicas] {
			c.report(replicas, "the bundle endpoint has acme, and the ACME server may look for a proof at the server that has not ordered", "write 1, or use servingCert")
		}
		if acme.DomainName != "" && td.BundleEndpoint.Host != acme.DomainName && !c.bad[path+".domainName"] {
			c.report(endpoint+".host", fmt.Sprintf("the certificate is for %s, and peers ask for %s", quote(acme.DomainName), quote(td.BundleEndpoint.Host)), "write the same name in both, or leave out host")
		}
		if first < 0 {
			first = i
			continue
		}
		other := c.lab.Spec.TrustDomains[first].BundleEndpoint
		routed := td.BundleEndpoint.Route != ""
		switch {
		case routed != (other.Route != "") && !c.bad[endpoint+".route"]:
			with := "without"
			if other.Route != "" {
				with = "with"
			}
			c.report(endpoint+".route", fmt.Sprintf("the endpoint of %s has acme, too, %s a proxy at port %d: the lab's ACME server looks for all names at one port", quote(c.lab.Spec.TrustDomains[first].Name), with, topology.ProxyPort), "write route in both, or in none of them")
		case !routed && td.BundleEndpoint.Port != other.Port && !c.bad[endpoint+".port"]:
			c.report(endpoint+".port", fmt.Sprintf("the endpoint of %s has acme, too, and port %d: the lab's ACME server looks for all names at one port", quote(c.lab.Spec.TrustDomains[first].Name), other.Port), fmt.Sprintf("write %d in both", other.Port))
		}
		if acme.TTL != other.HTTPSWeb.ACME.TTL && !c.bad[path+".ttl"] {
			c.report(path+".ttl", fmt.Sprintf("certificates of %s live for %s: the lab's ACME server issues for one life", quote(c.lab.Spec.TrustDomains[first].Name), other.HTTPSWeb.ACME.TTL), "write the same in both")
		}
	}
}

func (c *checker) routes() {
	for i, td := range c.lab.Spec.TrustDomains {
		endpoint, e := settingsPath(i, "bundleEndpoint"), td.BundleEndpoint
		if c.bad[endpoint] || c.misread(endpoint) {
			continue
		}
		switch routed := e.Route != "" && !c.bad[endpoint+".route"]; {
		case routed && c.lab.Spec.servedOnHost(td.Name):
			c.report(endpoint+".route", "the SPIRE server of "+td.Name+" is on host "+quote(c.lab.Spec.hostsOf(td.Name)[0])+", where no proxy runs", "remove the field")
		case routed && e.Host == "" && !c.bad[endpoint+".host"]:
			c.report(endpoint+".host", "missing, and a proxy finds the endpoint by its name: route is "+e.Route, "add host, such as bundle."+td.Name)
		}
		if e.Path != "" && e.Route != string(topology.Reencrypt) && !c.bad[endpoint+".path"] && !c.bad[endpoint+".route"] {
			c.report(endpoint+".path", "a SPIRE server serves its bundle at the path / only, and without reencrypt nothing takes away the path in the URL", "write route: reencrypt, or remove path")
		}
	}
}

func (c *checker) reencrypts() {
	for i, td := range c.lab.Spec.TrustDomains {
		endpoint, e := settingsPath(i, "bundleEndpoint"), td.BundleEndpoint
		if e.Route != string(topology.Reencrypt) || c.bad[endpoint] || c.lab.Spec.servedOnHost(td.Name) {
			continue
		}
		switch web := e.HTTPSWeb; {
		case e.Profile == string(topology.HTTPSSPIFFE):
			c.report(endpoint+".route", "with https_spiffe a peer has to see the X509-SVID of the SPIRE server, and a proxy that ends TLS shows its own certificate", "write passthrough, or profile: https_web and "+withServingCert)
		case e.Profile == string(topology.HTTPSWeb) && web != nil && web.ACME != nil:
			c.report(endpoint+".route", "with acme the SPIRE server proves by a TLS handshake (TLS-ALPN-01) that it has the name, and that handshake would end at the proxy", "write passthrough, or "+withServingCert)
		}
	}
}

// reservedSecrets are those that fedlab makes next to a SPIRE server.
var reservedSecrets = []string{"spire-web-ca", "spire-endpoint-ca", "spire-upstream-authority", "spire-kubeconfigs", "spire-server-token", "spire-database-login"}

func (c *checker) ownCertificates() {
	for i, td := range c.lab.Spec.TrustDomains {
		web := td.BundleEndpoint.HTTPSWeb
		if web == nil || web.ServingCert == nil {
			continue
		}
		path, cert := settingsPath(i, "bundleEndpoint.httpsWeb.servingCert"), *web.ServingCert
		written := false
		for _, f := range []struct{ field, text, example string }{
			{"externalSecretRef", cert.ExternalSecretRef, "spire-server-federation-tls"}, {"cert", cert.Cert, "./tls.crt"}, {"key", cert.Key, "./tls.key"}, {"ca", cert.CA, "./ca.crt"},
		} {
			written = written || f.text != ""
			if f.text == "" && (cert.ExternalSecretRef+cert.Cert+cert.Key+cert.CA) != "" && !c.misread(path) {
				c.report(path+"."+f.field, "missing, and the certificate is one of your own", "add "+f.field+", such as "+f.example+", or leave out externalSecretRef, cert, key and ca")
			}
		}
		switch {
		case !written:
		case cert.TTL != 0 && c.nodes[path+".ttl"] != nil:
			c.report(path+".ttl", "ttl is the life of a certificate that the lab issues", "remove it: the file in cert says how long the certificate lives")
		case td.BundleEndpoint.Host == "" && !c.misread(settingsPath(i, "bundleEndpoint")):
			c.report(settingsPath(i, "bundleEndpoint.host"), "missing, and the certificate is one of your own", "add host, with a DNS name that the certificate is for")
		}
		if slices.Contains(reservedSecrets, cert.ExternalSecretRef) {
			c.report(path+".externalSecretRef", "the Secret "+cert.ExternalSecretRef+" is one that fedlab makes itself", "write another name, such as spire-server-federation-tls")
		}
	}
}

func seconds(d Duration) int { return int(d / Duration(time.Second)) }

func (c *checker) servingCertLife() {
	c.servingCerts(func(path string, cert ServingCert) {
		if c.bad[path+".fileSyncInterval"] || cert.TTL == 0 {
			return
		}
		if cert.FileSyncInterval*renewedAtThird < cert.TTL {
			return
		}
		longest := (cert.TTL - 1) / renewedAtThird / Duration(time.Second) * Duration(time.Second)
		want := fmt.Sprintf("at least %s, or a fileSyncInterval of at most %s", cert.FileSyncInterval*renewedAtThird+Duration(time.Second), longest)
		if longest < minFileSync && !*cert.ShortIntervals {
			want += " with shortIntervals: true"
		}
		c.report(path+".ttl", fmt.Sprintf("the certificate is renewed when a third of %s remains, and the server reads it each %s only", cert.TTL, cert.FileSyncInterval), want)
	})
}

func federationPath(i int) string { return fmt.Sprintf("spec.federation[%d]", i) }

func (r relationship) path() string { return federationPath(r.entry) }

func (c *checker) relationshipEnds() {
	known := c.trustDomains()
	end := func(path, td string) {
		if known.lack(td) {
			c.report(path, "no cluster has trust domain "+quote(td), choose(td, known.right))
		}
	}
	for i, f := range c.lab.Spec.Federation {
		path := federationPath(i)
		end(path+".from", f.From)
		end(path+".to", f.To)
		for j, td := range f.Between {
			end(fmt.Sprintf("%s.between[%d]", path, j), td)
		}
		for j, td := range f.Of {
			if c.nodes[path+".of"] != nil {
				end(fmt.Sprintf("%s.of[%d]", path, j), td)
			}
		}
		for j, branch := range f.Branches {
			for k, td := range branch {
				end(fmt.Sprintf("%s.branches[%d][%d]", path, j, k), td)
			}
		}
	}
	for _, r := range c.relationships {
		if bareName(r.truster) == bareName(r.trusted) {
			c.report(r.path(), "trust domain "+quote(bareName(r.truster))+" federates with itself",
				"name two different ones; its own SVIDs a trust domain verifies anyway")
		}
	}
}

func (c *checker) shapes() {
	for i, f := range c.lab.Spec.Federation {
		path := federationPath(i)
		written := c.nodes[path+".of"] != nil
		switch {
		case c.bad[path]:
		case f.Shape == "":
			if written && !c.bad[path+".shape"] {
				c.report(path+".of", "of is there without shape", "remove it, or write a shape in the place of the other names")
			}
		case f.Shape == tree:
		case c.bad[path+".of"] || !written && (c.misread(path) || !c.sound("spec.clusters")):
		default:
			c.shape(path, f)
		}
	}
}

func (c *checker) trees() {
	for i, f := range c.lab.Spec.Federation {
		path := federationPath(i)
		written, of := c.nodes[path+".branches"] != nil, c.nodes[path+".of"] != nil
		switch {
		case c.bad[path] || c.bad[path+".shape"]:
		case f.Shape != tree && written:
			c.report(path+".branches", "branches are there without shape: tree", "remove them, or write shape: tree in the place of the other names")
		case f.Shape != tree:
		case of:
			c.report(path+".of", "a tree is told by branches", "write branches, each the trust domain above and those below it: [[root, child, other child], [child, grandchild]]")
		case !written && !c.misread(path):
			c.report(path+".branches", "a tree without branches", "add branches, each the trust domain above and those below it: [[root, child, other child], [child, grandchild]]")
		default:
			c.tree(path+".branches", f.Branches)
		}
	}
}

func (c *checker) tree(path string, branches [][]string) {
	in := map[string]bool{}
	for j, branch := range branches {
		for k, td := range branch {
			at := fmt.Sprintf("%s[%d][%d]", path, j, k)
			switch first := j == 0 && k == 0; {
			case td == "":
			case k > 0 && in[td]:
				c.report(at, "trust domain "+quote(td)+" has a place in the tree already", "write each trust domain once below another; a tree has no circle")
			case k == 0 && !first && !in[td] && c.sound(path):
				c.report(at, "trust domain "+quote(td)+" is in no branch before this one", "begin the branch with one that is, or move the branch")
			}
			in[td] = true
		}
	}
}

func (c *checker) shape(path string, f Federation) {
	for j, td := range f.Of {
		if td != "" && slices.Contains(f.Of[:j], td) {
			c.report(fmt.Sprintf("%s.of[%d]", path, j), "trust domain "+quote(td)+" is there twice", "name each trust domain once")
		}
	}
	switch n := len(f.Of); {
	case n < 2:
		c.report(path+".shape", fmt.Sprintf("a %s of %d trust domain", f.Shape, n), "add a cluster with another trust domain, or remove the entry")
	case f.Shape == pairs && n%2 == 1:
		c.report(path+".of", fmt.Sprintf("%s of %d trust domains leave one over", f.Shape, n), "write an even number of them")
	}
}

// relationshipOnce asks the entries themselves: of two shapes that cover one
// direction, only the first has it among the relationships.
func (c *checker) relationshipOnce() {
	byName, byShape := map[direction]int{}, map[direction]int{}
	for i, f := range c.lab.Spec.Federation {
		first, want := byName, "write each direction once; between stands for both"
		if f.Shape != "" {
			first, want = byShape, `list in "of" which trust domains each shape is for, so that none covers what another does`
		}
		path := federationPath(i)
		for _, d := range f.directions() {
			switch entry, twice := first[d]; {
			case !twice:
				first[d] = i
			case !c.bad[path]: // or a mesh is worded once for each of its directions
				c.report(path, fmt.Sprintf("%s trusts %s by %s already", quote(d.truster), quote(d.trusted), federationPath(entry)), want)
			}
		}
	}
}

func (c *checker) relationshipModes() {
	entries := map[string]map[topology.Mode]int{}
	for _, r := range c.relationships {
		if c.lab.Spec.servedOnHost(r.truster) || !c.sound(r.path()) {
			continue
		}
		by := entries[r.truster]
		if by == nil {
			by = map[topology.Mode]int{}
			entries[r.truster] = by
		}
		mode := c.lab.Spec.mode(r)
		if _, there := by[mode]; !there {
			by[mode] = r.entry
		}
		crd, hasCRD := by[topology.CRD]
		api, hasAPI := by[topology.API]
		if (mode == topology.CRD || mode == topology.API) && hasCRD && hasAPI {
			c.report(federationPath(api)+".mode", fmt.Sprintf("%s trusts %s by api, and others by crd (%s): its controller manager would delete what is made by api",
				quote(r.truster), quote(c.trustedBy(r.truster, api)), federationPath(crd)), "write the same mode for all that "+quote(r.truster)+" trusts by crd or api")
		}
	}
}

// trustedBy returns the first whom a truster trusts by an entry.
func (c *checker) trustedBy(truster string, entry int) string {
	i := slices.IndexFunc(c.relationships, func(r relationship) bool { return r.truster == truster && r.entry == entry })
	return c.relationships[i].trusted
}

func (c *checker) trustedCount() {
	trusted := map[string]int{}
	for _, r := range c.relationships {
		if trusted[r.truster]++; trusted[r.truster] == maxTrusted+1 {
			c.report(r.path(), fmt.Sprintf("this is trust domain %d that %s trusts", maxTrusted+1, quote(r.truster)),
				fmt.Sprintf("at most %d", maxTrusted))
		}
	}
}

func (c *checker) relationshipProfile() {
	if !c.sound("spec.trustDomains") {
		return // the endpoint's profile may be what is misspelt there
	}
	for _, r := range c.relationships {
		written, endpoint := c.lab.Spec.Federation[r.entry].Profile, c.lab.Spec.endpointProfile(r.trusted)
		if written != "" && endpoint != "" && written != endpoint {
			c.report(r.path()+".profile", fmt.Sprintf("the bundle endpoint of %s has profile %s", quote(r.trusted), endpoint),
				"leave the field out; what the profile is, bundleEndpoint of that trust domain says")
		}
	}
}

func (c *checker) endpointID() {
	for i, f := range c.lab.Spec.Federation {
		if f.EndpointSPIFFEID == "" {
			continue
		}
		path, id := federationPath(i)+".endpointSpiffeId", f.EndpointSPIFFEID
		switch {
		case c.bad[federationPath(i)]:
		case f.To == "":
			c.report(path, "endpointSpiffeId is that of one endpoint", "leave it out, or write from and to for each direction")
		case c.sound("spec.trustDomains") && c.lab.Spec.endpointProfile(f.To) == string(topology.HTTPSWeb):
			c.report(path, "endpointSpiffeId is for profile https_spiffe, and the bundle endpoint of "+quote(f.To)+" has https_web", "remove the field")
		case c.bad[federationPath(i)+".to"] || id == serverID(f.To):
		case !strings.HasPrefix(id, "spiffe://"+f.To+"/"):
			c.report(path, quote(id)+" is not in trust domain "+quote(f.To), fmt.Sprintf("write %q, or leave the field out", serverID(f.To)))
		default:
			c.report(path, quote(id)+" is not what the endpoint of a SPIRE server presents", fmt.Sprintf("write %q, or leave the field out", serverID(f.To)))
		}
	}
}
