package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	gotemplate "text/template"
	templateparse "text/template/parse"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

func registrationPath(i int, field string) string {
	return fmt.Sprintf("spec.registrations[%d].%s", i, field)
}

// readable reports whether the trust domain of a registration is one by its form.
func (c *checker) readable(i int) bool {
	return c.lab.Spec.Registrations[i].TrustDomain != "" && !c.bad[registrationPath(i, "trustDomain")]
}

// settingsOf returns the index of the settings of a trust domain; -1 where there are none.
func (s Spec) settingsOf(trustDomain string) int {
	return slices.IndexFunc(s.TrustDomains, func(td TrustDomain) bool { return td.Name == trustDomain })
}

// entryPrefixes goes by how the controller manager reads its prefix (its cmd/main.go and
// pkg/spireentry/reconciler.go): a dot comes after it.
func (c *checker) entryPrefixes() {
	for i, td := range c.lab.Spec.TrustDomains {
		path, clusters := settingsPath(i, "entryPrefix"), c.lab.Spec.clustersOf(td.Name)
		switch {
		case td.EntryPrefix == "":
		case td.EntryPrefix == topology.OwnEntryPrefix:
			c.report(path, quote(td.EntryPrefix)+" is what the IDs of fedlab's own entries begin with", "write another word")
		case c.lab.Spec.servedOnHost(td.Name):
			c.report(path, "the SPIRE server of "+td.Name+" is on a host, and no controller manager runs there", "remove the field")
		case len(clusters) > 1 && slices.Contains(clusters, td.EntryPrefix):
			c.report(path, fmt.Sprintf("the controller manager of cluster %s has this prefix already", quote(td.EntryPrefix)), "write a word that is the name of no cluster")
		}
	}
}

func (c *checker) registrationNames() {
	taken := map[string]string{}
	for _, w := range c.lab.Spec.Workloads {
		taken[w.Name] = "a workload"
	}
	for _, name := range c.lab.Spec.trustDomainNames() {
		if td, err := spiffeid.TrustDomainFromString(name); err == nil {
			taken[topology.ProbeOf(td)] = "the probe that scenarios run in trust domain " + quote(name)
		}
	}
	for i, r := range c.lab.Spec.Registrations {
		if by := taken[r.Name]; by != "" && r.Name != "" {
			c.report(registrationPath(i, "name"), quote(r.Name)+" is the name of "+by, "give each registration a name of its own")
		}
		taken[r.Name] = "another registration"
	}
}

func (c *checker) registrationPlaces() {
	known := c.trustDomains()
	for i, r := range c.lab.Spec.Registrations {
		at, clusters := registrationPath(i, "cluster"), c.lab.Spec.clustersOf(r.TrustDomain)
		entry, form := r.entry()
		switch {
		case known.lack(r.TrustDomain):
			c.report(registrationPath(i, "trustDomain"), "no cluster names trust domain "+quote(r.TrustDomain), choose(r.TrustDomain, known.right))
		case c.lab.Spec.servedOnHost(r.TrustDomain):
			c.registrationOnHost(i, r)
		case r.Cluster == "" || len(clusters) == 0 || !c.sound("spec.clusters"):
		case !slices.Contains(clusters, r.Cluster):
			c.report(at, fmt.Sprintf("cluster %s has no trust domain %s", quote(r.Cluster), quote(r.TrustDomain)), choose(r.Cluster, clusters))
		case entry != nil && c.sound("spec.trustDomains"):
			td := c.lab.Spec.TrustDomains[c.lab.Spec.settingsOf(r.TrustDomain)]
			if servers := append([]string{cmp.Or(td.ServerCluster, clusters[0])}, td.NestedServers...); !slices.Contains(servers, r.Cluster) {
				c.report(at, fmt.Sprintf("no SPIRE server of %s is in cluster %s, and %s is for one", quote(r.TrustDomain), quote(r.Cluster), form), choose(r.Cluster, servers))
			}
		}
	}
}

// registrationOnHost is for a trust domain whose server is on a host: nobody makes entries
// of resources there.
func (c *checker) registrationOnHost(i int, r Registration) {
	const none = ", and there is no controller manager"
	on := "the SPIRE server of " + quote(r.TrustDomain) + " is on a host"
	if r.ClusterSPIFFEID != nil {
		c.report(registrationPath(i, "clusterSPIFFEID"), on+none, "write entry, with a parentID")
	}
	if r.ClusterStaticEntry != nil {
		c.report(registrationPath(i, "clusterStaticEntry"), on+none, "write entry in place of it: its fields are the same")
	}
	if r.Cluster != "" {
		c.report(registrationPath(i, "cluster"), on, "remove the field")
	}
}

