package spire

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// gRPC's status wraps no error of a context.
func TestWrapTellsTheEndOfAContext(t *testing.T) {
	s := &Server{td: spiffeid.RequireTrustDomainFromString("cluster1.com")}
	for code, want := range map[codes.Code]error{
		codes.Canceled:         context.Canceled,
		codes.DeadlineExceeded: context.DeadlineExceeded,
		codes.Unavailable:      nil,
	} {
		err := s.wrap(status.Error(code, "no answer"), "get bundle")
		for _, cause := range []error{context.Canceled, context.DeadlineExceeded} {
			if is := errors.Is(err, cause); is != errors.Is(want, cause) {
				t.Errorf("%s: that it is %q is %t", code, cause, is)
			}
		}
		if text := "get bundle on SPIRE server of cluster1.com: rpc error: code = " + code.String() + " desc = no answer"; err.Error() != text || status.Code(err) != code {
			t.Errorf("error %q with code %s, want %q", err, status.Code(err), text)
		}
	}
}

func TestConnectIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dial := func(ctx context.Context) (net.Conn, error) {
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	_, err := Connect(ctx, nil, dial, spiffeid.RequireTrustDomainFromString("cluster1.com"))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want one that is %v", err, context.Canceled)
	}
}
