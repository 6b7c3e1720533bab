package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/apptest"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/stock-quotes/quotes"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// pair is a quotes server of cluster1.com and a broker of cluster2.com.
type pair struct {
	t              *testing.T
	market, broker *apptest.CA
	server, client *apptest.Holder
	settings       settings
	replies        *replies
	stop           func()
}

// newPair starts a quotes server that answers what pair.replies says.
func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, market: apptest.NewCA(t, "cluster1.com"), broker: apptest.NewCA(t, "cluster2.com"), replies: &replies{}}
	p.server = apptest.NewHolder(p.market.Issue(t, "/server"), p.market.Bundle(), p.broker.Bundle())
	p.client = apptest.NewHolder(p.broker.Issue(t, "/client"), p.market.Bundle(), p.broker.Bundle())
	p.settings = settings{
		server:         spiffeid.RequireFromString("spiffe://cluster1.com/server"),
		reauthenticate: time.Minute,
	}
	p.settings.address, p.stop = serve(t, p.server, p.replies)
	return p
}

func serve(t *testing.T, holder identity.Holder, replies *replies) (address string, stop func()) {
	t.Helper()
	listener := listen(t)
	server := grpc.NewServer(grpc.Creds(identity.ServerCredentials(holder, slog.New(slog.DiscardHandler))))
	quotes.RegisterStockQuotesServer(server, replies)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := apptest.Ended(t, served); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("serve: %v", err)
		}
	})
	return listener.Addr().String(), server.Stop
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// caller returns one that hangs up when the test ends.
func (p *pair) caller(t *testing.T, log *apptest.Log) *caller {
	t.Helper()
	c := &caller{settings: p.settings, holder: p.client, now: time.Now, log: slog.New(slog.NewTextHandler(log, nil))}
	t.Cleanup(func() {
		if err := c.hangUp(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// replies are the answers of a quotes server: a price that counts the calls,
// or an error.
type replies struct {
	quotes.UnimplementedStockQuotesServer
	calls atomic.Int64
	err   atomic.Pointer[error]
	hang  atomic.Bool
}

func (r *replies) fail(err error) { r.err.Store(&err) }

func (r *replies) Quotes(ctx context.Context, _ *quotes.QuotesRequest) (*quotes.QuotesResponse, error) {
	price := r.calls.Add(1)
	if r.hang.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err := r.err.Load(); err != nil {
		return nil, *err
	}
	return &quotes.QuotesResponse{Quotes: []*quotes.Quote{{
		Symbol: "ACRN", Company: "Acorn Foods", PriceCents: price, ChangeCents: -1, Moved: timestamppb.New(time.Unix(price, 0)),
	}}}, nil
}
