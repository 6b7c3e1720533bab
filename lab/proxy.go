package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// This file is about proxies in front of bundle endpoints: HAProxy, which passes TLS on, or ends
// it and begins it again.

func proxyKey(p topology.Place) access.ObjectKey {
	return access.ObjectKey{APIVersion: "apps/v1", Kind: "Deployment", Namespace: p.Namespace, Name: spire.ProxyName}
}

// proxy installs the proxy in front of a bundle endpoint, and waits until it runs.
func (u *up) proxy(ctx context.Context, p *topology.Proxy) error {
	cluster := p.Place().Cluster
	in := u.in(cluster)
	if _, err := in.Objects.Apply(ctx, namespace(p.Place().Namespace)); err != nil {
		return err
	}
	images := spire.ProxyImages{HAProxy: u.images.Demos[topology.HAProxy], ServingCert: u.images.Demos[servingCert]}
	values := spire.NewProxyValues(p, images, u.proxyDigest(p))
	programs := []string{topology.HAProxy}
	if values.Images.ServingCert != "" {
		programs = append(programs, servingCert)
	}
	loaded, err := u.load(ctx, cluster, programs...)
	if err != nil {
		return err
	}
	changed, err := in.Releases.Apply(ctx, access.Release{Name: spire.ProxyName, Namespace: p.Place().Namespace, Chart: spire.ProxyChart, Values: values})
	if err != nil {
		return err
	}
	if loaded || changed {
		plan.Did(ctx)
	}
	return wait(ctx, rolloutBound, check.Check{Name: "the proxy in front of the bundle endpoint of " + p.Domain.String() + " runs", Probe: func(ctx context.Context) error {
		return in.Pods.Ready(ctx, proxyKey(p.Place()))
	}})
}

// proxyDigest is of the certificates that a proxy has which ends TLS: the one of the person's
// own, and the CA that verifies the endpoint.
func (u *up) proxyDigest(p *topology.Proxy) string {
	s := p.Domain.Server()
	u.mu.Lock()
	defer u.mu.Unlock()
	sum := sha256.New()
	for _, part := range [][]byte{u.certificates[s].certificate, u.certificates[s].key, []byte(u.webRoots[s])} {
		_, _ = sum.Write(part) // a hash takes all
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// proxyProblem returns nil when the proxy runs that peers ask in the place of a bundle
// endpoint.
func (v *visit) proxyProblem(ctx context.Context, s *topology.Server) error {
	if s.Domain.Proxy == nil || s.Nested() {
		return nil
	}
	if err := v.clusters[s.Place.Cluster].in.Pods.Ready(ctx, proxyKey(s.Place)); err != nil {
		return because(ProxyUnready, "the proxy in front of its bundle endpoint does not run, and no peer gets to the endpoint: %w: the next up installs it", err)
	}
	return nil
}

// routed adds to why the bundle endpoint of a trust domain is not accepted what the proxy in
// front of it has to do with it.
func routed(of *topology.Domain, err error) error {
	if err == nil || of.Proxy == nil || !of.Proxy.EndsTLS() {
		return err
	}
	switch cause := causeOf(err); cause {
	case WrongProfile:
		return because(cause, "%w; the route of %s is %s, so that a proxy ends TLS there, and no peer sees the X509-SVID of its SPIRE server", err, of, topology.Reencrypt)
	case NotServed:
		return because(cause, "%w; the route of %s is %s, and the proxy there answers at %s alone", err, of, topology.Reencrypt, spire.BundleEndpointURL(of.Server()))
	}
	return err
}
