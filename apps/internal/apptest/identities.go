// Package apptest gives the tests of demo programs their surroundings:
// certificate authorities, SVIDs of any lifetime, a Workload API, and a log
// and conditions to wait for.
//
// It is for unit tests only and refuses to know the programs.
package apptest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// CA is one X.509 authority of a trust domain.
type CA struct {
	TrustDomain spiffeid.TrustDomain
	Root        *x509.Certificate
	key         crypto.Signer
}

// NewCA returns a new authority of the trust domain called name; two of the
// same name do not trust each other.
func NewCA(t *testing.T, name string) *CA {
	t.Helper()
	return newCA(t, name, newKey(t))
}

// NewRSACA is NewCA with an RSA key. The SVIDs that it issues have EC keys, as an agent
// makes them.
func NewRSACA(t *testing.T, name string) *CA {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return newCA(t, name, key)
}

func newCA(t *testing.T, name string, key crypto.Signer) *CA {
	t.Helper()
	ca := &CA{TrustDomain: spiffeid.RequireTrustDomainFromString(name), key: key}
	ca.Root = sign(t, &x509.Certificate{
		Subject:               pkix.Name{CommonName: "authority of " + name},
		URIs:                  []*url.URL{ca.TrustDomain.ID().URL()},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
	}, nil, ca.key, ca.key)
	return ca
}

// Issue returns an SVID for path ("/server") that is valid for an hour.
func (ca *CA) Issue(t *testing.T, path string) *x509svid.SVID {
	t.Helper()
	return ca.IssueFor(t, path, time.Now().Add(-time.Minute), time.Now().Add(time.Hour))
}

// IssueFor returns an SVID for path with the given validity, which may be
// over or not yet begun.
func (ca *CA) IssueFor(t *testing.T, path string, notBefore, notAfter time.Time) *x509svid.SVID {
	t.Helper()
	return ca.IssueSpoilt(t, path, func(leaf *x509.Certificate) { leaf.NotBefore, leaf.NotAfter = notBefore, notAfter })
}

// IssueSpoilt returns an SVID for path, after spoil has had its certificate,
// which may be against the rules.
func (ca *CA) IssueSpoilt(t *testing.T, path string, spoil func(leaf *x509.Certificate)) *x509svid.SVID {
	t.Helper()
	id := spiffeid.RequireFromPath(ca.TrustDomain, path)
	key := newKey(t)
	leaf := &x509.Certificate{
		URIs:      []*url.URL{id.URL()},
		KeyUsage:  x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Minute),
		NotAfter:  time.Now().Add(time.Hour),
	}
	spoil(leaf)
	return &x509svid.SVID{ID: id, Certificates: []*x509.Certificate{sign(t, leaf, ca.Root, key, ca.key)}, PrivateKey: key}
}

// Bundle returns a bundle that holds the roots of ca and of others, all of
// one trust domain.
func (ca *CA) Bundle(others ...*CA) *x509bundle.Bundle {
	roots := []*x509.Certificate{ca.Root}
	for _, other := range others {
		roots = append(roots, other.Root)
	}
	return x509bundle.FromX509Authorities(ca.TrustDomain, roots)
}

// Holder holds one SVID and a set of bundles, as a workload does.
type Holder struct {
	// Tokens gives the JWT-SVIDs of the holder; nil has none.
	Tokens func(audience spiffeid.ID) (string, error)

	mu      sync.Mutex
	svid    *x509svid.SVID
	bundles *x509bundle.Set
}

// NewHolder returns a holder of svid and bundles.
func NewHolder(svid *x509svid.SVID, bundles ...*x509bundle.Bundle) *Holder {
	h := &Holder{}
	h.Set(svid, bundles...)
	return h
}

// Set replaces all that h holds.
func (h *Holder) Set(svid *x509svid.SVID, bundles ...*x509bundle.Bundle) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.svid, h.bundles = svid, x509bundle.NewSet(bundles...)
}

// GetX509SVID returns the SVID held.
func (h *Holder) GetX509SVID() (*x509svid.SVID, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.svid, nil
}

// GetX509BundleForTrustDomain returns the bundle held of td.
func (h *Holder) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bundles.GetX509BundleForTrustDomain(td)
}

// Token returns what Tokens gives.
func (h *Holder) Token(_ context.Context, audience spiffeid.ID) (string, error) {
	if h.Tokens == nil {
		return "", errors.New("no JWT-SVID for this holder")
	}
	return h.Tokens(audience)
}

// TrustDomains returns those whose bundles are held.
func (h *Holder) TrustDomains() []spiffeid.TrustDomain {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []spiffeid.TrustDomain
	for _, bundle := range h.bundles.Bundles() {
		names = append(names, bundle.TrustDomain())
	}
	return names
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign returns template, for the public half of own, signed by parent's key;
// without a parent it signs itself.
func sign(t *testing.T, template, parent *x509.Certificate, own, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = serial
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, own.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
