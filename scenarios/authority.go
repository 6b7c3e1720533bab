package scenarios

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// authorities is what a server does with its authorities of one kind.
type authorities struct {
	kind          string
	state         func(context.Context) (spire.Authorities, error)
	publish       func(context.Context) (spire.Authority, error)
	sign          func(ctx context.Context, id string) (spire.Authority, error)
	taint, revoke func(ctx context.Context, id string) error
	// in returns the IDs of those that a bundle has.
	in func(*spiffebundle.Bundle) []string
}

const x509Kind, jwtKind = "X.509", "JWT"

// x509 and jwt return the authorities of either kind.
func (d Domain) x509() authorities {
	s := d.Server()
	return authorities{
		x509Kind, s.X509Authorities, s.PrepareX509Authority, s.ActivateX509Authority,
		s.TaintX509Authority, s.RevokeX509Authority, federation.X509IDs,
	}
}

func (d Domain) jwt() authorities {
	s := d.Server()
	return authorities{
		jwtKind, s.JWTAuthorities, s.PrepareJWTAuthority, s.ActivateJWTAuthority,
		s.TaintJWTAuthority, s.RevokeJWTAuthority, federation.JWTIDs,
	}
}

// rotation is an authority on its way to be replaced.
type rotation struct {
	all       authorities
	of        Domain
	old, next spire.Authority
	prepared  time.Time
	// agents are the serial numbers of SVIDs that agents must have replaced before
	// the old authority is revoked; nil until they are known.
	agents map[spiffeid.ID]string
	// activated and revoked are the stages that are behind.
	activated, revoked bool
}

// prepare publishes the next authority before anything is signed with it. The end
// of the trial finishes the rotation, however far it has come: a server remembers
// two authorities, and one that is published and forgotten could not be taken back.
func (d Domain) prepare(ctx context.Context, all authorities) (*rotation, error) {
	state, err := all.state(ctx)
	if err != nil {
		return nil, err
	}
	if state.Active == nil {
		return nil, fmt.Errorf("%s has no active %s authority", d, all.kind)
	}
	r := &rotation{all: all, of: d, old: *state.Active}
	d.trial.Restore("finish "+r.String(), func(ctx context.Context) error {
		if r.prepared.IsZero() { // the answer may have been lost
			return d.finishBegun(ctx, all)
		}
		return r.finish(ctx)
	})
	if r.next, err = all.publish(ctx); err != nil {
		return nil, err
	}
	r.prepared = time.Now()
	r.mark("prepares", r.next)
	return r, nil
}

// begun returns the rotation that somebody has begun and not finished, nil for
// none.
func (d Domain) begun(ctx context.Context, all authorities) (*rotation, error) {
	state, err := all.state(ctx)
	if err != nil || state.Active == nil {
		return nil, err
	}
	if state.Prepared != nil {
		return &rotation{all: all, of: d, old: *state.Active, next: *state.Prepared}, nil
	}
	bundle, err := d.Bundle(ctx)
	// A server tells of one that is revoked as well.
	if err != nil || state.Old == nil || !slices.Contains(all.in(bundle), state.Old.ID) {
		return nil, err
	}
	return &rotation{all: all, of: d, old: *state.Old, next: *state.Active, activated: true}, nil
}

// finishBegun finishes the rotation that somebody has begun, if there is one.
func (d Domain) finishBegun(ctx context.Context, all authorities) error {
	r, err := d.begun(ctx, all)
	if err != nil || r == nil {
		return err
	}
	return r.finish(ctx)
}

// String names the rotation.
func (r *rotation) String() string {
	return fmt.Sprintf("the rotation of the %s authority of %s", r.all.kind, r.of)
}

func (r *rotation) mark(does string, a spire.Authority) {
	r.of.trial.Mark("%s %s %s %s", r.of, does, r.all.kind, brief(a.ID))
}

// renewAgents has agents attest anew where somebody else has activated the
// authority: nothing tells then which one has signed what they have.
func (r *rotation) renewAgents(ctx context.Context) (err error) {
	if r.agents != nil {
		return nil
	}
	if r.agents, err = r.of.serials(ctx); err != nil {
		return err
	}
	return r.of.site.RestartAgents(ctx)
}

// verifiable reports whether the probe presents an SVID of an authority that its
// own trust domain has still.
func (d Domain) verifiable(ctx context.Context) (bool, error) {
	holding, err := d.Probe().Holding(ctx)
	if err != nil {
		return false, err
	}
	if holding.Self == nil {
		return false, fmt.Errorf("workloads of %s have no SVID: %s", d, holding.Problem)
	}
	bundle, err := d.Bundle(ctx)
	// The authority is empty once the probe has that bundle, too.
	return err == nil && slices.Contains(federation.X509IDs(bundle), holding.Self.Authority), err
}

// presentsRevoked checks that the probe presents an SVID of an authority that was
// revoked.
func (d Domain) presentsRevoked() check.Check {
	return check.Check{Name: fmt.Sprintf("workloads of %s present SVIDs of an authority that is revoked", d), Probe: func(ctx context.Context) error {
		verifiable, err := d.verifiable(ctx)
		if verifiable {
			err = errors.New("theirs are of one that is in the bundle")
		}
		return err
	}}
}

