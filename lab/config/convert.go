package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Topology returns what the lab is meant to be, with the addresses of a lab that
// is not there yet (topology.Placed). The lab has to be complete and valid, as
// Read returns it; what does not parse is an error.
func (f *Format) Topology(l Lab) (topology.Topology, error) {
	t := topology.Topology{Name: l.Metadata.Name}
	for i, c := range l.Spec.Clusters {
		t.Clusters = append(t.Clusters, topology.NewCluster(c.Name, i))
	}
	for i, h := range l.Spec.Hosts {
		t.Hosts = append(t.Hosts, topology.HostSpec{Name: h.Name, Index: len(t.Clusters) + i})
	}
	for _, name := range l.Spec.trustDomainNames() {
		td, err := l.trustDomain(name)
		if err != nil {
			return topology.Topology{}, err
		}
		t.TrustDomains = append(t.TrustDomains, td)
	}
	for _, r := range l.Spec.relationships() {
		truster, err := spiffeid.TrustDomainFromString(r.truster)
		if err != nil {
			return topology.Topology{}, err
		}
		trusted, err := spiffeid.TrustDomainFromString(r.trusted)
		if err != nil {
			return topology.Topology{}, err
		}
		t.Relationships = append(t.Relationships, topology.RelationshipSpec{
			Truster: truster,
			Trusted: trusted,
			Profile: topology.EndpointProfile(l.Spec.endpointProfile(r.trusted)),
			Mode:    l.Spec.mode(r),
		})
	}
	for _, w := range l.Spec.Workloads {
		workload, err := f.apps.workload(w)
		if err != nil {
			return topology.Topology{}, err
		}
		t.Workloads = append(t.Workloads, workload)
	}
	for _, r := range l.Spec.Registrations {
		registration, err := r.spec()
		if err != nil {
			return topology.Topology{}, fmt.Errorf("registration %s: %w", r.Name, err)
		}
		t.Registrations = append(t.Registrations, registration)
	}
	return t.WithCheckers().WithACMEServer().Placed(topology.Topology{}), nil
}

// mode returns how the truster of a relationship comes to have it.
func (s Spec) mode(r relationship) topology.Mode {
	mode := topology.Mode(s.Federation[r.entry].Mode)
	if mode == topology.CRD && s.servedOnHost(r.truster) {
		return topology.API
	}
	return mode
}

// trustDomain returns a trust domain that clusters or hosts name.
func (l Lab) trustDomain(of string) (topology.TrustDomainSpec, error) {
	name, err := spiffeid.TrustDomainFromString(of)
	if err != nil {
		return topology.TrustDomainSpec{}, err
	}
	i := slices.IndexFunc(l.Spec.TrustDomains, func(td TrustDomain) bool { return td.Name == of })
	if i < 0 {
		return topology.TrustDomainSpec{}, fmt.Errorf("trust domain %s has no settings", of)
	}
	td, clusters, hosts := l.Spec.TrustDomains[i], l.Spec.clustersOf(of), l.Spec.hostsOf(of)
	spec := topology.TrustDomainSpec{Name: name, Settings: td.settings()}
	switch {
	case len(clusters) > 0:
		spec.Cluster = cmp.Or(td.ServerCluster, clusters[0])
	case len(hosts) > 0:
		spec.Host, hosts = hosts[0], hosts[1:]
	default:
		return topology.TrustDomainSpec{}, fmt.Errorf("trust domain %s is nowhere", of)
	}
	for _, cluster := range clusters {
		if cluster != spec.Cluster {
			spec.Members = append(spec.Members, topology.MemberSpec{Cluster: cluster, Nested: slices.Contains(td.NestedServers, cluster)})
		}
	}
	for _, host := range hosts {
		spec.Members = append(spec.Members, topology.MemberSpec{Host: host})
	}
	return spec, nil
}

