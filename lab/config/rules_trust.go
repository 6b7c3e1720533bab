package config

import "fmt"

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

func (c *checker) ownTrustDomain() {
	owner := map[string]string{}
	for i, cluster := range c.lab.Spec.Clusters {
		td := cluster.TrustDomain
		if first, taken := owner[td]; taken && td != "" {
			c.report(clusterPath(i, "trustDomain"),
				fmt.Sprintf("cluster %s has trust domain %s already, and one trust domain over several clusters%s", quote(first), quote(td), notSupported),
				"give each cluster a trust domain of its own")
			continue
		}
		owner[td] = cluster.Name
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

// relationship is one direction that the file asks for, with the entry that
// asks for it.
type relationship struct {
	direction
	entry int
}

func (r relationship) path() string { return fmt.Sprintf("spec.federation[%d]", r.entry) }

// relationships returns what the file asks for, in its order, without entries
// that are not written out.
func (c *checker) relationships() []relationship {
	var all []relationship
	for i, f := range c.lab.Spec.Federation {
		for _, d := range f.directions() {
			if d.truster != "" && d.trusted != "" {
				all = append(all, relationship{d, i})
			}
		}
	}
	return all
}

func (c *checker) relationshipEnds() {
	known := c.trustDomains()
	end := func(path, td string) {
		if known.lack(td) {
			c.report(path, "no cluster has trust domain "+quote(td), choose(td, known.right))
		}
	}
	for i, f := range c.lab.Spec.Federation {
		path := relationship{entry: i}.path()
		end(path+".from", f.From)
		end(path+".to", f.To)
		for j, td := range f.Between {
			end(fmt.Sprintf("%s.between[%d]", path, j), td)
		}
	}
	for _, r := range c.relationships() {
		if r.truster == r.trusted {
			c.report(r.path(), "trust domain "+quote(r.truster)+" federates with itself",
				"name two different ones; its own SVIDs a trust domain verifies anyway")
		}
	}
}

func (c *checker) relationshipOnce() {
	first := map[direction]int{}
	for _, r := range c.relationships() {
		if entry, twice := first[r.direction]; twice {
			c.report(r.path(), fmt.Sprintf("%s trusts %s by spec.federation[%d] already", quote(r.truster), quote(r.trusted), entry),
				"write each direction once; between stands for both")
			continue
		}
		first[r.direction] = r.entry
	}
}

func (c *checker) trustedCount() {
	trusted := map[string]int{}
	for _, r := range c.relationships() {
		if trusted[r.truster]++; trusted[r.truster] == maxTrusted+1 {
			c.report(r.path(), fmt.Sprintf("this is trust domain %d that %s trusts", maxTrusted+1, quote(r.truster)),
				fmt.Sprintf("at most %d", maxTrusted))
		}
	}
}
