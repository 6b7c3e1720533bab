package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

func (c *checker) hostNameList() names {
	n := names{partial: c.bad["spec.hosts"]}
	for i, h := range c.lab.Spec.Hosts {
		n.add(h.Name, c.bad[hostPath(i, "name")])
	}
	return n
}

func (c *checker) hosts() {
	taken := map[string]string{}
	for _, cluster := range c.lab.Spec.Clusters {
		taken[cluster.Name] = "a cluster"
	}
	for i, h := range c.lab.Spec.Hosts {
		if by := taken[h.Name]; by != "" && h.Name != "" {
			c.report(hostPath(i, "name"), quote(h.Name)+" is the name of "+by+" already", "give each host a name of its own")
		}
		taken[h.Name] = "a host"
	}
	c.hostContainers()
}

// hostContainers refuses a host of which a container would have the name of another one:
// those of a host are called <lab>-<host> and <lab>-<host>-<program>, the node of a cluster
// <lab>-<cluster>-control-plane.
func (c *checker) hostContainers() {
	for i, h := range c.lab.Spec.Hosts {
		for _, cluster := range c.lab.Spec.Clusters {
			if h.Name == cluster.Name+"-control-plane" {
				c.report(hostPath(i, "name"), quote(h.Name)+" makes a container of the name that the node of cluster "+quote(cluster.Name)+" has", "give the host another name")
			}
		}
		for _, other := range c.lab.Spec.Hosts {
			program, below := strings.CutPrefix(h.Name, other.Name+"-")
			if below && other.Name != "" && (program == "agent" || program == "server" || strings.HasPrefix(program, "run-")) {
				c.report(hostPath(i, "name"), quote(h.Name)+" makes a container of the name that a program of host "+quote(other.Name)+" has", "give one of the hosts another name")
			}
		}
	}
}

func (c *checker) placeCount() {
	clusters, hosts := len(c.lab.Spec.Clusters), len(c.lab.Spec.Hosts)
	if over := clusters + hosts - topology.MaxClusters; over > 0 && hosts > 0 && !c.bad["spec.hosts"] {
		c.report("spec.hosts", fmt.Sprintf("%d clusters and %d hosts", clusters, hosts), fmt.Sprintf("at most %d in all", topology.MaxClusters))
	}
}

// hostServers goes by what a server without Kubernetes has: see the page 0045 of the
// decisions.
func (c *checker) hostServers() {
	for i, td := range c.lab.Spec.TrustDomains {
		if !c.sound("spec.clusters") || !c.lab.Spec.servedOnHost(td.Name) {
			continue
		}
		on := "the SPIRE server of " + td.Name + " is on host " + quote(c.lab.Spec.hostsOf(td.Name)[0])
		if td.BundleEndpoint.Profile == string(topology.HTTPSWeb) {
			c.report(settingsPath(i, "bundleEndpoint.profile"), on+", where nothing renews a serving certificate", "write https_spiffe, or remove the field")
		}
		if td.Datastore == string(topology.Postgres) {
			c.report(settingsPath(i, "datastore"), on+", which has no PostgreSQL", "write sqlite, or remove the field")
		}
		if td.UpstreamAuthority == string(topology.Disk) {
			c.report(settingsPath(i, "upstreamAuthority"), on+", which has no authority above it", "write none, or remove the field")
		}
		if td.ServerCluster != "" {
			c.report(settingsPath(i, "serverCluster"), "no cluster names trust domain "+quote(td.Name), "remove the field: its server runs on the first host that names it")
		}
		if td.ServerReplicas > 1 && !c.bad[settingsPath(i, "serverReplicas")] {
			c.report(settingsPath(i, "serverReplicas"), on+", which has one server", "write 1, or remove the field")
		}
		if len(td.NestedServers) > 0 {
			c.report(settingsPath(i, "nestedServers"), on+", and servers are nested only below one in a cluster", "remove the field")
		}
		if td.OIDCDiscovery != nil {
			c.report(settingsPath(i, "oidcDiscovery"), on+", where no OIDC discovery provider runs", "remove the field")
		}
		if td.BundlePlugin != "" && !c.bad[settingsPath(i, "bundlePlugin")] {
			c.report(settingsPath(i, "bundlePlugin"), on+", and writes its bundle into no cluster", "remove the field")
		}
	}
}

func (c *checker) workloadHost() {
	known, on := c.hostNameList(), map[string]int{}
	for i, w := range c.lab.Spec.Workloads {
		if w.Host == "" {
			continue
		}
		on[w.Host]++
		homes := c.lab.Spec.homes(w)
		switch {
		case slices.Contains(c.clusterNameList().right, w.Host) && !slices.Contains(known.right, w.Host):
			c.report(workloadPath(i, "host"), quote(w.Host)+" is a cluster", "write cluster: "+w.Host)
		case known.lack(w.Host):
			c.report(workloadPath(i, "host"), "no host is called "+quote(w.Host), choose(w.Host, known.right))
		case len(known.all) == 0 && !known.partial:
			c.report(workloadPath(i, "host"), "the lab has no host", "add to spec.hosts: - {name: "+w.Host+", trustDomain: NAME}, or write cluster")
		case on[w.Host] == topology.MaxWorkloads+1:
			c.report(workloadPath(i, "host"), fmt.Sprintf("this is workload %d of host %s", on[w.Host], quote(w.Host)), fmt.Sprintf("at most %d", topology.MaxWorkloads))
		case w.TrustDomain != "" && len(homes) > 0 && homes[0] != "" && !slices.Contains(homes, w.TrustDomain):
			c.report(workloadPath(i, "trustDomain"), "host "+quote(w.Host)+" has trust domain "+quote(homes[0]), "write "+homes[0]+", or remove the field")
		}
	}
}

func (c *checker) hostApps() {
	for i, w := range c.lab.Spec.Workloads {
		if w.Host == "" {
			continue
		}
		app, known := c.apps.of(w)
		fit := strings.Join(c.apps.that(fitsHost), ", ")
		switch {
		case w.own():
			field := "chart"
			if w.Manifests != "" {
				field = "manifests"
			}
			c.report(workloadPath(i, field), "a program of your own runs in a cluster", "write cluster in place of host")
		case known && !fitsHost(app):
			c.report(workloadPath(i, "app"), "app "+quote(w.App)+" needs a cluster", "write cluster in place of host; the apps that run on a host are "+fit)
		}
		if w.Expose != "" {
			c.report(workloadPath(i, "expose"), "what runs on a host has no page for a browser in this version", "remove the field")
		}
	}
}
