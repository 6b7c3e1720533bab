package identity_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
)

// https serves over HTTPS, and answers with the ID of whoever asks.
func https(t *testing.T, holder identity.Holder) (address string) {
	t.Helper()
	return apptest.ServeHTTPS(t, holder, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := identity.Verify(r.TLS, holder)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, caller.ID.String())
	}))
}

// send asks the server of data with client's identity.
func send(t *testing.T, address string, data *apptest.CA, client identity.Holder) (int, string, identity.Peer, error) {
	t.Helper()
	return apptest.Get(t, client, spiffeid.RequireFromPath(data.TrustDomain, "/server"), "https://"+address+"/")
}

func TestHTTPSKnowsBothSides(t *testing.T) {
	data, web := apptest.NewCA(t, "gcp.test"), apptest.NewCA(t, "aws.test")
	server := apptest.NewHolder(data.Issue(t, "/server"), data.Bundle(), web.Bundle())
	client := apptest.NewHolder(web.Issue(t, "/client"), data.Bundle(), web.Bundle())
	address := https(t, server)
	status, body, peer, err := send(t, address, data, client)
	if err != nil {
		t.Fatal(err)
	}
	if status != http.StatusOK || body != "spiffe://aws.test/client" {
		t.Errorf("answer is %d %q", status, body)
	}
	checkPeer(t, "server as the client sees it", peer, server, data)

	// The next call meets what is held then.
	renewed := apptest.NewCA(t, "gcp.test")
	server.Set(renewed.Issue(t, "/server"), renewed.Bundle(data), web.Bundle())
	var unknown x509.UnknownAuthorityError
	if _, _, _, err := send(t, address, data, client); !errors.As(err, &unknown) {
		t.Errorf("an authority that is not held is trusted: %v", err)
	}
}

// TestHTTPSRefusalsKeepTheirType makes each call many times: what a server says
// of a client's certificate must not get lost in what the client writes.
func TestHTTPSRefusalsKeepTheirType(t *testing.T) {
	data, web := apptest.NewCA(t, "gcp.test"), apptest.NewCA(t, "aws.test")
	address := https(t, apptest.NewHolder(data.Issue(t, "/server"), data.Bundle(), web.Bundle()))
	past := time.Now().Add(-time.Hour)
	for name, client := range map[string]*apptest.Holder{
		"of an unknown authority": apptest.NewHolder(apptest.NewCA(t, "aws.test").Issue(t, "/client"), data.Bundle()),
		"of an unknown domain":    apptest.NewHolder(apptest.NewCA(t, "elsewhere.test").Issue(t, "/client"), data.Bundle()),
		"expired":                 apptest.NewHolder(web.IssueFor(t, "/client", past, past.Add(time.Minute)), data.Bundle()),
	} {
		t.Run(name, func(t *testing.T) {
			for range 50 {
				_, _, _, err := send(t, address, data, client)
				var network *net.OpError
				if !errors.As(err, &network) || network.Op != "remote error" {
					t.Fatalf("error is %v, want an alert of the server", err)
				}
			}
		})
	}
}

// TestAServerWithoutHTTP2: a proxy that takes TLS off chooses no protocol by ALPN, and says
// nothing before it is asked.
func TestAServerWithoutHTTP2(t *testing.T) {
	data, web := apptest.NewCA(t, "gcp.test"), apptest.NewCA(t, "aws.test")
	holder := apptest.NewHolder(data.Issue(t, "/server"), data.Bundle(), web.Bundle())
	listener := apptest.Listen(t)
	server := http.Server{ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto)
	})}
	t.Cleanup(func() { _ = server.Close() })
	go func() { _ = server.Serve(tls.NewListener(listener, identity.HTTPSConfig(holder))) }()
	address := listener.Addr().String()
	status, body, peer, err := send(t, address, data, apptest.NewHolder(web.Issue(t, "/client"), data.Bundle()))
	if err != nil || status != http.StatusOK || body != "HTTP/1.1" {
		t.Fatalf("answer is %d %q, error %v", status, body, err)
	}
	checkPeer(t, "server as the client sees it", peer, holder, data)
	stranger := apptest.NewHolder(apptest.NewCA(t, "aws.test").Issue(t, "/client"), data.Bundle())
	if _, _, peer, err := send(t, address, data, stranger); err == nil || peer.ID.TrustDomain().Name() != data.TrustDomain.Name() {
		t.Errorf("a client of an unknown authority meets %v, error %v", peer.ID, err)
	}
}

func TestHTTPSLetsAClientWithoutCertificateAsk(t *testing.T) {
	data := apptest.NewCA(t, "gcp.test")
	address := https(t, apptest.NewHolder(data.Issue(t, "/server"), data.Bundle()))
	if status, body := apptest.GetPlain(t, data.Bundle(), "https://"+address+"/"); status != http.StatusUnauthorized || body != identity.ErrNoCertificate.Error()+"\n" {
		t.Errorf("answer is %d %q", status, body)
	}
}

