package lab

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// This file is about SPIRE's OIDC discovery provider: a web server that serves the keys of
// a trust domain's JWT-SVIDs, at the name of their issuer, to those who know OIDC alone.

// DiscoveryKey returns what an OIDC discovery provider runs as.
func DiscoveryKey(p topology.Place) access.ObjectKey {
	return access.ObjectKey{APIVersion: "apps/v1", Kind: "Deployment", Namespace: p.Namespace, Name: spire.DiscoveryName}
}

// discoveryAt is what others ask.
func discoveryAt(d *topology.Discovery) addressed {
	return addressed{d.Place().Cluster, access.ObjectKey{APIVersion: "v1", Kind: "Service", Namespace: d.Place().Namespace, Name: spire.DiscoveryName}, d.Address}
}

// discovery installs an OIDC discovery provider, and lets it have the identity by which its
// agent gives it the keys.
func (u *up) discovery(ctx context.Context, d *topology.Discovery) error {
	cluster := d.Place().Cluster
	in := u.in(cluster)
	for _, entry := range spire.DiscoveryEntries(d) {
		if err := u.takesIdentity(ctx, in.Objects, entry); err != nil {
			return err
		}
	}
	loaded, err := u.load(ctx, cluster, servingCert, topology.OIDCProvider)
	if err != nil {
		return err
	}
	images := spire.DiscoveryImages{Provider: u.images.Demos[topology.OIDCProvider], ServingCert: u.images.Demos[servingCert]}
	changed, err := in.Releases.Apply(ctx, access.Release{
		Name: spire.DiscoveryName, Namespace: d.Place().Namespace, Chart: spire.DiscoveryChart, Values: spire.NewDiscoveryValues(d, images),
	})
	if loaded || changed {
		plan.Did(ctx)
	}
	return err
}

// issuer waits until an OIDC discovery provider serves what it should.
func (u *up) issuer(ctx context.Context, d *topology.Discovery) error {
	in, site := u.in(d.Place().Cluster), u.site(d.Domain.Server())
	return wait(ctx, rolloutBound, check.Check{Name: "the documents of " + d.Issuer + " are there", Probe: func(ctx context.Context) error {
		if err := in.Pods.Ready(ctx, DiscoveryKey(d.Place())); err != nil {
			return err
		}
		roots, err := webCAOf(ctx, site)
		if err != nil {
			return err
		}
		own, err := site.API.Bundle(ctx)
		if err != nil {
			return err
		}
		return u.serves(ctx, in.Objects, d, roots, own)
	}})
}

// DiscoveryStatus is the OIDC discovery provider of a trust domain.
type DiscoveryStatus struct {
	Health
	Issuer string `json:"issuer"`
	// Address is what the host of the issuer has to come to.
	Address string `json:"address,omitempty"`
}

// discovery looks at the OIDC discovery provider of a trust domain whose server has
// answered. What it serves may be a little older than what the server has: where the two
// are not the same, both are asked once more.
func (v *visit) discovery(ctx context.Context, d *topology.Discovery, a *asked) (DiscoveryStatus, error) {
	s := DiscoveryStatus{Issuer: d.Issuer}
	if v.networked() {
		s.Address = d.Address.String()
	}
	bound := federation.DiscoveryBound(d.Domain.OIDCDiscovery.PollInterval)
	ctx, cancel := context.WithTimeout(ctx, statusBound+bound)
	defer cancel()
	err := v.discovered(ctx, d, a)
	if causeOf(err) == OtherKeys {
		select {
		case <-ctx.Done():
		case <-time.After(bound):
		}
		if a.bundle, err = a.site.API.Bundle(ctx); err == nil {
			err = v.discovered(ctx, d, a)
		}
	}
	s.Health = health(err)
	return s, err
}

func (v *visit) discovered(ctx context.Context, d *topology.Discovery, a *asked) error {
	in := v.clusters[d.Place().Cluster].in
	if err := in.Pods.Ready(ctx, DiscoveryKey(d.Place())); err != nil {
		return because(IssuerUnreachable, "the OIDC discovery provider: %w", err)
	}
	if err := discoveryRegistered(d, a.told); err != nil {
		return err
	}
	roots, err := webCAOf(ctx, a.site)
	if err != nil {
		return err
	}
	return v.serves(ctx, in.Objects, d, roots, a.bundle)
}

