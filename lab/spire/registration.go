package spire

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
)

// Agent is an agent that has attested to the server.
type Agent struct {
	ID spiffeid.ID
	// AttestedBy names the node attestor, such as k8s_psat.
	AttestedBy string
	// ExpiresAt is when the agent's SVID ends unless it is renewed before.
	ExpiresAt time.Time
	// Serial is the serial number of that SVID, in decimal.
	Serial string
	// Banned agents are refused until they are evicted.
	Banned bool
	// Selectors read "type:value"; they tell which node it is on.
	Selectors []string
}

// Agents returns the agents that have attested, among them those that have gone
// for good: the server does not notice.
func (s *Server) Agents(ctx context.Context) ([]Agent, error) {
	const doing = "list agents"
	answers, err := collect(func(token string) ([]*types.Agent, string, error) {
		page, err := s.agents.ListAgents(ctx, &agentv1.ListAgentsRequest{
			OutputMask: &types.AgentMask{AttestationType: true, X509SvidExpiresAt: true, X509SvidSerialNumber: true, Banned: true, Selectors: true},
			PageSize:   pageSize,
			PageToken:  token,
		})
		return page.GetAgents(), page.GetNextPageToken(), err
	})
	if err != nil {
		return nil, s.wrap(err, doing)
	}
	agents := make([]Agent, len(answers))
	for i, answer := range answers {
		id, err := idFromAPI(answer.GetId())
		if err != nil {
			return nil, s.wrap(fmt.Errorf("read agent: %w", err), doing)
		}
		agents[i] = Agent{
			ID:         id,
			AttestedBy: answer.GetAttestationType(),
			ExpiresAt:  time.Unix(answer.GetX509SvidExpiresAt(), 0),
			Serial:     answer.GetX509SvidSerialNumber(),
			Banned:     answer.GetBanned(),
			Selectors:  selectorsFromAPI(answer.GetSelectors()),
		}
	}
	return agents, nil
}

// BanAgent has the server refuse an agent until DeleteAgent forgets it, also when it attests
// again (pkg/server/api/agent/v1/service.go). The agent ends as soon as it hears of that. The
// error is a *NotFoundError if the server does not know it.
func (s *Server) BanAgent(ctx context.Context, id spiffeid.ID) error {
	_, err := s.agents.BanAgent(ctx, &agentv1.BanAgentRequest{Id: idToAPI(id)})
	return s.wrap(err, "ban agent %s", id)
}

// DeleteAgent forgets an agent. One that still runs has to attest again. The error is a
// *NotFoundError if the server does not know it.
func (s *Server) DeleteAgent(ctx context.Context, id spiffeid.ID) error {
	_, err := s.agents.DeleteAgent(ctx, &agentv1.DeleteAgentRequest{Id: idToAPI(id)})
	return s.wrap(err, "delete agent %s", id)
}

// CreateJoinToken lets one agent attest with a token, within ttl. SPIRE deletes the token
// as soon as an agent shows it, even if the rest of that attestation fails
// (pkg/server/api/agent/v1/service.go, attestJoinToken).
func (s *Server) CreateJoinToken(ctx context.Context, token string, ttl time.Duration) error {
	_, err := s.agents.CreateJoinToken(ctx, &agentv1.CreateJoinTokenRequest{Token: token, Ttl: int32(ttl / time.Second)})
	return s.wrap(err, "create join token")
}

// Entry is a registration entry: who gets which SPIFFE ID.
type Entry struct {
	ID       string
	SPIFFEID spiffeid.ID
	// ParentID is the agent, or the set of agents, that may ask for it.
	ParentID spiffeid.ID
	// Selectors read "type:value"; a workload must have all of them.
	Selectors []string
	// FederatesWith are the trust domains whose bundles the workload receives
	// besides its own.
	FederatesWith []spiffeid.TrustDomain
	// Hint tells the workload what the identity is for; empty for none.
	Hint string
	// X509SVIDTTL and JWTSVIDTTL are zero where the server's defaults hold.
	X509SVIDTTL, JWTSVIDTTL time.Duration
	// DNSNames are those of its X509-SVIDs; the first is also the CN.
	DNSNames []string
	// Admin bearers may use the whole API of the server.
	Admin bool
	// Downstream entries are those of nested servers: their bearers may have authorities
	// signed.
	Downstream bool
}

// Entries returns the server's registration entries.
func (s *Server) Entries(ctx context.Context) ([]Entry, error) {
	const doing = "list entries"
	answers, err := collect(func(token string) ([]*types.Entry, string, error) {
		page, err := s.entries.ListEntries(ctx, &entryv1.ListEntriesRequest{
			OutputMask: &types.EntryMask{
				SpiffeId: true, ParentId: true, Selectors: true, FederatesWith: true, X509SvidTtl: true, JwtSvidTtl: true, Hint: true, DnsNames: true, Admin: true, Downstream: true,
			},
			PageSize:  pageSize,
			PageToken: token,
		})
		return page.GetEntries(), page.GetNextPageToken(), err
	})
	if err != nil {
		return nil, s.wrap(err, doing)
	}
	entries := make([]Entry, len(answers))
	for i, answer := range answers {
		if entries[i], err = entryFromAPI(answer); err != nil {
			return nil, s.wrap(fmt.Errorf("read entry %s: %w", answer.GetId(), err), doing)
		}
	}
	return entries, nil
}

