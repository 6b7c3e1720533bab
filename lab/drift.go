package lab

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Drift is how what each trust domain holds of others stands to what these
// serve, at one moment.
type Drift struct {
	Lab string `json:"lab"`
	// Well is true when all that the lab asks for is in sync.
	Well bool      `json:"well"`
	At   time.Time `json:"at"`
	// Held has one for each relationship of the lab, also where no bundle is
	// held.
	Held []HeldBundle `json:"held"`
	// Unasked are held, and no relationship of the lab asks for them. They do not
	// count for Well.
	Unasked []HeldBundle `json:"unasked"`
	// Silent are the trust domains whose servers cannot be asked, for a nested server with
	// its cluster ("one.test@b"). What they hold without a relationship is not in Unasked.
	Silent []string `json:"silent,omitempty"`
	// Published has one for each cluster of those trust domains that have several, and one
	// more where that cluster has a nested server.
	Published []PublishedBundle `json:"published,omitempty"`
}

// PublishedBundle is how what the agents of a cluster start with stands to the bundle of
// their server.
type PublishedBundle struct {
	Health
	TrustDomain string `json:"trustDomain"`
	Cluster     string `json:"cluster"`
	// Downstream is set where the agents are for the nested server of the cluster alone.
	Downstream bool `json:"downstream,omitempty"`
}

// HeldBundle is how the bundle that one trust domain holds of another stands to
// its source.
type HeldBundle struct {
	Health
	Truster string `json:"truster"`
	// Cluster is that of a nested server of the truster, which holds the bundle besides
	// the root; empty for the root.
	Cluster string `json:"cluster,omitempty"`
	Trusted string `json:"trusted"`
	// Profile and Mode are those of the relationship.
	Profile string `json:"profile,omitempty"`
	Mode    string `json:"mode,omitempty"`
	// State is one of package federation's, or one of those below.
	State federation.State `json:"state"`
	// Bundle is one of package federation's, also where State is about the
	// endpoint; empty when one of both servers cannot be asked.
	Bundle federation.State `json:"bundle,omitempty"`
	// ComparedWith is what Bundle, Lacking and Foreign go by.
	ComparedWith Source `json:"comparedWith,omitempty"`
	// Lacking are the authorities that only the source has, Foreign those that
	// it does not have.
	Lacking []federation.Authority `json:"lacking,omitempty"`
	Foreign []federation.Authority `json:"foreign,omitempty"`
	// Since is for a bundle that is behind: when the first of the X.509
	// authorities that it lacks was issued. It has been behind since then, unless
	// somebody has set it back later. Zero where nobody can tell: JWT authorities
	// have no times, and an upstream authority is older than its part in the
	// bundle.
	Since time.Time `json:"since,omitzero"`
	// PollSeconds is the interval at which the truster fetches, and NextPollBy
	// when it will have fetched at the latest, seen from Drift.At and as long as
	// its last fetch found what is held now (see Repaired); whether the next one
	// succeeds is another question. Both are zero where it does not fetch, and
	// Unpolled says why.
	PollSeconds float64   `json:"pollSeconds,omitzero"`
	NextPollBy  time.Time `json:"nextPollBy,omitzero"`
	Unpolled    string    `json:"unpolled,omitempty"`
}

// Holder names the server that holds the bundle: the truster, with the cluster of a nested
// server ("one.test@b").
func (h HeldBundle) Holder() string { return topology.ServerName(h.Truster, h.Cluster) }

// States of a held bundle that are not about its authorities.
const (
	// Unreachable: the endpoint gives no bundle. There is no connection, from its
	// own cluster's node or from the truster's, or a certificate that is not
	// accepted, or an answer that is no bundle.
	Unreachable federation.State = "unreachable"
	// Hanging: the endpoint takes requests and does not answer. It holds a server
	// that fetches for good (SPIRE waits without bound).
	Hanging federation.State = "hanging"
	// Unknown: a server cannot be asked.
	Unknown federation.State = "unknown"
)

// Source is what a held bundle was compared with.
type Source string

const (
	// Endpoint is what the bundle endpoint of the trusted domain serves.
	Endpoint Source = "endpoint"
	// OwnServer is what the trusted domain's server says over its admin API:
	// where nobody fetches, or the endpoint does not give what it should.
	OwnServer Source = "server"
)

// HangingError says that a bundle endpoint took a request and did not answer it
// to the end.
type HangingError struct {
	URL    string
	Within time.Duration
}

