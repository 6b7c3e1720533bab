package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
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
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, td spiffeid.TrustDomain) authority {
	t.Helper()
	a := authority{}
	a.cert, a.key = issued(t, td.ID(), nil)
	return a
}

// issued returns a certificate of an ID that an authority signs, or itself.
func issued(t *testing.T, id spiffeid.ID, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
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
	return cert, key
}

// TestJudged: each server's bundle is asked by itself, and one that cannot be had
// says why.
func TestJudged(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("cluster1.com")
	now, old := newAuthority(t, td), newAuthority(t, td)
	leaf, _ := issued(t, spiffeid.RequireFromPath(td, "/server"), &now)
	held := heldSVIDs{Bundles: []string{"cluster1.com"}}
	held.X509 = append(held.X509, struct {
		Hint  string   `json:"hint"`
		Chain [][]byte `json:"chain"`
	}{"ours", [][]byte{leaf.Raw}})
	bundle := func(a authority) *spiffebundle.Bundle {
		return spiffebundle.FromX509Authorities(td, []*x509.Certificate{a.cert})
	}
	holder := func(name string) *topology.Domain {
		return &topology.Domain{Name: spiffeid.RequireTrustDomainFromString(name)}
	}
	bundles := []holding{
		{holder: holder("cluster1.com"), bundle: bundle(now)},
		{holder: holder("behind.test"), bundle: bundle(old)},
		{holder: holder("silent.test"), err: errors.New("it does not answer")},
	}
	w := &topology.Workload{Name: "stock-quotes", Member: &topology.Member{Cluster: &topology.Cluster{ClusterSpec: topology.ClusterSpec{Name: "market"}}}}
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
