package apptest

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
)

// Run runs a server or a program until stop is called or the test ends, and
// then fails the test unless it ended without an error.
func Run(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := Ended(t, ended); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// Listen listens on a free port of this machine. The server that it is for
// closes it.
func Listen(t *testing.T) net.Listener {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// Address returns a host:port of this machine for a server that cannot choose
// one itself. The host is a loopback address of its own and the port below
// those that the system gives away, so that nobody takes it before the server
// does.
func Address(t *testing.T) string {
	t.Helper()
	host := netip.AddrFrom4([4]byte{127, byte(1 + rand.N(254)), byte(rand.N(256)), byte(1 + rand.N(254))})
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", netip.AddrPortFrom(host, 9443).String())
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return listener.Addr().String()
}
