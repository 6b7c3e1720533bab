package config

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// rule is something that several fields have to agree on.
type rule struct {
	says  string // as the reference page has it
	check func(*checker)
}

// rules is the table of what fields have to agree on. A later rule may count on
// what an earlier one has reported.
func rules() []rule {
	return []rule{
		{"Each cluster has a name of its own.", (*checker).clusterNames},
		{"kind calls a cluster's node `<lab>-<cluster>-control-plane`; that name has at most 63 characters, as host names have.", (*checker).nodeNames},
		{"Each cluster has a trust domain of its own. One trust domain over several clusters is not supported by this version.", (*checker).ownTrustDomain},
		{"Each entry of `trustDomains` is for another trust domain, and a cluster names that trust domain.", (*checker).settings},
		{"`svid.x509TTL` and `svid.jwtTTL` are at most a sixth of `ca.ttl`: SPIRE cuts longer lives short when it rotates the authority (its server warns about it at start), and then the file would not say what runs.", (*checker).lives},
		{"`bundleEndpoint.port` is not 8081, where the SPIRE server's own API listens.", (*checker).endpointPort},
		{"A relationship is between two different trust domains, and a cluster names each of them.", (*checker).relationshipEnds},
		{"Each direction of trust is written once, be it with `between` or with `from` and `to`.", (*checker).relationshipOnce},
		{"A trust domain trusts at most 50 others.", (*checker).trustedCount},
		{"Each workload has a name of its own.", (*checker).workloadNames},
		{"A workload runs on a cluster of the file, and an app runs once in a cluster: a second one would have the same SPIFFE ID.", (*checker).workloadPlace},
		{"Only an app that has a page is exposed, and each at an address and port of its own.", (*checker).exposed},
		{"`calls` names a workload of the app that the app calls; it has to be written where there are several.", (*checker).calls},
		{"Where a workload calls into another trust domain, both trust domains trust each other: with mutual TLS each side verifies the other.", (*checker).calledTrust},
	}
}

// checker applies the rules to a complete lab.
type checker struct {
	*reader
	lab Lab
}

// report adds a problem unless the field has one: one mistake, one message. A
// field that the file leaves out is reported where its object stands.
func (c *checker) report(path, cause, want string) {
	if !c.bad[path] {
		c.problem(nodeAt(c.nodes, path), path, cause, want)
	}
}

// sound reports whether nothing is wrong at path or below.
func (c *checker) sound(path string) bool {
	for bad := range c.bad {
		if rest, below := strings.CutPrefix(bad, path); below && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return false
		}
	}
	return true
}

// nodeAt returns the node of a path, or the nearest one that holds it.
func nodeAt(nodes map[string]*yaml.Node, path string) *yaml.Node {
	for nodes[path] == nil && path != "" {
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return nodes[path]
}

// names is what all things of one kind are called in the file.
type names struct {
	all []string
	// right are those of the right form, to choose from.
	right []string
	// partial says that some name is missing or unreadable, or none is right: a
	// name that is not among all need not be wrong.
	partial bool
}

// lack reports whether a name is certainly that of nothing.
func (n names) lack(name string) bool {
	return name != "" && !n.partial && !slices.Contains(n.all, name)
}

// clusters collects a field of all clusters.
func (c *checker) clusters(field string, of func(Cluster) string) names {
	n := names{partial: c.bad["spec.clusters"]}
	for i, cluster := range c.lab.Spec.Clusters {
		name := of(cluster)
		n.all = append(n.all, name)
		if !c.bad[clusterPath(i, field)] {
			n.right = append(n.right, name)
		}
		n.partial = n.partial || name == ""
	}
	n.partial = n.partial || len(n.right) == 0
	return n
}

func (c *checker) clusterNameList() names {
	return c.clusters("name", func(c Cluster) string { return c.Name })
}

func (c *checker) trustDomains() names {
	return c.clusters("trustDomain", func(c Cluster) string { return c.TrustDomain })
}

// The path of a field of the i-th entry of each list.

func clusterPath(i int, field string) string {
	return fmt.Sprintf("spec.clusters[%d].%s", i, field)
}

func settingsPath(i int, field string) string {
	return fmt.Sprintf("spec.trustDomains[%d].%s", i, field)
}

func workloadPath(i int, field string) string {
	return fmt.Sprintf("spec.workloads[%d].%s", i, field)
}
