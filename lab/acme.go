package lab

import (
	"context"
	"fmt"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// This file is about the lab's ACME server, from which SPIRE servers order the certificates of
// their https_web endpoints: a Pebble in one of the clusters, with a root of the lab's own.

// orders reports whether a server orders the certificate of its endpoint by ACME.
func orders(s *topology.Server) bool {
	e := s.Domain.BundleEndpoint
	return e.Profile == topology.HTTPSWeb && e.ACME != nil && !s.Nested()
}

func acmeKey() access.ObjectKey {
	return access.ObjectKey{APIVersion: "apps/v1", Kind: "Deployment", Namespace: spire.ACMENamespace, Name: spire.ACMERelease}
}

// acmeServer installs the ACME server, and waits until it runs.
func (u *up) acmeServer(ctx context.Context) error {
	a := u.ACMEServer
	in := u.in(a.Cluster)
	if _, err := in.Objects.Apply(ctx, namespace(spire.ACMENamespace)); err != nil {
		return err
	}
	key := access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: spire.ACMENamespace, Name: spire.ACMERootSecret}
	root, err := secret(ctx, in.Objects, key, []string{spire.SecretCertificate, spire.SecretKey}, acmeRoot)
	if err != nil {
		return err
	}
	u.mu.Lock()
	u.acmeRoot = root[spire.SecretCertificate]
	u.mu.Unlock()
	loaded, err := u.load(ctx, a.Cluster, servingCert, topology.Pebble)
	if err != nil {
		return err
	}
	changed, err := in.Releases.Apply(ctx, access.Release{
		Name: spire.ACMERelease, Namespace: spire.ACMENamespace, Chart: spire.ACMERelease,
		Values: spire.NewACMEServerValues(a, spire.ACMEImages{Pebble: u.images.Demos[topology.Pebble], ServingCert: u.images.Demos[servingCert]}),
	})
	if err != nil {
		return err
	}
	if loaded || changed {
		plan.Did(ctx)
	}
	return wait(ctx, rolloutBound, check.Check{Name: "the ACME server runs", Probe: func(ctx context.Context) error {
		return in.Pods.Ready(ctx, acmeKey())
	}})
}

// acmeRoot makes the root of the ACME server.
func acmeRoot() (map[string][]byte, error) {
	root, err := pki.NewRoot("ACME root of the lab", rootTTL)
	if err != nil {
		return nil, err
	}
	key, err := root.KeyPEM()
	return map[string][]byte{spire.SecretCertificate: root.CertificatePEM(), spire.SecretKey: key}, err
}

// ordered has the Secret with the CA of an endpoint be the root of the ACME server, and returns
// that.
func (u *up) ordered(ctx context.Context, s *topology.Server) ([]byte, error) {
	u.mu.Lock()
	root := u.acmeRoot
	u.mu.Unlock()
	return root, keepSecret(ctx, u.in(s.Place.Cluster).Objects, secretKey(s.Place, spire.EndpointCASecret), "", nil, map[string][]byte{spire.SecretCertificate: root})
}

// acmeProblem returns nil when the ACME server runs, from which a trust domain's server orders
// its certificates.
func (v *visit) acmeProblem(ctx context.Context, s *topology.Server) error {
	if !orders(s) {
		return nil
	}
	c := v.clusters[v.ACMEServer.Cluster]
	if !c.answers() {
		return because(ACMEUnready, "cluster %s does not answer, where the lab's ACME server is: the bundle endpoint gets no new certificate", v.ACMEServer.Cluster.Name)
	}
	if err := c.in.Pods.Ready(ctx, acmeKey()); err != nil {
		return because(ACMEUnready, "the lab's ACME server in cluster %s does not run, and the bundle endpoint gets no new certificate: %w: the next up installs it", v.ACMEServer.Cluster.Name, err)
	}
	return nil
}

func (u *up) installACMEServer(c *contents) {
	if a := u.ACMEServer; a != nil {
		c.step(acmeStep(a), fmt.Sprintf("ACME server in %s", a.Cluster.Name), u.acmeServer, clusterStep(a.Cluster.Name))
	}
}
