package spire_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/spire/spiretest"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

var update = flag.Bool("update", false, "rewrite golden files")

var partner = spiffeid.RequireTrustDomainFromString("partner.example.com")

// onHost is a trust domain whose server is on a host.
func onHost() *topology.Domain {
	return &topology.Domain{Name: partner, Settings: topology.Settings{
		BundleEndpoint: topology.BundleEndpoint{Profile: topology.HTTPSSPIFFE, Port: 8443, RefreshHint: time.Minute},
		CATTL:          24 * time.Hour, X509SVIDTTL: time.Hour, JWTSVIDTTL: 5 * time.Minute, LogLevel: "info",
	}}
}

// demanding is one that asks for all that a lab file may ask for.
func demanding() spire.HostServer {
	d := onHost()
	d.BundleEndpoint.Port = 443
	d.CAKeyType, d.JWTKeyType = topology.ECP384, topology.RSA2048
	d.JWTIssuer = "https://oidc.partner.example.com"
	d.CASubject = topology.CASubject{Country: "US", Organization: `"Partner" \ ${`, CommonName: "SPIRE Server CA - Partner"}
	return spire.HostServer{Domain: d, Static: []spire.FederatesWithValues{
		{TrustDomain: "cluster2.com", URL: "https://10.192.2.1:8443", Profile: topology.HTTPSWeb},
		{TrustDomain: "cluster1.com", URL: "https://10.192.1.1:8443", Profile: topology.HTTPSSPIFFE, EndpointSPIFFEID: "spiffe://cluster1.com/spire/server"},
	}}
}

func hostAgent() spire.HostAgent {
	return spire.HostAgent{Domain: onHost(), Server: netip.MustParseAddrPort("10.192.3.1:8081")}
}

// TestHostConfigs: SPIRE's own programs take what is written, and it is what the golden
// files say.
func TestHostConfigs(t *testing.T) {
	for name, tt := range map[string]struct{ config, variable string }{
		"host-server.conf":           {spire.HostServer{Domain: onHost()}.Config(), spiretest.ServerVariable},
		"host-server-demanding.conf": {demanding().Config(), spiretest.ServerVariable},
		"host-agent.conf":            {hostAgent().Config(), spiretest.AgentVariable},
	} {
		golden := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(golden, []byte(tt.config), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(golden); err != nil || string(want) != tt.config {
			t.Errorf("%s: error %v, want\n%s", name, err, tt.config)
		}
		t.Run(name, func(t *testing.T) {
			program := spiretest.Program(t, tt.variable)
			dir := t.TempDir()
			path := filepath.Join(dir, name)
			// To validate is to read what the agent starts with.
			config := strings.ReplaceAll(tt.config, "/run/spire/start", dir)
			for file, content := range map[string]string{path: config, filepath.Join(dir, "join-token"): "token"} {
				if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if output, err := exec.CommandContext(t.Context(), program, "validate", "-config", path).CombinedOutput(); err != nil {
				t.Errorf("validate: %v\n%s\n%s", err, bytes.TrimSpace(output), config)
			}
		})
	}
}

func TestJoinedOn(t *testing.T) {
	t.Parallel()
	token := spire.NewJoinToken("partner")
	if again := spire.NewJoinToken("partner"); again == token {
		t.Errorf("two tokens are both %s", token)
	}
	for id, want := range map[string]string{
		spire.JoinedAgentID(partner, token).String():                               "partner",
		"spiffe://partner.example.com/spire/agent/join_token/6f1d3c0c-1d3a":        "",
		"spiffe://partner.example.com/spire/agent/join_token/partner.":             "",
		"spiffe://partner.example.com/spire/agent/k8s_psat/market/partner.secret":  "",
		"spiffe://partner.example.com/spire/agent/join_token_of/partner.something": "",
	} {
		if got := spire.JoinedOn(spiffeid.RequireFromString(id)); got != want {
			t.Errorf("%s is on %q, want %q", id, got, want)
		}
	}
}

// host is where SPIRE's own programs run as a host has them: with the configurations of
// this package, of which only places are other ones.
type host struct {
	dir    string
	server *spire.Server
	api    int
	// endpoint is the URL of the bundle endpoint.
	endpoint string
}

// at puts what a configuration has in the folders of a container below the folder of
// the test, and its ports to free ones.
func (h host) at(config, data string, ports ...string) string {
	config = strings.NewReplacer(
		spire.HostDataDir, filepath.Join(h.dir, data),
		spire.HostSocketDir, filepath.Join(h.dir, data),
		filepath.Dir(spire.HostBundle), h.dir,
		"/tmp/spire-server/private", h.dir,
		`"0.0.0.0"`, `"127.0.0.1"`,
	).Replace(config)
	return strings.NewReplacer(ports...).Replace(config)
}

func newHost(t *testing.T, env ...string) host {
	t.Helper()
	program, ports := spiretest.Program(t, spiretest.ServerVariable), spiretest.FreePorts(t, 4)
	h := host{dir: t.TempDir(), api: ports[0], endpoint: fmt.Sprintf("https://127.0.0.1:%d", ports[1])}
	socket := filepath.Join(h.dir, "api.sock")
	h.mkdir(t, "server")
	config := h.at(spire.HostServer{Domain: onHost()}.Config(), "server",
		"bind_port = 8081", fmt.Sprint("bind_port = ", ports[0]), "port = 8443", fmt.Sprint("port = ", ports[1]),
		`"8080"`, fmt.Sprintf(`"%d"`, ports[2]), "port = 9988", fmt.Sprint("port = ", ports[3]))
	spiretest.Launch(t, spiretest.ServerVariable, config, env...).Await(t, spiretest.Healthy(program, socket))
	mint := func(ctx context.Context, argv ...string) ([]byte, error) {
		return exec.CommandContext(ctx, program, append(argv, "-socketPath", socket)...).Output()
	}
	dial := func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", ports[0]))
	}
	var err error
	if h.server, err = spire.Connect(t.Context(), mint, dial, partner); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.server.Close(); err != nil {
			t.Error(err)
		}
	})
	bundle, err := h.server.Bundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := bundle.X509Bundle().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "bundle.crt", text)
	return h
}

