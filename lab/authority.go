package lab

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// Lives of the private authorities of a lab. Nothing renews them: they outlive
// any lab.
const (
	rootTTL         = 10 * 365 * 24 * time.Hour
	intermediateTTL = 5 * 365 * 24 * time.Hour
)

// needsAuthorities reports whether a server has private authorities next to SPIRE's
// own. A nested one has neither a bundle endpoint nor files.
func needsAuthorities(s *topology.Server) bool {
	return !s.Nested() && (needsWebCA(s.Domain) || issuedElsewhere(s) || s.Domain.UpstreamAuthority == topology.Disk)
}

// needsWebCA reports whether a trust domain has a web server for which the lab issues
// certificates: an https_web endpoint, or an OIDC discovery provider.
func needsWebCA(d *topology.Domain) bool {
	return d.BundleEndpoint.Profile == topology.HTTPSWeb && d.BundleEndpoint.ServingCert.Own == nil && d.BundleEndpoint.ACME == nil || d.Discovery != nil
}

// authorities makes the private authorities of a server where they are not there
// yet. They are in Secrets of the cluster, and nowhere else.
func (u *up) authorities(ctx context.Context, s *topology.Server) error {
	objects, d := u.in(s.Place.Cluster).Objects, s.Domain
	if _, err := objects.Apply(ctx, namespace(s.Place.Namespace)); err != nil {
		return err
	}
	if d.UpstreamAuthority == topology.Disk {
		files := []string{spire.SecretCertificate, spire.SecretKey, spire.SecretBundle}
		made := func() (map[string][]byte, error) { return upstream(d) }
		if _, err := secret(ctx, objects, secretKey(s.Place, spire.UpstreamAuthoritySecret), files, made); err != nil {
			return err
		}
	}
	root := ""
	if needsWebCA(d) {
		files := []string{spire.SecretCertificate, spire.SecretKey}
		data, err := secret(ctx, objects, secretKey(s.Place, spire.WebCASecret), files, func() (map[string][]byte, error) { return webCA(d) })
		if err != nil {
			return err
		}
		root = string(data[spire.SecretCertificate])
	}
	if ownOf(s) != nil {
		ca, err := u.certificate(ctx, s)
		if err != nil {
			return err
		}
		root = string(ca)
	}
	if orders(s) {
		ca, err := u.ordered(ctx, s)
		if err != nil {
			return err
		}
		root = string(ca)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.webRoots[s] = root
	return nil
}

// webRoot returns the root, in PEM, that verifies the https_web endpoint of a
// server.
func (u *up) webRoot(s *topology.Server) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.webRoots[s]
}

// secret returns the data of a Secret, which data makes where it is not there or
// lacks one of these files.
func secret(ctx context.Context, objects access.Objects, key access.ObjectKey, files []string, data func() (map[string][]byte, error)) (map[string][]byte, error) {
	var s struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Metadata   map[string]any    `json:"metadata"`
		Data       map[string][]byte `json:"data"`
	}
	there, err := objects.Object(ctx, key, &s)
	lacks := slices.ContainsFunc(files, func(file string) bool { return len(s.Data[file]) == 0 })
	if err != nil || there && !lacks {
		return s.Data, err
	}
	if s.Data, err = data(); err != nil {
		return nil, fmt.Errorf("make secret %s: %w", key.Name, err)
	}
	plan.Did(ctx)
	s.APIVersion, s.Kind, s.Metadata = key.APIVersion, key.Kind, map[string]any{"name": key.Name, "namespace": key.Namespace}
	_, err = objects.Apply(ctx, s)
	return s.Data, err
}

// webCA makes the CA of the web servers of a trust domain.
func webCA(d *topology.Domain) (map[string][]byte, error) {
	root, err := pki.NewRoot("Web CA of "+d.String(), rootTTL)
	if err != nil {
		return nil, err
	}
	key, err := root.KeyPEM()
	return map[string][]byte{spire.SecretCertificate: root.CertificatePEM(), spire.SecretKey: key}, err
}

// upstream makes the intermediate that signs a SPIRE server's authorities. The
// key of the root above it is forgotten: nothing is to be signed by it again.
func upstream(d *topology.Domain) (map[string][]byte, error) {
	root, err := pki.NewRoot("Root CA of "+d.String(), rootTTL)
	if err != nil {
		return nil, err
	}
	intermediate, err := root.Intermediate("Intermediate CA of "+d.String(), intermediateTTL)
	if err != nil {
		return nil, err
	}
	key, err := intermediate.KeyPEM()
	return map[string][]byte{
		spire.SecretCertificate: intermediate.CertificatePEM(), spire.SecretKey: key, spire.SecretBundle: root.CertificatePEM(),
	}, err
}
