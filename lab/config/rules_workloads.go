package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

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

// reservedNames keeps workloads from names that mean something else.
func (c *checker) reservedNames() {
	probed := map[string]string{}
	for _, name := range c.lab.Spec.trustDomainNames() {
		if td, err := spiffeid.TrustDomainFromString(name); err == nil {
			probed[topology.ProbeOf(td)] = name
		}
	}
	for i, w := range c.lab.Spec.Workloads {
		path := workloadPath(i, "name")
		if td, taken := probed[w.Name]; taken {
			c.report(path, fmt.Sprintf("%s is the name of the probe that scenarios run in trust domain %s", quote(w.Name), quote(td)), "give the workload another name")
		}
		if by := c.apps.answers(w); by != "" {
			c.report(path, fmt.Sprintf("app %s answers requests for %s itself, and cannot pass them on to app %s", quote(by), quote("/"+w.Name), quote(w.App)), "give the workload another name")
		}
	}
}

func (c *checker) workloadPlace() {
	known, in := c.clusterNameList(), map[string]int{}
	for i, w := range c.lab.Spec.Workloads {
		if w.Host != "" {
			continue // see workloadHost
		}
		in[w.Cluster]++
		homes := c.lab.Spec.homes(w)
		switch {
		case slices.Contains(c.hostNameList().right, w.Cluster) && !slices.Contains(known.right, w.Cluster):
			c.report(workloadPath(i, "cluster"), quote(w.Cluster)+" is a host", "write host: "+w.Cluster)
		case known.lack(w.Cluster):
			c.report(workloadPath(i, "cluster"), "no cluster is called "+quote(w.Cluster), choose(w.Cluster, known.right))
		case in[w.Cluster] == topology.MaxWorkloads+1:
			c.report(workloadPath(i, "cluster"), fmt.Sprintf("this is workload %d of cluster %s", in[w.Cluster], quote(w.Cluster)), fmt.Sprintf("at most %d", topology.MaxWorkloads))
		case w.TrustDomain == "" && len(homes) > 1:
			c.report(workloadPath(i, "trustDomain"), "missing, and cluster "+quote(w.Cluster)+" has several trust domains", choose("", homes))
		case w.TrustDomain != "" && len(homes) > 0 && !slices.Contains(homes, w.TrustDomain):
			c.report(workloadPath(i, "trustDomain"), "cluster "+quote(w.Cluster)+" has no trust domain "+quote(w.TrustDomain), choose(w.TrustDomain, homes))
		}
	}
}

func (c *checker) workloadOnce() {
	type place struct{ app, cluster, host, home string }
	seen := map[place]bool{}
	for i, w := range c.lab.Spec.Workloads {
		at := place{w.App, w.Cluster, w.Host, c.lab.Spec.home(w)}
		switch {
		case at.app == "" || at.cluster+at.host == "" || at.home == "" && len(c.lab.Spec.homes(w)) > 1:
		case seen[at] && at.host != "":
			c.report(workloadPath(i, "app"), fmt.Sprintf("host %s runs app %s already", quote(w.Host), quote(w.App)),
				"run it elsewhere: two would have the same SPIFFE ID")
		case seen[at]:
			c.report(workloadPath(i, "app"), fmt.Sprintf("cluster %s runs app %s already", quote(w.Cluster), quote(w.App)),
				"run it in another cluster, or for another trust domain: two would have the same SPIFFE ID")
		}
		seen[at] = true
	}
}

func (c *checker) databaseTLS() {
	for i, w := range c.lab.Spec.Workloads {
		if !w.DatabaseTLS {
			continue
		}
		path, app, known := workloadPath(i, "databaseTLS"), topology.App{}, true
		if !w.own() {
			app, known = c.apps.of(w)
		}
		fit := "remove the field; it is for " + strings.Join(c.apps.that(verifiesDatabase), ", ")
		switch {
		case w.own():
			c.report(path, "a program of your own brings its own database", fit)
		case known && app.Database == "":
			c.report(path, "app "+quote(w.App)+" has no database", fit)
		case known && !app.VerifiesDatabase:
			c.report(path, "app "+quote(w.App)+" has a database whose clients speak to it without TLS", fit)
		}
	}
}

func (c *checker) legacyDatabase() {
	for i, w := range c.lab.Spec.Workloads {
		if !w.LegacyDatabase {
			continue
		}
		path := workloadPath(i, "legacyDatabase")
		if app, known := c.apps.of(w); w.own() || known && !app.BorrowsDatabase {
			c.report(path, "only "+either(c.apps.that(borrowsDatabase))+" reads the database behind a bridge", "remove the field")
			continue
		}
		called := slices.ContainsFunc(c.lab.Spec.Workloads, func(by Workload) bool {
			app, known := c.apps.of(by)
			return known && app.LendsDatabase && slices.Contains(by.Calls, w.Name)
		})
		if !called && c.workloadsRead() {
			c.report(path, "no bridge calls "+quote(w.Name), "add to spec.workloads an entry with "+either(c.apps.that(lendsDatabase))+" whose calls have "+quote(w.Name))
		}
	}
}

