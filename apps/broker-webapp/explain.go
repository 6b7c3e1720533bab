package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// class is the kind of reason for which there are no quotes.
type class string

const (
	noIdentity       class = "no-identity"       // this broker has no SVID
	expired          class = "expired"           // an SVID is not valid now, ours or theirs
	notFederated     class = "not-federated"     // no bundle of theirs is held
	unknownAuthority class = "unknown-authority" // the bundle held does not verify them
	identityRefused  class = "identity-refused"  // they are not who we want
	refusedByServer  class = "refused-by-server" // they do not accept our SVID
	notPermitted     class = "not-permitted"     // they know us and say no
	unreachable      class = "unreachable"       // no connection comes about
	noAnswer         class = "no-answer"         // connected, but nothing came in time
	serverFailed     class = "server-failed"     // they answered with any other error
)

// classify tells by the types of err alone why a call failed.
func classify(err error) class {
	var (
		missing   *identity.MissingError
		ownTooOld *identity.ExpiredError
		noBundle  *identity.NotFederatedError
		stranger  *identity.UnexpectedIDError
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		notTLS    tls.RecordHeaderError
		network   *net.OpError
		lookup    *net.DNSError
	)
	switch {
	case errors.As(err, &missing):
		return noIdentity
	case errors.As(err, &ownTooOld):
		return expired
	case errors.As(err, &noBundle):
		return notFederated
	case errors.As(err, &stranger):
		return identityRefused
	case errors.As(err, &authority):
		return unknownAuthority
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return expired
	case errors.As(err, &invalid):
		return unknownAuthority
	case errors.As(err, &notTLS), errors.As(err, &lookup), errors.As(err, &network) && network.Op == "dial":
		return unreachable
	case errors.As(err, &network) && network.Op == "remote error":
		return refusedByServer // so crypto/tls marks an alert from the other side
	case errors.Is(err, context.DeadlineExceeded):
		return noAnswer
	case errors.As(err, &network), errors.Is(err, io.EOF):
		return unreachable
	}
	switch status.Code(err) {
	case codes.PermissionDenied, codes.Unauthenticated:
		return notPermitted
	case codes.DeadlineExceeded:
		return noAnswer
	case codes.Unavailable:
		return unreachable
	default:
		return serverFailed
	}
}

// problem says in plain words why there are no quotes.
type problem struct {
	Class  class     `json:"class"`
	What   string    `json:"what"`
	Look   string    `json:"look"`   // at what, to mend it
	Detail string    `json:"detail"` // the error itself, for those who mend it
	Since  time.Time `json:"since"`
}

// explain puts err, of a call as s describes it, into words for people who
// watch. It decides by classify and by the types of err.
func explain(err error, s settings, since, now time.Time) *problem {
	p := &problem{Class: classify(err), Detail: err.Error(), Since: since}
	var (
		missing   *identity.MissingError
		ownTooOld *identity.ExpiredError
		stranger  *identity.UnexpectedIDError
		invalid   x509.CertificateInvalidError
		lookup    *net.DNSError
	)
	server, domain := s.server.String(), s.server.TrustDomain().Name()
	switch p.Class {
	case noIdentity:
		p.What = "This broker has no identity yet: the SPIRE agent on its node does not answer."
		p.Look = "The SPIRE agent of this cluster, and the folder of its socket that is mounted into this pod."
		if errors.As(err, &missing) && missing.Unregistered() {
			p.What = "This broker has no identity yet: the SPIRE agent answers, but no registration entry matches this workload."
			p.Look = "The registration entry of this broker: its selectors, its parent, and whether it federates with a domain whose bundle is not there."
		}
	case expired:
		p.What, p.Look = explainValidity(err, now)
		if errors.As(err, &ownTooOld) {
			p.What = fmt.Sprintf("This broker's own identity expired at %s and was not renewed.", clock(ownTooOld.Document.NotAfter))
			p.Look = "The SPIRE agent and server of this cluster: an SVID is renewed halfway through its life."
		}
	case notFederated:
		p.What = fmt.Sprintf("Somebody from %s answered, but this broker holds no bundle of that trust domain and cannot verify anybody from there.", claimed(err, domain))
		p.Look = "federatesWith in the registration entry of this broker, then the federation relationship of its SPIRE server."
	case unknownAuthority:
		domain = claimed(err, domain)
		p.What = fmt.Sprintf("The server claims to be from %s, but the bundle that this broker holds of %s does not contain the authority that signed for it.", domain, domain)
		p.Look = "The bundle held here beside the one that " + domain + " serves: refresh has stopped, or somebody pretends."
		if errors.As(err, &invalid) {
			p.What = "The server's certificate chain breaks a rule of X.509, so it proves nothing."
		}
	case identityRefused:
		p.What = "Somebody else answers in place of the quotes server. Nothing was asked of them."
		if errors.As(err, &stranger) {
			p.What = fmt.Sprintf("%s answers in place of %s. Nothing was asked of them.", stranger.Got, stranger.Want)
		}
		p.Look = "The SPIFFE ID that this broker expects, the registration entry of the server, and where its address leads."
	case refusedByServer:
		p.What = "The quotes server broke off the handshake: it cannot verify the identity of this broker."
		p.Look = "The log of the quotes server, and the other direction of the federation: the bundle that its trust domain holds of ours."
	case notPermitted:
		p.What = "The quotes server knows who this broker is, and does not let it ask for quotes."
		p.Look = "The list of allowed clients of the quotes server, and the SPIFFE ID of this broker."
	case unreachable:
		p.What = fmt.Sprintf("The quotes server cannot be reached at %s.", s.address)
		p.Look = "Whether its pod is ready, whether its address is right, and the network between the clusters."
		if errors.As(err, &lookup) {
			p.What = fmt.Sprintf("The name in %s cannot be resolved.", s.address)
		}
	case noAnswer:
		p.What = fmt.Sprintf("Something accepts connections at %s, but does not answer within %s.", s.address, callBound)
		p.Look = "The log of the quotes server, and the network between the clusters."
	case serverFailed:
		p.What = fmt.Sprintf("%s was reached and proved who it is, but answered with an error.", server)
		p.Look = "The log of the quotes server."
	}
	return p
}

// explainValidity tells a certificate of theirs that is over from one that
// has not begun: x509 has one reason for both.
func explainValidity(err error, now time.Time) (what, look string) {
	var invalid x509.CertificateInvalidError
	if !errors.As(err, &invalid) || invalid.Cert == nil {
		return "An identity has expired.", "The SPIRE servers and agents on both sides."
	}
	if now.Before(invalid.Cert.NotBefore) {
		return fmt.Sprintf("The identity of the quotes server is not valid before %s.", clock(invalid.Cert.NotBefore)),
			"The clocks: either this broker's is behind, or the clock of the server's trust domain is ahead."
	}
	return fmt.Sprintf("The identity of the quotes server expired at %s.", clock(invalid.Cert.NotAfter)),
		"The SPIRE agent and server of the quotes server's cluster, and the clocks on both sides."
}

// claimed returns the trust domain that an unverified server says it is of,
// which need not be the expected one.
func claimed(err error, expected string) string {
	var noBundle *identity.NotFederatedError
	if errors.As(err, &noBundle) {
		return noBundle.TrustDomain.Name()
	}
	var authority x509.UnknownAuthorityError
	if errors.As(err, &authority) && authority.Cert != nil {
		if id, err := x509svid.IDFromCert(authority.Cert); err == nil {
			return id.TrustDomain().Name()
		}
	}
	return expected
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05 UTC") }
