package spire_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// TestFollow: which resources count is what spire-controller-manager v0.7.0 makes
// of them (its pkg/spirefederationrelationship/reconciler.go).
func TestFollow(t *testing.T) {
	spiffe := func(td string) spire.FederatedTrustDomainSpec {
		return spire.FederatedTrustDomainSpec{
			TrustDomain: td, BundleEndpointURL: "https://10.192.1.1:8443",
			BundleEndpointProfile: spire.EndpointProfile{Type: topology.HTTPSSPIFFE, EndpointSPIFFEID: "spiffe://cluster1.com/spire/server"},
		}
	}
	resource := func(name string, created int64, spec spire.FederatedTrustDomainSpec) spire.FederatedTrustDomainResource {
		r := spire.FederatedTrustDomainResource{Spec: spec}
		r.Metadata.Name, r.Metadata.UID, r.Metadata.Created = name, "uid-of-"+name, time.Unix(created, 0)
		return r
	}
	with := func(change func(*spire.FederatedTrustDomainSpec)) spire.FederatedTrustDomainSpec {
		spec := spiffe("cluster1.com")
		change(&spec)
		return spec
	}
	server := alone(t, broker)
	for name, tt := range map[string]struct {
		resources []spire.FederatedTrustDomainResource
		// counts is the resource for cluster1.com; passed are the others.
		counts string
		passed []string
	}{
		"one":              {[]spire.FederatedTrustDomainResource{resource("a", 1, spiffe("cluster1.com"))}, "a", nil},
		"with its scheme":  {[]spire.FederatedTrustDomainResource{resource("a", 1, spiffe("spiffe://cluster1.com"))}, "a", nil},
		"of another":       {[]spire.FederatedTrustDomainResource{resource("a", 1, spiffe("cluster3.com"))}, "", nil},
		"the older of two": {[]spire.FederatedTrustDomainResource{resource("a", 2, spiffe("cluster1.com")), resource("b", 1, spiffe("spiffe://cluster1.com"))}, "b", []string{"a: the older ClusterFederatedTrustDomain b stands for cluster1.com, too, and counts"}},
		"of one second":    {[]spire.FederatedTrustDomainResource{resource("b", 1, spiffe("cluster1.com")), resource("a", 1, spiffe("cluster1.com"))}, "a", []string{"b: the older ClusterFederatedTrustDomain a stands for cluster1.com, too, and counts"}},
		"an older one with a class": {
			[]spire.FederatedTrustDomainResource{resource("a", 1, with(func(s *spire.FederatedTrustDomainSpec) { s.ClassName = "theirs" })), resource("b", 2, spiffe("cluster1.com"))},
			"b", []string{`a: it has the class "theirs", and no controller manager of the cluster serves that: nothing comes of it`},
		},
		"an older one that is refused": {
			[]spire.FederatedTrustDomainResource{resource("a", 1, with(func(s *spire.FederatedTrustDomainSpec) { s.BundleEndpointURL = "http://10.192.1.1:8443" })), resource("b", 2, spiffe("cluster1.com"))},
			"b", []string{`a: bundleEndpointURL "http://10.192.1.1:8443": want https`},
		},
		"without a host": {
			[]spire.FederatedTrustDomainResource{resource("a", 1, with(func(s *spire.FederatedTrustDomainSpec) { s.BundleEndpointURL = "https:///bundle" }))},
			"", []string{`a: bundleEndpointURL "https:///bundle": it names no host`},
		},
		"with a user": {
			[]spire.FederatedTrustDomainResource{resource("a", 1, with(func(s *spire.FederatedTrustDomainSpec) { s.BundleEndpointURL = "https://me@10.192.1.1" }))},
			"", []string{`a: bundleEndpointURL "https://me@10.192.1.1": it has a user in it`},
		},
		"no SPIFFE ID": {
			[]spire.FederatedTrustDomainResource{resource("a", 1, with(func(s *spire.FederatedTrustDomainSpec) { s.BundleEndpointProfile.EndpointSPIFFEID = "cluster1.com" }))},
			"", []string{`a: endpointSPIFFEID "cluster1.com": scheme is missing or invalid`},
		},
		"a SPIFFE ID with https_web": {
			[]spire.FederatedTrustDomainResource{resource("a", 1, with(func(s *spire.FederatedTrustDomainSpec) { s.BundleEndpointProfile.Type = topology.HTTPSWeb }))},
			"", []string{`a: endpointSPIFFEID "spiffe://cluster1.com/spire/server": profile https_web has none`},
		},
		"an unknown profile": {
			[]spire.FederatedTrustDomainResource{resource("a", 1, with(func(s *spire.FederatedTrustDomainSpec) { s.BundleEndpointProfile.Type = "acme" }))},
			"", []string{`a: unknown profile "acme"`},
		},
		"no trust domain": {
			[]spire.FederatedTrustDomainResource{resource("a", 1, spiffe("Cluster1"))},
			"", []string{`a: trustDomain "Cluster1": trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			followed, passed := spire.Follow(server, tt.resources)
			f := followed[market]
			if f.Resource != tt.counts || f.Resource != "" && (f.Truster != broker || f.EndpointID != spiffeid.RequireFromString("spiffe://cluster1.com/spire/server")) {
				t.Errorf("%s counts, as %+v; want %q", f.Resource, f, tt.counts)
			}
			var got []string
			for _, p := range passed {
				got = append(got, fmt.Sprintf("%s: %s", p.Resource, p.Why))
			}
			if strings.Join(got, "\n") != strings.Join(tt.passed, "\n") {
				t.Errorf("passed over\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.passed, "\n"))
			}
		})
	}
}

// alone returns a server that shares its cluster with no other.
func alone(t *testing.T, td spiffeid.TrustDomain) *topology.Server {
	t.Helper()
	return sharing(t, td)[0]
}

// sharing returns servers of one cluster, in the order of their slots.
func sharing(t *testing.T, names ...spiffeid.TrustDomain) []*topology.Server {
	t.Helper()
	lab := topology.Topology{Name: "lab", Clusters: []topology.ClusterSpec{{Name: "floor"}}}
	for _, td := range names {
		lab.TrustDomains = append(lab.TrustDomains, topology.TrustDomainSpec{Name: td, Cluster: "floor"})
	}
	g, err := topology.Resolve(lab.Placed(topology.Topology{}), netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	return g.Servers()
}

// Of two servers in a cluster each follows the resources of its own class, and what
// nobody serves is told once.
func TestFollowByClass(t *testing.T) {
	servers := sharing(t, market, broker)
	var all []spire.FederatedTrustDomainResource
	for name, class := range map[string]string{"none": "", "second": "spire-system-2", "strange": "theirs"} {
		r := spire.FederatedTrustDomainResource{Spec: spire.FederatedTrustDomainSpec{
			TrustDomain: "partner.test", BundleEndpointURL: "https://10.192.1.1", BundleEndpointProfile: spire.EndpointProfile{Type: topology.HTTPSWeb}, ClassName: class,
		}}
		r.Metadata.Name = name
		all = append(all, r)
	}
	partner := spiffeid.RequireTrustDomainFromString("partner.test")
	for i, want := range []struct{ follows, passes string }{{"none", "strange"}, {"second", ""}} {
		followed, passed := spire.Follow(servers[i], all)
		var names []string
		for _, p := range passed {
			names = append(names, p.Resource)
		}
		if got := followed[partner].Resource; got != want.follows || strings.Join(names, " ") != want.passes {
			t.Errorf("%s follows %q and passes over %q, want %q and %q", servers[i].Domain, got, names, want.follows, want.passes)
		}
	}
}

// A server that is alone answers for all classes.
func TestAnswers(t *testing.T) {
	servers := sharing(t, market, broker)
	for class, want := range map[string]int{"": 0, "spire-system-2": 1, "theirs": 0} {
		for i, s := range servers {
			if got := spire.Answers(s, class); got != (i == want) {
				t.Errorf("the server of %s answers for class %q: %t", s.Domain, class, got)
			}
		}
	}
	left := servers[1]
	left.Place.Cluster.Servers = servers[1:]
	for _, class := range []string{"", "spire-system-2", "theirs"} {
		if !spire.Answers(left, class) {
			t.Errorf("nobody answers for class %q", class)
		}
	}
}

// A member answers for registrations in its own cluster, whoever has a server there.
func TestRegisters(t *testing.T) {
	lab := topology.Topology{
		Name: "lab", Clusters: []topology.ClusterSpec{topology.NewCluster("floor", 0), topology.NewCluster("branch", 1)},
		TrustDomains: []topology.TrustDomainSpec{
			{Name: market, Cluster: "floor", Members: []topology.MemberSpec{{Cluster: "branch"}}}, {Name: broker, Cluster: "branch"},
		},
	}
	g, err := topology.Resolve(lab.Placed(topology.Topology{}), netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	home, remote, own := g.Domains[0].Members[0], g.Domains[0].Members[1], g.Domains[1].Members[0]
	for _, tt := range []struct {
		member *topology.Member
		class  string
		want   bool
	}{
		{home, "", true},
		{home, "theirs", true},
		{remote, "", false},
		{remote, "spire-system-2", true},
		{own, "", true},
		{own, "spire-system-2", false},
	} {
		if got := spire.Registers(tt.member, tt.class); got != tt.want {
			t.Errorf("%s in %s answers for class %q: %t", tt.member.Domain, tt.member.Cluster().Name, tt.class, got)
		}
	}
	if first, second := spire.Registers(remote, "theirs"), spire.Registers(own, "theirs"); first == second {
		t.Errorf("for a class that nobody serves: %t and %t", first, second)
	}
	if got := spire.ManagerContainer(home) + " " + spire.ManagerContainer(remote); got != "spire-controller-manager manager-branch" {
		t.Errorf("controller managers run in %s", got)
	}
}

func TestAttestedIn(t *testing.T) {
	for path, want := range map[string]string{
		"/spire/agent/k8s_psat/branch/0b2c": "branch", "/spire/agent/join_token/0b2c": "", "/spire/agent/k8s_psat/branch": "", "/server": "", "": "",
	} {
		id, err := spiffeid.FromPath(market, path)
		if err != nil {
			t.Fatal(err)
		}
		if got := spire.AttestedIn(id); got != want {
			t.Errorf("%s: got %q, want %q", id, got, want)
		}
	}
	if id := spire.AgentID(market, "branch", "0b2c"); id.Path() != "/spire/agent/k8s_psat/branch/0b2c" || spire.AttestedIn(id) != "branch" {
		t.Errorf("an agent is %s", id)
	}
}

// Two servers of a cluster have no resource of one name.
func TestNamesOfServersThatShareACluster(t *testing.T) {
	servers := sharing(t, market, broker)
	partner := spiffeid.RequireTrustDomainFromString("partner.test")
	for i, want := range []string{"partner.test", "spire-system-2.partner.test"} {
		if got := spire.NameFor(servers[i], partner); got != want {
			t.Errorf("%s: got %q, want %q", servers[i].Domain, got, want)
		}
	}
	for i, want := range []string{"/run/spire/agent-sockets", "/run/spire/agent-sockets-spire-system-2"} {
		if got := spire.SocketDir(servers[i].Home()); got != want {
			t.Errorf("%s: got %q, want %q", servers[i].Domain, got, want)
		}
	}
}

// A server whose relationships are made by SPIRE's API follows no resource: its controller
// manager is told to make none.
func TestFollowNothing(t *testing.T) {
	lab := topology.Topology{
		Name: "lab", Clusters: []topology.ClusterSpec{{Name: "floor"}},
		TrustDomains:  []topology.TrustDomainSpec{{Name: broker, Cluster: "floor"}, {Name: market, Cluster: "floor"}},
		Relationships: []topology.RelationshipSpec{{Truster: broker, Trusted: market, Profile: topology.HTTPSSPIFFE, Mode: topology.API}},
	}
	g, err := topology.Resolve(lab.Placed(topology.Topology{}), netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	r := spire.FederatedTrustDomainResource{Spec: spire.FederatedTrustDomainSpec{
		TrustDomain: "cluster1.com", BundleEndpointURL: "https://10.192.1.1", BundleEndpointProfile: spire.EndpointProfile{Type: topology.HTTPSWeb},
	}}
	r.Metadata.Name = "by-hand"
	followed, passed := spire.Follow(g.Servers()[0], []spire.FederatedTrustDomainResource{r})
	if len(followed) > 0 || len(passed) != 1 || passed[0].Trusted != market || !strings.Contains(passed[0].Why.Error(), "mode api") {
		t.Errorf("follows %v and passes over %v, want nothing, and by-hand for mode api", followed, passed)
	}
}
