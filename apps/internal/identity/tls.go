package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// serverConfig is how every server here shakes hands: it presents the newest
// SVID, and lets in the clients that the newest bundles verify and authorize
// accepts.
func serverConfig(holder Holder, authorize tlsconfig.Authorizer) *tls.Config {
	config := tlsconfig.MTLSServerConfig(holder, federated{holder}, authorize)
	config.MinVersion = tls.VersionTLS13
	// A resumed session skips the verification above: a client whose
	// authority was revoked, or whose SVID expired, would come in on the
	// strength of an older handshake.
	config.SessionTicketsDisabled = true
	return config
}

// clientConfig is how every client here shakes hands: with server, and nobody
// else, whom it keeps in peer.
func clientConfig(holder Holder, server spiffeid.ID, peer *Peer) *tls.Config {
	config := withoutCertificate(holder, server, peer)
	config.GetClientCertificate = tlsconfig.GetClientCertificate(holder)
	return config
}

// withoutCertificate is clientConfig for a client that presents no X509-SVID.
func withoutCertificate(holder Holder, server spiffeid.ID, peer *Peer) *tls.Config {
	config := tlsconfig.TLSClientConfig(federated{holder}, func(got spiffeid.ID, chains [][]*x509.Certificate) error {
		if got != server {
			return &UnexpectedIDError{Got: got, Want: server}
		}
		return record(peer)(got, chains)
	})
	verify := config.VerifyPeerCertificate
	config.VerifyPeerCertificate = func(certs [][]byte, chains [][]*x509.Certificate) error {
		if err := verify(certs, chains); err != nil {
			return &UnverifiedError{Cause: err}
		}
		return nil
	}
	config.MinVersion = tls.VersionTLS13
	return config
}

// resuming has config offer the sessions of earlier handshakes. A handshake that
// resumes one skips the verification, of which it knows only that it was
// done once: it is done here.
func resuming(config *tls.Config, sessions tls.ClientSessionCache) {
	verify := config.VerifyPeerCertificate
	config.ClientSessionCache = sessions
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if !state.DidResume {
			return nil
		}
		var certs [][]byte
		for _, cert := range state.PeerCertificates {
			certs = append(certs, cert.Raw)
		}
		return verify(certs, nil)
	}
}

// record keeps in peer who was verified.
func record(peer *Peer) tlsconfig.Authorizer {
	return func(id spiffeid.ID, chains [][]*x509.Certificate) error {
		*peer = peerOf(id, chains[0])
		return nil
	}
}

// ErrNoCertificate says that a client presented no certificate at all.
var ErrNoCertificate = errors.New("the client presented no certificate")

// Verify tells who is at the far end of a TLS connection, by the bundles that
// are held now: what a handshake proved is over when an SVID expires or a
// bundle goes, however long the connection lasts.
func Verify(state *tls.ConnectionState, holder Holder) (Peer, error) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return Peer{}, ErrNoCertificate
	}
	id, chains, err := x509svid.Verify(state.PeerCertificates, federated{holder})
	if err != nil {
		return Peer{}, fmt.Errorf("verify client: %w", err)
	}
	return peerOf(id, chains[0]), nil
}

// Dial connects to address (host:port) over TLS, for protocols in which the
// client speaks first. Only server is accepted. That server accepts this
// client shows with the first read and not before: in TLS 1.3 the client's
// handshake is over first (RFC 8446, section 2). The caller closes the
// connection.
func Dial(ctx context.Context, address string, server spiffeid.ID, holder Holder, log *slog.Logger) (*tls.Conn, error) {
	raw, err := connect(ctx, address)
	if err != nil {
		return nil, err
	}
	var peer Peer
	conn := tls.Client(raw, clientConfig(holder, server, &peer))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("authenticate server: %w", err), raw.Close())
	}
	log.LogAttrs(ctx, slog.LevelInfo, "server authenticated", peer.attrs()...)
	return conn, nil
}

// Accept shakes hands with the client on raw, and refuses it unless authorize
// accepts its ID. It is for protocols that have no words for a refusal; the
// client only sees an alert, so the reason is logged here. The caller closes
// raw.
func Accept(ctx context.Context, raw net.Conn, authorize func(spiffeid.ID) error, holder Holder, log *slog.Logger) (*tls.Conn, Peer, error) {
	var peer Peer
	conn := tls.Server(raw, serverConfig(holder, func(id spiffeid.ID, chains [][]*x509.Certificate) error {
		if err := authorize(id); err != nil {
			return err
		}
		return record(&peer)(id, chains)
	}))
	if err := conn.HandshakeContext(ctx); err != nil {
		logRefused(log, raw, err)
		return nil, Peer{}, fmt.Errorf("authenticate client: %w", err)
	}
	log.LogAttrs(ctx, slog.LevelInfo, "client authenticated", append(peer.attrs(), slog.String("remote", raw.RemoteAddr().String()))...)
	return conn, peer, nil
}

// firstTry is how long the first try for a connection may take.
const firstTry = 250 * time.Millisecond

// connect begins again while nobody answers, each time for twice as long, up to
// ConnectBound. The kernel sends the first packet of a connection again only after
// one second, and then after two; a Service whose node has just learned of it answers
// the next packet.
func connect(ctx context.Context, address string) (net.Conn, error) {
	for within := firstTry; ; within *= 2 {
		dialer := net.Dialer{Timeout: within}
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if silent := net.Error(nil); err == nil || ctx.Err() != nil || within >= ConnectBound || !errors.As(err, &silent) || !silent.Timeout() {
			return conn, err
		}
	}
}