func (c *checker) exposed() {
	owner := map[string]string{}
	for i, w := range c.lab.Spec.Workloads {
		if w.Expose == "" {
			continue
		}
		path := workloadPath(i, "expose")
		if app, known := c.apps.of(w); w.own() {
			c.report(path, "fedlab exposes no program of your own", "remove the field; a Service of your own can")
		} else if known && app.Page == "" {
			c.report(path, "app "+quote(w.App)+" has no page for a browser", "remove the field; the apps with a page are "+strings.Join(c.apps.that(hasPage), ", "))
		}
		if first, taken := owner[w.Expose]; taken {
			c.report(path, fmt.Sprintf("%s is that of workload %s already", w.Expose, quote(first)), "give each workload a port of its own")
			continue
		}
		owner[w.Expose] = w.Name
	}
}

// appLives is lives for what apps ask for themselves: a registration with a life
// of its own is not asked what the server has.
func (c *checker) appLives() {
	for i, td := range c.lab.Spec.TrustDomains {
		var longest topology.App
		for _, w := range c.lab.Spec.Workloads {
			if app, _ := c.apps.of(w); !w.own() && c.lab.Spec.home(w) == td.Name && app.X509SVIDTTL > longest.X509SVIDTTL {
				longest = app
			}
		}
		path, ttl := settingsPath(i, "ca.ttl"), Duration(longest.X509SVIDTTL)
		if !c.bad[path] && ttl > longestSVID(td.CA.TTL) {
			c.report(path, fmt.Sprintf("the X509-SVIDs of app %s live %s, which is longer than a sixth of %s", quote(longest.Name), ttl, td.CA.TTL),
				fmt.Sprintf("at least %s, or run the app in another trust domain", ttl*svidsPerCA))
		}
	}
}

// hostNames goes by what SPIRE takes (its pkg/common/x509util, ValidateLabel): a
// trust domain may be more than a host name can.
func (c *checker) hostNames() {
	for _, h := range c.homes() {
		for _, w := range c.lab.Spec.Workloads {
			app, _ := c.apps.of(w)
			if w.Cluster != h.cluster || c.lab.Spec.home(w) != h.trustDomain || !hasName(app) || h.trustDomain == "" || c.bad[h.path] {
				continue
			}
			name := app.DNSNames[slices.IndexFunc(app.DNSNames, ofTrustDomain)]
			name = strings.ReplaceAll(name, trustDomainField, h.trustDomain)
			if cause := noHostName(name); cause != "" {
				want := "write a host name, such as \"company.com\""
				if other := strings.ReplaceAll(h.trustDomain, "_", "-"); noHostName(other) == "" && other != h.trustDomain {
					want = "write " + quote(other)
				}
				c.report(h.path, fmt.Sprintf("%s would have the DNS name %s, which SPIRE refuses: %s", quote(w.Name), quote(name), cause),
					want+", or run "+w.App+" in another trust domain")
			}
		}
	}
}

const maxHostName, maxHostLabel = 253, 63

// noHostName says why a name of lower-case letters, digits, dots, dashes and
// underscores is not one of a host; "" if it is.
func noHostName(name string) string {
	if len(name) > maxHostName {
		return fmt.Sprintf("it has %d characters, and at most %d are allowed", len(name), maxHostName)
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return "a dot has nothing on one side"
		case len(label) > maxHostLabel:
			return fmt.Sprintf("%s has %d characters, and at most %d are allowed between two dots", quote(label), len(label), maxHostLabel)
		case strings.Contains(label, "_"):
			return `there is no "_" in a host name`
		case strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-"):
			return quote(label) + " starts or ends with a dash"
		case len(label) > 3 && label[2:4] == "--" && !strings.HasPrefix(label, "xn--"):
			return quote(label) + " has two dashes after two characters"
		}
	}
	return ""
}

func (c *checker) calls() {
	if !c.workloadsRead() {
		return // the workload that is meant may be one that is misspelt
	}
	for i, w := range c.lab.Spec.Workloads {
		if c.sound(workloadPath(i, "calls")) {
			c.callsOf(i, w)
		}
	}
}

