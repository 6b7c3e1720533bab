// Package spire is one SPIRE server in the words of the field: its API as
// methods on bundles, authorities, relationships, agents and entries; the
// values that charts/spire installs it with; and the custom resources that its
// controller manager reads.
//
// It refuses to know how a pod is reached: whoever connects brings a way to run
// the server's own program and a way to dial its port. It waits for nothing and
// repeats nothing.
package spire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	localauthorityv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
	trustdomainv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/trustdomain/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Exec runs spire-server once next to the server that is to be called, with argv
// after the program's name, and returns what it printed to its standard output.
// That may be a private key: an implementation neither logs it nor puts it into
// its error.
type Exec func(ctx context.Context, argv ...string) (stdout []byte, err error)

// Dial opens a connection to the server's API port. It is called again whenever
// a connection has ended.
type Dial func(ctx context.Context) (net.Conn, error)

// Server is a connection to the API of one trust domain's SPIRE server. Its
// methods may be called at the same time; their errors keep the gRPC code that
// the server gave, are a *NotFoundError where it was NotFound, and wrap
// context.Canceled or context.DeadlineExceeded where it was the code of that.
type Server struct {
	td            spiffeid.TrustDomain
	conn          *grpc.ClientConn
	bundles       bundlev1.BundleClient
	relationships trustdomainv1.TrustDomainClient
	agents        agentv1.AgentClient
	entries       entryv1.EntryClient
	authorities   localauthorityv1.LocalAuthorityClient
}

// Connect returns a connection to the server of td, after it has answered once.
// The server must know AdminID among its admin_ids. Each connection, this first
// one and those that follow when it has ended, starts with one Exec and one
// Dial. The caller ends it with Close.
func Connect(ctx context.Context, exec Exec, dial Dial, td spiffeid.TrustDomain) (*Server, error) {
	// The name is for messages only: dial knows where to go.
	conn, err := grpc.NewClient("passthrough:///"+td.Name(),
		grpc.WithTransportCredentials(newAdminCredentials(exec, td)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }),
		// A server that was away is to be found soon after it is back.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 20 * time.Second,
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to SPIRE server of %s: %w", td, err)
	}
	s := &Server{
		td:            td,
		conn:          conn,
		bundles:       bundlev1.NewBundleClient(conn),
		relationships: trustdomainv1.NewTrustDomainClient(conn),
		agents:        agentv1.NewAgentClient(conn),
		entries:       entryv1.NewEntryClient(conn),
		authorities:   localauthorityv1.NewLocalAuthorityClient(conn),
	}
	// Counting bundles is the least that only an admin may do.
	if _, err := s.bundles.CountBundles(ctx, &bundlev1.CountBundlesRequest{}); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to SPIRE server of %s: %w", td, ended(err)), s.Close())
	}
	return s, nil
}

// Close ends the connection, and with it every call that is under way.
func (s *Server) Close() error {
	if err := s.conn.Close(); err != nil {
		return fmt.Errorf("disconnect from SPIRE server of %s: %w", s.td, err)
	}
	return nil
}

// NotFoundError says that the server answered and does not have what it was
// asked for.
type NotFoundError struct{ Err error }

func (e *NotFoundError) Error() string { return e.Err.Error() }

func (e *NotFoundError) Unwrap() error { return e.Err }

// wrap says what was being done when err came; nil stays nil.
func (s *Server) wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	wrapped := fmt.Errorf("%s on SPIRE server of %s: %w", fmt.Sprintf(format, args...), s.td, ended(err))
	if status.Code(err) == codes.NotFound {
		return &NotFoundError{Err: wrapped}
	}
	return wrapped
}

// endedError is a call that ended with its context, which gRPC tells by a code
// alone.
type endedError struct{ err, cause error }

func (e *endedError) Error() string { return e.err.Error() }

func (e *endedError) Unwrap() []error { return []error{e.err, e.cause} }

// ended makes errors.Is find the end of a context in what gRPC says.
func ended(err error) error {
	switch status.Code(err) {
	case codes.Canceled:
		return &endedError{err, context.Canceled}
	case codes.DeadlineExceeded:
		return &endedError{err, context.DeadlineExceeded}
	}
	return err
}

// statusError returns what a batch call says about one of its items; nil if it
// went well.
func statusError(s *types.Status) error {
	return status.Error(codes.Code(s.GetCode()), s.GetMessage())
}

// pageSize keeps a page far below the 4 MiB that gRPC accepts in one message.
const pageSize = 200

// collect reads page after page of a list until there is no further one.
func collect[T any](page func(token string) (items []T, next string, err error)) ([]T, error) {
	var all []T
	for token := ""; ; {
		items, next, err := page(token)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		if next == "" {
			return all, nil
		}
		token = next
	}
}
