package fault

import (
	"context"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
)

// Bundles are those that a SPIRE server holds of other trust domains; a
// *spire.Server has them.
type Bundles interface {
	// HeldBundle returns nil, without an error, where none is held.
	HeldBundle(ctx context.Context, td spiffeid.TrustDomain) (*spiffebundle.Bundle, error)
	SetBundle(ctx context.Context, bundle *spiffebundle.Bundle) error
	DeleteBundle(ctx context.Context, td spiffeid.TrustDomain, mode spire.DeleteMode) error
}

// BundleSet has the server of a trust domain hold another bundle of the domain
// that the bundle is of. It is refused where the server holds that one already.
//
// A server that can fetch repairs that by its next poll. Recover puts back what was
// held, unless something else than what was set is held by then.
func BundleSet(holder spiffeid.TrustDomain, bundles Bundles, bundle *spiffebundle.Bundle) Fault {
	of := bundle.TrustDomain()
	h := holding{holder: holder, of: of, bundles: bundles}
	return fault{fmt.Sprintf("bundle-set/%s->%s", holder, of), func(ctx context.Context) (injected, error) {
		healed := fmt.Sprintf("%s holds another bundle of %s than the one that was set", holder, of)
		return h.replaced(ctx, bundle, healed, func(ctx context.Context) error { return bundles.SetBundle(ctx, bundle) })
	}}
}

// BundleDeleted has the server of a trust domain hold no bundle of another. The
// mode says what becomes of the entries that federate with it; what is done to
// them Recover does not undo, but a controller manager does.
func BundleDeleted(holder spiffeid.TrustDomain, bundles Bundles, of spiffeid.TrustDomain, mode spire.DeleteMode) Fault {
	h := holding{holder: holder, of: of, bundles: bundles}
	return fault{fmt.Sprintf("bundle-deleted/%s->%s", holder, of), func(ctx context.Context) (injected, error) {
		healed := fmt.Sprintf("%s holds a bundle of %s again", holder, of)
		return h.replaced(ctx, nil, healed, func(ctx context.Context) error { return bundles.DeleteBundle(ctx, of, mode) })
	}}
}

// holding is what one server holds of another trust domain.
type holding struct {
	holder, of spiffeid.TrustDomain
	bundles    Bundles
}

// replaced puts wrong, nil for none, by do in the place of what is held.
func (h holding) replaced(ctx context.Context, wrong *spiffebundle.Bundle, healed string, do func(context.Context) error) (injected, error) {
	before, err := h.bundles.HeldBundle(ctx, h.of)
	if err != nil {
		return injected{}, err
	}
	if same(before, wrong) {
		return injected{}, fmt.Errorf("%s holds %s already", h.holder, what(wrong))
	}
	return injected{
		felt: check.Check{
			Name: fmt.Sprintf("%s holds %s of %s", h.holder, what(wrong), h.of),
			Probe: func(ctx context.Context) error {
				now, err := h.bundles.HeldBundle(ctx, h.of)
				if err == nil && !same(now, wrong) {
					err = fmt.Errorf("it holds %s", what(now))
				}
				return err
			},
		},
		recover: func(ctx context.Context) error {
			now, err := h.bundles.HeldBundle(ctx, h.of)
			switch {
			case err != nil || !same(now, wrong):
				return err
			case before == nil:
				return h.bundles.DeleteBundle(ctx, h.of, spire.DeleteDissociate)
			}
			return h.bundles.SetBundle(ctx, before)
		},
		healed: check.Check{
			Name: healed,
			Probe: func(ctx context.Context) error {
				now, err := h.bundles.HeldBundle(ctx, h.of)
				if err == nil && same(now, wrong) {
					err = fmt.Errorf("it holds %s", what(now))
				}
				return err
			},
		},
	}, do(ctx)
}

// same reports whether two bundles, nil for none, have the same authorities.
func same(a, b *spiffebundle.Bundle) bool {
	if a == nil || b == nil {
		return a == b
	}
	c := federation.Compare(a, b)
	return len(c.Lacking) == 0 && len(c.Foreign) == 0
}

// what says how many authorities a bundle has; nil is no bundle.
func what(bundle *spiffebundle.Bundle) string {
	if bundle == nil {
		return "no bundle"
	}
	return fmt.Sprintf("a bundle with %d X.509 and %d JWT authorities", len(bundle.X509Authorities()), len(bundle.JWTAuthorities()))
}