func (c *checker) callsOf(i int, w Workload) {
	app, _ := c.apps.of(w)
	path, callees := workloadPath(i, "calls"), namesOf(c.apps.callees(c.lab.Spec, w))
	written := c.nodes[path] != nil
	switch {
	case w.own():
	case len(app.Calls) == 0:
		if len(w.Calls) > 0 {
			c.report(path, "app "+quote(w.App)+" calls no other", "remove the field")
		}
		return
	case len(callees) == 0:
		if len(w.Calls) > 0 || app.MinCalls > 0 {
			c.report(path, fmt.Sprintf("no workload runs %s, which app %s calls", either(app.Calls), quote(w.App)),
				"add to spec.workloads an entry with app: "+app.Calls[0])
		}
		return
	}
	for j, name := range w.Calls {
		switch at := c.callPath(i, j); {
		case !slices.Contains(callees, name):
			runs := "has a port"
			if !w.own() {
				runs = "runs " + either(app.Calls)
			}
			c.report(at, fmt.Sprintf("no workload %s %s", quote(name), runs), choose(name, callees))
		case slices.Contains(w.Calls[:j], name):
			c.report(at, "workload "+quote(name)+" is there twice", "name each workload once")
		}
	}
	switch n := len(w.Calls); {
	case app.MaxCalls > 0 && n > app.MaxCalls:
		c.report(path, fmt.Sprintf("app %s calls %d at most, not %d", quote(w.App), app.MaxCalls, n), "choose of "+strings.Join(callees, ", "))
	case app.MaxCalls > 0 && n == 0 && !written:
		c.report(path, "several workloads run "+either(app.Calls), fmt.Sprintf(`add "calls", a list of at most %d of %s`, app.MaxCalls, strings.Join(callees, ", ")))
	case n < app.MinCalls && (written || n == len(callees)):
		c.report(path, fmt.Sprintf("app %s calls %d at least, not %d", quote(w.App), app.MinCalls, n), "choose of "+strings.Join(callees, ", "))
	case n < app.MinCalls:
		c.unreachable(path, w)
	}
}

// unreachable says which trust a workload lacks that can call nobody.
func (c *checker) unreachable(path string, w Workload) {
	home := c.lab.Spec.home(w)
	if !c.trustRead() || home == "" {
		return
	}
	for _, callee := range c.apps.callees(c.lab.Spec, w) {
		at := c.lab.Spec.home(callee)
		if at == "" {
			return // it may be the one that can be called
		}
		if add := c.trust.lack(home, at); add != "" {
			c.report(path, fmt.Sprintf("%s in %s can call nobody: %s, for one, is in %s, and these two do not trust each other both ways", quote(w.Name), home, quote(callee.Name), at),
				"add to spec.federation: - "+add)
			return
		}
	}
}

// callPath returns where a message about one of the calls of a workload belongs.
func (c *checker) callPath(i, j int) string {
	path := workloadPath(i, "calls")
	if c.nodes[path] == nil {
		return path
	}
	return fmt.Sprintf("%s[%d]", path, j)
}

func namesOf(workloads []Workload) []string {
	names := make([]string, len(workloads))
	for i, w := range workloads {
		names[i] = w.Name
	}
	return names
}

// either words a choice of apps: app "a", "b" or "c".
func either(apps []string) string {
	quoted := make([]string, len(apps))
	for i, a := range apps {
		quoted[i] = quote(a)
	}
	last := len(quoted) - 1
	if last == 0 {
		return "app " + quoted[0]
	}
	return "app " + strings.Join(quoted[:last], ", ") + " or " + quoted[last]
}

// workloadsRead reports whether each workload has a name and an app to go by.
func (c *checker) workloadsRead() bool {
	for i, w := range c.lab.Spec.Workloads {
		if _, known := c.apps.of(w); !known || c.bad[workloadPath(i, "name")] {
			return false
		}
	}
	return true
}

// trustRead reports whether nothing is wrong with what says who trusts whom: what
// is missing there may be what is misspelt.
func (c *checker) trustRead() bool {
	return c.sound("spec.federation") && c.sound("spec.clusters") && c.sound("spec.hosts")
}

func (c *checker) calledTrust() {
	if !c.trustRead() {
		return
	}
	for i, w := range c.lab.Spec.Workloads {
		caller := c.lab.Spec.home(w)
		for j, name := range w.Calls {
			called := slices.IndexFunc(c.lab.Spec.Workloads, func(other Workload) bool { return other.Name == name })
			if called < 0 || caller == "" {
				continue
			}
			callee := c.lab.Spec.home(c.lab.Spec.Workloads[called])
			if callee == "" {
				continue
			}
			if add := c.trust.lack(caller, callee); add != "" {
				c.report(c.callPath(i, j),
					fmt.Sprintf("%s in %s calls %s in %s, but these two do not trust each other both ways", quote(w.Name), caller, quote(name), callee),
					"add to spec.federation: - "+add)
			}
		}
	}
}
