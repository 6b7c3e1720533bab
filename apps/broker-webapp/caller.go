package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/fedlab-dev/fedlab/apps/internal/identity"
	"github.com/fedlab-dev/fedlab/apps/stock-quotes/quotes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
)

// answer is what the quotes server said, and who that was.
type answer struct {
	quotes  []quote
	changed time.Time // when the quotes last differed from those before
	peer    identity.Peer
}

// quote is one line of the grid.
type quote struct {
	Symbol      string    `json:"symbol"`
	Company     string    `json:"company"`
	PriceCents  int64     `json:"priceCents"`
	ChangeCents int64     `json:"changeCents"`
	Moved       time.Time `json:"moved"`
}

// caller calls the quotes server, one call at a time. It keeps the connection
// while calls succeed, but no longer than a handshake stands for: only a new
// one notices what has changed since, an SVID renewed or an authority revoked.
type caller struct {
	settings settings
	holder   identity.Holder
	now      func() time.Time
	log      *slog.Logger

	conn  *identity.Conn
	since time.Time
	last  answer
}

// call asks for quotes. The errors it returns keep the types by which package
// diagnosis tells causes apart.
func (c *caller) call(ctx context.Context) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, identity.CallBound)
	defer cancel()
	got, err := c.ask(ctx)
	if err != nil {
		return answer{}, fmt.Errorf("ask %s for quotes: %w", c.settings.address, errors.Join(err, c.hangUp()))
	}
	got.changed = c.last.changed
	if !slices.Equal(got.quotes, c.last.quotes) {
		got.changed = c.now()
	}
	c.last = got
	return got, nil
}

func (c *caller) ask(ctx context.Context) (answer, error) {
	if err := identity.Check(c.holder, c.now()); err != nil {
		return answer{}, err
	}
	if err := c.connect(); err != nil {
		return answer{}, err
	}
	var answered peer.Peer
	response, err := quotes.NewStockQuotesClient(c.conn).Quotes(ctx, &quotes.QuotesRequest{}, grpc.Peer(&answered))
	if err != nil {
		if cause := c.conn.Err(); cause != nil {
			return answer{}, cause
		}
		return answer{}, err
	}
	server, ok := identity.PeerOf(&answered)
	if !ok {
		return answer{}, errors.New("read who answered: the connection is not authenticated")
	}
	got := answer{peer: server}
	for _, q := range response.GetQuotes() {
		got.quotes = append(got.quotes, quote{
			Symbol:      q.GetSymbol(),
			Company:     q.GetCompany(),
			PriceCents:  q.GetPriceCents(),
			ChangeCents: q.GetChangeCents(),
			Moved:       q.GetMoved().AsTime(),
		})
	}
	return got, nil
}

// connect makes a connection if there is none that is young enough.
func (c *caller) connect() (err error) {
	if c.conn != nil {
		if c.now().Sub(c.since) < c.settings.reauthenticate {
			return nil
		}
		if err := c.hangUp(); err != nil {
			return err
		}
	}
	c.conn, err = identity.NewConn(c.settings.address, c.settings.server, c.holder, c.log)
	c.since = c.now()
	return err
}

// hangUp closes the connection, if there is one. After a failed call the next
// one starts again, without what gRPC would wait before it connects again.
func (c *caller) hangUp() error {
	if c.conn == nil {
		return nil
	}
	conn := c.conn
	c.conn = nil
	return conn.Close()
}
