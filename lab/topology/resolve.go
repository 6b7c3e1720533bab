package topology

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Resolve makes the graph of a lab whose parts have their places (Topology.Placed). A
// network of the zero value leaves out all addresses. The error names what t refers
// to and does not have, or says why the lab does not fit into the network.
func Resolve(t Topology, network netip.Prefix) (*Graph, error) {
	if err := t.fits(network); err != nil {
		return nil, err
	}
	r := resolver{
		Graph:    &Graph{Name: t.Name, Network: network, intent: t},
		clusters: map[string]*Cluster{}, hosts: map[string]*Host{}, domains: map[spiffeid.TrustDomain]*Domain{}, workloads: map[string]*Workload{},
	}
	for _, resolve := range []func() error{r.resolveClusters, r.resolveHosts, r.resolveDomains, r.resolveACMEServer, r.webServersApart, r.resolveTrusts, r.resolveWorkloads, r.resolveRegistrations, r.resolveCalls} {
		if err := resolve(); err != nil {
			return nil, err
		}
	}
	for _, w := range r.Workloads {
		w.FederatesWith = needs(w)
	}
	return r.Graph, nil
}

// resolver is a graph that is being made: names stand for parts here, and nowhere
// afterwards.
type resolver struct {
	*Graph
	clusters  map[string]*Cluster
	hosts     map[string]*Host
	domains   map[spiffeid.TrustDomain]*Domain
	workloads map[string]*Workload
}

func (r *resolver) resolveClusters() error {
	for _, spec := range r.intent.Clusters {
		if r.clusters[spec.Name] != nil {
			return fmt.Errorf("lab %s has two clusters %q", r.Name, spec.Name)
		}
		c := &Cluster{ClusterSpec: spec, Lab: r.Name, Pool: pool(r.Network, spec.Index)}
		r.Clusters, r.clusters[spec.Name] = append(r.Clusters, c), c
	}
	return nil
}

func (r *resolver) resolveHosts() error {
	for _, spec := range r.intent.Hosts {
		if r.clusters[spec.Name] != nil || r.hosts[spec.Name] != nil {
			return fmt.Errorf("lab %s has host %q and another host or cluster of that name", r.Name, spec.Name)
		}
		h := &Host{HostSpec: spec, Lab: r.Name, Pool: pool(r.Network, spec.Index)}
		r.Hosts, r.hosts[spec.Name] = append(r.Hosts, h), h
	}
	return nil
}

func (r *resolver) resolveDomains() error {
	for _, spec := range r.intent.TrustDomains {
		if r.domains[spec.Name] != nil {
			return fmt.Errorf("lab %s has two trust domains %q", r.Name, spec.Name.Name())
		}
		d := &Domain{Name: spec.Name, Settings: spec.Settings}
		s := &Server{Domain: d}
		d.Servers = []*Server{s}
		if err := r.resolveServer(s, MemberSpec{Cluster: spec.Cluster, Host: spec.Host, Slot: spec.Slot}); err != nil {
			return err
		}
		s.Address = s.Place.pool().at(firstServer + spec.Slot)
		if err := r.resolveDiscovery(d, spec); err != nil {
			return s.refused(err)
		}
		if d.BundleEndpoint.Route != "" {
			d.Proxy = &Proxy{Domain: d, Address: s.Place.pool().at(lastDiscovery - spec.ProxySlot)}
		}
		for _, member := range spec.Members {
			resolve := r.resolveMember
			if member.Nested {
				resolve = r.resolveNested
			}
			if err := resolve(s, member); err != nil {
				return err
			}
		}
		r.Domains, r.domains[spec.Name] = append(r.Domains, d), d
	}
	for _, s := range r.Servers() {
		if s.Nested() {
			link := s.Link
			link.Cluster().Members = append(link.Cluster().Members, link)
		}
	}
	return nil
}

