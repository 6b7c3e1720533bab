package config

import (
	"cmp"
	"slices"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// spireVersions goes by what SPIRE supports (its doc/upgrading.md): an agent of the minor
// version of its server, or of the one before. Hosts run what is in every node, and up gives other clusters their
// agents before the server.
func (c *checker) spireVersions() {
	for i, td := range c.lab.Spec.TrustDomains {
		at := settingsPath(i, "spire")
		if c.bad[at] || td.SPIRE == (SPIRE{}) {
			continue
		}
		if h := slices.IndexFunc(c.lab.Spec.Hosts, func(h Host) bool { return h.TrustDomain == td.Name }); h >= 0 {
			c.report(at, "host "+quote(c.lab.Spec.Hosts[h].Name)+" is of this trust domain, and hosts run SPIRE "+topology.SPIREVersion+" alone", "remove the field, or the host")
			continue
		}
		if clusters := c.lab.Spec.clustersOf(td.Name); len(clusters) > 1 {
			c.report(at, "several clusters name this trust domain, and agents in those without its server would be replaced before it", "remove the field")
			continue
		}
		server, agent := cmp.Or(td.SPIRE.Version, topology.SPIREVersion), td.SPIRE.AgentVersion
		if agent != "" && !c.bad[at+".version"] && !c.bad[at+".agentVersion"] && !topology.OldEnough(agent, server) {
			c.report(at+".agentVersion", quote(agent)+" does not go with servers of version "+quote(server)+": SPIRE supports agents of the same minor version and of the one before", "write "+server)
		}
	}
}
