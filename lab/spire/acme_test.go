package spire_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/fedlab-dev/fedlab/lab/spire/spiretest"
)

// firstHandshake bounds a handshake during which a certificate is ordered.
const firstHandshake = time.Minute

// TestACME: the Pebble that fedlab builds issues to a SPIRE server of the version of labs,
// and a server that trusts Pebble's root fetches the bundle. Stock Pebble does not issue
// (docs/decisions/0049-optional-programs.md).
func TestACME(t *testing.T) {
	const name = "endpoint.market.test"
	pebble := spiretest.NewPebble(t)
	td := spiffeid.RequireTrustDomainFromString("market.test")
	process, _ := startWith(t, spiretest.Config{TrustDomain: td, Env: pebble.ServerEnv, Profile: fmt.Sprintf(`profile "https_web" {
		acme {
			directory_url = %q
			domain_name = %q
			email = "nobody@market.test"
			tos_accepted = true
		}
	}`, pebble.Directory, name)})
	pebble.Start(t, process.Port(t))
	roots := x509.NewCertPool()
	roots.AddCert(pebble.Root(t))

	// Nothing is ordered before somebody asks for the name.
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: firstHandshake}, Config: &tls.Config{ServerName: name, RootCAs: roots, MinVersion: tls.VersionTLS12}}
	conn, err := dialer.DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", process.Port(t)))
	if err != nil {
		t.Fatalf("first handshake: %v\nPebble wrote:\n%s", err, pebble.Log())
	}
	leaf := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(leaf.DNSNames, []string{name}) {
		t.Errorf("the certificate is for %q, want %s", leaf.DNSNames, name)
	}
	if life, want := leaf.NotAfter.Sub(leaf.NotBefore).Round(time.Hour), 90*24*time.Hour; life != want {
		t.Errorf("the certificate lives for %s, want %s, as the only profile says", life, want)
	}
}
