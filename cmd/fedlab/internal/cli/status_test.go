package cli

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

func TestPrintStatus(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	well := lab.Health{Well: true}
	s := lab.Status{
		Lab: "quotes", Network: "10.192.0.0/18",
		Clusters: []lab.ClusterStatus{
			{Health: well, Name: "market", State: "running", Context: "kind-quotes-market", Pods: "10.64.0.0/16", Services: "10.128.0.0/16", Pool: "10.192.1.1-10.192.1.254"},
			{Health: lab.Health{Problem: "it is not there"}, Name: "broker", State: "absent", Context: "kind-quotes-broker", Pods: "10.65.0.0/16", Services: "10.129.0.0/16"},
		},
		TrustDomains: []lab.TrustDomainStatus{
			{
				Health: well, Name: "cluster1.com", Cluster: "market", BundleEndpoint: "https://10.192.1.1:8443",
				Agents: 1, Entries: 2, X509Authorities: 1, JWTAuthorities: 1, ExpiresAt: now.Add(24 * time.Hour),
			},
			{Health: lab.Health{Problem: "list agents: refused\nlist entries: refused"}, Name: "cluster2.com", Cluster: "broker"},
		},
		Relationships: []lab.RelationshipStatus{{Health: well, Truster: "cluster1.com", Trusted: "cluster2.com", Profile: "https_spiffe", Bundle: federation.InSync}},
		Workloads: []lab.WorkloadStatus{
			{Health: well, Name: "stock-quotes", Cluster: "market", SPIFFEID: "spiffe://cluster1.com/server", Address: "10.192.1.101:8090"},
			{Health: well, Name: "broker-webapp", Cluster: "broker", SPIFFEID: "spiffe://cluster2.com/client", URL: "http://localhost:8080/quotes"},
		},
	}
	want := `
LAB     NETWORK
quotes  10.192.0.0/18

CLUSTER  STATE    CONTEXT             PODS          SERVICES       ADDRESSES                HEALTH
market   running  kind-quotes-market  10.64.0.0/16  10.128.0.0/16  10.192.1.1-10.192.1.254  well
broker   absent   kind-quotes-broker  10.65.0.0/16  10.129.0.0/16  -                        NOT WELL: it is not there

TRUST DOMAIN  CLUSTER  BUNDLE ENDPOINT          AGENTS  ENTRIES  AUTHORITIES     CA ENDS IN  HEALTH
cluster1.com  market   https://10.192.1.1:8443  1       2        1 X.509, 1 JWT  24h         well
cluster2.com  broker   -                        0       0        0 X.509, 0 JWT  -           NOT WELL: list agents: refused; list entries: refused

RELATIONSHIP                      PROFILE       BUNDLE   HEALTH
cluster1.com trusts cluster2.com  https_spiffe  in sync  well

WORKLOAD       CLUSTER  SPIFFE ID                     ADDRESS                       HEALTH
stock-quotes   market   spiffe://cluster1.com/server  10.192.1.101:8090             well
broker-webapp  broker   spiffe://cluster2.com/client  http://localhost:8080/quotes  well

RESOURCE                   CLUSTER  REMARK
ClusterSPIFFEID everybody  broker   it comes to nothing
`
	var b bytes.Buffer
	s.Resources = []lab.ResourceStatus{{Cluster: "broker", Kind: "ClusterSPIFFEID", Name: "everybody", Problem: "it comes to nothing"}}
	if err := printStatus(&b, s, now); err != nil || b.String() != strings.TrimPrefix(want, "\n") {
		t.Errorf("error %v, got\n%s\nwant%s", err, b.String(), want)
	}
}

