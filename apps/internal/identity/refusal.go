package identity

import (
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// NotFederatedError says that no bundle of the peer's trust domain is held,
// so that nothing the peer presents can be verified.
type NotFederatedError struct {
	TrustDomain spiffeid.TrustDomain
	Cause       error
}

func (e *NotFederatedError) Error() string {
	return fmt.Sprintf("no bundle held for trust domain %s", e.TrustDomain)
}

func (e *NotFederatedError) Unwrap() error { return e.Cause }

// UnexpectedIDError says that the peer proved an identity, but not the one
// that was asked for.
type UnexpectedIDError struct{ Got, Want spiffeid.ID }

func (e *UnexpectedIDError) Error() string {
	return fmt.Sprintf("peer is %s, want %s", e.Got, e.Want)
}

// UnverifiedError says that what a server presented did not verify. Where the
// cause has a type of its own, that one says more.
type UnverifiedError struct{ Cause error }

func (e *UnverifiedError) Error() string { return e.Cause.Error() }

func (e *UnverifiedError) Unwrap() error { return e.Cause }

// ExpiredError says that an SVID of one's own has expired.
type ExpiredError struct{ Document Document }

func (e *ExpiredError) Error() string {
	return fmt.Sprintf("own SVID %s expired at %s", e.Document.ID, e.Document.NotAfter.Format(time.RFC3339))
}

// NotAcceptedError says that a server was authenticated, and then did not accept
// this client or did not say whether it does.
type NotAcceptedError struct {
	Peer  Peer // the server
	Cause error
}

func (e *NotAcceptedError) Error() string {
	return fmt.Sprintf("wait for %s to accept this client: %s", e.Peer.ID, e.Cause)
}

func (e *NotAcceptedError) Unwrap() error { return e.Cause }

// federated gives a missing bundle the type that go-spiffe's error lacks.
type federated struct{ x509bundle.Source }

func (f federated) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	bundle, err := f.Source.GetX509BundleForTrustDomain(td)
	if err != nil {
		return nil, &NotFederatedError{TrustDomain: td, Cause: err}
	}
	return bundle, nil
}
