package process

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// How long a listener waits before it accepts again after an error that passes:
// the wait doubles with each error that follows, up to the longest. These are the
// figures of net/http.
const (
	firstPause   = 5 * time.Millisecond
	longestPause = time.Second
)

// Listen opens a TCP listener on address (":8080"). What keeps it from accepting
// for a while, such as too many open files, it waits out, and logs: a server
// whose Accept fails ends, and takes its open connections with it.
func Listen(ctx context.Context, address string, log *slog.Logger) (net.Listener, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return newPatient(listener, log), nil
}

// patient is a listener whose Accept fails only for good.
type patient struct {
	net.Listener
	log *slog.Logger

	closed chan struct{}
	close  func()
}

func newPatient(listener net.Listener, log *slog.Logger) *patient {
	closed := make(chan struct{})
	return &patient{Listener: listener, log: log, closed: closed, close: sync.OnceFunc(func() { close(closed) })}
}

func (p *patient) Accept() (net.Conn, error) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		conn, err := p.Listener.Accept()
		if err == nil || !passes(err) {
			return conn, err
		}
		p.log.WarnContext(context.Background(), "connection not accepted", "listen", p.Addr().String(), "error", err, "again_in", pause.String())
		select {
		case <-time.After(pause):
		case <-p.closed:
			return nil, &net.OpError{Op: "accept", Net: p.Addr().Network(), Addr: p.Addr(), Err: net.ErrClosed}
		}
	}
}

// Close also ends the wait of an Accept.
func (p *patient) Close() error {
	p.close()
	return p.Listener.Close()
}

// passes reports whether an error of Accept says that the process or the machine
// is short of something, or that the client left before it was accepted.
func passes(err error) bool {
	return slices.ContainsFunc([]error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR,
	}, func(short error) bool { return errors.Is(err, short) })
}
