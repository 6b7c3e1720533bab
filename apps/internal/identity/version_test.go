package identity_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
)

// TestNothingOlderThanTLS13 has peers with good identities that speak TLS 1.2 only:
// in it, a client's certificate travels in the open, and each side's view of when
// the handshake is over is another one than this package counts on.
func TestNothingOlderThanTLS13(t *testing.T) {
	data, web := apptest.NewCA(t, "gcp.test"), apptest.NewCA(t, "aws.test")
	server := apptest.NewHolder(data.Issue(t, "/server"), data.Bundle(), web.Bundle())
	client := apptest.NewHolder(web.Issue(t, "/client"), data.Bundle(), web.Bundle())
	quiet := slog.New(slog.DiscardHandler)
	serverID := spiffeid.RequireFromPath(data.TrustDomain, "/server")
	// What a side says that does not speak the other one's version (RFC 8446,
	// section 6.2).
	const protocolVersion = tls.AlertError(70)

	// each calls handle for every connection to the address that it returns.
	each := func(handle func(net.Conn)) string {
		listener := apptest.Listen(t)
		t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return // the test is over
				}
				go func() {
					handle(conn)
					_ = conn.Close()
				}()
			}
		}()
		return listener.Addr().String()
	}

	servers := map[string]string{
		"HTTPS": https(t, server),
		"Accept": each(func(raw net.Conn) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, _, err := identity.Accept(ctx, raw, func(spiffeid.ID) error { return nil }, server, quiet); err == nil {
				t.Error("Accept took a client of TLS 1.2")
			}
		}),
		"gRPC": each(func(raw net.Conn) {
			if _, _, err := identity.ServerCredentials(server, quiet).ServerHandshake(raw); err == nil {
				t.Error("gRPC took a client of TLS 1.2")
			}
		}),
	}
	for name, address := range servers {
		config := tlsconfig.MTLSClientConfig(client, client, tlsconfig.AuthorizeAny())
		config.MaxVersion = tls.VersionTLS12
		conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		var alert tls.AlertError
		var network *net.OpError
		if !errors.As(err, &network) || network.Op != "remote error" {
			t.Errorf("%s: error is %v, want an alert of the server", name, err)
		} else if errors.As(err, &alert) && alert != protocolVersion {
			t.Errorf("%s: alert is %v, want %v", name, alert, protocolVersion)
		}
	}

	old := each(func(raw net.Conn) {
		config := tlsconfig.MTLSServerConfig(server, server, tlsconfig.AuthorizeAny())
		config.MaxVersion, config.NextProtos = tls.VersionTLS12, []string{"h2"}
		conn := tls.Server(raw, config)
		if conn.HandshakeContext(t.Context()) == nil {
			_, _ = conn.Write([]byte("x"))
		}
	})
	for name, call := range map[string]func() error{
		"Dial": func() error {
			conn, err := identity.Dial(t.Context(), old, serverID, client, quiet)
			if err == nil {
				_ = conn.Close()
			}
			return err
		},
		"Client": func() error {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+old+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			response, peer, err := identity.Client{Server: serverID, Holder: client, Log: quiet}.Do(request)
			if err == nil {
				_ = response.Body.Close()
			}
			if !peer.ID.IsZero() {
				t.Errorf("the client has authenticated %s", peer.ID)
			}
			return err
		},
	} {
		if err := call(); err == nil {
			t.Errorf("%s took a server of TLS 1.2", name)
		}
	}
}