func (c *checker) entriesStay() {
	for i, r := range c.lab.Spec.Registrations {
		at := c.lab.Spec.settingsOf(r.TrustDomain)
		if r.Entry == nil || at < 0 || !c.readable(i) || c.lab.Spec.servedOnHost(r.TrustDomain) || c.lab.Spec.TrustDomains[at].EntryPrefix != "" || !c.sound("spec.trustDomains") {
			continue
		}
		c.report(registrationPath(i, "entry"), "the controller manager of "+quote(r.TrustDomain)+" has no prefix, and deletes each entry that it has not made, within seconds",
			"add to spec.trustDomains: - {name: "+r.TrustDomain+", entryPrefix: lab}, or write clusterStaticEntry")
	}
}

// reservedPath holds for what SPIRE keeps to itself (pkg/common/idutil, IsReservedPath).
func reservedPath(path string) bool { return path == "/spire" || strings.HasPrefix(path, "/spire/") }

func (c *checker) registrationIDs() {
	for i, r := range c.lab.Spec.Registrations {
		entry, form := r.entry()
		if entry == nil || !c.readable(i) {
			continue
		}
		for _, f := range []struct{ name, id string }{{"spiffeID", entry.SPIFFEID}, {"parentID", entry.ParentID}} {
			id, err := spiffeid.FromString(f.id)
			path := registrationPath(i, form+"."+f.name)
			switch {
			case err != nil:
			case id.TrustDomain().Name() != r.TrustDomain:
				c.report(path, quote(f.id)+" is not in trust domain "+quote(r.TrustDomain), fmt.Sprintf("write %q", "spiffe://"+r.TrustDomain+id.Path()))
			case f.name == "spiffeID" && reservedPath(id.Path()):
				c.report(path, "paths below /spire are SPIRE's own", "write another path")
			}
		}
		if entry.SPIFFEID != "" && entry.SPIFFEID == entry.ParentID {
			c.report(registrationPath(i, form+".parentID"), "the entry is its own parent", "write the SPIFFE ID of an agent, of another entry, or "+serverID(r.TrustDomain))
		}
	}
}

// parsedTemplate reads a template as the controller manager does: it has no functions of
// its own (its api/v1alpha1, ParseClusterSPIFFEIDSpec).
func parsedTemplate(text string) (*gotemplate.Template, error) {
	return gotemplate.New("template").Option("missingkey=error").Parse(text)
}

// templates calls do for each template of a registration.
func (r Registration) templates(do func(field, text string)) {
	if r.ClusterSPIFFEID == nil {
		return
	}
	do("spiffeIDTemplate", r.ClusterSPIFFEID.SPIFFEIDTemplate)
	for j, text := range r.ClusterSPIFFEID.WorkloadSelectorTemplates {
		do(fmt.Sprintf("workloadSelectorTemplates[%d]", j), text)
	}
	for j, text := range r.ClusterSPIFFEID.DNSNameTemplates {
		do(fmt.Sprintf("dnsNameTemplates[%d]", j), text)
	}
}

func (c *checker) registrationTemplates() {
	for i, r := range c.lab.Spec.Registrations {
		r.templates(func(field, text string) {
			_, err := parsedTemplate(text)
			if err == nil {
				return
			}
			want := `such as {{ .PodMeta.Namespace }}; a label whose name has a dash is {{ index .PodMeta.Labels "NAME" }}`
			c.report(registrationPath(i, "clusterSPIFFEID."+field), "no template: "+strings.TrimPrefix(err.Error(), "template: template:1: "), want)
		})
	}
}

// idHead is the text of a template before what it fills in.
var idHead = regexp.MustCompile(`^spiffe://([^/{]*)/`)