// named checks that a look at the lab finds no workload of the trust domain well.
func (d Domain) named() check.Check {
	return check.Check{Name: fmt.Sprintf("'fedlab status' says of each workload of %s what is wrong", d), Probe: func(ctx context.Context) error {
		status, err := d.trial.ground.driver.Status(ctx, d.trial.lab().Graph.Intent())
		for _, w := range status.Workloads {
			if err == nil && w.Cluster == d.Cluster().Name && w.Well {
				err = fmt.Errorf("it says that %s is well", w.Name)
			}
		}
		return err
	}}
}

// replaceRevoked starts the agents again where workloads present SVIDs of an
// authority that was revoked: left alone, they keep them for half of the SVIDs'
// life.
func (d Domain) replaceRevoked(ctx context.Context) error {
	if verifiable, err := d.verifiable(ctx); err != nil || verifiable {
		return err
	}
	if err := d.site.RestartAgents(ctx); err != nil {
		return err
	}
	return d.trial.until(ctx, check.Check{Name: fmt.Sprintf("workloads of %s present SVIDs of an authority that is in the bundle", d), Probe: func(ctx context.Context) error {
		verifiable, err := d.verifiable(ctx)
		if err == nil && !verifiable {
			err = errors.New("theirs are of one that is revoked")
		}
		return err
	}})
}

// arrive waits until workloads of all who trust the trust domain have the next
// authority: from then on it may sign. Where bundles travel by hand, it takes them
// there.
func (r *rotation) arrive(ctx context.Context) error {
	for _, b := range r.of.trial.bondsTo(r.of) {
		if b.mode == topology.Manual {
			if err := b.truster.Handover(ctx, r.of); err != nil {
				return err
			}
		}
		has := b.truster.Has
		if r.all.kind == jwtKind {
			has = b.truster.hasJWT
		}
		if err := r.of.trial.Await(ctx, r.prepared, b.truster.ToWorkloads(r.of), has(r.of, r.next.ID)); err != nil {
			return err
		}
	}
	return nil
}

// activate signs with the next authority from now on.
func (r *rotation) activate(ctx context.Context) (err error) {
	if r.agents, err = r.of.serials(ctx); err != nil {
		return err
	}
	if _, err := r.all.sign(ctx, r.next.ID); err != nil {
		return err
	}
	r.activated = true
	r.mark("activates", r.next)
	return nil
}

// serials returns the serial numbers of the SVIDs that agents have.
func (d Domain) serials(ctx context.Context) (map[spiffeid.ID]string, error) {
	agents, err := d.Server().Agents(ctx)
	if err != nil {
		return nil, err
	}
	serials := map[spiffeid.ID]string{}
	for _, a := range agents {
		serials[a.ID] = a.Serial
	}
	return serials, nil
}

// attestedAnew returns nil when each agent has another SVID than it had.
func (d Domain) attestedAnew(ctx context.Context, before map[spiffeid.ID]string) error {
	agents, err := d.Server().Agents(ctx)
	for _, a := range agents {
		if err == nil && a.Serial == before[a.ID] && time.Now().Before(a.ExpiresAt) {
			err = fmt.Errorf("%s has the SVID that it had before", a.ID)
		}
	}
	return err
}

// taint has everything that the old authority has signed replaced.
func (r *rotation) taint(ctx context.Context) error {
	if r.of.trial.mutation == SkipTaint && !r.of.trial.restoring {
		return nil
	}
	if err := r.all.taint(ctx, r.old.ID); err != nil {
		return err
	}
	r.mark("taints", r.old)
	return nil
}

// revoke takes the old authority out of the bundle.
func (r *rotation) revoke(ctx context.Context) error {
	if r.of.trial.mutation == KeepOldBundle && !r.of.trial.restoring {
		return nil
	}
	if err := r.all.revoke(ctx, r.old.ID); err != nil {
		return err
	}
	r.revoked = true
	r.mark("revokes", r.old)
	return nil
}

// catchUp notes what the server has done already: an answer may have been lost, or
// the server may have activated the authority by itself.
func (r *rotation) catchUp(ctx context.Context) error {
	state, err := r.all.state(ctx)
	if err != nil {
		return err
	}
	bundle, err := r.of.Bundle(ctx)
	if err != nil {
		return err
	}
	r.activated = r.activated || state.Active != nil && state.Active.ID == r.next.ID
	r.revoked = r.revoked || !slices.Contains(r.all.in(bundle), r.old.ID)
	return nil
}

