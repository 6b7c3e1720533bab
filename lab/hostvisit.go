package lab

import (
	"context"
	"fmt"

	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// This file is what visit.go is for clusters, for hosts.

// askHostServer is askServer for a server on a host.
func (v *visit) askHostServer(ctx context.Context, s *topology.Server, a *asked) {
	if a.silent = foundOnHost(s.Place.Host, HostServer, v.hosts); a.silent != nil {
		return
	}
	if a.site, a.silent = v.connectOnHost(ctx, s); a.silent != nil {
		return
	}
	a.silent = a.ask(ctx)
	for m, found := range a.members {
		found.told = a.told
		found.agentsProblem = v.agentReady(ctx, m.Host())
	}
}

// agentReady returns nil when the agent of a host is ready.
func (v *visit) agentReady(ctx context.Context, h *topology.Host) error {
	if err := foundOnHost(h, HostAgent, v.hosts); err != nil {
		return named(AgentUnready, err)
	}
	return named(AgentUnready, answersReady(ctx, v.on(h), HostAgent, spire.HostHealthPort, "/ready"))
}

// host is the status of a host: whether its programs run. How they are is told of them.
func (v *visit) host(h *topology.Host) HostStatus {
	s := HostStatus{Name: h.Name, Addresses: h.Pool.String()}
	for _, program := range programsOf(h) {
		if err := foundOnHost(h, program, v.hosts); err != nil {
			s.Health = health(err)
			return s
		}
	}
	s.Well = true
	return s
}

// hostAttendance is attendance for a member on a host.
func (v *visit) hostAttendance(m *topology.Member) attendance {
	a, s := v.servers[m.Server], attendance{MemberStatus: MemberStatus{Host: m.Host().Name}}
	for _, agent := range hostAgents(a.agents, m.Host()) {
		if live(agent) {
			s.Agents++
		}
	}
	if a.silent != nil {
		s.Health = health(fmt.Errorf("the server of %s does not answer", m.Domain))
		return s
	}
	err := v.member(m).agentsProblem
	if err == nil && s.Agents != 1 {
		err = because(NotAttested, "the server knows %d agents of host %s, want 1: the next up has the agent attest again", s.Agents, m.Host().Name)
	}
	if m != m.Server.Home() {
		s.err = err // else it is said of the server
	}
	s.Health = health(err)
	return s
}
