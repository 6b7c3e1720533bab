package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/process"
	"github.com/fedlab-dev/fedlab/apps/stock-quotes/quotes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// newServer answers quotes of market on listener to the clients that s allows.
func newServer(listener net.Listener, holder identity.Holder, s settings, market *market, log *slog.Logger) process.Server {
	server := grpc.NewServer(
		grpc.Creds(identity.ServerCredentials(holder, log)),
		grpc.UnaryInterceptor(allow(s.clients, log)),
		grpc.ConnectionTimeout(5*time.Second),
		grpc.MaxRecvMsgSize(4096), // a request is empty
		grpc.MaxConcurrentStreams(16),
		// A handshake says what was true then. A client whose SVID expired,
		// or whose bundle is gone since, must not stay connected for ever.
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge:      s.reauthenticate,
			MaxConnectionAgeGrace: 3 * time.Second,
		}))
	quotes.RegisterStockQuotesServer(server, &answerer{market: market})
	return process.Server{
		Serve: func() error {
			// ErrServerStopped: it was told to stop before it had begun.
			if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				return fmt.Errorf("serve quotes on %s: %w", listener.Addr(), err)
			}
			return nil
		},
		Drain: func() error { server.GracefulStop(); return nil },
		Stop:  func() error { server.Stop(); return nil },
	}
}

// allow lets in exactly the clients of allowed. TLS has proved by now who the
// caller is; the answer to anyone else names nobody but the caller.
func allow(allowed identity.IDs, log *slog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		client, ok := identity.PeerFromContext(ctx)
		if !ok {
			return nil, status.Error(codes.Unauthenticated, "the caller has proved no identity")
		}
		if _, ok := allowed[client.ID]; !ok {
			log.WarnContext(ctx, "client not allowed", "spiffe_id", client.ID.String(), "allowed", allowed.String())
			return nil, status.Errorf(codes.PermissionDenied, "%s may not ask for quotes", client.ID)
		}
		return next(ctx, request)
	}
}

type answerer struct {
	quotes.UnimplementedStockQuotesServer
	market *market
}

func (s *answerer) Quotes(context.Context, *quotes.QuotesRequest) (*quotes.QuotesResponse, error) {
	return &quotes.QuotesResponse{Quotes: s.market.quotes()}, nil
}
