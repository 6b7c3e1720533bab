package scenarios

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// rotation is an X.509 authority on its way to be replaced.
type rotation struct {
	of        Domain
	old, next spire.Authority
	prepared  time.Time
	// agents are the serial numbers of the SVIDs that agents had before the next
	// authority signed anything.
	agents map[spiffeid.ID]string
	// activated, tainted and revoked are the stages that are behind.
	activated, tainted, revoked bool
}

// prepare publishes the next authority before anything is signed with it. The end
// of the trial finishes the rotation, however far it has come: a server remembers
// two authorities, and one that is published and forgotten could not be taken back.
func (d Domain) prepare(ctx context.Context) (*rotation, error) {
	state, err := d.Server().X509Authorities(ctx)
	if err != nil {
		return nil, err
	}
	if state.Active == nil {
		return nil, fmt.Errorf("%s has no active X.509 authority", d)
	}
	r := &rotation{of: d, old: *state.Active}
	if r.next, err = d.Server().PrepareX509Authority(ctx); err != nil {
		return nil, err
	}
	d.trial.Restore("finish the rotation of "+d.String(), r.finish)
	r.prepared = time.Now()
	d.trial.Mark("%s prepares %s", d, brief(r.next.ID))
	return r, nil
}

// arrive waits until workloads of all who trust the trust domain have the next
// authority: from then on it may sign. Where bundles travel by hand, it takes them
// there.
func (r *rotation) arrive(ctx context.Context) error {
	bonds, err := r.of.trial.bondsTo(r.of)
	if err != nil {
		return err
	}
	for _, b := range bonds {
		if b.mode == topology.Manual {
			if err := b.truster.Handover(ctx, r.of); err != nil {
				return err
			}
		}
		if err := r.of.trial.Await(ctx, r.prepared, b.truster.ToWorkloads(r.of), b.truster.Has(r.of, r.next.ID)); err != nil {
			return err
		}
	}
	return nil
}

// activate signs with the next authority from now on.
func (r *rotation) activate(ctx context.Context) error {
	agents, err := r.of.Server().Agents(ctx)
	if err != nil {
		return err
	}
	r.agents = map[spiffeid.ID]string{}
	for _, a := range agents {
		r.agents[a.ID] = a.Serial
	}
	if _, err := r.of.Server().ActivateX509Authority(ctx, r.next.ID); err != nil {
		return err
	}
	r.activated = true
	r.of.trial.Mark("%s activates %s", r.of, brief(r.next.ID))
	return nil
}

// taint has everything that the old authority has signed replaced.
func (r *rotation) taint(ctx context.Context) error {
	if r.of.trial.mutation == SkipTaint && !r.of.trial.restoring {
		return nil
	}
	if err := r.of.Server().TaintX509Authority(ctx, r.old.ID); err != nil {
		return err
	}
	r.tainted = true
	r.of.trial.Mark("%s taints %s", r.of, brief(r.old.ID))
	return nil
}

// revoke takes the old authority out of the bundle.
func (r *rotation) revoke(ctx context.Context) error {
	if r.of.trial.mutation == KeepOldBundle && !r.of.trial.restoring {
		return nil
	}
	if err := r.of.Server().RevokeX509Authority(ctx, r.old.ID); err != nil {
		return err
	}
	r.revoked = true
	r.of.trial.Mark("%s revokes %s", r.of, brief(r.old.ID))
	return nil
}

// finish does what is left of the rotation. The controller manager is started
// again at its end: its webhook shows a certificate that the old authority has
// signed, and it makes another one only when that one is about to expire, so that
// Kubernetes would take no ClusterSPIFFEID meanwhile (seen with 0.7.0;
// pkg/webhookmanager, mintX509SVIDIfNeeded).
func (r *rotation) finish(ctx context.Context) error {
	// A bundle endpoint with a certificate that a peer cannot verify is one that
	// the peer cannot fetch from: each is to have the next authority before.
	bonds, err := r.of.trial.bondsTo(r.of)
	if err := errors.Join(err, handoverBehind(ctx, bonds)); err != nil {
		return err
	}
	for _, stage := range []struct {
		behind bool
		do     func(context.Context) error
	}{{r.activated, r.activate}, {r.tainted, r.taint}} {
		if !stage.behind {
			if err := stage.do(ctx); err != nil {
				return err
			}
		}
	}
	if !r.revoked {
		if err := r.of.trial.until(ctx, r.replaced()); err != nil {
			return err
		}
		if err := r.revoke(ctx); err != nil {
			return err
		}
	}
	return r.of.restart(ctx)
}

// restart has the pod of the server and the controller manager made anew.
func (d Domain) restart(ctx context.Context) error {
	key := lab.ObjectKey{APIVersion: "v1", Kind: "Pod", Namespace: spire.Namespace, Name: spire.ServerPod}
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
		agents, err := r.of.Server().Agents(ctx)
		for _, a := range agents {
			if err == nil && a.Serial == r.agents[a.ID] && time.Now().Before(a.ExpiresAt) {
				err = fmt.Errorf("%s has the SVID that it had before", a.ID)
			}
		}
		return err
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
	r, err := d.prepare(ctx)
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

// token has the probe fetch a JWT-SVID, and waits for one that an authority has
// signed.
func (d Domain) token(ctx context.Context, audience, authority string) (string, error) {
	token, err := d.Probe().Token(ctx, audience)
	if err != nil {
		return "", err
	}
	header, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(header)
	if err != nil {
		return "", fmt.Errorf("read header of the token for %q: %w", audience, err)
	}
	var signed struct {
		KeyID string `json:"kid"`
	}
	if err := json.Unmarshal(text, &signed); err != nil {
		return "", fmt.Errorf("read header of the token for %q: %w", audience, err)
	}
	if signed.KeyID != authority {
		return "", fmt.Errorf("the token for %q is signed by %s, want %s", audience, brief(signed.KeyID), brief(authority))
	}
	return token, nil
}

// hasJWT checks that the probe has a JWT authority of another.
func (d Domain) hasJWT(of Domain, id string) check.Check {
	return check.Check{Name: fmt.Sprintf("workloads of %s have JWT authority %s of %s", d, brief(id), of), Probe: func(ctx context.Context) error {
		holding, err := d.Probe().Holding(ctx)
		if err != nil {
			return err
		}
		for _, has := range holding.JWTBundles[of.String()] {
			if has == id {
				return nil
			}
		}
		return fmt.Errorf("they have %v", briefs(holding.JWTBundles[of.String()]))
	}}
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
