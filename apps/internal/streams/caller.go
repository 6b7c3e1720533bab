package streams

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/diagnosis"
	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/internal/service"
	"github.com/fedlab-dev/fedlab/lab/traffic"
)

// PartyOf returns what a record has of peer.
func PartyOf(peer identity.Peer) traffic.Party {
	return traffic.Party{ID: peer.ID.String(), Serial: peer.Serial, NotAfter: peer.NotAfter, Authority: peer.VerifiedBy.SubjectKeyID}
}

// caller makes the calls of one order, one at a time.
type caller struct {
	order  traffic.Order
	client identity.Client
	now    func() time.Time
	kept   *identity.HTTPConn // the last connection, if it is to be kept
	// Both sides of the last call: those of the next one are mostly the same, and
	// a record need not hold them twice.
	lastServer, lastClient *traffic.Party
}

func newCaller(order traffic.Order, holder identity.Holder, now func() time.Time) (*caller, error) {
	server, err := identity.ParseID(order.Server)
	if err != nil {
		return nil, err
	}
	// The record has what a log would say of each handshake.
	client := identity.Client{Server: server, Holder: holder, Log: slog.New(slog.DiscardHandler)}
	if order.Connection == traffic.Resumed {
		client.Sessions = tls.NewLRUClientSessionCache(1)
	}
	return &caller{order: order, client: client, now: now}, nil
}

func (c *caller) make(ctx context.Context) (call traffic.Call) {
	ctx, cancel := context.WithTimeout(ctx, c.order.Within)
	defer cancel()
	call.Outcome = traffic.Answered
	if err := c.ask(ctx, &call); err != nil {
		call.Outcome, call.Detail = traffic.Outcome(diagnosis.Classify(err)), err.Error()
	}
	return call
}

func (c *caller) ask(ctx context.Context, call *traffic.Call) error {
	conn, err := c.connection(ctx)
	var notAccepted *identity.NotAcceptedError
	if errors.As(err, &notAccepted) {
		c.lastServer = same(c.lastServer, PartyOf(notAccepted.Peer))
		call.Server = c.lastServer
	}
	if err != nil {
		return err
	}
	if conn != c.kept {
		defer func() { _ = conn.Close() }() // the call is over by then
	}
	c.lastServer = same(c.lastServer, PartyOf(conn.Peer))
	call.Server, call.Resumed = c.lastServer, conn.Resumed
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.order.Address+"/", nil)
	if err != nil {
		return err
	}
	response, err := conn.RoundTrip(request)
	if err != nil {
		return err
	}
	var seen traffic.Party
	if err := service.ReadJSON(response, &seen); err != nil {
		return err
	}
	if seen.ID != "" { // others than probes answer something else
		c.lastClient = same(c.lastClient, seen)
		call.Client = c.lastClient
	}
	return nil
}

// connection returns the one for the next call.
func (c *caller) connection(ctx context.Context) (*identity.HTTPConn, error) {
	if c.kept != nil && !c.kept.Lost() {
		return c.kept, nil
	}
	c.close()
	// Who resumes a session shows no SVID, so it may have expired.
	if c.order.Connection != traffic.Resumed {
		if err := identity.Check(c.client.Holder, c.now()); err != nil {
			return nil, err
		}
	}
	conn, err := c.client.Connect(ctx, c.order.Address)
	if err == nil && c.order.Connection == traffic.Kept {
		c.kept = conn
	}
	return conn, err
}

func (c *caller) close() {
	if c.kept != nil {
		_ = c.kept.Close() // it was lost, or is wanted no longer
		c.kept = nil
	}
}

func same(last *traffic.Party, next traffic.Party) *traffic.Party {
	if last != nil && *last == next {
		return last
	}
	return &next
}
