package lab

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/watch"
)

// Look takes a look at the federation of a lab. The one before tells when servers have
// fetched since, and may be the zero value. Errors are those of Drift: what cannot be had is
// part of the look.
func (d *Driver) Look(ctx context.Context, t topology.Topology, before watch.Look) (watch.Look, error) {
	v, err := d.visit(ctx, t)
	if err != nil {
		return watch.Look{}, err
	}
	defer v.close()
	drift, served, err := v.drift(ctx)
	if err != nil {
		return watch.Look{}, err
	}
	look := watch.Look{Lab: drift.Lab, At: drift.At}
	servers := v.Servers()
	counts := make([]counted, len(servers))
	each(len(servers), func(i int) { counts[i] = v.count(ctx, servers[i]) })
	by := map[*topology.Server]counted{}
	for i, s := range servers {
		by[s] = counts[i]
		look.Domains = append(look.Domains, v.lookAtDomain(s, served, counts[i].err))
	}
	relationships := v.Relationships()
	look.Pairs = make([]watch.Pair, len(relationships))
	each(len(relationships), func(i int) {
		r := relationships[i]
		p := v.lookAtPair(drift.Held[i], r, by[r.By], look.At)
		was, there := before.Pair(p.Truster, p.Trusted)
		if !drift.Held[i].Well || there && p.Failures > was.Failures {
			p.Cause = string(v.causeOf(ctx, r))
		}
		look.Pairs[i] = p
	})
	look.Identities = v.identities(ctx, served)
	look.Calls = v.calls(ctx)
	if ctx.Err() != nil {
		return watch.Look{}, context.Cause(ctx)
	}
	return look.After(before), nil
}

func (v *visit) lookAtDomain(s *topology.Server, served map[*topology.Server]served, uncounted error) watch.Domain {
	a := v.servers[s]
	d := watch.Domain{Name: s.String(), Own: federation.Authorities(a.bundle)}
	err := a.silent
	if answer, asked := served[s]; asked {
		d.Endpoint, d.LatencySeconds = spire.BundleEndpointURL(s), answer.took.Seconds()
		d.Served, d.EndpointUp = federation.Authorities(answer.bundle), answer.bundle != nil
		err = errors.Join(err, answer.err)
	}
	for _, m := range a.members {
		for _, x := range m.resources {
			if x.Status != nil {
				d.EntryFailures += x.Status.Stats.EntryFailures
			}
		}
	}
	if err = errors.Join(err, uncounted); err != nil {
		d.Problem = err.Error()
	}
	return d
}

func (v *visit) lookAtPair(h HeldBundle, r topology.Relationship, c counted, now time.Time) watch.Pair {
	p := watch.Pair{
		Truster: h.Holder(), Trusted: h.Trusted, Profile: h.Profile, Mode: h.Mode, State: h.State, Held: federation.Authorities(v.servers[r.By].held[r.Trusted.Name]),
		PollSeconds: h.PollSeconds, Unpolled: h.Unpolled, NextPollBy: h.NextPollBy, Problem: h.Problem,
	}
	if fetches, told := c.fetches[r.Trusted.Name]; told {
		p.Fetches, p.Failures, p.CountedSince = fetches.Done, fetches.Failed, now
	}
	return p
}

// causeOf returns why a truster gets no bundle; empty where nothing is found.
func (v *visit) causeOf(ctx context.Context, r topology.Relationship) Cause {
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	c, err := v.compared(r)
	if err == nil {
		err = v.related(ctx, r)
	}
	if err == nil {
		err = bundleProblem(r, c)
	}
	return causeOf(err)
}

// calls asks those who tell how calls go.
func (v *visit) calls(ctx context.Context) (all []watch.Call) {
	type told struct {
		text []byte
		err  error
	}
	by := map[*topology.Workload]told{}
	for _, from := range v.Workloads {
		teller := from.Witness()
		for _, to := range from.Calls {
			c := watch.Call{From: from.Name, To: to.Name, Caller: from.Domain().String(), Server: to.Domain().String(), Outcome: watch.Untold}
			if teller != nil {
				if _, asked := by[teller]; !asked {
					text, err := v.tells(ctx, teller)
					by[teller] = told{text, err}
				}
				err := by[teller].err
				if err == nil {
					c.Outcome = watch.Answered
					if err = v.Parts.Programs.Answered(teller, by[teller].text, from, to); err != nil {
						c.Outcome = watch.Failed
					}
				}
				if err != nil {
					c.Problem = err.Error()
				}
			}
			all = append(all, c)
		}
	}
	return all
}

func (v *visit) tells(ctx context.Context, w *topology.Workload) ([]byte, error) {
	pods, err := v.podsNear(w)
	if err != nil {
		return nil, err
	}
	return v.ask(ctx, pods, w, w.App.Tells)
}

// podsNear reaches the pods of a workload's cluster; nil on a host.
func (v *visit) podsNear(w *topology.Workload) (access.Pods, error) {
	if w.Host() != nil {
		return nil, nil
	}
	if c := v.clusters[w.Cluster()]; c.answers() {
		return c.in.Pods, nil
	}
	return nil, fmt.Errorf("cluster %s does not answer", w.Cluster().Name)
}

// counted is what a server has counted of its fetches.
type counted struct {
	fetches map[spiffeid.TrustDomain]spire.Fetches
	err     error
}