func (e *HangingError) Error() string {
	return fmt.Sprintf("%s takes requests and has not answered within %s", e.URL, e.Within)
}

// Drift compares what every server holds of others with what those serve. What
// cannot be had is part of the answer; an error means that this machine could
// not be asked, or, as a *NotUpError, that there is no lab.
func (d *Driver) Drift(ctx context.Context, t topology.Topology) (Drift, error) {
	v, err := d.visit(ctx, t)
	if err != nil {
		return Drift{}, err
	}
	defer v.close()
	drift, _, err := v.drift(ctx)
	return drift, err
}

// drift returns what the endpoints serve, too.
func (v *visit) drift(ctx context.Context) (Drift, map[*topology.Server]served, error) {
	if !v.networked() {
		return Drift{}, nil, &NotUpError{Lab: v.Name, What: "it has no network"}
	}
	served := v.askEndpoints(ctx)
	drift := Drift{Lab: v.Name, Well: true, At: time.Now()}
	drift.Unasked = v.unasked(drift.At)
	for _, s := range v.Servers() {
		if v.servers[s].silent != nil {
			drift.Silent = append(drift.Silent, s.String())
		}
	}
	wanted := v.Relationships()
	drift.Held = make([]HeldBundle, len(wanted))
	each(len(wanted), func(i int) {
		ctx, cancel := context.WithTimeout(ctx, statusBound)
		defer cancel()
		drift.Held[i] = v.held(ctx, wanted[i], served[wanted[i].Trusted.Server()], drift.At)
	})
	drift.Published = v.publications(ctx)
	if ctx.Err() != nil {
		// What was asked last did not get to answer.
		return Drift{}, nil, context.Cause(ctx)
	}
	for _, h := range drift.Held {
		drift.Well = drift.Well && h.Well
	}
	for _, p := range drift.Published {
		drift.Well = drift.Well && p.Well
	}
	return drift, served, nil
}

// publications looks at what agents start with in trust domains over several clusters.
func (v *visit) publications(ctx context.Context) (all []PublishedBundle) {
	for _, s := range v.Servers() {
		for _, m := range s.InClusters() {
			if len(s.Domain.Members) == 1 {
				continue
			}
			a, c := v.servers[s], v.clusters[m.Cluster()]
			var err error
			switch {
			case a.silent != nil:
				err = fmt.Errorf("the server of %s does not answer", s)
			case !c.answers():
				err = fmt.Errorf("cluster %s does not answer", m.Cluster().Name)
			default:
				err = a.published(ctx, c.in.Objects, m)
			}
			all = append(all, PublishedBundle{health(err), s.Domain.String(), m.Cluster().Name, m.Downstream != nil})
		}
	}
	return all
}

// served is what a bundle endpoint serves.
type served struct {
	bundle *spiffebundle.Bundle
	// chain is what the endpoint showed, and own what its server had just before.
	chain []*x509.Certificate
	own   *spiffebundle.Bundle
	took  time.Duration
	// silent is set when the server cannot be asked, err when the endpoint serves
	// no bundle.
	silent, err error
}

// askEndpoints fetches side by side what all endpoints serve that somebody
// fetches from.
func (v *visit) askEndpoints(ctx context.Context) map[*topology.Server]served {
	sources := slices.DeleteFunc(v.Servers(), func(s *topology.Server) bool {
		fetched := slices.ContainsFunc(s.Domain.TrustedBy, func(r *topology.Trust) bool { return r.Mode != topology.Manual })
		return !fetched || s.Nested() || v.servers[s].silent != nil
	})
	answers := make([]served, len(sources))
	each(len(sources), func(i int) {
		ctx, cancel := context.WithTimeout(ctx, statusBound)
		defer cancel()
		answers[i] = v.askEndpoint(ctx, v.servers[sources[i]])
	})
	all := map[*topology.Server]served{}
	for i, s := range sources {
		all[s] = answers[i]
		v.servers[s].bundle, v.servers[s].silent = answers[i].own, answers[i].silent
	}
	return all
}

// askEndpoint fetches what an endpoint serves. That may be a little older than
// what the server has: where the two are not the same, both are asked once more.
func (v *visit) askEndpoint(ctx context.Context, source *asked) served {
	s := v.fetched(ctx, source.site, source.bundle)
	if s.err != nil || federation.Compare(s.bundle, s.own).State == federation.InSync {
		return s
	}
	select {
	case <-ctx.Done():
	case <-time.After(federation.EndpointBound()):
	}
	own, err := source.site.API.Bundle(ctx)
	if err != nil {
		return served{silent: err}
	}
	return v.fetched(ctx, source.site, own)
}

