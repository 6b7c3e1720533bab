package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// streams is an API server that only upgrades connections, and only to SPDY:
// the client has to fall back to it. What each stream does is the test's.
type streams struct {
	protocol string
	serve    func(map[string]httpstream.Stream)
	// count is how many streams there are before serve starts.
	count int
	// hang, when set, answers nothing until it is closed.
	hang chan struct{}
	path string
}

func (s *streams) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.hang != nil {
		<-s.hang
	}
	if r.Header.Get("Upgrade") == "websocket" {
		http.Error(w, "no websockets here", http.StatusBadRequest)
		return
	}
	s.path = r.URL.RequestURI()
	if _, err := httpstream.Handshake(r, w, []string{s.protocol}); err != nil {
		panic(err)
	}
	opened := make(chan httpstream.Stream, s.count)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, _ <-chan struct{}) error {
		opened <- stream
		return nil
	})
	if conn == nil {
		return
	}
	defer func() { _ = conn.Close() }()
	byType := map[string]httpstream.Stream{}
	for range s.count {
		stream := <-opened
		byType[stream.Headers().Get(corev1.StreamType)] = stream
	}
	s.serve(byType)
	<-conn.CloseChan()
}

func TestExec(t *testing.T) {
	tests := map[string]struct {
		stderr, status string
		err            string
		exit           bool
	}{
		"good": {status: `{"status": "Success"}`},
		"exit code": {
			stderr: strings.Repeat("x", stderrTail) + "unknown flag\n",
			status: `{"status": "Failure", "reason": "NonZeroExitCode", "message": "command failed", "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}}`,
			err:    "run spire-server in demo/x, container y: spire-server bundle show: exit code 3: …" + strings.Repeat("x", stderrTail-12) + "unknown flag",
			exit:   true,
		},
		"no such program": {
			status: `{"status": "Failure", "reason": "InternalError", "message": "no such file"}`,
			err:    "run spire-server in demo/x, container y: no such file",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &streams{protocol: "v4.channel.k8s.io", count: 3, serve: func(by map[string]httpstream.Stream) {
				_, _ = io.WriteString(by[corev1.StreamTypeStdout], "bundle")
				_, _ = io.WriteString(by[corev1.StreamTypeStderr], tt.stderr)
				_, _ = io.WriteString(by[corev1.StreamTypeError], tt.status)
				for _, stream := range by {
					_ = stream.Close()
				}
			}}
			out, err := connect(t, s).Exec(t.Context(), "demo", "x", "y", "spire-server", "bundle", "show")
			if message(err) != tt.err {
				t.Errorf("error %q\nwant  %q", message(err), tt.err)
			}
			if err == nil && string(out) != "bundle" {
				t.Errorf("stdout %q", out)
			}
			var exit *ExitError
			if errors.As(err, &exit) != tt.exit {
				t.Errorf("error is an ExitError: %t, want %t", !tt.exit, tt.exit)
			}
			if want := "/api/v1/namespaces/demo/pods/x/exec?command=spire-server&command=bundle&command=show&container=y&stderr=true&stdout=true"; s.path != want {
				t.Errorf("asked for %s, want %s", s.path, want)
			}
		})
	}
}

func TestExecEndsWithItsContext(t *testing.T) {
	s := &streams{protocol: "v4.channel.k8s.io", count: 3}
	ctx, cancel := context.WithCancelCause(t.Context())
	s.serve = func(map[string]httpstream.Stream) { cancel(errors.New("user gave up")) }
	_, err := connect(t, s).Exec(ctx, "demo", "x", "y", "sleep", "inf")
	if want := "run sleep in demo/x, container y: user gave up"; message(err) != want {
		t.Errorf("error %q, want %q", message(err), want)
	}
}

// forwarder serves port forwarding.
func forwarder(serve func(data, complaints httpstream.Stream)) *streams {
	return &streams{protocol: "portforward.k8s.io", count: 2, serve: func(by map[string]httpstream.Stream) {
		serve(by[corev1.StreamTypeData], by[corev1.StreamTypeError])
	}}
}

func TestDial(t *testing.T) {
	gone := make(chan error, 1)
	s := forwarder(func(data, complaints httpstream.Stream) {
		_, err := fmt.Fprintf(data, "port %s\n", data.Headers().Get(corev1.PortHeader))
		if err == nil {
			_, err = io.Copy(data, data)
		}
		gone <- err
		_ = complaints.Close()
	})
	conn, err := connect(t, s).Dial(t.Context(), "spire", "spire-server-0", 8081)
	if err != nil {
		t.Fatal(err)
	}
	var line [10]byte
	if _, err := io.ReadFull(conn, line[:]); err != nil || string(line[:]) != "port 8081\n" {
		t.Fatalf("read %q, error %v", line, err)
	}
	large := strings.Repeat("x", 1<<20)
	sent := make(chan error, 1)
	go func() { _, err := io.WriteString(conn, large); sent <- err }()
	back := make([]byte, len(large))
	if _, err := io.ReadFull(conn, back); err != nil || string(back) != large {
		t.Fatalf("echo differs, error %v", err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}

	if err := conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(line[:]); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read after its deadline: %v", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-gone; err != nil {
		t.Errorf("the other side saw %v, want the end of the connection", err)
	}
	if _, err := conn.Read(line[:]); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("read after close: %v", err)
	}
	if want := "/api/v1/namespaces/spire/pods/spire-server-0/portforward"; s.path != want {
		t.Errorf("asked for %s, want %s", s.path, want)
	}
}

func TestDialTellsWhyItEnded(t *testing.T) {
	tests := map[string]struct{ complaint, err string }{
		"end":              {"", "EOF"},
		"nobody is behind": {"connect: connection refused", "connect: connection refused"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := forwarder(func(data, complaints httpstream.Stream) {
				_, _ = io.WriteString(complaints, tt.complaint)
				_ = complaints.Close()
				_ = data.Close()
			})
			conn, err := connect(t, s).Dial(t.Context(), "spire", "spire-server-0", 8081)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			for range 2 {
				if _, err := conn.Read(make([]byte, 1)); message(err) != tt.err {
					t.Errorf("error %v, want %s", err, tt.err)
				}
			}
		})
	}
}

func TestDialFails(t *testing.T) {
	refuse := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		status(w, http.StatusNotFound, "NotFound", `pods "spire-server-0" not found`)
	})
	_, err := connect(t, refuse).Dial(t.Context(), "spire", "spire-server-0", 8081)
	if want := `connect to port 8081 of pod spire/spire-server-0: `; err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "not found") {
		t.Errorf("error %v", err)
	}

	s := forwarder(nil)
	s.hang = make(chan struct{})
	c := connect(t, s)
	t.Cleanup(func() { close(s.hang) })
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("user gave up"))
	_, err = c.Dial(ctx, "spire", "spire-server-0", 8081)
	if want := "connect to port 8081 of pod spire/spire-server-0: user gave up"; message(err) != want {
		t.Errorf("error %q, want %q", message(err), want)
	}
}