// count reads the metrics of a server; replicas count, as they fetch, each for itself.
func (v *visit) count(ctx context.Context, s *topology.Server) counted {
	a := v.servers[s]
	if a.silent != nil {
		return counted{} // said of the server
	}
	ctx, cancel := context.WithTimeout(ctx, statusBound)
	defer cancel()
	var trusted []spiffeid.TrustDomain
	for _, t := range s.Domain.Trusts {
		trusted = append(trusted, t.Trusted.Name)
	}
	all := counted{fetches: map[spiffeid.TrustDomain]spire.Fetches{}}
	for _, pod := range spire.ServerPods(s) {
		read, err := readFetches(ctx, v.metricsOf(a.site, pod), trusted)
		if err != nil {
			return counted{err: fmt.Errorf("read the metrics of the server of %s: %w", s, err)}
		}
		for td, f := range read {
			sum := all.fetches[td]
			all.fetches[td] = spire.Fetches{Done: sum.Done + f.Done, Failed: sum.Failed + f.Failed}
		}
	}
	return all
}

// metricsOf returns the way to the metrics of a server.
func (v *visit) metricsOf(of *Site, pod string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		if h := of.Place.Host; h != nil {
			return v.on(h).Dial(ctx, HostServer, spire.MetricsPort)
		}
		return of.Pods.Dial(ctx, of.Place.Namespace, pod, spire.MetricsPort)
	}
}

func readFetches(ctx context.Context, dial func(context.Context) (net.Conn, error), trusted []spiffeid.TrustDomain) (map[spiffeid.TrustDomain]spire.Fetches, error) {
	status, text, err := get(ctx, dial, spire.MetricsPath)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("the answer is %d %s", status, http.StatusText(status))
	}
	if err != nil {
		return nil, err
	}
	return spire.ReadFetches(text, trusted)
}

// identities looks side by side at all that is presented and may end.
func (v *visit) identities(ctx context.Context, served map[*topology.Server]served) []watch.Identity {
	type look struct {
		watch.Identity
		at func(context.Context) ([]*x509.Certificate, error)
	}
	var looks []look
	var all []watch.Identity
	add := func(what, name string, of *topology.Domain, at func(context.Context) ([]*x509.Certificate, error)) {
		looks = append(looks, look{watch.Identity{What: what, Name: name, TrustDomain: of.String()}, at})
	}
	for _, s := range v.Servers() {
		a := v.servers[s]
		if answer := served[s]; answer.chain != nil {
			add(watch.Endpoint, s.String(), s.Domain, func(context.Context) ([]*x509.Certificate, error) { return answer.chain, nil })
		}
		if a.silent != nil {
			continue
		}
		for _, pod := range spire.ServerPods(s) {
			if s.Place.Host == nil {
				replica := *a.site
				replica.Pod = pod
				add(watch.Webhook, strings.TrimSuffix(s.String()+" "+pod, " "+spire.ServerPod), s.Domain, func(ctx context.Context) ([]*x509.Certificate, error) {
					return replica.Presented(ctx, spire.WebhookPort)
				})
			}
		}
		for _, agent := range a.agents {
			if live(agent) {
				all = append(all, watch.Identity{What: watch.Agent, Name: agent.ID.Path(), TrustDomain: s.Domain.String(), SPIFFEID: agent.ID.String(), Expires: agent.ExpiresAt, LifeSeconds: s.Domain.X509SVIDTTL.Seconds()})
			}
		}
	}
	for _, w := range v.Workloads {
		add(watch.Workload, w.Name, w.Domain(), func(ctx context.Context) ([]*x509.Certificate, error) { return v.chainOf(ctx, w) })
	}
	seen := make([]watch.Identity, len(looks))
	each(len(looks), func(i int) {
		ctx, cancel := context.WithTimeout(ctx, statusBound)
		defer cancel()
		seen[i] = looks[i].Identity
		chain, err := looks[i].at(ctx)
		if err == nil {
			err = read(&seen[i], chain)
		}
		if err != nil {
			seen[i].Problem = err.Error()
		}
	})
	return append(seen, all...)
}

// read notes what a chain tells.
func read(i *watch.Identity, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("it shows no certificate")
	}
	if id, err := x509svid.IDFromCert(chain[0]); err == nil {
		i.SPIFFEID = id.String()
	}
	i.Issued = chain[0].NotBefore
	i.Authority = hex.EncodeToString(chain[len(chain)-1].AuthorityKeyId)
	i.Expires = slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) }).NotAfter
	i.LifeSeconds = i.Expires.Sub(i.Issued).Seconds()
	return nil
}

// chainOf returns the X509-SVID that a workload presents, or, where no port of it shows
// one, that its agent gives it.
func (v *visit) chainOf(ctx context.Context, w *topology.Workload) ([]*x509.Certificate, error) {
	if w.App.Port > 0 && w.App.Tells == "" {
		from := seenFrom(v.Graph, w, func(c *topology.Cluster) bool { return v.clusters[c].answers() })
		return v.Parts.Peers.Presented(ctx, from.Lab, from.Name, w.Port())
	}
	if _, err := v.podsNear(w); err != nil {
		return nil, err
	}
	held, err := v.svidsOf(ctx, func(c *topology.Cluster) access.Cluster { return v.clusters[c].in }, w)
	if err != nil || len(held.X509) == 0 {
		return nil, err
	}
	// The demo programs present the one with the hint.
	i := max(0, slices.IndexFunc(held.X509, func(x heldX509) bool { return x.Hint == spire.Hint }))
	return x509.ParseCertificates(slices.Concat(held.X509[i].Chain...))
}
