package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
)

// Presented returns the chain that a TLS server shows at a connection. Nothing of it
// is verified: that is the caller's, and so is closing the connection.
func Presented(ctx context.Context, conn net.Conn) ([]*x509.Certificate, error) {
	shown := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // what it shows is what is asked for
	if err := shown.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return shown.ConnectionState().PeerCertificates, nil
}
