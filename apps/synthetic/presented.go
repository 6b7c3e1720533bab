package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/lab/synthetic"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// presented is what the program's calls present, and whom they believe: what it
// was told last.
type presented struct {
	domain *synthetic.Domain

	mu      sync.Mutex
	svid    *x509svid.SVID
	bundles *x509bundle.Set
}

// GetX509SVID returns the SVID, right or wrong, or a *identity.MissingError.
func (p *presented) GetX509SVID() (*x509svid.SVID, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.svid == nil {
		return nil, &identity.MissingError{Cause: errors.New("none has been ordered")}
	}
	return p.svid, nil
}

// GetX509BundleForTrustDomain returns the bundle of td, if it is trusted.
func (p *presented) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bundles.GetX509BundleForTrustDomain(td)
}

// present makes a key and mints the SVID that is presented from now on.
func (p *presented) present(_ *http.Request, wanted synthetic.X509Request) (any, error) {
	if wanted.PublicKey != nil {
		return nil, errors.New("present X509-SVID: there is a public key: the program makes its own")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	if wanted.PublicKey, err = synthetic.PublicKey(key); err != nil {
		return nil, err
	}
	chain, err := p.domain.MintX509(wanted)
	if err != nil {
		return nil, err
	}
	// It is not parsed as an SVID, which one that is wrong is not.
	svid := &x509svid.SVID{ID: wanted.ID, PrivateKey: key}
	for _, der := range chain {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("read X509-SVID: %w", err)
		}
		svid.Certificates = append(svid.Certificates, certificate)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.svid = svid
	return nil, nil
}

func (p *presented) trust(_ *http.Request, documents map[spiffeid.TrustDomain]json.RawMessage) (any, error) {
	var bundles []*x509bundle.Bundle
	for td, document := range documents {
		bundle, err := spiffebundle.Parse(td, document)
		if err != nil {
			return nil, fmt.Errorf("read bundle of %s: %w", td, err)
		}
		bundles = append(bundles, bundle.X509Bundle())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bundles = x509bundle.NewSet(bundles...)
	return nil, nil
}
