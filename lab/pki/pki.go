// Package pki makes the private X.509 authorities of a lab: the web CA whose
// certificates https_web endpoints serve, and the root and intermediate above a
// SPIRE server.
//
// It refuses to know SPIFFE, and where certificates and keys are kept. A key
// leaves it in one way only, KeyPEM: an Authority prints as its name.
package pki

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// backdate is how long before it is made a certificate starts to be valid, for
// verifiers whose clocks are behind.
const backdate = time.Minute

// Authority signs certificates: a root, or an intermediate below one.
type Authority struct {
	Certificate *x509.Certificate
	key         crypto.Signer
}

// NewRoot returns an authority that signs itself.
func NewRoot(commonName string, ttl time.Duration) (Authority, error) {
	root, err := authority(commonName, ttl, Authority{})
	if err != nil {
		return Authority{}, fmt.Errorf("make root %s: %w", commonName, err)
	}
	return root, nil
}

// Intermediate returns an authority that a signs. It ends with a at the latest,
// and may have others below it: a SPIRE server's X.509 authority is one.
func (a Authority) Intermediate(commonName string, ttl time.Duration) (Authority, error) {
	below, err := authority(commonName, ttl, a)
	if err != nil {
		return Authority{}, fmt.Errorf("make intermediate %s: %w", commonName, err)
	}
	return below, nil
}

// ServingCert returns the certificate, and its key, of a web server that has
// these names and addresses, both in PEM. It ends with a at the latest; a ttl
// below zero makes one that has expired.
func (a Authority) ServingCert(dnsNames []string, addresses []netip.Addr, ttl time.Duration) (certificate, key []byte, err error) {
	doing := func(err error) error { return fmt.Errorf("make serving certificate: %w", err) }
	if len(dnsNames)+len(addresses) == 0 {
		return nil, nil, doing(errors.New("it would have no name"))
	}
	template := &x509.Certificate{
		DNSNames:    dnsNames,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, address := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(address.AsSlice()))
	}
	served, err := issue(template, ttl, a)
	if err != nil {
		return nil, nil, doing(err)
	}
	if key, err = served.KeyPEM(); err != nil {
		return nil, nil, doing(err)
	}
	return served.CertificatePEM(), key, nil
}

func authority(commonName string, ttl time.Duration, above Authority) (Authority, error) {
	if ttl <= 0 {
		return Authority{}, fmt.Errorf("life is %s: want more than none", ttl)
	}
	return issue(&x509.Certificate{
		Subject:               pkix.Name{CommonName: commonName},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}, ttl, above)
}

// issue completes template with a new key and with its life, and lets above
// sign it; itself, where there is nothing above. The serial number is random and
// the key identifiers are hashes, which is what crypto/x509 sets where a
// template leaves them out.
func issue(template *x509.Certificate, ttl time.Duration, above Authority) (Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Authority{}, err
	}
	now := time.Now()
	template.NotAfter = now.Add(ttl)
	if above.Certificate == nil {
		above = Authority{Certificate: template, key: key}
	}
	if end := above.Certificate.NotAfter; end.Before(now) {
		return Authority{}, fmt.Errorf("%s has expired at %s", above, end.Format(time.RFC3339))
	} else if template.NotAfter.After(end) {
		template.NotAfter = end
	}
	template.NotBefore = now.Add(min(ttl, 0) - backdate)
	der, err := x509.CreateCertificate(rand.Reader, template, above.Certificate, key.Public(), above.key)
	if err != nil {
		return Authority{}, err
	}
	certificate, err := x509.ParseCertificate(der)
	return Authority{Certificate: certificate, key: key}, err
}

// CertificatePEM returns the certificate in PEM.
func (a Authority) CertificatePEM() []byte { return Marshal(a.Certificate) }

// KeyPEM returns the key as PKCS #8 in PEM. It is for where the authority is
// kept, and for nothing else.
func (a Authority) KeyPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, fmt.Errorf("write key of %s: %w", a, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), nil
}

// Format writes the name of the authority, whatever the verb.
func (a Authority) Format(s fmt.State, _ rune) { fmt.Fprint(s, a.name()) }

// LogValue returns the name of the authority.
func (a Authority) LogValue() slog.Value { return slog.StringValue(a.name()) }

func (a Authority) name() string {
	if a.Certificate == nil || a.Certificate.Subject.CommonName == "" {
		return "without a name"
	}
	return a.Certificate.Subject.CommonName
}

const (
	certificateBlock = "CERTIFICATE"
	keyBlock         = "PRIVATE KEY"
)

// Marshal returns certificates in PEM, in their order.
func Marshal(certificates ...*x509.Certificate) []byte {
	var text []byte
	for _, certificate := range certificates {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: certificate.Raw})...)
	}
	return text
}

// Parse returns the certificates of a PEM text, in their order. A text that has
// none, or anything else, is refused.
func Parse(text []byte) ([]*x509.Certificate, error) {
	ders, err := blocks(text, certificateBlock)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	certificates := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		if certificates[i], err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("read certificate %d of %d: %w", i+1, len(ders), err)
		}
	}
	return certificates, nil
}

// ParseAuthority returns the authority that CertificatePEM and KeyPEM wrote
// down. It refuses a certificate that may not sign others, and a key that is not
// the certificate's; no error has anything of the key in it.
func ParseAuthority(certificate, key []byte) (Authority, error) {
	certificates, err := Parse(certificate)
	if err != nil {
		return Authority{}, err
	}
	if len(certificates) != 1 {
		return Authority{}, fmt.Errorf("read authority: %d certificates, want one", len(certificates))
	}
	a := Authority{Certificate: certificates[0]}
	doing := func(err error) error { return fmt.Errorf("read authority %s: %w", a, err) }
	if !a.Certificate.IsCA {
		return Authority{}, doing(errors.New("its certificate may not sign others"))
	}
	ders, err := blocks(key, keyBlock)
	if err != nil {
		return Authority{}, doing(fmt.Errorf("read key: %w", err))
	}
	if len(ders) != 1 {
		return Authority{}, doing(fmt.Errorf("%d keys, want one", len(ders)))
	}
	parsed, err := x509.ParsePKCS8PrivateKey(ders[0])
	if err != nil {
		return Authority{}, doing(errors.New("its key is not PKCS #8"))
	}
	signer, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return Authority{}, doing(fmt.Errorf("its key is %T, want one of ECDSA", parsed))
	}
	if !signer.PublicKey.Equal(a.Certificate.PublicKey) {
		return Authority{}, doing(errors.New("its key belongs to another certificate"))
	}
	a.key = signer
	return a, nil
}

// blocks returns the contents of a PEM text that has blocks of one type only.
// Its errors name types, never contents.
func blocks(text []byte, want string) (contents [][]byte, err error) {
	for {
		block, rest := pem.Decode(text)
		switch {
		case block == nil && len(contents) == 0:
			return nil, fmt.Errorf("no PEM block %q", want)
		case block == nil:
			return contents, nil
		case block.Type != want:
			return nil, fmt.Errorf("PEM block %q, want %q", block.Type, want)
		}
		contents = append(contents, block.Bytes)
		text = rest
	}
}

// Presented returns the chain that a TLS server shows at a connection. Nothing of it
// is verified: that is the caller's, and so is closing the connection.
func Presented(ctx context.Context, conn net.Conn) ([]*x509.Certificate, error) {
	shown := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // what it shows is what is asked for
	if err := shown.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return shown.ConnectionState().PeerCertificates, nil
}