func (h host) mkdir(t *testing.T, name string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(h.dir, name), 0o700); err != nil {
		t.Fatal(err)
	}
}

func (h host) write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// token makes a join token and gives it to the host.
func (h host) token(t *testing.T) (agent spiffeid.ID) {
	t.Helper()
	token := spire.NewJoinToken("partner")
	if err := h.server.CreateJoinToken(t.Context(), token, time.Minute); err != nil {
		t.Fatal(err)
	}
	h.write(t, "join-token", []byte(token))
	return spire.JoinedAgentID(partner, token)
}

// agent starts an agent with the data in a folder.
func (h host) agent(t *testing.T, data string) *spiretest.Process {
	t.Helper()
	config := h.at(spire.HostAgent{Domain: onHost(), Server: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(h.api))}.Config(), data,
		`"8080"`, fmt.Sprintf(`"%d"`, spiretest.FreePorts(t, 1)[0]))
	return spiretest.Launch(t, spiretest.AgentVariable, config)
}

func (h host) socket(data string) string { return filepath.Join(h.dir, data, "spire-agent.sock") }

// joined starts an agent that must become well.
func (h host) joined(t *testing.T, data string) *spiretest.Process {
	t.Helper()
	p := h.agent(t, data)
	p.Await(t, spiretest.Healthy(spiretest.Program(t, spiretest.AgentVariable), h.socket(data)))
	return p
}

// refused starts an agent that must say this in its log, and ends it: it would try again
// for a minute (pkg/agent/agent.go, bootstrapBackoffMaxElapsedTime).
func (h host) refused(t *testing.T, data, words string) {
	t.Helper()
	p := h.agent(t, data)
	p.Await(t, func(context.Context) error {
		if !strings.Contains(p.Log(), words) {
			return fmt.Errorf("its log does not say %q", words)
		}
		return nil
	})
	p.Kill(t)
}

