package synthetic_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/fedlab-dev/fedlab/lab/synthetic"
)

var (
	synthTD = spiffeid.RequireTrustDomainFromString("synthetic.test")
	otherTD = spiffeid.RequireTrustDomainFromString("other.test")
	client  = spiffeid.RequireFromPath(synthTD, "/client")
	noon    = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
)

func newDomain(t *testing.T, td spiffeid.TrustDomain, now func() time.Time) *synthetic.Domain {
	t.Helper()
	d, err := synthetic.New(td, now)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func publicKey(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := synthetic.PublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return public
}

// message is what an error says; "" without one.
func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestMintX509(t *testing.T) {
	t.Parallel()
	d := newDomain(t, synthTD, func() time.Time { return noon })
	expired := func(err error) bool {
		var invalid x509.CertificateInvalidError
		return errors.As(err, &invalid) && invalid.Reason == x509.Expired
	}
	unknown := func(err error) bool { return errors.As(err, new(x509.UnknownAuthorityError)) }
	untyped := func(error) bool { return true }
	const (
		unverified = "x509svid: could not verify leaf certificate: x509: "
		unnamed    = "x509svid: could not get leaf SPIFFE ID: certificate contains "
	)
	for _, tt := range []struct {
		wrong synthetic.WrongX509
		want  string
		typed func(error) bool
	}{
		{"", "", nil},
		{synthetic.SelfSigned, unverified + "certificate signed by unknown authority", unknown},
		{synthetic.UnknownAuthority, unverified + `certificate signed by unknown authority (possibly because of "x509: ECDSA verification failure" ` +
			`while trying to verify candidate authority certificate "synthetic.test")`, unknown},
		{synthetic.ExpiredX509, unverified + "certificate has expired or is not yet valid: current time 2026-09-01T12:00:00Z is after 2026-09-01T11:00:00Z", expired},
		{synthetic.NotYetValid, unverified + "certificate has expired or is not yet valid: current time 2026-09-01T12:00:00Z is before 2026-09-01T13:00:00Z", expired},
		{synthetic.TwoURIs, unnamed + "more than one URI SAN", untyped},
		{synthetic.NoURI, unnamed + "no URI SAN", untyped},
		{synthetic.CATrue, "x509svid: leaf certificate with CA flag set to true", untyped},
		// The standard (X509-SVID, section 5.2) has it refused; go-spiffe does not.
		{synthetic.NoPath, "", nil},
	} {
		t.Run(string(tt.wrong), func(t *testing.T) {
			chain, err := d.MintX509(synthetic.X509Request{ID: client, PublicKey: publicKey(t), Wrong: tt.wrong})
			if err != nil {
				t.Fatal(err)
			}
			id, chains, err := x509svid.ParseAndVerify(chain, d.Bundle(), x509svid.WithTime(noon))
			if got := message(err); got != tt.want {
				t.Fatalf("verify: %q\nwant    %q", got, tt.want)
			}
			if err != nil {
				if !tt.typed(err) {
					t.Errorf("error is of another type: %#v", errors.Unwrap(errors.Unwrap(err)))
				}
				return
			}
			want := client
			if tt.wrong == synthetic.NoPath {
				want = synthTD.ID()
			}
			if id != want || len(chains[0]) != 2 {
				t.Errorf("verified as %s by a chain of %d, want %s and 2", id, len(chains[0]), want)
			}
		})
	}
}

func TestMintX509AsAsked(t *testing.T) {
	t.Parallel()
	d, other := newDomain(t, synthTD, func() time.Time { return noon }), newDomain(t, otherTD, time.Now)
	request := synthetic.X509Request{
		ID: spiffeid.RequireFromPath(otherTD, "/client"), PublicKey: publicKey(t), NotBefore: noon.Add(-time.Minute), NotAfter: noon.Add(time.Minute),
	}
	chain, err := d.MintX509(request)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	if !leaf.NotBefore.Equal(request.NotBefore) || !leaf.NotAfter.Equal(request.NotAfter) {
		t.Errorf("valid from %s to %s, want what was asked for", leaf.NotBefore, leaf.NotAfter)
	}
	if public, err := x509.MarshalPKIXPublicKey(leaf.PublicKey); err != nil || !slices.Equal(public, request.PublicKey) {
		t.Errorf("certificate is for another key (%v)", err)
	}

	// The lie is found out with the bundle of the domain that it names, and only
	// with that one.
	bundles := x509bundle.NewSet(d.Bundle().X509Bundle(), other.Bundle().X509Bundle())
	_, _, err = x509svid.ParseAndVerify(chain, bundles, x509svid.WithTime(noon))
	if !errors.As(err, new(x509.UnknownAuthorityError)) {
		t.Errorf("verify SVID of another trust domain: %v", err)
	}
	lied := x509bundle.FromX509Authorities(otherTD, d.Bundle().X509Authorities())
	if _, _, err := x509svid.ParseAndVerify(chain, lied, x509svid.WithTime(noon)); err != nil {
		t.Errorf("verify with the authorities that signed it: %v", err)
	}
}

func TestMintJWT(t *testing.T) {
	t.Parallel()
	d, other := newDomain(t, synthTD, time.Now), newDomain(t, spiffeid.RequireTrustDomainFromString("other.test"), time.Now)
	const audience = "spiffe://other.test/server"
	_, otherKeys := ids(other.Bundle())
	expired := time.Now().Add(-2 * time.Minute)
	for name, tt := range map[string]struct {
		request synthetic.JWTRequest
		want    string
	}{
		"as it is":      {synthetic.JWTRequest{ID: client, Audience: audience}, ""},
		"for others":    {synthetic.JWTRequest{ID: client, Audience: "others"}, `jwtsvid: expected audience in ["spiffe://other.test/server"] (audience=["others"])`},
		"expired":       {synthetic.JWTRequest{ID: client, Audience: audience, Expiry: expired}, "jwtsvid: token has expired"},
		"of another":    {synthetic.JWTRequest{ID: spiffeid.RequireFromPath(other.TrustDomain(), "/client"), Audience: audience, KeyID: otherKeys[0]}, "jwtsvid: unable to get claims from token: go-jose/go-jose: error in cryptographic primitive"},
		"a key of none": {synthetic.JWTRequest{ID: client, Audience: audience, KeyID: "none"}, `jwtsvid: no JWT authority "none" found for trust domain "synthetic.test"`},
	} {
		token, err := d.MintJWT(tt.request)
		if err != nil {
			t.Fatal(err)
		}
		bundles := spiffebundle.NewSet(d.Bundle(), other.Bundle())
		if svid, err := jwtsvid.ParseAndValidate(token, bundles, []string{audience}); message(err) != tt.want || err == nil && (svid.ID != client || time.Until(svid.Expiry) > time.Hour) {
			t.Errorf("%s: %+v, error %q\nwant %q", name, svid, message(err), tt.want)
		}
	}
}

func TestMintRefuses(t *testing.T) {
	t.Parallel()
	d := newDomain(t, synthTD, time.Now)
	for _, tt := range []struct {
		mint func() error
		want string
	}{
		{func() error { _, err := d.MintX509(synthetic.X509Request{}); return err }, "mint X509-SVID of : it has no SPIFFE ID"},
		{func() error { _, err := d.MintX509(synthetic.X509Request{ID: client}); return err },
			"mint X509-SVID of spiffe://synthetic.test/client: read public key: asn1: syntax error: sequence truncated"},
		{func() error {
			_, err := d.MintX509(synthetic.X509Request{ID: client, PublicKey: publicKey(t), Wrong: "odd"})
			return err
		}, `mint X509-SVID of spiffe://synthetic.test/client: unknown wrong "odd"`},
		{func() error { _, err := d.MintJWT(synthetic.JWTRequest{ID: client}); return err }, `mint JWT-SVID: want a SPIFFE ID and an audience, not "spiffe://synthetic.test/client" and ""`},
	} {
		if got := message(tt.mint()); got != tt.want {
			t.Errorf("error is %q\nwant     %q", got, tt.want)
		}
	}
}

// ids are those of a bundle's authorities.
func ids(bundle *spiffebundle.Bundle) (x509IDs, jwtIDs []string) {
	for _, authority := range bundle.X509Authorities() {
		x509IDs = append(x509IDs, hex.EncodeToString(authority.SubjectKeyId))
	}
	return x509IDs, slices.Sorted(maps.Keys(bundle.JWTAuthorities()))
}

func TestAuthorities(t *testing.T) {
	t.Parallel()
	d := newDomain(t, synthTD, time.Now)
	first := d.Bundle()
	if hint, ok := first.RefreshHint(); !ok || hint != time.Minute {
		t.Errorf("refresh hint is %s, want 1m", hint)
	}
	svid := func() [][]byte {
		t.Helper()
		chain, err := d.MintX509(synthetic.X509Request{ID: client, PublicKey: publicKey(t)})
		if err != nil {
			t.Fatal(err)
		}
		return chain
	}
	verifies := func(bundle *spiffebundle.Bundle, chain [][]byte, want bool) {
		t.Helper()
		if _, _, err := x509svid.ParseAndVerify(chain, bundle); (err == nil) != want {
			t.Errorf("verify: %v, want success %t", err, want)
		}
	}
	sequence := func(want uint64) {
		t.Helper()
		if got, _ := d.Bundle().SequenceNumber(); got != want {
			t.Errorf("sequence number is %d, want %d", got, want)
		}
	}
	sequence(1)
	if _, err := d.Activate(); message(err) != "activate authorities of synthetic.test: none are prepared" {
		t.Errorf("activate nothing: %v", err)
	}

	// Prepared authorities are in the bundle, and sign nothing yet.
	next, err := d.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	sequence(2)
	if x509IDs, jwtIDs := ids(d.Bundle()); len(x509IDs) != 2 || !slices.Contains(x509IDs, next.X509) || len(jwtIDs) != 2 || !slices.Contains(jwtIDs, next.JWT) {
		t.Errorf("bundle has %s and %s, want those of before and %+v", x509IDs, jwtIDs, next)
	}
	verifies(first, svid(), true)
	if _, err := d.Prepare(); message(err) != "prepare authorities of synthetic.test: some are prepared already" {
		t.Errorf("prepare again: %v", err)
	}

	if active, err := d.Activate(); err != nil || active != next {
		t.Errorf("activated %+v, %v; want %+v", active, err, next)
	}
	sequence(2)
	verifies(first, svid(), false)
	verifies(d.Bundle(), svid(), true)
}

func TestDomainPrintsAsItsName(t *testing.T) {
	t.Parallel()
	d := newDomain(t, synthTD, time.Now)
	for _, format := range []string{"%v", "%+v", "%s"} {
		if got := fmt.Sprintf(format, d); got != "synthetic trust domain synthetic.test" {
			t.Errorf("%s prints %q", format, got)
		}
	}
}
