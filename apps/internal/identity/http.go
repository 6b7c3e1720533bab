package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
)

// HTTPSConfig is the TLS of an HTTPS server that authenticates its clients. Verify
// finds out from the TLS state of a request who sent it.
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

// Client makes HTTPS calls to one server, known by its SPIFFE ID. Do connects
// and authenticates again for each call, so that none rests on what was true
// when an earlier one was made.
type Client struct {
	Server spiffeid.ID
	Holder Holder
	Log    *slog.Logger
	// Anonymous presents no X509-SVID: the caller says who it is in another way then,
	// such as with a JWT-SVID.
	Anonymous bool
	// Sessions, if set, are offered to the server, which may resume one instead
	// of looking at this client's SVID again. The server's is looked at all the
	// same, by the bundles held then.
	Sessions tls.ClientSessionCache
}

// Do sends r and returns the answer, and who gave it. Like an
// http.RoundTripper it follows no redirect, and takes any status for an
// answer. Errors keep the types that tell one cause from another; the peer is
// known as soon as it is authenticated, even if the call fails then. The
// caller closes the body, and with it the connection.
func (c Client) Do(r *http.Request) (*http.Response, Peer, error) {
	conn, err := c.Connect(r.Context(), r.URL.Host)
	if err != nil {
		return nil, Peer{}, err
	}
	response, err := conn.RoundTrip(r)
	if err != nil {
		return nil, conn.Peer, errors.Join(err, conn.Close())
	}
	response.Body = &body{ReadCloser: response.Body, conn: conn}
	return response, conn.Peer, nil
}

// RoundTrip is Do for those who need not know who answered.
func (c Client) RoundTrip(r *http.Request) (*http.Response, error) {
	response, _, err := c.Do(r)
	return response, err
}

// Connect connects to address (host:port), and returns when the server is
// authenticated and, where it speaks HTTP/2, has accepted this client. The error is a
// *NotAcceptedError when it came to the first and not to the second. A server without
// HTTP/2, such as a proxy that takes TLS off, refuses with the first answer: a
// *NotAcceptedError of RoundTrip.
func (c Client) Connect(ctx context.Context, address string) (*HTTPConn, error) {
	conn := &HTTPConn{}
	ready, err := c.connect(ctx, address, conn)
	if err != nil {
		return nil, err
	}
	// The connection is over TLS already when the transport gets it. One that shook hands
	// itself would send the request before it heard whether the server accepts this client.
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(!conn.silent)
	protocols.SetHTTP1(conn.silent)
	transport := &http.Transport{
		Protocols:   &protocols,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return ready, nil },
	}
	if conn.calls, err = transport.NewClientConn(ctx, "http", address); err != nil {
		return nil, errors.Join(err, ready.Close())
	}
	return conn, nil
}

// connect shakes hands with the server, and notes in known who it is.
func (c Client) connect(ctx context.Context, address string, known *HTTPConn) (_ net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, ConnectBound)
	defer cancel()
	raw, err := connect(ctx, address)
	if err != nil {
		return nil, err
	}
	config := clientConfig(c.Holder, c.Server, &known.Peer)
	if c.Anonymous {
		config = withoutCertificate(c.Holder, c.Server, &known.Peer)
	}
	if c.Sessions != nil {
		resuming(config, c.Sessions)
	}
	config.NextProtos = []string{http2, "http/1.1"}
	if config.ServerName, _, err = net.SplitHostPort(address); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("authenticate server: %w", err), raw.Close())
	}
	state := conn.ConnectionState()
	known.Resumed, known.silent = state.DidResume, state.NegotiatedProtocol != http2
	ready := net.Conn(conn)
	if !known.silent {
		if ready, err = awaitFirstByte(ctx, conn); err != nil {
			return nil, errors.Join(&NotAcceptedError{Peer: known.Peer, Cause: err}, conn.Close())
		}
	}
	c.Log.LogAttrs(ctx, slog.LevelInfo, "server authenticated", known.Peer.attrs()...)
	return ready, nil
}

// http2 is the ALPN identifier of HTTP/2 over TLS (RFC 9113, section 3.1).
const http2 = "h2"

// HTTPConn is a connection to a server on which calls travel until it is closed
// or lost.
type HTTPConn struct {
	// Peer is who the server was when the connection was made.
	Peer Peer
	// Resumed says that the handshake resumed an earlier session.
	Resumed bool

	calls *http.ClientConn
	// silent says that the server says nothing before it is asked.
	silent bool
}

// RoundTrip sends r and returns the answer. The caller closes the body.
func (c *HTTPConn) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := c.calls.RoundTrip(r)
	var alert *net.OpError
	if c.silent && errors.As(err, &alert) && alert.Op == "remote error" { // crypto/tls, Conn.readRecordOrCCS
		err = &NotAcceptedError{Peer: c.Peer, Cause: err}
	}
	return response, err
}

// Lost tells whether the connection can take no further call.
func (c *HTTPConn) Lost() bool { return c.calls.Err() != nil || c.calls.Available() == 0 }

// Close ends the connection, and the calls on it.
func (c *HTTPConn) Close() error { return c.calls.Close() }

// body is that of an answer. The connection ends with it.
type body struct {
	io.ReadCloser
	conn *HTTPConn
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	_ = b.conn.Close() // the answer has been read, and nothing was left to send
	return err
}
