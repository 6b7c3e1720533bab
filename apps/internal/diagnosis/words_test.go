package diagnosis_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/diagnosis"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestWords has the reasons that need no connection; the others are tested
// where calls are made, with real ones.
func TestWords(t *testing.T) {
	call := diagnosis.Call{
		Caller: "this broker", Server: "the quotes server", Bound: 3 * time.Second,
		Address: "quotes.test:8090", ID: spiffeid.RequireFromString("spiffe://cluster1.com/server"),
	}
	for name, test := range map[string]struct {
		err   error
		class diagnosis.Class
		what  string
	}{
		"no agent": {
			&identity.MissingError{Cause: status.Error(codes.Unavailable, "no socket")},
			diagnosis.NoIdentity, "This broker has no identity yet: the SPIRE agent on its node does not answer.",
		},
		"no entry": {
			&identity.MissingError{Cause: status.Error(codes.PermissionDenied, "no identity issued")},
			diagnosis.NoIdentity, "This broker has no identity yet: the SPIRE agent answers, but no registration entry matches this workload.",
		},
		"a name that does not resolve": {
			&net.OpError{Op: "dial", Err: &net.DNSError{Name: "quotes.test", IsNotFound: true}},
			diagnosis.Unreachable, "The name in quotes.test:8090 cannot be resolved.",
		},
		"a chain against the rules": {
			x509.CertificateInvalidError{Reason: x509.TooManyIntermediates},
			diagnosis.UnknownAuthority, "The certificate chain of the quotes server breaks a rule of X.509, so it proves nothing.",
		},
		"a rule is broken": {
			&service.Refusal{Status: 403, Kind: "forbidden", Rule: "trust domain cluster2.com is not in LIST", Server: "spiffe://cluster1.com/server"},
			diagnosis.NotPermitted, "The quotes server knows the caller and refuses: trust domain cluster2.com is not in LIST.",
		},
		"a rule behind a gateway is broken": {
			&service.Refusal{Status: 403, Kind: "forbidden", Rule: "trust domain cluster1.com is not in LIST", Server: "spiffe://cluster3.com/other"},
			diagnosis.NotPermitted, "spiffe://cluster3.com/other, behind the quotes server, knows the caller and refuses: trust domain cluster1.com is not in LIST.",
		},
		"a server that cannot see the caller": {
			&service.Refusal{Status: 401, Kind: "unauthorized", Rule: "a client must present an X509-SVID"},
			diagnosis.NotPermitted, "The quotes server does not know the caller: a client must present an X509-SVID.",
		},
		"a server that cannot answer": {
			&service.Refusal{Status: 503, Kind: "service unavailable", Reason: "the database does not answer."},
			diagnosis.ServerFailed, "The quotes server was reached and proved who it is, but answered 503 service unavailable: the database does not answer.",
		},
		"a call that should have failed": {
			&diagnosis.NotRefusedError{Want: diagnosis.NotPermitted},
			diagnosis.NotRefused, "The quotes server answered what it should refuse.",
		},
		"an error of no known type": {
			errors.New("out of paper"),
			diagnosis.ServerFailed, "The call of this broker to the quotes server failed, and the error does not tell which side it is of.",
		},
		"an error that the server answers over gRPC": {
			status.Error(codes.Internal, "out of paper"),
			diagnosis.ServerFailed, "The quotes server was reached and proved who it is, but answered with an error.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := diagnosis.Explain(fmt.Errorf("ask for quotes: %w", test.err), call, time.Time{}, time.Now())
			if got.Class != test.class || got.What != test.what {
				t.Errorf("class %s: %s\nwant %s: %s", got.Class, got.What, test.class, test.what)
			}
		})
	}
}
