package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// rule is something that several fields have to agree on.
type rule struct {
	says  string // as the reference page has it
	check func(*checker)
}

// rules is the table of what fields have to agree on. A later rule may count on
// what an earlier one has reported.
func (a apps) rules() []rule {
	return []rule{
		{"Each cluster has a name of its own.", (*checker).clusterNames},
		{"kind calls a cluster's node `<lab>-<cluster>-control-plane`; that name has at most 63 characters, as host names have.", (*checker).nodeNames},
		{"Each host has a name of its own, which is that of no cluster, and none that one of its containers would share: not `<cluster>-control-plane`, nor `<other host>-agent`, `-server` or `-run-…`.", (*checker).hosts},
		{"A lab has at most " + strconv.Itoa(topology.MaxClusters) + " clusters and hosts together.", (*checker).placeCount},
		{"A cluster names each of its trust domains once.", (*checker).namedOnce},
		{"At most " + strconv.Itoa(topology.MaxMembers) + " clusters name one trust domain: next to its SPIRE server runs a controller manager for each of them.", (*checker).memberCount},
		{"`serverCluster` is a cluster that names the trust domain.", (*checker).serverClusters},
		{"`serverReplicas` is above 1 only with `datastore: postgres`.", (*checker).serverReplicas},
		{"`bundlePlugin` is there only where several clusters name the trust domain.", (*checker).bundlePlugins},
		{"Each of `nestedServers` is a cluster that names the trust domain, once, and not the one where the server is that they are nested below.", (*checker).nestedServers},
		{"`serverReplicas` is above 1 only without `nestedServers`.", (*checker).replicasOrNested},
		{"A trust domain that no cluster names, and a host does, has its SPIRE server on that host: with `sqlite`, an `https_spiffe` endpoint, one server, no `upstreamAuthority`, and without `serverCluster`, `nestedServers`, `bundlePlugin` and `oidcDiscovery`.", (*checker).hostServers},
		{"`spire` is for trust domains of one cluster, without hosts, and its `agentVersion` is of the minor version of `version`, or of the one before.", (*checker).spireVersions},
		{"Each entry of `trustDomains` is for another trust domain, and a cluster or a host names that trust domain.", (*checker).settings},
		{"`svid.x509TTL` and `svid.jwtTTL` are at most a sixth of `ca.ttl`: SPIRE cuts longer lives short when it rotates the authority (its server warns about it at start), and then the file would not say what runs.", (*checker).lives},
		{"`ca.ttl` is at least six times the life of the X509-SVIDs of each app that runs there, for the same reason. They live as long as `svid.x509TTL` says, except those of " + a.lives() + ".", (*checker).appLives},
		{"The trust domain of a workload of " + a.listed(hasName) + " is a host name, without `_` and with at most 63 characters between two dots: it is part of the app's DNS names, and SPIRE refuses an entry with one that is none.", (*checker).hostNames},
		{"`bundleEndpoint.port` is not 8081, where the SPIRE server's own API listens.", (*checker).endpointPort},
		{"`bundleEndpoint.host` is that of one trust domain alone, and not below `cluster.local`, where each cluster has its own names.", (*checker).endpointHosts},
		{"`httpsWeb` is there with profile `https_web`, and only with it. In it is `servingCert` or `acme`; the two exclude each other.", (*checker).httpsWeb},
		{"With `acme`, `bundleEndpoint.host` is `domainName`, if written, `tosAccepted` is `true`, and `serverReplicas` is 1: a server proves by itself that it has the name, and each connection to the endpoint may come to another one. All endpoints of the lab with `acme` have the same `port` and the same `ttl`: the lab has one ACME server, which looks for all names at one port, which is that of the proxy where there is `route`.", (*checker).acme},
		{"`route` is there with `bundleEndpoint.host`, and where the SPIRE server is in a cluster. `path` is there with `route: reencrypt`.", (*checker).routes},
		{"`route: reencrypt` is for an `https_web` endpoint without `acme`. A proxy that ends TLS shows a certificate of its own, and no peer sees the X509-SVID of the SPIRE server, by which `https_spiffe` knows the endpoint (SPIFFE Federation, section 5.2.2); and TLS-ALPN-01 is a TLS handshake, which would end at the proxy.", (*checker).reencrypts},
		{"`externalSecretRef`, `cert`, `key` and `ca` of a `servingCert` are there together, with `bundleEndpoint.host` and without `ttl`: the life of the certificate is what its file says, and only a name is known before the lab is up. The Secret is none that fedlab makes itself.", (*checker).ownCertificates},
		{"`fileSyncInterval` is 1h to 2160h (3600 to 7776000 seconds), or shorter where `shortIntervals: true` says so.", (*checker).shortIntervals},
		{"`fileSyncInterval` is shorter than a third of `servingCert.ttl`: the certificate is renewed when a third of its life remains, and the SPIRE server has to read the new one before the old one ends.", (*checker).servingCertLife},
		{"`oidcDiscovery` is there only with `jwtIssuer`, whose host is then a DNS name of small letters with a dot in it, no address and no name of Kubernetes, whose port, if written, is 1 to 65535, and whose path has no empty parts and no dots alone.", (*checker).discoveryIssuers},
		{"No two trust domains with `oidcDiscovery` have the same host in `jwtIssuer`, and no such host is a `bundleEndpoint.host` or `" + topology.ACMEHost + "`, the name of the lab's ACME server.", (*checker).discoveryHosts},
		{"In one cluster are at most " + strconv.Itoa(topology.MaxServers) + " trust domains, `oidcDiscovery` and `route` together: each has an address.", (*checker).discoveryCount},
		{"A relationship is between two different trust domains, and a cluster or a host names each of them.", (*checker).relationshipEnds},
		{"A shape is of at least two trust domains, each named once, and `pairs` of an even number. `of` is there with `shape` only.", (*checker).shapes},
		{"`branches` is there with `shape: tree`, and only with it, in the place of `of`. Each branch but the first begins with a trust domain of a branch before it; all others of a branch are in no branch before it.", (*checker).trees},
		{"Each direction of trust is written once, be it with `between` or with `from` and `to`. Of entries with a `shape`, no two cover the same direction; an entry with `between`, or with `from` and `to`, takes a direction out of a shape, to give it a mode of its own.", (*checker).relationshipOnce},
		{"`profile` of a relationship, if written, is the profile of the trusted side's `bundleEndpoint`, in each direction that the entry stands for.", (*checker).relationshipProfile},
		{"`endpointSpiffeId`, if written, is `spiffe://<to>/spire/server`, which an endpoint of SPIRE presents. It is there with `from` and `to` only, and only where the profile is `https_spiffe`: an `https_web` endpoint has no SPIFFE ID.", (*checker).endpointID},
		{"Of one truster no relationship has mode `crd` and another `api`: a controller manager that makes relationships deletes all that it did not make.", (*checker).relationshipModes},
		{"A trust domain trusts at most 50 others.", (*checker).trustedCount},
		{"Each workload has a name of its own.", (*checker).workloadNames},
		{"No workload is called `probe-<trust domain>` after a trust domain of the file: so scenarios call the probe that they run for it. The workloads of " + a.listed(a.behindPaths) + " are not called as a path that an app which calls them answers itself: `" + strings.Join(a.paths(), "`, `") + "`.", (*checker).reservedNames},
		{"A workload without `host` runs in a cluster of the file, of at most " + strconv.Itoa(topology.MaxWorkloads) + " workloads. It belongs to the trust domain of that cluster; where there are several, it names one of them.", (*checker).workloadPlace},
		{"A workload with `host` runs on a host of the file, of at most " + strconv.Itoa(topology.MaxWorkloads) + " workloads, and belongs to the trust domain of that host.", (*checker).workloadHost},
		{"On a host run apps that have no database and no optional program next to them, and of whose identity nothing is only there with a pod: " + a.listed(fitsHost) + ". They are not exposed.", (*checker).hostApps},
		{"An app runs once on a host, and once for each trust domain of a cluster: a second one would have the same SPIFFE ID.", (*checker).workloadOnce},
		{"A program of your own has a `name`, which is that of no app, and an `identity`, in a namespace that fedlab, Kubernetes and the apps do not use. `values` is there with `chart` only; `images`, `identity`, `port` and `check` only with `chart` or `manifests`.", (*checker).ownPrograms},
		{"In one trust domain of a cluster no two programs of your own have the same namespace and service account: the pods of both would get both identities.", (*checker).ownAccounts},
		{"`identity.ttl` is at most a sixth of `ca.ttl` of the workload's trust domain.", (*checker).ownLives},
		{"`identity.path` comes to the path of a SPIFFE ID. A template knows `.TrustDomain`, `.PodMeta.Namespace` and `.PodSpec.ServiceAccountName`.", (*checker).ownPaths},
		{"`check` has a port, its own or that of the workload. `check.as` is a trust domain of the lab that trusts the workload's own and whose SPIRE server is in a cluster, and needs `port`.", (*checker).ownChecks},
		{"`identity.federatesWith` names trust domains that the workload's own trusts.", (*checker).ownFederates},
		{"Each registration has a name of its own, which is that of no workload and not `probe-<trust domain>`.", (*checker).registrationNames},
		{"`entryPrefix` is not `" + topology.OwnEntryPrefix + "`, with which the IDs of fedlab's own entries begin, and is the name of none of several clusters of the trust domain, whose controller managers have those prefixes. A trust domain whose SPIRE server is on a host has none.", (*checker).entryPrefixes},
		{"A registration is of a trust domain that a cluster or a host names, and `cluster` is a cluster of that. In the cluster of a `clusterStaticEntry` and of an `entry` is a SPIRE server of the trust domain. Where that is on a host, a registration is an `entry`, without `cluster`.", (*checker).registrationPlaces},
		{"`entry` is for a trust domain that has `entryPrefix`, or whose SPIRE server is on a host: elsewhere the controller manager deletes it within seconds.", (*checker).entriesStay},
		{"`spiffeID` and `parentID` are in the trust domain of the registration, and are not the same. The path of `spiffeID` is not below `/spire`.", (*checker).registrationIDs},
		{"The templates of a `clusterSPIFFEID` are Go templates without functions of their own, as the controller manager reads them.", (*checker).registrationTemplates},
		{"`spiffeIDTemplate` begins with `spiffe://{{ .TrustDomain }}/`, or with the trust domain itself.", (*checker).templateDomains},
		{"The lives that a registration asks for are at most a sixth of `ca.ttl` of its trust domain.", (*checker).registrationLives},
		{"`federatesWith` of a registration names trust domains that its own trusts, and not its own.", (*checker).registrationFederates},
		{"Within one trust domain no two workloads or registrations have the same SPIFFE ID, in one cluster or in two, unless the later one names the first one in `replicaOf`. In two trust domains the same path makes two IDs. Templates are compared where they do not depend on a pod.", (*checker).spiffeIDs},
		{"`replicaOf` names a workload or registration that has the same SPIFFE ID and is no replica itself. A workload with `host` has none.", (*checker).replicas},
		{"`databaseTLS` is for " + a.listed(verifiesDatabase) + ".", (*checker).databaseTLS},
		{"`legacyDatabase` is for " + a.listed(borrowsDatabase) + ", where a workload of " + a.listed(lendsDatabase) + " calls it.", (*checker).legacyDatabase},
		{"Only an app that has a page is exposed, and each at an address and port of its own.", (*checker).exposed},
		{"`calls` names workloads of the apps that the workload's app calls, each once. Without it a workload calls all of them that it can; only " + a.listed(callsOne) + ", which calls one, has to say which where there are several. Each of " + a.listed(needsCall) + " needs somebody to call.", (*checker).calls},
		{"Where a workload calls into another trust domain, both trust domains trust each other: with mutual TLS each side verifies the other.", (*checker).calledTrust},
	}
}

