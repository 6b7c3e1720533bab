package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// DefaultSocket is where the charts mount the agent's socket.
const DefaultSocket = "unix:///run/spire/agent-sockets/spire-agent.sock"

// SocketVariable is the environment variable that the Workload Endpoint
// standard (section 4) names for the address of the Workload API.
const SocketVariable = workloadapi.SocketEnv

// Hint marks the identity that is meant for a demo program. A workload may have
// several, one for each registration that fits it, and their order says nothing
// (Workload API, section 5.2.1); a registration of the whole cluster, as many
// charts bring along, is enough for that.
const Hint = "fedlab"

// retryDelay is the pause between two tries to reach the Workload API. Two
// pauses can follow each other, one of the gRPC channel and one of the watch,
// so an identity is received at most about a second after it can be had.
const retryDelay = 400 * time.Millisecond

// Source holds the newest X509-SVID and bundles that the Workload API handed
// out. Unlike workloadapi.X509Source it exists before there is an identity,
// so that a program can serve, and say what it waits for, in the meantime.
//
// When the Workload API goes away or stops answering, Source keeps what it
// has, as workloadapi.X509Source does: an SVID that has not expired stays
// good while its agent restarts.
//
// It implements x509svid.Source and x509bundle.Source.
type Source struct {
	socket string
	log    *slog.Logger
	ready  chan struct{}

	mu      sync.Mutex
	current *workloadapi.X509Context
	cause   error // of the last failed watch; nil once an update came
}

// NewSource returns a Source of what the Workload API at socket hands out,
// such as DefaultSocket. Nothing is received before Run.
func NewSource(socket string, log *slog.Logger) (*Source, error) {
	if err := workloadapi.ValidateAddress(socket); err != nil {
		return nil, fmt.Errorf("read Workload API address %q: %w", socket, err)
	}
	return &Source{socket: socket, log: log, ready: make(chan struct{})}, nil
}

// Run follows the Workload API until ctx ends, and then returns nil. The
// socket may appear, vanish and return at any time.
func (s *Source) Run(ctx context.Context) error {
	return follow(ctx, s.socket, func(client *workloadapi.Client) {
		_ = client.WatchX509Context(ctx, watcher{s, ctx.Done()}) // the watcher is told
	})
}

// follow watches the Workload API at socket until ctx ends.
func follow(ctx context.Context, socket string, watch func(*workloadapi.Client)) (err error) {
	pace := backoff.Config{BaseDelay: retryDelay, Multiplier: 1, MaxDelay: retryDelay}
	client, err := workloadapi.New(ctx,
		workloadapi.WithAddr(socket),
		workloadapi.WithBackoffStrategy(steady{}),
		workloadapi.WithDialOptions(grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           pace,
			MinConnectTimeout: time.Second,
		})))
	if err != nil {
		return fmt.Errorf("open Workload API at %s: %w", socket, err)
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	// The client ends a watch for good on two codes (Canceled and
	// InvalidArgument); a workload that is to outlive its agent begins again.
	for ctx.Err() == nil {
		watch(client)
		select {
		case <-ctx.Done():
		case <-time.After(retryDelay):
		}
	}
	return nil
}

// Ready is closed once the first identity has been received.
func (s *Source) Ready() <-chan struct{} { return s.ready }

// GetX509SVID returns the newest SVID that has the hint Hint, or the newest first
// one where none has, expired or not, or a *MissingError.
func (s *Source) GetX509SVID() (*x509svid.SVID, error) {
	held, err := s.held()
	if err != nil {
		return nil, err
	}
	return Meant(held), nil
}

// Meant returns the first SVID that has the hint Hint, or the first one where none has.
func Meant(held *workloadapi.X509Context) *x509svid.SVID {
	i := slices.IndexFunc(held.SVIDs, func(svid *x509svid.SVID) bool { return svid.Hint == Hint })
	return held.SVIDs[max(i, 0)]
}

// GetX509BundleForTrustDomain returns the newest bundle of td, or a
// *MissingError when there is no identity yet.
func (s *Source) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	held, err := s.held()
	if err != nil {
		return nil, err
	}
	return held.Bundles.GetX509BundleForTrustDomain(td)
}

// TrustDomains returns those whose bundles are held, sorted by name.
func (s *Source) TrustDomains() []spiffeid.TrustDomain {
	held, err := s.held()
	if err != nil {
		return nil
	}
	return trustDomains(held)
}

func (s *Source) held() (*workloadapi.X509Context, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return nil, &MissingError{Cause: s.cause}
	}
	return s.current, nil
}

func (s *Source) updated(next *workloadapi.X509Context) {
	s.mu.Lock()
	first := s.current == nil
	s.current, s.cause = next, nil
	s.mu.Unlock()
	if first {
		close(s.ready)
	}
	own := DocumentOf(Meant(next))
	s.log.LogAttrs(context.Background(), slog.LevelInfo, "identity received",
		append(own.attrs(), slog.Any("bundles", trustDomains(next)))...)
}

// failed says why there is no news, once for each new reason: the same one
// comes several times a second while an agent is down.
func (s *Source) failed(err error) {
	s.mu.Lock()
	same := s.cause != nil && status.Code(s.cause) == status.Code(err)
	s.cause = err
	s.mu.Unlock()
	if !same {
		s.log.LogAttrs(context.Background(), slog.LevelWarn, "no news from the Workload API",
			slog.String("socket", s.socket), slog.Any("error", err))
	}
}

func trustDomains(held *workloadapi.X509Context) []spiffeid.TrustDomain {
	var names []spiffeid.TrustDomain
	for _, bundle := range held.Bundles.Bundles() {
		names = append(names, bundle.TrustDomain())
	}
	return names
}

// watcher is the side of a Source that the Workload API client sees.
type watcher struct {
	source *Source
	ended  <-chan struct{}
}

func (w watcher) OnX509ContextUpdate(next *workloadapi.X509Context) { w.source.updated(next) }

func (w watcher) OnX509ContextWatchError(err error) {
	select {
	case <-w.ended: // our own end is no failure
	default:
		w.source.failed(err)
	}
}

// steady retries at one pace; the client's own strategy slows down to half a
// minute, which a demo would spend waiting for an agent that is already back.
type steady struct{}

func (steady) NewBackoff() workloadapi.Backoff { return steady{} }
func (steady) Next() time.Duration             { return retryDelay }
func (steady) Reset()                          {}

// MissingError says that no identity has been received yet.
type MissingError struct {
	// Cause is the Workload API's last error, nil before its first answer.
	// Its gRPC code tells an agent that knows no entry for this workload
	// (PermissionDenied) from one that is not there (Unavailable).
	Cause error
}

func (e *MissingError) Error() string {
	if e.Cause == nil {
		return "no identity yet: the Workload API has not answered"
	}
	return "no identity yet: " + e.Cause.Error()
}

func (e *MissingError) Unwrap() error { return e.Cause }

// Unregistered tells whether the Workload API answered that no entry matches
// this workload.
func (e *MissingError) Unregistered() bool {
	return status.Code(e.Cause) == codes.PermissionDenied
}
