package trial

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Kind is a kind of authority.
type Kind string

// The kinds of authorities, in the words of the record.
const (
	X509 Kind = "X.509"
	JWT  Kind = "JWT"
)

// in returns the IDs of those that a bundle has.
func (k Kind) in(b *spiffebundle.Bundle) []string {
	if k == JWT {
		return federation.JWTIDs(b)
	}
	return federation.X509IDs(b)
}

// authorities is what a server does with its authorities of one kind.
type authorities struct {
	state         func(context.Context) (spire.Authorities, error)
	publish       func(context.Context) (spire.Authority, error)
	sign          func(ctx context.Context, id string) (spire.Authority, error)
	taint, revoke func(ctx context.Context, id string) error
}

func (d Domain) authorities(kind Kind) authorities {
	s := d.Server()
	if kind == JWT {
		return authorities{s.JWTAuthorities, s.PrepareJWTAuthority, s.ActivateJWTAuthority, s.TaintJWTAuthority, s.RevokeJWTAuthority}
	}
	return authorities{s.X509Authorities, s.PrepareX509Authority, s.ActivateX509Authority, s.TaintX509Authority, s.RevokeX509Authority}
}

// Active returns the authority that signs.
func (d Domain) Active(ctx context.Context, kind Kind) (spire.Authority, error) {
	state, err := d.authorities(kind).state(ctx)
	if err == nil && state.Active == nil {
		err = fmt.Errorf("%s has no active %s authority", d, kind)
	}
	if err != nil {
		return spire.Authority{}, err
	}
	return *state.Active, nil
}

// Rotation is an authority on its way to be replaced.
type Rotation struct {
	Old, Next spire.Authority

	kind     Kind
	of       Domain
	prepared time.Time
	// reattested looks whether agents have replaced their SVIDs, as they must before
	// the old authority is revoked; nil until these are known.
	reattested func(context.Context) error
	// activated and revoked are the stages that are behind.
	activated, revoked bool
}

// Prepare publishes the next authority before anything is signed with it. The end
// of the trial finishes the rotation, however far it has come: a server remembers
// two authorities, and one that is published and forgotten could not be taken back.
func (d Domain) Prepare(ctx context.Context, kind Kind) (*Rotation, error) {
	old, err := d.Active(ctx, kind)
	if err != nil {
		return nil, err
	}
	r := &Rotation{kind: kind, of: d, Old: old}
	d.trial.Restore("finish "+r.String(), func(ctx context.Context) error {
		if r.prepared.IsZero() { // the answer may have been lost
			return d.finishBegun(ctx, kind)
		}
		return r.finish(ctx)
	})
	if r.Next, err = d.authorities(kind).publish(ctx); err != nil {
		return nil, err
	}
	r.prepared = time.Now()
	r.mark("prepares", r.Next)
	return r, nil
}

// Publish is Prepare, and waits until the authority has arrived.
func (d Domain) Publish(ctx context.Context, kind Kind) (*Rotation, error) {
	r, err := d.Prepare(ctx, kind)
	if err != nil {
		return nil, err
	}
	return r, r.Arrive(ctx)
}

// begun returns the rotation that somebody has begun and not finished, nil for
// none.
func (d Domain) begun(ctx context.Context, kind Kind) (*Rotation, error) {
	state, err := d.authorities(kind).state(ctx)
	if err != nil || state.Active == nil {
		return nil, err
	}
	if state.Prepared != nil {
		return &Rotation{kind: kind, of: d, Old: *state.Active, Next: *state.Prepared}, nil
	}
	bundle, err := d.Bundle(ctx)
	// A server lists one that is revoked as well.
	if err != nil || state.Old == nil || !slices.Contains(kind.in(bundle), state.Old.ID) {
		return nil, err
	}
	return &Rotation{kind: kind, of: d, Old: *state.Old, Next: *state.Active, activated: true}, nil
}

// finishBegun finishes the rotation that somebody has begun, if there is one.
func (d Domain) finishBegun(ctx context.Context, kind Kind) error {
	r, err := d.begun(ctx, kind)
	if err != nil || r == nil {
		return err
	}
	return r.finish(ctx)
}

// String names the rotation.
func (r *Rotation) String() string {
	return fmt.Sprintf("the rotation of the %s authority of %s", r.kind, r.of)
}

