package process

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// short is a listener that cannot accept for a while.
type short struct {
	net.Listener
	err   error
	fails int // negative: for ever
	asked chan struct{}
}

func (s *short) Accept() (net.Conn, error) {
	if s.fails == 0 {
		return s.Listener.Accept()
	}
	s.fails--
	select {
	case s.asked <- struct{}{}:
	default:
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: s.Addr(), Err: os.NewSyscallError("accept4", s.err)}
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

// TestAServerOutlivesAShortage: a server of TCP connections goes on when there
// was no file descriptor for some of them.
func TestAServerOutlivesAShortage(t *testing.T) {
	for _, err := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED} {
		var log strings.Builder
		listener := newPatient(&short{Listener: listen(t), err: err, fails: 4}, slog.New(slog.NewTextHandler(&log, nil)))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- TCP(listener, func(_ context.Context, conn net.Conn) { _, _ = conn.Write([]byte("x")) }).Run(ctx)
		}()
		var dialer net.Dialer
		conn, dialErr := dialer.DialContext(t.Context(), "tcp", listener.Addr().String())
		if dialErr != nil {
			t.Fatal(dialErr)
		}
		if n, readErr := conn.Read(make([]byte, 1)); n != 1 {
			t.Errorf("%v: no answer: %v", err, readErr)
		}
		_ = conn.Close()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 4 || !strings.HasSuffix(lines[0], "again_in=5ms") || !strings.HasSuffix(lines[3], "again_in=40ms") || !strings.Contains(lines[0], err.Error()) {
			t.Errorf("%v: the log is\n%s", err, log.String())
		}
	}
}

func TestAShortageDoesNotHoldUpTheEnd(t *testing.T) {
	inner := &short{Listener: listen(t), err: syscall.EMFILE, fails: -1, asked: make(chan struct{}, 1)}
	listener := newPatient(inner, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- TCP(listener, func(context.Context, net.Conn) {}).Run(ctx) }()
	<-inner.asked
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("the server did not stop")
	}
}

func TestOtherErrorsOfAcceptEndAServer(t *testing.T) {
	listener := newPatient(&short{Listener: listen(t), err: syscall.EINVAL, fails: 1}, slog.New(slog.DiscardHandler))
	err := TCP(listener, func(context.Context, net.Conn) {}).Serve()
	if !errors.Is(err, syscall.EINVAL) || !strings.HasPrefix(err.Error(), "serve TCP on 127.0.0.1:") {
		t.Errorf("error is %v", err)
	}
	if err := listener.Close(); err != nil {
		t.Error(err)
	}
	if _, err := listener.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error after Close is %v", err)
	}
}
