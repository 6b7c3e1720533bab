package topology

import (
	"net/netip"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// names returns what parts are called.
func names[T any](parts []T, name func(T) string) string {
	var all []string
	for _, p := range parts {
		all = append(all, name(p))
	}
	return strings.Join(all, " ")
}

func TestResolve(t *testing.T) {
	g := resolve(t, federated(), netip.Prefix{})
	called := func(w *Workload) string { return w.Name }
	trusted := func(r *Trust) string { return r.Trusted.String() }
	trusting := func(r *Trust) string { return r.Truster.String() }
	for _, tt := range []struct{ what, got, want string }{
		{"clusters", names(g.Clusters, func(c *Cluster) string { return c.Lab + "/" + c.Name }), "lab/c0 lab/c1 lab/c2"},
		{"trust domains", names(g.Domains, (*Domain).String), "c0.test c1.test c2.test"},
		{"relationships", names(g.Trusts, func(r *Trust) string { return r.ID() }), "c0.test->c2.test c1.test->c0.test c0.test->c1.test"},
		{"workloads", names(g.Workloads, called), "wc0 wc1 wc2"},
		{"whom the first trusts", names(g.Domains[0].Trusts, trusted), "c2.test c1.test"},
		{"who trusts the first", names(g.Domains[0].TrustedBy, trusting), "c1.test"},
		{"whom the last trusts", names(g.Domains[2].Trusts, trusted), ""},
		{"callers of the first", names(g.Workloads[0].Callers, called), "wc1 wc2"},
		{"calls of the second", names(g.Workloads[1].Calls, called), "wc0"},
		{"callers of the second", names(g.Workloads[1].Callers, called), ""},
		{"SPIFFE ID", g.Workloads[1].ID.String(), "spiffe://c1.test/server"},
		{"place", g.Domains[2].Server().Place.Cluster.Name + "/" + g.Domains[2].Server().Place.Namespace, "c2/spire-system"},
		{"what the first needs", names(g.Workloads[0].FederatesWith, (*Domain).String), "c2.test c1.test"},
		{"what the second needs", names(g.Workloads[1].FederatesWith, (*Domain).String), "c0.test"},
		{"what one needs that trusts nobody", names(g.Workloads[2].FederatesWith, (*Domain).String), ""},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.what, tt.got, tt.want)
		}
	}
	if a, none := g.Domains[0].Server().Address, g.Workloads[0].Address; a.IsValid() || none.IsValid() || g.Clusters[0].Pool.String() != "" {
		t.Errorf("without a network there are addresses: %s, %s, pool %s", a, none, g.Clusters[0].Pool)
	}
	if !reflect.DeepEqual(g.Intent(), federated()) {
		t.Errorf("the intent of the graph is %+v", g.Intent())
	}
}