// resolveDiscovery gives a trust domain its OIDC discovery provider, where it has one.
func (r *resolver) resolveDiscovery(d *Domain, spec TrustDomainSpec) error {
	if spec.OIDCDiscovery.PollInterval == 0 {
		return nil
	}
	issuer, err := url.Parse(spec.JWTIssuer)
	if err != nil {
		return fmt.Errorf("issuer %q: %w", spec.JWTIssuer, err)
	}
	d.Discovery = &Discovery{
		Domain: d, Issuer: spec.JWTIssuer, Host: issuer.Hostname(), Path: strings.TrimSuffix(issuer.Path, "/"), Port: 443,
		Address: d.Server().Place.pool().at(lastDiscovery - spec.DiscoverySlot), Member: d.Server().Home(),
	}
	if text := issuer.Port(); text != "" {
		if d.Discovery.Port, err = strconv.Atoi(text); err != nil {
			return fmt.Errorf("issuer %q: %w", spec.JWTIssuer, err)
		}
	}
	return nil
}

func (r *resolver) resolveACMEServer() error {
	spec := r.intent.ACMEServer
	if spec == nil {
		return nil
	}
	c := r.clusters[spec.Cluster]
	if c == nil {
		return fmt.Errorf("lab %s has an ACME server in cluster %q, which is not there", r.Name, spec.Cluster)
	}
	r.ACMEServer = &ACMEServer{ACMEServerSpec: *spec, Cluster: c, Address: c.Pool.at(lastDiscovery - spec.Slot)}
	return nil
}

// webServersApart returns nil when no web server of the lab has the address of a SPIRE
// server: the one are counted from the last address, the others from the first.
func (r *resolver) webServersApart() error {
	apart := func(c *Cluster, address netip.Addr, what string) error {
		for _, s := range c.Servers {
			if s.Address.IsValid() && s.Address == address {
				return fmt.Errorf("cluster %s of lab %s has no address left for %s", c.Name, r.Name, what)
			}
		}
		return nil
	}
	if a := r.ACMEServer; a != nil {
		if err := apart(a.Cluster, a.Address, "the ACME server"); err != nil {
			return err
		}
	}
	for _, d := range r.Discoveries() {
		if err := apart(d.Place().Cluster, d.Address, "the OIDC discovery provider of "+d.Domain.String()); err != nil {
			return err
		}
	}
	for _, p := range r.Proxies() {
		if err := apart(p.Place().Cluster, p.Address, "the proxy of "+p.Domain.String()); err != nil {
			return err
		}
	}
	return nil
}

// resolveServer gives a server its place, with its first member.
func (r *resolver) resolveServer(s *Server, spec MemberSpec) error {
	if err := r.resolveMember(s, spec); err != nil {
		return err
	}
	home := s.Home()
	s.Place, s.Class = home.Place, home.Class
	if host := home.Host(); host != nil {
		host.Server = s
	} else {
		home.Cluster().Servers = append(home.Cluster().Servers, s)
	}
	return nil
}

// resolveNested adds a nested server in a cluster, and to its upstream the member by
// which it gets there.
func (r *resolver) resolveNested(upstream *Server, spec MemberSpec) error {
	d := upstream.Domain
	s := &Server{Domain: d, Upstream: upstream}
	d.Servers = append(d.Servers, s)
	if err := r.resolveServer(s, spec); err != nil {
		return err
	}
	namespace := inSlot(UpstreamNamespace, spec.Slot)
	s.Link = &Member{
		Domain: d, Server: upstream, Downstream: s, Place: Place{Cluster: s.Place.Cluster, Namespace: namespace}, Class: namespace, slot: spec.Slot,
	}
	upstream.Members, d.Members = append(upstream.Members, s.Link), append(d.Members, s.Link)
	return nil
}

// resolveMember adds a cluster or a host to the trust domain of a server.
func (r *resolver) resolveMember(s *Server, spec MemberSpec) error {
	if spec.Host != "" {
		return r.resolveHostMember(s, spec.Host)
	}
	c := r.clusters[spec.Cluster]
	switch {
	case c == nil:
		return s.refused(&UnknownError{r.Name, "cluster", spec.Cluster})
	case spec.Slot >= MaxServers:
		return s.refused(fmt.Errorf("cluster %s of lab %s has more than %d trust domains", c.Name, r.Name, MaxServers))
	case slices.ContainsFunc(s.Domain.Members, func(m *Member) bool { return m.Cluster() == c }):
		return s.refused(fmt.Errorf("lab %s has it twice in cluster %s", r.Name, c.Name))
	}
	m := &Member{Place: Place{Cluster: c, Namespace: inSlot(ServerNamespace, spec.Slot)}, slot: spec.Slot}
	if spec.Slot > 0 {
		m.Class = m.Place.Namespace
	}
	c.Members = append(c.Members, m)
	s.join(m)
	return nil
}