// discoveryRegistered returns nil when the entries of a provider are there, by which its
// agent gives it the keys.
func discoveryRegistered(d *topology.Discovery, t told) error {
	id := spire.DiscoveryID(d.Domain.Name)
	for _, e := range spire.Authorized(d.Domain.Name, t.agents, t.entries) {
		if e.SPIFFEID == id {
			return nil
		}
	}
	return because(IssuerUnreachable, "no entry of %s is for an agent that has attested: the OIDC discovery provider gets no keys any more: the next up registers it", id)
}

// serves returns nil when an OIDC discovery provider serves the documents of its issuer:
// over HTTPS by that name, with a certificate that these roots verify, and with the keys
// that the server has and no others.
func (d *Driver) serves(ctx context.Context, objects access.Objects, of *topology.Discovery, roots []*x509.Certificate, own *spiffebundle.Bundle) error {
	body, err := d.document(ctx, objects, of, of.Configuration(), roots)
	if err != nil {
		return err
	}
	var configuration struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(body, &configuration); err != nil {
		return because(OtherIssuer, "%s is no OIDC configuration: %w", of.Configuration(), err)
	}
	// OpenID Connect Discovery 1.0, section 4.3: it must be the same to the letter.
	if configuration.Issuer != of.Issuer {
		return because(OtherIssuer, "%s says that the issuer is %q, and JWT-SVIDs of %s have %q", of.Configuration(), configuration.Issuer, of.Domain, of.Issuer)
	}
	if configuration.JWKSURI != of.Keys() {
		return because(OtherIssuer, "%s says that the keys are at %q, and they should be at %s", of.Configuration(), configuration.JWKSURI, of.Keys())
	}
	body, err = d.document(ctx, objects, of, of.Keys(), roots)
	if err != nil {
		return err
	}
	served, err := jwtbundle.Parse(of.Domain.Name, body)
	if err != nil {
		return because(OtherKeys, "%s has no keys of JWT authorities: %w", of.Keys(), err)
	}
	return sameKeys(of, served, own)
}

// sameKeys returns nil when the keys that are served are those of the server's JWT
// authorities.
func sameKeys(of *topology.Discovery, served *jwtbundle.Bundle, own *spiffebundle.Bundle) error {
	should := jwtbundle.FromJWTAuthorities(of.Domain.Name, own.JWTAuthorities())
	if served.Equal(should) {
		return nil
	}
	var wrong []string
	is, want := served.JWTAuthorities(), should.JWTAuthorities()
	for _, id := range slices.Sorted(maps.Keys(want)) {
		if _, there := is[id]; !there {
			wrong = append(wrong, "it lacks "+id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(is)) {
		switch key, there := want[id]; {
		case !there:
			wrong = append(wrong, "nobody signs with "+id)
		case !samePublicKey(key, is[id]):
			wrong = append(wrong, id+" is another key")
		}
	}
	return because(OtherKeys, "%s does not serve the JWT authorities of the server of %s: %s", of.Keys(), of.Domain, strings.Join(wrong, ", "))
}

// samePublicKey compares public keys; each type of the standard library has this method.
func samePublicKey(a, b crypto.PublicKey) bool {
	known, is := a.(interface{ Equal(crypto.PublicKey) bool })
	return is && known.Equal(b)
}

// document gets one of a provider's documents from the node of its cluster.
func (d *Driver) document(ctx context.Context, objects access.Objects, of *topology.Discovery, url string, roots []*x509.Certificate) ([]byte, error) {
	c := of.Place().Cluster
	answer, err := d.Parts.Peers.Get(ctx, c.Lab, c.Name, url, of.Address)
	if err == nil || len(answer.Chain) > 0 {
		// Who it is comes before what it says.
		if wrong := certificateProblem("the OIDC discovery provider of "+of.Domain.String(), verifyWeb(answer.Chain, of.Host, roots)); wrong != nil {
			return nil, wrong
		}
	}
	switch {
	case err != nil:
		return nil, discoveryAt(of).elsewhere(ctx, objects, because(IssuerUnreachable, "%s does not answer at %s: %w", url, of.Address, err))
	case answer.Status != http.StatusOK:
		return nil, because(IssuerUnreachable, "%s answers %d %s", url, answer.Status, http.StatusText(answer.Status))
	case len(answer.Body) == 0:
		return nil, because(IssuerUnreachable, "%s answers nothing", url)
	}
	return answer.Body, nil
}