// fetched fetches the bundle of a trust domain as a peer would that knows how its
// endpoint proves who it is: by what its server has itself, or by its web CA.
func (v *visit) fetched(ctx context.Context, of *Site, own *spiffebundle.Bundle) served {
	s := served{own: own}
	endpoint := spire.BundleEndpointURL(of.Server)
	verify, err := verifies(ctx, of, own)
	if err != nil {
		s.err = err
		return s
	}
	// What is served is asked in its own cluster. Whether a truster gets there is
	// another question, for the truster's node.
	c := v.asker(of.Place)
	answer, err := v.Parts.Peers.Get(ctx, c.Lab, c.Name, endpoint, of.PublicAddress())
	s.chain, s.took = answer.Chain, answer.Took
	if hanging := (*HangingError)(nil); err == nil || errors.As(err, &hanging) {
		// Who it is comes before what it says.
		err = cmp.Or(verify(s.chain), err)
	}
	switch {
	case err != nil:
	case answer.Status != http.StatusOK:
		err = fmt.Errorf("it answers %d %s", answer.Status, http.StatusText(answer.Status))
	default:
		s.bundle, err = spiffebundle.Parse(of.Domain.Name, answer.Body)
	}
	if err != nil {
		s.err = fmt.Errorf("the bundle endpoint %s serves no bundle: %w", endpoint, err)
	}
	return s
}

// verifies returns what says why the chain that a bundle endpoint shows is not
// accepted.
func verifies(ctx context.Context, of *Site, own *spiffebundle.Bundle) (func([]*x509.Certificate) error, error) {
	if of.Domain.BundleEndpoint.Profile == topology.HTTPSSPIFFE {
		return func(chain []*x509.Certificate) error {
			id, _, err := x509svid.Verify(chain, own)
			if err == nil && id != spire.ServerID(of.Domain.Name) {
				err = fmt.Errorf("it shows the X509-SVID of %s", id)
			}
			return err
		}, nil
	}
	roots, err := endpointCAOf(ctx, of)
	if err != nil {
		return nil, err
	}
	return func(chain []*x509.Certificate) error { return verifyWeb(chain, of.EndpointHost(), roots) }, nil
}

// endpointCAOf returns what verifies the https_web endpoint of a server in a cluster.
func endpointCAOf(ctx context.Context, of *Site) ([]*x509.Certificate, error) {
	if issuedElsewhere(of.Server) {
		return caOf(ctx, of, spire.EndpointCASecret)
	}
	return webCAOf(ctx, of)
}

// webCAOf returns what verifies the certificates that the lab issues for a trust domain.
func webCAOf(ctx context.Context, of *Site) ([]*x509.Certificate, error) {
	return caOf(ctx, of, spire.WebCASecret)
}

// caOf reads the certificate of a CA. A key next to it is of no use here.
func caOf(ctx context.Context, of *Site, name string) ([]*x509.Certificate, error) {
	var ca struct {
		Data map[string][]byte `json:"data"`
	}
	if _, err := of.Objects.Object(ctx, secretKey(of.Place, name), &ca); err != nil {
		return nil, err
	}
	roots, err := pki.Parse(ca.Data[spire.SecretCertificate])
	if err != nil {
		return nil, fmt.Errorf("read the CA of %s in Secret %s: %w", of.Domain, name, err)
	}
	return roots, nil
}

