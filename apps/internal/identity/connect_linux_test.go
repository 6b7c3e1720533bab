package identity

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// busy returns a server that answers no packet of a new connection, since its queue is
// full, until it is told to accept.
func busy(t *testing.T) (address string, accept func()) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "busy")
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	listener, err := net.FileListener(f)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	address = listener.Addr().String()
	for range 10 {
		dialer := net.Dialer{Timeout: 50 * time.Millisecond}
		conn, err := dialer.DialContext(t.Context(), "tcp", address)
		if err != nil {
			return address, func() {
				for range 20 {
					if conn, err := listener.Accept(); err == nil {
						t.Cleanup(func() { _ = conn.Close() })
					}
				}
			}
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("the queue of the server is not full after ten connections")
	return "", nil
}

// TestConnectAgain: the kernel itself would send the next packet after a second.
func TestConnectAgain(t *testing.T) {
	address, accept := busy(t)
	began := time.Now()
	time.AfterFunc(firstTry/2, func() { go accept() })
	conn, err := connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if took := time.Since(began); took < firstTry || took > 950*time.Millisecond {
		t.Errorf("it took %s", took)
	}
}
