package spire_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/hex"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"

	"github.com/fedlab-dev/fedlab/lab/federation"
	"github.com/fedlab-dev/fedlab/lab/spire"
	"github.com/fedlab-dev/fedlab/lab/spire/spiretest"
)

// TestAnotherKeyType: a server that starts again with another type of keys goes on with
// the authorities that it has. The next ones are of that type, and its bundle has keys
// of both types until the old ones are revoked.
func TestAnotherKeyType(t *testing.T) {
	spiretest.Program(t, spiretest.ServerVariable)
	dir := t.TempDir()
	startAgain := func(t *testing.T, settings string) (*spiretest.Server, *spire.Server) {
		t.Helper()
		return startWith(t, spiretest.Config{
			TrustDomain: market, Server: settings, Keys: filepath.Join(dir, "keys.json"),
			Datastore: fmt.Sprintf("database_type = \"sqlite3\"\nconnection_string = %q", filepath.Join(dir, "datastore.sqlite3")),
		})
	}
	// signs returns by which algorithm the server signs a JWT-SVID.
	signs := func(t *testing.T, process *spiretest.Server) string {
		t.Helper()
		token := process.Run(t, "jwt", "mint", "-spiffeID", market.IDString()+"/server", "-audience", "test")
		return headerOf(t, strings.TrimSpace(string(token))).Algorithm
	}
	var before *spiffebundle.Bundle
	t.Run("at first", func(t *testing.T) {
		process, server := startAgain(t, "")
		before = mustBundle(t, server)
		wantKeys(t, before, map[string]string{only(t, x509Rotation(server)).ID: "EC 256", only(t, jwtRotation(server)).ID: "EC 256"})
		if got := signs(t, process); got != "ES256" {
			t.Errorf("it signs by %s, want ES256", got)
		}
	})
	t.Run("then", func(t *testing.T) {
		// Without a type of their own, JWT authorities follow.
		process, server := startAgain(t, `ca_key_type = "rsa-2048"`)
		x509, jwt := x509Rotation(server), jwtRotation(server)
		if c := federation.Compare(mustBundle(t, server), before); c.State != federation.InSync {
			t.Errorf("its bundle is not what it was: %s", c)
		}
		want := map[string]string{only(t, x509).ID: "EC 256", only(t, jwt).ID: "EC 256"}
		if got := signs(t, process); got != "ES256" {
			t.Errorf("with the old authority it signs by %s, want ES256", got)
		}
		if got := typeOf(shown(t.Context(), t, process).PublicKey); got != "RSA 2048" {
			t.Errorf("the server's own X509-SVID has a key %s, want one of the new type", got)
		}
		want[replaced(t, x509).ID], want[replaced(t, jwt).ID] = "RSA 2048", "RSA 2048"
		wantKeys(t, mustBundle(t, server), want)
		if got := signs(t, process); got != "RS256" {
			t.Errorf("with the new authority it signs by %s, want RS256", got)
		}
	})
}

// TestKeysOfTwoTypesFederate: a server with RSA keys and one with EC keys fetch each
// other's bundles. The endpoint of the first shows an RSA key.
func TestKeysOfTwoTypesFederate(t *testing.T) {
	rsaProcess, rsaServer := startWith(t, spiretest.Config{TrustDomain: market, Server: `ca_key_type = "rsa-2048"`})
	ecProcess, ecServer := start(t, broker)
	rsaBundle, ecBundle := mustBundle(t, rsaServer), mustBundle(t, ecServer)
	federate(t, ecProcess, rsaProcess, rsaBundle, spire.ServerID(market))
	federate(t, rsaProcess, ecProcess, ecBundle, spire.ServerID(broker))
	inSync(t, ecServer, rsaBundle)
	inSync(t, rsaServer, ecBundle)
}

// TestRSAKeysBelowUpstreamAuthority: an intermediate with an EC key signs the RSA
// authority of a server, and the bundle has the root alone. That it verifies what the
// server signs the connection to the server has shown.
func TestRSAKeysBelowUpstreamAuthority(t *testing.T) {
	root, _, plugin := upstream(t)
	_, server := startWith(t, spiretest.Config{TrustDomain: market, Plugins: plugin, Server: `ca_key_type = "rsa-2048"`})
	wantKeys(t, mustBundle(t, server), map[string]string{
		hex.EncodeToString(root.Certificate.SubjectKeyId): "EC 256", only(t, jwtRotation(server)).ID: "RSA 2048",
	})
}

// wantKeys wants a bundle to have authorities with these types of keys, by their IDs.
func wantKeys(t *testing.T, bundle *spiffebundle.Bundle, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for _, root := range bundle.X509Authorities() {
		got[hex.EncodeToString(root.SubjectKeyId)] = typeOf(root.PublicKey)
	}
	for id, key := range bundle.JWTAuthorities() {
		got[id] = typeOf(key)
	}
	if !maps.Equal(got, want) {
		t.Errorf("the bundle has keys %v, want %v", got, want)
	}
}

func typeOf(key crypto.PublicKey) string {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return fmt.Sprint("RSA ", key.N.BitLen())
	case *ecdsa.PublicKey:
		return fmt.Sprint("EC ", key.Params().BitSize)
	default:
		return fmt.Sprintf("%T", key)
	}
}
