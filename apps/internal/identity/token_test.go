package identity_test

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

var audience = spiffeid.RequireFromString("spiffe://aws.test/gateway")

// held is a set of JWT bundles as a program holds it.
type held struct{ *jwtbundle.Set }

func (h held) GetJWTBundleForTrustDomain(td spiffeid.TrustDomain) (*jwtbundle.Bundle, error) {
	bundle, err := h.Set.GetJWTBundleForTrustDomain(td)
	if err != nil {
		return nil, &identity.NotFederatedError{TrustDomain: td, Cause: err}
	}
	return bundle, nil
}

func TestTokens(t *testing.T) {
	gcp, plain, stranger := apptest.NewJWTKey(t, "gcp.test", "one"), apptest.NewJWTKey(t, "plain.test", "two"), apptest.NewJWTKey(t, "stranger.test", "three")
	gcp.Issuer = "https://oidc.gcp.test"
	revoked, elsewhere, forged := apptest.NewJWTKey(t, "gcp.test", "old"), apptest.NewJWTKey(t, "gcp.test", "one"), apptest.NewJWTKey(t, "gcp.test", "one")
	revoked.Issuer, forged.Issuer = gcp.Issuer, gcp.Issuer
	*elsewhere = *gcp
	elsewhere.Issuer = "https://oidc.gcp.test/"
	silent, talkative := *gcp, *plain
	silent.Issuer, talkative.Issuer = "", "https://oidc.plain.test"
	tokens := identity.Tokens{
		Bundles: held{jwtbundle.NewSet(gcp.Bundle(), plain.Bundle())},
		Issuers: identity.Issuers{gcp.TrustDomain: gcp.Issuer},
	}
	soon := time.Now().Add(time.Hour).Truncate(time.Second)
	over := time.Now().Add(-2 * time.Minute).Truncate(time.Second)
	signed := func(key *apptest.JWTKey, path, audience string, expiry time.Time) string {
		token, err := key.Sign(path, audience, expiry)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := signed(gcp, "/caller", audience.String(), soon)
	for name, test := range map[string]struct {
		token, want string // empty if it is good
	}{
		"good":                            {good, ""},
		"without an issuer, as it has to": {signed(plain, "/caller", audience.String(), soon), ""},
		"expired within the leeway":       {signed(gcp, "/caller", audience.String(), time.Now().Add(-30*time.Second)), ""},
		"of another audience": {signed(gcp, "/caller", "spiffe://aws.test/other", soon),
			`the audience of a JWT-SVID must be spiffe://aws.test/gateway: it is ["spiffe://aws.test/other"]`},
		"expired": {signed(gcp, "/caller", audience.String(), over),
			"a JWT-SVID must not have expired, with 1m0s granted to clocks: it has at " + over.UTC().Format(time.RFC3339)},
		"of a trust domain that is not federated": {signed(stranger, "/caller", audience.String(), soon),
			"a bundle must be held of the trust domain of a JWT-SVID: no bundle held for trust domain stranger.test"},
		"of a revoked authority": {signed(revoked, "/caller", audience.String(), soon),
			`a JWT authority in the bundle of gcp.test must have signed the JWT-SVID: there is none with the key ID "old"`},
		"of a forger": {signed(forged, "/caller", audience.String(), soon),
			`a JWT authority in the bundle of gcp.test must have signed the JWT-SVID: the signature is not by the key "one"`},
		"of another issuer": {signed(elsewhere, "/caller", audience.String(), soon),
			`the issuer of a JWT-SVID of gcp.test must be "https://oidc.gcp.test": it is "https://oidc.gcp.test/"`},
		"without its issuer": {signed(&silent, "/caller", audience.String(), soon),
			`the issuer of a JWT-SVID of gcp.test must be "https://oidc.gcp.test": it has none`},
		"with an issuer that nobody knows": {signed(&talkative, "/caller", audience.String(), soon),
			`a JWT-SVID of plain.test must have no issuer: it has "https://oidc.plain.test"`},
		"of no workload": {signed(gcp, "", audience.String(), soon), "the subject of a JWT-SVID must be a workload: it is spiffe://gcp.test"},
		"no token": {"secret", "a JWT-SVID must be a signed JWT with a SPIFFE ID for its subject, an expiry and a key ID: " +
			"it is none, or is signed with another algorithm than those of JWT-SVIDs"},
		"unsigned": {"eyJhbGciOiJub25lIn0." + strings.Split(good, ".")[1] + ".", "a JWT-SVID must be a signed JWT with a SPIFFE ID for its subject, an expiry and a key ID: " +
			"it is none, or is signed with another algorithm than those of JWT-SVIDs"},
	} {
		t.Run(name, func(t *testing.T) {
			peer, err := tokens.Verify(test.token, audience)
			if test.want == "" {
				if err != nil || peer.ID.Path() != "/caller" || peer.VerifiedBy.TrustDomain != peer.ID.TrustDomain() || peer.VerifiedBy.SubjectKeyID == "" {
					t.Errorf("it is of %+v, %v", peer, err)
				}
				return
			}
			var broken *identity.TokenError
			if !errors.As(err, &broken) || err.Error() != test.want || peer != (identity.Peer{}) {
				t.Errorf("it is of %+v, %v\nwant %s", peer, err, test.want)
			}
		})
	}
}

func TestIssuers(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "b.test=https://b.test, a.test=https://a.test/x": "a.test=https://a.test/x,b.test=https://b.test",
		"a.test":        `"a.test" has no issuer: want a trust domain with its issuer, such as cluster2.com=https://oidc.cluster2.com`,
		"a.test=":       `"a.test=" has no issuer: want a trust domain with its issuer, such as cluster2.com=https://oidc.cluster2.com`,
		"A=https://a.b": "want a trust domain with its issuer, such as cluster2.com=https://oidc.cluster2.com: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores",
	} {
		var issuers identity.Issuers
		got := fmt.Sprint(issuers.Set(text))
		if got == fmt.Sprint(error(nil)) {
			got = issuers.String()
		}
		if got != want {
			t.Errorf("%q comes to %s\nwant %s", text, got, want)
		}
	}
}

