package local

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fedlab-dev/fedlab/lab"
	"github.com/fedlab-dev/fedlab/lab/docker"
	"github.com/fedlab-dev/fedlab/lab/pki"
)

// here is a peer that asks by this machine's own curl, and waits for as long as a busy
// machine may need for a handshake.
func here(t *testing.T) peers {
	t.Helper()
	return peers{handshake: 3 * time.Second, answer: 4 * time.Second, run: func(ctx context.Context, node string, argv []string, s docker.Streams) error {
		if node != "quotes-market-control-plane" {
			t.Errorf("asked in %s", node)
		}
		command := exec.CommandContext(ctx, argv[0], argv[1:]...)
		command.Stderr = s.Err
		out, err := command.StdoutPipe()
		if err == nil {
			err = command.Start()
		}
		if err != nil {
			return err
		}
		_, err = io.Copy(s.Out, out)
		if err != nil {
			_ = command.Process.Kill() // nobody reads on
		}
		ended := command.Wait()
		code := (*exec.ExitError)(nil)
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(ended, &code):
			return &docker.ExitError{Command: argv, Code: code.ExitCode()}
		}
		return ended
	}}
}

// get asks from the node of cluster market.
func (p peers) get(ctx context.Context, url string, at string) (lab.Answer, error) {
	return p.Get(ctx, "quotes", "market", url, netip.MustParseAddr(at))
}

// shows checks that a chain is the one certificate of a server.
func shows(t *testing.T, chain []*x509.Certificate, server *httptest.Server) {
	t.Helper()
	if len(chain) != 1 || !chain[0].Equal(server.Certificate()) {
		t.Errorf("chain %v, want that of the server", chain)
	}
}

func addressOf(server *httptest.Server) netip.AddrPort {
	return netip.MustParseAddrPort(server.Listener.Addr().String())
}

func TestPeersGet(t *testing.T) {
	large := make([]byte, answerLimit)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			_, _ = w.Write([]byte(`{"keys":[]}`))
		case "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case "/sorry":
			http.Error(w, "sorry", http.StatusServiceUnavailable)
		case "/large":
			_, _ = w.Write(append(large, '.'))
		case "/largest":
			_, _ = w.Write(large)
		}
	}))
	t.Cleanup(server.Close)
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"/":        {http.StatusOK, `{"keys":[]}`},
		"/largest": {http.StatusOK, string(large)},
		"/moved":   {http.StatusFound, "<a href=\"/\">Found</a>.\n\n"},
		"/sorry":   {http.StatusServiceUnavailable, "sorry\n"},
	} {
		answer, err := here(t).get(t.Context(), server.URL+path, "127.0.0.1")
		if err != nil || answer.Status != want.status || string(answer.Body) != want.body {
			t.Errorf("%s: status %d and %d bytes, error %v, want %d and %d bytes", path, answer.Status, len(answer.Body), err, want.status, len(want.body))
		}
		shows(t, answer.Chain, server)
	}
	if answer, err := here(t).get(t.Context(), server.URL+"/large", "127.0.0.1"); err == nil || err.Error() != "the answer has more than 1048576 bytes" {
		t.Errorf("%d bytes, error %v", len(answer.Body), err)
	}
	server.Close()
	var hanging *lab.HangingError
	if _, err := here(t).get(t.Context(), server.URL, "127.0.0.1"); err == nil || errors.As(err, &hanging) || !strings.HasPrefix(err.Error(), "curl: (7) Failed to connect to 127.0.0.1 port ") {
		t.Errorf("when nobody listens: %v", err)
	}
}

// TestPeersGetByName: a server is asked for by the name in the URL, which nobody looks
// up, at an address of either kind.
func TestPeersGetByName(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		var mu sync.Mutex
		var name string
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Minute}, TLS: &tls.Config{
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				mu.Lock()
				defer mu.Unlock()
				name = hello.ServerName
				return nil, nil //nolint:nilnil // that is how the one it has is kept
			},
		}}
		server.StartTLS()
		t.Cleanup(server.Close)
		answer, err := here(t).get(t.Context(), fmt.Sprintf("https://endpoint.test:%d/", addressOf(server).Port()), host)
		if err != nil || answer.Status != http.StatusNotFound {
			t.Errorf("%s: status %d, error %v", host, answer.Status, err)
		}
		shows(t, answer.Chain, server)
		mu.Lock()
		if name != "endpoint.test" {
			t.Errorf("%s: asked for %q", host, name)
		}
		mu.Unlock()
		chain, err := here(t).Presented(t.Context(), "quotes", "market", addressOf(server))
		if err != nil {
			t.Errorf("%s: %v", host, err)
		}
		shows(t, chain, server)
	}
}

