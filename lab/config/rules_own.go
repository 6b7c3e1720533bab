package config

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// reservedNamespace are those that fedlab and Kubernetes use.
var reservedNamespace = regexp.MustCompile(`^(kube-.*|local-path-storage|metallb-system|` + topology.ServerNamespace + `(-[0-9]+)?)$`)

func (c *checker) ownPrograms() {
	used := map[string]bool{topology.Probe().Namespace: true}
	for _, app := range c.apps {
		used[app.Namespace] = true
	}
	for i, w := range c.lab.Spec.Workloads {
		if !w.own() {
			c.foreignFields(i, w)
			continue
		}
		switch {
		case w.Name == "":
			c.report(workloadPath(i, "name"), "missing", `add "name": a program of your own needs one`)
		case slices.Contains(c.apps.names(), w.Name):
			c.report(workloadPath(i, "name"), quote(w.Name)+" is the name of an app", "give your program another name")
		}
		switch {
		case w.Identity == nil:
			if !c.misread(fmt.Sprintf("spec.workloads[%d]", i)) {
				c.report(workloadPath(i, "identity"), "missing", "add identity: {namespace: NAME}")
			}
		case reservedNamespace.MatchString(w.Identity.Namespace) || used[w.Identity.Namespace]:
			c.report(workloadPath(i, "identity.namespace"), "fedlab or Kubernetes uses the namespace "+quote(w.Identity.Namespace), "give your program a namespace of its own")
		}
		if w.Manifests != "" && w.Values != nil {
			c.report(workloadPath(i, "values"), "manifests have no values", "remove the field, or write a chart")
		}
		seen := map[string]bool{}
		for j, image := range w.Images {
			if image.Name != "" && seen[image.Name] {
				c.report(fmt.Sprintf("%s[%d].name", workloadPath(i, "images"), j), "image "+quote(image.Name)+" is there twice", "say once where it comes from")
			}
			seen[image.Name] = true
		}
	}
}

// foreignFields reports what is for programs of one's own only.
func (c *checker) foreignFields(i int, w Workload) {
	if w.App == "" {
		return // what it is may be what is misspelt
	}
	for _, f := range []struct {
		name  string
		there bool
	}{{"values", w.Values != nil}, {"images", w.Images != nil}, {"identity", w.Identity != nil}, {"port", w.Port != 0}, {"check", w.Check != nil}} {
		if f.there {
			c.report(workloadPath(i, f.name), f.name+" is for a program of your own, and this is app "+quote(w.App), "remove the field")
		}
	}
}

func (c *checker) ownAccounts() {
	type account struct{ cluster, home, namespace, name string }
	owner := map[account]string{}
	for i, w := range c.lab.Spec.Workloads {
		if !w.own() || w.Identity == nil || w.Identity.Namespace == "" {
			continue
		}
		a := account{w.Cluster, c.lab.Spec.home(w), w.Identity.Namespace, w.Identity.ServiceAccount}
		if first, taken := owner[a]; taken {
			c.report(workloadPath(i, "identity.serviceAccount"), fmt.Sprintf("workload %s runs as service account %s of namespace %s already", quote(first), quote(a.name), quote(a.namespace)),
				"give each program a service account of its own")
			continue
		}
		owner[a] = w.Name
	}
}

// ownLives is lives for what the entries of workloads ask for.
func (c *checker) ownLives() {
	for i, w := range c.lab.Spec.Workloads {
		at := c.lab.Spec.settingsOf(c.lab.Spec.home(w))
		if !w.own() || w.Identity == nil || at < 0 || c.bad[settingsPath(at, "ca.ttl")] {
			continue
		}
		td := c.lab.Spec.TrustDomains[at]
		if most := longestSVID(td.CA.TTL); w.Identity.TTL > most {
			c.report(workloadPath(i, "identity.ttl"), fmt.Sprintf("%s is longer than a sixth of ca.ttl of %s, which is %s", w.Identity.TTL, td.Name, td.CA.TTL), fmt.Sprintf("at most %s", most))
		}
	}
}

// ownPaths fills in the templates of paths as the controller manager will.
func (c *checker) ownPaths() {
	for i, w := range c.lab.Spec.Workloads {
		home, err := spiffeid.TrustDomainFromString(c.lab.Spec.home(w))
		if !w.own() || w.Identity == nil || err != nil || w.Identity.Path == "" {
			continue
		}
		if _, err := (topology.WorkloadSpec{Name: w.Name, App: w.app()}).SPIFFEID(home, w.Identity.Namespace); err != nil {
			c.report(workloadPath(i, "identity.path"), err.Error(), "such as /payments, or /{{ .PodSpec.ServiceAccountName }}")
		}
	}
}

func (c *checker) ownChecks() {
	for i, w := range c.lab.Spec.Workloads {
		if !w.own() || w.Check == nil {
			continue
		}
		if w.Check.Port == 0 && !c.misread(workloadPath(i, "check")) {
			c.report(workloadPath(i, "check.port"), "missing", "add the port that answers, or port to the workload")
		}
		as, home := w.Check.As, c.lab.Spec.home(w)
		if as == "" {
			continue
		}
		if known := c.trustDomains(); known.lack(as) {
			c.report(workloadPath(i, "check.as"), "no cluster names trust domain "+quote(as), choose(as, known.right))
			continue
		}
		switch {
		case c.lab.Spec.servedOnHost(as) && c.sound("spec.clusters"):
			c.report(workloadPath(i, "check.as"), "the SPIRE server of "+as+" is on a host, and who asks runs next to it in a cluster", "name a trust domain whose server is in a cluster, or remove as")
		case w.Port == 0:
			c.report(workloadPath(i, "check.as"), "the program has no port, so that "+as+" cannot call it", "add port to the workload, or remove as")
		case home != "" && as != home && c.trustRead() && !c.trust[direction{as, home}]:
			c.report(workloadPath(i, "check.as"), fmt.Sprintf("%s does not trust %s, and cannot verify the program", as, quote(home)),
				"add to spec.federation: - {from: "+as+", to: "+home+"}")
		}
	}
}

func (c *checker) ownFederates() {
	if !c.trustRead() {
		return
	}
	for i, w := range c.lab.Spec.Workloads {
		home := c.lab.Spec.home(w)
		if !w.own() || w.Identity == nil || home == "" {
			continue
		}
		for j, td := range w.Identity.FederatesWith {
			if td != "" && !c.trust[direction{home, td}] {
				c.report(fmt.Sprintf("%s[%d]", workloadPath(i, "identity.federatesWith"), j), fmt.Sprintf("%s does not trust %s", home, quote(td)),
					"add to spec.federation: - {from: "+home+", to: "+td+"}")
			}
		}
	}
}