func (c *checker) templateDomains() {
	for i, r := range c.lab.Spec.Registrations {
		if r.ClusterSPIFFEID == nil || r.ClusterSPIFFEID.SPIFFEIDTemplate == "" || !c.readable(i) {
			continue
		}
		text, path := r.ClusterSPIFFEID.SPIFFEIDTemplate, registrationPath(i, "clusterSPIFFEID.spiffeIDTemplate")
		const right = "spiffe://{{ .TrustDomain }}/"
		head := idHead.FindStringSubmatch(text)
		switch {
		case head != nil && head[1] != r.TrustDomain:
			c.report(path, "it comes to SPIFFE IDs of trust domain "+quote(head[1])+", and the registration is of "+quote(r.TrustDomain), fmt.Sprintf("begin with %q", right))
		case !strings.HasPrefix(text, "{{") && !strings.HasPrefix(text, "spiffe://"):
			c.report(path, quote(text)+" comes to no SPIFFE ID", fmt.Sprintf("begin with %q", right))
		}
	}
}

// lives calls do for each life that a registration asks for.
func (r Registration) lives(do func(field string, ttl Duration)) {
	if x := r.ClusterSPIFFEID; x != nil {
		do("clusterSPIFFEID.ttl", x.TTL)
		do("clusterSPIFFEID.jwtTtl", x.JWTTTL)
	}
	if entry, form := r.entry(); entry != nil {
		do(form+".x509SVIDTTL", entry.X509SVIDTTL)
		do(form+".jwtSVIDTTL", entry.JWTSVIDTTL)
	}
}

func (c *checker) registrationLives() {
	for i, r := range c.lab.Spec.Registrations {
		at := c.lab.Spec.settingsOf(r.TrustDomain)
		if at < 0 || !c.readable(i) || c.bad[settingsPath(at, "ca.ttl")] {
			continue
		}
		ca := c.lab.Spec.TrustDomains[at].CA.TTL
		r.lives(func(field string, ttl Duration) {
			if most := longestSVID(ca); ttl > most {
				c.report(registrationPath(i, field), fmt.Sprintf("%s is longer than a sixth of ca.ttl of %s, which is %s", ttl, r.TrustDomain, ca), fmt.Sprintf("at most %s", most))
			}
		})
	}
}

// federatesWith returns what a registration federates with, and the path of that in it.
func (r Registration) federatesWith() ([]string, string) {
	if r.ClusterSPIFFEID != nil {
		return r.ClusterSPIFFEID.FederatesWith, "clusterSPIFFEID.federatesWith"
	}
	if entry, form := r.entry(); entry != nil {
		return entry.FederatesWith, form + ".federatesWith"
	}
	return nil, ""
}

func (c *checker) registrationFederates() {
	for i, r := range c.lab.Spec.Registrations {
		names, field := r.federatesWith()
		for j, td := range names {
			path := fmt.Sprintf("%s[%d]", registrationPath(i, field), j)
			switch bare := bareName(td); {
			case bare == r.TrustDomain && bare != "":
				c.again(path, quote(td)+" is its own trust domain", "remove it: the bundle of its own trust domain each program receives anyway")
			case td == "" || !c.readable(i) || !c.trustRead() || c.trust[direction{r.TrustDomain, td}]:
			default:
				c.report(path, fmt.Sprintf("%s does not trust %s, and SPIRE refuses an entry without the bundle", r.TrustDomain, quote(td)),
					"add to spec.federation: - {from: "+r.TrustDomain+", to: "+td+"}")
			}
		}
	}
}

// bareName returns the trust domain of its SPIFFE ID, or what it is.
func bareName(td string) string { return strings.TrimPrefix(td, "spiffe://") }

// named is a workload or a registration, as far as its SPIFFE ID is concerned.
type named struct {
	name, what, trustDomain, cluster string
	// id is the zero value where it is not known, or depends on the pod.
	id        spiffeid.ID
	replicaOf string
	// key tells an entry from others of the same SPIFFE ID; empty where it is not known.
	key string
	// path is that of the entry in the file, and field what its SPIFFE ID comes of.
	path, field string
}

func (n named) String() string { return n.what + " " + quote(n.name) }

