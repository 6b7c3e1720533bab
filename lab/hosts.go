package lab

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// This file is about hosts: machines outside Kubernetes, each made of containers. Their
// agents attest with join tokens, and what a controller manager does in a cluster is done
// here by the API of the server.

// The programs of a host, besides HostOwner and the workloads.
const (
	HostServer = "server"
	HostAgent  = "agent"
)

// HostRun returns the name of the program that a workload on a host is.
func HostRun(w *topology.Workload) string { return "run-" + w.Name }

// The volumes of a host.
const (
	serverVolume = "server"
	agentVolume  = "agent"
	socketVolume = "sockets"
)

// holderProgram is the program of fedlab's own that HostOwner runs.
const holderProgram = "holder"

// on returns what can be done with the programs of a host.
func (d *Driver) on(h *topology.Host) access.Host { return d.Parts.OnHost(h.Lab, h.Name) }

// run brings up a program of a host.
func (d *Driver) run(ctx context.Context, h *topology.Host, p HostProgram) error {
	made, err := d.Parts.Hosts.Run(ctx, h.Lab, h.Name, p)
	if made {
		plan.Did(ctx)
	}
	if err != nil {
		return fmt.Errorf("run %s on host %s: %w", p.Name, h.Name, err)
	}
	return nil
}

// ended says that a program of a host has ended, with what it wrote last: nothing starts it
// again but another up, so no wait goes on. It returns nil while the program runs.
func (u *up) ended(ctx context.Context, h *topology.Host, program string) error {
	found, err := u.Parts.Hosts.List(ctx, h.Lab)
	if err != nil {
		return err
	}
	if err = foundOnHost(h, program, found); err == nil {
		return nil
	}
	var log bytes.Buffer
	if failed := u.on(h).Logs(ctx, program, access.LogOptions{Since: rolloutBound}, &log); failed == nil && log.Len() > 0 {
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		err = fmt.Errorf("%w; it wrote last: %s", err, lines[len(lines)-1])
	}
	return check.Never(err)
}

// programsOf returns the names of the programs that a host has.
func programsOf(h *topology.Host) []string {
	all := []string{HostOwner, HostAgent}
	if h.Server != nil {
		all = append(all, HostServer)
	}
	for _, w := range h.Member.Workloads {
		all = append(all, HostRun(w))
	}
	return all
}

// host makes a host without its programs, and takes those away that the file no longer
// has: one of them may have the address of one that comes.
func (u *up) host(ctx context.Context, h *topology.Host) error {
	found, err := u.Parts.Hosts.List(ctx, h.Lab)
	if err != nil {
		return err
	}
	wanted := programsOf(h)
	for _, f := range found {
		for _, program := range slices.Sorted(maps.Keys(f.Programs)) {
			if f.Name != h.Name || slices.Contains(wanted, program) {
				continue
			}
			plan.Did(ctx)
			plan.Remark(ctx, program+" is not in the file: removes it")
			if err := u.Parts.Hosts.Remove(ctx, h.Lab, h.Name, program); err != nil {
				return err
			}
		}
	}
	return u.run(ctx, h, HostProgram{Name: HostOwner, Image: holderProgram, User: nobodysUID})
}

// nobodysUID is the number of the user who runs what owns nothing.
const nobodysUID = 65532

// hostServer runs a SPIRE server on its host, and connects to it.
func (u *up) hostServer(ctx context.Context, s *topology.Server) error {
	if err := u.run(ctx, s.Place.Host, u.hostServerProgram(s)); err != nil {
		return err
	}
	return u.connect(ctx, s)
}

