package spiretest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/fedlab-dev/fedlab/lab/pki"
)

// Pebble is a real ACME certificate authority. It takes every name for 127.0.0.1.
type Pebble struct {
	// Directory is the URL of its ACME directory.
	Directory string
	// ServerEnv is what the environment of its clients says, as NAME=value, so that they
	// know the authority of its own certificate, and no other.
	ServerEnv []string

	// root is the authority that its certificates lead to, and env has that for it.
	root pki.Authority
	env  []string

	management string
	client     *http.Client
	process    *Process
	config     func(tlsPort int) string
	resolver   string
	dir        string
}

// NewPebble prepares a Pebble, so that its address is known before it runs.
func NewPebble(t *testing.T) *Pebble {
	t.Helper()
	p := &Pebble{dir: t.TempDir(), resolver: resolver(t)}
	Program(t, PebbleVariable)
	authority, err := pki.NewRoot("Pebble's own CA", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key, err := authority.ServingCert(nil, []netip.Addr{netip.MustParseAddr("127.0.0.1")}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, data []byte) string {
		path := filepath.Join(p.dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if p.root, err = pki.NewRoot("Pebble's root", 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	rootKey, err := p.root.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	p.env = []string{
		"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0",
		"PEBBLE_ROOT_CERTIFICATE=" + file("root.pem", p.root.CertificatePEM()), "PEBBLE_ROOT_KEY=" + file("root-key.pem", rootKey),
	}
	roots, cert, private := file("roots.pem", authority.CertificatePEM()), file("cert.pem", certificate), file("key.pem", key)
	p.ServerEnv = []string{"SSL_CERT_FILE=" + roots, "SSL_CERT_DIR=" + p.dir}
	pool := x509.NewCertPool()
	pool.AddCert(authority.Certificate)
	p.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	t.Cleanup(p.client.CloseIdleConnections)
	ports := FreePorts(t, 2)
	p.Directory, p.management = fmt.Sprintf("https://127.0.0.1:%d/dir", ports[0]), fmt.Sprintf("https://127.0.0.1:%d", ports[1])
	p.config = func(tlsPort int) string {
		// With one profile the validity is not chosen by chance.
		config, err := json.Marshal(map[string]any{"pebble": map[string]any{
			"listenAddress": fmt.Sprintf("127.0.0.1:%d", ports[0]), "managementListenAddress": fmt.Sprintf("127.0.0.1:%d", ports[1]),
			"certificate": cert, "privateKey": private, "tlsPort": tlsPort, "keyAlgorithm": "ecdsa",
			"profiles": map[string]any{"default": map[string]any{"description": "a quarter", "validityPeriod": 90 * 24 * 3600}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return file("pebble.json", config)
	}
	return p
}

// Start runs it until the test ends, and waits until it answers. It looks for what proves
// that somebody has a name on tlsPort.
func (p *Pebble) Start(t *testing.T, tlsPort int) {
	t.Helper()
	command := exec.CommandContext(t.Context(), Program(t, PebbleVariable), "-config", p.config(tlsPort), "-dnsserver", p.resolver)
	p.process = execute(t, command, p.env)
	p.process.Await(t, func(ctx context.Context) error {
		_, err := p.get(ctx, p.Directory)
		return err
	})
}

// Log returns what it has written so far.
func (p *Pebble) Log() string { return p.process.Log() }

// Root returns the authority that its certificates lead to, as it tells: that of its files.
func (p *Pebble) Root(t *testing.T) *x509.Certificate {
	t.Helper()
	text, err := p.get(t.Context(), p.management+"/roots/0")
	if err != nil {
		t.Fatal(err)
	}
	roots, err := pki.Parse(text)
	if err != nil || len(roots) != 1 {
		t.Fatalf("roots of Pebble: %d, error %v, want one", len(roots), err)
	}
	if !roots[0].Equal(p.root.Certificate) {
		t.Errorf("Pebble's root is %s, want the one of its files", roots[0].Subject)
	}
	return roots[0]
}

func (p *Pebble) get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := p.client.Do(request)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(response.Body)
	if closed := response.Body.Close(); err == nil {
		err = closed
	}
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s: %s", url, response.Status)
	}
	return text, err
}

// resolver serves DNS over TCP, as Pebble asks it, until the test ends: each name has the
// address 127.0.0.1 and nothing else.
func resolver(t *testing.T) (address string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				if err := answer(conn); err != nil && t.Context().Err() == nil {
					t.Errorf("answer a question of DNS: %v", err)
				}
			}()
		}
	}()
	return listener.Addr().String()
}

// answer answers one question (RFC 1035, section 4.2.2).
func answer(conn net.Conn) error {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return err
	}
	packed := make([]byte, int(size[0])<<8|int(size[1]))
	if _, err := io.ReadFull(conn, packed); err != nil {
		return err
	}
	var message dnsmessage.Message
	if err := message.Unpack(packed); err != nil {
		return err
	}
	message.Response, message.Additionals = true, nil
	for _, q := range message.Questions {
		if q.Type == dnsmessage.TypeA {
			message.Answers = append(message.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class},
				Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
			})
		}
	}
	packed, err := message.Pack()
	if err != nil {
		return err
	}
	_, err = conn.Write(append([]byte{byte(len(packed) >> 8), byte(len(packed))}, packed...))
	return err
}

// Port returns the port of the bundle endpoint.
func (s *Server) Port(t *testing.T) int {
	t.Helper()
	at, err := netip.ParseAddrPort(s.BundleEndpoint[len("https://"):])
	if err != nil {
		t.Fatal(err)
	}
	return int(at.Port())
}