// Trust domains that share a cluster share no name in it.
func TestTrustDomainsOfOneCluster(t *testing.T) {
	a, b := spiffeid.RequireTrustDomainFromString("a.test"), spiffeid.RequireTrustDomainFromString("b.test")
	top := Topology{
		Name: "lab", Clusters: []ClusterSpec{NewCluster("floor", 0)},
		TrustDomains: []TrustDomainSpec{{Name: a, Cluster: "floor"}, {Name: b, Cluster: "floor"}},
	}
	for _, td := range []spiffeid.TrustDomain{a, b} {
		for _, app := range stock() {
			top.Workloads = append(top.Workloads, WorkloadSpec{Name: app.Name + "-of-" + td.Name(), App: app, Cluster: "floor", TrustDomain: td})
		}
	}
	placed := top.WithProbes().Placed(Topology{})
	g := resolve(t, placed, NetworkCandidates()[0])
	taken := map[string]bool{}
	once := func(what string) {
		t.Helper()
		if taken[what] {
			t.Errorf("%s is there twice", what)
		}
		taken[what] = true
	}
	for _, s := range g.Servers() {
		once("namespace " + s.Place.Namespace)
		once("class " + s.Class)
		once("address " + s.Address.String())
	}
	for _, w := range g.Workloads {
		once("deployment " + w.Namespace + "/" + w.App.Deployment)
		once("address " + w.Address.String())
		once("SPIFFE ID " + w.ID.String())
	}
	if w := g.Domains[1].Workloads()[2]; w.ID.String() != "spiffe://b.test/ns/company-2/service/orders" {
		t.Errorf("the SPIFFE ID of %s is %s", w.Name, w.ID)
	}

	// A second trust domain moves nothing of the first, whose workloads may say
	// since then whose they are.
	before := top
	before.TrustDomains, before.Workloads = top.TrustDomains[:1], slices.Clone(top.Workloads[:len(stock())])
	for i := range before.Workloads {
		before.Workloads[i].TrustDomain = spiffeid.TrustDomain{}
	}
	before = before.Placed(Topology{})
	after := top
	after.TrustDomains = []TrustDomainSpec{top.TrustDomains[1], top.TrustDomains[0]}
	after.Workloads = slices.Concat(top.Workloads[len(stock()):], top.Workloads[:len(stock())])
	was, is := resolve(t, before, NetworkCandidates()[0]), resolve(t, after.Placed(before), NetworkCandidates()[0])
	for i, w := range was.Workloads {
		if now := is.Workloads[len(stock())+i]; now.Address != w.Address || now.Namespace != w.Namespace || now.ID != w.ID {
			t.Errorf("%s was at %s in %s as %s, and is at %s in %s as %s", w.Name, w.Address, w.Namespace, w.ID, now.Address, now.Namespace, now.ID)
		}
	}
	// And the second keeps its place without the first.
	alone := top
	alone.TrustDomains, alone.Workloads = top.TrustDomains[1:], top.Workloads[len(stock()):]
	left := resolve(t, alone.Placed(placed), NetworkCandidates()[0]).Servers()[0]
	if left.Place.Namespace != "spire-system-2" || left.Address != g.Servers()[1].Address || left.Class != "spire-system-2" {
		t.Errorf("the second is in %s at %s when the first is gone", left.Place.Namespace, left.Address)
	}
}

// A trust domain over several clusters has one server. Where it has none, it comes after
// the trust domains that have theirs there.
func TestTrustDomainOfSeveralClusters(t *testing.T) {
	one, other := spiffeid.RequireTrustDomainFromString("one.test"), spiffeid.RequireTrustDomainFromString("other.test")
	top := Topology{
		Name: "lab", Clusters: []ClusterSpec{NewCluster("a", 0), NewCluster("b", 1), NewCluster("c", 2)},
		TrustDomains: []TrustDomainSpec{
			{Name: one, Cluster: "a", Members: []MemberSpec{{Cluster: "b"}, {Cluster: "c"}}},
			{Name: other, Cluster: "b"},
		},
		Workloads: []WorkloadSpec{
			{Name: "quotes", App: stock()[0], Cluster: "b", TrustDomain: one},
			{Name: "alone", App: stock()[1], Cluster: "c"},
		},
	}
	g := resolve(t, top.Placed(Topology{}), NetworkCandidates()[0])
	d := g.Domains[0]
	if got, want := names(d.Members, func(m *Member) string {
		return m.Cluster().Name + "/" + m.Place.Namespace + "/" + m.Class + "/" + m.Namespace(stock()[0])
	}), "a/spire-system//demo b/spire-system-2/spire-system-2/demo-2 c/spire-system//demo"; got != want {
		t.Errorf("members %s, want %s", got, want)
	}
	s := d.Server()
	if len(g.Servers()) != 2 || s.Home() != d.Members[0] || s.Place != s.Home().Place || !slices.Equal(s.Remote(), d.Members[1:]) || !slices.Equal(s.Members, d.Members) {
		t.Errorf("%d servers; that of %s is in %v with members %v", len(g.Servers()), d, s.Place, s.Members)
	}
	if w := g.Workloads[1]; w.Member != d.Members[2] || w.Domain() != d || w.ID.TrustDomain() != one {
		t.Errorf("%s belongs to %s in cluster %s", w.Name, w.Domain(), w.Cluster().Name)
	}

	// What runs keeps its place when the trust domain that is before it leaves.
	after := top
	after.TrustDomains = []TrustDomainSpec{{Name: one, Cluster: "a", Members: []MemberSpec{{Cluster: "b"}}}}
	after.Workloads = top.Workloads[:1]
	left := resolve(t, after.Placed(top.Placed(Topology{})), NetworkCandidates()[0]).Domains[0].Members[1]
	if left.Place.Namespace != "spire-system-2" || left.Class != "spire-system-2" || left.Slot() != 1 {
		t.Errorf("alone in its cluster it is in %s", left.Place.Namespace)
	}
	if top.TrustDomains[0].Members[0].Slot != 0 {
		t.Errorf("Placed has changed what it was given")
	}
}