func (r *Rotation) mark(does string, a spire.Authority) {
	r.of.trial.Mark("%s %s %s %s", r.of, does, r.kind, Brief(a.ID))
}

// renewAgents has agents attest again where somebody else has activated the
// authority: nothing tells then which one has signed what they have.
func (r *Rotation) renewAgents(ctx context.Context) (err error) {
	if r.reattested != nil {
		return nil
	}
	if r.reattested, err = r.of.Reattested(ctx); err != nil {
		return err
	}
	return r.of.RestartAgents(ctx)
}

// Arrive waits until workloads of all who trust the trust domain have the next
// authority: from then on it may sign. Where bundles travel by hand, it takes them
// there.
func (r *Rotation) Arrive(ctx context.Context) error {
	for _, trust := range r.of.TrustedBy {
		truster := r.of.trial.Domain(trust.Truster)
		if trust.Mode == topology.Manual {
			if err := truster.Handover(ctx, r.of); err != nil {
				return err
			}
		}
		if err := r.of.trial.Await(ctx, r.prepared, truster.ToWorkloads(r.of), truster.Has(r.of, r.kind, r.Next.ID)); err != nil {
			return err
		}
	}
	return nil
}

// Activate signs with the next authority from now on.
func (r *Rotation) Activate(ctx context.Context) (err error) {
	if r.reattested, err = r.of.Reattested(ctx); err != nil {
		return err
	}
	if _, err := r.of.authorities(r.kind).sign(ctx, r.Next.ID); err != nil {
		return err
	}
	r.activated = true
	r.mark("activates", r.Next)
	return nil
}

// Reattested remembers the SVIDs that agents have, and returns a look which is nil
// once each of them has another one.
func (d Domain) Reattested(ctx context.Context) (func(context.Context) error, error) {
	before, err := d.Server().Agents(ctx)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		agents, err := d.Server().Agents(ctx)
		for _, a := range agents {
			same := slices.ContainsFunc(before, func(b spire.Agent) bool { return b.ID == a.ID && b.Serial == a.Serial })
			if err == nil && same && time.Now().Before(a.ExpiresAt) {
				err = fmt.Errorf("%s has the SVID that it had before", a.ID)
			}
		}
		return err
	}, nil
}

// Taint has everything that the old authority has signed replaced.
func (r *Rotation) Taint(ctx context.Context) error { return r.of.trial.Do(ctx, ToTaint, r.taint) }

func (r *Rotation) taint(ctx context.Context) error {
	err := r.of.authorities(r.kind).taint(ctx, r.Old.ID)
	if err == nil {
		r.mark("taints", r.Old)
	}
	return err
}

// Revoke takes the old authority out of the bundle.
func (r *Rotation) Revoke(ctx context.Context) error { return r.of.trial.Do(ctx, ToRevoke, r.revoke) }

func (r *Rotation) revoke(ctx context.Context) error {
	err := r.of.authorities(r.kind).revoke(ctx, r.Old.ID)
	if err == nil {
		r.revoked = true
		r.mark("revokes", r.Old)
	}
	return err
}

// catchUp notes what the server has done already: an answer may have been lost, or
// the server may have activated the authority by itself.
func (r *Rotation) catchUp(ctx context.Context) error {
	state, err := r.of.authorities(r.kind).state(ctx)
	if err != nil {
		return err
	}
	bundle, err := r.of.Bundle(ctx)
	if err != nil {
		return err
	}
	r.activated = r.activated || state.Active != nil && state.Active.ID == r.Next.ID
	r.revoked = r.revoked || !slices.Contains(r.kind.in(bundle), r.Old.ID)
	return nil
}

