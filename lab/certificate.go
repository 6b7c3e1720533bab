package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/pki"
	"github.com/fedlab-dev/fedlab/lab/plan"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// This file is about serving certificates of the person's own: files next to the lab file,
// which up brings into a Secret.

// maxCertificate is the size in bytes that a file of a certificate or a key may have.
const maxCertificate = 1 << 20

// certificateLabel tells the Secret with a serving certificate from others.
var certificateLabel = map[string]string{"fedlab.dev/certificate": "own"}

// ownCertificate is what the files of a serving certificate have, in PEM.
type ownCertificate struct{ certificate, key, ca []byte }

// certified are the servers whose serving certificate is the person's own.
func (u *up) certified() []*topology.Server {
	return slices.DeleteFunc(u.Servers(), func(s *topology.Server) bool { return ownOf(s) == nil })
}

// ownOf returns where the serving certificate of a server comes from; nil where the lab
// issues it, or the endpoint has none.
func ownOf(s *topology.Server) *topology.OwnCertificate {
	if e := s.Domain.BundleEndpoint; e.Profile == topology.HTTPSWeb && !s.Nested() {
		return e.ServingCert.Own
	}
	return nil
}

// issuedElsewhere reports whether the lab's private CAs have nothing to do with the
// certificate of an https_web endpoint.
func issuedElsewhere(s *topology.Server) bool { return ownOf(s) != nil || orders(s) }

// ownCertificates reads the person's own certificates, before anything is made: all that is
// wrong is told at once.
func (u *up) ownCertificates(context.Context) error {
	var errs []error
	for _, s := range u.certified() {
		read, err := readOwn(s, time.Now())
		if err != nil {
			errs = append(errs, fmt.Errorf("serving certificate of %s: %w", s.Domain, err))
		}
		u.mu.Lock()
		u.certificates[s] = read
		u.mu.Unlock()
	}
	return errors.Join(errs...)
}

// readOwn reads the files of a certificate. The error says which of them is wrong, and what
// with it, as a peer would find it at this time.
func readOwn(s *topology.Server, now time.Time) (c ownCertificate, err error) {
	own, errs := ownOf(s), [3]error{}
	c.certificate, errs[0] = readPEM("cert", own.Certificate)
	c.key, errs[1] = readPEM("key", own.Key)
	c.ca, errs[2] = readPEM("ca", own.CA)
	if err := errors.Join(errs[:]...); err != nil {
		return c, err
	}
	chain, err := pki.Parse(c.certificate)
	if err != nil {
		return c, fmt.Errorf("cert: %s: %w: want certificates in PEM, that of the endpoint first", own.Certificate, err)
	}
	if _, err := tls.X509KeyPair(c.certificate, c.key); err != nil {
		return c, fmt.Errorf("key: %s: %w: want the private key of the certificate in %s, in PEM", own.Key, err, own.Certificate)
	}
	roots, err := pki.Parse(c.ca)
	if err != nil {
		return c, fmt.Errorf("ca: %s: %w: want the certificate of the CA, in PEM", own.CA, err)
	}
	if leaf := chain[0]; now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return c, fmt.Errorf("cert: %s is valid from %s to %s, and it is %s now: want one that is valid",
			own.Certificate, leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if err := chain[0].VerifyHostname(s.EndpointHost()); err != nil {
		return c, fmt.Errorf("cert: %s: %w: want one for the name in bundleEndpoint.host", own.Certificate, err)
	}
	if err := verifyWeb(chain, s.EndpointHost(), roots); err != nil {
		return c, fmt.Errorf("cert: %s: the CA in %s does not verify it: %w: want the chain from the endpoint's certificate up to that CA", own.Certificate, own.CA, err)
	}
	return c, nil
}

func readPEM(field, file string) (_ []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", field, err)
		}
	}()
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.LimitReader(f, maxCertificate+1))
	if err == nil && len(data) > maxCertificate {
		err = fmt.Errorf("%s has more than %d bytes: want a certificate or a key in PEM", file, maxCertificate)
	}
	return data, err
}

// certificate has the Secret with a serving certificate of the person's own be what the files
// are, and the one with the CA. It returns the CA's certificate.
func (u *up) certificate(ctx context.Context, s *topology.Server) (ca []byte, err error) {
	u.mu.Lock()
	read := u.certificates[s]
	u.mu.Unlock()
	objects := u.in(s.Place.Cluster).Objects
	files := map[string][]byte{spire.SecretCertificate: read.certificate, spire.SecretKey: read.key}
	if err := keepSecret(ctx, objects, secretKey(s.Place, ownOf(s).Secret), "kubernetes.io/tls", certificateLabel, files); err != nil {
		return nil, err
	}
	return read.ca, keepSecret(ctx, objects, secretKey(s.Place, spire.EndpointCASecret), "", nil, map[string][]byte{spire.SecretCertificate: read.ca})
}

// keepSecret makes a Secret with these files and no others, unless it is there.
func keepSecret(ctx context.Context, objects access.Objects, key access.ObjectKey, kind string, labels map[string]string, files map[string][]byte) error {
	var is struct {
		Data map[string][]byte `json:"data"`
	}
	there, err := objects.Object(ctx, key, &is)
	if err != nil || there && maps.EqualFunc(is.Data, files, bytes.Equal) {
		return err
	}
	plan.Did(ctx)
	if there {
		// Its type cannot be changed, and what others have put into it stays with another
		// apply.
		if err := objects.Delete(ctx, key); err != nil {
			return err
		}
	}
	object := map[string]any{
		"apiVersion": key.APIVersion, "kind": key.Kind, "data": files,
		"metadata": map[string]any{"name": key.Name, "namespace": key.Namespace, "labels": labels},
	}
	if kind != "" {
		object["type"] = kind
	}
	_, err = objects.Apply(ctx, object)
	return err
}

// removeCertificates deletes the Secrets with serving certificates of a namespace that fedlab
// has made, except the one of this name.
func removeCertificates(ctx context.Context, objects access.Objects, namespace, keep string) error {
	key := access.ObjectKey{APIVersion: "v1", Kind: "Secret", Namespace: namespace}
	names, err := objects.Named(ctx, key, certificateLabel)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == keep {
			continue
		}
		plan.Did(ctx)
		key.Name = name
		if err := objects.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}