// A nested server has its own agents, and one more member of its upstream next to them.
func TestNestedServers(t *testing.T) {
	one, other := spiffeid.RequireTrustDomainFromString("one.test"), spiffeid.RequireTrustDomainFromString("other.test")
	top := Topology{
		Name: "lab", Clusters: []ClusterSpec{NewCluster("a", 0), NewCluster("b", 1), NewCluster("c", 2)},
		TrustDomains: []TrustDomainSpec{
			{Name: one, Cluster: "a", Members: []MemberSpec{{Cluster: "b", Nested: true}, {Cluster: "c"}}},
			{Name: other, Cluster: "b"},
		},
		Relationships: []RelationshipSpec{{Truster: one, Trusted: other}, {Truster: other, Trusted: one}},
		Workloads: []WorkloadSpec{
			{Name: "quotes", App: stock()[0], Cluster: "b", TrustDomain: one},
			{Name: "alone", App: stock()[1], Cluster: "c"},
		},
	}
	g := resolve(t, top.Placed(Topology{}), NetworkCandidates()[0])
	d := g.Domains[0]
	if len(d.Servers) != 2 {
		t.Fatalf("%d servers", len(d.Servers))
	}
	root, s := d.Servers[0], d.Servers[1]
	member := func(m *Member) string { return m.Cluster().Name + "/" + m.Place.Namespace + "/" + m.Class }
	for what, is := range map[string][2]string{
		"servers":                 {names(g.Servers(), (*Server).String), "one.test one.test@b other.test"},
		"members of the root":     {names(root.Members, member), "a/spire-system/ b/spire-upstream-2/spire-upstream-2 c/spire-system/"},
		"members of the nested":   {names(s.Members, member), "b/spire-system-2/spire-system-2"},
		"members of the domain":   {names(d.Members, member), "a/spire-system/ b/spire-system-2/spire-system-2 b/spire-upstream-2/spire-upstream-2 c/spire-system/"},
		"members of the cluster":  {names(s.Place.Cluster.Members, member), "b/spire-system-2/spire-system-2 b/spire-system/ b/spire-upstream-2/spire-upstream-2"},
		"relationships":           {names(g.Relationships(), Relationship.ID), "one.test->other.test one.test@b->other.test other.test->one.test"},
		"relationships of nested": {names(s.Relationships(), Relationship.ID), "one.test@b->other.test"},
		"workload":                {member(g.Workloads[0].Member), "b/spire-system-2/spire-system-2"},
		"address":                 {root.Address.String() + " " + s.Address.String(), "10.192.1.1 invalid IP"},
	} {
		if is[0] != is[1] {
			t.Errorf("%s: got %q, want %q", what, is[0], is[1])
		}
	}
	if !s.Nested() || root.Nested() || s.Upstream != root || s.Link.Server != root || s.Link.Downstream != s || !s.Link.Remote() || s.Home().Remote() || d.Server() != root {
		t.Errorf("the nested server %+v does not fit its root", s)
	}
	if w := g.Workloads[0]; w.Member.Server != s || len(s.Link.Workloads) > 0 {
		t.Errorf("%s belongs to the server %s", w.Name, w.Member.Server)
	}
	if m := top.TrustDomains[0].Members[0]; m.Slot != 0 {
		t.Error("Placed has changed what it was given")
	}
}