// settings returns how the trust domain and its server are set up.
func (td TrustDomain) settings() topology.Settings {
	return topology.Settings{
		BundleEndpoint: topology.BundleEndpoint{
			Profile:     topology.EndpointProfile(td.BundleEndpoint.Profile),
			Host:        td.BundleEndpoint.Host,
			Port:        td.BundleEndpoint.Port,
			Route:       topology.Route(td.BundleEndpoint.Route),
			Path:        td.BundleEndpoint.Path,
			RefreshHint: time.Duration(td.BundleEndpoint.RefreshHint),
			ServingCert: td.BundleEndpoint.servingCert(),
			ACME:        td.BundleEndpoint.acme(),
		},
		CATTL:       time.Duration(td.CA.TTL),
		X509SVIDTTL: time.Duration(td.SVID.X509TTL),
		JWTSVIDTTL:  time.Duration(td.SVID.JWTTTL),
		CASubject: topology.CASubject{
			Country:      td.CA.Subject.Country,
			Organization: td.CA.Subject.Organization,
			CommonName:   td.CA.Subject.CommonName,
		},
		CAKeyType:         keyTypeIn(td.CA.KeyType, defaultKeyType),
		JWTKeyType:        keyTypeIn(td.CA.JWTKeyType, td.CA.KeyType),
		JWTIssuer:         td.JWTIssuer,
		OIDCDiscovery:     td.OIDCDiscovery.settings(),
		SPIREVersion:      versionIn(td.SPIRE.Version),
		AgentVersion:      versionIn(cmp.Or(td.SPIRE.AgentVersion, td.SPIRE.Version)),
		LogLevel:          td.LogLevel,
		EntryPrefix:       td.EntryPrefix,
		Replicas:          replicasIn(td.ServerReplicas),
		BundlePlugin:      topology.BundlePlugin(td.BundlePlugin),
		Datastore:         topology.Datastore(td.Datastore),
		UpstreamAuthority: topology.UpstreamAuthority(td.UpstreamAuthority),
	}
}

// settings returns how the documents of an issuer are served; the zero value where nobody
// serves them.
func (d *OIDCDiscovery) settings() topology.OIDCDiscovery {
	if d == nil {
		return topology.OIDCDiscovery{}
	}
	return topology.OIDCDiscovery{PollInterval: time.Duration(d.PollInterval)}
}

// versionIn returns a version of SPIRE as a topology has it.
func versionIn(written string) string {
	if written == topology.SPIREVersion {
		return ""
	}
	return written
}

// replicasIn returns a number of replicas as a topology has it.
func replicasIn(written int) int {
	if written == 1 {
		return 0
	}
	return written
}

// keyTypeIn returns a type of key as a topology has it: none where it is the type that
// holds without a word. So a lab that asks for nothing else stays as it is.
func keyTypeIn(written, implied string) topology.KeyType {
	if written == implied {
		return ""
	}
	return topology.KeyType(written)
}

// acme returns how the endpoint has its certificate by ACME; nil where it has not.
func (e BundleEndpoint) acme() *topology.ACME {
	if e.HTTPSWeb == nil || e.HTTPSWeb.ACME == nil {
		return nil
	}
	return &topology.ACME{Email: e.HTTPSWeb.ACME.Email, TTL: time.Duration(e.HTTPSWeb.ACME.TTL)}
}

// servingCert returns the certificate of the endpoint; none with https_spiffe.
func (e BundleEndpoint) servingCert() topology.ServingCert {
	if e.HTTPSWeb == nil || e.HTTPSWeb.ServingCert == nil {
		return topology.ServingCert{}
	}
	cert := e.HTTPSWeb.ServingCert
	serving := topology.ServingCert{TTL: time.Duration(cert.TTL), FileSyncInterval: time.Duration(cert.FileSyncInterval)}
	if cert.ExternalSecretRef != "" {
		serving.Own = &topology.OwnCertificate{Secret: cert.ExternalSecretRef, Certificate: cert.Cert, Key: cert.Key, CA: cert.CA}
	}
	return serving
}

