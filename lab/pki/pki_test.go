package pki_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/pki"
)

const year = 365 * 24 * time.Hour

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func newRoot(t *testing.T, name string) pki.Authority {
	t.Helper()
	return must[pki.Authority](t)(pki.NewRoot(name, year))
}

func pool(certificates ...*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, certificate := range certificates {
		pool.AddCert(certificate)
	}
	return pool
}

func TestIntermediateVerifiesByItsRoot(t *testing.T) {
	root, other := newRoot(t, "Root"), newRoot(t, "Root")
	below := must[pki.Authority](t)(root.Intermediate("Intermediate", time.Hour))
	// A SPIRE server is an authority below the intermediate.
	server := must[pki.Authority](t)(below.Intermediate("SPIRE Server CA", time.Hour))

	options := x509.VerifyOptions{Roots: pool(root.Certificate), Intermediates: pool(below.Certificate)}
	chains, err := server.Certificate.Verify(options)
	if err != nil {
		t.Fatal(err)
	}
	if len(chains) != 1 || len(chains[0]) != 3 || !chains[0][2].Equal(root.Certificate) {
		t.Errorf("chains = %v, want one over the intermediate to the root", chains)
	}

	options.Roots = pool(other.Certificate)
	var unknown x509.UnknownAuthorityError
	if _, err := server.Certificate.Verify(options); !errors.As(err, &unknown) {
		t.Errorf("below another root of the same name: %v, want an unknown authority", err)
	}
}

func TestServingCert(t *testing.T) {
	ca := newRoot(t, "Web CA")
	address := netip.MustParseAddr("10.192.1.1")
	certificate, key, err := ca.ServingCert([]string{"bundle.cluster1.com"}, []netip.Addr{address}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair := must[tls.Certificate](t)(tls.X509KeyPair(certificate, key))
	if len(pair.Certificate) != 1 {
		t.Errorf("%d certificates, want one: the root is known to whom it concerns", len(pair.Certificate))
	}

	verify := func(name string, at time.Time) error {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: pool(ca.Certificate), DNSName: name, CurrentTime: at})
		return err
	}
	for _, name := range []string{"bundle.cluster1.com", "10.192.1.1"} {
		if err := verify(name, time.Now()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	var misnamed x509.HostnameError
	for _, name := range []string{"cluster1.com", "10.192.1.2"} {
		if err := verify(name, time.Now()); !errors.As(err, &misnamed) {
			t.Errorf("%s: %v, want it refused for its name", name, err)
		}
	}
	var invalid x509.CertificateInvalidError
	if err := verify("10.192.1.1", time.Now().Add(time.Hour+time.Second)); !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		t.Errorf("after its life: %v, want it expired", err)
	}
	if err := verify("10.192.1.1", time.Now().Add(-30*time.Second)); err != nil {
		t.Errorf("for a clock that is half a minute behind: %v", err)
	}

	client := x509.VerifyOptions{Roots: pool(ca.Certificate), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := pair.Leaf.Verify(client); !errors.As(err, &invalid) || invalid.Reason != x509.IncompatibleUsage {
		t.Errorf("as a client's: %v, want it refused", err)
	}
}

func TestServingCertThatHasExpired(t *testing.T) {
	ca := newRoot(t, "Web CA")
	certificate, _, err := ca.ServingCert([]string{"bundle.cluster1.com"}, nil, -time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	leaf := must[[]*x509.Certificate](t)(pki.Parse(certificate))[0]
	if life := time.Since(leaf.NotAfter); life < time.Hour || !leaf.NotBefore.Before(leaf.NotAfter) {
		t.Errorf("valid from %s to %s, want until an hour ago", leaf.NotBefore, leaf.NotAfter)
	}
	var invalid x509.CertificateInvalidError
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool(ca.Certificate)}); !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		t.Errorf("error = %v, want it expired", err)
	}
}

func TestNothingOutlivesItsAuthority(t *testing.T) {
	root := must[pki.Authority](t)(pki.NewRoot("Root", time.Hour))
	below := must[pki.Authority](t)(root.Intermediate("Intermediate", year))
	certificate, _, err := below.ServingCert([]string{"bundle.cluster1.com"}, nil, year)
	if err != nil {
		t.Fatal(err)
	}
	leaf := must[[]*x509.Certificate](t)(pki.Parse(certificate))[0]
	for name, end := range map[string]time.Time{"intermediate": below.Certificate.NotAfter, "serving certificate": leaf.NotAfter} {
		if !end.Equal(root.Certificate.NotAfter) {
			t.Errorf("%s ends at %s, its root at %s", name, end, root.Certificate.NotAfter)
		}
	}
}