// A part that points at another is pointed at by it, where both know each other.
func TestPointersGoBothWays(t *testing.T) {
	top := federated()
	top.TrustDomains[0].Members = []MemberSpec{{Cluster: "c2"}, {Cluster: "c1", Nested: true}}
	top.Workloads[1].TrustDomain = top.TrustDomains[1].Name
	top.Workloads[2].TrustDomain = top.TrustDomains[2].Name
	// Two trust domains in one cluster, each with a workload.
	guest := TrustDomainSpec{Name: spiffeid.RequireTrustDomainFromString("guest.test"), Cluster: "c0"}
	top.TrustDomains = append(top.TrustDomains, guest)
	top.Workloads = append(top.Workloads, WorkloadSpec{Name: "guest", App: stock()[1], Cluster: "c0", TrustDomain: guest.Name, Calls: []string{"wc1"}})
	top.Workloads[0].TrustDomain = top.TrustDomains[0].Name
	g := resolve(t, top.Placed(Topology{}), NetworkCandidates()[0])
	checked := 0
	hold := func(what string, holds bool) {
		t.Helper()
		checked++
		if !holds {
			t.Error(what)
		}
	}
	for _, c := range g.Clusters {
		for _, s := range c.Servers {
			hold("upstream of "+s.String(), s.Nested() == (s.Link != nil) && (!s.Nested() || s.Link.Downstream == s && slices.Contains(s.Upstream.Members, s.Link)))
			hold("server of "+c.Name, s.Place.Cluster == c && slices.Contains(s.Domain.Servers, s))
		}
		for _, m := range c.Members {
			hold("member of "+c.Name, m.Cluster() == c && slices.Contains(m.Domain.Members, m) && slices.Contains(m.Domain.Servers, m.Server))
		}
	}
	for _, d := range g.Domains {
		for _, s := range d.Servers {
			hold("server of "+d.String(), s.Domain == d && slices.Contains(s.Place.Cluster.Servers, s))
		}
		for _, m := range d.Members {
			hold("member of "+d.String(), m.Domain == d && slices.Contains(m.Cluster().Members, m))
			for _, w := range m.Workloads {
				hold("workload "+w.Name, w.Member == m && slices.Contains(g.Workloads, w) && slices.Contains(d.Workloads(), w) && slices.Contains(m.Cluster().Workloads(), w))
			}
		}
		for _, r := range slices.Concat(d.Trusts, d.TrustedBy) {
			hold("relationship "+r.ID(), (r.Truster == d || r.Trusted == d) && slices.Contains(g.Trusts, r))
		}
	}
	for _, r := range g.Trusts {
		hold("relationship "+r.ID(), slices.Contains(r.Truster.Trusts, r) && slices.Contains(r.Trusted.TrustedBy, r) && r.Truster.TrustIn(r.Trusted) == r)
	}
	for _, w := range g.Workloads {
		hold("workload "+w.Name, slices.Contains(w.Member.Workloads, w))
		for _, to := range w.Calls {
			hold(w.Name+" calls "+to.Name, slices.Contains(to.Callers, w))
		}
		for _, by := range w.Callers {
			hold(by.Name+" calls "+w.Name, slices.Contains(by.Calls, w))
		}
	}
	if checked < 30 {
		t.Errorf("only %d checks", checked)
	}
	if got := names(g.Clusters[0].Workloads(), func(w *Workload) string { return w.Name + " of " + w.Domain().String() }); got != "wc0 of c0.test guest of guest.test" {
		t.Errorf("workloads of the cluster with two trust domains: %s", got)
	}
}