func (a apps) workload(w Workload) (topology.WorkloadSpec, error) {
	app, ok := a.of(w)
	if !ok {
		return topology.WorkloadSpec{}, fmt.Errorf("workload %s: there is no app %q", w.Name, w.App)
	}
	out := topology.WorkloadSpec{Name: w.Name, App: app, Cluster: w.Cluster, Host: w.Host, Calls: w.Calls, DatabaseTLS: w.DatabaseTLS, LegacyDatabase: w.LegacyDatabase}
	if w.TrustDomain != "" {
		td, err := spiffeid.TrustDomainFromString(w.TrustDomain)
		if err != nil {
			return topology.WorkloadSpec{}, fmt.Errorf("workload %s: %w", w.Name, err)
		}
		out.TrustDomain = td
	}
	if w.own() {
		own, err := w.ownProgram()
		if err != nil {
			return topology.WorkloadSpec{}, fmt.Errorf("workload %s: %w", w.Name, err)
		}
		out.Own = own
	}
	if w.Expose != "" {
		at, err := netip.ParseAddrPort(w.Expose)
		if err != nil {
			return topology.WorkloadSpec{}, fmt.Errorf("workload %s: %w", w.Name, err)
		}
		out.Expose = at
	}
	return out, nil
}

func (w Workload) ownProgram() (*topology.Own, error) {
	own := &topology.Own{Chart: w.Chart, Manifests: w.Manifests, Values: w.Values}
	for _, image := range w.Images {
		own.Images = append(own.Images, topology.OwnImage(image))
	}
	if w.Check != nil {
		own.Check = &topology.OwnCheck{Path: w.Check.Path, Port: w.Check.Port}
		if w.Check.As != "" {
			td, err := spiffeid.TrustDomainFromString(w.Check.As)
			if err != nil {
				return nil, err
			}
			own.Check.As = td
		}
	}
	if w.Identity == nil {
		return own, nil
	}
	own.Hint = w.Identity.Hint
	if w.Identity.FederatesWith == nil {
		return own, nil
	}
	own.FederatesWith = []spiffeid.TrustDomain{}
	for _, name := range w.Identity.FederatesWith {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return nil, err
		}
		own.FederatesWith = append(own.FederatesWith, td)
	}
	return own, nil
}

func (r Registration) spec() (topology.RegistrationSpec, error) {
	td, err := spiffeid.TrustDomainFromString(r.TrustDomain)
	if err != nil {
		return topology.RegistrationSpec{}, err
	}
	spec := topology.RegistrationSpec{Name: r.Name, TrustDomain: td, Cluster: r.Cluster}
	names, _ := r.federatesWith()
	if spec.FederatesWith, err = trustDomainsOf(names); err != nil {
		return spec, err
	}
	if x := r.ClusterSPIFFEID; x != nil {
		spec.Kind, spec.IDTemplate, spec.Fallback, spec.ServiceNames = topology.ClusterSPIFFEID, x.SPIFFEIDTemplate, x.Fallback, x.AutoPopulateDNSNames
		spec.Namespaces, spec.Pods = x.NamespaceSelector.labels(), x.PodSelector.labels()
		spec.Selectors, spec.DNSNames, spec.Hint = x.WorkloadSelectorTemplates, x.DNSNameTemplates, x.Hint
		spec.X509SVIDTTL, spec.JWTSVIDTTL, spec.Admin, spec.Downstream = time.Duration(x.TTL), time.Duration(x.JWTTTL), x.Admin, x.Downstream
		return spec, nil
	}
	x, _ := r.entry()
	spec.Kind = topology.ClusterStaticEntry
	if r.Entry != nil {
		spec.Kind = topology.PlainEntry
	}
	spec.Selectors, spec.DNSNames, spec.Hint = x.Selectors, x.DNSNames, x.Hint
	spec.X509SVIDTTL, spec.JWTSVIDTTL, spec.Admin, spec.Downstream = time.Duration(x.X509SVIDTTL), time.Duration(x.JWTSVIDTTL), x.Admin, x.Downstream
	if spec.ID, err = spiffeid.FromString(x.SPIFFEID); err != nil {
		return spec, err
	}
	spec.ParentID, err = spiffeid.FromString(x.ParentID)
	return spec, err
}

func (s *LabelSelector) labels() map[string]string {
	if s == nil {
		return nil
	}
	return s.MatchLabels
}

func trustDomainsOf(names []string) (all []spiffeid.TrustDomain, err error) {
	for _, name := range names {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return nil, err
		}
		all = append(all, td)
	}
	return all, nil
}
