package identity

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// ConnectBound is the longest that one try to connect and authenticate may
// take.
const ConnectBound = 2 * time.Second

// CallBound is the longest that one call may take, the connection and its
// handshake included. It leaves time for an answer after the longest try to
// connect, so that "not reached" and "reached, but silent" differ.
const CallBound = ConnectBound + time.Second

// Conn is a gRPC connection to one server, known by its SPIFFE ID. It
// connects with the first call, and again when the connection was lost.
type Conn struct {
	*grpc.ClientConn

	mu  sync.Mutex
	err error
}

// NewConn returns a connection to address (host:port), over which only
// server is accepted. The caller closes it.
func NewConn(address string, server spiffeid.ID, holder Holder, log *slog.Logger) (*Conn, error) {
	c := &Conn{}
	conn, err := grpc.NewClient(
		// Names are resolved by the dialer, so that their errors keep a type.
		"passthrough:///"+address,
		grpc.WithTransportCredentials(&mutual{holder: holder, log: log, server: server, ended: c.ended}),
		grpc.WithContextDialer(c.dial),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: retryDelay, Multiplier: 1, MaxDelay: retryDelay},
			MinConnectTimeout: ConnectBound,
		}),
		grpc.WithDisableServiceConfig())
	if err != nil {
		return nil, fmt.Errorf("open connection to %s: %w", address, err)
	}
	c.ClientConn = conn
	return c, nil
}

// Err returns why the last try to connect or to authenticate ended, and nil
// after one that came through. The errors that calls return carry only its
// text, so a caller that wants to tell one cause from another looks here.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *Conn) ended(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *Conn) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := connect(ctx, address)
	if err != nil {
		c.ended(err)
	}
	return conn, err
}
