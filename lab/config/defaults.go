package config

import (
	"cmp"
	"errors"
	"path/filepath"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// complete returns the lab with every default written out; the only place where
// a default is put in. It keeps the index of each entry, so that paths into the
// file stay right, and bears a lab that is not valid.
func (a apps) complete(l Lab) Lab {
	l.Spec.TrustDomains = slices.Clone(l.Spec.TrustDomains)
	for _, name := range l.Spec.trustDomainNames() {
		if !slices.ContainsFunc(l.Spec.TrustDomains, func(td TrustDomain) bool { return td.Name == name }) {
			l.Spec.TrustDomains = append(l.Spec.TrustDomains, TrustDomain{Name: name})
		}
	}
	for i, td := range l.Spec.TrustDomains {
		l.Spec.TrustDomains[i] = completeTrustDomain(td)
		if clusters := l.Spec.clustersOf(td.Name); len(clusters) > 1 {
			l.Spec.TrustDomains[i].ServerCluster = cmp.Or(td.ServerCluster, clusters[0])
			l.Spec.TrustDomains[i].BundlePlugin = cmp.Or(td.BundlePlugin, defaultBundlePlugin)
		}
	}
	l.Spec.Federation = completeFederation(l.Spec)
	l.Spec.Workloads = slices.Clone(l.Spec.Workloads)
	for i := range l.Spec.Workloads {
		w := &l.Spec.Workloads[i]
		w.Name = cmp.Or(w.Name, w.App)
		w.Identity = completeIdentity(w.Identity)
		if w.Check != nil {
			w.Check = &Check{Path: w.Check.Path, Port: cmp.Or(w.Check.Port, w.Port), As: w.Check.As}
		}
	}
	l.Spec.Registrations = slices.Clone(l.Spec.Registrations)
	for i := range l.Spec.Registrations {
		r := &l.Spec.Registrations[i]
		if clusters := l.Spec.clustersOf(r.TrustDomain); r.Cluster == "" && len(clusters) > 0 {
			r.Cluster = clusters[0]
			if at := l.Spec.settingsOf(r.TrustDomain); at >= 0 {
				r.Cluster = cmp.Or(l.Spec.TrustDomains[at].ServerCluster, clusters[0])
			}
		}
	}
	trust := trustOf(l.Spec.relationships())
	for i := range l.Spec.Workloads {
		if w := &l.Spec.Workloads[i]; w.Calls == nil {
			w.Calls = a.defaultCalls(l.Spec, *w, trust)
		}
	}
	return l
}

// completeFederation follows the endpoints of complete trust domains. An entry
// whose directions have endpoints of both profiles keeps its profile unwritten:
// no single one would be right.
func completeFederation(s Spec) []Federation {
	s.Federation = slices.Clone(s.Federation)
	for i := range s.Federation {
		f := &s.Federation[i]
		f.Mode = cmp.Or(f.Mode, defaultMode)
		if f.Shape != "" && f.Shape != tree && f.Of == nil {
			f.Of = s.trustDomainNames()
		}
		if f.From != "" && f.To != "" && s.endpointProfile(f.To) == string(topology.HTTPSSPIFFE) {
			f.EndpointSPIFFEID = cmp.Or(f.EndpointSPIFFEID, serverID(f.To))
		}
	}
	profiles := make([][]string, len(s.Federation))
	for _, r := range s.relationships() {
		if p := s.endpointProfile(r.trusted); !slices.Contains(profiles[r.entry], p) {
			profiles[r.entry] = append(profiles[r.entry], p)
		}
	}
	for i := range s.Federation {
		if f := &s.Federation[i]; len(profiles[i]) == 1 {
			f.Profile = cmp.Or(f.Profile, profiles[i][0])
		}
	}
	return s.Federation
}

// trustDomainNames returns the trust domains of the clusters, in their order, and then
// those of hosts alone.
func (s Spec) trustDomainNames() []string {
	var names []string
	add := func(td string) {
		if td != "" && !slices.Contains(names, td) {
			names = append(names, td)
		}
	}
	for _, c := range s.Clusters {
		for _, td := range c.domains() {
			add(td)
		}
	}
	for _, h := range s.Hosts {
		add(h.TrustDomain)
	}
	return names
}

// hostsOf returns the hosts that name a trust domain, in their order.
func (s Spec) hostsOf(trustDomain string) []string {
	var names []string
	for _, h := range s.Hosts {
		if h.TrustDomain == trustDomain {
			names = append(names, h.Name)
		}
	}
	return names
}

// servedOnHost reports whether the server of a trust domain is on a host.
func (s Spec) servedOnHost(trustDomain string) bool {
	return len(s.clustersOf(trustDomain)) == 0 && len(s.hostsOf(trustDomain)) > 0
}

// clustersOf returns the clusters that name a trust domain, in their order.
func (s Spec) clustersOf(trustDomain string) []string {
	var names []string
	for _, c := range s.Clusters {
		if slices.Contains(c.domains(), trustDomain) {
			names = append(names, c.Name)
		}
	}
	return names
}

// endpointProfile returns the profile of a trust domain's bundle endpoint; empty
// for one that there is not.
func (s Spec) endpointProfile(trustDomain string) string {
	i := s.settingsOf(trustDomain)
	if i < 0 {
		return ""
	}
	return s.TrustDomains[i].BundleEndpoint.Profile
}

func completeTrustDomain(td TrustDomain) TrustDomain {
	e := &td.BundleEndpoint
	e.Profile = cmp.Or(e.Profile, defaultProfile)
	e.Port = cmp.Or(e.Port, defaultPort)
	e.RefreshHint = cmp.Or(e.RefreshHint, defaultRefreshHint)
	if e.HTTPSWeb != nil && e.HTTPSWeb.ServingCert != nil {
		cert := *e.HTTPSWeb.ServingCert
		if cert.ExternalSecretRef == "" {
			cert.TTL = cmp.Or(cert.TTL, defaultServingCertTTL)
		}
		cert.FileSyncInterval = cmp.Or(cert.FileSyncInterval, defaultFileSync)
		cert.ShortIntervals = cmp.Or(cert.ShortIntervals, new(bool))
		e.HTTPSWeb = &HTTPSWeb{ServingCert: &cert, ACME: e.HTTPSWeb.ACME}
	}

	if td.OIDCDiscovery != nil {
		td.OIDCDiscovery = &OIDCDiscovery{PollInterval: cmp.Or(td.OIDCDiscovery.PollInterval, defaultPollInterval)}
	}
	if e.HTTPSWeb != nil && e.HTTPSWeb.ACME != nil {
		acme := *e.HTTPSWeb.ACME
		acme.TTL = cmp.Or(acme.TTL, defaultServingCertTTL)
		e.HTTPSWeb = &HTTPSWeb{ServingCert: e.HTTPSWeb.ServingCert, ACME: &acme}
		e.Host = cmp.Or(e.Host, acme.DomainName)
	}
	td.CA.TTL = cmp.Or(td.CA.TTL, defaultCATTL)
	td.CA.KeyType = cmp.Or(td.CA.KeyType, defaultKeyType)
	td.CA.JWTKeyType = cmp.Or(td.CA.JWTKeyType, td.CA.KeyType)
	s := &td.CA.Subject
	s.Country = cmp.Or(s.Country, defaultCountry)
	s.Organization = cmp.Or(s.Organization, defaultOrganization)
	if utf8.RuneCountInString(td.Name) <= maxSubject {
		s.CommonName = cmp.Or(s.CommonName, td.Name)
	}

	td.SVID.X509TTL = cmp.Or(td.SVID.X509TTL, min(defaultX509TTL, longestSVID(td.CA.TTL)))
	td.SVID.JWTTTL = cmp.Or(td.SVID.JWTTTL, min(defaultJWTTTL, longestSVID(td.CA.TTL)))
	td.LogLevel = cmp.Or(td.LogLevel, defaultLogLevel)
	td.ServerReplicas = cmp.Or(td.ServerReplicas, 1)
	td.Datastore = cmp.Or(td.Datastore, defaultDatastore)
	td.UpstreamAuthority = cmp.Or(td.UpstreamAuthority, defaultUpstream)
	return td
}

func completeIdentity(is *Identity) *Identity {
	if is == nil {
		return nil
	}
	complete := *is
	complete.ServiceAccount = cmp.Or(is.ServiceAccount, defaultServiceAccount)
	complete.Path = cmp.Or(is.Path, "/ns/"+is.Namespace+"/sa/"+complete.ServiceAccount)
	return &complete
}

// longestSVID returns how long an SVID can live without ever being cut short by
// a rotation of its authority, in whole seconds.
func longestSVID(ca Duration) Duration {
	return min(ca/svidsPerCA/Duration(time.Second)*Duration(time.Second), maxSVIDTTL)
}

// callees returns the workloads that w may call: by what its app calls, or, for a
// program of one's own, all that can be called.
func (a apps) callees(s Spec, w Workload) []Workload {
	app, _ := a.of(w)
	var callees []Workload
	for _, other := range s.Workloads {
		called, _ := a.of(other)
		if (slices.Contains(app.Calls, other.App) || w.own() && called.Port > 0) && other.Name != w.Name {
			callees = append(callees, other)
		}
	}
	return callees
}

// defaultCalls names whom w calls unless its entry says it. A program of one's own
// calls nobody then. An app without a
// limit calls whomever it can. One with a limit calls all that there are, trusted
// or not, so that missing trust is told and not worked around; where there are
// more than it can call, the file has to say which.
func (a apps) defaultCalls(s Spec, w Workload, trust trust) Names {
	if w.own() {
		return Names{}
	}
	app, _ := a.of(w)
	callees := a.callees(s, w)
	if app.MaxCalls > 0 && len(callees) > app.MaxCalls {
		return nil
	}
	var names Names
	for _, callee := range callees {
		if app.MaxCalls > 0 || trust.mutual(s.home(w), s.home(callee)) {
			names = append(names, callee.Name)
		}
	}
	return names
}

// homes returns the trust domains that a workload may belong to: those of its
// cluster or host. There are none when that is not known.
func (s Spec) homes(w Workload) []string {
	if w.Host != "" {
		i := slices.IndexFunc(s.Hosts, func(h Host) bool { return h.Name == w.Host })
		if i < 0 {
			return nil
		}
		return []string{s.Hosts[i].TrustDomain}
	}
	i := slices.IndexFunc(s.Clusters, func(c Cluster) bool { return c.Name == w.Cluster })
	if i < 0 {
		return nil
	}
	return s.Clusters[i].domains()
}

// home returns the trust domain that a workload belongs to; empty when it is not
// known.
func (s Spec) home(w Workload) string {
	homes := s.homes(w)
	switch {
	case slices.Contains(homes, w.TrustDomain):
		return w.TrustDomain
	case len(homes) == 1 && w.TrustDomain == "":
		return homes[0]
	}
	return ""
}

// within returns the lab with absolute paths, of paths relative to a folder.
func (l Lab) within(folder string) (Lab, error) {
	var errs []error
	absolute := func(p string) string {
		if p == "" || filepath.IsAbs(p) {
			return p
		}
		abs, err := filepath.Abs(filepath.Join(folder, p))
		errs = append(errs, err)
		return abs
	}
	l.Spec.TrustDomains = slices.Clone(l.Spec.TrustDomains)
	for i := range l.Spec.TrustDomains {
		if web := l.Spec.TrustDomains[i].BundleEndpoint.HTTPSWeb; web != nil && web.ServingCert != nil {
			cert := *web.ServingCert
			cert.Cert, cert.Key, cert.CA = absolute(cert.Cert), absolute(cert.Key), absolute(cert.CA)
			l.Spec.TrustDomains[i].BundleEndpoint.HTTPSWeb = &HTTPSWeb{ServingCert: &cert, ACME: web.ACME}
		}
	}
	l.Spec.Workloads = slices.Clone(l.Spec.Workloads)
	for i := range l.Spec.Workloads {
		w := &l.Spec.Workloads[i]
		w.Chart, w.Manifests = absolute(w.Chart), absolute(w.Manifests)
		w.Images = slices.Clone(w.Images)
		for j := range w.Images {
			w.Images[j].Go, w.Images[j].Archive = absolute(w.Images[j].Go), absolute(w.Images[j].Archive)
		}
	}
	return l, errors.Join(errs...)
}
