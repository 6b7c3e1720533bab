package lab

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

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

// needsAuthorities reports whether a trust domain has private authorities beside
// SPIRE's own.
func needsAuthorities(td topology.TrustDomain) bool {
	return td.BundleEndpoint.Profile == topology.HTTPSWeb || td.UpstreamAuthority == topology.Disk
}

// authorities makes the private authorities of a trust domain where they are not
// there yet. They stand in Secrets of the cluster, and nowhere else.
func (u *up) authorities(ctx context.Context, td topology.TrustDomain) error {
	objects := u.access(td.Cluster).Objects
	if _, err := objects.Apply(ctx, namespace(spire.Namespace)); err != nil {
		return err
	}
	if td.UpstreamAuthority == topology.Disk {
		files := []string{spire.SecretCertificate, spire.SecretKey, spire.SecretBundle}
		if _, err := secret(ctx, objects, spire.UpstreamAuthoritySecret, files, func() (map[string][]byte, error) { return upstream(td.Name) }); err != nil {
			return err
		}
	}
	if td.BundleEndpoint.Profile != topology.HTTPSWeb {
		return nil
	}
	data, err := secret(ctx, objects, spire.WebCASecret, []string{spire.SecretCertificate, spire.SecretKey}, func() (map[string][]byte, error) { return webCA(td.Name) })
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.webRoots[td.Name] = string(data[spire.SecretCertificate])
	return nil
}

// webRoot returns the root, in PEM, that verifies the https_web endpoint of a
// trust domain.
func (u *up) webRoot(td spiffeid.TrustDomain) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.webRoots[td]
}

// secret returns the data of a Secret of SPIRE's namespace, which data makes where it
// is not there or lacks one of these files.
func secret(ctx context.Context, objects Objects, name string, files []string, data func() (map[string][]byte, error)) (map[string][]byte, error) {
	var s struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Metadata   map[string]any    `json:"metadata"`
		Data       map[string][]byte `json:"data"`
	}
	there, err := objects.Object(ctx, ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: spire.Namespace, Name: name}, &s)
	lacks := slices.ContainsFunc(files, func(file string) bool { return len(s.Data[file]) == 0 })
	if err != nil || there && !lacks {
		return s.Data, err
	}
	if s.Data, err = data(); err != nil {
		return nil, fmt.Errorf("make secret %s: %w", name, err)
	}
	plan.Did(ctx)
	s.APIVersion, s.Kind, s.Metadata = "v1", "Secret", map[string]any{"name": name, "namespace": spire.Namespace}
	_, err = objects.Apply(ctx, s)
	return s.Data, err
}

// webCA makes the CA of an https_web endpoint.
func webCA(td spiffeid.TrustDomain) (map[string][]byte, error) {
	root, err := pki.NewRoot("Web CA of "+td.Name(), rootTTL)
	if err != nil {
		return nil, err
	}
	key, err := root.KeyPEM()
	return map[string][]byte{spire.SecretCertificate: root.CertificatePEM(), spire.SecretKey: key}, err
}

// upstream makes the intermediate that signs a SPIRE server's authorities. The
// key of the root above it is forgotten: nothing is to be signed by it again.
func upstream(td spiffeid.TrustDomain) (map[string][]byte, error) {
	root, err := pki.NewRoot("Root CA of "+td.Name(), rootTTL)
	if err != nil {
		return nil, err
	}
	intermediate, err := root.Intermediate("Intermediate CA of "+td.Name(), intermediateTTL)
	if err != nil {
		return nil, err
	}
	key, err := intermediate.KeyPEM()
	return map[string][]byte{
		spire.SecretCertificate: intermediate.CertificatePEM(), spire.SecretKey: key, spire.SecretBundle: root.CertificatePEM(),
	}, err
}