// held says how the bundle of a relationship stands.
func (v *visit) held(ctx context.Context, r topology.Relationship, s served, now time.Time) HeldBundle {
	h := HeldBundle{Truster: r.Truster.String(), Cluster: nestedIn(r.By), Trusted: r.Trusted.String(), Profile: string(r.Profile), Mode: string(r.Mode), State: Unknown}
	c, silent := v.compared(r)
	truster := v.servers[r.By]
	if truster.silent != nil {
		h.Health = health(silent)
		return h
	}
	held := truster.held[r.Trusted.Name]
	is, err := v.asConfigured(r)
	var unfetched error
	switch {
	case r.Mode == topology.Manual:
		h.Unpolled, s = "set by hand", served{}
	case err != nil:
		h.Unpolled = noRelationship
	default:
		if unfetched = s.err; unfetched == nil {
			unfetched = v.fetches(ctx, r.By, is)
		}
		h.polls(now, federation.NextPoll(held, s.bundle))
	}
	if hanging := (*HangingError)(nil); errors.As(unfetched, &hanging) {
		h.State, h.Unpolled, h.PollSeconds, h.NextPollBy = Hanging, "kept waiting by the endpoint", 0, time.Time{}
	} else if unfetched != nil {
		h.State = Unreachable
	}
	switch {
	case silent != nil && unfetched != nil:
		h.Health = health(unfetched)
		return h
	case silent != nil:
		h.Health = health(silent)
		return h
	}

	h.ComparedWith = OwnServer
	var more []string
	if s.bundle != nil {
		h.ComparedWith = Endpoint
		if serves := federation.Compare(s.bundle, s.own); serves.State != federation.InSync {
			more = append(more, "its bundle endpoint does not serve what its server has, but what is "+serves.String())
			if c.State == federation.InSync {
				c = federation.Compare(held, s.bundle)
			} else {
				h.ComparedWith = OwnServer
			}
		}
	}
	h.stands(c)
	if c.State == federation.Behind && issues(r.Trusted) {
		h.Since = c.LackingSince()
	}
	switch {
	case unfetched != nil:
		h.Problem = fmt.Sprintf("%s; what is held is %s", unfetched, c)
	case c.State == federation.InSync:
		h.State, h.Well = c.State, true
	default:
		if truster.lockedOut(is, s.chain) {
			more = append(more, "no fetch repairs it, since what is held does not authenticate the endpoint")
		}
		h.State, h.Problem = c.State, strings.Join(append([]string{c.String()}, more...), "; ")
	}
	return h
}

// fetches returns nil when a truster gets an answer from where it fetches.
func (v *visit) fetches(ctx context.Context, truster *topology.Server, r spire.Relationship) error {
	answer, err := v.outlook(truster).reached(ctx, r)
	if err != nil {
		return err
	}
	return mayBeBundle(r, answer)
}

// noRelationship is why a server does not fetch that has none.
const noRelationship = "no relationship"

// polls notes how often a bundle is fetched.
func (h *HeldBundle) polls(now time.Time, every time.Duration) {
	h.PollSeconds, h.NextPollBy = every.Seconds(), now.Add(every)
}

// stands notes what a comparison found.
func (h *HeldBundle) stands(c federation.Comparison) {
	h.Bundle, h.Lacking, h.Foreign = c.State, c.Lacking, c.Foreign
}

// issues reports whether the X.509 authorities of a trust domain come into its
// bundle when they are issued.
func issues(d *topology.Domain) bool { return d.UpstreamAuthority != topology.Disk }

// lockedOut reports whether a truster does not accept what an endpoint shows,
// because of what it holds itself.
func (a *asked) lockedOut(r spire.Relationship, chain []*x509.Certificate) bool {
	if r.Profile != topology.HTTPSSPIFFE || chain == nil {
		return false
	}
	held := a.held[r.EndpointID.TrustDomain()]
	if held == nil {
		return true
	}
	_, _, err := x509svid.Verify(chain, held)
	return err != nil
}

// unasked returns what is held without a relationship of the lab.
func (v *visit) unasked(now time.Time) []HeldBundle {
	all := []HeldBundle{}
	for _, s := range v.Servers() {
		d, a := s.Domain, v.servers[s]
		if a.silent != nil {
			continue
		}
		for _, trusted := range slices.SortedFunc(maps.Keys(a.held), spiffeid.TrustDomain.Compare) {
			if trusts(d, trusted) {
				continue
			}
			h := HeldBundle{Truster: d.String(), Cluster: nestedIn(s), Trusted: trusted.Name(), State: Unknown}
			if h.Unpolled = noRelationship; knows(a.relationships, trusted) {
				h.Unpolled = ""
				h.polls(now, federation.NextPoll(a.held[trusted], nil))
			}
			h.Problem = "no relationship of the lab asks for it"
			if source := v.ofLab(trusted); source != nil && source.silent == nil {
				h.ComparedWith = OwnServer
				c := federation.Compare(a.held[trusted], source.bundle)
				h.stands(c)
				h.State = c.State
				h.Problem += "; it is " + c.String()
			}
			all = append(all, h)
		}
	}
	return all
}

// ofLab returns the server of a trust domain of which another server told; nil for
// one that is not of the lab.
func (v *visit) ofLab(told spiffeid.TrustDomain) *asked {
	for _, d := range v.Domains {
		if d.Name == told {
			return v.server(d)
		}
	}
	return nil
}