// identities returns all workloads and registrations.
func (c *checker) identities() (all []named) {
	for i, w := range c.lab.Spec.Workloads {
		n := named{name: w.Name, what: "workload", trustDomain: c.lab.Spec.home(w), cluster: w.Cluster, replicaOf: w.ReplicaOf, path: fmt.Sprintf("spec.workloads[%d]", i), field: "app"}
		if w.own() {
			n.field = "identity.path"
		}
		app, known := c.apps.of(w)
		if td, err := spiffeid.TrustDomainFromString(n.trustDomain); known && err == nil {
			// What is wrong with an app, a cluster or a path is reported where that stands.
			n.id, _ = topology.WorkloadSpec{Name: w.Name, App: app, Cluster: w.Cluster, Host: w.Host}.SPIFFEID(td, app.Namespace)
		}
		all = append(all, n)
	}
	for i, r := range c.lab.Spec.Registrations {
		n := named{name: r.Name, what: "registration", trustDomain: r.TrustDomain, cluster: r.Cluster, replicaOf: r.ReplicaOf, path: fmt.Sprintf("spec.registrations[%d]", i)}
		if entry, form := r.entry(); entry != nil {
			n.field = form + ".spiffeID"
			n.id, _ = spiffeid.FromString(entry.SPIFFEID)
			n.key = strings.Join(append([]string{r.Cluster, entry.ParentID}, slices.Sorted(slices.Values(entry.Selectors))...), " ")
		} else if r.ClusterSPIFFEID != nil {
			n.field = "clusterSPIFFEID.spiffeIDTemplate"
			n.id = r.fixedID()
		}
		all = append(all, n)
	}
	return all
}

// fixedID returns the SPIFFE ID that the template of a registration comes to, whatever the
// pod; the zero value where that depends on the pod.
func (r Registration) fixedID() spiffeid.ID {
	parsed, err := parsedTemplate(r.ClusterSPIFFEID.SPIFFEIDTemplate)
	if err != nil || slices.ContainsFunc(parsed.Root.Nodes, branches) {
		return spiffeid.ID{}
	}
	var text strings.Builder
	if parsed.Execute(&text, struct{ TrustDomain, ClusterName, ClusterDomain string }{r.TrustDomain, r.Cluster, "cluster.local"}) != nil {
		return spiffeid.ID{}
	}
	id, _ := spiffeid.FromString(text.String())
	return id
}

// branches reports whether a part of a template is more than text and values: it may repeat
// itself, and is not executed.
func branches(n templateparse.Node) bool {
	return n.Type() != templateparse.NodeText && n.Type() != templateparse.NodeAction
}

// spiffeIDs compares what workloads and registrations come to.
func (c *checker) spiffeIDs() {
	first := map[spiffeid.ID]named{}
	for _, n := range c.identities() {
		if n.id.IsZero() {
			continue
		}
		other, taken := first[n.id]
		switch {
		case !taken:
			first[n.id] = n
		case n.replicaOf == "":
			want := "run it in another trust domain, or leave one of them out"
			if n.what == "registration" {
				want = "write another SPIFFE ID, or leave one of them out"
			}
			if n.cluster != other.cluster || n.what == "registration" {
				want += "; where both are meant, add replicaOf: " + other.name
			}
			c.report(n.path+"."+n.field, fmt.Sprintf("%s has the SPIFFE ID %s already", other, n.id), want)
		}
	}
}

func (c *checker) replicas() {
	all := c.identities()
	for _, n := range all {
		if n.replicaOf == "" {
			continue
		}
		path := n.path + ".replicaOf"
		i := slices.IndexFunc(all, func(other named) bool { return other.name == n.replicaOf })
		var names []string
		for _, other := range all {
			if other.name != n.name && other.name != "" && !c.bad[other.path+".name"] {
				names = append(names, other.name)
			}
		}
		switch {
		case i < 0:
			want := "remove the field"
			if len(names) > 0 {
				want = choose(n.replicaOf, names)
			}
			c.report(path, "no workload or registration is called "+quote(n.replicaOf), want)
		case n.replicaOf == n.name:
			c.report(path, "it is its own replica", "name the other one, or remove the field")
		case all[i].replicaOf != "":
			c.report(path, fmt.Sprintf("%s is a replica itself", all[i]), "write "+quote(all[i].replicaOf))
		case n.what == "workload" && n.cluster == "":
			c.report(path, "a workload on a host has a SPIFFE ID of its own", "run it in a cluster, or remove the field")
		case !n.id.IsZero() && !all[i].id.IsZero() && n.id != all[i].id:
			c.report(path, fmt.Sprintf("%s has the SPIFFE ID %s, and this one %s", all[i], all[i].id, n.id), "remove the field: replicas have one SPIFFE ID")
		case n.key != "" && n.key == all[i].key:
			c.report(path, fmt.Sprintf("%s has the same parent and selectors, too: a SPIRE server has such an entry once", all[i]), "write other selectors, or leave one of them out")
		}
	}
}