// A trust domain in one cluster has no row of its own for it.
func TestPrintStatusOfMembers(t *testing.T) {
	well := lab.Health{Well: true}
	s := lab.Status{Lab: "spread", TrustDomains: []lab.TrustDomainStatus{
		{Health: well, Name: "other.test", Cluster: "c"},
		{
			Health: lab.Health{Problem: "in cluster b: cluster b does not answer"}, Name: "one.test", Cluster: "a",
			Members: []lab.MemberStatus{{Health: well, Cluster: "a", Agents: 1}, {Health: lab.Health{Problem: "cluster b does not answer"}, Cluster: "b"}},
		},
	}}
	var b bytes.Buffer
	if err := printStatus(&b, s, time.Time{}); err != nil {
		t.Fatal(err)
	}
	want := `
AGENTS OF  IN CLUSTER  AGENTS  HEALTH
one.test   a           1       well
one.test   b           0       NOT WELL: cluster b does not answer

`
	if got := b.String(); !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant in it%s", got, want)
	}
}

// A trust domain without an OIDC discovery provider has no row of its own for it.
func TestPrintStatusOfIssuers(t *testing.T) {
	well, problem := lab.Health{Well: true}, lab.Health{Problem: "it does not answer"}
	s := lab.Status{Lab: "tokens", TrustDomains: []lab.TrustDomainStatus{
		{Health: well, Name: "aws.company.com", Cluster: "aws", Discovery: &lab.DiscoveryStatus{Health: well, Issuer: "https://oidc.aws.company.com", Address: "10.192.1.100"}},
		{Health: well, Name: "gcp.company.com", Cluster: "gcp"},
		{Health: problem, Name: "onprem.company.com", Cluster: "onprem", Discovery: &lab.DiscoveryStatus{Health: problem, Issuer: "https://oidc.onprem.company.com"}},
	}}
	var b bytes.Buffer
	if err := printStatus(&b, s, time.Time{}); err != nil {
		t.Fatal(err)
	}
	want := `
ISSUER                           TRUST DOMAIN        ADDRESS       HEALTH
https://oidc.aws.company.com     aws.company.com     10.192.1.100  well
https://oidc.onprem.company.com  onprem.company.com  -             NOT WELL: it does not answer

`
	if got := b.String(); !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant in it%s", got, want)
	}
}

// A nested server has rows of its own, which name its cluster.
func TestPrintStatusOfNestedServers(t *testing.T) {
	well := lab.Health{Well: true}
	s := lab.Status{
		Lab: "nested",
		TrustDomains: []lab.TrustDomainStatus{
			{Health: well, Name: "one.test", Cluster: "a", Agents: 2, Members: []lab.MemberStatus{{Health: well, Cluster: "a", Agents: 1}, {Health: well, Cluster: "b", Downstream: true, Agents: 1}}},
			{Health: lab.Health{Problem: "no agent has attested"}, Name: "one.test", Cluster: "b", Upstream: "a"},
		},
		Relationships: []lab.RelationshipStatus{
			{Health: well, Truster: "one.test", Trusted: "other.test", Profile: "https_spiffe", Bundle: federation.InSync},
			{Health: lab.Health{Problem: "it is late"}, Truster: "one.test", Cluster: "b", Trusted: "other.test", Profile: "https_spiffe", Bundle: federation.Behind},
		},
	}
	var b bytes.Buffer
	if err := printStatus(&b, s, time.Time{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`
one.test      a        -                2       0        0 X.509, 0 JWT  -           well
one.test@b    b        -                0       0        0 X.509, 0 JWT  -           NOT WELL: no agent has attested

AGENTS OF  IN CLUSTER                 AGENTS  HEALTH
one.test   a                          1       well
one.test   b (for its nested server)  1       well
`, `
one.test trusts other.test    https_spiffe  in sync  well
one.test@b trusts other.test  https_spiffe  behind   NOT WELL: it is late
`} {
		if got := b.String(); !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant in it%s", got, want)
		}
	}
	if got, want := s.Problems(), []string{"it has no network", "trust domain one.test@b: no agent has attested", "relationship one.test@b->other.test: it is late"}; !slices.Equal(got, want) {
		t.Errorf("problems %q, want %q", got, want)
	}
}