// TestAConnectionOutlivesWhatItsHandshakeProved keeps one open while the
// bundle that its client was verified with goes away.
func TestAConnectionOutlivesWhatItsHandshakeProved(t *testing.T) {
	data, web := apptest.NewCA(t, "gcp.test"), apptest.NewCA(t, "aws.test")
	svid := data.Issue(t, "/server")
	server := apptest.NewHolder(svid, data.Bundle(), web.Bundle())
	address := https(t, server)
	client := apptest.NewHolder(web.Issue(t, "/client"), data.Bundle())
	kept := &http.Client{Transport: &http.Transport{TLSClientConfig: tlsconfig.MTLSClientConfig(client, client, tlsconfig.AuthorizeAny())}}
	defer kept.CloseIdleConnections()
	ask := func() int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := kept.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, response.Body) // or the connection is not kept
		if err := errors.Join(err, response.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return response.StatusCode
	}
	if status := ask(); status != http.StatusOK {
		t.Fatalf("answer is %d", status)
	}
	server.Set(svid, data.Bundle())
	if status := ask(); status != http.StatusUnauthorized {
		t.Errorf("answer is %d although the client's bundle is gone", status)
	}
}

func TestPlainConnections(t *testing.T) {
	data, web := apptest.NewCA(t, "gcp.test"), apptest.NewCA(t, "aws.test")
	server := apptest.NewHolder(data.Issue(t, "/server"), data.Bundle(), web.Bundle())
	listener := apptest.Listen(t)
	allowed := identity.IDs{}
	if err := allowed.Set("spiffe://aws.test/client"); err != nil {
		t.Fatal(err)
	}
	var log apptest.Log
	apptest.Run(t, process.TCP(listener, func(ctx context.Context, raw net.Conn) {
		conn, peer, err := identity.Accept(ctx, raw, func(id spiffeid.ID) error { return allowed.Check(id, "LIST") }, server, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.MultiWriter(conn, io.Discard), io.LimitReader(conn, 4))
		_, _ = io.WriteString(conn, peer.ID.String())
		_ = conn.Close()
	}).Run)
	say := func(path string) (string, error) {
		holder := apptest.NewHolder(web.Issue(t, path), data.Bundle())
		conn, err := identity.Dial(t.Context(), listener.Addr().String(), spiffeid.RequireFromPath(data.TrustDomain, "/server"), holder, slog.New(slog.DiscardHandler))
		if err != nil {
			return "", err
		}
		defer func() { _ = conn.Close() }()
		if _, err := io.WriteString(conn, "ping"); err != nil {
			return "", err
		}
		answer, err := io.ReadAll(conn)
		return string(answer), err
	}
	if answer, err := say("/client"); err != nil || answer != "pingspiffe://aws.test/client" {
		t.Errorf("answer is %q, %v", answer, err)
	}
	if _, err := say("/other"); err == nil {
		t.Error("a client that is not allowed is answered")
	}
	log.Await(t, `msg="handshake refused"`)
	log.Await(t, "spiffe://aws.test/other is not in LIST")
	stranger := apptest.NewHolder(web.Issue(t, "/client"), data.Bundle())
	var other *identity.UnexpectedIDError
	_, err := identity.Dial(t.Context(), listener.Addr().String(), spiffeid.RequireFromPath(data.TrustDomain, "/else"), stranger, slog.New(slog.DiscardHandler))
	if !errors.As(err, &other) {
		t.Errorf("a server that is somebody else is accepted: %v", err)
	}
}

func TestNamesAsFlags(t *testing.T) {
	var ids identity.IDs
	var domains identity.TrustDomains
	if err := errors.Join(ids.Set("spiffe://b.test/two, spiffe://a.test/one"), domains.Set("b.test,a.test")); err != nil {
		t.Fatal(err)
	}
	if got := ids.String() + " " + domains.String(); got != "spiffe://a.test/one,spiffe://b.test/two a.test,b.test" {
		t.Errorf("flags are %s", got)
	}
	outsider := spiffeid.RequireFromString("spiffe://c.test/one")
	for want, err := range map[string]error{
		"spiffe://c.test/one is not in LIST":                           ids.Check(outsider, "LIST"),
		"trust domain c.test is not in LIST":                           domains.Check(outsider.TrustDomain(), "LIST"),
		"want a SPIFFE ID with a path, such as spiffe://a.test/client": ids.Set("spiffe://a.test"),
		"want a trust domain such as cluster2.com: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores": domains.Set("A.test"),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("error is %v, want %s", err, want)
		}
	}
	if err := ids.Check(spiffeid.RequireFromString("spiffe://a.test/one"), "LIST"); err != nil {
		t.Error(err)
	}
}