// TestPeersGetFromWhoHangs tells a server that takes requests and does not answer, or
// not to the end, from one with which there is no connection.
func TestPeersGetFromWhoHangs(t *testing.T) {
	over := make(chan struct{})
	answering := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/half" {
			_, _ = w.Write([]byte(`{"keys":`))
			_ = http.NewResponseController(w).Flush()
		}
		<-over
	}))
	t.Cleanup(answering.Close)
	t.Cleanup(func() { close(over) })
	deaf, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = deaf.Close() })

	for name, tt := range map[string]struct {
		url     string
		hanging bool
	}{
		"no answer":        {answering.URL, true},
		"half an answer":   {answering.URL + "/half", true},
		"no TLS handshake": {"https://" + deaf.Addr().String(), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := here(t)
			answer, err := p.get(t.Context(), tt.url, "127.0.0.1")
			var hanging *lab.HangingError
			if err == nil || errors.As(err, &hanging) != tt.hanging {
				t.Fatalf("error %v", err)
			}
			if !tt.hanging {
				if want := "curl: (28) "; !strings.HasPrefix(err.Error(), want) || answer.Chain != nil {
					t.Errorf("chain %v, error %v, want %s…", answer.Chain, err, want)
				}
				return
			}
			if want := (&lab.HangingError{URL: tt.url, Within: p.answer}); !reflect.DeepEqual(hanging, want) {
				t.Errorf("error %v, want %v", hanging, want)
			}
			shows(t, answer.Chain, answering)
		})
	}
	t.Run("nobody waits any more", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := here(t).get(ctx, answering.URL, "127.0.0.1")
		if hanging := (*lab.HangingError)(nil); errors.As(err, &hanging) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
		}
	})
}

// TestPeersPresented: the chain is told of whoever ends a handshake, whatever
// certificate it wants of the client and whatever it speaks, and gets no request.
func TestPeersPresented(t *testing.T) {
	for name, config := range map[string]*tls.Config{
		"anybody":               {},
		"who has a certificate": {ClientAuth: tls.RequireAnyClientCert},
		"who speaks a protocol with another name": {NextProtos: []string{"ours"}},
		"by TLS 1.2": {MaxVersion: tls.VersionTLS12}, //nolint:gosec // what others may still have
	} {
		t.Run("for "+name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("it got %s %s", r.Method, r.URL) }))
			server.TLS = config
			server.Config.ErrorLog = nil
			server.StartTLS()
			t.Cleanup(server.Close)
			chain, err := here(t).Presented(t.Context(), "quotes", "market", addressOf(server))
			if err != nil {
				t.Fatal(err)
			}
			shows(t, chain, server)
		})
	}
	t.Run("several certificates", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		root, err := pki.NewRoot("above", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		other := httptest.NewTLSServer(nil)
		t.Cleanup(other.Close)
		pair := other.TLS.Certificates[0]
		pair.Certificate = append([][]byte{pair.Certificate[0]}, root.Certificate.Raw)
		server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
		server.StartTLS()
		t.Cleanup(server.Close)
		chain, err := here(t).Presented(t.Context(), "quotes", "market", addressOf(server))
		if err != nil || len(chain) != 2 || !chain[1].Equal(root.Certificate) {
			t.Errorf("chain %v, error %v", chain, err)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewTLSServer(nil)
		at := addressOf(server)
		server.Close()
		if chain, err := here(t).Presented(t.Context(), "quotes", "market", at); err == nil || !strings.HasPrefix(err.Error(), "curl: (7) Failed to connect to 127.0.0.1 port ") {
			t.Errorf("chain %v, error %v", chain, err)
		}
	})
}

// TestPeersWithoutCurl: what is not curl's answer is told as it is.
func TestPeersWithoutCurl(t *testing.T) {
	missing := &docker.ExitError{Command: []string{"curl"}, Code: 127}
	p := peers{run: func(_ context.Context, _ string, _ []string, s docker.Streams) error {
		_, err := io.WriteString(s.Err, "exec: \"curl\": executable file not found in $PATH\n")
		return errors.Join(err, missing)
	}}
	_, err := p.get(t.Context(), "https://endpoint.test/", "127.0.0.1")
	if want := `curl: exit code 127: exec: "curl": executable file not found in $PATH`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// TestPeersInANode has an engine in whose container the command ends with a code.
func TestPeersInANode(t *testing.T) {
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
		write := func(stream byte, text string) {
			frame := append([]byte{stream, 0, 0, 0}, binary.BigEndian.AppendUint32(nil, uint32(len(text)))...)
			_, _ = conn.Write(append(frame, text...))
		}
		const stdout, stderr = 1, 2
		if exitCode.Load() != 0 {
			write(stderr, "000 0.000000 0.000000\nFailed to connect\n")
			return
		}
		write(stdout, "not here")
		// As curl writes it, with what it has read of the certificate before it.
		write(stderr, "404 0.020000 0.025000\n\nSubject:CN = nobody\nVersion:2\n"+string(ca.CertificatePEM()))
	})
	mux.HandleFunc("GET /v1.41/exec/exec/json", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"Running": false, "ExitCode": %d}`, exitCode.Load())
	})
	engine := engineOf(t, mux)

	p := peers{run: engine.Run, handshake: handshakeBound, answer: answerBound}
	answer, err := p.get(t.Context(), "https://endpoint.test:8443/", "10.192.1.1")
	if err != nil || answer.Status != http.StatusNotFound || answer.Took != 25*time.Millisecond || string(answer.Body) != "not here" || len(answer.Chain) != 1 || !answer.Chain[0].Equal(ca.Certificate) {
		t.Errorf("answer %v, error %v", answer, err)
	}
	mu.Lock()
	if container != "quotes-market-control-plane" || strings.Join(asked.Cmd[:2], " ") != "curl --disable" {
		t.Errorf("asked in container %s by %q", container, asked.Cmd)
	}
	mu.Unlock()
	exitCode.Store(7)
	if _, err := p.get(t.Context(), "https://endpoint.test:8443/", "10.192.1.1"); err == nil || err.Error() != "curl: (7) Failed to connect" {
		t.Errorf("when nobody answers: error %v", err)
	}
}