func (r *resolver) resolveHostMember(s *Server, name string) error {
	h := r.hosts[name]
	switch {
	case h == nil:
		return s.refused(&UnknownError{r.Name, "host", name})
	case h.Member != nil:
		return s.refused(fmt.Errorf("host %s of lab %s has trust domain %s already", h.Name, r.Name, h.Member.Domain))
	}
	h.Member = &Member{Place: Place{Host: h}}
	s.join(h.Member)
	return nil
}

// refused says of which trust domain an error is.
func (s *Server) refused(err error) error { return fmt.Errorf("trust domain %s: %w", s.Domain, err) }

// join has the agents of a member attest to the server.
func (s *Server) join(m *Member) {
	m.Domain, m.Server = s.Domain, s
	s.Members, s.Domain.Members = append(s.Members, m), append(s.Domain.Members, m)
}

// domain returns the trust domain of a name that the lab file mentions.
func (r *resolver) domain(name spiffeid.TrustDomain) (*Domain, error) {
	if d := r.domains[name]; d != nil {
		return d, nil
	}
	return nil, &UnknownError{r.Name, "trust domain", name.Name()}
}

func (r *resolver) resolveTrusts() error {
	for _, spec := range r.intent.Relationships {
		truster, err := r.domain(spec.Truster)
		if err != nil {
			return fmt.Errorf("relationship %s: %w", spec.ID(), err)
		}
		trusted, err := r.domain(spec.Trusted)
		switch {
		case err != nil:
			return fmt.Errorf("relationship %s: %w", spec.ID(), err)
		case truster.TrustIn(trusted) != nil:
			return fmt.Errorf("lab %s has two relationships %s", r.Name, spec.ID())
		}
		t := &Trust{Truster: truster, Trusted: trusted, RelationshipSpec: spec}
		truster.Trusts, trusted.TrustedBy = append(truster.Trusts, t), append(trusted.TrustedBy, t)
		r.Trusts = append(r.Trusts, t)
	}
	return nil
}

func (r *resolver) resolveWorkloads() error {
	for i, spec := range r.intent.Workloads {
		if r.workloads[spec.Name] != nil {
			return fmt.Errorf("lab %s has two workloads %q", r.Name, spec.Name)
		}
		m, err := r.memberOf(spec)
		if err != nil {
			return fmt.Errorf("workload %s: %w", spec.Name, err)
		}
		if spec.Slot >= MaxWorkloads {
			return fmt.Errorf("%s of lab %s has more than %d workloads", m.Place.Where(), r.Name, MaxWorkloads)
		}
		namespace := m.Namespace(spec.App)
		if spec.Own != nil {
			namespace = spec.App.Namespace
		}
		id, err := spec.SPIFFEID(m.Domain.Name, namespace)
		if err != nil {
			return err
		}
		w := &Workload{
			Name: spec.Name, App: spec.App, Own: spec.Own, Namespace: namespace, Member: m, ID: id, Address: m.Place.pool().at(firstWorkload + spec.Slot),
			Expose: spec.Expose, order: i, spec: spec,
		}
		m.Workloads = append(m.Workloads, w)
		r.Workloads, r.workloads[spec.Name] = append(r.Workloads, w), w
	}
	return nil
}

// memberOf returns where a workload runs and whom it belongs to.
func (r *resolver) memberOf(spec WorkloadSpec) (*Member, error) {
	if spec.Host != "" {
		return r.memberOn(spec)
	}
	c := r.clusters[spec.Cluster]
	if c == nil {
		return nil, &UnknownError{r.Name, "cluster", spec.Cluster}
	}
	members := slices.DeleteFunc(slices.Clone(c.Members), func(m *Member) bool {
		return m.Downstream != nil || !spec.TrustDomain.IsZero() && m.Domain.Name != spec.TrustDomain
	})
	switch {
	case len(members) == 1:
		return members[0], nil
	case len(members) > 1:
		return nil, fmt.Errorf("cluster %s of lab %s has several trust domains, and the workload names none", c.Name, r.Name)
	case spec.TrustDomain != (spiffeid.TrustDomain{}):
		return nil, fmt.Errorf("cluster %s of lab %s has no trust domain %q", c.Name, r.Name, spec.TrustDomain.Name())
	}
	return nil, fmt.Errorf("cluster %s of lab %s has no trust domain", c.Name, r.Name)
}