func TestResolveRefuses(t *testing.T) {
	stranger := spiffeid.RequireTrustDomainFromString("stranger.test")
	declare := func(t *Topology, change func(*RegistrationSpec)) {
		r := RegistrationSpec{Name: "r", Kind: PlainEntry, TrustDomain: t.TrustDomains[1].Name, Cluster: "c1"}
		change(&r)
		t.Registrations = []RegistrationSpec{r}
	}
	for want, spoil := range map[string]func(*Topology){
		`trust domain c1.test: lab lab has no cluster "moon"`:                                        func(t *Topology) { t.TrustDomains[1].Cluster = "moon" },
		`relationship c0.test->stranger.test: lab lab has no trust domain "stranger.test"`:           func(t *Topology) { t.Relationships[0].Trusted = stranger },
		`relationship stranger.test->c2.test: lab lab has no trust domain "stranger.test"`:           func(t *Topology) { t.Relationships[0].Truster = stranger },
		`workload wc1: lab lab has no cluster "moon"`:                                                func(t *Topology) { t.Workloads[1].Cluster = "moon" },
		`workload wc1: cluster c1 of lab lab has no trust domain "stranger.test"`:                    func(t *Topology) { t.Workloads[1].TrustDomain = stranger },
		`workload wc2: cluster c2 of lab lab has no trust domain`:                                    func(t *Topology) { t.TrustDomains, t.Relationships = t.TrustDomains[:2], nil },
		`workload wc1: cluster c1 of lab lab has several trust domains, and the workload names none`: func(t *Topology) { t.TrustDomains[2].Cluster = "c1" },
		`calls of workload wc1: lab lab has no workload "nobody"`:                                    func(t *Topology) { t.Workloads[1].Calls = []string{"nobody"} },
		`trust domain c1.test: lab lab has no cluster "mars"`:                                        func(t *Topology) { t.TrustDomains[1].Members = []MemberSpec{{Cluster: "mars"}} },
		`trust domain c1.test: lab lab has it twice in cluster c1`:                                   func(t *Topology) { t.TrustDomains[1].Members = []MemberSpec{{Cluster: "c1"}} },
		`trust domain c1.test: cluster c0 of lab lab has more than 100 trust domains`: func(t *Topology) {
			t.TrustDomains[1].Members = []MemberSpec{{Cluster: "c0", Slot: 100}}
		},
		`trust domain c1.test: cluster c1 of lab lab has more than 100 trust domains`: func(t *Topology) { t.TrustDomains[1].Slot = 100 },
		`cluster c1 of lab lab has more than 154 workloads`:                           func(t *Topology) { t.Workloads[1].Slot = 154 },
		`lab lab has two clusters "c0"`:                                               func(t *Topology) { t.Clusters[1].Name = "c0" },
		`lab lab has two trust domains "c0.test"`:                                     func(t *Topology) { t.TrustDomains[1].Name = t.TrustDomains[0].Name },
		`lab lab has two relationships c0.test->c2.test`:                              func(t *Topology) { t.Relationships[2] = t.Relationships[0] },
		`lab lab has two workloads "wc0"`:                                             func(t *Topology) { t.Workloads[1].Name = "wc0" },
		`registration r: lab lab has no trust domain "stranger.test"`: func(t *Topology) {
			declare(t, func(r *RegistrationSpec) { r.TrustDomain = stranger })
		},
		`registration r: lab lab has no trust domain "strange.test"`: func(t *Topology) {
			declare(t, func(r *RegistrationSpec) {
				r.FederatesWith = []spiffeid.TrustDomain{spiffeid.RequireTrustDomainFromString("strange.test")}
			})
		},
		`registration r: trust domain c1.test of lab lab is not in cluster "c2"`: func(t *Topology) {
			declare(t, func(r *RegistrationSpec) { r.Cluster = "c2" })
		},
		`registration r: trust domain c1.test of lab lab is not in cluster ""`: func(t *Topology) {
			declare(t, func(r *RegistrationSpec) { r.Cluster = "" })
		},
		`registration r: no server of trust domain c1.test of lab lab is in cluster c2`: func(t *Topology) {
			t.TrustDomains[1].Members = []MemberSpec{{Cluster: "c2", Slot: 1}}
			t.Workloads = nil
			declare(t, func(r *RegistrationSpec) { r.Cluster = "c2" })
		},
		`lab lab has registration "wc0" and another registration or workload of that name`: func(t *Topology) {
			declare(t, func(r *RegistrationSpec) { r.Name = "wc0" })
		},
		`lab lab has registration "r" and another registration or workload of that name`: func(t *Topology) {
			declare(t, func(*RegistrationSpec) {})
			t.Registrations = append(t.Registrations, t.Registrations[0])
		},
		`SPIFFE ID of workload wc0: template: x:1:11: executing "x" at <.PodMeta.Labels.none>: map has no entry for key "none"`: func(t *Topology) {
			t.Workloads[0].App = App{Name: "x", IDTemplate: "{{ .PodMeta.Labels.none }}"}
		},
	} {
		top := federated()
		spoil(&top)
		if _, err := Resolve(top, netip.Prefix{}); err == nil || err.Error() != want {
			t.Errorf("got error %v, want %s", err, want)
		}
	}
}

