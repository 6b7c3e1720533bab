package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/credentials"
)

// Holder is what one side brings to a handshake: the SVID it presents and the
// bundles it verifies with. Both are asked again at every handshake.
type Holder interface {
	x509svid.Source
	x509bundle.Source
}

// ServerCredentials authenticate every client whose SVID a held bundle
// verifies, and log who it is. Which of them may call what is the server's
// own decision, with PeerFromContext: a refused call can say so in words,
// where a refused handshake is only an alert.
func ServerCredentials(holder Holder, log *slog.Logger) credentials.TransportCredentials {
	return &mutual{holder: holder, log: log}
}

// mutual is TLS in which both sides present an X509-SVID.
type mutual struct {
	holder Holder
	log    *slog.Logger
	server spiffeid.ID // the only one a client accepts; unused by servers
	ended  func(error) // told how each client handshake ended
}

func (m *mutual) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (m *mutual) Clone() credentials.TransportCredentials {
	clone := *m
	return &clone
}

// OverrideServerName does nothing: an SVID is not bound to a host name.
func (m *mutual) OverrideServerName(string) error { return nil }

func (m *mutual) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	var peer Peer
	conn, info, err := credentials.NewTLS(serverConfig(m.holder, record(&peer))).ServerHandshake(raw)
	if err != nil {
		logRefused(m.log, raw, err)
		return nil, nil, fmt.Errorf("authenticate client: %w", err)
	}
	return conn, m.authenticated("client authenticated", info, peer), nil
}

func (m *mutual) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := m.clientHandshake(ctx, authority, raw)
	m.ended(err)
	return conn, info, err
}

func (m *mutual) clientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	var peer Peer
	conn, info, err := credentials.NewTLS(clientConfig(m.holder, m.server, &peer)).ClientHandshake(ctx, authority, raw)
	if err != nil {
		return nil, nil, fmt.Errorf("authenticate server: %w", err)
	}
	accepted, err := awaitFirstByte(ctx, conn)
	if err != nil {
		return nil, nil, errors.Join(&NotAcceptedError{Peer: peer, Cause: err}, conn.Close())
	}
	return accepted, m.authenticated("server authenticated", info, peer), nil
}

func (m *mutual) authenticated(message string, info credentials.AuthInfo, peer Peer) authInfo {
	m.log.LogAttrs(context.Background(), slog.LevelInfo, message, peer.attrs()...)
	tlsInfo, _ := info.(credentials.TLSInfo)
	return authInfo{TLSInfo: tlsInfo, peer: peer}
}

func logRefused(log *slog.Logger, raw net.Conn, err error) {
	level := slog.LevelWarn
	if errors.Is(err, io.EOF) {
		level = slog.LevelDebug // it came and went: a port check
	}
	log.LogAttrs(context.Background(), level, "handshake refused",
		slog.String("remote", raw.RemoteAddr().String()), slog.Any("error", err))
}

// awaitFirstByte returns conn once the server has sent something. In TLS 1.3
// the client's handshake is over before the server has looked at the client's
// certificate (RFC 8446, section 2), so a refusal arrives with the first
// read, and whatever is written before it may reset the connection and lose
// it. An HTTP/2 server speaks first: its SETTINGS frame follows its handshake.
func awaitFirstByte(ctx context.Context, conn net.Conn) (net.Conn, error) {
	keep := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	first := make([]byte, 1)
	_, err := io.ReadFull(conn, first)
	if !keep() {
		return nil, errors.Join(ctx.Err(), err)
	}
	if err != nil {
		return nil, err
	}
	return &startedConn{Conn: conn, ahead: first}, nil
}

// startedConn is a connection of which the first bytes were read ahead.
type startedConn struct {
	net.Conn
	ahead []byte
}

func (c *startedConn) Read(b []byte) (int, error) {
	if len(c.ahead) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.ahead)
	c.ahead = c.ahead[n:]
	return n, nil
}