func (u *up) hostServerProgram(s *topology.Server) HostProgram {
	p := HostProgram{
		Name: HostServer, Image: u.images.SPIREServer, Command: []string{spire.ServerProgram, "run", "-config", spire.HostServerConfig},
		Address: s.Address, Ports: []int{spire.APIPort, spire.MetricsPort},
		Volumes: []HostVolume{{Name: serverVolume, Folder: spire.HostDataDir}},
	}
	if s.Domain.BundleEndpoint.Port < firstFreePort {
		p.Capabilities = []string{"NET_BIND_SERVICE"}
	}
	for _, name := range u.Names() {
		if p.Names == nil {
			p.Names = map[string]netip.Addr{}
		}
		p.Names[name.Host] = name.Address
	}
	settings := u.serverSettings(s)
	p.Files = map[string][]byte{spire.HostServerConfig: []byte(spire.HostServer{Domain: s.Domain, Static: settings.Static}.Config())}
	if len(settings.WebRoots) > 0 {
		slices.Sort(settings.WebRoots)
		var roots []byte
		for _, root := range settings.WebRoots {
			roots = append(roots, root...)
		}
		p.Env, p.Files[spire.HostWebRoots] = spire.WebRoots(), roots
	}
	return p
}

// firstFreePort is the first that anybody may listen on (ip(7), ip_local_port_range).
const firstFreePort = 1024

// hostAgents returns the agents that a server knows of a host.
func hostAgents(agents []spire.Agent, h *topology.Host) []spire.Agent {
	return slices.DeleteFunc(slices.Clone(agents), func(a spire.Agent) bool { return spire.JoinedOn(a.ID) != h.Name })
}

const (
	// tokenTTL is longer than what comes between a token and the agent that shows it.
	tokenTTL = rolloutBound
	// joinSlack is how long an agent that the server knows may take to become ready. One
	// that has lost its data is refused for a minute before it ends (SPIRE
	// pkg/agent/agent.go, bootstrapBackoffMaxElapsedTime).
	joinSlack = 30 * time.Second
	joinBound = rolloutBound + joinSlack
)

// join runs the agent of a host, and waits until it has attested to its server. It is
// given a token where the server knows none of its agents, or where the one that it
// knows does not become ready.
func (u *up) join(ctx context.Context, m *topology.Member) error {
	j := &joining{up: u, member: m, api: u.site(m.Server).API}
	return wait(ctx, joinBound, check.Check{
		Name:  fmt.Sprintf("the SPIRE agent on host %s has attested to the server of %s", m.Host().Name, m.Domain),
		Probe: j.probe,
	})
}

// joining is the agent of a host that is being brought up.
type joining struct {
	*up
	member *topology.Member
	api    *spire.Server
	// began is when the agent was first seen to run.
	began time.Time
	// token is one that the server has made; empty where the agent needs none.
	token string
}

func (j *joining) probe(ctx context.Context) error {
	h := j.member.Host()
	agents, err := j.api.Agents(ctx)
	if err != nil {
		return err
	}
	those := hostAgents(agents, h)
	late := !j.began.IsZero() && time.Since(j.began) > joinSlack
	if j.token == "" && (len(those) != 1 || !live(those[0]) || late) {
		if err := j.renew(ctx, those); err != nil {
			return err
		}
	}
	if err := j.run(ctx, h, j.agentProgram(j.member, j.seed)); err != nil {
		return err
	}
	if j.began.IsZero() {
		j.began = time.Now()
	}
	if err := answersReady(ctx, j.on(h), HostAgent, spire.HostHealthPort, "/ready"); err != nil {
		return err
	}
	if len(those) != 1 || j.token != "" && those[0].ID != spire.JoinedAgentID(j.member.Domain.Name, j.token) {
		return fmt.Errorf("the server knows no agent of host %s", h.Name)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.joined[j.member] = those[0].ID
	return nil
}

// renew has the server forget the agents of the host and take another one. What the agent
// had goes: it would show that first.
func (j *joining) renew(ctx context.Context, those []spire.Agent) error {
	plan.Did(ctx)
	h := j.member.Host()
	for _, a := range those {
		plan.Remark(ctx, fmt.Sprintf("the agent on host %s is to attest again: the server forgets %s", h.Name, a.ID))
		if err := known(j.api.DeleteAgent(ctx, a.ID)); err != nil {
			return err
		}
	}
	if err := j.Parts.Hosts.Remove(ctx, h.Lab, h.Name, HostAgent, agentVolume); err != nil {
		return err
	}
	token := spire.NewJoinToken(h.Name)
	if err := j.api.CreateJoinToken(ctx, token, tokenTTL); err != nil {
		return err
	}
	j.token = token
	return nil
}

// seed returns what an agent starts with. Its configuration names a token, which it shows
// only when it has no SVID: that is then one that no server has made.
func (j *joining) seed(ctx context.Context) (map[string][]byte, error) {
	bundle, err := j.api.Bundle(ctx)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		spire.HostBundle:    pki.Marshal(bundle.X509Authorities()...),
		spire.HostJoinToken: []byte(cmp.Or(j.token, spire.NewJoinToken(j.member.Host().Name))),
	}, nil
}

