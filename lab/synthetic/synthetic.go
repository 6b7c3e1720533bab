// Package synthetic is a trust domain that fedlab makes itself, for what no
// SPIRE server would do: it mints right and wrong SVIDs, and its bundle
// endpoint plays a script of answers, right and wrong, and keeps a
// record of who asked.
//
// Its keys are made at its start, stay in its memory and end with it. It refuses
// to know who believes it: what is made of its answers is seen, and judged,
// elsewhere.
package synthetic

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const (
	// refreshHint is the shortest that SPIRE obeys: its servers come every 15 s
	// (pkg/common/bundleutil/refreshhint.go).
	refreshHint = time.Minute
	// rootLife is longer than any lab.
	rootLife = 30 * 24 * time.Hour
)

// Domain is a synthetic trust domain. Its methods may be called at the same
// time.
type Domain struct {
	td  spiffeid.TrustDomain
	now func() time.Time
	// rogue signs what is to be signed by nobody who is in the bundle.
	rogue authorities
	// endpoint is the key of the bundle endpoint's X509-SVIDs.
	endpoint *ecdsa.PrivateKey

	mu       sync.Mutex
	signing  authorities
	prepared *authorities
	// versions are those of the bundle; the last one is true.
	versions []*spiffebundle.Bundle
	playing  *playing
	requests []*Request
	asked    int
}

// authorities are one X.509 authority and one JWT authority with their keys.
type authorities struct {
	root    *x509.Certificate
	rootKey *ecdsa.PrivateKey
	jwtID   string
	jwtKey  *ecdsa.PrivateKey
}

// Authorities are the IDs of an X.509 authority and of a JWT authority.
type Authorities struct {
	// X509 is the subject key ID in lower-case hexadecimal, as SPIRE names an
	// authority.
	X509 string `json:"x509"`
	// JWT is the key ID.
	JWT string `json:"jwt"`
}

// New returns a trust domain with new authorities, whose bundle endpoint tells
// the truth until a script is played. now is the clock that all is dated by.
func New(td spiffeid.TrustDomain, now func() time.Time) (*Domain, error) {
	d := &Domain{td: td, now: now, playing: newPlaying(Script{{Kind: TrueBundle}})}
	doing := func(err error) error { return fmt.Errorf("make trust domain %s: %w", td, err) }
	var err error
	if d.signing, err = newAuthorities(td, now()); err != nil {
		return nil, doing(err)
	}
	if d.rogue, err = newAuthorities(td, now()); err != nil {
		return nil, doing(err)
	}
	if d.endpoint, err = newKey(); err != nil {
		return nil, doing(err)
	}
	first := spiffebundle.New(td)
	first.SetRefreshHint(refreshHint)
	first.SetSequenceNumber(1)
	if err := d.signing.addTo(first); err != nil {
		return nil, doing(err)
	}
	d.versions = []*spiffebundle.Bundle{first}
	return d, nil
}

// String names the trust domain, and none of its keys.
func (d *Domain) String() string { return "synthetic trust domain " + d.td.Name() }

// TrustDomain returns the name of the trust domain.
func (d *Domain) TrustDomain() spiffeid.TrustDomain { return d.td }

// EndpointID is the SPIFFE ID that the bundle endpoint shows as long as it tells
// the truth: that of a SPIRE server.
func (d *Domain) EndpointID() spiffeid.ID {
	return spiffeid.RequireFromPath(d.td, "/spire/server")
}

// Bundle returns the true bundle. Its refresh hint is a minute, and its sequence
// number grows with each change.
func (d *Domain) Bundle() *spiffebundle.Bundle {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bundle().Clone()
}

// Activate signs with the prepared authorities from now on. Those of before stay
// in the bundle.
func (d *Domain) Activate() (Authorities, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.prepared == nil {
		return Authorities{}, fmt.Errorf("activate authorities of %s: none are prepared", d.td)
	}
	d.signing, d.prepared = *d.prepared, nil
	return d.signing.ids(), nil
}

// Prepare adds a new X.509 and a new JWT authority to the bundle. Nothing is
// signed with them before Activate.
func (d *Domain) Prepare() (Authorities, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	doing := func(err error) error { return fmt.Errorf("prepare authorities of %s: %w", d.td, err) }
	if d.prepared != nil {
		return Authorities{}, doing(errors.New("some are prepared already"))
	}
	made, err := newAuthorities(d.td, d.now())
	if err != nil {
		return Authorities{}, doing(err)
	}
	next := d.bundle().Clone()
	next.SetSequenceNumber(uint64(len(d.versions)) + 1)
	if err := made.addTo(next); err != nil {
		return Authorities{}, doing(err)
	}
	d.prepared, d.versions = &made, append(d.versions, next)
	return made.ids(), nil
}

func (d *Domain) bundle() *spiffebundle.Bundle { return d.versions[len(d.versions)-1] }

func newAuthorities(td spiffeid.TrustDomain, now time.Time) (authorities, error) {
	var a authorities
	var err error
	if a.rootKey, err = newKey(); err != nil {
		return a, err
	}
	if a.jwtKey, err = newKey(); err != nil {
		return a, err
	}
	if a.jwtID, err = keyID(a.jwtKey.Public()); err != nil {
		return a, err
	}
	// The X509-SVID standard (section 3.2) asks for the key usage, and allows a
	// signing certificate the trust domain's own ID.
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: organization, CommonName: td.Name()},
		URIs:                  []*url.URL{td.ID().URL()},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		NotBefore:             now.Add(-wrongBy - time.Hour),
		NotAfter:              now.Add(rootLife),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.rootKey.Public(), a.rootKey)
	if err != nil {
		return a, err
	}
	a.root, err = x509.ParseCertificate(der)
	return a, err
}

var organization = []string{"fedlab synthetic"}

func (a authorities) addTo(bundle *spiffebundle.Bundle) error {
	bundle.AddX509Authority(a.root)
	return bundle.AddJWTAuthority(a.jwtID, a.jwtKey.Public())
}

func (a authorities) ids() Authorities {
	return Authorities{X509: hex.EncodeToString(a.root.SubjectKeyId), JWT: a.jwtID}
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func keyID(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:16]), nil
}