// A nested server is named with its cluster.
func TestServerNames(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("one.test")
	top := topology.Topology{
		Clusters:     []topology.ClusterSpec{topology.NewCluster("a", 0), topology.NewCluster("b", 1), topology.NewCluster("c", 2)},
		TrustDomains: []topology.TrustDomainSpec{{Name: td, Cluster: "a", Members: []topology.MemberSpec{{Cluster: "b", Nested: true}, {Cluster: "c"}}}},
	}
	names := serverNames(top)
	if want := []string{"one.test", "one.test@b"}; !slices.Equal(names, want) {
		t.Fatalf("names %q, want %q", names, want)
	}
	g, err := topology.Resolve(top, netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		if s, err := g.FindServer(name); err != nil || s != g.Servers()[i] {
			t.Errorf("FindServer(%s) = %v, %v", name, s, err)
		}
	}
	if _, err := g.FindServer("one.test@c"); err == nil || err.Error() != `lab  has no trust domain "one.test@c"` {
		t.Errorf("a cluster without a server: error %v", err)
	}
}

// A host has a row, and is where something runs; a lab without hosts has no word about them.
func TestPrintStatusOfHosts(t *testing.T) {
	well := lab.Health{Well: true}
	s := lab.Status{
		Lab:          "partner",
		Hosts:        []lab.HostStatus{{Health: lab.Health{Problem: "agent on host partner is stopped"}, Name: "partner", Addresses: "10.192.3.1-10.192.3.254"}},
		TrustDomains: []lab.TrustDomainStatus{{Health: well, Name: "partner.test", Host: "partner", Members: []lab.MemberStatus{{Health: well, Host: "branch", Agents: 1}}}},
		Workloads:    []lab.WorkloadStatus{{Health: well, Name: "quotes", Host: "partner", SPIFFEID: "spiffe://partner.test/server"}},
	}
	var b bytes.Buffer
	if err := printStatus(&b, s, time.Time{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\nHOST     ADDRESSES                HEALTH\npartner  10.192.3.1-10.192.3.254  NOT WELL: agent on host partner is stopped\n",
		"\npartner.test  host partner  -",
		"\npartner.test  host branch  1       well\n",
		"\nquotes    host partner  spiffe://partner.test/server",
	} {
		if got := b.String(); !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant in it%s", got, want)
		}
	}
	b.Reset()
	if err := printStatus(&b, lab.Status{Lab: "quotes"}, time.Time{}); err != nil || strings.Contains(strings.ToLower(b.String()), "host") {
		t.Errorf("error %v, got\n%s", err, b.String())
	}
}

func TestPrintStatusOfRegistrations(t *testing.T) {
	s := lab.Status{Registrations: []lab.RegistrationStatus{
		{Health: lab.Health{Well: true}, Name: "pods", Kind: "ClusterSPIFFEID", Cluster: "market", SPIFFEID: "spiffe://{{ .TrustDomain }}/x", HeldBy: []string{"pod a/1", "pod a/2", "pod a/3", "pod a/4", "pod a/5"}},
		{Health: lab.Health{Problem: "its parent is nobody"}, Name: "plain", Kind: "entry", Host: "partner", SPIFFEID: "spiffe://partner.test/x", HeldBy: []string{}},
		{Health: lab.Health{Well: true}, Name: "nodes", Kind: "entry", Cluster: "market", SPIFFEID: "spiffe://cluster1.com/nodes", HeldBy: []string{"node in market"}},
	}}
	const want = `
REGISTRATION  KIND             IN            SPIFFE ID                      HELD BY                            HEALTH
pods          ClusterSPIFFEID  market        spiffe://{{ .TrustDomain }}/x  pod a/1, pod a/2, pod a/3 and 2 more  well
plain         entry            host partner  spiffe://partner.test/x        nobody                             NOT WELL: its parent is nobody
nodes         entry            market        spiffe://cluster1.com/nodes    node in market                     well
`
	var b bytes.Buffer
	if err := printStatus(&b, s, time.Time{}); err != nil {
		t.Fatal(err)
	}
	blanks := func(text string) string { return strings.Join(strings.Fields(text), " ") }
	if !strings.Contains(blanks(b.String()), blanks(want)) {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}
