package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

func (c *checker) workloadNames() {
	seen := map[string]bool{}
	for i, w := range c.lab.Spec.Workloads {
		if seen[w.Name] && w.Name != "" {
			c.report(workloadPath(i, "name"), "duplicate workload "+quote(w.Name),
				`give each workload a "name" of its own; it defaults to the app's`)
		}
		seen[w.Name] = true
	}
}

func (c *checker) workloadPlace() {
	type place struct{ app, cluster string }
	known, seen := c.clusterNameList(), map[place]bool{}
	for i, w := range c.lab.Spec.Workloads {
		at := place{w.App, w.Cluster}
		switch {
		case known.lack(w.Cluster):
			c.report(workloadPath(i, "cluster"), "no cluster is called "+quote(w.Cluster), choose(w.Cluster, known.right))
		case seen[at] && at.app != "" && at.cluster != "":
			c.report(workloadPath(i, "app"), fmt.Sprintf("cluster %s runs app %s already", quote(w.Cluster), quote(w.App)),
				"run it in another cluster: two in one would have the same SPIFFE ID")
		}
		seen[at] = true
	}
}

func (c *checker) exposed() {
	owner := map[string]string{}
	for i, w := range c.lab.Spec.Workloads {
		if w.Expose == "" {
			continue
		}
		path := workloadPath(i, "expose")
		if app, known := appOf(w); known && app.Page == "" {
			c.report(path, "app "+quote(w.App)+" has no page for a browser", "remove the field; the apps with a page are "+strings.Join(pages(), ", "))
		}
		if first, taken := owner[w.Expose]; taken {
			c.report(path, fmt.Sprintf("%s is that of workload %s already", w.Expose, quote(first)), "give each workload a port of its own")
			continue
		}
		owner[w.Expose] = w.Name
	}
}

func pages() []string {
	var names []string
	for _, a := range topology.Apps() {
		if a.Page != "" {
			names = append(names, a.Name)
		}
	}
	return names
}

func (c *checker) calls() {
	for i, w := range c.lab.Spec.Workloads {
		app, known := appOf(w)
		callees := callees(c.lab, w)
		path := workloadPath(i, "calls")
		switch {
		case !known || slices.Contains(callees, w.Calls):
		case app.Calls == "":
			if w.Calls != "" {
				c.report(path, "app "+quote(w.App)+" calls no other", "remove the field")
			}
		case !c.workloadsRead():
			// The workload that is meant may be one that is misspelt.
		case len(callees) == 0:
			c.report(path, fmt.Sprintf("no workload runs app %s, which app %s calls", quote(app.Calls), quote(w.App)),
				fmt.Sprintf("add to spec.workloads an entry with app: %s", app.Calls))
		case w.Calls == "":
			c.report(path, "several workloads run app "+quote(app.Calls), `add "calls" with one of `+strings.Join(callees, ", "))
		default:
			c.report(path, fmt.Sprintf("no workload %s runs app %s", quote(w.Calls), quote(app.Calls)), choose(w.Calls, callees))
		}
	}
}

// workloadsRead reports whether each workload has a name and an app to go by.
func (c *checker) workloadsRead() bool {
	for i, w := range c.lab.Spec.Workloads {
		if _, known := appOf(w); !known || c.bad[workloadPath(i, "name")] {
			return false
		}
	}
	return true
}

func (c *checker) calledTrust() {
	if !c.sound("spec.federation") || !c.sound("spec.clusters") {
		return // what is missing may be what is misspelt there
	}
	trusts := map[direction]bool{}
	for _, r := range c.relationships() {
		trusts[r.direction] = true
	}
	home := map[string]string{} // the trust domain of each cluster
	for _, cluster := range c.lab.Spec.Clusters {
		home[cluster.Name] = cluster.TrustDomain
	}
	runs := map[string]string{} // the cluster of each workload
	for _, w := range c.lab.Spec.Workloads {
		runs[w.Name] = w.Cluster
	}
	for i, w := range c.lab.Spec.Workloads {
		caller, callee := home[w.Cluster], home[runs[w.Calls]]
		if caller == "" || callee == "" || caller == callee {
			continue
		}
		there, back := direction{caller, callee}, direction{callee, caller}
		var add string
		switch {
		case trusts[there] && trusts[back]:
			continue
		case trusts[there]:
			add = fmt.Sprintf("{from: %s, to: %s}", callee, caller)
		case trusts[back]:
			add = fmt.Sprintf("{from: %s, to: %s}", caller, callee)
		default:
			add = fmt.Sprintf("{between: [%s, %s]}", caller, callee)
		}
		c.report(workloadPath(i, "calls"),
			fmt.Sprintf("%s in %s calls %s in %s, but these two do not trust each other both ways", quote(w.Name), caller, quote(w.Calls), callee),
			"add to spec.federation: - "+add)
	}
}
