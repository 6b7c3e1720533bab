package config

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Topology returns what the lab is meant to be. The lab has to be complete and
// valid, as Read returns it; what does not parse is an error.
func (l Lab) Topology() (topology.Topology, error) {
	t := topology.Topology{Name: l.Metadata.Name}
	for i, c := range l.Spec.Clusters {
		t.Clusters = append(t.Clusters, topology.NewCluster(c.Name, i))
		td, err := l.trustDomain(c)
		if err != nil {
			return topology.Topology{}, err
		}
		t.TrustDomains = append(t.TrustDomains, td)
	}
	for _, f := range l.Spec.Federation {
		for _, d := range f.directions() {
			truster, err := spiffeid.TrustDomainFromString(d.truster)
			if err != nil {
				return topology.Topology{}, err
			}
			trusted, err := spiffeid.TrustDomainFromString(d.trusted)
			if err != nil {
				return topology.Topology{}, err
			}
			t.Relationships = append(t.Relationships, topology.Relationship{
				Truster: truster, Trusted: trusted, Profile: topology.EndpointProfile(f.Profile),
			})
		}
	}
	for _, w := range l.Spec.Workloads {
		workload, err := w.topology()
		if err != nil {
			return topology.Topology{}, err
		}
		t.Workloads = append(t.Workloads, workload)
	}
	return t, nil
}

// trustDomain returns the trust domain of a cluster.
func (l Lab) trustDomain(c Cluster) (topology.TrustDomain, error) {
	name, err := spiffeid.TrustDomainFromString(c.TrustDomain)
	if err != nil {
		return topology.TrustDomain{}, err
	}
	i := slices.IndexFunc(l.Spec.TrustDomains, func(td TrustDomain) bool { return td.Name == c.TrustDomain })
	if i < 0 {
		return topology.TrustDomain{}, fmt.Errorf("trust domain %s of cluster %s has no settings", c.TrustDomain, c.Name)
	}
	td := l.Spec.TrustDomains[i]
	return topology.TrustDomain{
		Name:    name,
		Cluster: c.Name,
		BundleEndpoint: topology.BundleEndpoint{
			Profile:     topology.EndpointProfile(td.BundleEndpoint.Profile),
			Port:        td.BundleEndpoint.Port,
			RefreshHint: time.Duration(td.BundleEndpoint.RefreshHint),
		},
		CATTL:       time.Duration(td.CA.TTL),
		X509SVIDTTL: time.Duration(td.SVID.X509TTL),
		JWTSVIDTTL:  time.Duration(td.SVID.JWTTTL),
		CASubject: topology.CASubject{
			Country:      td.CA.Subject.Country,
			Organization: td.CA.Subject.Organization,
			CommonName:   td.CA.Subject.CommonName,
		},
		JWTIssuer: td.JWTIssuer,
		LogLevel:  td.LogLevel,
	}, nil
}

func (w Workload) topology() (topology.Workload, error) {
	app, ok := appOf(w)
	if !ok {
		return topology.Workload{}, fmt.Errorf("workload %s: there is no app %q", w.Name, w.App)
	}
	out := topology.Workload{Name: w.Name, App: app, Cluster: w.Cluster}
	if w.Expose != "" {
		at, err := netip.ParseAddrPort(w.Expose)
		if err != nil {
			return topology.Workload{}, fmt.Errorf("workload %s: %w", w.Name, err)
		}
		out.Expose = at
	}
	if w.Calls != "" {
		out.Calls = []string{w.Calls}
	}
	return out, nil
}

// direction is one relationship as the file writes it.
type direction struct{ truster, trusted string }

// directions returns the relationships that an entry stands for; none when it is
// not written out.
func (f Federation) directions() []direction {
	switch {
	case len(f.Between) == 2:
		a, b := f.Between[0], f.Between[1]
		return []direction{{a, b}, {b, a}}
	case f.From != "" && f.To != "":
		return []direction{{f.From, f.To}}
	}
	return nil
}