// CreateEntry registers an entry and returns its ID, which the server chooses
// where Entry has none. One with the SPIFFE ID, the parent and the selectors of
// an entry that is there is refused with the code AlreadyExists, and one that
// federates with a trust domain of which the server holds no bundle with the code
// Internal. Agents learn of it as federation.RegistrationBound says.
//
// Where a controller manager without a prefix reconciles entries it deletes this one soon,
// since no resource asks for it.
func (s *Server) CreateEntry(ctx context.Context, e Entry) (id string, err error) {
	request, err := entryToAPI(e)
	if err != nil {
		return "", s.wrap(err, "create entry of %s", e.SPIFFEID)
	}
	answer, err := s.entries.BatchCreateEntry(ctx, &entryv1.BatchCreateEntryRequest{
		Entries: []*types.Entry{request}, OutputMask: &types.EntryMask{},
	})
	for _, result := range answer.GetResults() {
		if err = statusError(result.GetStatus()); err == nil {
			id = result.GetEntry().GetId()
		}
	}
	return id, s.wrap(err, "create entry of %s", e.SPIFFEID)
}

// DeleteEntry takes back a registration. The error is a *NotFoundError if the
// server has no entry with that ID. An SVID that was issued by it is good until
// it expires.
func (s *Server) DeleteEntry(ctx context.Context, id string) error {
	answer, err := s.entries.BatchDeleteEntry(ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{id}})
	for _, result := range answer.GetResults() {
		err = statusError(result.GetStatus())
	}
	return s.wrap(err, "delete entry %s", id)
}

func entryToAPI(e Entry) (*types.Entry, error) {
	entry := &types.Entry{
		Id:          e.ID,
		SpiffeId:    idToAPI(e.SPIFFEID),
		ParentId:    idToAPI(e.ParentID),
		X509SvidTtl: int32(e.X509SVIDTTL / time.Second),
		JwtSvidTtl:  int32(e.JWTSVIDTTL / time.Second),
		Hint:        e.Hint,
		DnsNames:    e.DNSNames,
		Admin:       e.Admin,
		Downstream:  e.Downstream,
	}
	for _, selector := range e.Selectors {
		kind, value, found := strings.Cut(selector, ":")
		if !found {
			return nil, fmt.Errorf("selector %q has no colon", selector)
		}
		entry.Selectors = append(entry.Selectors, &types.Selector{Type: kind, Value: value})
	}
	for _, td := range e.FederatesWith {
		entry.FederatesWith = append(entry.FederatesWith, td.Name())
	}
	return entry, nil
}

func entryFromAPI(e *types.Entry) (Entry, error) {
	id, err := idFromAPI(e.GetSpiffeId())
	if err != nil {
		return Entry{}, err
	}
	parent, err := idFromAPI(e.GetParentId())
	if err != nil {
		return Entry{}, fmt.Errorf("parent: %w", err)
	}
	entry := Entry{
		ID:          e.GetId(),
		SPIFFEID:    id,
		ParentID:    parent,
		Selectors:   selectorsFromAPI(e.GetSelectors()),
		X509SVIDTTL: time.Duration(e.GetX509SvidTtl()) * time.Second,
		JWTSVIDTTL:  time.Duration(e.GetJwtSvidTtl()) * time.Second,
		Hint:        e.GetHint(),
		DNSNames:    e.GetDnsNames(),
		Admin:       e.GetAdmin(),
		Downstream:  e.GetDownstream(),
	}
	for _, name := range e.GetFederatesWith() {
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return Entry{}, fmt.Errorf("federates with: %w", err)
		}
		entry.FederatesWith = append(entry.FederatesWith, td)
	}
	return entry, nil
}

func selectorsFromAPI(answers []*types.Selector) (selectors []string) {
	for _, s := range answers {
		selectors = append(selectors, s.GetType()+":"+s.GetValue())
	}
	return selectors
}

func idToAPI(id spiffeid.ID) *types.SPIFFEID {
	return &types.SPIFFEID{TrustDomain: id.TrustDomain().Name(), Path: id.Path()}
}

func idFromAPI(id *types.SPIFFEID) (spiffeid.ID, error) {
	td, err := spiffeid.TrustDomainFromString(id.GetTrustDomain())
	if err != nil {
		return spiffeid.ID{}, err
	}
	return spiffeid.FromPath(td, "/"+strings.TrimPrefix(id.GetPath(), "/"))
}
