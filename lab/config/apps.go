package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// apps are the programs that a workload may name.
type apps []topology.App

// of returns the app that a workload runs. That of a program of one's own is made of
// its entry.
func (a apps) of(w Workload) (topology.App, bool) {
	if w.own() {
		return w.app(), true
	}
	i := slices.IndexFunc(a, func(app topology.App) bool { return app.Name == w.App })
	if i < 0 {
		return topology.App{}, false
	}
	return a[i], true
}

// app returns the app that a program of one's own comes to.
func (w Workload) app() topology.App {
	app := topology.App{Name: w.Name, Port: w.Port}
	if is := w.Identity; is != nil {
		app.Namespace, app.ServiceAccount, app.IDTemplate = is.Namespace, is.ServiceAccount, is.Path
		app.DNSNames, app.Selectors, app.X509SVIDTTL = is.DNSNames, is.Selectors, time.Duration(is.TTL)
	}
	return app
}

func (a apps) names() []string { return a.that(func(topology.App) bool { return true }) }

// that names the apps of which is holds.
func (a apps) that(is func(topology.App) bool) []string {
	var names []string
	for _, app := range a {
		if is(app) {
			names = append(names, app.Name)
		}
	}
	return names
}

func hasPage(a topology.App) bool          { return a.Page != "" }
func callsOne(a topology.App) bool         { return a.MaxCalls == 1 }
func needsCall(a topology.App) bool        { return a.MinCalls > 0 }
func verifiesDatabase(a topology.App) bool { return a.VerifiesDatabase }
func lendsDatabase(a topology.App) bool    { return a.LendsDatabase }
func borrowsDatabase(a topology.App) bool  { return a.BorrowsDatabase }
func hasName(a topology.App) bool          { return slices.ContainsFunc(a.DNSNames, ofTrustDomain) }

// fitsHost reports whether an app can run outside Kubernetes: it has nothing next to
// it, and nothing of its registration is made of its pods.
func fitsHost(a topology.App) bool {
	return a.Database == "" && len(a.Optional) == 0 && len(a.Labels) == 0 && !a.Regional && a.DNSNames == nil && a.Selectors == nil
}

// trustDomainField is how the DNS names of an app have its trust domain.
const trustDomainField = "{{ .TrustDomain }}"

func ofTrustDomain(dnsName string) bool { return strings.Contains(dnsName, trustDomainField) }

// paths are those that apps answer themselves and do not pass on to whom they call.
func (a apps) paths() []string {
	var paths []string
	for _, app := range a {
		paths = append(paths, app.OwnPaths...)
	}
	return paths
}

// behindPaths reports whether an app that passes requests on calls this one.
func (a apps) behindPaths(called topology.App) bool {
	return slices.ContainsFunc(a, func(by topology.App) bool { return len(by.OwnPaths) > 0 && slices.Contains(by.Calls, called.Name) })
}

// answers names the app that calls a workload and answers for the workload's name
// itself; empty for none.
func (a apps) answers(w Workload) string {
	for _, by := range a {
		if slices.Contains(by.OwnPaths, w.Name) && slices.Contains(by.Calls, w.App) {
			return by.Name
		}
	}
	return ""
}

// listed writes the apps of which is holds as the reference page has them.
func (a apps) listed(is func(topology.App) bool) string {
	names := a.that(is)
	if len(names) == 0 {
		return "no app"
	}
	last := len(names) - 1
	if last == 0 {
		return "`" + names[0] + "`"
	}
	return "`" + strings.Join(names[:last], "`, `") + "` and `" + names[last] + "`"
}

// lives lists the apps whose X509-SVIDs have a life of their own.
func (a apps) lives() string {
	var lives []string
	for _, app := range a {
		if app.X509SVIDTTL > 0 {
			lives = append(lives, fmt.Sprintf("`%s` %s", app.Name, Duration(app.X509SVIDTTL)))
		}
	}
	return strings.Join(lives, ", ")
}
