package lab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	trustdomainv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/trustdomain/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// hosted is a lab with a host that is a member of a cluster's trust domain, and two hosts
// of a trust domain of their own.
func hosted(t *testing.T, texts ...string) topology.Topology {
	t.Helper()
	data, err := os.ReadFile("config/testdata/good/hosts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return topologyOf(t, replaced(t, string(data), texts...))
}

// machine is a host: containers, and volumes that outlive them.
type machine struct {
	// node is what the server and the workloads are asked by, as in a cluster. It has no
	// API, no objects and no controller manager.
	*node
	programs map[string]*hostProgram
	// volumes are those that a container has been made with. The server's data are in the
	// node, joined is what is in that of the agent: who it has attested as.
	volumes map[string]bool
	joined  spiffeid.ID
}

// hostProgram is a program of a host in its container.
type hostProgram struct {
	lab.HostProgram
	// text is what the container was made of, with the number of the owner that it joined.
	text   string
	number int
	seed   map[string][]byte
	since  time.Time
	// ended says why it does not run.
	ended string
}

type hosts struct{ *world }

// made is what a container is compared by.
func (m *machine) made(p lab.HostProgram) string {
	p.Seed = nil
	owner := 0
	if o := m.programs[lab.HostOwner]; o != nil && p.Name != lab.HostOwner && p.Name != lab.HostServer {
		owner = o.number
	}
	return fmt.Sprint(owner, string(encode(struct {
		Name, Image  string
		Command      []string
		User         int
		Capabilities []string
		Env          map[string]string
		Address      netip.Addr
		Ports        []int
		Volumes      []lab.HostVolume
		Files        map[string][]byte
		Names        map[string]netip.Addr
	}{p.Name, p.Image, p.Command, p.User, p.Capabilities, p.Env, p.Address, p.Ports, p.Volumes, p.Files, p.Names})))
}

func (w hosts) Run(ctx context.Context, name, host string, p lab.HostProgram) (made bool, err error) {
	key, there := nodeName{name, host}, false
	err = w.do(ctx, "Hosts.Run "+host+" "+p.Name, func(changed func()) error {
		if !w.networks[name].IsValid() {
			return fmt.Errorf("there is no network of %s", name)
		}
		m := w.hosts[key]
		if m == nil {
			m = &machine{node: newNode(w.world, key, lab.NodeSpec{}), programs: map[string]*hostProgram{}, volumes: map[string]bool{}}
			m.host, m.objects = m, map[access.ObjectKey]string{}
			w.hosts[key] = m
		}
		if o := m.programs[lab.HostOwner]; p.Name != lab.HostOwner && p.Name != lab.HostServer && (o == nil || o.ended != "") {
			return errors.New("join the processes of container owner: it does not run")
		}
		if is := m.programs[p.Name]; is != nil {
			if there = is.ended == "" && is.text == m.made(p); !there {
				m.end(p.Name)
				changed()
			}
		}
		return nil
	})
	if err != nil || there {
		return false, err
	}
	// What is asked of the server is no part of one call.
	var seed map[string][]byte
	if p.Seed != nil {
		if seed, err = p.Seed(ctx); err != nil {
			return false, err
		}
	}
	err = w.do(ctx, "Hosts.Start "+host+" "+p.Name, func(changed func()) error {
		m := w.hosts[key]
		for other, n := range w.hosts {
			for _, is := range n.programs {
				if p.Address.IsValid() && is.Address == p.Address && other.lab == name {
					return fmt.Errorf("address %s is in use", p.Address)
				}
			}
		}
		w.counted++
		m.programs[p.Name] = &hostProgram{HostProgram: p, text: m.made(p), number: w.counted, seed: seed, since: time.Now().Add(latency)}
		m.programs[p.Name].ended = w.dies[p.Name]
		for _, v := range p.Volumes {
			m.volumes[v.Name] = true
		}
		if workload, runs := strings.CutPrefix(p.Name, "run-"); runs {
			m.deploy(workload, p)
		}
		changed()
		return nil
	})
	return err == nil, err
}

// deploy has a release stand for a workload: it calls and is called as one in a cluster.
func (m *machine) deploy(name string, p lab.HostProgram) {
	r := &release{Release: access.Release{Name: name, Chart: p.Image}, ready: time.Now().Add(latency), objects: map[access.ObjectKey]string{}}
	r.demo.Service.Address, r.demo.Service.Port = p.Address.String(), appOf(p.Image).Port
	r.demo.Allowed.TrustDomains = strings.Split(p.Env["ALLOWED_CLIENT_TRUST_DOMAINS"], ",")
	r.demo.Allowed.IDs, r.demo.Name = strings.Split(p.Env["ALLOWED_CLIENT_IDS"], ","), p.Env["SERVICE_NAME"]
	if calls := p.Env["SERVICE_CALLS"]; calls != "" {
		r.demo.Calls = decode[[]call](calls)
	}
	r.demo.AllowedClients = strings.Split(p.Env["QUOTES_ALLOW_CLIENTS"], ",")
	r.demo.Quotes.Address, r.demo.Quotes.ID = p.Env["BROKER_QUOTES_ADDRESS"], p.Env["BROKER_QUOTES_ID"]
	m.releases[releaseName{"", name}] = r
}

// end removes a container. With the owner of a PID namespace its processes end.
func (m *machine) end(program string) {
	delete(m.programs, program)
	if workload, runs := strings.CutPrefix(program, "run-"); runs {
		delete(m.releases, releaseName{"", workload})
	}
	if program != lab.HostOwner {
		return
	}
	for name, p := range m.programs {
		if name != lab.HostServer {
			p.ended = "its PID namespace has ended"
		}
	}
}

func (w hosts) List(ctx context.Context, name string) (list []lab.FoundHost, err error) {
	err = w.do(ctx, "Hosts.List", func(func()) error {
		for key, m := range w.hosts {
			if key.lab != name || len(m.programs)+len(m.volumes) == 0 {
				continue
			}
			f := lab.FoundHost{Name: key.cluster, Programs: map[string]bool{}}
			for program, p := range m.programs {
				f.Programs[program] = p.ended == ""
			}
			list = append(list, f)
		}
		slices.SortFunc(list, func(a, b lab.FoundHost) int { return strings.Compare(a.Name, b.Name) })
		return nil
	})
	return list, err
}

func (w hosts) Remove(ctx context.Context, name, host, program string, volumes ...string) error {
	return w.do(ctx, "Hosts.Remove "+host+" "+program, func(changed func()) error {
		m := w.hosts[nodeName{name, host}]
		if m == nil {
			return nil
		}
		if m.programs[program] != nil {
			m.end(program)
			changed()
		}
		for _, v := range volumes {
			if m.volumes[v] {
				changed()
			}
			m.lose(v)
		}
		return nil
	})
}

// lose removes a volume with what is in it.
func (m *machine) lose(volume string) {
	delete(m.volumes, volume)
	switch volume {
	case "agent":
		m.joined = spiffeid.ID{}
	case "server":
		m.spire = nil
	}
}

func (w hosts) Clear(ctx context.Context, name, host string) error {
	return w.do(ctx, "Hosts.Clear "+host, func(changed func()) error {
		if w.hosts[nodeName{name, host}] != nil {
			delete(w.hosts, nodeName{name, host})
			changed()
		}
		return nil
	})
}

// onHost reaches into the programs of a host.
type onHost struct {
	*world
	key nodeName
}

// program returns one that runs.
func (h onHost) program(name string) (*machine, *hostProgram, error) {
	m := h.hosts[h.key]
	if m == nil || m.programs[name] == nil {
		return nil, nil, fmt.Errorf("no such container: %s %s", h.key, name)
	}
	p := m.programs[name]
	if p.ended != "" {
		return nil, nil, fmt.Errorf("container %s %s has ended: %s", h.key, name, p.ended)
	}
	if time.Now().Before(p.since) {
		return nil, nil, fmt.Errorf("container %s %s starts", h.key, name)
	}
	return m, p, nil
}

func (h onHost) Exec(ctx context.Context, program string, argv ...string) (out []byte, err error) {
	err = h.do(ctx, "OnHost.Exec "+program, func(func()) error {
		m, _, err := h.program(program)
		if err == nil && len(argv) > 1 && argv[1] == "svid" {
			out, err = party{m.node, m.releases[releaseName{"", strings.TrimPrefix(program, "run-")}]}.svids(argv[2:])
			return err
		}
		if err == nil {
			err = m.serveOnHost()
		}
		if err != nil {
			return err
		}
		if argv[0] != spire.ServerProgram {
			return fmt.Errorf("there is no program %s", argv[0])
		}
		out, err = m.spire.mint(argv[1:])
		return err
	})
	return out, err
}

func (h onHost) Dial(ctx context.Context, program string, port int) (conn net.Conn, err error) {
	err = h.do(ctx, fmt.Sprintf("OnHost.Dial %s %d", program, port), func(func()) error {
		m, p, err := h.program(program)
		if err != nil {
			return err
		}
		if !slices.Contains(p.Ports, port) {
			return fmt.Errorf("port %d of %s is not published", port, program)
		}
		if program == lab.HostServer {
			if err := m.serveOnHost(); err != nil {
				return err
			}
			if port == spire.MetricsPort {
				conn = m.spire.metrics()
				return nil
			}
			conn, err = m.spire.listener.DialContext(ctx)
			return err
		}
		near, far := net.Pipe()
		conn = near
		if program == lab.HostAgent {
			status, body := "200 OK", ""
			if problem := m.attest(); problem != nil {
				status, body = "503 Service Unavailable", problem.Error()
			}
			go answered(far, status, body)
			return nil
		}
		go m.answer(far, m.releases[releaseName{"", strings.TrimPrefix(program, "run-")}])
		return nil
	})
	if err != nil && conn != nil {
		err = errors.Join(err, conn.Close())
	}
	return conn, err
}

func (h onHost) Run(context.Context, string, access.Streams, ...string) error {
	return errors.New("nobody is connected")
}

func (h onHost) Logs(_ context.Context, _ string, _ access.LogOptions, to io.Writer) error {
	_, err := io.WriteString(to, "starting\nfatal\n")
	return err
}

// settings finds in the configuration of a program what the world goes by.
func (p *hostProgram) setting(file, name string) string {
	found := regexp.MustCompile(`(?m)^\s*` + name + ` = "?([^"\n]*)"?$`).FindSubmatch(p.Files[file])
	if found == nil {
		panic(name + " is not in " + file)
	}
	return string(found[1])
}

var federatesWith = regexp.MustCompile(`(?s)federates_with "([^"]*)" \{\s*bundle_endpoint_url = "([^"]*)"\s*bundle_endpoint_profile "([^"]*)" \{\s*(?:endpoint_spiffe_id = "([^"]*)")?`)

// values are what a chart would have installed the server with.
func (p *hostProgram) values() spire.Values {
	v := spire.Values{TrustDomain: p.setting(spire.HostServerConfig, "trust_domain")}
	endpoint := string(p.Files[spire.HostServerConfig])
	_, endpoint, _ = strings.Cut(endpoint, "bundle_endpoint {")
	port := regexp.MustCompile(`port = (\d+)`).FindStringSubmatch(endpoint)
	v.BundleEndpoint.Port, _ = strconv.Atoi(port[1])
	v.BundleEndpoint.Address, v.BundleEndpoint.Profile = p.Address.String(), topology.HTTPSSPIFFE
	v.BundleEndpoint.RefreshHint = p.setting(spire.HostServerConfig, "refresh_hint")
	for _, f := range federatesWith.FindAllStringSubmatch(endpoint, -1) {
		v.FederatesWith = append(v.FederatesWith, spire.FederatesWithValues{TrustDomain: f[1], URL: f[2], Profile: topology.EndpointProfile(f[3]), EndpointSPIFFEID: f[4]})
	}
	if roots := p.Files[spire.HostWebRoots]; roots != nil && p.Env["SSL_CERT_FILE"] == spire.HostWebRoots {
		v.WebRoots = []string{string(roots)}
	}
	return v
}

// serveOnHost returns nil when the server of a host runs.
func (m *machine) serveOnHost() (err error) {
	_, p, err := onHost{m.world, m.name}.program(lab.HostServer)
	if err != nil {
		return err
	}
	if m.spire == nil {
		if m.spire, err = newSPIREServer(m.node, p.values()); err != nil {
			return err
		}
		m.spire.agents = 0
	}
	if m.spire.since != p.since {
		return m.spire.start(p.values(), p.since)
	}
	return nil
}

// serverOf returns the server whose API is at an address of a lab, for agents on hosts.
func (w *world) serverOf(name, address string) *spireServer {
	for key, n := range w.nodes {
		r := n.server()
		if key.lab != name || r == nil || n.answers() != nil || n.serves() != nil || n.objects[poolKey] == "" {
			continue
		}
		if n.spire.values.BundleEndpoint.Address == address && n.spire.values.JoinTokens {
			return n.spire
		}
	}
	for key, m := range w.hosts {
		if p := m.programs[lab.HostServer]; key.lab == name && p != nil && p.Address.String() == address && m.serveOnHost() == nil {
			return m.spire
		}
	}
	return nil
}

// attest returns nil when the agent of a host has attested, and else says what keeps it.
func (m *machine) attest() error {
	_, p, err := onHost{m.world, m.name}.program(lab.HostAgent)
	if err != nil {
		return err
	}
	s := m.serverOf(m.name.lab, p.setting(spire.HostAgentConfig, "server_address"))
	switch {
	case s == nil:
		return errors.New("no server answers")
	case !m.joined.IsZero() && s.attested[m.joined]:
		return nil
	case !m.joined.IsZero():
		m.joined, p.ended = spiffeid.ID{}, "Agent needs to re-attest: removing SVID and shutting down"
		return errors.New(p.ended)
	case !strings.Contains(string(p.seed[spire.HostBundle]), string(pki.Marshal(s.root))):
		return errors.New("x509: certificate signed by unknown authority")
	case !s.tokens[string(p.seed[spire.HostJoinToken])]:
		return errors.New("failed to attest: join token does not exist or has already been used")
	}
	token := string(p.seed[spire.HostJoinToken])
	delete(s.tokens, token)
	m.joined = spire.JoinedAgentID(s.td, token)
	s.attested[m.joined] = true
	return nil
}

// identify gives a workload what its entries say.
func (m *machine) identify(r *release) bool {
	r.registrations = nil
	if m.attest() != nil {
		return false
	}
	p := m.programs["run-"+r.Name]
	s := m.serverOf(m.name.lab, m.programs[lab.HostAgent].setting(spire.HostAgentConfig, "server_address"))
	want := spire.UnixSelectors(p.User, "/"+p.Image)
	for _, id := range slices.Sorted(maps.Keys(s.entries)) {
		if s.origins[id].parent == m.joined.String() && slices.Equal(slices.Sorted(slices.Values(s.selectors[id])), slices.Sorted(slices.Values(want))) {
			r.registrations = append(r.registrations, registration{id: id, federatesWith: s.entries[id], selectors: s.selectors[id], hint: spire.Hint, by: s})
		}
	}
	return len(r.registrations) > 0
}

func (m *machine) dump(add func(string, ...any)) {
	for name, p := range m.programs {
		add("program %s, runs %t: %s %q as %d with %q, %v, at %s, ports %v, volumes %v", name, p.ended == "", p.Image, p.Command, p.User, p.Capabilities, p.Env, p.Address, p.Ports, p.Volumes)
		for path, content := range p.Files {
			add("file %s of %s: %s", path, name, m.readable(string(encode(string(content)))))
		}
	}
	for v := range m.volumes {
		add("volume %s", v)
	}
	if !m.joined.IsZero() {
		add("agent of %s", m.joined.TrustDomain().Name())
	}
	if m.spire != nil {
		m.spire.dump(add)
	}
}

func (s *spireServer) CreateJoinToken(_ context.Context, r *agentv1.CreateJoinTokenRequest) (*types.JoinToken, error) {
	s.tokens[r.Token] = true
	return &types.JoinToken{Value: r.Token}, nil
}

func (s *spireServer) BatchCreateEntry(_ context.Context, r *entryv1.BatchCreateEntryRequest) (*entryv1.BatchCreateEntryResponse, error) {
	answer := &entryv1.BatchCreateEntryResponse{}
	for _, e := range r.Entries {
		id := spiffeid.RequireFromPath(s.td, e.SpiffeId.Path).String()
		result := &entryv1.BatchCreateEntryResponse_Result{Status: &types.Status{}, Entry: &types.Entry{Id: id}}
		for _, td := range e.FederatesWith {
			if s.held[spiffeid.RequireTrustDomainFromString(td)] == nil {
				result.Status = &types.Status{Code: int32(codes.Internal), Message: "no bundle of " + td}
			}
		}
		if e.Id != "" && result.Status.Code == 0 {
			result.Entry.Id = e.Id
			result.Status = s.createPlain(e)
		} else if result.Status.Code == 0 {
			s.entries[id], s.selectors[id] = e.FederatesWith, nil
			for _, selector := range e.Selectors {
				s.selectors[id] = append(s.selectors[id], selector.Type+":"+selector.Value)
			}
			s.origins[id] = origin{parent: spiffeid.RequireFromPath(s.td, e.ParentId.Path).String(), hint: e.Hint}
		}
		answer.Results = append(answer.Results, result)
	}
	return answer, nil
}

func (s *spireServer) BatchCreateFederationRelationship(_ context.Context, r *trustdomainv1.BatchCreateFederationRelationshipRequest) (*trustdomainv1.BatchCreateFederationRelationshipResponse, error) {
	answer := &trustdomainv1.BatchCreateFederationRelationshipResponse{}
	for _, f := range r.FederationRelationships {
		td := spiffeid.RequireTrustDomainFromString(f.TrustDomain)
		made := &relationship{url: f.BundleEndpointUrl, profile: topology.HTTPSWeb, fetches: time.Now().Add(latency)}
		if as := f.GetHttpsSpiffe(); as != nil {
			made.profile, made.endpointID = topology.HTTPSSPIFFE, as.EndpointSpiffeId
		}
		result := &trustdomainv1.BatchCreateFederationRelationshipResponse_Result{Status: &types.Status{}}
		if s.relationships[td] != nil {
			result.Status = &types.Status{Code: int32(codes.Internal), Message: "UNIQUE constraint failed"}
		} else {
			s.relationships[td] = made
			if f.TrustDomainBundle != nil {
				s.held[td] = fromAPI(f.TrustDomainBundle)
			}
		}
		answer.Results = append(answer.Results, result)
	}
	return answer, nil
}

func (s *spireServer) BatchDeleteFederationRelationship(_ context.Context, r *trustdomainv1.BatchDeleteFederationRelationshipRequest) (*trustdomainv1.BatchDeleteFederationRelationshipResponse, error) {
	answer := &trustdomainv1.BatchDeleteFederationRelationshipResponse{}
	for _, name := range r.TrustDomains {
		delete(s.relationships, spiffeid.RequireTrustDomainFromString(name))
		answer.Results = append(answer.Results, &trustdomainv1.BatchDeleteFederationRelationshipResponse_Result{Status: &types.Status{}, TrustDomain: name})
	}
	return answer, nil
}
