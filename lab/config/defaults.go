package config

import (
	"cmp"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// complete returns the lab with every default written out; the only place where
// a default is put in. It keeps the index of each entry, so that paths into the
// file stay right, and bears a lab that is not valid.
func complete(l Lab) Lab {
	l.Spec.TrustDomains = slices.Clone(l.Spec.TrustDomains)
	for _, c := range l.Spec.Clusters {
		named := slices.ContainsFunc(l.Spec.TrustDomains, func(td TrustDomain) bool { return td.Name == c.TrustDomain })
		if !named && c.TrustDomain != "" {
			l.Spec.TrustDomains = append(l.Spec.TrustDomains, TrustDomain{Name: c.TrustDomain})
		}
	}
	for i, td := range l.Spec.TrustDomains {
		l.Spec.TrustDomains[i] = completeTrustDomain(td)
	}
	l.Spec.Federation = slices.Clone(l.Spec.Federation)
	for i := range l.Spec.Federation {
		f := &l.Spec.Federation[i]
		f.Profile = cmp.Or(f.Profile, defaultProfile)
	}
	l.Spec.Workloads = slices.Clone(l.Spec.Workloads)
	for i := range l.Spec.Workloads {
		w := &l.Spec.Workloads[i]
		w.Name = cmp.Or(w.Name, w.App)
	}
	for i := range l.Spec.Workloads {
		w := &l.Spec.Workloads[i]
		if callees := callees(l, *w); w.Calls == "" && len(callees) == 1 {
			w.Calls = callees[0]
		}
	}
	return l
}

func completeTrustDomain(td TrustDomain) TrustDomain {
	e := &td.BundleEndpoint
	e.Profile = cmp.Or(e.Profile, defaultProfile)
	e.Port = cmp.Or(e.Port, defaultPort)
	e.RefreshHint = cmp.Or(e.RefreshHint, defaultRefreshHint)

	td.CA.TTL = cmp.Or(td.CA.TTL, defaultCATTL)
	s := &td.CA.Subject
	s.Country = cmp.Or(s.Country, defaultCountry)
	s.Organization = cmp.Or(s.Organization, defaultOrganization)
	if utf8.RuneCountInString(td.Name) <= maxSubject {
		s.CommonName = cmp.Or(s.CommonName, td.Name)
	}

	td.SVID.X509TTL = cmp.Or(td.SVID.X509TTL, min(defaultX509TTL, longestSVID(td.CA.TTL)))
	td.SVID.JWTTTL = cmp.Or(td.SVID.JWTTTL, min(defaultJWTTTL, longestSVID(td.CA.TTL)))
	td.LogLevel = cmp.Or(td.LogLevel, defaultLogLevel)
	return td
}

// longestSVID returns how long an SVID can live without ever being cut short by
// a rotation of its authority, in whole seconds.
func longestSVID(ca Duration) Duration {
	return min(ca/svidsPerCA/Duration(time.Second)*Duration(time.Second), maxSVIDTTL)
}

// appOf returns the demo program that a workload runs.
func appOf(w Workload) (topology.App, bool) {
	apps := topology.Apps()
	i := slices.IndexFunc(apps, func(a topology.App) bool { return a.Name == w.App })
	if i < 0 {
		return topology.App{}, false
	}
	return apps[i], true
}

// callees names the workloads that w may call, by what its app calls.
func callees(l Lab, w Workload) []string {
	app, _ := appOf(w)
	if app.Calls == "" {
		return nil
	}
	var names []string
	for _, other := range l.Spec.Workloads {
		if other.App == app.Calls {
			names = append(names, other.Name)
		}
	}
	return names
}
