package apptest

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
)

// ServeHTTPS answers with handler until the test ends, and returns where.
func ServeHTTPS(t *testing.T, holder identity.Holder, handler http.Handler) (address string) {
	t.Helper()
	listener := Listen(t)
	Run(t, process.HTTPS(listener, identity.HTTPSConfig(holder), handler, time.Minute, slog.New(slog.DiscardHandler)).Run)
	return listener.Addr().String()
}

// Get asks url with client's identity, and takes an answer from server only.
// header is pairs of names and values.
func Get(t *testing.T, client identity.Holder, server spiffeid.ID, url string, header ...string) (status int, body string, peer identity.Peer, err error) {
	t.Helper()
	caller := identity.Client{Server: server, Holder: client, Log: slog.New(slog.DiscardHandler)}
	response, peer, err := caller.Do(request(t, url, header))
	if err != nil {
		return 0, "", peer, err
	}
	status, body = read(t, response)
	return status, body, peer, nil
}

// GetPlain asks url without a certificate, and takes an answer from anybody
// whom bundle verifies.
func GetPlain(t *testing.T, bundle *x509bundle.Bundle, url string) (status int, body string) {
	t.Helper()
	transport := &http.Transport{
		TLSClientConfig:   tlsconfig.TLSClientConfig(bundle, tlsconfig.AuthorizeAny()),
		DisableKeepAlives: true,
	}
	response, err := transport.RoundTrip(request(t, url, nil))
	if err != nil {
		t.Fatal(err)
	}
	return read(t, response)
}

func request(t *testing.T, url string, header []string) *http.Request {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	return request
}

func read(t *testing.T, response *http.Response) (status int, body string) {
	t.Helper()
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}