// memberOn is memberOf for a workload on a host.
func (r *resolver) memberOn(spec WorkloadSpec) (*Member, error) {
	h := r.hosts[spec.Host]
	switch {
	case h == nil:
		return nil, &UnknownError{r.Name, "host", spec.Host}
	case h.Member == nil:
		return nil, fmt.Errorf("host %s of lab %s has no trust domain", h.Name, r.Name)
	case spec.TrustDomain != (spiffeid.TrustDomain{}) && spec.TrustDomain != h.Member.Domain.Name:
		return nil, fmt.Errorf("host %s of lab %s has no trust domain %q", h.Name, r.Name, spec.TrustDomain.Name())
	}
	return h.Member, nil
}

func (r *resolver) resolveRegistrations() error {
	for _, spec := range r.intent.Registrations {
		refused := func(err error) error { return fmt.Errorf("registration %s: %w", spec.Name, err) }
		if r.workloads[spec.Name] != nil || slices.ContainsFunc(r.Registrations, func(other *Registration) bool { return other.Name == spec.Name }) {
			return fmt.Errorf("lab %s has registration %q and another registration or workload of that name", r.Name, spec.Name)
		}
		d, err := r.domain(spec.TrustDomain)
		if err != nil {
			return refused(err)
		}
		for _, name := range spec.FederatesWith {
			if _, err := r.domain(name); err != nil {
				return refused(err)
			}
		}
		i := slices.IndexFunc(d.Members, func(m *Member) bool {
			return m.Downstream == nil && (spec.Cluster == "" && m.Host() != nil || m.Cluster() != nil && m.Cluster().Name == spec.Cluster)
		})
		if i < 0 {
			return refused(fmt.Errorf("trust domain %s of lab %s is not in cluster %q", d, r.Name, spec.Cluster))
		}
		m := d.Members[i]
		if spec.Kind != ClusterSPIFFEID && m != m.Server.Home() {
			return refused(fmt.Errorf("no server of trust domain %s of lab %s is in %s", d, r.Name, m.Place.Where()))
		}
		registration := &Registration{RegistrationSpec: spec, Member: m}
		m.Registrations, r.Registrations = append(m.Registrations, registration), append(r.Registrations, registration)
	}
	return nil
}

func (r *resolver) resolveCalls() error {
	for _, w := range r.Workloads {
		for _, name := range w.spec.Calls {
			to := r.workloads[name]
			if to == nil {
				return fmt.Errorf("calls of workload %s: %w", w.Name, &UnknownError{r.Name, "workload", name})
			}
			w.Calls = append(w.Calls, to)
			if !slices.Contains(to.Callers, w) {
				to.Callers = append(to.Callers, w)
			}
		}
		if w.Own == nil || w.Own.Check == nil || w.Own.Check.As == (spiffeid.TrustDomain{}) {
			continue
		}
		probe := ProbeOf(w.Own.Check.As)
		if w.Checker = r.workloads[probe]; w.Checker == nil {
			return fmt.Errorf("check of workload %s: %w", w.Name, &UnknownError{r.Name, "workload", probe})
		}
	}
	return nil
}

// needs returns the trust domains whose bundles a workload needs, or asks for, and its
// own trusts, in the order of the lab file.
func needs(w *Workload) []*Domain {
	var needed []*Domain
	for _, t := range w.Domain().Trusts {
		ofIt := func(peer *Workload) bool { return peer.Domain() == t.Trusted }
		called := slices.ContainsFunc(w.Calls, ofIt) || slices.ContainsFunc(w.Callers, ofIt)
		if own := w.Own; own != nil {
			called = own.FederatesWith == nil || slices.Contains(own.FederatesWith, t.Trusted.Name)
		}
		if called {
			needed = append(needed, t.Trusted)
		}
	}
	return needed
}