// checker applies the rules to a complete lab.
type checker struct {
	*reader
	apps apps
	lab  Lab
	// relationships and trust are those of the lab.
	relationships []relationship
	trust         trust
}

// report adds a problem unless the field has one: one mistake, one message. A
// field that the file leaves out is reported where its object stands.
func (c *checker) report(path, cause, want string) {
	if !c.bad[path] {
		c.problem(nodeAt(c.nodes, path), path, cause, want)
	}
}

// again reports a problem that says more than what is wrong with the field's form alone.
func (c *checker) again(path, cause, want string) {
	c.problems = slices.DeleteFunc(c.problems, func(p Problem) bool { return p.Path == path })
	c.problem(nodeAt(c.nodes, path), path, cause, want)
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

// misread reports whether the object at path has a field that was not
// understood: it may be the one that seems to be missing.
func (c *checker) misread(path string) bool {
	for bad := range c.bad {
		if strings.HasPrefix(bad, path+".") && c.nodes[bad] == nil {
			return true
		}
	}
	return false
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
	// partial says that some name is missing or unreadable: a name that is not among
	// not all of them have to be wrong. The same is true where none is right.
	partial bool
}

// lack reports whether a name is certainly that of nothing.
func (n names) lack(name string) bool {
	return name != "" && !n.partial && len(n.right) > 0 && !slices.Contains(n.all, name)
}

func (c *checker) clusterNameList() names {
	n := names{partial: c.bad["spec.clusters"]}
	for i, cluster := range c.lab.Spec.Clusters {
		n.add(cluster.Name, c.bad[clusterPath(i, "name")])
	}
	return n
}

func (n *names) add(name string, bad bool) {
	n.all = append(n.all, name)
	if !bad {
		n.right = append(n.right, name)
	}
	n.partial = n.partial || name == ""
}

// home is a trust domain of a cluster, as the file writes it.
type home struct {
	cluster, trustDomain string
	// path is that of the name of the trust domain.
	path string
}

// homes returns the trust domains of all clusters.
func (c *checker) homes() []home {
	var all []home
	for i, cluster := range c.lab.Spec.Clusters {
		for j, td := range cluster.domains() {
			path := clusterPath(i, "trustDomain")
			if cluster.TrustDomain == "" {
				path = fmt.Sprintf("%s[%d]", clusterPath(i, "trustDomains"), j)
			}
			all = append(all, home{cluster.Name, td, path})
		}
	}
	return all
}

func (c *checker) trustDomains() names {
	n := names{partial: c.bad["spec.clusters"] || c.bad["spec.hosts"]}
	for _, h := range c.homes() {
		n.add(h.trustDomain, c.bad[h.path])
	}
	for i, h := range c.lab.Spec.Hosts {
		n.add(h.TrustDomain, c.bad[hostPath(i, "trustDomain")])
	}
	for _, cluster := range c.lab.Spec.Clusters {
		n.partial = n.partial || len(cluster.domains()) == 0
	}
	return n
}

// The path of a field of the i-th entry of each list.

func clusterPath(i int, field string) string {
	return fmt.Sprintf("spec.clusters[%d].%s", i, field)
}

func hostPath(i int, field string) string {
	return fmt.Sprintf("spec.hosts[%d].%s", i, field)
}

func settingsPath(i int, field string) string {
	return fmt.Sprintf("spec.trustDomains[%d].%s", i, field)
}

func workloadPath(i int, field string) string {
	return fmt.Sprintf("spec.workloads[%d].%s", i, field)
}
