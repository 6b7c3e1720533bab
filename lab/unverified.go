package lab

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// UnverifiedError says that something presents an X509-SVID that the bundle of its
// own trust domain does not verify. It comes of an authority that was revoked
// before all that it had signed was replaced, and of a server that has lost its
// data:
//
//   - An agent that hears of a taint and of the revocation at once goes on to hand
//     out what it has, for half of its life (SPIRE pkg/agent/manager/sync.go,
//     processTaintedAuthorities). Peers refuse it once they hold the same bundle.
//   - The controller manager keeps the certificate of its webhook until it is about
//     to expire (its pkg/webhookmanager, mintX509SVIDIfNeeded). Kubernetes takes no
//     resource of it meanwhile.
type UnverifiedError struct {
	TrustDomain spiffeid.TrustDomain
	Cure        string
	Err         error // why it is not verified; nil where that is not known
}

func (e *UnverifiedError) Error() string {
	why := ""
	if e.Err != nil {
		why = " (" + e.Err.Error() + ")"
	}
	return fmt.Sprintf("it presents an X509-SVID that the bundle of %s does not verify%s: %s", e.TrustDomain.Name(), why, e.Cure)
}

func (e *UnverifiedError) Unwrap() error { return e.Err }

// unverified reports whether that is what an error is about.
func unverified(err error) bool {
	var e *UnverifiedError
	return errors.As(err, &e)
}

// verifySVID returns the SPIFFE ID in a chain that bundle verifies.
func verifySVID(chain []*x509.Certificate, bundle *spiffebundle.Bundle, cure string) (spiffeid.ID, error) {
	id, _, err := x509svid.Verify(chain, bundle)
	if err != nil {
		err = &UnverifiedError{bundle.TrustDomain(), cure, err}
	}
	return id, err
}

// checkSVID returns nil when the X509-SVID that a workload presents is its own, and
// bundle, that of its trust domain, verifies it. The error is an *UnverifiedError when
// bundle does not.
func (d *Driver) checkSVID(ctx context.Context, in access.Cluster, from *topology.Cluster, w *topology.Workload, bundle *spiffebundle.Bundle) error {
	presented, err := d.presentedID(ctx, in, from, w, bundle)
	if err == nil && presented != w.ID {
		err = &otherIDError{presented}
	}
	return err
}

// otherIDError says that a workload presents an X509-SVID of another SPIFFE ID than
// its own.
type otherIDError struct{ id spiffeid.ID }

func (e *otherIDError) Error() string { return fmt.Sprintf("it presents the X509-SVID of %s", e.id) }

// seenFrom returns the cluster from whose node a workload is looked at: the first of
// those that call it, since they have to get through to it. Where no other cluster
// calls it that answers, it is its own, or for a host the first one that answers.
func seenFrom(g *topology.Graph, w *topology.Workload, answers func(*topology.Cluster) bool) *topology.Cluster {
	for _, by := range w.Callers {
		if c := by.Cluster(); c != nil && c != w.Cluster() && answers(c) {
			return c
		}
	}
	if w.Cluster() != nil {
		return w.Cluster()
	}
	if i := slices.IndexFunc(g.Clusters, answers); i >= 0 {
		return g.Clusters[i]
	}
	return g.Clusters[0]
}

// presentedID returns the SPIFFE ID in the X509-SVID that a workload presents, looked at
// from the node of a cluster.
func (d *Driver) presentedID(ctx context.Context, in access.Cluster, from *topology.Cluster, w *topology.Workload, bundle *spiffebundle.Bundle) (spiffeid.ID, error) {
	cure := fmt.Sprintf("the next up starts the agents of %s again, and that replaces it", w.Member.Place.Where())
	if w.App.Tells != "" {
		// No port of it shows an SVID, and it reports its own.
		told, err := d.ask(ctx, in.Pods, w, w.App.Tells)
		if err != nil {
			return spiffeid.ID{}, err
		}
		id, verified, err := d.Parts.Programs.Self(told)
		if err == nil && !verified {
			err = &UnverifiedError{bundle.TrustDomain(), cure, nil}
		}
		return id, err
	}
	chain, err := d.Parts.Peers.Presented(ctx, from.Lab, from.Name, w.Port())
	if err != nil {
		err = fmt.Errorf("%s shows no X509-SVID to the node of cluster %s: %w", w.Port(), from.Name, err)
		return spiffeid.ID{}, workloadAt(w).elsewhere(ctx, in.Objects, err)
	}
	presented, err := verifySVID(chain, bundle, cure)
	if err != nil {
		// What another program shows there says nothing of the workload's SVID.
		if why := workloadAt(w).lacks(ctx, in.Objects); why != nil {
			err = fmt.Errorf("%s shows another X509-SVID: %w", w.Port(), why)
		}
	}
	return presented, err
}

