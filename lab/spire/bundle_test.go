package spire

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"testing"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// TestBundleKeepsKeysOfEachType: a bundle of one trust domain may have JWT authorities
// of several types, as after its server was given another one.
func TestBundleKeepsKeysOfEachType(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	bundle := spiffebundle.New(spiffeid.RequireTrustDomainFromString("cluster1.com"))
	bundle.SetSequenceNumber(3)
	if err := bundle.AddJWTAuthority("rsa", rsaKey.Public()); err != nil {
		t.Fatal(err)
	}
	if err := bundle.AddJWTAuthority("ec", ecKey.Public()); err != nil {
		t.Fatal(err)
	}
	sent, err := bundleToAPI(bundle)
	if err != nil {
		t.Fatal(err)
	}
	got, err := bundleFromAPI(sent)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Equal(bundle) {
		t.Errorf("got %+v, want %+v", got.JWTAuthorities(), bundle.JWTAuthorities())
	}
}