// What a graph says of a workload whose callers have a page, and of one whose have
// none.
func TestWitness(t *testing.T) {
	top := federated()
	page := stock()[1]
	top.Workloads[2].App = page
	g := resolve(t, top, netip.Prefix{})
	if got := g.Workloads[0].Witness(); got != g.Workloads[2] {
		t.Errorf("witness of wc0 is %v, want wc2, which calls it and has a page", got)
	}
	if got := g.Workloads[2].Witness(); got != g.Workloads[2] {
		t.Errorf("witness of wc2 is %v, want itself", got)
	}
	if got := g.Workloads[1].Witness(); got != nil {
		t.Errorf("witness of wc1 is %v, want none", got)
	}
}

func TestFind(t *testing.T) {
	g := resolve(t, federated(), netip.Prefix{})
	if c, err := g.FindCluster("c1"); err != nil || c != g.Clusters[1] {
		t.Errorf("FindCluster(c1) = %v, %v", c, err)
	}
	if d, err := g.FindDomain("c2.test"); err != nil || d != g.Domains[2] {
		t.Errorf("FindDomain(c2.test) = %v, %v", d, err)
	}
	if w, err := g.FindWorkload("wc2"); err != nil || w != g.Workloads[2] {
		t.Errorf("FindWorkload(wc2) = %v, %v", w, err)
	}
	for want, call := range map[string]func() error{
		`lab lab has no cluster "x"`:      func() error { _, err := g.FindCluster("x"); return err },
		`lab lab has no trust domain "x"`: func() error { _, err := g.FindDomain("x"); return err },
		`lab lab has no workload "x"`:     func() error { _, err := g.FindWorkload("x"); return err },
	} {
		if err := call(); err == nil || err.Error() != want {
			t.Errorf("got error %v, want %s", err, want)
		}
	}
}

// No method of a lab's parts takes a name, except those of find.go.
func TestNothingIsLookedUpByName(t *testing.T) {
	isName := func(in reflect.Type) bool {
		return in.Kind() == reflect.String || in == reflect.TypeFor[spiffeid.TrustDomain]() || in == reflect.TypeFor[spiffeid.ID]()
	}
	var found []string
	for _, part := range []any{
		&Graph{}, &Cluster{}, &Host{}, &Domain{}, &Place{}, &Server{}, &Member{}, &Trust{}, &Workload{}, &Pool{}, &Topology{},
	} {
		of := reflect.TypeOf(part)
		for i := range of.NumMethod() {
			m := of.Method(i)
			for j := 1; j < m.Type.NumIn(); j++ {
				if !isName(m.Type.In(j)) {
					continue
				}
				file, _ := runtime.FuncForPC(m.Func.Pointer()).FileLine(m.Func.Pointer())
				if filepath.Base(file) != "find.go" {
					t.Errorf("%s.%s takes a name: what a person types is resolved in find.go, and nothing else is", of, m.Name)
				}
				found = append(found, m.Name)
			}
		}
	}
	if want := []string{"FindCluster", "FindDomain", "FindServer", "FindWorkload"}; !slices.Equal(found, want) {
		t.Errorf("methods that take a name: %v, want %v", found, want)
	}
}