// finish does what is left of the rotation. With an X.509 authority the controller
// manager is started again at its end: its webhook shows a certificate that the
// old authority has signed, and it makes another one only when that one is about
// to expire, so that Kubernetes would take no ClusterSPIFFEID meanwhile (seen with
// 0.7.0; pkg/webhookmanager, mintX509SVIDIfNeeded).
func (r *Rotation) finish(ctx context.Context) error {
	// A bundle endpoint with a certificate that a peer cannot verify is one that
	// the peer cannot fetch from: each is to have the next authority before.
	if err := r.of.trial.handoverBehind(ctx, r.of.TrustedBy); err != nil {
		return err
	}
	if err := r.catchUp(ctx); err != nil {
		return err
	}
	if !r.activated {
		if err := r.Activate(ctx); err != nil {
			return err
		}
	}
	if !r.revoked {
		// Nothing tells whether it is tainted; if it is, that is refused.
		refused := r.taint(ctx)
		// Who has a token of the old authority asks for another one, or is refused.
		if r.kind == X509 {
			if err := r.renewAgents(ctx); err != nil {
				return errors.Join(refused, err)
			}
			if err := r.of.trial.WaitFor(ctx, r.Replaced()); err != nil {
				return errors.Join(refused, err)
			}
		}
		if err := r.revoke(ctx); err != nil {
			return errors.Join(refused, err)
		}
	}
	if r.kind == JWT {
		return nil
	}
	return r.of.restart(ctx)
}

// restart has the pod of the server and the controller manager made again.
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
	return d.trial.WaitFor(ctx, check.Check{Name: ready.Name + " again", Probe: func(ctx context.Context) error {
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

// Replaced checks that nothing presents an SVID of the old authority any more:
// neither workloads, nor the bundle endpoint, nor the agents, who would be locked
// out if it were revoked before.
func (r *Rotation) Replaced() check.Check {
	workloads := r.of.Presents(r.Next.ID)
	return check.Check{Name: workloads.Name + ", and so do its bundle endpoint and its agents", Probe: func(ctx context.Context) error {
		if err := workloads.Probe(ctx); err != nil {
			return err
		}
		// An https_web endpoint shows a certificate of a web CA.
		if r.of.BundleEndpoint.Profile == topology.HTTPSSPIFFE {
			shown, err := r.of.shownBy(ctx)
			if err != nil {
				return err
			}
			if shown != r.Next.ID {
				return fmt.Errorf("the endpoint shows one of authority %s", Brief(shown))
			}
		}
		return r.reattested(ctx)
	}}
}

// Replace replaces the active X.509 authority in order, and leaves the old one
// tainted: whoever trusts it still is not harmed.
func (d Domain) Replace(ctx context.Context) (*Rotation, error) {
	r, err := d.Publish(ctx, X509)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(r.Activate(ctx), r.Taint(ctx)); err != nil {
		return nil, err
	}
	return r, d.trial.Await(ctx, time.Now(), Replaced(), r.Replaced())
}

// Renew replaces the active authorities of both kinds, to the end, and finishes
// first what the server or anybody has begun of that.
func (d Domain) Renew(ctx context.Context) error {
	for _, kind := range []Kind{JWT, X509} {
		if err := d.finishBegun(ctx, kind); err != nil {
			return err
		}
		r, err := d.Publish(ctx, kind)
		if err != nil {
			return err
		}
		if err := r.finish(ctx); err != nil {
			return err
		}
	}
	return nil
}

// shownBy returns the authority that has signed what the bundle endpoint shows. It
// looks in the server's pod, where no fault of the network is.
func (d Domain) shownBy(ctx context.Context) (string, error) {
	chain, err := d.site.Presented(ctx, spire.BundlePort)
	if err != nil {
		return "", err
	}
	bundle, err := d.Bundle(ctx)
	if err != nil {
		return "", err
	}
	_, verified, err := x509svid.Verify(chain, bundle)
	if err != nil {
		return "", err
	}
	if len(verified) == 0 || len(verified[0]) == 0 {
		return "", errors.New("nothing verifies it")
	}
	return hex.EncodeToString(verified[0][len(verified[0])-1].SubjectKeyId), nil
}

// Shown returns the certificate that the bundle endpoint shows. It looks in the server's pod,
// where no fault of the network is.
func (d Domain) Shown(ctx context.Context) (*x509.Certificate, error) {
	chain, err := d.site.Presented(ctx, spire.BundlePort)
	if err != nil {
		return nil, err
	}
	return chain[0], nil // a handshake has at least one
}

// RestartAgents starts the agents in clusters again: all that they hand out is asked for
// again.
func (d Domain) RestartAgents(ctx context.Context) error {
	var errs []error
	for _, m := range d.site.InClusters() {
		errs = append(errs, lab.RestartAgents(ctx, d.trial.session.lab.Access(m.Cluster()).Objects, m))
	}
	return errors.Join(errs...)
}
