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

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/synthetic"
	"github.com/fedlab-dev/fedlab/lab/topology"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/fedlab-dev/fedlab/scenarios/trial"
)

const (
	// shortToken is how long the JWT-SVID lives that is to expire: long enough for what is tried
	// with others meanwhile.
	shortToken = 30 * time.Second
	// tokenLeeway is for how long SPIRE and go-spiffe accept one that has expired (go-jose
	// jwt/validation.go, DefaultLeeway).
	tokenLeeway = time.Minute
)

// third is the trust domain that is made up.
var third = spiffeid.RequireTrustDomainFromString(topology.SyntheticTrustDomain)

var wrongToken = trial.Scenario{
	Name:  "auth/token",
	Claim: "A JWT-SVID of a federated trust domain is accepted for its own audience alone, with the signature of that trust domain alone, at most a minute longer than it lives, and until its key is revoked and the peer has fetched the bundle again.",
	Parts: []trial.Part{
		trial.Carried("A JWT-SVID of a federated trust domain is accepted", "a JWT-SVID is accepted for its audience", "one of a third trust domain is accepted as its own"),
		trial.Carried("for its own audience alone", "it is refused for another audience"),
		trial.Carried("with the signature of that trust domain alone", "what a third one signs under the ID of its own key is refused", "what a third one signs under the ID of the right key is refused"),
		trial.Carried("at most a minute longer than it lives", "one that has expired is accepted still", "and refused a minute later"),
		trial.Carried("until its key is revoked and the peer has fetched the bundle again", "it is accepted until its key is revoked", "it is refused once the peer has fetched again"),
	},
	Needs: []trial.Need{fetched, rotates},
	Sources: []string{
		"SPIFFE JWT-SVID, section 3.2: another audience is refused; appendix A: some leeway is acceptable after the expiry",
		"SPIRE pkg/common/jwtsvid/validate.go: the key is looked up in the bundle of the trust domain that the subject names",
		"https://github.com/spiffe/spire/blob/v1.15.3/doc/spire_server.md (localauthority jwt revoke)",
	},
	Run: func(ctx context.Context, t *trial.Trial) error {
		called, caller := t.Pair()
		var theirs, brief *token
		var s *synthetic.Domain
		t.Step(ctx, "present a JWT-SVID of the called one, and see it accepted", func(ctx context.Context) (err error) {
			if theirs, err = mintNow(ctx, called); err != nil {
				return err
			}
			return t.See(ctx, "a JWT-SVID is accepted for its audience", validity(theirs, caller), valid)
		})
		t.Step(ctx, "present it to somebody else than it is for", func(ctx context.Context) error {
			other := *theirs
			other.audience = "somebody-else"
			return t.Watch(ctx, "it is refused for another audience", trial.Calls(5), validity(&other, caller), refusedToken)
		})
		t.Step(ctx, fmt.Sprintf("federate with a third trust domain, and present a JWT-SVID from there that lives for %s", shortToken), func(ctx context.Context) (err error) {
			if s, err = synthetic.New(third, time.Now); err != nil {
				return err
			}
			federated := time.Now()
			if err := caller.FederateBy(ctx, s.Bundle()); err != nil {
				return err
			}
			own := synthetic.JWTRequest{ID: spiffeid.RequireFromPath(third, topology.Probe().IDTemplate), Expiry: federated.Add(shortToken)}
			if brief, err = forge(s, own); err != nil {
				return err
			}
			t.Mark("the JWT-SVID of %s expires at %s", third, brief.expires.UTC().Format(time.TimeOnly))
			if err := t.Await(ctx, federated, trial.Reconciled(), validity(brief, caller).Is(valid)); err != nil {
				return err
			}
			return t.See(ctx, "one of a third trust domain is accepted as its own", validity(brief, caller), valid)
		})
		t.Step(ctx, "have the third one sign in the name of the called one", func(ctx context.Context) error {
			for _, lie := range []struct{ keyID, says string }{
				{"", "what a third one signs under the ID of its own key is refused"},
				{theirs.authority, "what a third one signs under the ID of the right key is refused"},
			} {
				forged, err := forge(s, synthetic.JWTRequest{ID: called.ID(), KeyID: lie.keyID})
				if err != nil {
					return err
				}
				if err := t.Watch(ctx, lie.says, trial.Calls(5), validity(forged, caller), refusedToken); err != nil {
					return err
				}
			}
			return nil
		})
		t.Step(ctx, "revoke the key, and wait until the peer refuses what it has signed", func(ctx context.Context) error {
			r, err := called.Publish(ctx, trial.JWT)
			if err != nil {
				return err
			}
			if err := r.Activate(ctx); err != nil {
				return err
			}
			if err := t.See(ctx, "it is accepted until its key is revoked", validity(theirs, caller), valid); err != nil {
				return err
			}
			revoked := time.Now()
			if err := errors.Join(r.Taint(ctx), r.Revoke(ctx)); err != nil {
				return err
			}
			if err := t.Await(ctx, revoked, caller.ToWorkloads(called), validity(theirs, caller).Is(refusedToken)); err != nil {
				return err
			}
			return t.Watch(ctx, "it is refused once the peer has fetched again", trial.Calls(5), validity(theirs, caller), refusedToken)
		})
		t.Step(ctx, "wait until the short one has expired for a minute", func(ctx context.Context) error {
			over := brief.expires.Add(tokenLeeway)
			// A look that is late by as much as a run may be late comes before that.
			still := trial.Bound{Within: time.Until(over) - trial.MaxSlack, Formula: "the leeway for clocks"}
			if err := t.Watch(ctx, "one that has expired is accepted still", still, validity(brief, caller), valid); err != nil {
				return err
			}
			bound := trial.Bound{Within: tokenLeeway, Formula: still.Formula}
			if err := t.Await(ctx, brief.expires, bound.Plus(trial.NextCall()), validity(brief, caller).Is(expiredToken)); err != nil {
				return err
			}
			return t.Watch(ctx, "and refused a minute later", trial.Calls(5), validity(brief, caller), expiredToken)
		})
		return t.Err()
	},
}

