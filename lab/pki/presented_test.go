package pki_test

import (
	"context"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/pki"
)

// TestPresented: a chain is told that nobody has verified, and a server without TLS is
// an error.
func TestPresented(t *testing.T) {
	presented := func(s *httptest.Server) (string, error) {
		var dialer net.Dialer
		conn, err := dialer.DialContext(t.Context(), "tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		chain, err := pki.Presented(t.Context(), conn)
		if err != nil {
			return "", err
		}
		return chain[0].Subject.String(), nil
	}
	shows := httptest.NewTLSServer(nil)
	defer shows.Close()
	if got, err := presented(shows); err != nil || got != shows.Certificate().Subject.String() {
		t.Errorf("it shows %q, error %v; want %s", got, err, shows.Certificate().Subject)
	}
	plain := httptest.NewServer(nil)
	defer plain.Close()
	if _, err := presented(plain); err == nil || !strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") && !strings.Contains(err.Error(), "first record does not look like a TLS handshake") {
		t.Errorf("a server without TLS: error %v", err)
	}
	ours, theirs := net.Pipe()
	defer func() { _ = theirs.Close() }()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := pki.Presented(ended, ours); err == nil {
		t.Error("a handshake that was cancelled has no error")
	}
}