func (u *up) agentProgram(m *topology.Member, seed func(context.Context) (map[string][]byte, error)) HostProgram {
	config := spire.HostAgent{Domain: m.Domain, Server: netip.AddrPortFrom(m.Server.Address, spire.APIPort)}.Config()
	return HostProgram{
		Name: HostAgent, Image: u.images.SPIREAgent, Command: []string{spire.AgentProgram, "run", "-config", spire.HostAgentConfig},
		Capabilities: []string{"SYS_PTRACE"}, Ports: []int{spire.HostHealthPort},
		Volumes: []HostVolume{{Name: agentVolume, Folder: spire.HostDataDir}, {Name: socketVolume, Folder: spire.HostSocketDir}},
		Files:   map[string][]byte{spire.HostAgentConfig: []byte(config)}, Seed: seed,
	}
}

// agentOn returns the SPIFFE ID of the agent of a host, once it has joined.
func (u *up) agentOn(m *topology.Member) spiffeid.ID {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.joined[m]
}

// answersReady returns nil when a program of a host answers that it is ready.
func answersReady(ctx context.Context, on access.Host, program string, port int, path string) error {
	status, text, err := get(ctx, func(ctx context.Context) (net.Conn, error) { return on.Dial(ctx, program, port) }, path)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("it answers %d %s: %s", status, http.StatusText(status), firstLine(string(text)))
	}
	if err != nil {
		return fmt.Errorf("%s is not ready: %w", program, err)
	}
	return nil
}

// deployOnHost runs a workload on its host.
func (u *up) deployOnHost(ctx context.Context, w *topology.Workload) error {
	env, health, err := u.Parts.Programs.OnHost(w)
	if err != nil {
		return err
	}
	p := HostProgram{
		Name: HostRun(w), Image: w.App.Name, User: w.UID(), Env: env, Address: w.Address, Ports: []int{health},
		Volumes: []HostVolume{{Name: socketVolume, Folder: spire.HostSocketDir, ReadOnly: true}},
	}
	if w.App.Tells != "" && w.App.Port != health {
		p.Ports = append(p.Ports, w.App.Port)
	}
	return u.run(ctx, w.Host(), p)
}

// readyOnHost returns nil when a workload on a host is ready, which it is once it has its
// identity.
func (d *Driver) readyOnHost(ctx context.Context, w *topology.Workload) error {
	_, health, err := d.Parts.Programs.OnHost(w)
	if err != nil {
		return err
	}
	return answersReady(ctx, d.on(w.Host()), HostRun(w), health, "/readyz")
}