// What a look at a token sees: its peer accepts it, or refuses it, which one that has expired
// is told apart from.
const (
	valid        = "valid"
	refusedToken = "refused"
	expiredToken = "expired"
)

// validity is what the probe of a trust domain makes of a token that it is shown.
func validity(k *token, at trial.Domain) trial.Fact {
	return trial.Fact{Of: fmt.Sprintf("the token of authority %s at %s", trial.Brief(k.authority), at), Well: valid, Look: func(ctx context.Context) (string, error) {
		id, err := at.Probe().Validate(ctx, k.audience, k.text)
		invalid := (*traffic.InvalidError)(nil)
		switch {
		case err == nil:
			return map[bool]string{true: valid, false: "of " + id}[id == k.of.String()], nil
		case !errors.As(err, &invalid):
			return "", err
		case !time.Now().Before(k.expires):
			return expiredToken, nil
		}
		return refusedToken, nil
	}}
}

// token is a JWT-SVID. An agent keeps one for an audience until half of its life is over,
// whatever has become of what signed it: the audience is another one for each authority.
type token struct {
	text                string
	of                  spiffeid.ID
	audience, authority string
	expires             time.Time
}

// forge has a made-up trust domain sign a JWT-SVID, whatever it says.
func forge(s *synthetic.Domain, r synthetic.JWTRequest) (*token, error) {
	k := &token{of: r.ID, authority: federation.JWTIDs(s.Bundle())[0], audience: "forged", expires: r.Expiry}
	if r.Expiry.IsZero() {
		k.expires = time.Now().Add(time.Hour)
	}
	k.expires = k.expires.Truncate(time.Second) // a token has no finer time
	r.Audience, r.Expiry = k.audience, k.expires
	var err error
	k.text, err = s.MintJWT(r)
	return k, err
}

// mintNow is mint with the authority that signs.
func mintNow(ctx context.Context, d trial.Domain) (*token, error) {
	active, err := d.Active(ctx, trial.JWT)
	if err != nil {
		return nil, err
	}
	return mint(ctx, d, active.ID)
}

// mint has the probe fetch a JWT-SVID that an authority has signed.
func mint(ctx context.Context, d trial.Domain, authority string) (*token, error) {
	k := &token{of: d.ID(), authority: authority, audience: "under-" + authority}
	var err error
	if k.text, err = d.Probe().Token(ctx, k.audience); err != nil {
		return nil, err
	}
	var header struct{ Kid string }
	var claims struct{ Exp int64 }
	parts := strings.Split(k.text, ".")
	for i, into := range []any{&header, &claims} {
		var text []byte
		if text, err = base64.RawURLEncoding.DecodeString(parts[min(i, len(parts)-1)]); err == nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			return nil, fmt.Errorf("read the token for %q: %w", k.audience, err)
		}
	}
	if header.Kid != authority {
		return nil, fmt.Errorf("the token for %q is signed by %s, want %s", k.audience, trial.Brief(header.Kid), trial.Brief(authority))
	}
	k.expires = time.Unix(claims.Exp, 0)
	return k, nil
}
