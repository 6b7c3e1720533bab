package lab

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/topology"
)

// authority makes certificates of a trust domain.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newAuthority(t *testing.T, td spiffeid.TrustDomain) authority {
	t.Helper()
	key := newECKey(t)
	return authority{certified(t, td.ID(), key, nil), key}
}

func newRSAAuthority(t *testing.T, td spiffeid.TrustDomain) authority {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return authority{certified(t, td.ID(), key, nil), key}
}

func newECKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// certified returns a certificate of an ID and a key that an authority signs, or itself.
func certified(t *testing.T, id spiffeid.ID, key crypto.Signer, by *authority) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: id.String()}, URIs: []*url.URL{id.URL()}, IsCA: by == nil, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	parent, signer := template, key
	if by == nil {
		template.KeyUsage = x509.KeyUsageCertSign
	} else {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestJudged: each server's bundle is asked by itself, and one that cannot be had
// says why.
func TestJudged(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("cluster1.com")
	now, old := newAuthority(t, td), newAuthority(t, td)
	leaf := certified(t, spiffeid.RequireFromPath(td, "/server"), newECKey(t), &now)
	held := heldSVIDs{Bundles: []string{"cluster1.com"}}
	held.X509 = append(held.X509, heldX509{"ours", [][]byte{leaf.Raw}})
	bundle := func(a authority) *spiffebundle.Bundle {
		return spiffebundle.FromX509Authorities(td, []*x509.Certificate{a.cert})
	}
	holder := func(name string) *topology.Server {
		return &topology.Server{Domain: &topology.Domain{Name: spiffeid.RequireTrustDomainFromString(name)}}
	}
	bundles := []holding{
		{holder: holder("cluster1.com"), bundle: bundle(now)},
		{holder: holder("behind.test"), bundle: bundle(old)},
		{holder: holder("silent.test"), err: errors.New("it does not answer")},
	}
	w := &topology.Workload{Name: "stock-quotes", Member: &topology.Member{Place: topology.Place{Cluster: &topology.Cluster{ClusterSpec: topology.ClusterSpec{Name: "market"}}}}}
	s, err := judged(w, held, bundles, "")
	if err != nil || len(s.X509) != 1 || len(s.X509[0].Verified) != 3 {
		t.Fatalf("error %v, got %+v", err, s)
	}
	x := s.X509[0]
	if x.SPIFFEID != "spiffe://cluster1.com/server" || x.Hint != "ours" || x.Chain[0].Serial != "7" || !x.Chain[0].NotAfter.Equal(leaf.NotAfter) {
		t.Errorf("got %+v", x)
	}
	if v := x.Verified; v[0] != (Verification{Holder: "cluster1.com"}) || v[1].Holder != "behind.test" ||
		!strings.Contains(v[1].Problem, "certificate signed by unknown authority") || v[2].Problem != "it does not answer" {
		t.Errorf("got %+v", v)
	}

	held.X509[0].Chain = nil
	if _, err := judged(w, held, bundles, ""); err == nil || err.Error() != "read an X509-SVID of stock-quotes: it has no certificate" {
		t.Errorf("an SVID without certificate: error %v", err)
	}
	held.X509, held.JWT = nil, []string{"no token"}
	if _, err := judged(w, held, bundles, "me"); err == nil || !strings.HasPrefix(err.Error(), "read a JWT-SVID of stock-quotes: ") {
		t.Errorf("a token that is none: error %v", err)
	}
}

// TestJudgedByRSAKeys: an X509-SVID whose EC key an RSA authority has signed and a
// JWT-SVID of RS256 are verified by the bundles that have these authorities, and by no
// other.
func TestJudgedByRSAKeys(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("cluster1.com")
	id := spiffeid.RequireFromPath(td, "/server")
	now, old := newRSAAuthority(t, td), newRSAAuthority(t, td)
	held := heldSVIDs{JWT: []string{rs256(t, now.key, "one", id, "me")}}
	held.X509 = append(held.X509, heldX509{"ours", [][]byte{certified(t, id, newECKey(t), &now).Raw}})
	var bundles []holding
	for i, a := range []authority{now, now, old} {
		bundle := spiffebundle.FromX509Authorities(td, []*x509.Certificate{a.cert})
		if err := bundle.AddJWTAuthority("one", a.key.Public()); err != nil {
			t.Fatal(err)
		}
		holder := &topology.Server{Domain: &topology.Domain{Name: spiffeid.RequireTrustDomainFromString(fmt.Sprintf("cluster%d.com", i+1))}}
		bundles = append(bundles, holding{holder: holder, bundle: bundle})
	}
	w := &topology.Workload{Name: "stock-quotes", Member: &topology.Member{Place: topology.Place{Cluster: &topology.Cluster{ClusterSpec: topology.ClusterSpec{Name: "market"}}}}}
	s, err := judged(w, held, bundles, "me")
	if err != nil || len(s.X509) != 1 || len(s.JWT) != 1 {
		t.Fatalf("error %v, got %+v", err, s)
	}
	for kind, verified := range map[string][]Verification{"X509-SVID": s.X509[0].Verified, "JWT-SVID": s.JWT[0].Verified} {
		if verified[0].Problem != "" || verified[1].Problem != "" || verified[2].Problem == "" {
			t.Errorf("%s: got %+v, want the first two to verify it", kind, verified)
		}
	}
}

// rs256 returns a JWT-SVID that an RSA key signs (RFC 7515, section 7.1).
func rs256(t *testing.T, key crypto.Signer, keyID string, id spiffeid.ID, audience string) string {
	t.Helper()
	encoded := base64.RawURLEncoding.EncodeToString
	signed := encoded(fmt.Appendf(nil, `{"alg":"RS256","typ":"JWT","kid":%q}`, keyID)) + "." +
		encoded(fmt.Appendf(nil, `{"sub":%q,"aud":[%q],"exp":%d}`, id, audience, time.Now().Add(time.Hour).Unix()))
	digest := sha256.Sum256([]byte(signed))
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + encoded(signature)
}