// finish does what is left of the rotation. With an X.509 authority the controller
// manager is started again at its end: its webhook shows a certificate that the
// old authority has signed, and it makes another one only when that one is about
// to expire, so that Kubernetes would take no ClusterSPIFFEID meanwhile (seen with
// 0.7.0; pkg/webhookmanager, mintX509SVIDIfNeeded).
func (r *rotation) finish(ctx context.Context) error {
	// A bundle endpoint with a certificate that a peer cannot verify is one that
	// the peer cannot fetch from: each is to have the next authority before.
	if err := handoverBehind(ctx, r.of.trial.bondsTo(r.of)); err != nil {
		return err
	}
	if err := r.catchUp(ctx); err != nil {
		return err
	}
	if !r.activated {
		if err := r.activate(ctx); err != nil {
			return err
		}
	}
	if !r.revoked {
		// Nothing tells whether it is tainted; if it is, that is refused.
		refused := r.taint(ctx)
		// Who has a token of the old authority asks for another one, or is refused.
		if r.all.kind == x509Kind {
			if err := r.renewAgents(ctx); err != nil {
				return errors.Join(refused, err)
			}
			if err := r.of.trial.until(ctx, r.replaced()); err != nil {
				return errors.Join(refused, err)
			}
		}
		if err := r.revoke(ctx); err != nil {
			return errors.Join(refused, err)
		}
	}
	if r.all.kind == jwtKind {
		return nil
	}
	return r.of.restart(ctx)
}

// restart has the pod of the server and the controller manager made anew.
func (d Domain) restart(ctx context.Context) error {
	key := access.ObjectKey{APIVersion: "v1", Kind: "Pod", Namespace: d.site.Place.Namespace, Name: spire.ServerPod}
	var before, after struct {
		Metadata struct {
			UID string `json:"uid"`
		} `json:"metadata"`
	}
	if _, err := d.Access().Objects.Object(ctx, key, &before); err != nil {
		return err
	}
	if err := d.Access().Objects.Delete(ctx, key); err != nil {
		return err
	}
	ready := d.Ready()
	return d.trial.until(ctx, check.Check{Name: ready.Name + " again", Probe: func(ctx context.Context) error {
		there, err := d.Access().Objects.Object(ctx, key, &after)
		if err != nil {
			return err
		}
		if !there || after.Metadata.UID == before.Metadata.UID {
			return errors.New("the server's pod is still the old one")
		}
		return ready.Probe(ctx)
	}})
}

// replaced checks that nothing presents an SVID of the old authority any more:
// neither workloads, nor the bundle endpoint, nor the agents, who would be locked
// out if it were revoked before.
func (r *rotation) replaced() check.Check {
	workloads := r.of.Presents(r.next.ID)
	return check.Check{Name: workloads.Name + ", and so do its bundle endpoint and its agents", Probe: func(ctx context.Context) error {
		if err := workloads.Probe(ctx); err != nil {
			return err
		}
		shown, err := r.of.shownBy(ctx)
		if err != nil {
			return err
		}
		if shown != r.next.ID {
			return fmt.Errorf("the endpoint shows one of authority %s", brief(shown))
		}
		return r.of.attestedAnew(ctx, r.agents)
	}}
}

// replacedBound is how long that takes.
func replacedBound() Bound {
	return Bound{
		Within:  max(federation.TaintBound(), federation.EndpointSVIDBound(), federation.AgentSVIDBound()),
		Formula: "agent synchronisation + the agent's look at its own SVID",
	}
}

// replace replaces the active X.509 authority in order, and leaves the old one
// tainted: whoever trusts it still is not harmed.
func (d Domain) replace(ctx context.Context) (*rotation, error) {
	r, err := d.prepare(ctx, d.x509())
	if err != nil {
		return nil, err
	}
	if err := r.arrive(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(r.activate(ctx), r.taint(ctx)); err != nil {
		return nil, err
	}
	return r, d.trial.Await(ctx, time.Now(), replacedBound(), r.replaced())
}

// signsWithAnother checks that another X.509 authority is active.
func (d Domain) signsWithAnother(than string) check.Check {
	return check.Check{Name: fmt.Sprintf("%s signs with another authority than %s", d, brief(than)), Probe: func(ctx context.Context) error {
		state, err := d.Server().X509Authorities(ctx)
		if err != nil {
			return err
		}
		if state.Active == nil || state.Active.ID == than {
			return errors.New("it signs with that one")
		}
		return nil
	}}
}

// renew replaces the active authorities of both kinds, and finishes what the
// server or anybody has begun of that.
func (d Domain) renew(ctx context.Context) error {
	var rotations []*rotation
	for _, all := range []authorities{d.jwt(), d.x509()} {
		if err := d.finishBegun(ctx, all); err != nil {
			return err
		}
		r, err := d.prepare(ctx, all)
		if err != nil {
			return err
		}
		rotations = append(rotations, r)
	}
	for _, r := range rotations {
		if err := r.arrive(ctx); err != nil {
			return err
		}
		if err := r.finish(ctx); err != nil {
			return err
		}
	}
	return nil
}

// heldHint checks which refresh hint the held bundle of another has.
func (d Domain) heldHint(of Domain, want time.Duration) check.Check {
	return check.Check{Name: fmt.Sprintf("%s knows that %s wants it to come back within %s", d, of, want), Probe: func(ctx context.Context) error {
		held, err := d.Held(ctx, of.Name)
		if err != nil || held == nil {
			return errors.Join(errors.New("it holds no bundle"), err)
		}
		if hint, _ := held.RefreshHint(); hint != want {
			return fmt.Errorf("the hint that it holds is %s", hint)
		}
		return nil
	}}
}
