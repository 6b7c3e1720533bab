package local

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/pki"
)

// TestNodesGet has an engine in whose container the command ends with a code.
func TestNodesGet(t *testing.T) {
	var mu sync.Mutex
	var container string
	var asked struct{ Cmd []string }
	var exitCode atomic.Int32
	ca, err := pki.NewRoot("of nobody", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.41") })
	mux.HandleFunc("POST /v1.41/containers/{id}/exec", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		container = r.PathValue("id")
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"Id": "exec"}`)
	})
	mux.HandleFunc("POST /v1.41/exec/exec/start", func(w http.ResponseWriter, r *http.Request) {
		// A connection that is closed before all of it was read is reset.
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		if exitCode.Load() != 0 {
			complaint := "curl: (7) Failed to connect"
			frame := append([]byte{2, 0, 0, 0}, binary.BigEndian.AppendUint32(nil, uint32(len(complaint)))...) // to stderr
			_, _ = conn.Write(append(frame, complaint...))
			return
		}
		// As curl writes it, with what it has read of the certificate before it.
		out := "404\nSubject:CN = nobody\nVersion:2\n" + string(ca.CertificatePEM())
		frame := append([]byte{1, 0, 0, 0}, binary.BigEndian.AppendUint32(nil, uint32(len(out)))...) // to stdout
		_, _ = conn.Write(append(frame, out...))
	})
	mux.HandleFunc("GET /v1.41/exec/exec/json", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"Running": false, "ExitCode": %d}`, exitCode.Load())
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	for _, name := range []string{"DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION"} {
		t.Setenv(name, "")
	}
	t.Setenv("DOCKER_HOST", "tcp://"+server.Listener.Addr().String())
	engine, err := docker.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close() })

	n := nodes{engine: engine}
	const endpoint = "https://endpoint.test:8443/"
	at := netip.MustParseAddr("10.192.1.1")
	answer, err := n.Get(t.Context(), "quotes", "market", endpoint, at)
	if err != nil || answer.Status != http.StatusNotFound || len(answer.Chain) != 1 || !answer.Chain[0].Equal(ca.Certificate) {
		t.Errorf("answer %v, error %v", answer, err)
	}
	mu.Lock()
	if container != "quotes-market-control-plane" {
		t.Errorf("asked in container %s", container)
	}
	// Whoever answers will do, with any certificate; but not for ever.
	for _, word := range []string{"curl", "--insecure", "--connect-timeout", "--max-time", "::10.192.1.1:", endpoint} {
		if !slices.Contains(asked.Cmd, word) {
			t.Errorf("the command %q lacks %s", asked.Cmd, word)
		}
	}
	mu.Unlock()
	exitCode.Store(7)
	if _, err := n.Get(t.Context(), "quotes", "market", endpoint, at); err == nil || !strings.Contains(err.Error(), "curl: (7) Failed to connect") {
		t.Errorf("when nobody answers: error %v", err)
	}
}
