package lab

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/access"
	"github.com/fedlab-dev/fedlab/lab/topology"
)

// endless is a pod that answers with as much text as somebody reads.
type endless struct {
	access.Pods
	written chan int
}

func (endless) Named(context.Context, string, map[string]string) ([]string, error) {
	return []string{"web-0"}, nil
}

func (e endless) Dial(context.Context, string, string, int) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() {
		// The request, of which nothing matters.
		_, _ = theirs.Read(make([]byte, 4096))
		n, err := io.WriteString(theirs, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\"")
		for err == nil && n < 1<<30 {
			var more int
			more, err = io.WriteString(theirs, strings.Repeat("x", 64<<10))
			n += more
		}
		e.written <- n
	}()
	return ours, nil
}

// TestAskIsBounded: what a program answers may be anything, and without end.
func TestAskIsBounded(t *testing.T) {
	e := endless{written: make(chan int, 1)}
	_, err := (&Driver{}).ask(t.Context(), e, &topology.Workload{Name: "web", Member: &topology.Member{}}, "/api")
	if want := "ask web for /api: the answer is longer than 1048576 bytes"; err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
	if n := <-e.written; n > 4<<20 {
		t.Errorf("%d bytes were read", n)
	}
}
