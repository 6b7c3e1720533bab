package topology

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// hosted is a lab of a cluster and three hosts: one that is a member of the cluster's
// trust domain, and two of a trust domain of their own.
func hosted() Topology {
	t := lab(1)
	t.Hosts = []HostSpec{{Name: "onprem"}, {Name: "partner"}, {Name: "branch"}}
	own := t.TrustDomains[0].Name
	partner := spiffeid.RequireTrustDomainFromString("partner.test")
	t.TrustDomains[0].Members = []MemberSpec{{Host: "onprem"}}
	t.TrustDomains = append(t.TrustDomains, TrustDomainSpec{Name: partner, Host: "partner", Members: []MemberSpec{{Host: "branch"}}})
	t.Relationships = []RelationshipSpec{{Truster: own, Trusted: partner}, {Truster: partner, Trusted: own}}
	t.Workloads = append(
		t.Workloads,
		WorkloadSpec{Name: "legacy", App: stock()[0], Host: "onprem"},
		WorkloadSpec{Name: "sells", App: stock()[0], Host: "partner", TrustDomain: partner},
		WorkloadSpec{Name: "buys", App: stock()[1], Host: "partner", Calls: []string{"wc0"}},
	)
	return t.Placed(Topology{})
}

// A host is a place as a cluster is: a trust domain may have members of both sorts.
func TestHosts(t *testing.T) {
	g := resolve(t, hosted(), NetworkCandidates()[0])
	where := func(m *Member) string { return m.Place.Where() + " " + m.Server.Place.Name() }
	for _, tt := range []struct{ what, got, want string }{
		{"hosts", names(g.Hosts, func(h *Host) string { return h.Lab + "/" + h.Name + "=" + h.Member.Domain.String() }), "lab/onprem=c0.test lab/partner=partner.test lab/branch=partner.test"},
		{"members of the cluster's", names(g.Domains[0].Members, where), "cluster c0 c0 host onprem c0"},
		{"members of the hosts'", names(g.Domains[1].Members, where), "host partner partner host branch partner"},
		{"servers", names(g.Servers(), func(s *Server) string { return s.Place.Where() + " " + s.Address.String() }), "cluster c0 10.192.1.1 host partner 10.192.3.1"},
		{"servers in the cluster", names(g.Clusters[0].Servers, func(s *Server) string { return s.Domain.String() }), "c0.test"},
		{"endpoint", g.Domains[1].Server().Endpoint().Addr().String(), "10.192.3.1"},
		{"workloads", names(g.Workloads, func(w *Workload) string { return w.Name + "@" + w.Member.Place.Name() + "=" + w.Address.String() }),
			"wc0@c0=10.192.1.101 legacy@onprem=10.192.2.101 sells@partner=10.192.3.101 buys@partner=10.192.3.102"},
		{"SPIFFE ID", g.Workloads[2].ID.String(), "spiffe://partner.test/server"},
		{"what one on a host needs", names(g.Workloads[3].FederatesWith, (*Domain).String), "c0.test"},
		{"what one that it calls needs", names(g.Workloads[0].FederatesWith, (*Domain).String), "partner.test"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.what, tt.got, tt.want)
		}
	}
	onprem, partner := g.Hosts[0], g.Hosts[1]
	if onprem.Server != nil || partner.Server != g.Domains[1].Server() || partner.Server.Home() != partner.Member {
		t.Errorf("servers are on %v and %v", onprem.Server, partner.Server)
	}
	if m := onprem.Member; m.Remote() || m.Cluster() != nil || m.Host() != onprem || g.Workloads[1].Host() != onprem || g.Workloads[1].Cluster() != nil || g.Workloads[0].Host() != nil {
		t.Errorf("the agent on the host is taken for one in another cluster: %+v", m)
	}
	if a, b := g.Workloads[2].UID(), g.Workloads[3].UID(); a == b || a <= 60000 || b >= 65000 {
		t.Errorf("users %d and %d", a, b)
	}
	if len(g.Domains[0].Server().Remote()) != 0 {
		t.Error("the server would need a kubeconfig of a host")
	}
	probes := resolve(t, hosted().WithProbes().Placed(Topology{}), netip.Prefix{}).Domains[1].Server().Home().Workloads
	if probe := probes[len(probes)-1]; probe.Name != "probe-partner.test" || probe.Host() == nil {
		t.Errorf("the probe of the partner is %s at %s", probe.Name, probe.Member.Place.Where())
	}
}

// What a lab without hosts is meant to be is told as before.
func TestHostsAreSilentWhereThereAreNone(t *testing.T) {
	text, err := json.Marshal(federated())
	if err != nil || strings.Contains(string(text), "Host") {
		t.Errorf("error %v, %s", err, text)
	}
}

// A host keeps its addresses when others come and go, and never has those of a cluster.
func TestHostsKeepTheirPlaces(t *testing.T) {
	before := hosted()
	after := hosted()
	after.Clusters = []ClusterSpec{NewCluster("new", 0), NewCluster("c0", 0)}
	after.Hosts = []HostSpec{{Name: "another"}, {Name: "branch"}, {Name: "partner"}}
	after.TrustDomains = after.TrustDomains[1:]
	after = after.Placed(before)
	for i, want := range []int{1, 0} {
		if got := after.Clusters[i].Index; got != want {
			t.Errorf("cluster %s has place %d, want %d", after.Clusters[i].Name, got, want)
		}
	}
	for i, want := range []int{4, 3, 2} {
		if got := after.Hosts[i].Index; got != want {
			t.Errorf("host %s has place %d, want %d", after.Hosts[i].Name, got, want)
		}
	}
	if before.Hosts[0].Index != 1 {
		t.Errorf("Placed has changed what it was given: %+v", before.Hosts)
	}
}

func TestHostsRefused(t *testing.T) {
	stranger := spiffeid.RequireTrustDomainFromString("stranger.test")
	for want, spoil := range map[string]func(*Topology){
		`lab lab has host "c0" and another host or cluster of that name`:                     func(t *Topology) { t.Hosts[0].Name = "c0" },
		`lab lab has host "onprem" and another host or cluster of that name`:                 func(t *Topology) { t.Hosts[1].Name = "onprem" },
		`trust domain partner.test: lab lab has no host "moon"`:                              func(t *Topology) { t.TrustDomains[1].Host = "moon" },
		`trust domain c0.test: lab lab has no host "mars"`:                                   func(t *Topology) { t.TrustDomains[0].Members[0].Host = "mars" },
		`trust domain partner.test: host onprem of lab lab has trust domain c0.test already`: func(t *Topology) { t.TrustDomains[1].Members[0].Host = "onprem" },
		`workload sells: lab lab has no host "moon"`:                                         func(t *Topology) { t.Workloads[2].Host = "moon" },
		`workload sells: host partner of lab lab has no trust domain "stranger.test"`:        func(t *Topology) { t.Workloads[2].TrustDomain = stranger },
		`workload legacy: host onprem of lab lab has no trust domain`:                        func(t *Topology) { t.TrustDomains[0].Members = nil },
		`host partner of lab lab has more than 154 workloads`:                                func(t *Topology) { t.Workloads[2].Slot = 154 },
		`lab lab has 64 clusters and hosts: at most 63 fit into network 10.192.0.0/18`:       func(t *Topology) { t.Hosts = append(t.Hosts, make([]HostSpec, 60)...) },
	} {
		top := hosted()
		spoil(&top)
		if _, err := Resolve(top, NetworkCandidates()[0]); err == nil || err.Error() != want {
			t.Errorf("got error %v, want %s", err, want)
		}
	}
}