// agents returns the SPIFFE IDs of the agents that the server knows.
func (h host) agents(t *testing.T) (ids []spiffeid.ID) {
	t.Helper()
	all, err := h.server.Agents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		ids = append(ids, a.ID)
	}
	return ids
}

// svid waits until the Workload API gives this process an SVID.
func (h host) svid(t *testing.T, data string) *x509svid.SVID {
	t.Helper()
	var got *x509svid.SVID
	err := check.Until(t.Context(), check.Bound{Within: time.Minute, Every: 200 * time.Millisecond}, check.Check{
		Name: "the Workload API gives an SVID",
		Probe: func(ctx context.Context) (err error) {
			bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			got, err = workloadapi.FetchX509SVID(bounded, workloadapi.WithAddr("unix://"+h.socket(data)))
			return err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestHostJoins: an agent joins with a token, once. With its data it starts again
// without one; without them it is refused until there is another token.
func TestHostJoins(t *testing.T) {
	spiretest.Program(t, spiretest.AgentVariable)
	h := newHost(t)
	h.mkdir(t, "agent")
	h.mkdir(t, "lost")
	id := h.token(t)
	first := h.joined(t, "agent")
	if got := h.agents(t); !slices.Equal(got, []spiffeid.ID{id}) || spire.JoinedOn(id) != "partner" {
		t.Fatalf("agents %v, want %s", got, id)
	}

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	entry := spire.Entry{SPIFFEID: spiffeid.RequireFromPath(partner, "/fedlab/probe"), ParentID: id, Selectors: spire.UnixSelectors(os.Getuid(), self)}
	for i, selectors := range [][]string{spire.UnixSelectors(os.Getuid()+1, self), spire.UnixSelectors(os.Getuid(), "/probe")} {
		other := entry
		other.SPIFFEID, other.Selectors = spiffeid.RequireFromPath(partner, fmt.Sprint("/other/", i)), selectors
		if _, err := h.server.CreateEntry(t.Context(), other); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.server.CreateEntry(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
	if got := h.svid(t, "agent"); got.ID != entry.SPIFFEID {
		t.Errorf("got an SVID of %s, want %s", got.ID, entry.SPIFFEID)
	}

	first.Kill(t)
	again := h.joined(t, "agent") // with the same file, whose token is used
	if got := h.svid(t, "agent"); got.ID != entry.SPIFFEID || !slices.Equal(h.agents(t), []spiffeid.ID{id}) {
		t.Errorf("after its start with data: an SVID of %s, agents %v", got.ID, h.agents(t))
	}
	again.Kill(t)

	const used = "failed to attest: join token does not exist or has already been used"
	h.refused(t, "lost", used) // the token in its file was used
	next := h.token(t)
	h.joined(t, "lost").Kill(t)
	if got := h.agents(t); len(got) != 2 || !slices.Contains(got, next) {
		t.Errorf("agents %v, want %s, too", got, next)
	}

	// What the server has forgotten is refused although the agent has its data.
	if err := errors.Join(h.server.DeleteAgent(t.Context(), id), h.server.DeleteAgent(t.Context(), next)); err != nil {
		t.Fatal(err)
	}
	forgotten := h.agent(t, "agent")
	forgotten.Refused(t)
	if words := "Agent needs to re-attest: removing SVID and shutting down"; !strings.Contains(forgotten.Log(), words) {
		t.Errorf("its log does not say %q", words)
	}
	h.refused(t, "agent", used) // its SVID is gone now
}

// identified returns what a workload of an agent below this socket has: its SVID and the
// bundles, among them that of a peer.
func identified(t *testing.T, socket string, id spiffeid.ID, peer spiffeid.TrustDomain) *workloadapi.X509Source {
	t.Helper()
	source, err := workloadapi.NewX509Source(t.Context(), workloadapi.WithClientOptions(workloadapi.WithAddr(socket)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := source.Close(); err != nil {
			t.Error(err)
		}
	})
	eventually(t, func(context.Context) error {
		svid, err := source.GetX509SVID()
		if err == nil && svid.ID != id {
			err = fmt.Errorf("the SVID is of %s", svid.ID)
		}
		_, missing := source.GetX509BundleForTrustDomain(peer)
		return errors.Join(err, missing)
	})
	return source
}

// meet has one workload call another, with mutual TLS, and returns whom each has seen.
func meet(t *testing.T, caller, called *workloadapi.X509Source) (seen []string) {
	t.Helper()
	ids := make(chan string, 2)
	tell := func(id spiffeid.ID, _ [][]*x509.Certificate) error { ids <- id.String(); return nil }
	listener, err := tls.Listen("tcp", "127.0.0.1:0", tlsconfig.MTLSServerConfig(called, called, tell))
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			err = errors.Join(conn.(*tls.Conn).HandshakeContext(t.Context()), conn.Close())
		}
		answered <- err
	}()
	conn, err := (&tls.Dialer{Config: tlsconfig.MTLSClientConfig(caller, caller, tell)}).DialContext(t.Context(), "tcp", listener.Addr().String())
	if err == nil {
		err = errors.Join(<-answered, conn.Close())
	}
	if err := errors.Join(err, listener.Close()); err != nil {
		t.Fatal(err)
	}
	return []string{<-ids, <-ids}
}

// TestHostFederates: a server on a host and one elsewhere, whose endpoint is https_web,
// trust each other, and their workloads call each other in both directions.
func TestHostFederates(t *testing.T) {
	spiretest.Program(t, spiretest.AgentVariable)
	web := newWebEndpoint(t)
	process, company := startWith(t, spiretest.Config{TrustDomain: market, Profile: web.profile()})
	h := newHost(t, web.roots(t)...)
	for truster, r := range map[*spire.Server]spire.Relationship{
		h.server: {RelationshipSpec: topology.RelationshipSpec{Truster: partner, Trusted: market, Profile: topology.HTTPSWeb}, URL: process.BundleEndpoint},
		company:  {RelationshipSpec: topology.RelationshipSpec{Truster: market, Trusted: partner, Profile: topology.HTTPSSPIFFE}, URL: h.endpoint, EndpointID: spire.ServerID(partner)},
	} {
		var first *spiffebundle.Bundle
		if truster == company { // whose peer proves itself by the bundle that is held
			first = withoutJWT(mustBundle(t, h.server))
		}
		if err := truster.CreateRelationship(t.Context(), r, first); err != nil {
			t.Fatal(err)
		}
	}
	inSync(t, h.server, mustBundle(t, company))
	inSync(t, company, mustBundle(t, h.server))

	h.mkdir(t, "agent")
	id := h.token(t)
	h.joined(t, "agent")
	elsewhere := process.StartAgent(t)
	agents, err := company.Agents(t.Context())
	if err != nil || len(agents) != 1 {
		t.Fatalf("agents %v, error %v", agents, err)
	}
	ours, other := spiffeid.RequireFromPath(partner, "/fedlab/probe"), spiffeid.RequireFromPath(market, "/fedlab/probe")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	selectors := spire.UnixSelectors(os.Getuid(), self)
	_, err = h.server.CreateEntry(t.Context(), spire.Entry{SPIFFEID: ours, ParentID: id, Selectors: selectors, FederatesWith: []spiffeid.TrustDomain{market}})
	if err == nil {
		_, err = company.CreateEntry(t.Context(), spire.Entry{SPIFFEID: other, ParentID: agents[0].ID, Selectors: selectors[:1], FederatesWith: []spiffeid.TrustDomain{partner}})
	}
	if err != nil {
		t.Fatal(err)
	}
	onHost := identified(t, "unix://"+h.socket("agent"), ours, market)
	inCompany := identified(t, elsewhere, other, partner)
	for name, seen := range map[string][]string{"from the host": meet(t, onHost, inCompany), "to the host": meet(t, inCompany, onHost)} {
		slices.Sort(seen)
		if !slices.Equal(seen, []string{other.String(), ours.String()}) {
			t.Errorf("%s: %v were seen", name, seen)
		}
	}
}
