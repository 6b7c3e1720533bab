package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
)

// TCP is a Server that gives each connection on listener to handle, which may
// keep it for as long as it likes, but no longer than its context. The
// connection is closed when handle returns.
func TCP(listener net.Listener, handle func(context.Context, net.Conn)) Server {
	ctx, stop := context.WithCancel(context.Background())
	var open sync.WaitGroup
	return Server{
		Serve: func() error {
			for {
				conn, err := listener.Accept()
				if errors.Is(err, net.ErrClosed) {
					return nil
				}
				if err != nil {
					return fmt.Errorf("serve TCP on %s: %w", listener.Addr(), err)
				}
				open.Go(func() {
					handle(ctx, conn)
					_ = conn.Close() // most have been closed by then
				})
			}
		},
		Drain: func() error {
			err := listener.Close()
			open.Wait()
			stop()
			return err
		},
		Stop: func() error { stop(); return nil },
	}
}