// checkWebhook returns nil when bundle, that of its trust domain, verifies
// what the webhook of a controller manager presents. The error is an
// *UnverifiedError when bundle does not.
func checkWebhook(ctx context.Context, site *Site, bundle *spiffebundle.Bundle) error {
	chain, err := site.Presented(ctx, spire.WebhookPort)
	if err == nil {
		_, err = verifySVID(chain, bundle, "the next up starts the pod of the server again, and that replaces it")
	}
	return err
}

// presents waits until a workload has what it is registered for, and presents an
// X509-SVID that its trust domain verifies. Agents that hand out others are started again.
func (u *up) presents(ctx context.Context, w *topology.Workload) error {
	in, root := u.in(w.Cluster()), u.site(w.Domain().Server())
	a := &awaited{Workload: w, site: u.site(w.Member.Server), in: in}
	return wait(ctx, callBound, check.Check{Name: w.Name + " presents its X509-SVID", Probe: func(ctx context.Context) error {
		bundle, err := root.API.Bundle(ctx)
		if err != nil {
			return err
		}
		err = u.checkSVID(ctx, in, u.looksAt(w), w, bundle)
		if unverified(err) {
			return errors.Join(err, u.renewAgents(ctx, w.Member))
		}
		if err := a.registered(ctx, err); err != nil {
			return err
		}
		// An agent that was started again hands out SVIDs before it is ready.
		if h := w.Host(); h != nil {
			return answersReady(ctx, u.on(h), HostAgent, spire.HostHealthPort, "/ready")
		}
		return in.Pods.Ready(ctx, AgentKey(w.Member.Place))
	}})
}

// looksAt is seenFrom in a bring-up, where each cluster answers when its step has ended.
func (u *up) looksAt(w *topology.Workload) *topology.Cluster {
	return seenFrom(u.Graph, w, func(*topology.Cluster) bool { return true })
}

// renewAgents starts the agents of a member again, once in a bring-up.
func (u *up) renewAgents(ctx context.Context, m *topology.Member) error {
	u.mu.Lock()
	done := u.renewed[m]
	u.renewed[m] = true
	u.mu.Unlock()
	if done {
		return nil
	}
	plan.Did(ctx)
	err := u.restartAgents(ctx, m)
	if err != nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.renewed, m)
	}
	return err
}

// restartAgents starts the agents of a member again, with what they have.
func (u *up) restartAgents(ctx context.Context, m *topology.Member) error {
	h := m.Host()
	if h == nil {
		return RestartAgents(ctx, u.in(m.Cluster()).Objects, m)
	}
	if err := u.Parts.Hosts.Remove(ctx, h.Lab, h.Name, HostAgent); err != nil {
		return err
	}
	return u.run(ctx, h, u.agentProgram(m, (&joining{up: u, member: m, api: u.site(m.Server).API}).seed))
}

// renewWebhook waits until the controller manager in a pod of a server presents what its
// trust domain verifies, and starts the pod again where it does not: it reports whether it
// did. A replica of the server is in that pod, too; a nested one has its authority signed
// again before.
func (u *up) renewWebhook(ctx context.Context, site *Site, pod string) (renewed bool, err error) {
	root := u.site(site.Domain.Server())
	replica := *site
	replica.Pod = pod
	err = wait(ctx, rolloutBound, check.Check{Name: "Kubernetes can call the controller manager", Probe: func(ctx context.Context) error {
		// Nothing but ctx ends a dial or a call: one that hangs must not take up the
		// whole wait.
		ctx, cancel := context.WithTimeout(ctx, statusBound)
		defer cancel()
		bundle, err := root.API.Bundle(ctx)
		if err != nil {
			return err
		}
		err = checkWebhook(ctx, &replica, bundle)
		if unverified(err) && !renewed {
			plan.Did(ctx)
			if site.Nested() {
				if failed := u.signAgain(ctx, site); failed != nil {
					return errors.Join(err, failed)
				}
			}
			failed := site.Objects.Delete(ctx, podKey(site.Place, pod))
			renewed, err = failed == nil, errors.Join(err, failed)
		}
		return err
	}})
	return renewed, err
}
