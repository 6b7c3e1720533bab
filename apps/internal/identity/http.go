package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
)

// HTTPSConfig is the TLS of an HTTPS server that authenticates its clients. Who
// sent a request, Verify tells of its TLS state.
//
// A client that presents no certificate passes the handshake, because only
// after it can a server say what is missing: 401, in words. One that presents
// a certificate which does not verify is refused in the handshake: it claims
// to be somebody, and nothing it says is heard until that is proved.
func HTTPSConfig(holder Holder) *tls.Config {
	config := serverConfig(holder, tlsconfig.AuthorizeAny())
	config.ClientAuth = tls.RequestClientCert
	verify := config.VerifyPeerCertificate
	config.VerifyPeerCertificate = func(certs [][]byte, chains [][]*x509.Certificate) error {
		if len(certs) == 0 {
			return nil
		}
		return verify(certs, chains)
	}
	return config
}

// Client makes HTTPS calls to one server, known by its SPIFFE ID. It connects
// and authenticates anew for each call, so that none rests on what was true
// when an earlier one was made.
type Client struct {
	Server spiffeid.ID
	Holder Holder
	Log    *slog.Logger
}

// Do sends r and returns the answer, and who gave it. Like an
// http.RoundTripper it follows no redirect, and takes any status for an
// answer. Errors keep the types that tell one cause from another; the peer is
// known as soon as it is authenticated, even if the call fails then. The
// caller closes the body, and with it the connection.
func (c Client) Do(r *http.Request) (*http.Response, Peer, error) {
	conn, peer, err := c.connect(r.Context(), r.URL.Host)
	if err != nil {
		return nil, Peer{}, err
	}
	// The connection is HTTP/2 over TLS already. A transport that shook hands
	// itself would send the request before it heard whether the server accepts
	// this client.
	request := r.Clone(r.Context())
	request.URL.Scheme = "http"
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	once := &callConn{Conn: conn, close: sync.OnceValue(conn.Close)}
	transport := &http.Transport{
		Protocols:         &protocols,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return once, nil },
		DisableKeepAlives: true,
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, peer, errors.Join(err, once.Close())
	}
	response.Request = r
	response.Body = &body{ReadCloser: response.Body, conn: once}
	return response, peer, nil
}

// RoundTrip is Do for those who need not know who answered.
func (c Client) RoundTrip(r *http.Request) (*http.Response, error) {
	response, _, err := c.Do(r)
	return response, err
}

func (c Client) connect(ctx context.Context, address string) (net.Conn, Peer, error) {
	ctx, cancel := context.WithTimeout(ctx, ConnectBound)
	defer cancel()
	raw, err := connect(ctx, address)
	if err != nil {
		return nil, Peer{}, err
	}
	m := &mutual{holder: c.Holder, log: c.Log, server: c.Server, ended: func(error) {}}
	conn, info, err := m.ClientHandshake(ctx, address, raw) // closes raw when it fails
	if err != nil {
		return nil, Peer{}, err
	}
	return conn, info.(authInfo).peer, nil
}

// callConn is the connection of one call, which may be closed by the transport
// and by the caller.
type callConn struct {
	net.Conn
	close func() error
}

func (c *callConn) Close() error { return c.close() }

// body is that of an answer. The connection ends with it.
type body struct {
	io.ReadCloser
	conn net.Conn
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	_ = b.conn.Close() // the answer has been read, and nothing was left to send
	return err
}
