package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// databaseIDsVariable names who may reach the database itself.
const databaseIDsVariable = "ALLOWED_DATABASE_CLIENT_IDS"

// proxy lets through to a database the clients that prove an allowed ID.
//
// TLS comes first, and the database's protocol inside of it. PostgreSQL's own
// way is the other round: the client asks in PostgreSQL's protocol whether it
// may begin TLS. A proxy that knows no protocol serves every database, hears
// not one byte from a client that has not proved who it is, and needs no
// client library that can verify a SPIFFE ID: none can, they verify host names.
type proxy struct {
	database string // host:port
	clients  identity.IDs
	every    time.Duration // after which a client is verified again
	holder   identity.Holder
	log      *slog.Logger
}

// serve handles one connection until either side ends it, ctx ends, or the
// client is no longer who it was.
func (p *proxy) serve(ctx context.Context, raw net.Conn) {
	shake, cancel := context.WithTimeout(ctx, identity.ConnectBound)
	defer cancel()
	client, peer, err := identity.Accept(shake, raw, func(id spiffeid.ID) error {
		return p.clients.Check(id, databaseIDsVariable)
	}, p.holder, p.log)
	if err != nil {
		return // Accept has logged it
	}
	log := p.log.With("client", peer.ID.String(), "remote", raw.RemoteAddr().String())
	dialer := net.Dialer{Timeout: identity.ConnectBound}
	server, err := dialer.DialContext(ctx, "tcp", p.database)
	if err != nil {
		log.WarnContext(ctx, "database not reached", "error", err)
		return
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	go func() {
		state := client.ConnectionState()
		tick := time.NewTicker(p.every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if _, err := identity.Verify(&state, p.holder); err != nil {
					end(fmt.Errorf("client no longer verifies: %w", err))
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	begun := time.Now()
	sent, received, err := splice(ctx, client, server)
	log.InfoContext(ctx, "database session ended", "took", time.Since(begun).Round(time.Millisecond).String(),
		"from_client", sent, "to_client", received, "error", err)
}
