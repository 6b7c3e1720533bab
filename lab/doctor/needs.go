package doctor

import "github.com/fedlab-dev/fedlab/lab/topology"

// Needs says of each part of a lab what it needs. What goes wrong follows these ways: a node
// that is stopped takes the server with it, the server its bundle endpoint, the endpoint what
// peers hold, and that the calls of their workloads.
func Needs(g *topology.Graph) map[Part][]Part {
	needs := map[Part][]Part{}
	add := func(kind Kind, name string, on ...Part) {
		part := Part{kind, name}
		needs[part] = append(needs[part], on...)
	}
	lab := Part{Network, g.Name}
	for _, c := range g.Clusters {
		add(Cluster, c.Name, lab)
	}
	for _, h := range g.Hosts {
		add(Host, h.Name, lab)
	}
	for _, d := range g.Domains {
		root := d.Server()
		add(Proxy, d.String(), place(root.Place))
		add(Endpoint, d.String(), Part{Server, root.String()}, Part{Proxy, d.String()})
		add(Issuer, d.String(), Part{Agents, Member(root.Home())})
	}
	for _, s := range g.Servers() {
		addServer(add, s)
	}
	for _, w := range g.Workloads {
		addWorkload(add, w)
	}
	for _, r := range g.Registrations {
		add(Registration, r.Name, Part{Manager, r.Server().String()}, Part{Agents, Member(r.Member)})
	}
	return needs
}

func addServer(add func(Kind, string, ...Part), s *topology.Server) {
	server := Part{Server, s.String()}
	add(Datastore, s.String(), place(s.Place))
	add(Server, s.String(), place(s.Place), Part{Datastore, s.String()})
	if s.Nested() {
		add(Server, s.String(), Part{Server, s.Upstream.String()}, Part{Agents, Member(s.Link)})
	}
	add(Manager, s.String(), server)
	for _, m := range s.Members {
		add(Published, Member(m), server, place(m.Place))
		add(Agents, Member(m), Part{Published, Member(m)})
	}
	for _, r := range s.Relationships() {
		add(Relationship, r.ID(), Part{Manager, s.String()})
		add(Fetch, r.ID(), Part{Relationship, r.ID()}, Part{Endpoint, r.Trusted.String()})
		add(Bundle, r.ID(), Part{Fetch, r.ID()})
		add(Lockout, r.ID(), Part{Bundle, r.ID()})
	}
}

func addWorkload(add func(Kind, string, ...Part), w *topology.Workload) {
	of := w.Member.Server
	add(Registered, w.Name, Part{Manager, of.String()})
	for _, td := range w.FederatesWith {
		add(Registered, w.Name, held(of, td)...)
	}
	add(SVID, w.Name, Part{Registered, w.Name}, Part{Agents, Member(w.Member)})
	add(Workload, w.Name, Part{SVID, w.Name}, place(w.Member.Place))
	for _, to := range w.Calls {
		add(Call, CallOf(w, to), Part{Workload, w.Name}, Part{Workload, to.Name})
		add(Call, CallOf(w, to), append(held(of, to.Domain()), held(to.Member.Server, w.Domain())...)...)
	}
	add(Validation, ValidationBy(w, of), Part{SVID, w.Name})
	for _, t := range w.Domain().TrustedBy {
		for _, r := range t.Relationships() {
			add(Validation, ValidationBy(w, r.By), Part{SVID, w.Name}, Part{Bundle, r.ID()})
		}
	}
}

// held is the bundle that a server has of another trust domain; none of its own.
func held(by *topology.Server, of *topology.Domain) []Part {
	if by.Domain == of {
		return nil
	}
	return []Part{{Bundle, by.String() + "->" + of.String()}}
}

// Member names the agents of a member: as their server, with the cluster or host where they
// are in another place.
func Member(m *topology.Member) string {
	if m == m.Server.Home() {
		return m.Server.String()
	}
	return m.Domain.String() + "@" + m.Place.Name()
}

// CallOf names the calls of one workload to another.
func CallOf(from, to *topology.Workload) string { return from.Name + "->" + to.Name }

// ValidationBy names the validation of a workload's SVIDs by what a server holds.
func ValidationBy(w *topology.Workload, s *topology.Server) string {
	return w.Name + " by " + s.String()
}

func place(p topology.Place) Part {
	if p.Host != nil {
		return Part{Host, p.Host.Name}
	}
	return Part{Cluster, p.Cluster.Name}
}