// TestJWTBundles follows a Workload API that comes late, changes and goes.
func TestJWTBundles(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	var log apptest.Log
	logger := slog.New(slog.NewTextHandler(&log, nil))
	bundles := identity.NewJWTBundles("unix://"+socket, logger)
	stop := apptest.Run(t, bundles.Run)
	log.Await(t, "no news of JWT bundles")
	var missing *identity.MissingError
	if err := bundles.Ready(); !errors.As(err, &missing) {
		t.Errorf("before there is an agent it is %v", err)
	}
	api, gone := apptest.ServeWorkloadAPI(t, socket)
	one, two := apptest.NewJWTKey(t, "aws.test", "one"), apptest.NewJWTKey(t, "aws.test", "two")
	has := func(id string) func() bool {
		return func() bool {
			bundle, err := bundles.GetJWTBundleForTrustDomain(one.TrustDomain)
			return err == nil && bundle.HasJWTAuthority(id)
		}
	}
	api.SetJWT("/gateway", one, one.Bundle())
	apptest.Await(t, "the first bundle", has("one"))
	api.SetJWT("/gateway", one, one.Bundle(two))
	apptest.Await(t, "the second authority", has("two"))
	var unknown *identity.NotFederatedError
	if _, err := bundles.GetJWTBundleForTrustDomain(spiffeid.RequireTrustDomainFromString("gcp.test")); !errors.As(err, &unknown) {
		t.Errorf("of another trust domain it holds %v", err)
	}
	gone()
	apptest.Await(t, "the agent to be missed", func() bool { return log.Count("no news of JWT bundles") == 2 })
	if err := bundles.Ready(); err != nil || !has("two")() {
		t.Errorf("without its agent it has lost what it held: %v", err)
	}
	stop()
}

// TestASourceGivesTokens: of the identity that the program presents, and of no other.
func TestASourceGivesTokens(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	api, _ := apptest.ServeWorkloadAPI(t, socket)
	source, err := identity.NewSource("unix://"+socket, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var missing *identity.MissingError
	if _, err := source.Token(t.Context(), audience); !errors.As(err, &missing) {
		t.Errorf("without an identity the token is %v", err)
	}
	apptest.Run(t, source.Run)
	ca, key := apptest.NewCA(t, "gcp.test"), apptest.NewJWTKey(t, "gcp.test", "one")
	api.Set(t, ca.Issue(t, "/caller"), ca.Bundle())
	<-source.Ready()
	if _, err := source.Token(t.Context(), audience); !errors.As(err, &missing) || !missing.Unregistered() {
		t.Errorf("of an agent that refuses the token is %v", err)
	}
	api.SetJWT("/caller", key, key.Bundle())
	token, err := source.Token(t.Context(), audience)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := identity.Tokens{Bundles: held{jwtbundle.NewSet(key.Bundle())}}.Verify(token, audience)
	if err != nil || peer.ID.String() != "spiffe://gcp.test/caller" {
		t.Errorf("the token is of %s, %v", peer.ID, err)
	}
}