// registerByAPI registers a workload of a host whose server is on a host.
func (u *up) registerByAPI(ctx context.Context, w *topology.Workload) error {
	api, want := u.site(w.Member.Server).API, spire.HostEntry(w, u.agentOn(w.Member))
	return wait(ctx, apiBound, check.Check{Name: "the SPIRE server takes the registration", Probe: func(ctx context.Context) error {
		entries, err := api.Entries(ctx)
		if err != nil {
			return err
		}
		there := false
		for _, e := range entries {
			switch {
			case e.SPIFFEID != w.ID || e.Declared():
			case !there && sameEntry(e, want):
				there = true
			default:
				plan.Did(ctx)
				if err := known(api.DeleteEntry(ctx, e.ID)); err != nil {
					return err
				}
			}
		}
		if there {
			return nil
		}
		plan.Did(ctx)
		_, err = api.CreateEntry(ctx, want)
		return err
	}})
}

// sameKey reports whether two entries have what no two entries of a server have both: SPIFFE
// ID, parent and selectors (SPIRE pkg/server/datastore/sqlstore, lookupSimilarEntry).
func sameKey(a, b spire.Entry) bool {
	sorted := func(texts []string) []string { return slices.Sorted(slices.Values(texts)) }
	return a.SPIFFEID == b.SPIFFEID && a.ParentID == b.ParentID && slices.Equal(sorted(a.Selectors), sorted(b.Selectors))
}

// sameEntry reports whether an entry is what another asks for.
func sameEntry(is, want spire.Entry) bool {
	domains := func(all []spiffeid.TrustDomain) []spiffeid.TrustDomain {
		return slices.SortedFunc(slices.Values(all), spiffeid.TrustDomain.Compare)
	}
	return sameKey(is, want) && is.Hint == want.Hint && is.Admin == want.Admin && is.Downstream == want.Downstream &&
		is.X509SVIDTTL == want.X509SVIDTTL && is.JWTSVIDTTL == want.JWTSVIDTTL &&
		slices.Equal(is.DNSNames, want.DNSNames) && slices.Equal(domains(is.FederatesWith), domains(want.FederatesWith))
}

// tidyHost takes out of a server on a host what the file does not ask for, or no longer:
// entries, relationships with their bundles, and agents of hosts that are gone. Nobody but
// fedlab has the right to its API.
func (u *up) tidyHost(ctx context.Context, s *topology.Server) error {
	site := u.site(s)
	entries, err := site.API.Entries(ctx)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Declared() || slices.ContainsFunc(s.Domain.Workloads(), func(w *topology.Workload) bool { return w.ID == e.SPIFFEID }) {
			continue
		}
		plan.Did(ctx)
		if err := known(site.API.DeleteEntry(ctx, e.ID)); err != nil {
			return err
		}
	}
	if err := u.tidyEntries(ctx, site); err != nil {
		return err
	}
	if err := unrelate(ctx, site); err != nil {
		return err
	}
	if err := forget(ctx, site); err != nil {
		return err
	}
	return dismissHosts(ctx, site)
}

// dismissHosts has a server forget the agents of hosts that are no members any more.
func dismissHosts(ctx context.Context, site *Site) error {
	agents, err := site.API.Agents(ctx)
	if err != nil {
		return err
	}
	for _, a := range agents {
		on := spire.JoinedOn(a.ID)
		if on == "" || slices.ContainsFunc(site.OnHosts(), func(m *topology.Member) bool { return m.Host().Name == on }) {
			continue
		}
		plan.Did(ctx)
		if err := known(site.API.DeleteAgent(ctx, a.ID)); err != nil {
			return err
		}
	}
	return nil
}

// asker returns the cluster from whose node servers are asked as a place would: that of
// the place, or for a host the first one, which is on the same network.
func asker(g *topology.Graph, p topology.Place) *topology.Cluster {
	if p.Cluster != nil {
		return p.Cluster
	}
	return g.Clusters[0]
}

// clusterName returns the name of a place that is a cluster, and hostName that of one that
// is a host; else they are empty.
func clusterName(p topology.Place) string {
	if p.Cluster == nil {
		return ""
	}
	return p.Cluster.Name
}

func hostName(p topology.Place) string {
	if p.Host == nil {
		return ""
	}
	return p.Host.Name
}
