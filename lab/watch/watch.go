// Package watch says how a lab's federation stands at one moment, and what follows from
// that: what ends soon, and who has not fetched for too long.
//
// It is pure: it is told what was seen, and refuses to know clusters, servers and clocks.
package watch

import (
	"slices"
	"time"

	"github.com/fedlab-dev/fedlab/lab/federation"
)

// Look is what was seen of a lab's federation at one moment.
type Look struct {
	Lab     string    `json:"lab"`
	At      time.Time `json:"at"`
	Domains []Domain  `json:"domains"`
	// Pairs has one for each relationship of the lab, also where no bundle is held.
	Pairs []Pair `json:"pairs"`
	// Identities are the X509-SVIDs and serving certificates that the federation needs.
	Identities []Identity `json:"identities"`
	// Calls are those of which demo programs tell.
	Calls []Call `json:"calls"`
}

// Domain is one SPIRE server of a trust domain.
type Domain struct {
	// Name is that of the trust domain, for a nested server with its cluster
	// ("one.test@b").
	Name string `json:"name"`
	// Own are the authorities that the server has in the bundle of its trust domain, and
	// Served those that its bundle endpoint serves.
	Own    []federation.Authority `json:"own"`
	Served []federation.Authority `json:"served,omitempty"`
	// Endpoint is the URL of the bundle endpoint; empty where nobody fetches from one.
	Endpoint string `json:"endpoint,omitempty"`
	// EndpointUp says that the endpoint serves a bundle, and LatencySeconds how long the
	// answer took, with the handshake.
	EndpointUp     bool    `json:"endpointUp"`
	LatencySeconds float64 `json:"latencySeconds,omitzero"`
	// EntryFailures counts the entries that the controller managers of the server have asked
	// for and that it does not take.
	EntryFailures int `json:"entryFailures"`
	// Problem is what of this could not be seen, and why.
	Problem string `json:"problem,omitempty"`
}

// Pair is a relationship: whom a server trusts, and what it holds of them.
type Pair struct {
	// Truster names the server as Domain.Name does.
	Truster string `json:"truster"`
	Trusted string `json:"trusted"`
	Profile string `json:"profile"`
	Mode    string `json:"mode"`
	// State is as in the command drift, of package federation or of package lab.
	State federation.State       `json:"state"`
	Held  []federation.Authority `json:"held"`
	// PollSeconds is the interval at which the truster fetches; zero where it does not, and
	// Unpolled says why.
	PollSeconds float64 `json:"pollSeconds,omitzero"`
	Unpolled    string  `json:"unpolled,omitempty"`
	// NextPollBy is when the truster will have fetched at the latest: one poll after
	// LastFetch, or after CountedSince where no fetch was seen, so that it may be over; after
	// Look.At where nothing is counted.
	NextPollBy time.Time `json:"nextPollBy,omitzero"`
	// Fetches and Failures are what the truster's server has counted since it started. They
	// have been read in each look since CountedSince; zero where they cannot be read.
	Fetches      int       `json:"fetches"`
	Failures     int       `json:"failures"`
	CountedSince time.Time `json:"countedSince,omitzero"`
	// LastFetch is when a look has last seen that Fetches had changed; zero where none has.
	LastFetch time.Time `json:"lastFetch,omitzero"`
	// LastFailure is the same for Failures.
	LastFailure time.Time `json:"lastFailure,omitzero"`
	// Cause is why fetches fail, as the command status names it; empty where it finds
	// nothing, or where nothing has failed since the look before.
	Cause string `json:"cause,omitempty"`
	// Problem is what is wrong, as the command drift says it.
	Problem string `json:"problem,omitempty"`
}

// Poll is PollSeconds.
func (p Pair) Poll() time.Duration { return time.Duration(p.PollSeconds * float64(time.Second)) }

// What an Identity is.
const (
	Endpoint = "endpoint"
	Webhook  = "webhook"
	Agent    = "agent"
	Workload = "workload"
)

// Identity is an X509-SVID that somebody presents, or the certificate of an https_web
// endpoint.
type Identity struct {
	// What is one of those above, and Name tells it apart from others of its kind.
	What        string `json:"what"`
	Name        string `json:"name"`
	TrustDomain string `json:"trustDomain"`
	// SPIFFEID is empty for a web certificate.
	SPIFFEID string `json:"spiffeID,omitempty"`
	// Authority is the ID of the authority in the bundle that the chain leads to; empty for
	// an agent, of which the server tells only when its SVID ends.
	Authority string    `json:"authority,omitempty"`
	Issued    time.Time `json:"issued,omitzero"`
	// Expires is when the first certificate of the chain ends, and LifeSeconds how long it is
	// valid in all; for an agent, what the lab file asks for.
	Expires     time.Time `json:"expires,omitzero"`
	LifeSeconds float64   `json:"lifeSeconds,omitzero"`
	// Problem is why it could not be seen.
	Problem string `json:"problem,omitempty"`
}

// Call is how the calls of one workload to another go.
type Call struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Caller and Server are the trust domains of both.
	Caller string `json:"caller"`
	Server string `json:"server"`
	// Outcome is one of those below.
	Outcome string `json:"outcome"`
	Problem string `json:"problem,omitempty"`
}

// How calls go.
const (
	Answered = "answered"
	Failed   = "failed"
	// Untold: nobody tells.
	Untold = "untold"
)

// After returns the look with what two looks tell: when fetches were last seen to be
// counted. The one before may be the zero value.
func (l Look) After(before Look) Look {
	l.Pairs = slices.Clone(l.Pairs)
	for i := range l.Pairs {
		p := &l.Pairs[i]
		was, there := before.Pair(p.Truster, p.Trusted)
		if there {
			p.LastFetch, p.LastFailure = was.LastFetch, was.LastFailure
		}
		if there && !p.CountedSince.IsZero() && !was.CountedSince.IsZero() {
			p.CountedSince = was.CountedSince
			// A server that was started again counts from zero.
			if p.Fetches != was.Fetches && p.Fetches > 0 {
				p.LastFetch = l.At
			}
			if p.Failures != was.Failures && p.Failures > 0 {
				p.LastFailure = l.At
			}
		}
		since := p.LastFetch
		if since.IsZero() {
			since = p.CountedSince
		}
		if !since.IsZero() && p.PollSeconds > 0 {
			p.NextPollBy = since.Add(p.Poll())
		}
	}
	return l
}

// Pair returns the relationship of two; false where there is none.
func (l Look) Pair(truster, trusted string) (Pair, bool) {
	i := slices.IndexFunc(l.Pairs, func(p Pair) bool { return p.Truster == truster && p.Trusted == trusted })
	if i < 0 {
		return Pair{}, false
	}
	return l.Pairs[i], true
}
