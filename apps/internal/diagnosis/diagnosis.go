// Package diagnosis tells people who watch why a call between two workloads
// failed, and where to look. It decides by the types of errors alone.
//
// It refuses to know what the call was for.
package diagnosis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Class is the kind of reason for which a call failed.
type Class string

// The classes, by which scenarios and pages know them.
const (
	NoIdentity       Class = "no-identity"       // the caller has no SVID
	Expired          Class = "expired"           // an SVID is not valid now, ours or theirs
	NotFederated     Class = "not-federated"     // no bundle of theirs is held
	UnknownAuthority Class = "unknown-authority" // the bundle held does not verify them
	IdentityRefused  Class = "identity-refused"  // they are not who we want
	RefusedByServer  Class = "refused-by-server" // they do not accept our SVID
	NotPermitted     Class = "not-permitted"     // they know us and say no
	Unreachable      Class = "unreachable"       // no connection comes about
	NoAnswer         Class = "no-answer"         // connected, but nothing came in time
	ServerFailed     Class = "server-failed"     // they answered with any other error
	NotRefused       Class = "not-refused"       // they answered what they should refuse
)

// Classes returns all classes.
func Classes() []Class {
	return []Class{
		NoIdentity, Expired, NotFederated, UnknownAuthority, IdentityRefused, RefusedByServer,
		NotPermitted, Unreachable, NoAnswer, ServerFailed, NotRefused,
	}
}

// NotRefusedError says that a call came through that should have failed.
type NotRefusedError struct{ Want Class }

func (e *NotRefusedError) Error() string {
	return fmt.Sprintf("call came through, want it to fail with %s", e.Want)
}

// Classify tells why a call failed.
func Classify(err error) Class {
	var (
		answered  *NotRefusedError
		refusal   *service.Refusal
		missing   *identity.MissingError
		ownTooOld *identity.ExpiredError
		noBundle  *identity.NotFederatedError
		stranger  *identity.UnexpectedIDError
		nobody    *identity.UnverifiedError
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		notTLS    tls.RecordHeaderError
		network   *net.OpError
		lookup    *net.DNSError
	)
	switch {
	case errors.As(err, &answered):
		return NotRefused
	case errors.As(err, &refusal) && (refusal.Status == http.StatusUnauthorized || refusal.Status == http.StatusForbidden):
		return NotPermitted
	case errors.As(err, &refusal):
		return ServerFailed
	case errors.As(err, &missing):
		return NoIdentity
	case errors.As(err, &ownTooOld):
		return Expired
	case errors.As(err, &noBundle):
		return NotFederated
	case errors.As(err, &stranger):
		return IdentityRefused
	case errors.As(err, &authority):
		return UnknownAuthority
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return Expired
	case errors.As(err, &invalid):
		return UnknownAuthority
	case errors.As(err, &nobody): // the more exact causes are above
		return IdentityRefused
	case errors.As(err, &notTLS), errors.As(err, &lookup), errors.As(err, &network) && network.Op == "dial":
		return Unreachable
	case errors.As(err, &network) && network.Op == "remote error":
		return RefusedByServer // so crypto/tls marks an alert from the other side
	case errors.Is(err, context.DeadlineExceeded):
		return NoAnswer
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Unreachable
	}
	switch status.Code(err) {
	case codes.PermissionDenied, codes.Unauthenticated:
		return NotPermitted
	case codes.DeadlineExceeded:
		return NoAnswer
	case codes.Unavailable:
		return Unreachable
	default:
		return ServerFailed
	}
}
