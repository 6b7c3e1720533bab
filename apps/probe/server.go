package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"log/slog"
	"net"
	"net/http"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/fedlab-dev/fedlab/apps/internal/streams"
	"github.com/fedlab-dev/fedlab/lab/traffic"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// allow is the policy of the careful port.
func (s settings) allow(_ *http.Request, caller identity.Peer) error {
	return s.allowed.Check(caller.TrustDomain, trustDomainsVariable)
}

// tellCaller answers with whom service.Guard has verified.
func tellCaller(w http.ResponseWriter, r *http.Request) {
	service.JSON(w, http.StatusOK, streams.PartyOf(service.CallerOf(r)))
}

// wrongPort serves by a configuration that is wrong on purpose: a request is that of whom its
// connection began with.
func wrongPort(name, address string, config *tls.Config, log *slog.Logger) service.Port {
	return service.Port{Name: name, Address: address, Serve: func(listener net.Listener) process.Server {
		return process.HTTPS(listener, config, http.HandlerFunc(tellAnyCaller), 2*identity.CallBound, log)
	}}
}

// carelessConfig is what one gets who takes go-spiffe's configuration of a server as it is: TLS
// sessions are resumed without a look at bundles (crypto/tls, Config.VerifyPeerCertificate).
func carelessConfig(s settings, holder identity.Holder) *tls.Config {
	return tlsconfig.MTLSServerConfig(holder, holder, func(id spiffeid.ID, _ [][]*x509.Certificate) error {
		return s.allowed.Check(id.TrustDomain(), trustDomainsVariable)
	})
}

// anybodyConfig lets in whoever has a certificate.
func anybodyConfig(holder identity.Holder) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert, GetCertificate: tlsconfig.GetCertificate(holder)}
}

// tellAnyCaller answers with whom the connection, or the session that it resumed,
// says it is of.
func tellAnyCaller(w http.ResponseWriter, r *http.Request) {
	certs := r.TLS.PeerCertificates // at least one: the configuration wants it
	id, err := x509svid.IDFromCert(certs[0])
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	service.JSON(w, http.StatusOK, traffic.Party{
		ID:       id.String(),
		Serial:   certs[0].SerialNumber.Text(16),
		NotAfter: certs[0].NotAfter,
		// What the last certificate says of its signer is all there is to say of
		// the root: nothing is verified here.
		Authority: hex.EncodeToString(certs[len(certs)-1].AuthorityKeyId),
	})
}