func TestAuthorityIsReadAsItWasWritten(t *testing.T) {
	root := newRoot(t, "Root")
	read, err := pki.ParseAuthority(root.CertificatePEM(), must[[]byte](t)(root.KeyPEM()))
	if err != nil {
		t.Fatal(err)
	}
	below := must[pki.Authority](t)(read.Intermediate("Intermediate", time.Hour))
	if err := below.Certificate.CheckSignatureFrom(root.Certificate); err != nil {
		t.Errorf("what the read authority signs: %v", err)
	}

	chain := pki.Marshal(below.Certificate, root.Certificate)
	certificates := must[[]*x509.Certificate](t)(pki.Parse(chain))
	if !slices.EqualFunc(certificates, []*x509.Certificate{below.Certificate, root.Certificate}, (*x509.Certificate).Equal) {
		t.Errorf("certificates change, or their order does, when they are written and read")
	}
}

func TestParseRefuses(t *testing.T) {
	root, other := newRoot(t, "Root"), newRoot(t, "Other")
	key := must[[]byte](t)(root.KeyPEM())
	leaf, leafKey, err := root.ServingCert([]string{"bundle.cluster1.com"}, nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name             string
		certificate, key []byte
		want             string
	}{
		{"no certificate", nil, key, `read certificates: no PEM block "CERTIFICATE"`},
		{"a key for a certificate", key, key, `read certificates: PEM block "PRIVATE KEY", want "CERTIFICATE"`},
		{"two certificates", pki.Marshal(root.Certificate, other.Certificate), key, "read authority: 2 certificates, want one"},
		{"another's key", root.CertificatePEM(), must[[]byte](t)(other.KeyPEM()), "read authority Root: its key belongs to another certificate"},
		{"no key", root.CertificatePEM(), nil, `read authority Root: read key: no PEM block "PRIVATE KEY"`},
		{"two keys", root.CertificatePEM(), slices.Concat(key, key), "read authority Root: 2 keys, want one"},
		{"a key that is none", root.CertificatePEM(), []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
			"read authority Root: its key is not PKCS #8"},
		{"a certificate that signs nothing", leaf, leafKey, "read authority without a name: its certificate may not sign others"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := pki.ParseAuthority(test.certificate, test.key)
			if err == nil || err.Error() != test.want {
				t.Errorf("error = %v, want %s", err, test.want)
			}
		})
	}
}

func TestRefusesToMake(t *testing.T) {
	root := newRoot(t, "Root")
	_, _, unnamed := root.ServingCert(nil, nil, time.Hour)
	_, lifeless := pki.NewRoot("Root", 0)
	for want, err := range map[string]error{
		"make serving certificate: it would have no name":      unnamed,
		"make root Root: life is 0s: want more than none":      lifeless,
		"make intermediate Below: Short has expired at ":       intermediateOfExpired(t),
		"make intermediate Below: life is -1s: want more than": func() error { _, err := root.Intermediate("Below", -time.Second); return err }(),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("error = %v, want %s", err, want)
		}
	}
}

// intermediateOfExpired returns the error of an authority that has expired.
func intermediateOfExpired(t *testing.T) error {
	t.Helper()
	short := must[pki.Authority](t)(pki.NewRoot("Short", time.Nanosecond))
	_, err := short.Intermediate("Below", time.Hour)
	return err
}

// However an authority is printed, its key is not.
func TestKeyIsNotPrinted(t *testing.T) {
	root := newRoot(t, "Root")
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("made", "authority", root)
	encoded := must[[]byte](t)(json.Marshal(struct{ A pki.Authority }{root}))
	if bytes.Contains(encoded, []byte(`"key"`)) || !strings.Contains(logged.String(), `"authority":"Root"`) {
		t.Errorf("JSON %s, log %s", encoded, logged.String())
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
		if got := fmt.Sprintf(verb, root); got != "Root" {
			t.Errorf("%s prints %s", verb, got)
		}
		if got := fmt.Sprintf(verb, &root); got != "Root" {
			t.Errorf("%s of a pointer prints %s", verb, got)
		}
	}
}
