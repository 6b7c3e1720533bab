package scenarios

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/fedlab-dev/fedlab/lab/check"
)

// token is a JWT-SVID.
type token struct {
	text      string
	authority string
	expires   time.Time
}

// audience is another one for each authority: an agent keeps a JWT-SVID for an
// audience until half of its life is over, whatever has become of what signed it.
func (t *token) audience() string { return "under-" + t.authority }

// token has the probe fetch a JWT-SVID that an authority has signed.
func (d Domain) token(ctx context.Context, authority string) (*token, error) {
	t := &token{authority: authority}
	var err error
	if t.text, err = d.Probe().Token(ctx, t.audience()); err != nil {
		return nil, err
	}
	var header struct {
		KeyID string `json:"kid"`
	}
	var claims struct {
		Expires int64 `json:"exp"`
	}
	parts := strings.Split(t.text, ".")
	for i, into := range []any{&header, &claims} {
		var text []byte
		if text, err = base64.RawURLEncoding.DecodeString(parts[min(i, len(parts)-1)]); err == nil {
			err = json.Unmarshal(text, into)
		}
		if err != nil {
			return nil, fmt.Errorf("read the token for %q: %w", t.audience(), err)
		}
	}
	if header.KeyID != authority {
		return nil, fmt.Errorf("the token for %q is signed by %s, want %s", t.audience(), brief(header.KeyID), brief(authority))
	}
	t.expires = time.Unix(claims.Expires, 0)
	return t, nil
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
