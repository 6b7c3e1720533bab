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
	NotFederated     Class = "not-federated"     // no bundle of the server is held
	UnknownAuthority Class = "unknown-authority" // the bundle held does not verify them
	IdentityRefused  Class = "identity-refused"  // they are not who we want
	RefusedByServer  Class = "refused-by-server" // they do not accept our SVID
	NotPermitted     Class = "not-permitted"     // they know us and say no
	Unreachable      Class = "unreachable"       // there is no connection
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

func is[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}

// Classify tells why a call failed.
func Classify(err error) Class {
	refusal, refused := errors.AsType[*service.Refusal](err)
	invalid, breaksRule := errors.AsType[x509.CertificateInvalidError](err)
	network, lost := errors.AsType[*net.OpError](err)
	switch {
	case is[*NotRefusedError](err):
		return NotRefused
	case refused && (refusal.Status == http.StatusUnauthorized || refusal.Status == http.StatusForbidden):
		return NotPermitted
	case refused:
		return ServerFailed
	case is[*identity.MissingError](err):
		return NoIdentity
	case is[*identity.ExpiredError](err):
		return Expired
	case is[*identity.NotFederatedError](err):
		return NotFederated
	case is[*identity.UnexpectedIDError](err):
		return IdentityRefused
	case is[x509.UnknownAuthorityError](err):
		return UnknownAuthority
	case breaksRule && invalid.Reason == x509.Expired:
		return Expired
	case breaksRule:
		return UnknownAuthority
	case is[*identity.UnverifiedError](err): // the more exact causes are above
		return IdentityRefused
	case is[tls.RecordHeaderError](err), is[*net.DNSError](err), lost && network.Op == "dial":
		return Unreachable
	case lost && network.Op == "remote error":
		return RefusedByServer // so crypto/tls marks an alert from the other side
	case errors.Is(err, context.DeadlineExceeded):
		return NoAnswer
	case lost, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
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
